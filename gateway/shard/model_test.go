package shard

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/codec/record"
	"tickgate/gateway/board"
)

// The model: publishers, clients that ask for and let go of symbols at random,
// sockets that take much, little or nothing, and two shards, all at once. Each
// client's frames are then read as a client reads them, against what it asked
// for: a snapshot and the stream behind it are one, nothing comes twice, nothing
// is missing that was not told, and in the end it holds what the market holds.

// modelSymbol is a symbol and its one writer's state.
type modelSymbol struct {
	name   string
	state  codec.State
	offset int64
	nos    map[int64][]uint64 // by epoch and seq: the number of the last trade then
}

// publish makes the next tick.
func (m *modelSymbol) publish(b *board.Board, rng *rand.Rand) {
	st := &m.state
	if rng.IntN(3000) == 0 && st.Seq > 0 { // a numbering begins anew
		*st = codec.State{Epoch: st.Epoch + 1}
	}
	m.offset++
	st.Seq++
	r := record.Record{Kind: codec.KindTrade, Symbol: m.name, IngestTime: 1_800_000_000_000_000_000 + m.offset, Source: codec.Source{Epoch: st.Epoch, Offset: m.offset}}
	if rng.IntN(4) == 0 {
		st.QuoteNo++
		r.Kind = codec.KindQuote
		st.Quote = codec.Quote{No: st.QuoteNo, Seq: st.Seq, Bid: price, Ask: price, IngestTime: r.IngestTime}
	} else {
		st.TradeNo++
		st.Trades++
		st.Volume = st.Volume.AddDecimal(size)
		st.Last = codec.Trade{No: st.TradeNo, Seq: st.Seq, Price: price, Size: size, Flags: codec.TradeOrdinary, IngestTime: r.IngestTime}
		r.Trade = st.Last
	}
	r.State = *st
	if m.nos[st.Epoch] == nil {
		m.nos[st.Epoch] = []uint64{0}
	}
	m.nos[st.Epoch] = append(m.nos[st.Epoch], st.TradeNo)
	b.Publish(&r)
}

// modelClient is a client and what it has asked for.
type modelClient struct {
	t     *testing.T
	no    int
	conn  *fakeConn
	se    *Session
	rng   *rand.Rand
	asked map[uint64]*codec.Command // by ref
	ref   uint64

	wants map[modelKey]bool // what it may follow already: from no other place then
	wild  [4]bool           // by channel: so may be any of its symbols, by a pattern
}

type modelKey struct {
	channel codec.Channel
	symbol  string
}

const modelSymbols = 12

// act sends one command, and waits for its answer.
func (c *modelClient) act(ctx context.Context) {
	c.ref++
	cmd := &codec.Command{Ref: c.ref, Channel: codec.Channel(1 + c.rng.IntN(3)), Op: codec.OpSubscribe}
	cmd.Every = []time.Duration{0, 0, 10 * time.Millisecond, 20 * time.Millisecond}[c.rng.IntN(4)]
	switch c.rng.IntN(8) {
	case 0, 1, 2:
		cmd.Op = codec.OpUnsubscribe
	case 3:
		cmd.Op = codec.OpSet
	}
	if c.rng.IntN(6) == 0 {
		cmd.Symbols.Append(codec.SymbolItem{Name: []byte([]string{"*", "M1*"}[c.rng.IntN(2)])})
	} else {
		for _, i := range c.rng.Perm(modelSymbols)[:1+c.rng.IntN(5)] {
			it := codec.SymbolItem{Name: fmt.Appendf(nil, "M%d", i)}
			if !c.wants[modelKey{cmd.Channel, string(it.Name)}] && !c.wild[cmd.Channel] && cmd.Op != codec.OpUnsubscribe && c.rng.IntN(2) == 0 {
				it.HasFrom, it.Epoch, it.Seq = true, int64(1+c.rng.IntN(4)), uint64(c.rng.IntN(4000))
			}
			cmd.Symbols.Append(it)
		}
	}
	c.asked[c.ref] = cmd
	c.want(cmd)
	if err := c.se.Do(ctx, cmd); err != nil && ctx.Err() == nil {
		c.t.Errorf("client %d: %v", c.no, err)
	}
}

// want notes what the client may follow once cmd is carried out.
func (c *modelClient) want(cmd *codec.Command) {
	if cmd.Op == codec.OpSet { // nothing else is left on its channel
		c.wild[cmd.Channel] = false
		maps.DeleteFunc(c.wants, func(k modelKey, _ bool) bool { return k.channel == cmd.Channel })
	}
	for it := range cmd.Symbols.All() {
		name := string(it.Name)
		switch wild := strings.HasSuffix(name, "*"); {
		case cmd.Op != codec.OpUnsubscribe:
			c.wild[cmd.Channel] = c.wild[cmd.Channel] || wild
			c.wants[modelKey{cmd.Channel, name}] = true
		case name == "*":
			c.wild[cmd.Channel] = false
			maps.DeleteFunc(c.wants, func(k modelKey, _ bool) bool { return k.channel == cmd.Channel })
		default:
			delete(c.wants, modelKey{cmd.Channel, name})
		}
	}
}

