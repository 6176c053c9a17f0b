package shard

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
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

// The wide model: as TestModel, with patterns that overlap, sets in parts, topics
// with a past, states that change, places to go on from of every kind, small
// frames and rings, sessions that are bounded and such that leave.

// tape is what an epoch of a symbol has told.
type tape struct {
	base         uint64   // seq before its first
	trade, quote []uint64 // by seq from there: the number of the last then
}

func (p *tape) at(seq uint64) (trade, quote uint64, ok bool) {
	if p == nil || seq < p.base || seq-p.base >= uint64(len(p.trade)) {
		return 0, 0, false
	}
	return p.trade[seq-p.base], p.quote[seq-p.base], true
}

// wideSymbol is a symbol and its one writer's state.
type wideSymbol struct {
	name     string
	begins   bool
	state    codec.State
	offset   int64
	tapes    map[int64]*tape
	standing codec.TopicState
	loaded   bool
	declared bool
	now      atomic.Uint64 // epoch<<32 | seq
	epoch1   int64
}

var wideNames = []string{"A1", "A2", "A3", "AB1", "AB2", "AB3", "ABC1", "ABC2", "B1", "B2", "B3", "C", "CA", "D1", "D2", "A"}
var widePatterns = []string{"*", "A*", "AB*", "ABC*", "B*", "C*", "AB1*", "Z*"}

func (m *wideSymbol) begin(rng *rand.Rand) {
	m.tapes = map[int64]*tape{}
	m.standing = codec.StateLoading
	m.begins = rng.IntN(2) == 0
	m.epoch1 = int64(1 + rng.IntN(2))
	m.state = codec.State{Epoch: m.epoch1}
	if !m.begins {
		m.state.TradeNo, m.state.QuoteNo = uint64(rng.IntN(500)), uint64(rng.IntN(500))
		m.state.Seq = m.state.TradeNo + m.state.QuoteNo
		m.state.Trades = m.state.TradeNo
		m.state.Last = codec.Trade{No: m.state.TradeNo, Seq: m.state.Seq, Price: price, Size: size, Flags: codec.TradeOrdinary}
		if rng.IntN(2) == 0 && m.state.TradeNo > 0 { // a cancel came after it
			m.state.Last.No, m.state.Last.Seq = m.state.TradeNo-1, m.state.Seq/2
		}
	}
	m.tape()
}

func (m *wideSymbol) tape() {
	m.tapes[m.state.Epoch] = &tape{base: m.state.Seq, trade: []uint64{m.state.TradeNo}, quote: []uint64{m.state.QuoteNo}}
}

// publish makes the next tick.
func (m *wideSymbol) publish(b *board.Board, rng *rand.Rand, resets int) {
	st := &m.state
	if rng.IntN(resets) == 0 && st.Seq > 0 {
		*st = codec.State{Epoch: st.Epoch + 1 + int64(rng.IntN(2)), Trades: st.Trades, Volume: st.Volume, Notional: st.Notional}
		m.tape()
	}
	m.offset++
	st.Seq++
	r := record.Record{Kind: codec.KindTrade, Symbol: m.name, IngestTime: 1_800_000_000_000_000_000 + m.offset, Source: codec.Source{Epoch: st.Epoch, Offset: m.offset}}
	if rng.IntN(4) == 0 {
		st.QuoteNo++
		r.Kind = codec.KindQuote
		st.Quote = codec.Quote{No: st.QuoteNo, Seq: st.Seq, Bid: wideDecimal(st.QuoteNo), Ask: price, IngestTime: r.IngestTime}
	} else {
		st.TradeNo++
		st.Trades++
		st.Volume = st.Volume.AddDecimal(size)
		r.Trade = codec.Trade{No: st.TradeNo, Seq: st.Seq, Price: wideDecimal(st.TradeNo), Size: size, Flags: codec.TradeOrdinary, IngestTime: r.IngestTime}
		if rng.IntN(8) == 0 {
			r.Kind = []codec.Kind{codec.KindCorrection, codec.KindCancel}[rng.IntN(2)]
		} else {
			st.Last = r.Trade
		}
	}
	r.State = *st
	p := m.tapes[st.Epoch]
	p.trade, p.quote = append(p.trade, st.TradeNo), append(p.quote, st.QuoteNo)
	b.Publish(&r)
	m.now.Store(uint64(st.Epoch)<<32 | st.Seq)
}

func wideDecimal(n uint64) codec.Decimal {
	d, err := codec.NewDecimal(int64(n), 2)
	if err != nil {
		panic(err)
	}
	return d
}

type wideKey struct {
	channel codec.Channel
	symbol  string
}

