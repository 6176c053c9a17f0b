package shard

import (
	"context"
	"fmt"
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
	l, err := x.shard.Ledger(ctx)
	if err != nil {
		x.t.Fatal(err)
	}
	if l.Offered != l.Delivered+l.Merged+l.Filtered+l.Dropped+l.Pending {
		x.t.Errorf("the ledger does not add up: %+v", l)
	}
	return l
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
	x.board.Declare("A")
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
	x.board.Declare("B")
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