// place is where a command said that the client stands.
func place(cmd *codec.Command, symbol string) codec.SymbolItem {
	if cmd != nil {
		for it := range cmd.Symbols.All() {
			if string(it.Name) == symbol {
				return it
			}
		}
	}
	return codec.SymbolItem{}
}

// modelTopic is what a client knows of a topic on a channel.
type modelTopic struct {
	symbol  string
	on      bool // granted and not let go
	epoch   int64
	seq     uint64
	no      uint64 // of the last trade; counts if numbered
	told    uint64 // dropped since
	number  bool
	expects bool // a snapshot
	behind  bool // told that the client has seen more
}

// check reads all that the client was sent.
func (c *modelClient) check(final map[string]*modelSymbol) {
	topics := map[[2]uint32]*modelTopic{} // by id and channel
	fail := func(format string, args ...any) {
		c.t.Errorf("client %d: %s", c.no, fmt.Sprintf(format, args...))
	}
	matches := func(cmd *codec.Command, symbol string) bool {
		for it := range cmd.Symbols.All() {
			if prefix, wild := strings.CutSuffix(string(it.Name), "*"); string(it.Name) == symbol || wild && strings.HasPrefix(symbol, prefix) {
				return true
			}
		}
		return false
	}
	for _, u := range c.conn.updates(c.t) {
		if c.t.Failed() {
			return
		}
		e := &u.Event
		switch u.Type {
		case codec.EventGranted:
			tp := topics[[2]uint32{e.ID, uint32(e.Channel)}]
			if tp == nil {
				tp = &modelTopic{symbol: e.Symbol}
				topics[[2]uint32{e.ID, uint32(e.Channel)}] = tp
			}
			if !tp.on {
				tp.on, tp.number, tp.expects = true, false, true
				tp.epoch, tp.seq, tp.told, tp.behind = e.Epoch, 0, 0, false
				if from := place(c.asked[e.Ref], e.Symbol); from.HasFrom {
					// What the client says it has seen: if no snapshot comes, the
					// stream goes on right there.
					tp.epoch, tp.seq = from.Epoch, from.Seq
					if nos := final[e.Symbol].nos[from.Epoch]; from.Seq < uint64(len(nos)) {
						tp.no, tp.number = nos[from.Seq], e.Channel == codec.ChannelTrades
					}
				}
			}
			if e.Ref != 0 && !matches(c.asked[e.Ref], e.Symbol) {
				fail("%s granted for a command that did not ask for it", e.Symbol)
			}
		case codec.EventUnsubscribed:
			cmd := c.asked[e.Ref]
			for key, tp := range topics {
				if key[1] == uint32(cmd.Channel) && matches(cmd, tp.symbol) == (cmd.Op == codec.OpUnsubscribe) {
					tp.on = false
				}
			}
		case codec.EventReset:
			tp := topics[[2]uint32{e.ID, uint32(e.Channel)}]
			if tp == nil || !tp.on || e.Epoch < tp.epoch || e.Epoch == tp.epoch && !tp.expects { // the grant may be of a later command, which names no place
				fail("a reset of id %d to epoch %d: %+v", e.ID, e.Epoch, tp)
				return
			}
			tp.epoch, tp.seq, tp.no, tp.number, tp.told = e.Epoch, 0, 0, false, 0
		case codec.EventBehind:
			if tp := topics[[2]uint32{e.ID, uint32(e.Channel)}]; tp != nil {
				tp.behind = true
			}
		case codec.EventState:
			if tp := topics[[2]uint32{e.ID, uint32(e.Channel)}]; tp != nil && e.State == codec.StateGap {
				tp.number, tp.expects = false, false // what is there goes on from here
			}
		case codec.EventDrop:
			if tp := topics[[2]uint32{e.ID, uint32(e.Channel)}]; tp != nil {
				tp.told += e.Count
			}
		case codec.EventSnapshot, codec.EventTicker, codec.EventQuote, codec.EventTrade:
			tp := topics[[2]uint32{u.ID, uint32(u.Channel)}]
			if tp == nil || !tp.on {
				fail("a %v of id %d on %v, which it does not follow", u.Type, u.ID, u.Channel)
				return
			}
			if u.Type == codec.EventSnapshot {
				// It tells its epoch: a numbering may have begun anew since the
				// grant, when the socket took nothing between the two.
				if !tp.expects || !tp.behind && (u.Epoch < tp.epoch || u.Epoch == tp.epoch && u.Seq < tp.seq) {
					fail("%s: a snapshot of epoch %d that was not awaited: %+v", tp.symbol, u.Epoch, tp)
				}
				tp.expects, tp.epoch, tp.seq, tp.no, tp.number = false, u.Epoch, u.Seq, u.No, true
				continue
			}
			if u.Seq <= tp.seq {
				fail("%s on %v: seq %d after %d", tp.symbol, u.Channel, u.Seq, tp.seq)
			}
			if u.Type == codec.EventTrade {
				if tp.number && u.No != tp.no+1+tp.told {
					fail("%s: trade %d after %d, with %d told as dropped", tp.symbol, u.No, tp.no, tp.told)
				}
				tp.number, tp.told = true, 0
			}
			tp.expects, tp.seq, tp.no = false, u.Seq, u.No
		}
	}
	for key, tp := range topics {
		st := &final[tp.symbol].state
		if !tp.on {
			continue
		}
		if tp.epoch != st.Epoch {
			fail("%s ends in epoch %d, want %d", tp.symbol, tp.epoch, st.Epoch)
		}
		switch c := codec.Channel(key[1]); {
		case c == codec.ChannelTicker && tp.seq != st.Seq:
			fail("%s ends with seq %d, want %d", tp.symbol, tp.seq, st.Seq)
		case c == codec.ChannelQuotes && tp.no != st.QuoteNo, c == codec.ChannelTrades && tp.no != st.TradeNo:
			fail("%s on %v ends with number %d, want %d trades and %d quotes", tp.symbol, c, tp.no, st.TradeNo, st.QuoteNo)
		}
	}
}