// wideClient is a client and what it has asked for.
type wideClient struct {
	t       *testing.T
	no      int
	conn    *fakeConn
	se      *Session
	shard   *Shard
	dialect native.Spelling
	rng     *rand.Rand
	symbols map[string]*wideSymbol
	max     int

	asked map[uint64]*codec.Command   // by ref
	parts map[uint64][]*codec.Command // of a set, by the ref of its last
	ref   uint64
	gone  bool
}

func (c *wideClient) symbolList(cmd *codec.Command) {
	add := func(it codec.SymbolItem) {
		for range 1 + max(0, c.rng.IntN(8)-6) { // named twice
			cmd.Symbols.Append(it)
		}
	}
	if c.rng.IntN(4) == 0 {
		for range 1 + c.rng.IntN(3) {
			add(codec.SymbolItem{Name: []byte(widePatterns[c.rng.IntN(len(widePatterns))])})
		}
	}
	if cmd.Symbols.Len() > 0 && c.rng.IntN(3) > 0 {
		return
	}
	for _, i := range c.rng.Perm(len(wideNames))[:1+c.rng.IntN(5)] {
		it := codec.SymbolItem{Name: []byte(wideNames[i])}
		if cmd.Op != codec.OpUnsubscribe && c.max == 0 && c.rng.IntN(2) == 0 {
			it.HasFrom = true
			now := c.symbols[wideNames[i]].now.Load()
			it.Epoch, it.Seq = int64(now>>32), now&(1<<32-1)
			switch c.rng.IntN(7) {
			case 0: // where it stands
			case 1, 2:
				it.Seq -= min(it.Seq, uint64(c.rng.IntN(12)))
			case 3:
				it.Seq -= min(it.Seq, uint64(c.rng.IntN(3000)))
			case 4:
				it.Seq += uint64(c.rng.IntN(1000))
			case 5:
				it.Epoch -= int64(c.rng.IntN(3))
			case 6:
				it.Epoch += int64(c.rng.IntN(3))
			}
			it.Epoch = max(it.Epoch, 1)
		}
		add(it)
	}
	if c.rng.IntN(10) == 0 {
		add(codec.SymbolItem{Name: fmt.Appendf(nil, "NONE%d", c.rng.IntN(30))})
	}
}

func (c *wideClient) terms(cmd *codec.Command) {
	cmd.Every = []time.Duration{0, 0, 10 * time.Millisecond, 17 * time.Millisecond, 50 * time.Millisecond}[c.rng.IntN(5)]
	cmd.View = []codec.View{0, 0, codec.ViewLast, codec.ViewLast | codec.ViewQuote}[c.rng.IntN(4)]
	if c.rng.IntN(5) == 0 {
		cmd.MinSize = codec.MustDecimal("0.001") // nothing is below
	}
}

// act carries out one command, or a set in parts.
func (c *wideClient) act(ctx context.Context, channel codec.Channel, depth int) bool {
	cmd := &codec.Command{Channel: channel, Op: codec.OpSubscribe}
	switch c.rng.IntN(10) {
	case 0, 1, 2:
		cmd.Op = codec.OpUnsubscribe
	case 3, 4:
		var parts []*codec.Command
		n := 1 + c.rng.IntN(3)
		for i := range n {
			part := &codec.Command{Channel: channel, Op: codec.OpSet, More: i < n-1}
			c.terms(part)
			c.symbolList(part)
			parts = append(parts, part)
			if i == n-1 {
				c.parts[c.ref+1] = parts
			}
			if !c.do(ctx, part) {
				return false
			}
			if part.More && depth < 2 && c.rng.IntN(3) == 0 && !c.act(ctx, channel%3+1, depth+1) {
				return false
			}
		}
		return true
	}
	if cmd.Op == codec.OpSubscribe {
		c.terms(cmd)
	}
	c.symbolList(cmd)
	return c.do(ctx, cmd)
}

func (c *wideClient) do(ctx context.Context, cmd *codec.Command) bool {
	c.ref++
	cmd.Ref = c.ref
	c.asked[c.ref] = cmd
	err := c.se.Do(ctx, cmd)
	return err == nil
}

func wideMatch(cmds []*codec.Command, symbol string) (name, wild bool, from codec.SymbolItem) {
	for _, cmd := range cmds {
		for it := range cmd.Symbols.All() {
			prefix, w := strings.CutSuffix(string(it.Name), "*")
			if !w && prefix == symbol {
				if !name || it.HasFrom && !from.HasFrom {
					if !name {
						from = it
					}
				}
				name = true
			}
			if w && strings.HasPrefix(symbol, prefix) {
				wild = true
			}
		}
	}
	return
}

// together is the commands that one is a part of.
func (c *wideClient) together(ref uint64) []*codec.Command {
	if p := c.parts[ref]; p != nil {
		return p
	}
	return []*codec.Command{c.asked[ref]}
}

