package market

import (
	"bytes"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/feed/venue"
)

func newMarket(t *testing.T, opts Options) *Market {
	t.Helper()
	opts.Start = time.UnixMilli(1_723_161_255_000)
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

func TestMarketIsOne(t *testing.T) {
	const rate, seconds = 2000, 30
	m := newMarket(t, Options{Seed: 1, Rate: rate, Symbols: 60})
	ticks := map[string]int{}
	type side struct{ bid, ask codec.Decimal }
	quotes := map[string]side{}
	lastID := map[string]uint64{}
	var trades, all int
	var before time.Duration
	for {
		due, name, msg := m.Next()
		if due < before {
			t.Fatalf("due %v after %v", due, before)
		}
		before = due
		if due > seconds*time.Second {
			break
		}
		list, _, err := venue.Binance.Normalize(nil, msg)
		if err != nil || len(list) != 1 || string(list[0].VenueSymbol) != name {
			t.Fatalf("%s: %v, %v", msg, list, err)
		}
		all++
		ticks[name]++
		switch tick := list[0]; tick.Kind {
		case codec.KindQuote:
			if tick.Bid.Cmp(tick.Ask) >= 0 {
				t.Fatalf("bid %v is not below ask %v of %s", tick.Bid, tick.Ask, name)
			}
			quotes[name] = side{tick.Bid, tick.Ask}
		case codec.KindTrade:
			trades++
			if q, ok := quotes[name]; ok && tick.Price.Cmp(q.bid) != 0 && tick.Price.Cmp(q.ask) != 0 {
				t.Fatalf("%s traded at %v between %v and %v", name, tick.Price, q.bid, q.ask)
			}
			if tick.ID <= lastID[name] {
				t.Fatalf("%s: trade id %d after %d", name, tick.ID, lastID[name])
			}
			lastID[name] = tick.ID
		}
	}
	if all < rate*seconds*8/10 || all > rate*seconds*12/10 {
		t.Errorf("%d ticks in %d s, want about %d", all, seconds, rate*seconds)
	}
	if trades < all/6 || trades > all/3 {
		t.Errorf("%d trades of %d ticks, want about a quarter", trades, all)
	}
	if len(ticks) != 60 || ticks["BTCUSDT"] < 5*ticks["FILUSDT"] {
		t.Errorf("%d symbols; BTCUSDT ticked %d times, FILUSDT %d", len(ticks), ticks["BTCUSDT"], ticks["FILUSDT"])
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Symbols: -1}, {Symbols: symbolsMax + 1}, {Rate: -5}, {Rate: rateMax + 1}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) has no complaint", o)
		}
	}
	names := map[string]bool{}
	for i := range newMarket(t, Options{Symbols: symbolsMax}).symbols {
		name, _, _, _ := instrument(i, newMarket(t, Options{Symbols: 1}).rng)
		if !codec.ValidSymbol(name) || names[name] {
			t.Fatalf("symbol %d is called %q", i, name)
		}
		names[name] = true
		if i > 2000 {
			break
		}
	}
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
