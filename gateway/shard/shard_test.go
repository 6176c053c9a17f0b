package shard

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/codec/record"
	"tickgate/gateway/board"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeConn takes frames, or not, as a test wants.
type fakeConn struct {
	mu     sync.Mutex
	room   int // bytes it still takes; -1: any
	left   []byte
	frames [][]byte
	reason codec.CloseReason
}

func (c *fakeConn) Ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.room != 0 && len(c.left) == 0
}

func (c *fakeConn) WriteFrame(buf []byte) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != "" {
		return false, fmt.Errorf("closed: %s", c.reason)
	}
	payload := append([]byte(nil), buf[headerRoom:]...)
	if c.room >= 0 && len(payload) > c.room {
		c.left, c.room = payload, 0
		return false, nil
	}
	if c.room > 0 {
		c.room -= len(payload)
	}
	c.frames = append(c.frames, payload)
	return true, nil
}

func (c *fakeConn) Flush() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.left) == 0 {
		return true, nil
	}
	if c.room < 0 || c.room >= len(c.left) {
		c.frames = append(c.frames, c.left)
		if c.room > 0 {
			c.room -= len(c.left)
		}
		c.left = nil
		return true, nil
	}
	return false, nil
}

func (c *fakeConn) Tick(time.Time) codec.CloseReason { return "" }

func (c *fakeConn) Close(reason codec.CloseReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reason = reason
}

func (c *fakeConn) allow(room int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.room = room
}

// updates decodes all that the connection took.
func (c *fakeConn) updates(t *testing.T) []native.Update {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []native.Update
	for _, f := range c.frames {
		if len(f) > 16<<10 {
			t.Errorf("a frame of %d bytes", len(f))
		}
		frame, err := native.MsgPack.OpenFrame(f)
		if err != nil {
			t.Fatalf("frame: %v", err)
		}
		for u := (native.Update{}); frame.Next(&u); {
			list = append(list, u)
		}
		if err := frame.Err(); err != nil {
			t.Fatalf("frame: %v", err)
		}
	}
	return list
}

// bench is a board, a running shard and what a test does with them.
type bench struct {
	t     *testing.T
	board *board.Board
	shard *Shard
	stop  func()
	seq   map[string]uint64
	total map[string]codec.Total
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b, err := board.New(board.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	x := &bench{t: t, board: b, shard: s, seq: map[string]uint64{}, total: map[string]codec.Total{}}
	x.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(x.stop)
	return x
}

// trade publishes a trade of size 1.
func (x *bench) trade(symbol string) {
	x.seq[symbol]++
	n := x.seq[symbol]
	one := codec.MustDecimal("1")
	x.total[symbol] = x.total[symbol].AddDecimal(one)
	tr := codec.Trade{No: n, Seq: n, Price: codec.MustDecimal(fmt.Sprintf("100.%02d", n%100)), Size: one, IngestTime: time.Now().UnixNano(), Flags: codec.TradeOrdinary}
	x.board.Publish(&record.Record{Kind: codec.KindTrade, Symbol: symbol, IngestTime: tr.IngestTime, Trade: tr,
		Source: codec.Source{Epoch: 1, Offset: int64(n)},
		State:  codec.State{Epoch: 1, Seq: n, TradeNo: n, Trades: n, Volume: x.total[symbol], Last: tr}})
}

func (x *bench) attach(conn Conn) *Session {
	x.t.Helper()
	se, err := x.shard.Attach(conn, native.MsgPack, SessionOptions{SymbolsMax: 100})
	if err != nil {
		x.t.Fatal(err)
	}
	return se
}

func (x *bench) subscribe(se *Session, channel codec.Channel, every time.Duration, names ...string) {
	x.t.Helper()
	c := &codec.Command{Op: codec.OpSubscribe, Ref: 7, Channel: channel, Every: every}
	for _, n := range names {
		c.Symbols.Append(codec.SymbolItem{Name: []byte(n)})
	}
	x.do(se, c)
}

func (x *bench) do(se *Session, c *codec.Command) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := se.Do(ctx, c); err != nil {
		x.t.Fatalf("%v: %v", c.Op, err)
	}
}

func (x *bench) ledger() codec.Ledger {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := ledgers(ctx, x.shard)
	if err != nil {
		x.t.Fatal(err)
	}
	return l
}

// ledgers is a shard's ledger, once it has been seen to add up and to be what the
// shard has kept as ticks came and went.
func ledgers(ctx context.Context, s *Shard) (l codec.Ledger, err error) {
	var kept codec.Ledger
	if err := s.do(ctx, func() { l, kept = s.ledgers(), s.stats.live.Ledger }); err != nil {
		return l, err
	}
	if l.Offered != l.Delivered+l.Merged+l.Filtered+l.Dropped+l.Pending {
		return l, fmt.Errorf("the ledger does not add up: %+v", l)
	}
	if kept.Pending = l.Pending; kept != l {
		return l, fmt.Errorf("the ledger is %+v, and what is kept of it %+v", l, kept)
	}
	return l, nil
}

