package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tickgate/codec"
	"tickgate/feed/broker"
	"tickgate/feed/follow"
	"tickgate/gateway"
	"tickgate/gateway/board"
	"tickgate/gateway/inlet"
	"tickgate/gateway/socket"
)

// serveSettings are a gateway's.
type serveSettings struct {
	listen, admin    string
	tlsCert, tlsKey  string
	stallMax         time.Duration
	drainWindow      time.Duration
	clientsMax       int
	clientsPerAddr   int
	countLoopback    bool
	upgradesPerSec   int
	symbolsPerClient int
	ringMemoryMiB    int64
	pprof            bool
	benchInlet       string
}

func (s *serveSettings) flags(f *pflag.FlagSet) {
	f.StringVar(&s.listen, "listen", "127.0.0.1:8080", "`ADDRESS` of the page and the WebSocket")
	f.StringVar(&s.admin, "admin", "127.0.0.1:8081", "`ADDRESS` of metrics and health; off for none")
	f.StringVar(&s.tlsCert, "tls-cert", "", "PEM `FILE` of the certificate to serve with; read again when it changes")
	f.StringVar(&s.tlsKey, "tls-key", "", "PEM `FILE` of its key")
	f.DurationVar(&s.stallMax, "stall-max", 30*time.Second, "how long a client may take nothing before it is closed")
	f.IntVar(&s.clientsMax, "clients-max", 0, "most clients; as many as there are file descriptors by default")
	f.IntVar(&s.clientsPerAddr, "clients-per-address", 0, "most clients of one address; 512 by default, -1 for no limit")
	f.BoolVar(&s.countLoopback, "count-loopback", false, "let clients-per-address hold for loopback too")
	f.IntVar(&s.upgradesPerSec, "upgrades-per-second", 0, "most new clients a second; 2000 by default, -1 for no limit")
	f.IntVar(&s.symbolsPerClient, "symbols-per-client", 0, "most symbols of a client; 10000 by default, -1 for no limit")
	f.Int64Var(&s.ringMemoryMiB, "ring-memory", 256, "memory for the rings of last trades, in `MIB`")
	f.BoolVar(&s.pprof, "pprof", false, "serve /debug/pprof on --admin")
}

// node is a gateway and what fills it.
type node struct {
	board  *board.Board
	filler interface{ Run(context.Context) error }
	server *gateway.Server
}

// ringMemoryMiBMax is a terabyte: more is a number of bytes by mistake, and far
// more would wrap around as one.
const ringMemoryMiBMax = 1 << 20

func (s *serveSettings) newNode(client *broker.Client, log *slog.Logger, reg *prometheus.Registry) (*node, error) {
	if (s.tlsCert == "") != (s.tlsKey == "") {
		return nil, fmt.Errorf("%w: --tls-cert and --tls-key: want both or none", errUsage)
	}
	if s.ringMemoryMiB > ringMemoryMiBMax {
		return nil, fmt.Errorf("%w: --ring-memory %d: want at most %d (MiB)", errUsage, s.ringMemoryMiB, ringMemoryMiBMax)
	}
	b, err := board.New(board.Options{RingMemory: s.ringMemoryMiB << 20})
	if err != nil {
		return nil, fmt.Errorf("%w: --ring-memory: %w", errUsage, err)
	}
	registerBoard(reg, b)
	n := &node{board: b}
	if s.benchInlet != "" {
		n.filler, err = inlet.Listen(s.benchInlet, b, log)
	} else {
		n.filler, err = follow.New(follow.Options{Client: client, Board: b, Logger: log, Registerer: reg})
	}
	if err != nil {
		return nil, err
	}
	var config *tls.Config
	if s.tlsCert != "" || s.tlsKey != "" {
		certificates, err := socket.LoadCertificates(s.tlsCert, s.tlsKey, log)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
		if config, err = socket.TLSConfig(certificates.Get); err != nil {
			return nil, err
		}
	}
	n.server, err = gateway.New(gateway.Options{
		Board: b, Listen: s.listen, Admin: s.admin, TLS: config,
		Limits: gateway.Limits{
			Connections: s.clientsMax, ConnectionsPerAddress: s.clientsPerAddr, CountLoopback: s.countLoopback,
			UpgradesPerSecond: s.upgradesPerSec, Symbols: s.symbolsPerClient,
		},
		StallMax: s.stallMax, DrainWindow: s.drainWindow, Pprof: s.pprof,
		Version: version(), Log: log, Registerer: reg, Gatherer: reg,
	})
	var taken *gateway.ListenError
	if errors.As(err, &taken) {
		return nil, fmt.Errorf("%w; give another address with --%s", err, strings.ToLower(taken.Option))
	}
	if err != nil {
		if text := flagOfOption.Replace(err.Error()); text != err.Error() {
			return nil, fmt.Errorf("%w: %s", errUsage, text)
		}
		return nil, err
	}
	return n, nil
}

