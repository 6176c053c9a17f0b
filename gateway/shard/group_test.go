package shard

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"tickgate/codec"
	"tickgate/codec/native"
)

// TestGroupAgainstModel merges, sweeps and finds at random, and compares with a
// map.
func TestGroupAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		g := &group{session: &Session{}}
		g.session.groups = []*group{g}
		topics := uint32(1 + rng.IntN(2000))
		model := map[uint32]uint64{}
		for step := range 20 {
			var fresh []subscription
			for range rng.IntN(1 + int(topics)/4) {
				id := rng.Uint32N(topics)
				if _, ok := model[id]; !ok {
					model[id] = rng.Uint64()
					fresh = append(fresh, subscription{topic: id, cursor: model[id]})
				}
			}
			slices.SortFunc(fresh, func(a, b subscription) int { return int(a.topic) - int(b.topic) })
			g.merge(fresh)
			for i := range g.subs {
				if rng.IntN(5) == 0 {
					g.subs[i].flags |= leaving
					delete(model, g.subs[i].topic)
				}
			}
			g.sweep()
			if rng.IntN(2) == 0 {
				g.index()
			}
			if len(g.subs) != len(model) || g.members != nil && len(g.subs) < membersMin {
				t.Fatalf("round %d, step %d: %d subscriptions, want %d", round, step, len(g.subs), len(model))
			}
			changed := make([]uint64, 1+rng.IntN(int(topics)/64+2))
			for id := range topics + 70 {
				cursor, ok := model[id]
				at := g.find(id)
				if (at >= 0) != ok || ok && g.subs[at].cursor != cursor {
					t.Fatalf("round %d, step %d: topic %d found at %d, want %v", round, step, id, at, ok)
				}
				if w := int(id / 64); w < len(changed) && rng.IntN(3) == 0 {
					changed[w] |= 1 << (id % 64)
				}
			}
			var want []uint32
			for i := range g.subs {
				if id := g.subs[i].topic; int(id/64) < len(changed) && changed[id/64]>>(id%64)&1 != 0 {
					want = append(want, uint32(i))
				}
			}
			if any := g.match(changed); any != (len(want) > 0) || !slices.Equal(g.touched, want) {
				t.Fatalf("round %d, step %d: touched %v, want %v", round, step, g.touched, want)
			}
			g.touched = g.touched[:0]
		}
	}
}

