package market

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tickgate/codec"
	"tickgate/feed"
	"tickgate/feed/venue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newMarket(t *testing.T, opts Options) *Market {
	t.Helper()
	opts.Start = start
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSameSeedSameMessages(t *testing.T) {
	a, b, c := newMarket(t, Options{Seed: 7}), newMarket(t, Options{Seed: 7}), newMarket(t, Options{Seed: 8})
	same := true
	for i := range 5000 {
		dueA, _, msgA := a.Next()
		dueB, _, msgB := b.Next()
		dueC, _, msgC := c.Next()
		if dueA != dueB || !bytes.Equal(msgA, msgB) {
			t.Fatalf("message %d differs:\n%v %s\n%v %s", i, dueA, msgA, dueB, msgB)
		}
		same = same && dueA == dueC && bytes.Equal(msgA, msgC)
	}
	if same {
		t.Error("another seed makes the same market")
	}
}

// TestMessages plays for half a minute and reads every message as the feed does.
func TestMessages(t *testing.T) {
	for name, opts := range map[string]Options{
		"the default":      {Seed: 1},
		"many symbols":     {Seed: 2, Symbols: symbolsMax, Rate: 2000},
		"one busy symbol":  {Seed: 3, Symbols: 1, Rate: 3000},
		"more than majors": {Seed: 4, Symbols: 200, Rate: 2000},
	} {
		t.Run(name, func(t *testing.T) {
			const length = 30 * time.Second
			m := newMarket(t, opts)
			type side struct{ bid, ask codec.Decimal }
			quotes, lastID, eventTime := map[string]side{}, map[string]uint64{}, int64(0)
			var trades, all int
			var before time.Duration
			var ticks []codec.Tick
			for {
				due, name, msg := m.Next()
				if due < before {
					t.Fatalf("due %v after %v", due, before)
				}
				if before = due; due > length {
					break
				}
				var err error
				if ticks, _, err = venue.Binance.Normalize(ticks[:0], msg); err != nil || len(ticks) != 1 || string(ticks[0].VenueSymbol) != name {
					t.Fatalf("%s: %v, %v", msg, ticks, err)
				}
				all++
				tick := &ticks[0]
				for _, d := range []codec.Decimal{tick.Price, tick.Size, tick.Bid, tick.BidSize, tick.Ask, tick.AskSize} {
					if d.IsSet() && (d.Scale() != decimals || d.Sign() <= 0) {
						t.Fatalf("%v is not printed as Binance does, or is not above zero: %s", d, msg)
					}
				}
				q, quoted := quotes[name]
				switch tick.Kind {
				case codec.KindQuote:
					if tick.Bid.Cmp(tick.Ask) >= 0 || !tick.Bid.IsSet() || !tick.AskSize.IsSet() {
						t.Fatalf("bid %v, ask %v of %s", tick.Bid, tick.Ask, name)
					}
					quotes[name] = side{tick.Bid, tick.Ask}
				case codec.KindTrade:
					trades++
					at := q.ask
					if tick.Side == codec.SideSell {
						at = q.bid
					}
					if quoted && tick.Price.Cmp(at) != 0 {
						t.Fatalf("%s: %v at %v between %v and %v", name, tick.Side, tick.Price, q.bid, q.ask)
					}
					if tick.ID <= lastID[name] {
						t.Fatalf("%s: trade id %d after %d", name, tick.ID, lastID[name])
					}
					lastID[name] = tick.ID
					if want := start.Add(due).UnixMilli() * 1e6; tick.EventTime != want || tick.EventTime < eventTime {
						t.Fatalf("event time %d, want %d", tick.EventTime, want)
					}
					eventTime = tick.EventTime
				}
			}
			if trades < all/5 || trades > all*3/10 {
				t.Errorf("%d trades of %d ticks, want about a quarter", trades, all)
			}
		})
	}
}

var start = time.UnixMilli(1_723_161_255_000)