// place is where the client said it stands with a symbol, up to the command ref.
// sure is false if commands contradict each other.
func (c *wideClient) place(ref uint64, channel codec.Channel, symbol string, refused map[string]bool) (from codec.SymbolItem, sure bool) {
	sure = true
	for r := ref; r > 0; r-- {
		cmd := c.asked[r]
		if cmd == nil || cmd.Channel != channel {
			continue
		}
		if refused[fmt.Sprint(r, symbol)] {
			sure = false
			continue
		}
		name, wild, it := wideMatch([]*codec.Command{cmd}, symbol)
		switch cmd.Op {
		case codec.OpUnsubscribe:
			if name || wild {
				return from, sure
			}
		default:
			if name && it.HasFrom {
				if from.HasFrom && (from.Epoch != it.Epoch || from.Seq != it.Seq) {
					sure = false
				}
				if !from.HasFrom {
					from = it
					if (r < ref || wild) && c.ends(r, channel, symbol) {
						sure = false
					}
				}
			}
			if p := c.parts[r]; p != nil {
				n, w, _ := wideMatch(p, symbol)
				if !n && !w {
					return from, sure
				}
				if !n {
					sure = false // the name's hope is gone, a subscription's place is not
				}
			}
		}
	}
	return from, sure
}

// ends tells whether a command after ref lets go of a symbol by name.
func (c *wideClient) ends(ref uint64, channel codec.Channel, symbol string) bool {
	for r := ref + 1; r <= c.ref; r++ {
		cmd := c.asked[r]
		if cmd.Channel != channel {
			continue
		}
		if name, wild, _ := wideMatch([]*codec.Command{cmd}, symbol); cmd.Op == codec.OpUnsubscribe && (name || wild) {
			return true
		}
		if p := c.parts[r]; p != nil {
			if name, _, _ := wideMatch(p, symbol); !name {
				return true
			}
		}
	}
	return false
}

// wideTopic is what a client knows of a topic on a channel.
type wideTopic struct {
	symbol   string
	on       bool
	epoch    int64
	seq      uint64
	no       uint64
	told     uint64
	number   bool // no counts
	fresh    bool // nothing of it has come yet
	snapped  bool
	expects  bool
	behind   bool
	gap      bool
	reset    bool
	place    codec.SymbolItem
	sure     bool
	every    time.Duration
	view     codec.View
	standing codec.TopicState
	grantRef uint64
}

func (c *wideClient) fail(format string, args ...any) {
	c.t.Errorf("client %d: %s", c.no, fmt.Sprintf(format, args...))
}

