package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"tickgate/bench"
)

// small is a scenario with all its parts, but few clients, a low rate and little
// time: what is tested is that it runs and that its checks hold.
func small(s *bench.Scenario) *bench.Scenario {
	ms := func(n int) bench.Duration { return bench.Duration(n) * bench.Duration(time.Millisecond) }
	m := &s.Market
	if m.File == "" {
		m.Symbols = max(1, m.Symbols/10)
		m.Rate = min(max(400, m.Rate/20), 1000)
	}
	if m.Burst != nil {
		m.Burst.At, m.Burst.For = ms(100), ms(100)
	}
	s.ConnectPerSecond, s.Warm, s.Measure = min(s.ConnectPerSecond, 200), ms(50), ms(400)
	for i := range s.Clients {
		g := &s.Clients[i]
		g.Count = min(max(3, g.Count/500), 10)
		g.Every = min(g.Every, ms(50)) // so that updates come within Measure
		if g.Watch.Kind != "all" {
			g.Watch.Count = max(1, min(g.Watch.Count/10, m.Symbols))
		}
		if len(s.Steps) > 0 {
			s.Steps, s.Measure = []int{g.Count / 2, g.Count}, ms(100)
		}
		g.Does.For = min(g.Does.For, ms(200))
		switch g.Does.Kind {
		case "reconnects", "resubscribes":
			g.Does.PerSecond = 20
		case "stalls": // soon so much that nothing more is sent
			m.Rate, g.Watch.Count = 2000, m.Symbols
		case "sleeps":
			s.Measure = ms(800)
		}
	}
	if s.Overload > 0 {
		m.Rate, s.OverloadLook = 1000, ms(60)
	}
	if m.File != "" {
		m.Speed, s.Measure = 1, ms(10_000) // it ends with the file
	}
	return s
}

// tape is a file of three seconds of a venue's trades.
func tape(t *testing.T) string {
	var b strings.Builder
	at := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	for i := range 300 {
		now := at.Add(time.Duration(i) * 10 * time.Millisecond)
		fmt.Fprintf(&b, `%d {"e":"trade","E":%d,"s":"%s","t":%d,"p":"100.%02d","q":"0.5","T":%d,"m":true,"M":true}`+"\n",
			now.UnixNano(), now.UnixMilli(), []string{"BTCUSDT", "ETHUSDT"}[i%2], 1000+i/2, i%100, now.UnixMilli())
	}
	path := filepath.Join(t.TempDir(), "tape.raw")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEachScenarioRuns: every load that comes with tickbench, in a small form,
// does what it is about, and all checks hold. Figures of so little time on a
// busy machine tell nothing, so an invalid run is none that failed.
func TestEachScenarioRuns(t *testing.T) {
	t.Parallel()
	all, err := bench.Scenarios()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tickgateBinary(); err != nil {
		t.Fatal(err)
	}
	dir, file := t.TempDir(), tape(t)
	type outcome struct {
		out  string
		code int
	}
	outcomes := make([]outcome, len(all))
	var wait sync.WaitGroup
	room := make(chan struct{}, 4) // they sleep most of the time
	for i, s := range all {
		b, err := yaml.Marshal(small(s))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, s.Name+".yaml")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			o := &outcomes[i]
			for range 3 { // a busy machine may serve nobody in time
				o.out, o.code = tickbench(t, "run", path, "--file", file, "--out", filepath.Join(dir, s.Name+".json"), "--quiet")
				if !strings.Contains(o.out, "are not served within") {
					break
				}
			}
		})
	}
	wait.Wait()
	for i, s := range all {
		o := outcomes[i]
		if o.code != 0 && o.code != exitInvalid {
			t.Errorf("%s: exit %d\n%s", s.Name, o.code, o.out)
			continue
		}
		r, err := bench.ReadResult(filepath.Join(dir, s.Name+".json"))
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		clients := 0
		does := map[string]bool{}
		for _, g := range s.Clients {
			clients += g.Count
			does[g.Does.Kind] = true
		}
		run := r.Runs[0]
		wrong := func(format string, args ...any) {
			t.Errorf("%s: %s\n%s", s.Name, fmt.Sprintf(format, args...), o.out)
		}
		if run.Clients != clients || run.Checks.Finals == 0 || run.Checks.Ledgers != clients {
			wrong("%d clients, %d finals, %d ledgers; want %d clients", run.Clients, run.Checks.Finals, run.Checks.Ledgers, clients)
		}
		if run.Connect == nil {
			wrong("it does not say how clients connected")
		}
		if len(s.Steps) > 0 {
			if m := run.Memory; m == nil || len(m.RSS) != 2 || m.RSS[0] == 0 {
				wrong("memory %+v", m)
			}
			continue
		}
		if run.Invalid != "" && run.Made < 50 {
			t.Logf("%s: this machine was held up: %s", s.Name, run.Invalid)
			continue
		}
		if run.Delivered == 0 || run.Age.Count == 0 || run.CPU() == 0 {
			wrong("%d delivered, %d ages, %v of CPU", run.Delivered, run.Age.Count, run.CPU())
		}
		if run.Age.P50 > 60_000 {
			wrong("age p50 %.0f ms: not of when it was due", run.Age.P50)
		}
		if p := run.Peak; s.Overload > 0 && (p == nil || p.Asked <= p.Rate) {
			wrong("overload %+v", p)
		}
		if p := run.Stall; does["stalls"] && (p == nil || p.Clients == 0 || p.UnreadP50 == 0) {
			wrong("stall %+v", p)
		}
		if p := run.Sleep; does["sleeps"] && (p == nil || p.Clients == 0) {
			wrong("sleep %+v", p)
		}
		if b := s.Market.Burst; b != nil && float64(run.Made) < 1.5*float64(s.Market.Rate)*run.Seconds {
			wrong("%d ticks made in %.1f s: no burst", run.Made, run.Seconds)
		}
	}
}
