package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
)

func TestBuiltinScenarios(t *testing.T) {
	all, err := Scenarios()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 15 {
		t.Errorf("%d scenarios", len(all))
	}
	for _, s := range all {
		if found, err := FindScenario(s.Name); err != nil || found.About != s.About {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

func TestScenarioFaults(t *testing.T) {
	const whole = `
name: x
about: y
market: {symbols: 10, rate: 100}
clients: [{count: 5, channel: trades, watch: {kind: all}}]
measure: 1s
`
	if _, err := ParseScenario([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ from, to, want string }{
		"unknown key":         {"about: y", "about: y\nabuot: z", "abuot"},
		"no name":             {"name: x", "", "name: \"\""},
		"no about":            {"about: y", "", "want an about"},
		"too many clients":    {"count: 5", "count: 1000000", "clients[0].count"},
		"no client":           {"count: 5", "count: 0", "clients[0].count"},
		"no such channel":     {"channel: trades", "channel: books", "ticker, quotes or trades"},
		"no such watch":       {"kind: all", "kind: some", "watch.kind"},
		"watch beyond market": {"kind: all", "kind: random, count: 11", "watch.count"},
		"no such behaviour":   {"watch: {kind: all}", "watch: {kind: all}, does: {kind: dances}", "does.kind"},
		"slow without a rate": {"watch: {kind: all}", "watch: {kind: all}, does: {kind: slow}", "bytes_per_second"},
		"endless":             {"measure: 1s", "measure: 100h", "want 1ms to 10m"},
		"no time":             {"measure: 1s", "measure: 0", "measure: 0s"},
		"back in time":        {"measure: 1s", "measure: 1s\nwarm: -1s", "warm: -1s"},
		"negative cadence":    {"watch: {kind: all}", "watch: {kind: all}, every: -1s", "clients[0].every"},
		"not a number":        {"rate: 100", "rate: 100, quotes: .nan", "market.quotes: NaN"},
		"exponent":            {"rate: 100", "rate: 100, exponent: .inf", "market.exponent"},
		"watch exponent":      {"kind: all", "kind: zipf, count: 1, exponent: 100", "watch.exponent"},
		"burst":               {"rate: 100", "rate: 100, burst: {at: 1s, for: 1s, factor: 0.5}", "burst.factor"},
		"burst too high":      {"rate: 100", "rate: 900000, burst: {at: 1s, for: 1s, factor: 20}", "burst.factor"},
		"sleep":               {"watch: {kind: all}", "watch: {kind: all}, does: {kind: sleeps}", "does.for"},
		"churn":               {"watch: {kind: all}", "watch: {kind: all}, does: {kind: reconnects}", "does.per_second"},
		"connects backwards":  {"measure: 1s", "measure: 1s\nconnect_per_second: -5", "connect_per_second"},
		"no overload":         {"measure: 1s", "measure: 1s\noverload: 0.5", "overload: 0.5"},
		"a name with a path":  {"name: x", "name: ../x", "name: \"../x\""},
		"overload of nothing": {"rate: 100}", "rate: 0}\noverload: 1.5", "a market.rate to begin at"},
		"names of a file":     {"symbols: 10, rate: 100}\nclients: [{count: 5, channel: trades, watch: {kind: all}}]", "file: f}\nclients: [{count: 5, watch: {kind: same, count: 1}}]", "want all where a file"},
		"no duration":         {"measure: 1s", "measure: soon", "soon"},
		"rate":                {"rate: 100", "rate: 100000000", "market.rate"},
		"quote share":         {"rate: 100", "rate: 100, quotes: 1.5", "market.quotes"},
		"steps":               {"measure: 1s", "measure: 1s\nsteps: [1, 2]", "the last one to be the group's count"},
		"no YAML":             {"market: {", "market: {{", "did not find expected"},
	} {
		text := strings.Replace(whole, tt.from, tt.to, 1)
		if _, err := ParseScenario([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q in it", name, err, tt.want)
		}
	}
	if _, err := FindScenario("no-such"); err == nil || !strings.Contains(err.Error(), "fan-out") {
		t.Errorf("%v; want the list of those that there are", err)
	}
}

// TestScenarioFieldsAreDocumented: the README has each field with its type, and
// none that there is not.
func TestScenarioFieldsAreDocumented(t *testing.T) {
	fields := map[string]string{}
	var walk func(prefix string, of reflect.Type)
	walk = func(prefix string, of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			name := prefix + f.Tag.Get("yaml")
			ft := f.Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			switch {
			case ft == reflect.TypeFor[Duration]():
				fields[name] = "duration"
			case ft.Kind() == reflect.Struct:
				fields[name] = "map"
				walk(name+".", ft)
			case ft.Kind() == reflect.Slice:
				fields[name] = "list"
				if ft.Elem().Kind() == reflect.Struct {
					walk(name+"[].", ft.Elem())
				}
			case ft.Kind() == reflect.Float64:
				fields[name] = "number"
			default:
				fields[name] = ft.Kind().String()
			}
		}
	}
	walk("", reflect.TypeFor[Scenario]())
	b, err := os.ReadFile("scenarios/README.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for line := range strings.SplitSeq(string(b), "\n") {
		if cells := strings.Split(line, "|"); strings.HasPrefix(line, "| `") && len(cells) >= 8 {
			told[strings.Trim(cells[1], " `")] = strings.TrimSpace(cells[2])
		}
	}
	for name, kind := range fields {
		if told[name] != kind {
			t.Errorf("%s is a %s; the README says %q", name, kind, told[name])
		}
	}
	for name := range told {
		if fields[name] == "" {
			t.Errorf("the README has %s, which is no field", name)
		}
	}
}

// FuzzScenario: no bytes panic, and what is read is within its bounds.
func FuzzScenario(f *testing.F) {
	files, _ := filepath.Glob("scenarios/*.yaml")
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseScenario(b)
		if err != nil {
			return
		}
		n := 0
		for i := range s.Clients {
			n += s.Clients[i].Count
		}
		if n < 1 || n > clientsMax || s.Market.Rate > rateMax || s.Market.Symbols > symbolsMax {
			t.Errorf("%d clients, %+v", n, s.Market)
		}
	})
}

func TestWatch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	weights := make([]float64, 100)
	for i := range weights {
		weights[i] = 1 / float64(i+1)
	}
	zipf := newAlias(weights)
	counts := make([]int, 100)
	for _, w := range []Watch{{Kind: "random", Count: 10}, {Kind: "random", Count: 90}, {Kind: "zipf", Count: 10}, {Kind: "zipf", Count: 100}, {Kind: "same", Count: 3}} {
		for range 100 {
			list := w.of(100, rng, &zipf)
			seen := map[int32]bool{}
			for _, i := range list {
				if seen[i] || i < 0 || i >= 100 {
					t.Fatalf("%+v: %v", w, list)
				}
				seen[i] = true
				if w.Kind == "zipf" && w.Count == 10 {
					counts[i]++
				}
			}
			if len(list) != w.Count {
				t.Fatalf("%+v: %d symbols", w, len(list))
			}
		}
	}
	if counts[0] < 2*counts[20] {
		t.Errorf("the first symbol was asked for %d times, the 21st %d times", counts[0], counts[20])
	}
	if list := (&Watch{Kind: "all"}).of(100, rng, nil); list != nil {
		t.Errorf("all: %v; want nil", list)
	}
}

// TestAlias: draws are as frequent as their weights say.
func TestAlias(t *testing.T) {
	a := newAlias([]float64{1, 2, 3, 0, 4})
	rng := rand.New(rand.NewPCG(1, 1))
	counts := make([]int, 5)
	for range 100_000 {
		counts[a.draw(rng)]++
	}
	for i, want := range []int{10_000, 20_000, 30_000, 0, 40_000} {
		if math.Abs(float64(counts[i]-want)) > 1000 {
			t.Errorf("%d was drawn %d times; want about %d", i, counts[i], want)
		}
	}
}

func TestIDIndex(t *testing.T) {
	var x idIndex
	if _, ok := x.get(5); ok {
		t.Error("found in nothing")
	}
	for i := range uint32(1000) {
		x.set(i*7, int32(i))
	}
	x.set(7, 42)
	for i := range uint32(1000) {
		want := int32(i)
		if i == 1 {
			want = 42
		}
		if at, ok := x.get(i * 7); !ok || at != want {
			t.Fatalf("%d: %d, %v", i*7, at, ok)
		}
		if _, ok := x.get(i*7 + 1); ok {
			t.Fatalf("%d was never set", i*7+1)
		}
	}
}

// TestMarketAddsUp: what a source made is what its states say.
func TestMarketAddsUp(t *testing.T) {
	var sink adder
	s := newSource(Market{Symbols: 3, Rate: 100, Quotes: 0.5}, &sink, 1, time.Unix(1, 0))
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		s.make(i%3, codec.KindTrade+codec.Kind(i%2), int64(i))
	}
	if sink.n != 1006 || s.made.Load() != 1006 {
		t.Errorf("%d ticks; want 1006", sink.n)
	}
	for i := range s.states {
		st := &s.states[i]
		if st.Seq != st.TradeNo+st.QuoteNo || st.Trades != st.TradeNo || st.Volume != sink.volume[s.symbols[i]] {
			t.Errorf("%s: %+v; want volume %v", s.symbols[i], st, sink.volume[s.symbols[i]])
		}
	}
}

