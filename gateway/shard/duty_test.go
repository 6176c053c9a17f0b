package shard

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
)

// TestLedgerOfARemainder: what a frame carries is delivered once the kernel has
// taken all of it, pending until then, and dropped if the client goes before. The
// counts that are told outside say the same, and a session that has ended counts on.
func TestLedgerOfARemainder(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	x.subscribe(se, codec.ChannelTrades, 0, "A")
	want := func(when string, l codec.Ledger) {
		t.Helper()
		await(t, when, func() bool { return x.ledger() == l })
		await(t, when+", outside", func() bool { return x.shard.Stats().Ledger == l })
	}
	want("subscribed", codec.Ledger{Snapshots: 1})
	x.trade("A")
	want("taken", codec.Ledger{Offered: 1, Delivered: 1, Snapshots: 1})
	conn.allow(10) // of a frame
	x.trade("A")
	want("taken in part", codec.Ledger{Offered: 2, Delivered: 1, Pending: 1, Snapshots: 1})
	conn.allow(-1)
	want("taken whole", codec.Ledger{Offered: 2, Delivered: 2, Snapshots: 1})
	conn.allow(10)
	x.trade("A")
	want("in part again", codec.Ledger{Offered: 3, Delivered: 2, Pending: 1, Snapshots: 1})
	x.trade("A")
	x.trade("A")
	want("and two more behind it", codec.Ledger{Offered: 5, Delivered: 2, Pending: 3, Snapshots: 1})
	se.Detach(codec.CloseGone)
	want("gone", codec.Ledger{Offered: 5, Delivered: 2, Dropped: 3, Snapshots: 1})

	slow := &fakeConn{room: -1}
	x.subscribe(x.attach(slow), codec.ChannelTicker, time.Minute, "A")
	want("another one", codec.Ledger{Offered: 5, Delivered: 2, Dropped: 3, Snapshots: 2})
	prompt := &fakeConn{room: -1}
	x.subscribe(x.attach(prompt), codec.ChannelTicker, 0, "A")
	prompt.allow(0)
	for range 4 {
		x.trade("A")
	}
	await(t, "it to owe", func() bool { x.ledger(); return x.shard.Stats().Owing == 1 })
	prompt.allow(-1)
	await(t, "all to be offered to both", func() bool { return x.ledger().Offered == 5+2*4 })
	await(t, "merged ticks", func() bool {
		l := x.ledger()
		return l.Pending == 4 && l.Merged > 0 && l.Delivered+l.Merged == 2+4
	})
}

// TestLoading: a topic that has a state and has not been read to its end tells that
// it is loading, and no snapshot before it is read.
func TestLoading(t *testing.T) {
	x := newBench(t)
	x.board.Declare("A", true)
	x.trade("A")
	conn := &fakeConn{room: -1}
	x.subscribe(x.attach(conn), codec.ChannelTicker, 0, "A", "B")
	x.trade("A")
	time.Sleep(20 * time.Millisecond)
	list := conn.updates(t)
	loading := false
	for _, u := range list {
		loading = loading || u.Type == codec.EventState && u.Event.State == codec.StateLoading && u.Event.Symbol == "A"
	}
	if !loading || count(list, codec.EventSnapshot)+count(list, codec.EventTicker) != 0 {
		t.Errorf("loading told: %v; %d snapshots and %d ticks before it was read", loading,
			count(list, codec.EventSnapshot), count(list, codec.EventTicker))
	}
	x.trade("A")
	x.board.Loaded("A")
	await(t, "the snapshot", func() bool { return fmt.Sprint(rows(conn.updates(t))) == "[s3]" })
}

// TestCadences: a period is granted as the next one above it that there is.
func TestCadences(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	for ask, want := range map[time.Duration]time.Duration{
		0: 0, time.Millisecond: 10 * time.Millisecond, 10 * time.Millisecond: 10 * time.Millisecond, 11 * time.Millisecond: 20 * time.Millisecond,
		100 * time.Millisecond: 100 * time.Millisecond, 240 * time.Millisecond: 250 * time.Millisecond, 6 * time.Second: 10 * time.Second, time.Hour: time.Minute,
	} {
		x.subscribe(se, codec.ChannelTicker, ask, "A")
		await(t, "the answer", func() bool {
			list := conn.updates(t)
			return list[len(list)-1].Type == codec.EventSnapshotEnd
		})
		list := conn.updates(t)
		for i := len(list) - 1; ; i-- {
			if list[i].Type == codec.EventGranted {
				if got := list[i].Event.Every; got != want {
					t.Errorf("every %v: granted %v, want %v", ask, got, want)
				}
				break
			}
		}
	}
}

// TestPhasesAreSpread: clients of one cadence are not all served at once.
func TestPhasesAreSpread(t *testing.T) {
	h := newHouse(t, 1)
	for range 4 * phases {
		h.join(codec.ChannelTicker, 100*time.Millisecond, 0)
	}
	if n := len(h.shard.slots); n != phases {
		t.Fatalf("%d slots, want %d", n, phases)
	}
	at := map[time.Duration]bool{}
	for _, sl := range h.shard.slots {
		at[sl.next.Sub(h.shard.now)/(100*time.Millisecond/phases)] = true
		if len(sl.groups) != 4 {
			t.Errorf("%d clients in a slot, want 4", len(sl.groups))
		}
	}
	if len(at) < phases-1 {
		t.Errorf("slots at %v", at)
	}
}