// check reads all that the client was sent.
func (c *wideClient) check(counts codec.Ledger) {
	topics := map[[2]uint32]*wideTopic{}
	refused := map[string]bool{}
	answered := map[string]bool{}
	var rows, snapshots, dropped uint64
	ons := 0
	var frameNo uint64
	c.conn.mu.Lock()
	frames := c.conn.frames
	c.conn.mu.Unlock()
	var list []native.Update
	for _, f := range frames {
		if len(f) > 1024 {
			c.fail("a frame of %d bytes", len(f))
		}
		frame, err := c.dialect.OpenFrame(f)
		if err != nil {
			c.fail("%v", err)
			return
		}
		frameNo++
		if frame.No != frameNo {
			c.fail("frame %d after %d", frame.No, frameNo-1)
		}
		for u := (native.Update{}); frame.Next(&u); {
			list = append(list, u)
		}
		if err := frame.Err(); err != nil {
			c.fail("%v", err)
			return
		}
	}
	trace := map[wideKey][]string{}
	note := func(k wideKey, format string, args ...any) {
		trace[k] = append(trace[k], fmt.Sprintf(format, args...))
	}
	bad := func(tp *wideTopic, ch codec.Channel, format string, args ...any) {
		k := wideKey{ch, tp.symbol}
		tr := trace[k]
		if len(tr) > 30 {
			tr = tr[len(tr)-30:]
		}
		m := c.symbols[tp.symbol]
		var cmds []string
		for r := uint64(1); r <= c.ref; r++ {
			cmd := c.asked[r]
			if cmd.Channel != ch {
				continue
			}
			name, wild, it := wideMatch([]*codec.Command{cmd}, tp.symbol)
			if name || wild || cmd.Op == codec.OpSet {
				cmds = append(cmds, fmt.Sprintf("ref%d op%d every=%v more=%v name=%v wild=%v from=%v(%d,%d)", r, cmd.Op, cmd.Every, cmd.More, name, wild, it.HasFrom, it.Epoch, it.Seq))
			}
		}
		c.fail("%s on %v (begins=%v): %s\n  know %+v\n  %s\n  %s", tp.symbol, ch, m != nil && m.begins, fmt.Sprintf(format, args...), *tp, strings.Join(tr, "; "), strings.Join(cmds, "\n  "))
	}
	// followed is the topic that an event is of; nil, and told, if the client
	// does not follow it.
	followed := func(e *codec.Event, what string) *wideTopic {
		tp := topics[[2]uint32{e.ID, uint32(e.Channel)}]
		if tp == nil || !tp.on {
			bad(&wideTopic{symbol: e.Symbol}, e.Channel, "%s of id %d, which it does not follow", what, e.ID)
			return nil
		}
		return tp
	}
	for i := range list {
		u := &list[i]
		if c.t.Failed() {
			return
		}
		e := &u.Event
		switch u.Type {
		case codec.EventRefused:
			refused[fmt.Sprint(e.Ref, e.Symbol)] = true
			answered[fmt.Sprint(e.Ref, " ", e.Symbol)] = true
			if c.max == 0 {
				c.fail("%s refused: %s", e.Symbol, e.Code)
			}
		case codec.EventWaiting:
			answered[fmt.Sprint(e.Ref, " ", e.Symbol)] = true
			note(wideKey{e.Channel, e.Symbol}, "waiting ref %d", e.Ref)
		case codec.EventSnapshotEnd:
			cmd := c.asked[e.Ref]
			for it := range cmd.Symbols.All() {
				if n := string(it.Name); !strings.HasSuffix(n, "*") && !answered[fmt.Sprint(e.Ref, " ", n)] {
					bad(&wideTopic{symbol: n}, e.Channel, "ref %d ends without an answer", e.Ref)
				}
			}
		case codec.EventGranted:
			answered[fmt.Sprint(e.Ref, " ", e.Symbol)] = true
			note(wideKey{e.Channel, e.Symbol}, "granted ref %d every %v epoch %d seq %d", e.Ref, e.Every, e.Epoch, e.Seq)
			tp := topics[[2]uint32{e.ID, uint32(e.Channel)}]
			if tp == nil {
				tp = &wideTopic{symbol: e.Symbol}
				topics[[2]uint32{e.ID, uint32(e.Channel)}] = tp
			}
			if tp.symbol != e.Symbol {
				c.fail("id %d is %s and %s", e.ID, tp.symbol, e.Symbol)
			}
			if e.Ref == 0 || c.asked[e.Ref] == nil {
				bad(tp, e.Channel, "granted with ref %d", e.Ref)
				return
			}
			if n, w, _ := wideMatch(c.together(e.Ref), e.Symbol); !n && !w || c.asked[e.Ref].Op == codec.OpUnsubscribe || c.asked[e.Ref].Channel != e.Channel {
				bad(tp, e.Channel, "granted for ref %d, which did not ask for it", e.Ref)
			}
			if _, _, ok := c.symbols[e.Symbol].tapes[e.Epoch].at(e.Seq); !ok {
				bad(tp, e.Channel, "granted with a place that never was")
			}
			if !tp.on || tp.fresh {
				was := *tp
				if !tp.on {
					ons++
				}
				if c.max > 0 && ons > 2*c.max { // what a set replaces stays until it is complete
					bad(tp, e.Channel, "%d subscriptions", ons)
				}
				*tp = wideTopic{symbol: e.Symbol, on: true, fresh: true, expects: true, epoch: e.Epoch}
				tp.place, tp.sure = c.place(e.Ref, e.Channel, e.Symbol, refused)
				if was.on {
					tp.behind, tp.reset, tp.gap, tp.standing, tp.told = was.behind, was.reset, was.gap, was.standing, was.told
					tp.sure = false
				}
				if !tp.sure {
					tp.epoch = 0
				} else if tp.place.HasFrom {
					tp.epoch, tp.seq = tp.place.Epoch, tp.place.Seq
					if trade, quote, ok := c.symbols[e.Symbol].tapes[tp.epoch].at(tp.seq); ok {
						tp.no, tp.number = trade, true
						if e.Channel == codec.ChannelQuotes {
							tp.no = quote
						}
					}
				}
			}
			tp.every, tp.view, tp.grantRef = e.Every, e.View, e.Ref
		case codec.EventUnsubscribed:
			cmds := c.together(e.Ref)
			for key, tp := range topics {
				n, w := false, false
				for _, cmd := range cmds {
					for it := range cmd.Symbols.All() {
						if cmds[0].Op == codec.OpSet && (refused[fmt.Sprint(cmd.Ref, string(it.Name))] || refused[fmt.Sprint(cmd.Ref, tp.symbol)]) {
							continue
						}
						prefix, wild := strings.CutSuffix(string(it.Name), "*")
						n = n || !wild && prefix == tp.symbol
						w = w || wild && strings.HasPrefix(tp.symbol, prefix)
					}
				}
				if tp.on && key[1] == uint32(cmds[0].Channel) && (n || w) == (cmds[0].Op == codec.OpUnsubscribe) {
					tp.on = false
					ons--
					note(wideKey{cmds[0].Channel, tp.symbol}, "unsubscribed ref %d", e.Ref)
				}
			}
		case codec.EventReset:
			tp := followed(e, "a reset")
			if tp == nil {
				return
			}
			note(wideKey{e.Channel, tp.symbol}, "reset %d", e.Epoch)
			if e.Epoch < tp.epoch || e.Epoch == tp.epoch && !tp.expects || c.symbols[tp.symbol].tapes[e.Epoch] == nil {
				bad(tp, e.Channel, "a reset to %d", e.Epoch)
				return
			}
			tp.epoch, tp.seq, tp.no, tp.number, tp.told, tp.reset = e.Epoch, 0, 0, false, 0, true
		case codec.EventBehind:
			tp := followed(e, "behind")
			if tp == nil {
				return
			}
			note(wideKey{e.Channel, tp.symbol}, "behind %d %d", e.Epoch, e.Seq)
			if tp.sure && !tp.place.HasFrom {
				bad(tp, e.Channel, "behind, which named no place")
			}
			tp.behind = true
		case codec.EventState:
			tp := followed(e, "a state")
			if tp == nil {
				return
			}
			note(wideKey{e.Channel, tp.symbol}, "state %v", e.State)
			tp.standing = e.State
			if e.State == codec.StateGap {
				if e.Channel != codec.ChannelTrades || !tp.fresh || tp.sure && !tp.place.HasFrom {
					bad(tp, e.Channel, "a gap")
				}
				tp.number, tp.gap = false, true
			}
		case codec.EventDrop:
			tp := followed(e, "a drop")
			if tp == nil {
				return
			}
			note(wideKey{e.Channel, tp.symbol}, "drop %d", e.Count)
			if e.Count == 0 || e.Channel != codec.ChannelTrades {
				bad(tp, e.Channel, "a drop of %d", e.Count)
			}
			tp.told += e.Count
			dropped += e.Count
		case codec.EventSnapshot, codec.EventTicker, codec.EventQuote, codec.EventTrade:
			tp := topics[[2]uint32{u.ID, uint32(u.Channel)}]
			if tp == nil || !tp.on {
				if tp == nil {
					tp = &wideTopic{symbol: "?"}
				}
				bad(tp, u.Channel, "a %v of id %d, which it does not follow", u.Type, u.ID)
				return
			}
			m := c.symbols[tp.symbol]
			k := wideKey{u.Channel, tp.symbol}
			if u.View&^tp.view != 0 {
				bad(tp, u.Channel, "view %v", u.View)
			}
			if u.Type == codec.EventSnapshot {
				snapshots++
				note(k, "snapshot %d %d no %d", u.Epoch, u.Seq, u.No)
				if !tp.expects || !tp.fresh || !tp.behind && (u.Epoch < tp.epoch || u.Epoch == tp.epoch && u.Seq < tp.seq) {
					bad(tp, u.Channel, "a snapshot of %d %d that was not awaited", u.Epoch, u.Seq)
				}
				if u.Channel == codec.ChannelTrades && tp.sure && tp.place.HasFrom && !tp.behind && !tp.reset {
					bad(tp, u.Channel, "a snapshot where trades would go on")
				}
				trade, quote, ok := m.tapes[u.Epoch].at(u.Seq)
				if !ok || u.Channel == codec.ChannelTrades && u.No != trade || u.Channel == codec.ChannelQuotes && u.No != quote {
					bad(tp, u.Channel, "a snapshot that never was, %d %d no %d", u.Epoch, u.Seq, u.No)
				}
				tp.fresh, tp.expects, tp.behind, tp.epoch, tp.seq, tp.no, tp.number, tp.told = false, false, false, u.Epoch, u.Seq, u.No, true, 0
				if tp.snapped {
					bad(tp, u.Channel, "a second snapshot")
				}
				tp.snapped = true
				continue
			}
			rows++
			note(k, "seq %d no %d", u.Seq, u.No)
			if u.Seq <= tp.seq {
				bad(tp, u.Channel, "seq %d after %d", u.Seq, tp.seq)
			}
			if tp.behind {
				bad(tp, u.Channel, "a tick after behind, and no snapshot")
			}
			if tp.epoch != 0 {
				trade, quote, ok := m.tapes[tp.epoch].at(u.Seq)
				if !ok || u.Channel == codec.ChannelTrades && u.No != trade || u.Channel == codec.ChannelQuotes && u.No != quote {
					bad(tp, u.Channel, "seq %d no %d of epoch %d never was", u.Seq, u.No, tp.epoch)
				}
			}
			switch {
			case u.Type != codec.EventTrade:
			case tp.number:
				if u.No != tp.no+1+tp.told {
					bad(tp, u.Channel, "trade %d after %d, with %d told as dropped", u.No, tp.no, tp.told)
				}
			case tp.fresh && tp.sure && !tp.place.HasFrom && !tp.reset && (!m.begins || m.epoch1 == tp.epoch && u.No != 1+tp.told):
				bad(tp, u.Channel, "trade %d first, and no snapshot", u.No)
			case tp.fresh && tp.sure && tp.place.HasFrom && !tp.gap && !tp.reset && u.No != 1:
				bad(tp, u.Channel, "trade %d first, and no gap", u.No)
			}
			if u.Type != codec.EventTrade && tp.fresh && tp.sure && !tp.place.HasFrom && !m.begins {
				bad(tp, u.Channel, "seq %d first, and no snapshot", u.Seq)
			}
			if u.View&codec.ViewLast != 0 && u.Type == codec.EventTrade && u.Price != wideDecimal(u.No) {
				bad(tp, u.Channel, "trade %d has price %v", u.No, u.Price)
			}
			if u.View&codec.ViewQuote != 0 && u.Type == codec.EventQuote && u.No != 0 && u.Bid != wideDecimal(u.No) {
				bad(tp, u.Channel, "quote %d has bid %v", u.No, u.Bid)
			}
			tp.fresh, tp.expects, tp.seq, tp.no, tp.number, tp.told = false, false, u.Seq, u.No, true, 0
		}
	}
	if counts.Delivered != rows || counts.Snapshots != snapshots && !c.gone || counts.Dropped < dropped {
		c.fail("ledger %+v, read %d ticks, %d snapshots and %d drops", counts, rows, snapshots, dropped)
	}
	if c.gone {
		return
	}
	if c.max > 0 && ons > c.max {
		c.fail("%d subscriptions", ons)
	}
	on := map[wideKey]*wideTopic{}
	for key, tp := range topics {
		ch := codec.Channel(key[1])
		if !tp.on {
			continue
		}
		on[wideKey{ch, tp.symbol}] = tp
		m := c.symbols[tp.symbol]
		st := &m.state
		if tp.standing != m.standing {
			bad(tp, ch, "ends as %v, want %v", tp.standing, m.standing)
		}
		if tp.fresh && !tp.sure {
			continue
		}
		if tp.epoch != st.Epoch && tp.epoch != 0 {
			bad(tp, ch, "ends in epoch %d, want %d", tp.epoch, st.Epoch)
		}
		if ch == codec.ChannelTicker && tp.seq != st.Seq || ch == codec.ChannelQuotes && tp.no != st.QuoteNo || ch == codec.ChannelTrades && tp.no != st.TradeNo && !(tp.reset && st.TradeNo == tp.told) {
			bad(tp, ch, "ends at seq %d no %d, want %d, %d trades, %d quotes", tp.seq, tp.no, st.Seq, st.TradeNo, st.QuoteNo)
		}
	}
	// What it must and what it may follow.
	for ch := codec.Channel(1); ch <= 3; ch++ {
		for sym := range c.symbols {
			must, may := false, false
			hoped := map[string]bool{}
			var last *codec.Command
			for r := uint64(1); r <= c.ref; r++ {
				cmd := c.asked[r]
				if cmd.Channel != ch {
					continue
				}
				name, wild, _ := wideMatch([]*codec.Command{cmd}, sym)
				if cmd.Op == codec.OpUnsubscribe {
					if name || wild {
						must = false
					}
					for it := range cmd.Symbols.All() {
						if prefix, w := strings.CutSuffix(string(it.Name), "*"); w {
							for h := range hoped {
								if strings.HasPrefix(h, prefix) {
									delete(hoped, h)
								}
							}
						}
					}
				} else {
					if name || wild {
						must, last = true, cmd
					}
					for it := range cmd.Symbols.All() {
						if prefix, w := strings.CutSuffix(string(it.Name), "*"); w {
							hoped[prefix] = true
						}
					}
					if p := c.parts[r]; p != nil {
						if n, w, _ := wideMatch(p, sym); !n && !w {
							must = false
						}
						for h := range hoped {
							keep := false
							for _, cmd := range p {
								for it := range cmd.Symbols.All() {
									keep = keep || string(it.Name) == h+"*"
								}
							}
							if !keep {
								delete(hoped, h)
							}
						}
					}
				}
			}
			may = must
			for h := range hoped {
				may = may || strings.HasPrefix(sym, h)
			}
			tp := on[wideKey{ch, sym}]
			if tp != nil && !may {
				bad(tp, ch, "still followed")
			}
			if tp == nil && must && c.max == 0 {
				bad(&wideTopic{symbol: sym}, ch, "not followed")
			}
			if tp != nil && must && c.max == 0 && tp.every != cadence(last.Every) {
				bad(tp, ch, "every %v, last asked %v", tp.every, last.Every)
			}
		}
	}
}

