package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tickgate/bench"
	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/gateway"
	"tickgate/gateway/board"
	"tickgate/gateway/inlet"
)

// TestMain lets this test binary be a gateway with a fault, and tickbench
// itself, as processes of their own.
func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if fault, ok := os.LookupEnv("TICKBENCH_TEST_GATEWAY"); ok {
		if err := faultyGateway(ctx, fault, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv("TICKBENCH_TEST_PROCESS") == "1" {
		os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
	}
	stop()
	flag.Parse()
	code := m.Run()
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
	os.Exit(code)
}

// faultyGateway is the real gateway, whose dialect lies once in a while.
func faultyGateway(ctx context.Context, fault, inletPath string) error {
	b, err := board.New(board.Options{RingMemory: 1 << 20}) // so that a sleeper is dropped from
	if err != nil {
		return err
	}
	in, err := inlet.Listen(inlet.Scheme+inletPath, b, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	s, err := gateway.New(gateway.Options{Board: b, Listen: "127.0.0.1:0", Admin: gateway.AdminOff,
		Dialects: []codec.Dialect{&liar{Dialect: native.MsgPack, fault: fault}, native.JSON}})
	if err != nil {
		return err
	}
	addr := fmt.Sprint(s.Addr())
	if fault == "closed reader" {
		if addr, err = cutter(ctx, addr); err != nil {
			return err
		}
	}
	fmt.Println("listening", addr)
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	return errors.Join(s.Run(ctx), <-done)
}

// cutter passes connections on to addr; it ends the first one after a while.
func cutter(ctx context.Context, addr string) (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for first := true; ; first = false {
			c, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp4", addr)
			if err != nil {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(c, to); _ = c.Close() }()
			go func() { _, _ = io.Copy(to, c); _ = to.Close() }()
			if first {
				time.AfterFunc(500*time.Millisecond, func() { _ = c.Close() })
			}
		}
	}()
	return l.Addr().String(), nil
}

// liar spells what is not so, in one symbol, from its thirtieth tick on.
type liar struct {
	codec.Dialect
	fault string

	mu   sync.Mutex
	kept *codec.State
	last *codec.TradeEntry
}

const (
	liarID = 0
	liarNo = 30
)

func (l *liar) AppendTrade(dst []byte, v codec.View, id uint32, symbol string, e *codec.TradeEntry) []byte {
	if id != liarID {
		return l.Dialect.AppendTrade(dst, v, id, symbol, e)
	}
	t := *e
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.fault == "skipped seq" && t.Trade.No >= liarNo:
		t.Trade.Seq++
		t.Trade.No++
	case l.fault == "wrong total" && t.Trade.No == liarNo:
		t.Volume = t.Volume.AddDecimal(codec.MustDecimal("0.0001"))
	case l.fault == "wrong notional" && t.Trade.No == liarNo:
		t.Notional = t.Notional.AddDecimal(codec.MustDecimal("0.0001"))
	case l.fault == "repeated trade" && t.Trade.No == liarNo+1 && l.last != nil:
		t = *l.last
	case l.fault == "seq goes back" && t.Trade.No == liarNo:
		t.Trade.Seq -= 10
	}
	if e.Trade.No == liarNo {
		l.last = &t
	}
	return l.Dialect.AppendTrade(dst, v, id, symbol, &t)
}

func (l *liar) AppendState(dst []byte, c codec.Channel, v codec.View, id uint32, symbol string, s *codec.State) []byte {
	if id == liarID && l.fault == "stale final state" {
		l.mu.Lock()
		defer l.mu.Unlock()
		if s.Seq >= liarNo {
			if l.kept == nil {
				kept := *s
				l.kept = &kept
			}
			s = l.kept
		}
	}
	if id == liarID && l.fault == "wrong quote" && s.Seq >= liarNo {
		lie := *s
		lie.Quote.Bid = lie.Quote.Ask
		s = &lie
	}
	if id == liarID && l.fault == "shrinking total" && s.Seq >= liarNo {
		lie := *s
		lie.Volume = codec.Total{}
		s = &lie
	}
	return l.Dialect.AppendState(dst, c, v, id, symbol, s)
}

func (l *liar) BeginFrame(dst []byte, no uint64, sent int64) []byte {
	if l.fault == "lost frame" && no >= liarNo {
		no++
	}
	return l.Dialect.BeginFrame(dst, no, sent)
}

func (l *liar) AppendEvent(dst []byte, e *codec.Event) []byte {
	switch {
	case l.fault == "lost drop notice" && e.Type == codec.EventDrop:
		return l.Dialect.AppendEvent(dst, &codec.Event{Type: codec.EventPong})
	case l.fault == "wrong ledger" && e.Type == codec.EventLedger:
		lie := *e
		lie.Ledger.Delivered++
		lie.Ledger.Merged--
		return l.Dialect.AppendEvent(dst, &lie)
	}
	return l.Dialect.AppendEvent(dst, e)
}