// TestStalledMemory: what a client costs that takes nothing: 32 KiB, and 32
// bytes for each symbol, however many ticks come.
func TestStalledMemory(t *testing.T) {
	if n := unsafe.Sizeof(subscription{}); n != 24 {
		t.Errorf("a subscription has %d bytes, want 24", n)
	}
	const symbols, clients = 2000, 40
	x := newBench(t)
	var names []string
	for i := range symbols {
		names = append(names, fmt.Sprintf("M%d", i))
	}
	x.loaded(names...)
	heap := func() uint64 {
		x.ledger() // what waits in the mailbox is done
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var deaf atomic.Bool
	join := func(every time.Duration) {
		se, err := x.shard.Attach(deafConn{&deaf}, native.MsgPack, SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := &codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTrades, Every: every}
		for _, n := range names {
			c.Symbols.Append(codec.SymbolItem{Name: []byte(n)})
		}
		x.do(se, c)
	}
	for name, every := range map[string]time.Duration{"unconflated": 0, "conflated": 50 * time.Millisecond} {
		join(every) // what the first one brings along is the shard's
		before := heap()
		for range clients {
			join(every)
		}
		deaf.Store(true)
		for range 3 {
			for _, n := range names {
				x.trade(n)
			}
			time.Sleep(60 * time.Millisecond) // a cadence and more
		}
		await(t, "all to owe", func() bool { x.ledger(); return x.shard.Stats().Owing >= clients })
		each := int64(heap()-before) / clients
		t.Logf("%s: %d bytes a client with %d symbols", name, each, symbols)
		if most := int64(32<<10 + 32*symbols); each > most {
			t.Errorf("%s: %d bytes a client, want at most %d", name, each, most)
		}
		deaf.Store(false)
	}
}

// deafConn keeps nothing of what it is sent, and then takes nothing more.
type deafConn struct{ deaf *atomic.Bool }

func (c deafConn) Ready() bool                    { return !c.deaf.Load() }
func (deafConn) WriteFrame([]byte) (bool, error)  { return true, nil }
func (c deafConn) Flush() (bool, error)           { return true, nil }
func (deafConn) Tick(time.Time) codec.CloseReason { return "" }
func (deafConn) Close(codec.CloseReason)          {}

// TestTermsAreBounded: one session cannot have the shard look through more than
// groupsMax groups for each symbol.
func TestTermsAreBounded(t *testing.T) {
	x := newBench(t)
	x.loaded("A", "B")
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	for i := range groupsMax + 3 {
		c := &codec.Command{Op: codec.OpSubscribe, Ref: uint64(i + 1), Channel: codec.ChannelTrades, MinSize: codec.MustDecimal(fmt.Sprintf("0.%02d", i))}
		c.Symbols.Append(codec.SymbolItem{Name: []byte("A")})
		x.do(se, c) // the one subscription moves on; groups that it leaves go
	}
	if n := count(conn.updates(t), codec.EventRefused); n != 0 || se.n != 1 || len(se.groups) != 1 {
		t.Errorf("%d refused, %d subscriptions in %d groups; want one", n, se.n, len(se.groups))
	}
	var names []string
	for i := range groupsMax + 1 {
		names = append(names, fmt.Sprintf("T%d", i))
	}
	x.loaded(names...)
	for i, n := range names {
		c := &codec.Command{Op: codec.OpSubscribe, Ref: uint64(i + 1), Channel: codec.ChannelTrades, MinSize: codec.MustDecimal(fmt.Sprintf("7.%02d", i))}
		c.Symbols.Append(codec.SymbolItem{Name: []byte(n)})
		x.do(se, c)
	}
	await(t, "refusals", func() bool { return count(conn.updates(t), codec.EventRefused) == 2 })
	for _, u := range conn.updates(t) {
		if u.Type == codec.EventRefused && u.Event.Code != "too-many-terms" {
			t.Errorf("refused for %q", u.Event.Code)
		}
	}
}

func TestOwingHeap(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var h owingHeap
	in := map[*Session]bool{}
	began := time.Now()
	for range 20_000 {
		if rng.IntN(3) > 0 || len(h) == 0 {
			se := &Session{owingAt: began.Add(time.Duration(rng.IntN(1000)))}
			h.push(se)
			in[se] = true
		} else {
			i := 0
			if rng.IntN(2) == 0 {
				i = rng.IntN(len(h))
			}
			se := h.remove(i)
			if !in[se] {
				t.Fatal("removed what was not there")
			}
			delete(in, se)
			for left := range in {
				if i == 0 && left.owingAt.Before(se.owingAt) {
					t.Fatal("the first was not the first")
				}
			}
		}
		if len(h) > 60 {
			h.remove(len(h) - 1)
			clear(in)
			for _, se := range h {
				in[se] = true
			}
		}
		for i, se := range h {
			if se.owingIndex != i {
				t.Fatalf("session %d says it is %d", i, se.owingIndex)
			}
		}
	}
}

// TestStalledVisits: a client that takes nothing is tried at most 50 times a
// second, however much ticks, and at once if it is known to take again.
func TestStalledVisits(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	conn := &countedConn{fakeConn: fakeConn{room: -1}}
	se := x.attach(conn)
	x.subscribe(se, codec.ChannelTicker, 0, "A")
	conn.allow(0)
	x.trade("A")
	await(t, "it to owe", func() bool { x.ledger(); return x.shard.Stats().Owing == 1 })
	before := conn.tried.Load()
	for began := time.Now(); time.Since(began) < time.Second; time.Sleep(time.Millisecond) {
		x.trade("A")
	}
	if n := conn.tried.Load() - before; n > 50 || n == 0 {
		t.Errorf("%d tries in a second, want 1 to 50", n)
	}
	conn.allow(-1)
	began := time.Now()
	se.Retry()
	await(t, "the newest state", func() bool {
		list := conn.updates(t)
		return list[len(list)-1].Seq == x.seq["A"]
	})
	t.Logf("current after %v", time.Since(began))
}

type countedConn struct {
	fakeConn
	tried atomic.Int64
}

func (c *countedConn) Flush() (bool, error) { c.tried.Add(1); return c.fakeConn.Flush() }