func TestModel(t *testing.T) {
	const publishers, clients = 3, 14
	length := 1500 * time.Millisecond
	b, err := board.New(board.Options{RingMemory: 1 << 20}) // so that rings lose trades
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var shards []*Shard
	var running, acting sync.WaitGroup
	for range 2 {
		s, err := New(b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		shards = append(shards, s)
		running.Go(func() { s.Run(ctx) })
	}
	defer running.Wait()
	defer cancel()

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	final := map[string]*modelSymbol{}
	var over atomic.Bool
	for p := range publishers {
		var mine []*modelSymbol
		for i := p; i < modelSymbols; i += publishers {
			m := &modelSymbol{name: fmt.Sprintf("M%d", i), state: codec.State{Epoch: 1}, nos: map[int64][]uint64{}}
			final[m.name] = m
			mine = append(mine, m)
		}
		rng := rand.New(rand.NewPCG(seed, uint64(p)))
		acting.Go(func() {
			began := time.Now()
			for n := 0; !over.Load(); n++ {
				// Symbols come one after another.
				m := mine[rng.IntN(min(len(mine), 1+int(time.Since(began)*time.Duration(2*len(mine))/length)))]
				if m.offset == 0 {
					b.Declare(m.name, true)
					b.Loaded(m.name)
				}
				m.publish(b, rng)
				if n%40 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	var all []*modelClient
	doing, stop := context.WithCancel(ctx)
	for i := range clients {
		c := &modelClient{t: t, no: i, conn: &fakeConn{room: -1}, rng: rand.New(rand.NewPCG(seed, uint64(100+i))), asked: map[uint64]*codec.Command{}, wants: map[modelKey]bool{}}
		if c.se, err = shards[i%2].Attach(c.conn, native.MsgPack, SessionOptions{}); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		acting.Go(func() {
			for !over.Load() {
				c.act(doing)
				time.Sleep(time.Duration(c.rng.IntN(20)) * time.Millisecond)
			}
		})
		mood := rand.New(rand.NewPCG(seed, uint64(200+i)))
		acting.Go(func() {
			for !over.Load() {
				c.conn.allow([]int{-1, -1, 0, 400, 6000}[mood.IntN(5)])
				time.Sleep(time.Duration(mood.IntN(60)) * time.Millisecond)
			}
			c.conn.allow(-1)
		})
	}
	watchLedgers(ctx, t, shards[:], length)
	over.Store(true)
	time.AfterFunc(5*time.Second, stop) // answers that are on their way come
	acting.Wait()
	stop()

	var sum codec.Ledger
	await(t, "nothing is pending", func() bool {
		sum = codec.Ledger{}
		for _, s := range shards {
			l, err := ledgers(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			sum.Add(l)
		}
		return sum.Pending == 0
	})
	if sum.Offered != sum.Delivered+sum.Merged+sum.Filtered+sum.Dropped || sum.Delivered == 0 || sum.Merged == 0 || sum.Dropped == 0 {
		t.Errorf("ledger %+v: want it to add up, and some of each", sum)
	}
	await(t, "the counts that are told outside", func() bool {
		var told codec.Ledger
		for _, s := range shards {
			told.Add(s.Stats().Ledger)
		}
		return told == sum
	})
	for _, c := range all {
		c.check(final)
	}
}