// TestSpellingsAreBounded: a shard keeps spellingsMax spellings, and who wants one
// more gets its own.
func TestSpellingsAreBounded(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	var conns []*fakeConn
	for v := codec.View(1); v <= codec.ViewAll; v++ {
		for _, c := range []codec.Channel{codec.ChannelTicker, codec.ChannelTrades} {
			conn := &fakeConn{room: -1}
			conns = append(conns, conn)
			cmd := &codec.Command{Op: codec.OpSubscribe, Ref: 1, Channel: c, View: v}
			cmd.Symbols.Append(codec.SymbolItem{Name: []byte("A")})
			x.do(x.attach(conn), cmd)
		}
	}
	for range 3 {
		x.trade("A")
	}
	x.settled()
	if kept := len(x.shard.kinds); len(conns) <= spellingsMax || kept != spellingsMax {
		t.Errorf("%d spellings kept for %d, want %d", kept, len(conns), spellingsMax)
	}
	for i, conn := range conns {
		if got := rows(conn.updates(t)); got[len(got)-1] != "4" {
			t.Errorf("client %d of %d got %v", i, len(conns), got)
		}
	}
}

// TestVisitsAreBounded: who is owed much is sent visitBytesMax, then it is the next
// one's turn, and it goes on where it stopped.
func TestVisitsAreBounded(t *testing.T) {
	h := newHouse(t, 2)
	conn := &fakeConn{room: -1}
	se := &Session{shard: h.shard, conn: conn, dialect: native.JSON}
	h.shard.attach(se)
	c := &codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTrades}
	c.Symbols.Append(codec.SymbolItem{Name: []byte(h.names[0])})
	h.shard.carryOut(se, c, make(chan struct{}))
	h.shard.round()
	conn.frames = nil
	const many = 2000 // rows of some 200 bytes
	for range many {
		h.trade(0)
	}
	for rounds := 0; ; rounds++ {
		before := len(conn.frames)
		h.shard.round()
		sent := 0
		for _, f := range conn.frames[before:] {
			sent += len(f)
		}
		if sent > visitBytesMax+h.shard.opts.FrameMax {
			t.Fatalf("%d bytes in one visit", sent)
		}
		if len(h.shard.again) == 0 {
			if rounds < 3 {
				t.Errorf("all in %d rounds", rounds)
			}
			break
		}
	}
	next := uint64(2)
	for _, b := range conn.frames {
		f, err := native.JSON.OpenFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		for u := (native.Update{}); f.Next(&u); next++ {
			if u.Seq != next {
				t.Fatalf("trade %d, want %d", u.Seq, next)
			}
		}
	}
	if next != many+2 {
		t.Errorf("got trades up to %d, want %d", next-1, many+1)
	}
}

// TestOwingTimes: who takes nothing is tried after 5 ms, twice that, and so on up
// to 250 ms, a little early.
func TestOwingTimes(t *testing.T) {
	h := newHouse(t, 1)
	se := &Session{shard: h.shard, conn: &fakeConn{}}
	h.shard.attach(se)
	want := owingMin
	for range 12 {
		h.shard.owe(se)
		got := se.owingAt.Sub(h.shard.now)
		if got > want || got < want-want/owingSpread {
			t.Errorf("tried after %v, want %v", got, want)
		}
		h.shard.owing.remove(se.owingIndex)
		want = min(2*want, 250*time.Millisecond)
	}
}

// TestWaitingEventsAreBounded: what is told to a client that takes nothing is
// kept up to tellMax, and counted beyond.
func TestWaitingEventsAreBounded(t *testing.T) {
	x := newBench(t)
	conn := &fakeConn{}
	se := x.attach(conn)
	for range tellMax + 5 {
		se.Tell(codec.Event{Type: codec.EventPong})
	}
	await(t, "five to be lost", func() bool { return x.shard.Stats().EventsLost == 5 })
	conn.allow(-1)
	await(t, "the others", func() bool { return count(conn.updates(t), codec.EventPong) == tellMax })
}

// tickedConn says after some ticks that it must be closed.
type tickedConn struct {
	fakeConn
	ticks atomic.Int64
}

func (c *tickedConn) Tick(time.Time) codec.CloseReason {
	if c.ticks.Add(1) == 2 {
		return codec.CloseStalled
	}
	return ""
}

// TestTicks: a socket is ticked once a second, also if nothing happens, and closed
// for what it says.
func TestTicks(t *testing.T) {
	x := newBench(t)
	conn := &tickedConn{fakeConn: fakeConn{room: -1}}
	x.attach(conn)
	began := time.Now()
	await(t, "the close", func() bool {
		conn.mu.Lock()
		defer conn.mu.Unlock()
		return conn.reason == codec.CloseStalled
	})
	if d := time.Since(began); d < tickPeriod*9/10 || d > 4*tickPeriod {
		t.Errorf("ticked twice within %v, want once a second", d)
	}
}

// TestInterestEnds: nobody is told of what nobody here follows any more.
func TestInterestEnds(t *testing.T) {
	h := newHouse(t, 2)
	h.join(codec.ChannelTicker, 0, 0)
	h.shard.round()
	marks := func() (n int) {
		h.trade(0)
		h.trade(1)
		h.shard.watcher.Take(func(uint32) { n++ })
		return n
	}
	if n := marks(); n != 1 {
		t.Errorf("%d marks, want one of what is followed", n)
	}
	for se := range h.shard.sessions {
		h.shard.end(se, codec.CloseNormal)
	}
	if n := marks(); n != 0 {
		t.Errorf("%d marks after the end, want none", n)
	}
}
