package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tickgate/feed/broker"
	"tickgate/feed/embedded"
	"tickgate/feed/market"
	"tickgate/feed/replay"
)

// The embedded broker keeps this much, so that memory stays flat however long
// the market plays: its raw topic, and all symbols' topics together, of which
// each has at least enough for a client to resume from.
const (
	devRawBytes      = 16 << 20
	devStateBytes    = 32 << 20
	devStateBytesMin = 128 << 10
)

func newDev() *cobra.Command {
	var c common
	var s serveSettings
	var r replaySettings
	var brokerListen, path string
	var seed uint64
	var symbols, rate int
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, with a market that plays",
		Long: `Runs an embedded broker that speaks the Kafka protocol, a feed, a gateway with a
page, and a market that plays for ever in the messages of a real venue. Feed and
gateway meet only through the broker, as they do in production; an outside Kafka
client can produce to it too.

With --file recorded ticks are replayed once instead; the gateway stays up.`,
		Example: `  tickgate dev
  tickgate dev --symbols 500 --rate 20000
  tickgate dev --file spot_btcusdt.raw.gz --venue binance --speed 10`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := c.load(cmd)
			if err != nil {
				return err
			}
			replaying, err := r.options("")
			if err != nil {
				return err
			}
			if symbols < 1 || rate < 1 {
				return fmt.Errorf("%w: --symbols %d, --rate %d: want at least 1 of each", errUsage, symbols, rate)
			}
			playing, err := market.New(market.Options{Seed: seed, Symbols: symbols, Rate: rate})
			if err != nil {
				return fmt.Errorf("%w: --symbols, --rate: %w", errUsage, err)
			}
			if path != "" {
				if _, err := os.Stat(path); err != nil {
					return fmt.Errorf("%w: --file: %w", errUsage, err)
				}
				replaying.Files = []string{path}
			}
			rawTopics := []string{"binance"}
			if r.venue != rawTopics[0] && path != "" {
				rawTopics = []string{r.venue}
			}
			d := &dev{cmd: cmd, log: log, serve: s, market: playing, replay: replaying,
				feed:    feedSettings{raw: rawTopics, group: "tickgate", symbols: 10_000},
				symbols: symbols,
				motion:  fmt.Sprintf("a market of %d symbols at %d ticks/s, seed %d", symbols, rate, seed)}
			if path != "" {
				d.motion = fmt.Sprintf("%s at speed %s", path, r.speed)
			}
			return d.run(brokerListen)
		},
	}
	f := cmd.Flags()
	c.flags(f)
	s.flags(f)
	f.StringVar(&brokerListen, "broker-listen", "127.0.0.1:9092", "`ADDRESS` of the embedded broker")
	f.Uint64Var(&seed, "seed", 1, "what decides the market")
	f.IntVar(&symbols, "symbols", 50, "symbols of the market")
	f.IntVar(&rate, "rate", 500, "ticks a second of the market")
	f.StringVar(&path, "file", "", "tick `FILE` to replay once instead of the market")
	f.StringVar(&r.venue, "venue", "binance", "whose messages the file has: "+venueNames())
	f.StringVar(&r.format, "format", "", "raw, rec or ndjson; found out from the first line by default")
	f.StringVar(&r.speed, "speed", "1", "1 is the recorded pace, 10 ten times that, max as fast as it goes")
	f.StringVar(&r.onBadLine, "on-bad-line", "stop", "stop, or skip it and count it")
	return cmd
}

// dev is everything in one process.
type dev struct {
	cmd    *cobra.Command
	log    *slog.Logger
	serve  serveSettings
	feed   feedSettings
	market *market.Market
	replay replay.Options
	motion string

	symbols int // about how many there will be
}