// TestWideModel runs the wide model once; WIDE_SEED and WIDE_RUNS have it run from a
// seed on, so many times.
func TestWideModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("WIDE_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	runs := 1
	if s := os.Getenv("WIDE_RUNS"); s != "" {
		runs, _ = strconv.Atoi(s)
	}
	for i := range runs {
		t.Run(fmt.Sprint(seed+uint64(i)), func(t *testing.T) { wideModel(t, seed+uint64(i)) })
	}
}

func wideModel(t *testing.T, seed uint64) {
	const publishers, clients = 2, 12
	length := 500 * time.Millisecond
	setup := rand.New(rand.NewPCG(seed, 1))
	b, err := board.New(board.Options{RingMemory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	symbols := map[string]*wideSymbol{}
	if setup.IntN(2) == 0 { // no ring of the others can grow
		hog := &wideSymbol{name: "HOG", tapes: map[int64]*tape{}, state: codec.State{Epoch: 1}}
		hog.tape()
		for range 9000 {
			hog.publish(b, setup, 1<<30)
		}
		b.Loaded("HOG")
		hog.standing, hog.begins, hog.epoch1 = codec.StateLoading, true, 1
		symbols["HOG"] = hog
	}
	ctx, cancel := context.WithCancel(t.Context())
	var shards []*Shard
	var running, acting, moods sync.WaitGroup
	for range 2 {
		s, err := New(b, Options{FrameMax: 1 << 10})
		if err != nil {
			t.Fatal(err)
		}
		shards = append(shards, s)
		running.Go(func() { s.Run(ctx) })
	}
	defer running.Wait()
	defer cancel()

	for _, n := range wideNames {
		m := &wideSymbol{name: n}
		m.begin(setup)
		symbols[n] = m
	}
	resets := []int{100, 400, 3000}[setup.IntN(3)]
	pace := 5 + setup.IntN(60)
	var over atomic.Bool
	for p := range publishers {
		rng := rand.New(rand.NewPCG(seed, uint64(10+p)))
		var mine []*wideSymbol
		for i := p; i < len(wideNames); i += publishers {
			mine = append(mine, symbols[wideNames[i]])
		}
		rng.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
		load := func(m *wideSymbol) {
			if !m.loaded {
				m.loaded = true
				b.Loaded(m.name)
				m.standing = codec.StateLive
				b.SetState(m.name, codec.StateLive, 1, "")
			}
		}
		acting.Go(func() {
			began := time.Now()
			for n := 0; ; n++ {
				k := min(len(mine), 1+int(time.Since(began)*time.Duration(2*len(mine))/length))
				m := mine[rng.IntN(k)]
				if !m.declared {
					m.declared = true
					b.Declare(m.name, m.begins)
					if !m.begins { // its past is read
						for range rng.IntN(40) {
							m.publish(b, rng, resets*10)
							if rng.IntN(8) == 0 {
								time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond)
							}
						}
						m.publish(b, rng, resets*10)
						load(m)
					} else if rng.IntN(2) == 0 {
						load(m)
					}
					continue
				}
				if rng.IntN(60) == 0 {
					load(m)
				}
				if m.loaded && rng.IntN(100) == 0 {
					m.standing = []codec.TopicState{codec.StateStale, codec.StateLive}[rng.IntN(2)]
					b.SetState(m.name, m.standing, int64(n), "")
				}
				m.publish(b, rng, resets)
				if n%pace == 0 {
					if over.Load() {
						break
					}
					time.Sleep(time.Millisecond)
				}
			}
			for _, m := range mine {
				if !m.declared {
					b.Declare(m.name, m.begins)
				}
				m.publish(b, rng, resets)
				load(m)
			}
		})
	}
	var all []*wideClient
	doing, stop := context.WithCancel(ctx)
	defer stop()
	for i := range clients {
		c := &wideClient{t: t, no: i, conn: &fakeConn{room: -1}, rng: rand.New(rand.NewPCG(seed, uint64(100+i))), symbols: symbols, shard: shards[i%2],
			asked: map[uint64]*codec.Command{}, parts: map[uint64][]*codec.Command{}, dialect: native.MsgPack}
		if i%3 == 1 {
			c.dialect = native.JSON
		}
		if i%4 == 3 {
			c.max = 20
		}
		if c.se, err = c.shard.Attach(c.conn, c.dialect, SessionOptions{SymbolsMax: c.max}); err != nil {
			t.Fatal(err)
		}
		leaves := i%5 == 4
		all = append(all, c)
		acting.Go(func() {
			began := time.Now()
			for !over.Load() {
				if leaves && time.Since(began) > length/2 && c.rng.IntN(5) == 0 {
					c.gone = true
					c.se.Detach(codec.CloseGone)
					return
				}
				if !c.act(doing, codec.Channel(1+c.rng.IntN(3)), 0) {
					return
				}
				time.Sleep(time.Duration(c.rng.IntN(15)) * time.Millisecond)
			}
		})
		if leaves && i%2 == 0 { // and such as leave in the middle of a command
			acting.Go(func() {
				time.Sleep(length * 2 / 3)
				c.se.Detach(codec.CloseGone)
			})
		}
		mood := rand.New(rand.NewPCG(seed, uint64(200+i)))
		moods.Go(func() {
			for !over.Load() {
				c.conn.allow([]int{-1, -1, 0, 400, 3000}[mood.IntN(5)])
				time.Sleep(time.Duration(mood.IntN(40)) * time.Millisecond)
				if mood.IntN(2) == 0 {
					c.se.Retry()
				}
			}
			c.conn.allow(-1)
		})
	}
	watchLedgers(ctx, t, shards[:], length)
	over.Store(true)
	timer := time.AfterFunc(5*time.Second, stop)
	acting.Wait()
	moods.Wait()
	if !timer.Stop() {
		t.Fatal("an answer did not come")
	}
	var sum codec.Ledger
	var why string
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		why = ""
		sum = codec.Ledger{}
		for _, s := range shards {
			l, err := ledgers(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			sum.Add(l)
			s.do(ctx, func() {
				if s.seen != len(b.Topics()) || len(s.owing) > 0 || len(s.again) > 0 || len(s.dirty) > 0 {
					why = fmt.Sprint("busy ", s.seen, len(s.owing), len(s.again), len(s.dirty))
				}
				for _, sl := range s.slots {
					if sl.any {
						why = "slot"
					}
				}
				for se := range s.sessions {
					if se.work != nil || len(se.events) > 0 || se.listed || se.rescan {
						why = fmt.Sprintf("session work=%v events=%d listed=%v rescan=%v", se.work != nil, len(se.events), se.listed, se.rescan)
					}
					if len(se.late) > 0 {
						why = fmt.Sprintf("late %v", se.late)
					}
				}
			})
		}
		if sum.Pending > 0 {
			why = fmt.Sprint("pending ", sum)
		}
		if why == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("seed %d never settles: %s", seed, why)
		}
	}
	var lost uint64
	for _, s := range shards {
		lost += s.Stats().EventsLost
	}
	if lost > 0 {
		t.Logf("%d events lost", lost)
		return
	}
	for _, c := range all {
		var counts codec.Ledger
		c.shard.do(ctx, func() {
			counts = c.shard.ledger(c.se)
			c.gone = c.gone || c.se.ended
			if c.max > 0 && (c.se.n+len(c.se.hopes) > c.max || c.se.spare != 0) {
				t.Errorf("client %d: %d subscriptions and %d hopes, %d spare", c.no, c.se.n, len(c.se.hopes), c.se.spare)
			}
		})
		c.check(counts)
		if t.Failed() {
			return
		}
	}
	for _, c := range all {
		c.se.Detach(codec.CloseGone)
	}
	for _, s := range shards {
		s.do(ctx, func() {
			for id, tp := range s.topics {
				if tp != nil {
					t.Errorf("topic %d is kept: %v", id, tp.subs)
				}
			}
			for i, g := range s.groups {
				if g != nil {
					t.Errorf("group %d is kept", i)
				}
			}
			for _, k := range s.kinds {
				if k.groups != 0 {
					t.Errorf("a kind of %d groups", k.groups)
				}
			}
			if len(s.freeGroups) != len(s.groups) || len(s.slots) > 0 || len(s.hoping) > 0 || len(s.sessions) > 0 {
				t.Errorf("kept: %d of %d groups free, %d slots, %d hoping, %d sessions", len(s.freeGroups), len(s.groups), len(s.slots), len(s.hoping), len(s.sessions))
			}
			if s.stats.live.Subscriptions != 0 {
				t.Errorf("%d subscriptions", s.stats.live.Subscriptions)
			}
			for _, c := range all {
				if c.shard == s && (len(c.se.groups) > 0 || c.se.n != 0 || c.se.hopes != nil || c.se.late != nil || c.se.work != nil || c.se.afloat != 0) {
					t.Errorf("client %d keeps something: %d groups, n %d, hopes %v, late %v", c.no, len(c.se.groups), c.se.n, c.se.hopes, c.se.late)
				}
			}
		})
		if _, err := ledgers(ctx, s); err != nil {
			t.Error(err)
		}
	}
}