// TestRate counts ticks in simulated time: in ten seconds within what bursts
// do, in ten minutes exactly.
func TestRate(t *testing.T) {
	for _, opts := range []Options{{}, {Seed: 3}, {Symbols: 1, Rate: 100}, {Symbols: symbolsMax, Rate: 20}, {Symbols: 300, Rate: 5}, {Symbols: 1, Rate: 1}} {
		m := newMarket(t, opts)
		short, long := 0, 0
		for {
			due, _, _ := m.Next()
			if due > 600*time.Second {
				break
			}
			if long++; due <= 10*time.Second {
				short++
			}
		}
		// Of n ticks at random, n +- 4 sqrt(n); a burst of the busiest symbol besides.
		near := func(n, want, part float64) bool { return math.Abs(n-want) <= want*part+4*math.Sqrt(want) }
		if want := 10 * float64(m.opts.Rate); !near(float64(short), want, 0.5) {
			t.Errorf("%+v: %d ticks in 10 s, want about %v", opts, short, want)
		}
		t.Logf("%d symbols at %d/s: %.3f of it in 10 s, %.3f in 600 s", m.opts.Symbols, m.opts.Rate, float64(short)/float64(10*m.opts.Rate), float64(long)/float64(600*m.opts.Rate))
		if want := 600 * float64(m.opts.Rate); !near(float64(long), want, 0.1) {
			t.Errorf("%+v: %d ticks in 600 s, want about %v", opts, long, want)
		}
	}
}

func TestBusyHeadLongTail(t *testing.T) {
	m := newMarket(t, Options{})
	counts, perSecond := map[string]int{}, map[int]int{}
	for range 200_000 {
		due, name, _ := m.Next()
		counts[name]++
		if name == "BTCUSDT" {
			perSecond[int(due/time.Second)]++
		}
	}
	if len(counts) != 50 {
		t.Errorf("%d symbols tick, want 50", len(counts))
	}
	ratio := float64(counts["BTCUSDT"]) / float64(counts["DASHUSDT"]) // ranks 1 and 50
	if want := math.Pow(50, activityExponent); ratio < want*0.7 || ratio > want*1.4 {
		t.Errorf("the first symbol ticks %.1f times as often as the last, want about %.1f", ratio, want)
	}
	var most, all int
	for _, n := range perSecond {
		most, all = max(most, n), all+n
	}
	if mean := all / len(perSecond); most < 4*mean {
		t.Errorf("BTCUSDT ticks %d times in its busiest second and %d on average: no burst", most, mean)
	}
}

// TestPricesStay: whatever the price and however long, it comes back.
func TestPricesStay(t *testing.T) {
	m := newMarket(t, Options{Symbols: 80})
	for i := range m.symbols {
		s := &m.symbols[i]
		low, high := s.bid, s.bid
		for range 20_000 {
			m.quote(s)
			low, high = min(low, s.bid), max(high, s.bid)
		}
		if away := 250 * s.tick; low < s.home-away || high > s.home+away || low < 10*s.tick || low == high || low%s.tick != 0 {
			t.Errorf("%s went from %d to %d, home is %d, tick size %d", s.name, low, high, s.home, s.tick)
		}
	}
}

func TestInstruments(t *testing.T) {
	names := map[string]bool{}
	for rank := range symbolsMax {
		it := instrumentAt(rank)
		if !codec.ValidSymbol(it.name) || names[it.name] || len(it.name) < 6 || it.name[len(it.name)-4:] != "USDT" {
			t.Fatalf("symbol %d is called %q", rank, it.name)
		}
		names[it.name] = true
		if it.home%it.tick != 0 || it.home < 100*it.tick || it.home > 10_000_000*it.tick || it.lot < 1 || it.lots < 1 {
			t.Errorf("%+v", it)
		}
		// The largest size must fit 18 digits; a trade's is below a quote's.
		if it.lot*it.lots > 999_999_999_999_999_999/quoteMax {
			t.Errorf("sizes of %s are too large: %+v", it.name, it)
		}
	}
}

// TestIDsNeverRepeat: a market that starts when another ends goes on above it.
func TestIDsNeverRepeat(t *testing.T) {
	opts := Options{Symbols: 1, Rate: rateMax, Start: start}
	highest := func(length time.Duration) (id uint64) {
		m, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		m.symbols[0].nextBurst = 0 // the worst: it begins with a burst
		m.symbols[0].due = 0
		m.plan(&m.symbols[0])
		for {
			if due, _, _ := m.Next(); due > length {
				return m.symbols[0].tradeID
			}
		}
	}
	last := highest(50 * time.Millisecond)
	opts.Start = opts.Start.Add(50 * time.Millisecond)
	if next, err := New(opts); err != nil || next.symbols[0].tradeID < last {
		t.Errorf("the next market begins at id %d, the one before had come to %d (%v)", next.symbols[0].tradeID, last, err)
	}
	if last >= 1<<53 {
		t.Errorf("id %d is above 2^53", last)
	}
}