// watchLedgers lets d pass, and asks for the ledgers twenty times.
func watchLedgers(ctx context.Context, t *testing.T, shards []*Shard, d time.Duration) {
	t.Helper()
	for range 20 {
		time.Sleep(d / 20)
		for _, s := range shards {
			if _, err := ledgers(ctx, s); err != nil {
				t.Error(err)
			}
		}
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

func count(list []native.Update, typ codec.EventType) (n int) {
	for i := range list {
		if list[i].Type == typ {
			n++
		}
	}
	return n
}

func TestSnapshotThenStream(t *testing.T) {
	x := newBench(t)
	x.board.Declare("A", true)
	for range 5 {
		x.trade("A")
	}
	x.board.Loaded("A")
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	se.Tell(codec.Event{Type: codec.EventWelcome, Node: "n"})
	x.subscribe(se, codec.ChannelTrades, 0, "A", "B", "bad name")
	for range 5 {
		x.trade("A")
	}
	await(t, "five trades", func() bool { return count(conn.updates(t), codec.EventTrade) == 5 })
	x.board.Declare("B", true)
	x.trade("B")
	x.trade("B")
	await(t, "two trades of the late symbol", func() bool { return count(conn.updates(t), codec.EventTrade) == 7 })
	var kinds []codec.EventType
	var seqs []uint64
	for _, u := range conn.updates(t) {
		kinds = append(kinds, u.Type)
		if u.Type == codec.EventSnapshot || u.Type == codec.EventTrade {
			seqs = append(seqs, u.Seq)
		}
	}
	if got, want := fmt.Sprint(seqs), "[5 6 7 8 9 10 1 2]"; got != want {
		t.Errorf("sequence %v, want %v (of %v)", got, want, kinds)
	}
	for typ, want := range map[codec.EventType]int{codec.EventWelcome: 1, codec.EventGranted: 2, codec.EventWaiting: 1, codec.EventRefused: 1, codec.EventSnapshot: 1, codec.EventSnapshotEnd: 1} {
		if got := count(conn.updates(t), typ); got != want {
			t.Errorf("%d events of type %d, want %d", got, typ, want)
		}
	}
	if l := x.ledger(); l.Delivered != 7 || l.Dropped != 0 {
		t.Errorf("ledger %+v", l)
	}
}

// settled waits until nothing is pending.
func (x *bench) settled() {
	x.t.Helper()
	await(x.t, "nothing is pending", func() bool { return x.ledger().Pending == 0 })
}

// met waits until the shard knows of all topics.
func (x *bench) met() {
	x.t.Helper()
	await(x.t, "the shard has met all topics", func() (met bool) {
		err := x.shard.do(x.t.Context(), func() { met = x.shard.seen == len(x.board.Topics()) })
		return met && err == nil
	})
}

func (x *bench) loaded(symbols ...string) {
	for _, s := range symbols {
		x.board.Declare(s, true)
		x.trade(s)
		x.board.Loaded(s)
	}
}

// trades are the sequence numbers of the trades a client got, and what it was
// told to be dropped.
func trades(list []native.Update, id uint32) (seqs []uint64, dropped uint64) {
	for _, u := range list {
		switch {
		case u.Type == codec.EventTrade && u.ID == id:
			seqs = append(seqs, u.Seq)
		case u.Type == codec.EventDrop && u.Event.ID == id:
			dropped += u.Event.Count
		}
	}
	return seqs, dropped
}

func TestDropsAreToldExactly(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	x.subscribe(se, codec.ChannelTrades, 0, "A")
	conn.allow(0)
	const many = 40_000 // more than any ring holds
	for range many {
		x.trade("A")
	}
	time.Sleep(20 * time.Millisecond)
	conn.allow(-1)
	x.settled()
	seqs, dropped := trades(conn.updates(t), 0)
	if dropped == 0 || uint64(len(seqs))+dropped != many {
		t.Errorf("%d trades got and %d told as dropped, want %d together", len(seqs), dropped, many)
	}
	if last := seqs[len(seqs)-1]; last != many+1 {
		t.Errorf("the last trade is %d, want %d", last, many+1)
	}
	for i := 1; i < len(seqs); i++ {
		if seqs[i] != seqs[i-1]+1 && seqs[i] != seqs[i-1]+1+dropped {
			t.Fatalf("trade %d after %d", seqs[i], seqs[i-1])
		}
	}
	if l := x.ledger(); l.Offered != many || l.Dropped != dropped || l.Delivered != uint64(len(seqs)) {
		t.Errorf("ledger %+v", l)
	}
}

func TestConflation(t *testing.T) {
	x := newBench(t)
	x.loaded("A", "B")
	conn := &fakeConn{room: -1}
	x.subscribe(x.attach(conn), codec.ChannelTicker, 50*time.Millisecond, "A", "B")
	began := time.Now()
	for time.Since(began) < 300*time.Millisecond {
		x.trade("A")
		time.Sleep(time.Millisecond)
	}
	x.settled()
	rows, last := 0, uint64(0)
	for _, u := range conn.updates(t) {
		if u.Type == codec.EventTicker {
			rows++
			last = u.Seq
		}
	}
	if last != x.seq["A"] {
		t.Errorf("the last row is %d, want the newest, %d", last, x.seq["A"])
	}
	// One a period, and one at either end.
	if most := int(time.Since(began)/(50*time.Millisecond)) + 2; rows > most || rows < 3 {
		t.Errorf("%d rows in %v at 50 ms", rows, time.Since(began))
	}
	if l := x.ledger(); l.Merged != l.Offered-l.Delivered || l.Merged == 0 {
		t.Errorf("ledger %+v", l)
	}
}

func TestPatternsSetAndUnsubscribe(t *testing.T) {
	x := newBench(t)
	x.loaded("BTC-A", "ETH-A")
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	x.subscribe(se, codec.ChannelTicker, 0, "BTC-*")
	x.loaded("BTC-B", "ETH-B")
	x.subscribe(se, codec.ChannelTrades, 0, "BTC-A", "LATER") // of which the sets say nothing
	granted := func(want ...string) {
		t.Helper()
		await(t, fmt.Sprint("granted ", want), func() bool {
			got := map[string]bool{}
			for _, u := range conn.updates(t) {
				if u.Type == codec.EventGranted {
					got[u.Event.Symbol] = true
				}
			}
			for _, w := range want {
				if !got[w] {
					return false
				}
			}
			return len(got) == len(want)
		})
	}
	granted("BTC-A", "BTC-B")
	set := &codec.Command{Op: codec.OpSet, Channel: codec.ChannelTicker, More: true}
	set.Symbols.Append(codec.SymbolItem{Name: []byte("ETH-A")})
	x.do(se, set)
	set = &codec.Command{Op: codec.OpSet, Channel: codec.ChannelTicker}
	set.Symbols.Append(codec.SymbolItem{Name: []byte("BTC-B")})
	x.do(se, set)
	granted("BTC-A", "BTC-B", "ETH-A")
	if n := se.n; n != 3 || len(se.hopes) != 1 {
		t.Errorf("%d subscriptions and %d waiting names and patterns after the set, want ETH-A, BTC-B and on trades BTC-A, and LATER", n, len(se.hopes))
	}
	for _, c := range []codec.Channel{codec.ChannelTrades, codec.ChannelQuotes} { // one that keeps nothing, one of nothing
		x.do(se, &codec.Command{Op: codec.OpSet, Channel: c})
	}
	if n := se.n; n != 2 || len(se.hopes) != 0 {
		t.Errorf("%d subscriptions and %d waiting after a set of nothing on trades, want ETH-A and BTC-B", n, len(se.hopes))
	}
	off := &codec.Command{Op: codec.OpUnsubscribe, Channel: codec.ChannelTicker}
	off.Symbols.Append(codec.SymbolItem{Name: []byte("*")})
	x.do(se, off)
	if se.n != 0 || len(se.groups) != 0 || x.shard.topics[0] != nil {
		t.Error("subscriptions or topics are left")
	}
	before := len(conn.updates(t))
	x.trade("BTC-A")
	time.Sleep(20 * time.Millisecond)
	if n := len(conn.updates(t)); n > before+1 { // the answer to unsubscribe
		t.Errorf("%d rows came after the end", n-before)
	}
	se.Detach(codec.CloseNormal)
	await(t, "the session is gone", func() bool { x.ledger(); return x.shard.Stats().Sessions == 0 })
}

func TestResume(t *testing.T) {
	for name, tt := range map[string]struct {
		from codec.SymbolItem
		want []uint64 // trades
		also codec.EventType
	}{
		"where it stands":     {codec.SymbolItem{Epoch: 1, Seq: 30}, nil, 0},
		"a little behind":     {codec.SymbolItem{Epoch: 1, Seq: 27}, []uint64{28, 29, 30}, 0},
		"an epoch before":     {codec.SymbolItem{Epoch: 0, Seq: 27}, nil, codec.EventReset},
		"an epoch to come":    {codec.SymbolItem{Epoch: 7, Seq: 27}, nil, codec.EventBehind},
		"ahead of this node":  {codec.SymbolItem{Epoch: 1, Seq: 99}, nil, codec.EventBehind},
		"from the very start": {codec.SymbolItem{Epoch: 1, Seq: 0}, seqsTo(30), 0},
	} {
		t.Run(name, func(t *testing.T) {
			x := newBench(t)
			x.board.Declare("A", true)
			for range 30 {
				x.trade("A")
			}
			x.board.Loaded("A")
			conn := &fakeConn{room: -1}
			se := x.attach(conn)
			c := &codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTrades}
			tt.from.Name, tt.from.HasFrom = []byte("A"), true
			c.Symbols.Append(tt.from)
			x.do(se, c)
			await(t, "the answer", func() bool { return count(conn.updates(t), codec.EventSnapshotEnd) == 1 })
			seqs, _ := trades(conn.updates(t), 0)
			if fmt.Sprint(seqs) != fmt.Sprint(tt.want) {
				t.Errorf("trades %v, want %v", seqs, tt.want)
			}
			for _, e := range []codec.EventType{codec.EventReset, codec.EventBehind} {
				if n := count(conn.updates(t), e); n != map[bool]int{true: 1}[e == tt.also] {
					t.Errorf("%d events %d", n, e)
				}
			}
			x.trade("A")
			x.settled()
			seqs, _ = trades(conn.updates(t), 0)
			if len(seqs) != len(tt.want)+1 || seqs[len(seqs)-1] != 31 {
				t.Errorf("trades %v after one more", seqs)
			}
		})
	}
}

// TestResetThenSnapshotCutOff: a client that comes from another epoch, and whose
// socket takes nothing after any of what it is told first, is told one reset, and
// no trade that its snapshot has.
func TestResetThenSnapshotCutOff(t *testing.T) {
	b, err := board.New(board.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(b, Options{FrameMax: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	x := &bench{t: t, board: b, shard: s, seq: map[string]uint64{}, total: map[string]codec.Total{}}
	x.loaded("A")
	s.now = time.Now()
	for fill := range 90 { // bytes before, so that the frame ends after each event once
		x.trade("A")
		conn := &fakeConn{room: 0}
		se := &Session{shard: s, conn: conn, dialect: native.MsgPack}
		s.attach(se)
		c := &codec.Command{Op: codec.OpSubscribe, Ref: 1, Channel: codec.ChannelTrades}
		c.Symbols.Append(codec.SymbolItem{Name: []byte("A"), HasFrom: true, Seq: 2})
		for range 5 {
			s.tell(se, codec.Event{Type: codec.EventError, Why: strings.Repeat("x", 100+fill)})
		}
		s.carryOut(se, c, make(chan struct{}))
		conn.allow(1) // the first frame is left over
		s.round()
		for range 3 {
			x.trade("A")
		}
		conn.allow(-1)
		s.watcher.Take(s.changed)
		s.retry(se)
		s.round()
		list := conn.updates(t)
		snapshot := uint64(0)
		for i := range list {
			switch u := &list[i]; {
			case u.Type == codec.EventSnapshot:
				snapshot = u.Seq
			case u.Type == codec.EventTrade && u.Seq <= snapshot:
				t.Fatalf("fill %d: trade %d after a snapshot of %d", fill, u.Seq, snapshot)
			}
		}
		if n := count(list, codec.EventReset); n != 1 || snapshot == 0 {
			t.Fatalf("fill %d: %d resets, snapshot %d", fill, n, snapshot)
		}
		s.end(se, codec.CloseGone)
	}
}

// readyConn is a socket before whose next frame something happens.
type readyConn struct {
	fakeConn
	before func()
}

func (c *readyConn) Ready() bool {
	if f := c.before; f != nil {
		c.before = nil
		f()
	}
	return c.fakeConn.Ready()
}

// TestResumeWhileTheBoardMovesOn: what is published between a shard's look at a
// topic and a client's resume is not missed, nor counted before it is offered.
func TestResumeWhileTheBoardMovesOn(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(*bench)
		check  func(t *testing.T, list []native.Update)
	}{
		"a new epoch": {
			before: func(x *bench) {
				tr := codec.Trade{No: 1, Seq: 1, Price: price, Size: size, Flags: codec.TradeOrdinary}
				x.board.Publish(&record.Record{Kind: codec.KindTrade, Symbol: "A", Trade: tr, Source: codec.Source{Epoch: 2},
					State: codec.State{Epoch: 2, Seq: 1, TradeNo: 1, Trades: 1, Last: tr}})
			},
			check: func(t *testing.T, list []native.Update) {
				last := list[len(list)-1]
				if last.Type != codec.EventTrade || last.Seq != 1 || count(list, codec.EventReset) != 1 {
					t.Errorf("%d resets, and last came a %v of seq %d; want trade 1 of the new epoch", count(list, codec.EventReset), last.Type, last.Seq)
				}
			},
		},
		"more than a ring": {
			before: func(x *bench) {
				for range 20_000 {
					x.trade("A")
				}
			},
			check: func(t *testing.T, list []native.Update) {
				told, first := uint64(0), uint64(0)
				for i := range list {
					if list[i].Type == codec.EventDrop {
						told += list[i].Event.Count
					}
					if list[i].Type == codec.EventTrade && first == 0 {
						first = list[i].Seq
					}
				}
				// The snapshot was of seq 6: what came after it is told exactly.
				if first != 6+told+1 {
					t.Errorf("trade %d after a snapshot of 6, with %d told as dropped", first, told)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newBench(t)
			x.loaded("A")
			for range 5 {
				x.trade("A")
			}
			conn := &readyConn{fakeConn: fakeConn{room: -1}, before: func() { tt.before(x) }}
			c := &codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTrades}
			c.Symbols.Append(codec.SymbolItem{Name: []byte("A"), HasFrom: true, Epoch: 1, Seq: 3})
			x.do(x.attach(conn), c)
			x.settled()
			x.ledger()
			tt.check(t, conn.updates(t))
		})
	}
}

// TestLastTermsCount: a symbol that appears is served on the terms that were
// asked for last, by name or by pattern, and stays if a set names it in any way.
func TestLastTermsCount(t *testing.T) {
	const slow = time.Second
	type ask struct {
		op    codec.Op
		more  bool
		name  string
		every time.Duration
	}
	for name, tt := range map[string]struct {
		before, after []ask
		want          time.Duration
	}{
		"name after pattern":      {before: []ask{{name: "*", every: slow}, {name: "A"}}, want: 0},
		"pattern after name":      {before: []ask{{name: "A"}, {name: "*", every: slow}}, want: slow},
		"pattern after pattern":   {before: []ask{{name: "A*"}, {name: "*", every: slow}}, want: slow},
		"pattern asked for again": {before: []ask{{name: "*"}, {name: "A"}, {name: "*", every: slow}}, want: slow},
		"pattern in a set": {
			before: []ask{{name: "A"}, {op: codec.OpSet, more: true, name: "*", every: slow}},
			after:  []ask{{op: codec.OpSet, name: "B"}},
			want:   slow,
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newBench(t)
			conn := &fakeConn{room: -1}
			se := x.attach(conn)
			do := func(list []ask) {
				for _, a := range list {
					c := &codec.Command{Op: max(a.op, codec.OpSubscribe), More: a.more, Ref: 7, Channel: codec.ChannelTicker, Every: a.every}
					c.Symbols.Append(codec.SymbolItem{Name: []byte(a.name)})
					x.do(se, c)
				}
			}
			do(tt.before)
			x.trade("A")
			await(t, "the grant", func() bool { return count(conn.updates(t), codec.EventGranted) == 1 })
			do(tt.after)
			if err := x.shard.do(t.Context(), func() {
				if g, _ := se.find(codec.ChannelTicker, 0); g == nil || g.terms.every != tt.want {
					t.Errorf("served on %+v, want every %v", g, tt.want)
				}
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestGoingOnBeforeAnythingIsSent: a client whose socket took nothing since a
// symbol appeared under its pattern can still say from where to go on.
func TestGoingOnBeforeAnythingIsSent(t *testing.T) {
	x := newBench(t)
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	x.subscribe(se, codec.ChannelTrades, 0, "*")
	conn.allow(0)
	for range 30 {
		x.trade("A")
	}
	x.board.Loaded("A")
	x.met()
	time.AfterFunc(20*time.Millisecond, func() { conn.allow(-1) })
	c := &codec.Command{Op: codec.OpSubscribe, Ref: 8, Channel: codec.ChannelTrades}
	c.Symbols.Append(codec.SymbolItem{Name: []byte("A"), HasFrom: true, Epoch: 1, Seq: 27})
	x.do(se, c)
	x.settled()
	if seqs, _ := trades(conn.updates(t), 0); fmt.Sprint(seqs) != "[28 29 30]" {
		t.Errorf("trades %v, want 28 to 30", seqs)
	}
	x.ledger()
}

// TestWhatAppearsAndIsRefusedIsTold: a symbol that a client waits for and for
// which it has no room when it appears is refused, and not passed over.
func TestWhatAppearsAndIsRefusedIsTold(t *testing.T) {
	const more = 2
	for name, tt := range map[string]struct {
		max, symbols int
		ask          func(x *bench, se *Session)
		granted      int
	}{
		"pattern": {max: 3, symbols: 2 + more, granted: 2, ask: func(x *bench, se *Session) { x.subscribe(se, codec.ChannelTicker, 0, "*") }},
		"terms": {symbols: groupsMax + more, granted: groupsMax, ask: func(x *bench, se *Session) {
			for i := range groupsMax + more {
				c := &codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTrades, MinSize: codec.MustDecimal(fmt.Sprint(i + 1))}
				c.Symbols.Append(codec.SymbolItem{Name: fmt.Appendf(nil, "W%d", i)})
				x.do(se, c)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newBench(t)
			conn := &fakeConn{room: -1}
			se, err := x.shard.Attach(conn, native.MsgPack, SessionOptions{SymbolsMax: tt.max})
			if err != nil {
				t.Fatal(err)
			}
			tt.ask(x, se)
			for i := range tt.symbols {
				x.trade(fmt.Sprintf("W%d", i))
			}
			await(t, "an answer for each", func() bool {
				list := conn.updates(t)
				return count(list, codec.EventGranted) == tt.granted && count(list, codec.EventRefused) == more
			})
		})
	}
}

// TestWaitingForWhatHasAPast: a symbol that this node learns of after a client
// has asked for it is served from its first tick only if it has just appeared. If
// its past is read first, that is no news; and who says from where goes on there.
func TestWaitingForWhatHasAPast(t *testing.T) {
	for name, tt := range map[string]struct {
		begins bool
		item   codec.SymbolItem
		want   []uint64 // trades
		snap   int
	}{
		"appears":               {true, codec.SymbolItem{Name: []byte("A")}, seqsTo(31), 0},
		"appears, pattern":      {true, codec.SymbolItem{Name: []byte("*")}, seqsTo(31), 0},
		"was there":             {false, codec.SymbolItem{Name: []byte("A")}, []uint64{31}, 1},
		"was there, pattern":    {false, codec.SymbolItem{Name: []byte("*")}, []uint64{31}, 1},
		"appears, going on":     {true, codec.SymbolItem{Name: []byte("A"), HasFrom: true, Epoch: 1, Seq: 27}, []uint64{28, 29, 30, 31}, 0},
		"was there, going on":   {false, codec.SymbolItem{Name: []byte("A"), HasFrom: true, Epoch: 1, Seq: 27}, []uint64{28, 29, 30, 31}, 0},
		"going on, but not far": {false, codec.SymbolItem{Name: []byte("A"), HasFrom: true, Epoch: 1, Seq: 30}, []uint64{31}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			x := newBench(t)
			conn := &fakeConn{room: -1}
			c := &codec.Command{Op: codec.OpSubscribe, Ref: 1, Channel: codec.ChannelTrades}
			c.Symbols.Append(tt.item)
			if tt.item.HasFrom { // as a client asks that has found its symbols by a pattern
				c.Symbols.Append(codec.SymbolItem{Name: []byte("*")})
			}
			x.do(x.attach(conn), c)
			x.board.Declare("A", tt.begins)
			for i := range 30 {
				x.trade("A")
				if i == 10 {
					x.met()
				}
			}
			x.board.Loaded("A")
			await(t, "all but the last", func() bool {
				seqs, _ := trades(conn.updates(t), 0)
				return len(seqs) == len(tt.want)-1 && count(conn.updates(t), codec.EventSnapshot) == tt.snap
			})
			x.trade("A")
			x.settled()
			if seqs, _ := trades(conn.updates(t), 0); fmt.Sprint(seqs) != fmt.Sprint(tt.want) || count(conn.updates(t), codec.EventSnapshot) != tt.snap {
				t.Errorf("trades %v, want %v; %d snapshots", seqs, tt.want, count(conn.updates(t), codec.EventSnapshot))
			}
		})
	}
}

func seqsTo(n uint64) (list []uint64) {
	for i := range n {
		list = append(list, i+1)
	}
	return list
}

// TestEverythingIsExplained lets publishers, and clients whose sockets take now
// much, now little, run at once. What each client got must be explained by its
// cursors: no trade twice, none out of order, none missing but those it was
// told of, and the newest state at the end.
func TestEverythingIsExplained(t *testing.T) {
	const symbols, clients, rounds = 20, 30, 400
	x := newBench(t)
	var names []string
	for i := range symbols {
		names = append(names, fmt.Sprintf("S%d", i))
	}
	x.loaded(names[:symbols/2]...)
	var conns []*fakeConn
	for i := range clients {
		conn := &fakeConn{room: -1}
		conns = append(conns, conn)
		se := x.attach(conn)
		every := []time.Duration{0, 10 * time.Millisecond, 20 * time.Millisecond}[i%3]
		x.subscribe(se, codec.ChannelTrades, every, "*")
		x.subscribe(se, codec.ChannelTicker, every, names...)
	}
	started := map[string]uint64{}
	for s, n := range x.seq {
		started[s] = n
	}
	x.loaded(names[symbols/2:]...)
	for round := range rounds {
		for i, s := range names {
			for range 1 + (round+i)%7 {
				x.trade(s)
			}
		}
		conns[round%clients].allow([]int{0, 300, 5000, -1}[round%4])
	}
	for _, c := range conns {
		c.allow(-1)
	}
	x.settled()
	for i, conn := range conns {
		list := conn.updates(t)
		ids := map[string]uint32{}
		newest := map[uint32]uint64{}
		for _, u := range list {
			switch u.Type {
			case codec.EventGranted:
				ids[u.Event.Symbol] = u.Event.ID
			case codec.EventTicker:
				if u.Seq <= newest[u.ID] {
					t.Fatalf("client %d: ticker %d after %d", i, u.Seq, newest[u.ID])
				}
				newest[u.ID] = u.Seq
			}
		}
		for _, s := range names {
			seqs, dropped := trades(list, ids[s])
			if got, want := uint64(len(seqs))+dropped, x.seq[s]-started[s]; got != want {
				t.Errorf("client %d, %s: %d trades and %d dropped, want %d", i, s, len(seqs), dropped, want)
			}
			for j := 1; j < len(seqs); j++ {
				if seqs[j] <= seqs[j-1] || dropped == 0 && seqs[j] != seqs[j-1]+1 {
					t.Fatalf("client %d, %s: trade %d after %d", i, s, seqs[j], seqs[j-1])
				}
			}
			if newest[ids[s]] != x.seq[s] {
				t.Errorf("client %d, %s: ends with %d, want %d", i, s, newest[ids[s]], x.seq[s])
			}
		}
	}
}

func TestSymbolsAreBounded(t *testing.T) {
	x := newBench(t)
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	var names []string
	for i := range 120 {
		names = append(names, fmt.Sprintf("W%d", i))
	}
	x.subscribe(se, codec.ChannelTicker, 0, names...)
	await(t, "the answer", func() bool { return count(conn.updates(t), codec.EventSnapshotEnd) == 1 })
	if w, r := count(conn.updates(t), codec.EventWaiting), count(conn.updates(t), codec.EventRefused); w != 100 || r != 20 {
		t.Errorf("%d waiting and %d refused of 120, want 100 and 20", w, r)
	}
}

// TestSetAtTheBound: a session that follows as many symbols as it may can set
// others in their place, in one part or two, and never has more in the end.
func TestSetAtTheBound(t *testing.T) {
	for name, tt := range map[string]struct {
		parts [][]string
		want  string
	}{
		"others":               {[][]string{{"C", "D"}}, "[C D]"},
		"others in two parts":  {[][]string{{"C"}, {"D"}}, "[C D]"},
		"one stays":            {[][]string{{"C", "A"}}, "[A C]"},
		"one stays, too late":  {[][]string{{"C", "D"}, {"A"}}, "[C D]"},
		"a pattern":            {[][]string{{"C*"}}, "[C]"},
		"what is not there":    {[][]string{{"X", "Y"}, {"C"}}, "[]"},
		"what it has":          {[][]string{{"A"}, {"B"}}, "[A B]"},
		"more than it may":     {[][]string{{"D", "C", "B"}, {"A"}}, "[C D]"},
		"a pattern of all":     {[][]string{{"*"}}, "[A]"},
		"nothing but bad ones": {[][]string{{"a"}}, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			x := newBench(t)
			x.loaded("A", "B", "C", "D")
			se, err := x.shard.Attach(&fakeConn{room: -1}, native.MsgPack, SessionOptions{SymbolsMax: 2})
			if err != nil {
				t.Fatal(err)
			}
			x.subscribe(se, codec.ChannelTicker, 0, "A", "B")
			for i, names := range tt.parts {
				c := &codec.Command{Op: codec.OpSet, Ref: 9, Channel: codec.ChannelTicker, More: i < len(tt.parts)-1}
				for _, n := range names {
					c.Symbols.Append(codec.SymbolItem{Name: []byte(n)})
				}
				x.do(se, c)
			}
			got := []string{}
			if err := x.shard.do(t.Context(), func() {
				for _, g := range se.groups {
					for i := range g.subs {
						got = append(got, x.shard.symbol(&g.subs[i]))
					}
				}
				if se.n+len(se.hopes) > 2 || se.spare != 0 {
					t.Errorf("%d subscriptions and %d hopes, want 2 at most; %d spare", se.n, len(se.hopes), se.spare)
				}
			}); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("follows %v, want %s", got, tt.want)
			}
			x.ledger()
		})
	}
}

func TestWhatIsNotThereIsSaid(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	c := &codec.Command{Op: codec.OpSubscribe, Ref: 5, Channel: codec.ChannelTicker, Deadband: codec.MustDecimal("0.5")}
	c.Symbols.Append(codec.SymbolItem{Name: []byte("A")})
	x.do(se, c)
	x.do(se, &codec.Command{Op: codec.OpAuth, Ref: 6, Token: []byte("x")})
	codes := map[uint64]string{}
	await(t, "both answers", func() bool {
		for _, u := range conn.updates(t) {
			if u.Type == codec.EventError {
				codes[u.Event.Ref] = u.Event.Code
			}
		}
		return len(codes) == 2
	})
	if codes[5] != "not-supported" || codes[6] != "no-auth" || se.n != 0 {
		t.Errorf("%v, %d subscriptions", codes, se.n)
	}
}

func TestMinSize(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	conn := &fakeConn{room: -1}
	c := &codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTrades, MinSize: codec.MustDecimal("1.5")}
	c.Symbols.Append(codec.SymbolItem{Name: []byte("A")})
	x.do(x.attach(conn), c)
	for range 10 {
		x.trade("A") // of size 1
	}
	x.settled()
	if l := x.ledger(); l.Filtered != 10 || l.Delivered != 0 || count(conn.updates(t), codec.EventTrade) != 0 {
		t.Errorf("ledger %+v", l)
	}
}

// TestSlowSlotsDelayNoOthers: a shard that waits for a slot of a long cadence is
// woken for one of a short cadence, and for who wants every update.
func TestSlowSlotsDelayNoOthers(t *testing.T) {
	x := newBench(t)
	x.loaded("SLOW", "FAST", "PROMPT")
	conns := map[string]*fakeConn{}
	for name, every := range map[string]time.Duration{"SLOW": time.Minute, "FAST": 10 * time.Millisecond, "PROMPT": 0} {
		conns[name] = &fakeConn{room: -1}
		x.subscribe(x.attach(conns[name]), codec.ChannelTicker, every, name)
	}
	x.trade("SLOW") // arms its slot for up to a minute
	for i := range 20 {
		time.Sleep(15 * time.Millisecond) // let the shard sleep
		name := []string{"FAST", "PROMPT"}[i%2]
		x.trade(name)
		await(t, "an update of "+name, func() bool {
			list := conns[name].updates(t)
			return len(list) > 0 && list[len(list)-1].Seq == x.seq[name]
		})
	}
}

// TestSubscribingWhileNapping: what was marked while a shard slept through it is
// in the snapshot of who comes then.
func TestSubscribingWhileNapping(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	slow := &fakeConn{room: -1}
	x.subscribe(x.attach(slow), codec.ChannelTicker, time.Minute, "A")
	x.trade("A")
	time.Sleep(20 * time.Millisecond)
	x.trade("A") // marked while the shard naps
	prompt := &fakeConn{room: -1}
	x.subscribe(x.attach(prompt), codec.ChannelTicker, 0, "A")
	await(t, "the newest state", func() bool {
		list := prompt.updates(t)
		for i := range list {
			if list[i].Seq == x.seq["A"] && list[i].Type == codec.EventSnapshot {
				return true
			}
		}
		return false
	})
	x.trade("A")
	await(t, "an update", func() bool {
		list := prompt.updates(t)
		return list[len(list)-1].Seq == x.seq["A"]
	})
}

// TestSlotsKeepMonotonicTime: a wall clock that is set back delays no slot.
func TestSlotsKeepMonotonicTime(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	x.subscribe(x.attach(&fakeConn{room: -1}), codec.ChannelTicker, time.Second, "A")
	if err := x.shard.do(t.Context(), func() {
		for _, sl := range x.shard.slots {
			if !strings.Contains(sl.next.String(), " m=") {
				t.Errorf("a slot is due at %v, which is of the wall clock", sl.next)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestStateAloneIsTold: a change of state is told to who follows the topic, on
// every cadence, though no tick comes.
func TestStateAloneIsTold(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	for i, c := range []codec.Channel{codec.ChannelTicker, codec.ChannelQuotes, codec.ChannelTrades} {
		x.subscribe(se, c, time.Duration(i)*10*time.Millisecond, "A")
	}
	for i, state := range []codec.TopicState{codec.StateLive, codec.StateStale, codec.StateLive} {
		x.board.SetState("A", state, int64(i), "")
		await(t, "the state on each channel", func() bool {
			told := map[codec.Channel]codec.TopicState{}
			for _, u := range conn.updates(t) {
				if u.Type == codec.EventState {
					told[u.Event.Channel] = u.Event.State
				}
			}
			return told[codec.ChannelTicker] == state && told[codec.ChannelQuotes] == state && told[codec.ChannelTrades] == state
		})
	}
}

// TestEndWithAFrameLeftOver: ticks of a frame that the kernel never took whole
// were not delivered, whatever was counted when it was spelled.
func TestEndWithAFrameLeftOver(t *testing.T) {
	x := newBench(t)
	x.loaded("A")
	conn := &fakeConn{room: -1}
	se := x.attach(conn)
	x.subscribe(se, codec.ChannelTrades, 0, "A")
	conn.allow(10)
	x.trade("A")
	await(t, "the frame is left over", func() bool {
		conn.mu.Lock()
		defer conn.mu.Unlock()
		return len(conn.left) > 0
	})
	se.Detach(codec.CloseGone)
	if l := x.ledger(); l.Offered != 1 || l.Dropped != 1 || l.Delivered != 0 {
		t.Errorf("%+v, want the one trade dropped", l)
	}
}