// adder sums what it is given.
type adder struct {
	n      int
	volume map[string]codec.Total
}

func (a *adder) Add(t *Tick) {
	a.n++
	if a.volume == nil {
		a.volume = map[string]codec.Total{}
	}
	if t.Kind == codec.KindTrade {
		a.volume[t.Symbol] = a.volume[t.Symbol].AddDecimal(t.State.Last.Size)
	}
}
func (*adder) Flush(context.Context) error { return nil }

func runWith(values ...float64) *Result {
	r := &Result{Version: ResultVersion, Scenario: &Scenario{Name: "x", About: "y"}, Target: "t", Started: time.Unix(0, 0).UTC()}
	for _, v := range values {
		r.Runs = append(r.Runs, &Run{Seconds: 1, Delivered: 1000, Messages: 1000, Bytes: 5,
			Age:       Spread{Count: 1, P50: v, P99: 2 * v, Steps: [][2]float64{{v, 50}, {2 * v, 99}}},
			Processes: map[string]Usage{"gateway": {CPU: time.Second}},
			Timeline:  []Second{{At: 1, Delivered: 10, AgeP50: v, AgeP99: 2 * v, CPU: 1}, {At: 2, Delivered: 20, AgeP50: v, AgeP99: v}}})
	}
	return r
}