func TestOptions(t *testing.T) {
	_, err := New(Options{Symbols: -1, Rate: rateMax + 1})
	if err == nil || !strings.Contains(err.Error(), "Symbols -1: want 1 to 10000") || !strings.Contains(err.Error(), "Rate 1000001: want 1 to 1000000") {
		t.Errorf("error %v does not tell both faults", err)
	}
	for _, o := range []Options{{Symbols: symbolsMax + 1}, {Rate: -5}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) has no complaint", o)
		}
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	m := newMarket(t, Options{})
	if n := testing.AllocsPerRun(1000, func() { m.Next() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// log is a sink in memory.
type log struct {
	entries []feed.Entry
	before  func(write int) error // called before each write, if set
	writes  int
}

func (l *log) Write(_ context.Context, entries []feed.Entry) error {
	l.writes++
	if l.before != nil {
		if err := l.before(l.writes); err != nil {
			return err
		}
	}
	for _, e := range entries {
		e.Key, e.Value = bytes.Clone(e.Key), bytes.Clone(e.Value)
		l.entries = append(l.entries, e)
	}
	return nil
}

// run plays into a sink for a while of fake time.
func run(t *testing.T, opts Options, l *log, length time.Duration) (faults []error) {
	t.Helper()
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	if err := m.Run(ctx, l, func(err error) { faults = append(faults, err) }); err != nil {
		t.Errorf("Run: %v", err)
	}
	return faults
}

func TestRunIsOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		if faults := run(t, Options{Rate: 2000, Start: time.Now().Add(-time.Hour)}, &l, 20*time.Second); len(faults) > 0 {
			t.Errorf("faults %v", faults)
		}
		if n := len(l.entries); n < 30_000 || n > 50_000 {
			t.Errorf("%d messages in 20 s, want about 40000", n)
		}
		for _, e := range l.entries {
			ticks, _, err := venue.Binance.Normalize(nil, e.Value)
			if err != nil || e.KafkaTopic != "raw.binance" || string(e.Key) != string(ticks[0].VenueSymbol) {
				t.Fatalf("%s for %s of %s: %v", e.Key, e.KafkaTopic, e.Value, err)
			}
			if late := time.Duration(e.Time - ticks[0].EventTime); ticks[0].EventTime != 0 && (late < 0 || late > writePeriod+time.Millisecond) {
				t.Fatalf("written %v after its event time: %s", late, e.Value)
			}
		}
	})
}

// TestRunStandsStill: a sink that stops for long costs time, not memory, and
// what comes then is of then.
func TestRunStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		largest, before := 0, 0
		l := log{}
		l.before = func(write int) error {
			largest, before = max(largest, len(l.entries)-before), len(l.entries)
			if write == 100 {
				time.Sleep(time.Hour)
			}
			return nil
		}
		faults := run(t, Options{Rate: 2000}, &l, time.Hour+10*time.Second)
		if len(faults) != 1 || !strings.Contains(faults[0].Error(), "stood still for 1h0m0") {
			t.Errorf("faults %v, want one of an hour", faults)
		}
		if n := len(l.entries); n < 12_000 || n > 30_000 || largest > writeMax {
			t.Errorf("%d messages, %d at once: want those of 10 s", n, largest)
		}
		last := l.entries[len(l.entries)-1]
		if late := time.Now().UnixNano() - last.Time; late > int64(time.Second) {
			t.Errorf("the last message is %v old", time.Duration(late))
		}
		for _, e := range l.entries[len(l.entries)-100:] {
			ticks, _, err := venue.Binance.Normalize(nil, e.Value)
			if late := time.Duration(e.Time - ticks[0].EventTime); err != nil || ticks[0].EventTime != 0 && late > backlogMax {
				t.Errorf("event time %v before it was written: %s", late, e.Value)
			}
		}
	})
}

// TestRunTellsFaults: at once, then each minute, and it goes on.
func TestRunTellsFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		no := errors.New("no broker")
		began := time.Now()
		l := log{before: func(int) error {
			if time.Since(began) < 150*time.Second {
				return no
			}
			return nil
		}}
		faults := run(t, Options{Rate: 100}, &l, 160*time.Second)
		if len(faults) != 3 || !errors.Is(faults[0], no) || !strings.Contains(faults[0].Error(), "messages are lost") {
			t.Errorf("%d faults %v, want three in 150 s", len(faults), faults)
		}
		if len(l.entries) == 0 {
			t.Error("no message came when the sink was well again")
		}
	})
}

func BenchmarkNext(b *testing.B) {
	m, err := New(Options{Rate: 100_000})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.Next()
	}
}