// faulty is a target that runs it.
func faulty(fault string) *bench.Target {
	return &bench.Target{
		Name: "faulty", Has: []string{"batching", "conflation", "patterns", "resume"},
		Start: func(ctx context.Context, o *bench.StartOptions) (*bench.Instance, error) {
			in := &bench.Instance{Inlet: filepath.Join(o.Dir, "inlet")}
			p, got, err := bench.StartProcess(ctx, "gateway", nil, []string{os.Args[0], in.Inlet}, []string{"TICKBENCH_TEST_GATEWAY=" + fault}, `^listening (\S+)`)
			if err != nil {
				return nil, err
			}
			in.Add(p)
			in.Endpoint = bench.Endpoint{Addr: netip.MustParseAddrPort(got[0]), Path: "/v1/ws", Speak: bench.Native, Conflates: true, Ledger: true, Numbered: true}
			return in, nil
		},
	}
}

// trading is a small load on trades, watching one on the ticker, sleeping one
// that sleeps longer than the ring remembers.
func trading() *bench.Scenario {
	return &bench.Scenario{Name: "trading", Market: bench.Market{Symbols: 4, Rate: 400, Quotes: 0.25},
		Clients: []bench.Group{{Count: 8, Channel: "trades", Watch: bench.Watch{Kind: "all"}, Does: bench.Does{Kind: "reads"}}},
		Warm:    bench.Duration(100 * time.Millisecond), Measure: bench.Duration(600 * time.Millisecond)}
}

func watching() *bench.Scenario {
	s := trading()
	s.Clients[0].Channel, s.Clients[0].Every = "ticker", bench.Duration(20*time.Millisecond)
	return s
}

func sleeping() *bench.Scenario {
	return &bench.Scenario{Name: "sleeping", Market: bench.Market{Symbols: 1, Rate: 6000},
		Clients: []bench.Group{
			{Count: 4, Channel: "trades", Watch: bench.Watch{Kind: "same", Count: 1}, Does: bench.Does{Kind: "sleeps", For: bench.Duration(2 * time.Second)}},
			{Count: 2, Channel: "trades", Watch: bench.Watch{Kind: "same", Count: 1}, Does: bench.Does{Kind: "reads"}},
		},
		Warm: bench.Duration(100 * time.Millisecond), Measure: bench.Duration(3 * time.Second)}
}

// TestFaultsAreFound: for each check a gateway in which that fault is planted
// fails the run, and the same gateway without it does not.
func TestFaultsAreFound(t *testing.T) {
	for name, tt := range map[string]struct {
		scenario *bench.Scenario
		check    string // "": none may be broken
	}{
		"none, trades":      {trading(), ""},
		"none, ticker":      {watching(), ""},
		"none, sleeping":    {sleeping(), ""},
		"skipped seq":       {trading(), bench.CheckGap},
		"wrong total":       {trading(), bench.CheckTotal},
		"wrong notional":    {trading(), bench.CheckTotal},
		"shrinking total":   {watching(), bench.CheckTotal},
		"wrong quote":       {watching(), bench.CheckFinal},
		"lost frame":        {trading(), bench.CheckFrame},
		"closed reader":     {trading(), bench.CheckOpen},
		"lost drop notice":  {sleeping(), bench.CheckGap},
		"stale final state": {watching(), bench.CheckFinal},
		"repeated trade":    {trading(), bench.CheckRepeat},
		"seq goes back":     {trading(), bench.CheckOrder},
		"wrong ledger":      {trading(), bench.CheckLedger},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := bench.Do(t.Context(), tt.scenario, faulty(name), bench.Options{Seed: 7, CatchUp: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if r.Delivered == 0 || r.Checks.Finals == 0 || r.Checks.Ledgers == 0 {
				t.Fatalf("delivered %d ticks, compared %d finals and %d ledgers: nothing was tested", r.Delivered, r.Checks.Finals, r.Checks.Ledgers)
			}
			if tt.scenario.Name == "sleeping" && tt.check == "" {
				var dropped uint64
				for _, s := range r.Timeline {
					dropped += s.Dropped
				}
				if r.Sleep == nil || dropped == 0 {
					t.Fatalf("slept %+v, %d drops told: nothing was tested", r.Sleep, dropped)
				}
			}
			if tt.check == "" {
				for _, v := range r.Checks.Violations {
					t.Error(v.String())
				}
				return
			}
			if r.Checks.Counts[tt.check] == 0 {
				t.Fatalf("violations %v; want some of %s", r.Checks.Counts, tt.check)
			}
			at := slices.IndexFunc(r.Checks.Violations, func(v bench.Violation) bool { return v.Check == tt.check })
			v := r.Checks.Violations[at]
			text := v.String()
			if v.Got == "" || v.Want == "" || v.Got == v.Want || v.Symbol == "" {
				t.Errorf("%+v: want symbol and both values", v)
			}
			for _, part := range []string{tt.check, fmt.Sprintf("client %d", v.Client), v.Symbol, v.Got, v.Want} {
				if !strings.Contains(text, part) {
					t.Errorf("%s: no %q in it", text, part)
				}
			}
			t.Log(text)
		})
	}
}

func TestUnsupported(t *testing.T) {
	s := trading()
	s.Clients[0].Encoding = "json"
	if _, err := bench.Do(t.Context(), s, faulty("none"), bench.Options{}); !errors.Is(err, bench.ErrUnsupported) {
		t.Errorf("%v; want unsupported", err)
	}
}
