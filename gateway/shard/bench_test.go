package shard

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/codec/record"
	"tickgate/gateway/board"
)

// house is a shard whose rounds the test makes, on a board with trades.
type house struct {
	board  *board.Board
	shard  *Shard
	rec    record.Record
	states []codec.State
	names  []string
}

func newHouse(tb testing.TB, symbols int) *house {
	tb.Helper()
	b, err := board.New(board.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := New(b, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	h := &house{board: b, shard: s, states: make([]codec.State, symbols)}
	s.now = time.Now()
	s.tickNext = s.now.Add(time.Hour)
	for i := range symbols {
		h.names = append(h.names, fmt.Sprintf("S%05d", i))
		h.trade(i)
		b.Loaded(h.names[i])
	}
	return h
}

// trade publishes one trade of a symbol.
func (h *house) trade(i int) {
	st := &h.states[i]
	st.Epoch, st.Seq, st.TradeNo, st.Trades = 1, st.Seq+1, st.TradeNo+1, st.Trades+1
	st.Last = codec.Trade{No: st.TradeNo, Seq: st.Seq, Price: price, Size: size, Flags: codec.TradeOrdinary, IngestTime: 1_800_000_000_000_000_000}
	st.Volume = st.Volume.AddDecimal(size)
	r := &h.rec
	r.Kind, r.Symbol, r.Trade, r.State, r.IngestTime = codec.KindTrade, h.names[i], st.Last, *st, st.Last.IngestTime
	r.Source = codec.Source{Epoch: 1, Offset: int64(st.Seq)}
	h.board.Publish(r)
}

var price, size = codec.MustDecimal("64123.45"), codec.MustDecimal("0.00417")

// attach has a client come that takes everything.
func (h *house) attach() *Session {
	se := &Session{shard: h.shard, conn: eager{}, dialect: native.MsgPack}
	h.shard.attach(se)
	return se
}

// declare makes topics that have not ticked, T0 and on.
func (h *house) declare(n int) {
	for i := range n {
		h.board.Declare(fmt.Sprintf("T%d", i), true)
	}
}

// join has one come and subscribe.
func (h *house) join(channel codec.Channel, every time.Duration, symbols ...int) {
	se := h.attach()
	c := &codec.Command{Op: codec.OpSubscribe, Channel: channel, Every: every}
	for _, i := range symbols {
		c.Symbols.Append(codec.SymbolItem{Name: []byte(h.names[i])})
	}
	h.shard.carryOut(se, c, make(chan struct{}))
	h.shard.round()
}

// round lets d pass.
func (h *house) round(d time.Duration) {
	h.shard.now = h.shard.now.Add(d)
	h.shard.round()
}

// eager takes everything and keeps nothing.
type eager struct{}

func (eager) Ready() bool                      { return true }
func (eager) WriteFrame([]byte) (bool, error)  { return true, nil }
func (eager) Flush() (bool, error)             { return true, nil }
func (eager) Tick(time.Time) codec.CloseReason { return "" }
func (eager) Close(codec.CloseReason)          {}

// TestFlushAllocatesNothing: neither for a tick nor for a frame, on any channel,
// conflated or not.
func TestFlushAllocatesNothing(t *testing.T) {
	for _, channel := range []codec.Channel{codec.ChannelTicker, codec.ChannelTrades} {
		for _, every := range []time.Duration{0, 10 * time.Millisecond} {
			t.Run(fmt.Sprintf("%v every %v", channel, every), func(t *testing.T) {
				h := newHouse(t, 100)
				for range 20 {
					h.join(channel, every, rand.Perm(100)[:80]...)
				}
				flush := func() {
					for i := range 50 {
						h.trade(i)
					}
					h.round(10 * time.Millisecond)
				}
				for range 2000 { // rings, spellings and lists have their sizes then
					flush()
				}
				frames := h.shard.stats.live.Frames
				if n := testing.AllocsPerRun(500, flush); n != 0 {
					t.Errorf("%v allocations for 50 ticks to 20 clients, want 0", n)
				}
				if got := h.shard.stats.live.Frames - frames; got < 500*20 {
					t.Errorf("%d frames in 500 rounds with 20 clients", got)
				}
			})
		}
	}
}

// BenchmarkFlush is what a shard does for the rows of a round, its sockets
// apart: 500 clients with 200 of 1,000 symbols each, all trades.
func BenchmarkFlush(b *testing.B) {
	for _, bb := range []struct {
		every time.Duration
		ticks int // in a round, on as many symbols
	}{{0, 5}, {10 * time.Millisecond, 50}, {100 * time.Millisecond, 500}} {
		b.Run(fmt.Sprintf("every=%v/ticks=%d", bb.every, bb.ticks), func(b *testing.B) {
			h := newHouse(b, 1000)
			rng := rand.New(rand.NewPCG(1, 2))
			for range 500 {
				h.join(codec.ChannelTrades, bb.every, rng.Perm(1000)[:200]...)
			}
			before, beforeFrames := h.shard.stats.live.Rows, h.shard.stats.live.Frames
			b.ReportAllocs()
			for b.Loop() {
				for range bb.ticks {
					h.trade(rng.IntN(1000))
				}
				h.round(max(bb.every, time.Millisecond))
			}
			rows, frames := h.shard.stats.live.Rows-before, h.shard.stats.live.Frames-beforeFrames
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rows), "ns/row")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(frames), "ns/frame")
		})
	}
}

