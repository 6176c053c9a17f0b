package main

import (
	"strings"
	"sync"
	"time"

	"tickgate/codec"
)

// topicsMax bounds the symbols, since clients may ask for any.
const topicsMax = 1 << 16

// channels are those that a symbol has.
var channels = [...]codec.Channel{codec.ChannelTicker, codec.ChannelTrades}

// topic is one symbol: its number, its newest state, and who follows it.
type topic struct {
	id     uint32
	symbol string
	names  [codec.ChannelTrades + 1]string // of its channels, in the peer's words

	// mu is held while a row is handed to the library, and while a client is
	// granted: what a client is sent behind its snapshot has no gap.
	mu    sync.Mutex
	seen  bool // there is a state
	state codec.State

	sessions [codec.ChannelTrades + 1]map[*session]struct{} // gws alone
}

// market is the topics by symbol.
type market struct {
	// name is what a peer calls a topic's channel; set before the first topic
	// is made, nil if it calls it nothing.
	name func(codec.Channel, string) string

	mu     sync.Mutex
	topics map[string]*topic
	list   []*topic // by id; what is in it stays
}

func newMarket() *market { return &market{topics: map[string]*topic{}} }

// topic returns a symbol's topic, a new one if there is none; nil if there are
// too many.
func (m *market) topic(symbol string) *topic {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.topics[symbol]; t != nil {
		return t
	}
	if len(m.list) == topicsMax {
		return nil
	}
	symbol = strings.Clone(symbol) // a record's belongs to the next one
	t := &topic{id: uint32(len(m.list)), symbol: symbol}
	for _, c := range channels {
		if m.name != nil {
			t.names[c] = m.name(c, symbol)
		}
	}
	m.topics[symbol] = t
	m.list = append(m.list, t)
	return t
}

// find returns a symbol's topic, nil if there is none.
func (m *market) find(symbol string) *topic {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.topics[symbol]
}

// all is the topics that there are now.
func (m *market) all() []*topic {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list[:len(m.list):len(m.list)]
}

// A publisher hands ticks to those who subscribed.
type publisher interface {
	// publish tells what r did to t, whose state is that of r. It is called by
	// one goroutine, with t locked. First says that it is the symbol's first:
	// who waits for it has not been told its number.
	publish(t *topic, r *tick, first bool)
}

// publish takes a tick.
func (m *market) publish(p publisher, r *tick) {
	t := m.topic(r.Symbol)
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	first := !t.seen
	t.seen, t.state = true, r.State
	p.publish(t, r, first)
}

// frameNo is the number of every frame: its bytes are shared by all clients, so
// it cannot count one client's.
const frameNo = 1

// appendTick spells a frame of the one row that r is on a channel.
func appendTick(dst []byte, d codec.Dialect, c codec.Channel, t *topic, r *tick) []byte {
	start := len(dst)
	dst = d.BeginFrame(dst, frameNo, time.Now().UnixNano())
	if c == codec.ChannelTrades {
		s := &r.State
		dst = d.AppendTrade(dst, codec.DefaultView(c), t.id, t.symbol, &codec.TradeEntry{
			Kind: r.Kind, Trade: r.Trade, Quote: s.Quote, Volume: s.Volume, Notional: s.Notional, Trades: s.Trades,
		})
	} else {
		dst = d.AppendState(dst, c, codec.DefaultView(c), t.id, t.symbol, &r.State)
	}
	return d.EndFrame(dst, start, 1)
}

// appendEvent spells a frame of one event.
func appendEvent(dst []byte, d codec.Dialect, e *codec.Event) []byte {
	start := len(dst)
	dst = d.BeginFrame(dst, frameNo, time.Now().UnixNano())
	dst = d.AppendEvent(dst, e)
	return d.EndFrame(dst, start, 1)
}

// appendGrant spells the frame that a subscription begins with: the topic's
// number and its state, or that there is none yet. If end is set, a snapshot_end
// follows. The topic must be locked.
func appendGrant(dst []byte, d codec.Dialect, c codec.Channel, t *topic, ref uint64, end bool) []byte {
	start, rows := len(dst), 1
	v := codec.DefaultView(c)
	dst = d.BeginFrame(dst, frameNo, time.Now().UnixNano())
	if t.seen {
		dst = d.AppendEvent(dst, grant(c, t, ref))
		dst = d.AppendSnapshot(dst, c, v, t.id, t.symbol, &t.state)
		rows++
	} else {
		dst = d.AppendEvent(dst, &codec.Event{Type: codec.EventWaiting, Ref: ref, Channel: c, Symbol: t.symbol})
	}
	if end {
		dst = d.AppendEvent(dst, &codec.Event{Type: codec.EventSnapshotEnd, Ref: ref, Channel: c})
		rows++
	}
	return d.EndFrame(dst, start, rows)
}

// grant is the event that tells a topic's number.
func grant(c codec.Channel, t *topic, ref uint64) *codec.Event {
	return &codec.Event{Type: codec.EventGranted, Ref: ref, Channel: c, ID: t.id, Symbol: t.symbol,
		Epoch: t.state.Epoch, Seq: t.state.Seq, View: codec.DefaultView(c)}
}

// served tells whether the peers have the channel.
func served(c codec.Channel) bool { return c == codec.ChannelTrades || c == codec.ChannelTicker }

// tells tells whether a tick is told on a channel.
func tells(c codec.Channel, r *tick) bool {
	return c == codec.ChannelTicker || r.Kind == codec.KindTrade
}