func TestCompare(t *testing.T) {
	noisy := runWith(10, 11, 9, 10.5, 9.5, 10, 10.2)
	for name, tt := range map[string]struct {
		after *Result
		want  Verdict
	}{
		"noise":  {runWith(10.1, 9.2, 11, 9.9, 10.4, 9.6, 10.3), Same},
		"slower": {runWith(14, 15, 14.5, 13.8, 14.1, 15.2, 14.4), Loss},
		"faster": {runWith(5, 5.2, 5.1, 4.9, 4.8, 5.3, 5), Gain},
		"few":    {runWith(5, 5.2), Unknown},
	} {
		changes, err := Compare(noisy, tt.after, false)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, c := range changes {
			if c.Name == "age p50" {
				found = true
				if c.Verdict != tt.want {
					t.Errorf("%s: %s (%.2f to %.2f); want %s", name, c.Verdict, c.Low, c.High, tt.want)
				}
			}
			if c.Name == "CPU per frame" && c.Verdict != Same && tt.want != Unknown {
				t.Errorf("%s: what is equal is %s", name, c.Verdict)
			}
		}
		if !found {
			t.Errorf("%s: no age among %v", name, changes)
		}
	}
	invalid := runWith(1)
	invalid.Runs[0].Invalid = "too slow"
	if _, err := Compare(noisy, invalid, false); err == nil {
		t.Error("an invalid run was compared")
	}
	other := runWith(14, 15, 14.5, 13.8, 14.1, 15.2, 14.4)
	other.Scenario = &Scenario{Name: "z", About: "x with more"}
	if _, err := Compare(noisy, other, false); !errors.Is(err, ErrScenarios) {
		t.Errorf("%v; want that the scenarios differ", err)
	}
	if changes, err := Compare(noisy, other, true); err != nil || changes[0].Verdict != Loss {
		t.Errorf("across: %+v, %v", changes, err)
	}
	// What was nothing has no share; that it is something now is told.
	drops := runWith(10, 11, 9, 10.5, 9.5, 10, 10.2)
	for _, r := range drops.Runs {
		r.Dropped = 5
	}
	for after, want := range map[*Result]Verdict{noisy: Same, drops: Loss} {
		changes, err := Compare(noisy, after, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.Name == "dropped" && c.Verdict != want {
				t.Errorf("dropped: %+v; want %s", c, want)
			}
		}
	}
}

// TestReportNeedsNothing: the file names nothing that a browser would fetch, and
// its pictures are whole.
func TestReportNeedsNothing(t *testing.T) {
	bad := runWith(3, 4)
	bad.Target = "<script>"
	bad.Runs[0].Checks = Checks{Counts: map[string]uint64{"gap": 1}, Violations: []Violation{{Check: "gap", Symbol: "<b>"}}}
	var b bytes.Buffer
	if err := WriteHTML(&b, []*Result{runWith(1, 2, 3), bad}); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, odd := range []string{"src=", "<link", "@import", "<script", "url(", "<b>"} {
		if strings.Contains(text, odd) {
			t.Errorf("%q in the report", odd)
		}
	}
	for _, want := range []string{"age p99, ms", "violations", "Age at the client", "Memory of the target"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the report", want)
		}
	}
	// The names of XML's own vocabularies are no places to go to.
	if at := regexp.MustCompile(`https?://|//[a-z]`).FindString(regexp.MustCompile(`xmlns(:\w+)?="[^"]*"`).ReplaceAllString(text, "")); at != "" {
		t.Errorf("%q in the report", at)
	}
	if n := strings.Count(text, "<svg"); n != 5 {
		t.Errorf("%d plots; want 5", n)
	}
	svg := text[strings.Index(text, "<svg"):]
	if err := xml.Unmarshal([]byte(svg[:strings.Index(svg, "</svg>")+6]), new(struct{})); err != nil {
		t.Errorf("a plot is no XML: %v", err)
	}
}

// TestMarkdown: a table a scenario, a row a target, those that lack something
// too, and at equal what they are compared.
func TestMarkdown(t *testing.T) {
	ours, peer, lacking := runWith(1, 2, 3), runWith(4, 5), runWith()
	ours.Target, ours.Features, ours.Scenario.Equal = "tickgate", []string{"conflation"}, "delivery: each tick"
	peer.Target, peer.Runs[1].Invalid = "pe|er", "too slow"
	lacking.Target, lacking.Unsupported = "other", "unsupported: other has no batching"
	var b bytes.Buffer
	if err := WriteMarkdown(&b, []*Result{ours, peer, lacking}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"### x\n", "| target | age p50, ms |",
		"| tickgate | 2.00 (1.00 to 3.00) | 4.00 (2.00 to 6.00) | 1000 (1000 to 1000) |", "| 3 |\n",
		`| pe\|er | 4.00 | 8.00 |`, "| 1 (1 more invalid) |", "| other | unsupported |",
		"Compared at equal delivery: each tick. pe\\|er and other cannot conflate",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	b.Reset()
	if err := WriteHTML(&b, []*Result{ours, peer, lacking}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Compared at equal delivery", "cannot conflate", "<td>unsupported", "other has no batching", "tickbench&#39;s own CPU, cores", "wire, of it p99.9, ms", "gateway context switches, 1/s"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in the HTML", want)
		}
	}
	if _, err := Compare(ours, lacking, false); err == nil || !strings.Contains(err.Error(), "no batching") {
		t.Errorf("compare: %v; want what is lacking", err)
	}
	path := filepath.Join(t.TempDir(), "r.json")
	if err := lacking.Write(path); err != nil {
		t.Fatal(err)
	}
	if r, err := ReadResult(path); err != nil || r.Unsupported != lacking.Unsupported {
		t.Errorf("%+v, %v", r, err)
	}
}

