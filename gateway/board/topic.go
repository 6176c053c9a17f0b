package board

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"tickgate/codec"
	"tickgate/codec/record"
)

// Heads count what a topic has told on each channel since this board knows it.
// A cursor is such a count: how far a client has come. They are of this node;
// what clients see are sequence numbers.
type Heads struct {
	Ticker uint64 // records that changed the state
	Quotes uint64
	Trades uint64 // trades, corrections and cancels
}

// Of is the head of one channel.
func (h *Heads) Of(c codec.Channel) uint64 {
	switch c {
	case codec.ChannelQuotes:
		return h.Quotes
	case codec.ChannelTrades:
		return h.Trades
	}
	return h.Ticker
}

// Standing is how far a topic can be trusted. Version grows with each change.
type Standing struct {
	State   codec.TopicState
	Since   int64 // Unix ns
	Why     string
	Version uint64
}

// View is a copy of what a topic says at one moment.
type View struct {
	State    codec.State
	Heads    Heads
	Standing Standing
	Loaded   bool // there is a state, or there is known to be none yet
}

// Topic is one symbol on the board.
type Topic struct {
	ID     uint32 // its index on the board, never reused
	Symbol string
	Begins bool // it was read from its first record on, not from somewhere in its past
	board  *Board

	interest atomic.Uint64 // a bit per watcher
	prompt   atomic.Uint64 // of those who want to be woken at once

	mu       sync.Mutex // guards what follows; held for a copy
	loaded   bool
	state    codec.State
	source   codec.Source
	heads    Heads
	standing Standing
	ring     []codec.TradeEntry // a power of two long; entry n stands at n modulo that
	oldest   uint64             // the first entry that the ring still has; heads.Trades if none
}

// publish takes a record if it is newer.
func (t *Topic) publish(r *record.Record) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state.Seq != 0 && !r.Source.Newer(t.source) {
		return false
	}
	if t.state.Seq != 0 && r.State.Epoch != t.state.Epoch {
		t.oldest = t.heads.Trades // of another numbering: who has not read them has lost them
	}
	t.source = r.Source
	t.state = r.State
	t.heads.Ticker++
	switch r.Kind {
	case codec.KindQuote:
		t.heads.Quotes++
	case codec.KindTrade, codec.KindCorrection, codec.KindCancel:
		t.push(r)
	}
	return true
}

// push puts a trade into the ring.
func (t *Topic) push(r *record.Record) {
	n := uint64(len(t.ring))
	if held := t.heads.Trades - t.oldest; held == n {
		if n == 0 || n < ringMax && r.IngestTime-t.ring[t.oldest&(n-1)].Trade.IngestTime < int64(ringSpan) {
			n = t.grow()
		}
		if held == n {
			t.oldest++
		}
	}
	e := &t.ring[t.heads.Trades&(n-1)]
	e.Kind = r.Kind
	e.Trade = r.Trade
	e.Quote = r.State.Quote
	e.Volume, e.Notional, e.Trades = r.State.Volume, r.State.Notional, r.State.Trades
	t.heads.Trades++
}

const entryBytes = int64(unsafe.Sizeof(codec.TradeEntry{}))

// grow doubles the ring if the node's ring memory allows, and returns its size.
func (t *Topic) grow() uint64 {
	old := uint64(len(t.ring))
	size := max(ringMin, 2*old)
	more := int64(size-old) * entryBytes
	if t.board.ringBytes.Add(more) > t.board.opts.RingMemory && old > 0 {
		t.board.ringBytes.Add(-more)
		return old
	}
	ring := make([]codec.TradeEntry, size)
	for i := t.oldest; i < t.heads.Trades; i++ {
		ring[i&(size-1)] = t.ring[i&(old-1)]
	}
	t.ring = ring
	return size
}

// Read copies what the topic says now.
func (t *Topic) Read(v *View) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v.State, v.Heads, v.Standing, v.Loaded = t.state, t.heads, t.standing, t.loaded
}

// Trades copies the ring's entries from cursor from up to to, at most len(dst),
// and returns how many and the cursor of the first: higher than from if the
// ring no longer holds that one.
func (t *Topic) Trades(dst []codec.TradeEntry, from, to uint64) (n int, first uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first = max(from, t.oldest)
	to = min(to, t.heads.Trades)
	for i := first; i < to && n < len(dst); i++ {
		dst[n] = t.ring[i&uint64(len(t.ring)-1)]
		n++
	}
	return n, first
}

// Resume finds the cursor on trades of a client that has seen seq of an epoch:
// the first entry after it, but at most head, which is how far the caller has
// read. whole tells that nothing in between has left the ring.
func (t *Topic) Resume(epoch int64, seq, head uint64) (cursor uint64, whole bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state.Epoch != epoch || t.oldest > head { // since the caller has read
		return head, false
	}
	mask := uint64(len(t.ring) - 1)
	lo, hi := t.oldest, t.heads.Trades
	for lo < hi {
		mid := (lo + hi) / 2
		if t.ring[mid&mask].Trade.Seq <= seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	switch {
	case lo > t.oldest: // the entry before it was seen
		return lo, true
	case lo == t.heads.Trades: // the ring is empty: whole if nothing came since, as far as the state tells
		last := &t.state.Last // not the last of all if that was a cancel, say, or a trade that came late
		return lo, last.No == t.state.TradeNo && last.Seq <= seq
	}
	return lo, t.ring[lo&mask].Trade.No == 1
}