// flagOfOption gives the faults of gateway.Options the names that were typed.
var flagOfOption = strings.NewReplacer("Limits.ConnectionsPerAddress", "--clients-per-address", "Limits.Connections", "--clients-max",
	"Limits.UpgradesPerSecond", "--upgrades-per-second", "Limits.Symbols", "--symbols-per-client",
	"StallMax", "--stall-max", "DrainWindow", "--drain-window")

// url is the WebSocket's.
func (s *serveSettings) url(n *node) string {
	scheme := "ws"
	if s.tlsCert != "" {
		scheme = "wss"
	}
	return scheme + "://" + n.server.Addr().String() + "/v1/ws"
}

// run serves until ctx is done, and goes on following while clients drain.
func (n *node) run(ctx context.Context) error {
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	followed := make(chan error, 1)
	go func() { followed <- n.filler.Run(following) }()
	err := n.server.Run(ctx)
	stop()
	return errors.Join(err, <-followed)
}

// registerBoard exports a board's counts.
func registerBoard(reg prometheus.Registerer, b *board.Board) {
	counter := func(name, help string, f func(board.Counts) uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tickgate_board_" + name, Help: help},
			func() float64 { return float64(f(b.Counts())) }))
	}
	gauge := func(name, help string, f func(board.Counts) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tickgate_board_" + name, Help: help},
			func() float64 { return f(b.Counts()) }))
	}
	counter("published_total", "Records taken.", func(c board.Counts) uint64 { return c.Published })
	counter("repeats_total", "Records that were not newer.", func(c board.Counts) uint64 { return c.Repeats })
	counter("refused_total", "Symbols beyond what a board can hold.", func(c board.Counts) uint64 { return c.Refused })
	gauge("topics", "Topics.", func(c board.Counts) float64 { return float64(c.Topics) })
	reg.MustRegister(boardStates{b})
	gauge("ring_bytes", "Memory of the rings of last trades.", func(c board.Counts) float64 { return float64(c.RingBytes) })
}

// boardStates exports how many topics are in each state, all states always: an
// alert on "stale" must see 0 and not nothing.
type boardStates struct{ board *board.Board }

var boardStatesDesc = prometheus.NewDesc("tickgate_board_topics_by_state", "Topics by how far they can be trusted.", []string{"state"}, nil)

func (boardStates) Describe(ch chan<- *prometheus.Desc) { ch <- boardStatesDesc }

func (s boardStates) Collect(ch chan<- prometheus.Metric) {
	n := s.board.States()
	for state := codec.StateLoading; state <= codec.StateReplay; state++ {
		ch <- prometheus.MustNewConstMetric(boardStatesDesc, prometheus.GaugeValue, float64(n[state]), state.String())
	}
}

func newServe() *cobra.Command {
	var c common
	var k kafkaSettings
	var s serveSettings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve per-symbol Kafka topics to WebSocket clients",
		Long: `Follows the Kafka topics ticks.<SYMBOL> and serves them to WebSocket clients. Run
as many as you like: they share nothing but Kafka, and a client resumes on any.

SIGTERM or Ctrl-C drains: clients are told to go and are sent away over
--drain-window. A second signal ends the process at once.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := c.load(cmd)
			if err != nil {
				return err
			}
			reg := newRegistry()
			var client *broker.Client
			if s.benchInlet == "" {
				if client, err = k.client(log, reg); err != nil {
					return err
				}
				defer client.Close()
			}
			n, err := s.newNode(client, log, reg)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "  websocket  %s\n", s.url(n))
			fmt.Fprintf(out, "  page       %s\n", pageURL(s.url(n)))
			if client != nil {
				fmt.Fprintf(out, "  brokers    %s\n", strings.Join(k.brokers, ","))
			} else {
				fmt.Fprintf(out, "  inlet      %s; no Kafka\n", s.benchInlet)
			}
			if n.server.AdminAddr() != nil {
				fmt.Fprintf(out, "  metrics    http://%s/metrics\n", n.server.AdminAddr())
			}
			return n.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	c.flags(f)
	k.flags(f)
	s.flags(f)
	f.StringVar(&s.benchInlet, "bench-inlet", "", "for benchmarks: take ticks from this process's owner at `unix:PATH` (mode 0600), not from Kafka")
	f.DurationVar(&s.drainWindow, "drain-window", 0, "over how long clients are sent away when the process is told to end")
	return cmd
}

// pageURL is the page of a gateway whose WebSocket is at url.
func pageURL(url string) string {
	return "http" + strings.TrimSuffix(strings.TrimPrefix(url, "ws"), "v1/ws")
}
