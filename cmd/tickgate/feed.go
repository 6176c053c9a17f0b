package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tickgate/feed"
	"tickgate/feed/broker"
	"tickgate/feed/venue"
	"tickgate/gateway"
)

// feedSettings say what a feed reads and what it writes.
type feedSettings struct {
	raw      []string
	group    string
	template string
	symbols  int

	stateBytes  int64 // retention of each symbol's Kafka topic
	replication int
}

func (s *feedSettings) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&s.raw, "raw", []string{"binance"}, "what to normalize: `VENUE` (from Kafka topic raw.VENUE) or VENUE=KAFKATOPIC, ...; venues: "+venueNames())
	f.StringVar(&s.group, "group", "tickgate", "consumer group that the feeds share")
	f.StringVar(&s.template, "symbol-template", "", "how symbols are called; {symbol} by default, {symbol}.{venue} with several raw topics")
	f.IntVar(&s.symbols, "symbols-max", 10_000, "most symbols that are ever made")
	f.Int64Var(&s.stateBytes, "state-bytes", 64<<20, "retention of each symbol's Kafka topic, by size")
	f.IntVar(&s.replication, "replication", 0, "replicas of the Kafka topics that are created; the cluster's default by default")
}

func (s *feedSettings) rawTopics() ([]feed.RawTopic, error) {
	var list []feed.RawTopic
	for _, text := range s.raw {
		name, kafkaTopic, named := strings.Cut(text, "=")
		v, ok := venue.Lookup(name)
		if !ok {
			return nil, fmt.Errorf("%w: --raw %q: venue %q is unknown; want one of %s", errUsage, text, name, venueNames())
		}
		if !named {
			kafkaTopic = rawTopic(name)
		}
		list = append(list, feed.RawTopic{KafkaTopic: kafkaTopic, Venue: v})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: --raw is empty: want at least one of %s", errUsage, venueNames())
	}
	return list, nil
}

// newPipeline builds the feed on a cluster.
func (s *feedSettings) newPipeline(client *broker.Client, log *slog.Logger, reg prometheus.Registerer) (*feed.Feed, error) {
	raw, err := s.rawTopics()
	if err != nil {
		return nil, err
	}
	if s.replication < 0 || s.replication > math.MaxInt16 {
		return nil, fmt.Errorf("%w: --replication %d: want 1 to %d, or 0 for the cluster's default", errUsage, s.replication, math.MaxInt16)
	}
	if s.stateBytes < 0 {
		return nil, fmt.Errorf("%w: --state-bytes %d: want at least 64 KiB, or 0 for its default", errUsage, s.stateBytes)
	}
	pipeline, err := feed.New(feed.Options{
		Log:        client.Log(broker.LogOptions{Group: s.group, StateBytes: s.stateBytes, Replication: s.replication}),
		RawTopics:  raw,
		Template:   s.template,
		SymbolsMax: s.symbols,
		Logger:     log,
		Registerer: reg,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s", errUsage, flagOfFeedOption.Replace(err.Error()))
	}
	return pipeline, nil
}

// flagOfFeedOption gives the faults of feed.Options the names that were typed.
var flagOfFeedOption = strings.NewReplacer("feed: ", "", "RawTopics", "--raw", "Template", "--symbol-template", "SymbolsMax", "--symbols-max")

func newFeed() *cobra.Command {
	var c common
	var k kafkaSettings
	var s feedSettings
	var admin string
	cmd := &cobra.Command{
		Use:   "feed",
		Short: "Normalize raw messages into per-symbol Kafka topics",
		Long: `Reads raw venue messages from Kafka, normalizes them and writes one Kafka topic
a symbol, ticks.<SYMBOL>. Run as many as you like: they share the raw partitions
through their consumer group, and the broker fences the ones that were replaced.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := c.load(cmd)
			if err != nil {
				return err
			}
			reg := newRegistry()
			client, err := k.client(log, reg)
			if err != nil {
				return err
			}
			defer client.Close()
			pipeline, err := s.newPipeline(client, log, reg)
			if err != nil {
				return err
			}
			parts := []func(context.Context) error{pipeline.Run}
			metrics := "no metrics"
			if admin != gateway.AdminOff {
				listener, err := listen("--admin", admin)
				if err != nil {
					return err
				}
				metrics = fmt.Sprintf("metrics http://%s/metrics", listener.Addr())
				parts = append(parts, func(ctx context.Context) error { return serveAdmin(ctx, listener, reg, nil) })
			}
			fmt.Fprintf(cmd.OutOrStdout(), "feed: brokers %s, %s\n", strings.Join(k.brokers, ","), metrics)
			return together(cmd.Context(), parts...)
		},
	}
	f := cmd.Flags()
	c.flags(f)
	k.flags(f)
	s.flags(f)
	f.StringVar(&admin, "admin", "127.0.0.1:8082", "`ADDRESS` of metrics and health; off for none")
	return cmd
}

// together runs the parts until one fails or ctx is done, stops the others and
// waits for all.
func together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ends := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ends <- part(ctx) }()
	}
	var faults []error
	for range parts {
		if err := <-ends; err != nil && !errors.Is(err, context.Canceled) {
			faults = append(faults, err)
		}
		stop()
	}
	return errors.Join(faults...)
}

// listen opens a listener; the error of a taken port names the flag.
func listen(flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w; give another address with %s", err, flag)
	}
	return l, nil
}

// adminCloseTime is how long a request of the admin listener may still run
// when the process ends.
const adminCloseTime = time.Second

// serveAdmin answers /metrics, /healthz and /readyz until ctx is done. ready
// may be nil: always ready.
func serveAdmin(ctx context.Context, l net.Listener, gatherer prometheus.Gatherer, ready func() error) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ready != nil {
			if err := ready(); err != nil {
				http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ready")
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	shutdown, cancel := context.WithTimeout(context.Background(), adminCloseTime)
	defer cancel()
	if srv.Shutdown(shutdown) != nil {
		srv.Close()
	}
	<-ended
	return nil
}