// BenchmarkSilence is what a silent symbol costs a flush.
func BenchmarkSilence(b *testing.B) {
	const symbols = 8000
	h := newHouse(b, symbols)
	h.join(codec.ChannelTrades, 10*time.Millisecond, rand.Perm(symbols)...)
	b.ReportAllocs()
	for b.Loop() {
		h.trade(0)
		h.round(10 * time.Millisecond)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/symbols, "ns/symbol")
}

// BenchmarkSubscribe is how long one command holds a shard up that has 5,000
// topics; with its other end.
func BenchmarkSubscribe(b *testing.B) {
	for name, names := range map[string]func(*codec.Command){
		"patterns=1000": func(c *codec.Command) {
			for i := range 1000 {
				c.Symbols.Append(codec.SymbolItem{Name: fmt.Appendf(nil, "T%d*", i)})
			}
		},
		"waiting=5000": func(c *codec.Command) {
			for i := range 5000 {
				c.Symbols.Append(codec.SymbolItem{Name: fmt.Appendf(nil, "W%d", i)})
			}
		},
		"pattern=9000 times": func(c *codec.Command) {
			for range 9000 {
				c.Symbols.Append(codec.SymbolItem{Name: []byte("T*")})
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			h := newHouse(b, 0)
			h.declare(5000)
			s, se := h.shard, h.attach()
			c := &codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTicker}
			names(c)
			end := *c
			end.Op = codec.OpUnsubscribe
			for b.Loop() {
				s.carryOut(se, c, make(chan struct{}))
				se.work = nil
				s.carryOut(se, &end, make(chan struct{}))
				se.events = nil
			}
			if se.n != 0 || len(se.hopes) != 0 {
				b.Fatalf("%d subscriptions and %d hopes are left", se.n, len(se.hopes))
			}
		})
	}
}

// BenchmarkMeet is how long a session that waits for 10,000 names and patterns
// holds a shard up for each symbol that appears.
func BenchmarkMeet(b *testing.B) {
	h := newHouse(b, 0)
	s, se := h.shard, h.attach()
	c := &codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTicker}
	for i := range 5000 {
		c.Symbols.Append(codec.SymbolItem{Name: fmt.Appendf(nil, "W%d", i)})
		c.Symbols.Append(codec.SymbolItem{Name: fmt.Appendf(nil, "W%d*", i)})
	}
	s.carryOut(se, c, make(chan struct{}))
	h.declare(1)
	other := h.board.Lookup("T0")
	for b.Loop() {
		se.meet(s, other)
	}
}

// BenchmarkEnd is how long the end of a session holds a shard up that is still
// being answered about 10,000 symbols.
func BenchmarkEnd(b *testing.B) {
	h := newHouse(b, 0)
	h.declare(10_000)
	s := h.shard
	c := &codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTicker}
	c.Symbols.Append(codec.SymbolItem{Name: []byte("*")})
	for b.Loop() { // with the subscribing, which is little
		se := h.attach()
		s.carryOut(se, c, make(chan struct{}))
		s.end(se, codec.CloseGone)
		s.dirty = s.dirty[:0]
	}
}