// A result that cannot be written leaves the one before as it was.
func TestResultKeptWhenDiskIsFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	if err := runWith(1, 2).Write(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", path+".part"); err != nil {
		t.Fatal(err)
	}
	if err := runWith(1, 2, 3).Write(path); err == nil {
		t.Fatal("a full disk was written to")
	}
	if r, err := ReadResult(path); err != nil || len(r.Runs) != 2 {
		t.Errorf("after a full disk: %v; want the two runs of before", err)
	}
}

func TestResultFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	if err := runWith(1, 2).Write(path); err != nil {
		t.Fatal(err)
	}
	r, err := ReadResult(path)
	if err != nil || len(r.Runs) != 2 || r.Runs[1].Age.P50 != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if b, err := os.ReadFile(path); err != nil || bytes.Count(b, []byte("\n")) != 4 {
		t.Errorf("%v\n%s; want a line a run", err, b)
	}
	for name, text := range map[string]string{"empty": "", "not JSON": "hello", "another thing": "{}", "no runs": `{"version":1,"scenario":{"name":"x"}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadResult(path); err == nil || !strings.Contains(err.Error(), "no result of tickbench") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFollower: each breach is told by its check, and what is right by none.
func TestFollower(t *testing.T) {
	trade := func(seq, no uint64, size, volume string) native.Update {
		v, err := codec.ParseTotal([]byte(volume))
		if err != nil {
			t.Fatal(err)
		}
		return native.Update{Type: codec.EventTrade, Channel: codec.ChannelTrades, Kind: codec.KindTrade, View: codec.ViewLast | codec.ViewTotals,
			Seq: seq, No: no, Size: codec.MustDecimal(size), Price: codec.MustDecimal("1"), Volume: v, Notional: v, Trades: no}
	}
	with := func(u native.Update, change func(*native.Update)) native.Update { change(&u); return u }
	snapshot := func(seq, no uint64, volume string) native.Update {
		u := trade(seq, no, "1", volume)
		u.Type, u.Epoch = codec.EventSnapshot, 1
		return u
	}
	lost := native.Update{Type: codec.EventState} // what came before it, the gateway says, is not all there was
	for name, tt := range map[string]struct {
		rows []native.Update
		want []string
	}{
		"right":          {[]native.Update{snapshot(10, 5, "7"), trade(11, 6, "1", "8"), trade(13, 7, "0.5", "8.5")}, nil},
		"no snapshot":    {[]native.Update{trade(11, 6, "1", "8")}, []string{CheckFrame}},
		"missing":        {[]native.Update{snapshot(10, 5, "7"), trade(12, 7, "1", "9")}, []string{CheckGap}},
		"again":          {[]native.Update{snapshot(10, 5, "7"), trade(11, 6, "1", "8"), trade(11, 6, "1", "8")}, []string{CheckRepeat}},
		"back":           {[]native.Update{snapshot(10, 5, "7"), trade(9, 6, "1", "8")}, []string{CheckOrder}},
		"sum":            {[]native.Update{snapshot(10, 5, "7"), trade(11, 6, "1", "8.5")}, []string{CheckTotal, CheckTotal}},
		"shrinks":        {[]native.Update{snapshot(10, 5, "7"), trade(13, 8, "1", "6")}, []string{CheckGap, CheckTotal, CheckTotal}},
		"notional":       {[]native.Update{snapshot(10, 5, "7"), with(trade(11, 6, "1", "8"), func(u *native.Update) { u.Notional = u.Notional.AddDecimal(codec.MustDecimal("1")) })}, []string{CheckTotal}},
		"cancel":         {[]native.Update{snapshot(10, 5, "7"), with(trade(11, 6, "1", "6"), func(u *native.Update) { u.Kind, u.Trades = codec.KindCancel, 4 })}, nil},
		"correction":     {[]native.Update{snapshot(10, 5, "7"), with(trade(11, 6, "1", "6.5"), func(u *native.Update) { u.Kind, u.Trades = codec.KindCorrection, 5 }), with(trade(12, 7, "1", "7.5"), func(u *native.Update) { u.Trades = 6 })}, nil},
		"lost and told":  {[]native.Update{snapshot(10, 5, "7"), lost, trade(15, 9, "1", "11")}, nil},
		"lost once":      {[]native.Update{snapshot(10, 5, "7"), lost, trade(15, 9, "1", "11"), trade(17, 11, "1", "13")}, []string{CheckGap}},
		"older snapshot": {[]native.Update{snapshot(10, 5, "7"), snapshot(9, 5, "7")}, []string{CheckOrder}},
		"newer snapshot": {[]native.Update{snapshot(10, 5, "7"), snapshot(12, 6, "8")}, nil},
		"snapshot shrinks": {[]native.Update{snapshot(10, 5, "7"), func() native.Update {
			u := snapshot(12, 6, "6")
			u.Channel = codec.ChannelTicker
			return u
		}()}, []string{CheckTotal, CheckTotal}},
	} {
		var f follower
		var got []string
		bad := func(check, _, _ string) { got = append(got, check) }
		for i := range tt.rows {
			switch tt.rows[i].Type {
			case codec.EventState:
				f.lost = true
			case codec.EventSnapshot:
				f.snapshot(&tt.rows[i], bad)
			default:
				f.tick(&tt.rows[i], bad)
			}
		}
		if strings.Join(got, " ") != strings.Join(tt.want, " ") {
			t.Errorf("%s: %v; want %v", name, got, tt.want)
		}
	}
}

// TestHolds: each part of a final state that a client is shown is compared, digit
// for digit, and no other.
func TestHolds(t *testing.T) {
	d := codec.MustDecimal
	var sink adder
	s := newSource(Market{Symbols: 1, Rate: 1, Quotes: 0.5}, &sink, 1, time.Unix(1, 0))
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	state := &s.states[0]
	right := follower{seq: state.Seq, trades: state.Trades, volume: state.Volume, notional: state.Notional, price: state.Last.Price, wide: &wide{quotedOf(&state.Quote), rangedOf(&state.Day)}}
	for name, tt := range map[string]struct {
		channel codec.Channel
		view    codec.View
		change  func(f *follower)
		want    string // "" if that is not looked at
	}{
		"right":             {codec.ChannelTicker, codec.ViewAll, func(*follower) {}, ""},
		"seq":               {codec.ChannelTicker, codec.ViewAll, func(f *follower) { f.seq-- }, "seq 2"},
		"price":             {codec.ChannelTicker, codec.ViewAll, func(f *follower) { f.price = d("1.5") }, "price"},
		"price's zeros":     {codec.ChannelTicker, codec.ViewAll, func(f *follower) { f.price = d(f.price.String() + "0") }, "price"},
		"trades":            {codec.ChannelTicker, codec.ViewAll, func(f *follower) { f.trades++ }, "1"},
		"volume":            {codec.ChannelTicker, codec.ViewAll, func(f *follower) { f.volume = f.volume.AddDecimal(d("1")) }, state.Volume.String()},
		"notional":          {codec.ChannelTicker, codec.ViewAll, func(f *follower) { f.notional = codec.Total{} }, state.Notional.String()},
		"ask":               {codec.ChannelTicker, codec.ViewAll, func(f *follower) { f.wide.quote.ask = d("7") }, "ask " + state.Quote.Ask.String()},
		"high":              {codec.ChannelTicker, codec.ViewAll, func(f *follower) { f.wide.day.high = d("7") }, "day"},
		"another day":       {codec.ChannelTicker, codec.ViewAll, func(f *follower) { f.wide.day.number++ }, ""},
		"ask not asked for": {codec.ChannelTicker, codec.ViewLast, func(f *follower) { f.wide.quote.ask = d("7") }, ""},
		"quote":             {codec.ChannelQuotes, codec.ViewQuote, func(f *follower) { f.no = state.QuoteNo - 1 }, "quote 1"},
		"bid":               {codec.ChannelQuotes, codec.ViewQuote, func(f *follower) { f.no, f.wide.quote.bid = state.QuoteNo, d("7") }, "bid " + state.Quote.Bid.String()},
		"right quote":       {codec.ChannelQuotes, codec.ViewQuote, func(f *follower) { f.no, f.price = state.QuoteNo, d("7") }, ""},
		"trade":             {codec.ChannelTrades, codec.ViewLast, func(f *follower) { f.no = state.TradeNo - 1 }, "trade 1"},
	} {
		f, beyond := right, *right.wide
		f.wide = &beyond
		tt.change(&f)
		got, want, ok := f.holds(tt.channel, tt.view, state)
		if ok != (tt.want == "") || !strings.Contains(want, strings.TrimPrefix(tt.want, "price")) || got == want && !ok {
			t.Errorf("%s: %q, %q, %v; want %q", name, got, want, ok, tt.want)
		}
	}
}

// BenchmarkRows is a message of 50 trades with their totals, read and checked.
func BenchmarkRows(b *testing.B) {
	const n = 50
	s := &swarm{bySymbol: map[string]int32{}}
	l := &loop{swarm: s, window: newWindow(), now: time.Now().UnixNano()}
	c := &client{phase: phaseOpen, speaker: Native("msgpack"), loop: l, group: &Group{}, channel: codec.ChannelTrades, timed: true}
	var sink adder
	src := newSource(Market{Symbols: n, Rate: 1}, &sink, 1, time.Unix(1, 0))
	frame := native.MsgPack.BeginFrame(nil, 1, l.now)
	for i := range n {
		src.make(i, codec.KindTrade, l.now)
		was := src.states[i]
		src.make(i, codec.KindTrade, l.now)
		st := &src.states[i]
		s.bySymbol[src.symbols[i]] = int32(i)
		c.subs = append(c.subs, follower{symbol: int32(i), id: uint32(i), known: true, numbered: true, totalled: true, epoch: was.Epoch, seq: was.Seq, no: was.TradeNo,
			trades: was.Trades, volume: was.Volume, notional: was.Notional})
		c.index.set(uint32(i), int32(i))
		frame = native.MsgPack.AppendTrade(frame, codec.ViewLast|codec.ViewTotals, uint32(i), src.symbols[i],
			&codec.TradeEntry{Kind: codec.KindTrade, Trade: st.Last, Volume: st.Volume, Notional: st.Notional, Trades: st.Trades})
	}
	frame = native.MsgPack.EndFrame(frame, 0, n)
	s.symbols = src.symbols
	before := slices.Clone(c.subs)
	b.ReportAllocs()
	for b.Loop() {
		copy(c.subs, before)
		if err := c.rows(frame); err != nil {
			b.Fatal(err)
		}
	}
	if found := s.faults.total(); found > 0 {
		b.Fatalf("%d violations: %v", found, s.faults.first[0].String())
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "ticks/s")
}

// TestFloorFrames: the bare program's frames are as long as it was told.
func TestFloorFrames(t *testing.T) {
	buf := make([]byte, 100_000)
	for _, size := range []int{2, 10, 127, 130, 200, 65_000, 65_539, 65_546, 100_000} {
		b := frameOf(buf, size)
		if len(b) != size {
			t.Fatalf("%d bytes; want %d", len(b), size)
		}
		c := &client{phase: phaseOpen, speaker: deafSpeaker{}, loop: &loop{window: newWindow(), swarm: &swarm{}}, group: &Group{}}
		if used := c.parse(b); used != size || c.loop.window.messages != 1 {
			t.Errorf("%d bytes: %d used, %d messages", size, used, c.loop.window.messages)
		}
	}
}

// TestServeFloor: the bare program writes to each client what the trace says, in
// its order and not before its time, and tells what that cost.
func TestServeFloor(t *testing.T) {
	const clients = 3
	begin := time.Now().UnixNano()
	sizes := []int32{2, 10, 127, 130, 65_000, 65_545, 100_000}
	var rows []traceRow
	want := make([][]int32, clients)
	for i := range 60 {
		row := traceRow{begin + int64(i)*int64(time.Millisecond), int32(i * i % clients), sizes[i%len(sizes)]}
		rows = append(rows, row)
		want[row.Client] = append(want[row.Client], row.Size)
	}
	path := filepath.Join(t.TempDir(), "trace")
	if err := writeTrace(path, rows); err != nil {
		t.Fatal(err)
	}
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := ServeFloor(writer, path, clients)
		_ = writer.CloseWithError(err)
		ended <- err
	}()
	out := bufio.NewReader(reader)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(strings.TrimPrefix(line, "listening "))
	began := time.Now()
	var wait sync.WaitGroup
	for no := range clients {
		c, err := net.Dial("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", no)
		wait.Go(func() {
			b, err := io.ReadAll(c)
			if err != nil {
				t.Errorf("client %d: %v", no, err)
			}
			_, b, _ = bytes.Cut(b, []byte("\r\n\r\n"))
			for i, size := range want[no] {
				if len(b) < int(size) {
					t.Errorf("client %d: %d bytes left at frame %d of %d", no, len(b), i, size)
					return
				}
				l := &loop{window: newWindow(), swarm: &swarm{}}
				parser := &client{phase: phaseOpen, speaker: deafSpeaker{}, loop: l, group: &Group{}}
				if used := parser.parse(b[:size]); used != int(size) || l.window.messages != 1 {
					t.Errorf("client %d, frame %d: %d bytes are %d messages; want one of %d", no, i, used, l.window.messages, size)
				}
				b = b[size:]
			}
			if len(b) > 0 {
				t.Errorf("client %d: %d bytes that are not in the trace", no, len(b))
			}
		})
	}
	line, err = out.ReadString('\n')
	var told struct {
		Frames int   `json:"frames"`
		CPU    int64 `json:"cpu_ns"`
	}
	if e := json.Unmarshal([]byte(line), &told); err != nil || e != nil || told.Frames != len(rows) || told.CPU <= 0 {
		t.Errorf("%q, %v, %v; want %d frames and their CPU time", line, err, e, len(rows))
	}
	if took := time.Since(began); took < 55*time.Millisecond {
		t.Errorf("59 ms of trace were over in %v", took)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	wait.Wait()
	for name, tt := range map[string]struct{ rows []traceRow }{"no rows": {nil}, "a client too many": {[]traceRow{{1, 7, 10}}}} {
		if err := writeTrace(path, tt.rows); err != nil {
			t.Fatal(err)
		}
		if err := ServeFloor(io.Discard, path, 0); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTraceFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	want := []traceRow{{1, 0, 10}, {2, 5, 70_000}}
	if err := writeTrace(path, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readTrace(path); err != nil || len(got) != 2 || got[1] != want[1] {
		t.Errorf("%v, %v", got, err)
	}
	for name, rows := range map[string][]traceRow{"no length": {{1, 0, 0}}, "client below zero": {{1, -1, 10}}, "too long": {{1, 0, messageMax + 1}}} {
		if err := writeTrace(path, rows); err != nil {
			t.Fatal(err)
		}
		if _, err := readTrace(path); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

// TestInvalid: what makes a run tell nothing.
func TestInvalid(t *testing.T) {
	for name, tt := range map[string]struct {
		run  Run
		want string // "" is valid
	}{
		"well":            {Run{Age: Spread{Count: 10_000}, Lag: Spread{P99: 4.9, Max: 40}, Batch: Spread{P99: 4.9, Max: 40}}, ""},
		"late":            {Run{Age: Spread{Count: 10_000}, Lag: Spread{P99: 5.1}}, "late by 5.1 ms"},
		"slow look":       {Run{Age: Spread{Count: 10_000, P99: 250}, Batch: Spread{P99: 7}}, "took 7.0 ms"},
		"slow loop":       {Run{Age: Spread{Count: 10_000, P99: 50}, Wait: Spread{P99: 7}}, "waited 7.0 ms"},
		"read in turn":    {Run{Age: Spread{Count: 10_000, P99: 250}, Wait: Spread{P99: 7}}, ""},
		"never in time":   {Run{Age: Spread{Count: 10_000, P99: 2500}, Wait: Spread{P99: 2000}}, "waited 2000.0 ms"},
		"a few beyond":    {Run{Age: Spread{Count: 10_000}, Clamped: 10, Negative: 10}, ""},
		"many beyond":     {Run{Age: Spread{Count: 10_000}, Clamped: 11}, "longer than can be measured"},
		"clock was set":   {Run{Age: Spread{Count: 10_000}, Negative: 11}, "below zero"},
		"beyond, no ages": {Run{Clamped: 1}, "longer than can be measured"},
	} {
		if got := tt.run.invalid(); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q; want %q", name, got, tt.want)
		}
	}
}

// slowSink takes its time over each tick, as a generator that is too slow does,
// or over each flush, as a target that does not read does.
type slowSink struct{ add, flush time.Duration }

func (k slowSink) Add(*Tick) { time.Sleep(k.add) }
func (k slowSink) Flush(context.Context) error {
	time.Sleep(k.flush)
	return nil
}

// TestLag: that ticks are made late is our fault or the target's, and only the
// former makes a run invalid; due times are those of the schedule in both.
func TestLag(t *testing.T) {
	run := func(sink Sink, rate int) (*source, *Run) {
		s := newSource(Market{Symbols: 1, Rate: rate}, sink, 1, time.Unix(1, 0))
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		if err := s.run(ctx); err != nil {
			t.Fatal(err)
		}
		lag, _ := s.takeLag()
		return s, &Run{Lag: spreadOf(lag, false)}
	}
	// 2,000 ticks of a millisecond a second's worth: due twice as fast as made.
	if _, r := run(slowSink{add: time.Millisecond}, 2000); !strings.Contains(r.invalid(), "late by") {
		t.Errorf("a generator that is too slow: lag %+v, %q", r.Lag, r.invalid())
	}
	// Here each flush waits for 50 ms: some of that is late, none of it is ours.
	s, r := run(slowSink{flush: 50 * time.Millisecond}, 1000)
	if waited := time.Duration(s.blocked.Load()); waited < 100*time.Millisecond || r.Lag.P50 > 25 {
		t.Errorf("a target that does not read: waited %v, lag %+v", waited, r.Lag)
	}
}

// TestOverdue: what is due and not made is late, but for the sink's waiting: a
// generator that is held up all the time makes nothing that could be.
func TestOverdue(t *testing.T) {
	for name, tt := range map[string]struct {
		waited, flushing time.Duration
		want             int64 // ticks, about
	}{
		"ours":               {0, 0, 500},
		"the sink's":         {500 * time.Millisecond, 0, 0},
		"the sink's, as yet": {0, 500 * time.Millisecond, 0},
		"of both":            {200 * time.Millisecond, 0, 300},
	} {
		s := newSource(Market{Symbols: 1, Rate: 1000}, &adder{}, 1, time.Unix(1, 0))
		now := time.Now()
		s.began, s.due, s.waited = now.Add(-time.Second), 501*time.Millisecond, tt.waited
		if tt.flushing > 0 {
			s.flushing = now.Add(-tt.flushing)
		}
		lag, _ := s.takeLag()
		if n := lag.TotalCount(); n < tt.want-1 || n > tt.want+200 || tt.want > 0 && lag.Max() < 250_000 {
			t.Errorf("%s: %d ticks, %d us; want %d", name, n, lag.Max(), tt.want)
		}
	}
}

// lazySink takes what was added 20 ms after it is flushed, if it is let.
type lazySink struct{ added, taken uint64 }

func (k *lazySink) Add(*Tick) { k.added++ }
func (k *lazySink) Flush(ctx context.Context) error {
	select {
	case <-time.After(20 * time.Millisecond):
		k.taken = k.added
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestMarketStops: what was made is on its way when the market has stopped, for
// it is what clients must hold.
func TestMarketStops(t *testing.T) {
	var sink lazySink
	s := newSource(Market{Symbols: 1, Rate: 5000}, &sink, 1, time.Unix(1, 0))
	time.AfterFunc(110*time.Millisecond, s.stop)
	if err := s.run(t.Context()); err != nil || sink.taken == 0 || sink.taken != s.made.Load() {
		t.Errorf("%v; %d ticks taken of %d made", err, sink.taken, s.made.Load())
	}
}

// TestSlowLoop: a loop that is busy for long says so.
func TestSlowLoop(t *testing.T) {
	s, err := newSwarm(Endpoint{}, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	s.each(func(*loop) { time.Sleep(20 * time.Millisecond) })
	s.each(func(*loop) {}) // the look before has been recorded
	w := s.take()
	if r := (&Run{Batch: spreadOf(w.batch, false), Wait: spreadOf(w.wait, false)}); r.Batch.Max < 19 || r.Wait.Max < 19 || r.invalid() == "" {
		t.Errorf("%+v, %+v, %q", r.Batch, r.Wait, r.invalid())
	}
}

// TestBeyondBounds: what a histogram cannot hold is counted.
func TestBeyondBounds(t *testing.T) {
	w := newWindow()
	w.record(w.age, int64(time.Second), 1)
	w.record(w.age, int64(time.Hour), 3)
	w.record(w.age, -5, 1)
	sum := newWindow()
	sum.add(w)
	if sum.clamped != 3 || sum.age.TotalCount() != 5 {
		t.Errorf("%d clamped of %d; want 3 of 5", sum.clamped, sum.age.TotalCount())
	}
}

// TestTraceIsBounded: it holds what it may and counts the others.
func TestTraceIsBounded(t *testing.T) {
	tr := &tracer{left: traceChunk + 10}
	c := &client{no: 7, loop: &loop{now: 5}}
	for range traceChunk + 30 {
		tr.add(c, 100)
	}
	n := 0
	for _, chunk := range tr.chunks {
		n += len(chunk)
	}
	if n != traceChunk+10 || tr.cut != 20 || tr.chunks[1][9] != (traceRow{5, 7, 100}) {
		t.Errorf("%d rows, %d cut", n, tr.cut)
	}
}

// TestSteps: a plot's points grow, and are few whatever was measured.
func TestSteps(t *testing.T) {
	h := newHistogram()
	rng := rand.New(rand.NewPCG(1, 1))
	for range 1_000_000 {
		record1(h, int64(rng.ExpFloat64()*1e7))
	}
	s := spreadOf(h, true)
	if n := len(s.Steps); n < 60 || n > 80 || s.Steps[0][1] != 0 || s.Steps[n-1][1] < 99.9998 || s.Steps[n-1][0] > s.Max {
		t.Errorf("%d steps, %v to %v", n, s.Steps[0], s.Steps[n-1])
	}
	for i := 1; i < len(s.Steps); i++ {
		if s.Steps[i][0] < s.Steps[i-1][0] || s.Steps[i][1] <= s.Steps[i-1][1] {
			t.Errorf("%v after %v", s.Steps[i], s.Steps[i-1])
		}
	}
	if s := spreadOf(newHistogram(), true); len(s.Steps) != 0 {
		t.Errorf("steps of nothing: %v", s.Steps)
	}
}

// TestCommittedResults: what the README quotes can be read and drawn by this
// version.
func TestCommittedResults(t *testing.T) {
	err := filepath.WalkDir("results", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".json" {
			return err
		}
		r, err := ReadResult(path)
		if err != nil {
			return err
		}
		if r.Commit == "" || r.Machine.CPU == "" || r.Command == "" {
			t.Errorf("%s: commit %q, machine %q, command %q; want all", path, r.Commit, r.Machine.CPU, r.Command)
		}
		if info, err := d.Info(); err != nil || info.Size() > committedBytesMax {
			t.Errorf("%s: %d bytes, %v; want at most %d: fewer runs in a file", path, info.Size(), err, committedBytesMax)
		}
		return WriteHTML(io.Discard, []*Result{r})
	})
	if err != nil {
		t.Error(err)
	}
}

const committedBytesMax = 200 << 10

// FuzzParse: no bytes of a server make a client panic, or hold more than it may.
func FuzzParse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n\x82\x03abc"), true)
	f.Add([]byte{0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, false)
	f.Add([]byte{0x81, 0x02, '{', '}', 0x89, 0x00, 0x88, 0x02, 3, 232}, false)
	frame := native.MsgPack.BeginFrame(nil, 1, 1)
	frame = native.MsgPack.AppendEvent(frame, &codec.Event{Type: codec.EventGranted, Symbol: "A", Epoch: 1})
	frame = native.MsgPack.EndFrame(frame, 0, 1)
	f.Add(append([]byte{0x82, byte(len(frame))}, frame...), false)
	f.Fuzz(func(t *testing.T, b []byte, upgrading bool) {
		l := &loop{window: newWindow(), swarm: &swarm{bySymbol: map[string]int32{"A": 0}, symbols: []string{"A"}}, clients: map[int32]*client{}}
		c := &client{phase: phaseOpen, speaker: Native("msgpack"), loop: l, group: &Group{Watch: Watch{Kind: "all"}}, channel: codec.ChannelTrades, fd: -1}
		if upgrading {
			c.phase = phaseUpgrading
		}
		if used := c.parse(b); used < 0 || used > len(b) {
			t.Errorf("%d bytes used of %d", used, len(b))
		}
	})
}
