package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"

	"tickgate/bench"
)

// group writes a number in groups of three.
func group(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// number writes a figure with as many digits as it deserves.
func number(v float64) string {
	switch {
	case v >= 1000:
		return group(uint64(v + 0.5))
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// printRun writes what one run found.
func printRun(out io.Writer, target string, r *bench.Run) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %s\t"+format+"\n", append([]any{name}, args...)...)
	}
	spread := func(name string, s bench.Spread) {
		if s.Count > 0 {
			line(name, "p50 %s, p90 %s, p99 %s, p99.9 %s, max %s ms", number(s.P50), number(s.P90), number(s.P99), number(s.P999), number(s.Max))
		}
	}
	fmt.Fprintf(w, "%s: %s clients, %s subscriptions\n", target, group(uint64(r.Clients)), group(uint64(r.Subscriptions)))
	if r.Invalid != "" {
		line("INVALID", "%s", r.Invalid)
	}
	if c := r.Connect; c != nil {
		line("connect", "%s/s, settled p50 %s, p99 %s ms, %s refused at first, %s s of CPU", number(c.PerSecond), number(c.Settle.P50), number(c.Settle.P99), group(uint64(c.Refused)), number(c.CPU))
	}
	if m := r.Memory; m != nil {
		for i := range m.Clients {
			line("memory", "%s clients: %s MB", group(uint64(m.Clients[i])), number(float64(m.RSS[i])/1e6))
		}
		line("", "%s bytes a client", number(m.BytesPerClient))
	}
	if p := r.Peak; p != nil {
		line("overload", "%s ticks/s served in time; %s asked; as before %s ms after", number(p.Rate), number(p.Asked), number(p.RecoverMs))
	}
	spread("age", r.Age)
	spread("  ingest", r.Ingest)
	spread("  gateway", r.Gateway)
	spread("  wire", r.Wire)
	if r.Negative > 0 {
		line("", "%s ages below zero: the clock was set", group(r.Negative))
	}
	if r.Clamped > 0 {
		line("", "%s times longer than can be measured (2 min)", group(r.Clamped))
	}
	if r.Seconds > 0 {
		per := func(n uint64) string { return number(float64(n) / r.Seconds) }
		line("a second", "%s made, %s delivered, %s merged, %s dropped, %s frames, %s MB", per(r.Made), per(r.Delivered), per(r.Merged), per(r.Dropped), per(r.Messages), number(float64(r.Bytes)/r.Seconds/1e6))
		for _, name := range slices.Sorted(maps.Keys(r.Processes)) {
			u := r.Processes[name]
			line(name, "%s cores, %s MB (%s at the start), %s switches/s", number(u.CPU.Seconds()/r.Seconds), number(float64(u.RSS)/1e6), number(float64(u.RSSFirst)/1e6), per(u.Voluntary+u.Involuntary))
		}
		line("tickbench", "%s cores, %s MB, late by p99 %s ms, a look took p99 %s ms, a ready socket waited p99 %s ms", number(r.Self.CPU.Seconds()/r.Seconds), number(float64(r.Self.RSS)/1e6), number(r.Lag.P99), number(r.Batch.P99), number(r.Wait.P99))
	}
	for _, m := range r.Metrics() {
		switch m.Name {
		case "CPU per million ticks", "ticks per CPU second", "CPU per frame", "bytes per tick":
			line(m.Name, "%s %s", number(m.Value), m.Unit)
		}
	}
	if f := r.Floor; f != nil {
		line("the floor", "%s us a frame; %s times that", number(f.CPUPerFrame), number(f.Ratio))
		if f.Cut > 0 {
			line("", "of the first %s frames; %s had no room in the trace", group(f.Frames), group(f.Cut))
		}
	}
	if s := r.Stall; s != nil {
		if s.Settled {
			line("stalled", "%s clients; %s s until they were sent nothing more; %s bytes unread (p50)", group(uint64(s.Clients)), number(s.Seconds), group(uint64(s.UnreadP50)))
		} else {
			line("stalled", "%s clients, which were still being sent to after %s s", group(uint64(s.Clients)), number(s.Seconds))
		}
	}
	if s := r.Sleep; s != nil {
		line("sleepers", "%d current after p50 %s, max %s bytes, %s ms; %d not", s.Clients-s.NotCurrent, group(s.BytesP50), group(s.BytesMax), number(s.WaitMaxMs), s.NotCurrent)
	}
	if len(r.Checks.Counts) == 0 {
		line("checks", "%s final states and %s ledgers as they must be", group(uint64(r.Checks.Finals)), group(uint64(r.Checks.Ledgers)))
	}
	for _, check := range slices.Sorted(maps.Keys(r.Checks.Counts)) {
		line("VIOLATIONS", "%s: %s", check, group(r.Checks.Counts[check]))
	}
	const shown = 10
	for i := range min(shown, len(r.Checks.Violations)) {
		line("", "%s", r.Checks.Violations[i].String())
	}
	_ = w.Flush()
}

// printMedians writes a table of all targets.
func printMedians(out io.Writer, results []*bench.Result) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "medians\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s (%d)\t", r.Target, len(r.Valid()))
	}
	fmt.Fprintln(w)
	if len(results[0].Runs) > 0 {
		for _, m := range results[0].Runs[0].Metrics() {
			fmt.Fprintf(w, "%s, %s\t", m.Name, m.Unit)
			for _, r := range results {
				if v, ok := r.Median(m.Name); ok {
					fmt.Fprintf(w, "%s\t", number(v.Value))
				} else {
					fmt.Fprint(w, "-\t")
				}
			}
			fmt.Fprintln(w)
		}
	}
	_ = w.Flush()
}