func (d *dev) run(brokerListen string) error {
	ctx, out := d.cmd.Context(), d.cmd.OutOrStdout()
	kafka, err := embedded.Start(embedded.Options{Listen: brokerListen})
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; give another address with --broker-listen", err)
	}
	if err != nil {
		return fmt.Errorf("--broker-listen %s: %w", brokerListen, err)
	}
	defer kafka.Close()

	reg := newRegistry()
	client, err := broker.New(broker.Options{Brokers: []string{kafka.Addr()}, Logger: d.log, Registerer: reg})
	if err != nil {
		return err
	}
	defer client.Close()
	n, err := d.serve.newNode(client, d.log, reg)
	if err != nil {
		return err
	}
	d.feed.stateBytes = max(devStateBytesMin, devStateBytes/int64(d.symbols))
	pipeline, err := d.feed.newPipeline(client, d.log, reg)
	if err != nil {
		return err
	}
	if err := client.CreateTopics(ctx, []broker.TopicSpec{{Name: d.replay.KafkaTopic, Partitions: 1, Configs: map[string]string{
		"retention.ms": "-1", "retention.bytes": fmt.Sprint(devRawBytes), "segment.bytes": fmt.Sprint(devRawBytes / 8)}}}); err != nil {
		if ctx.Err() != nil {
			return nil // interrupted
		}
		return err
	}
	writer := client.NewWriter(broker.WriterOptions{})
	defer writer.Close()

	url := d.serve.url(n)
	fmt.Fprintf(out, "tickgate dev: %s\n", d.motion)
	fmt.Fprintf(out, "  page       %s\n", pageURL(url))
	fmt.Fprintf(out, "  websocket  %s   try: tickgate tail --url %s BTCUSDT\n", url, url)
	fmt.Fprintf(out, "  broker     %s   Kafka protocol; raw messages to %s\n", kafka.Addr(), d.replay.KafkaTopic)
	if n.server.AdminAddr() != nil {
		fmt.Fprintf(out, "  metrics    http://%s/metrics\n", n.server.AdminAddr())
	}
	return together(ctx,
		pipeline.Run,
		n.run,
		func(ctx context.Context) error { return d.play(ctx, writer) },
		func(ctx context.Context) error { status(ctx, out, n); return nil },
	)
}

// play lets the market play, or replays the file once and waits.
func (d *dev) play(ctx context.Context, writer *broker.Writer) error {
	if len(d.replay.Files) == 0 {
		return d.market.Run(ctx, writer, func(err error) { d.log.Error("the market cannot write", "error", err) })
	}
	d.replay.Sink = writer
	end, err := replay.Run(ctx, d.replay)
	if err != nil {
		return err
	}
	if ctx.Err() == nil {
		fmt.Fprintln(d.cmd.OutOrStdout(), replayed(end)+"; the gateway stays up, Ctrl-C ends it")
	}
	<-ctx.Done()
	return nil
}

// replayed is how a replay went.
func replayed(p replay.Progress) string {
	s := fmt.Sprintf("replayed %d messages", p.Messages)
	if p.BadLines > 0 {
		s += fmt.Sprintf(", left out %d bad lines, the first of them: %v", p.BadLines, p.FirstBad)
	}
	return s
}

// statusPeriod is the time between two lines of what flows.
const statusPeriod = time.Second

// status prints a line a second of what flows.
func status(ctx context.Context, out io.Writer, n *node) {
	tick := time.NewTicker(statusPeriod)
	defer tick.Stop()
	before, stats := n.board.Counts(), n.server.Stats()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			counts, after := n.board.Counts(), n.server.Stats()
			fmt.Fprintf(out, "%s  %d ticks/s  %d symbols  %d clients  %d updates/s  %.1f kB/s  %d dropped\n", now.Format("15:04:05"),
				counts.Published-before.Published, counts.Topics, after.Sessions, after.Ledger.Delivered-stats.Ledger.Delivered,
				float64(after.Bytes-stats.Bytes)/1e3, after.Ledger.Dropped)
			before, stats = counts, after
		}
	}
}

// runReplay runs a replay with a progress bar on a terminal, and plain lines
// elsewhere.
func runReplay(cmd *cobra.Command, opts replay.Options) error {
	out := cmd.ErrOrStderr()
	var bar *progressbar.ProgressBar
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		bar = progressbar.NewOptions64(-1, progressbar.OptionSetWriter(out), progressbar.OptionShowBytes(true),
			progressbar.OptionSetDescription(opts.KafkaTopic), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	}
	var lineAt time.Time
	opts.Progress = func(p replay.Progress) {
		if bar != nil {
			bar.ChangeMax64(p.BytesTotal)
			bar.Describe(fmt.Sprintf("%s %d messages", opts.KafkaTopic, p.Messages))
			bar.Set64(p.Bytes)
			if p.Done {
				bar.Finish()
			}
			return
		}
		if now := time.Now(); now.Sub(lineAt) >= statusPeriod {
			lineAt = now
			fmt.Fprintf(out, "%s: %d messages, %d of %d bytes of the files\n", opts.KafkaTopic, p.Messages, p.Bytes, p.BytesTotal)
		}
	}
	end, err := replay.Run(cmd.Context(), opts)
	if err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), replayed(end)+" to "+opts.KafkaTopic)
	if cmd.Context().Err() != nil {
		fmt.Fprintln(cmd.OutOrStdout(), "interrupted; to go on, give "+goOn(end))
	}
	return nil
}
