package client

import (
	"fmt"

	"tickgate/codec"
	"tickgate/codec/native"
)

// topicKey names what is followed, on any gateway.
type topicKey struct {
	channel codec.Channel
	symbol  string
}

// topicID names it on the gateway that we are connected to.
type topicID struct {
	channel codec.Channel
	id      uint32
}

// topicsMax bounds the topics that a gateway can make us keep: three channels of
// ten times what one node is built for.
const topicsMax = 300_000

// topic is what this client knows of one symbol on one channel. It outlives
// connections: a gateway is asked to go on from here.
type topic struct {
	symbol   string
	known    bool // epoch and seq are
	epoch    int64
	seq      uint64
	no       uint64 // of the last quote or trade; counts if numbered
	numbered bool
	filtered bool // trades may be missing by our own wish
	behind   bool // the gateway has told that it knows less than we have seen
	goesOn   bool // granted, and no trade has come since
	lost     bool // the gateway has told that it no longer has all of them

	dropped uint64 // told since the last update
	last    codec.Decimal
}

// take follows an update and completes it; the faults are what it breaks.
func (t *topic) take(u *Update, fault func(string)) {
	u.Symbol = t.symbol
	if u.Type == codec.EventSnapshot {
		t.takeSnapshot(u, fault)
	} else {
		t.takeTick(u, fault)
	}
	if u.View&codec.ViewLast != 0 && u.Price.IsSet() && (u.Channel != codec.ChannelTrades || u.Kind == codec.KindTrade || u.Snapshot()) {
		t.last = u.Price
	}
	u.Last = t.last
	u.Dropped, t.dropped = t.dropped, 0
}

// takeSnapshot begins to follow, or goes on. In trades it comes instead of those
// since where we were: that many are missing.
func (t *topic) takeSnapshot(u *Update, fault func(string)) {
	if t.known && !t.behind {
		switch {
		case u.Epoch < t.epoch:
			fault(fmt.Sprintf("snapshot of epoch %d after epoch %d", u.Epoch, t.epoch))
		case u.Epoch == t.epoch && u.Seq < t.seq:
			fault(fmt.Sprintf("snapshot of seq %d after seq %d", u.Seq, t.seq))
		case u.Epoch == t.epoch && u.Channel == codec.ChannelTrades:
			if t.numbered && u.No > t.no {
				t.dropped += u.No - t.no
			}
		case u.Epoch == t.epoch:
			u.Merged = t.merged(&u.Update)
		}
	}
	t.known, t.epoch, t.seq, t.behind = true, u.Epoch, u.Seq, false
	t.no, t.numbered = u.No, u.Channel != codec.ChannelTicker
}

func (t *topic) takeTick(u *Update, fault func(string)) {
	u.Epoch = t.epoch
	if !t.known {
		fault("a tick of an epoch that was not told")
	} else if u.Seq < t.seq || u.Seq == t.seq && u.Type == codec.EventTrade {
		fault(fmt.Sprintf("seq %d after %d in epoch %d", u.Seq, t.seq, t.epoch))
	}
	switch {
	case !t.known:
	case u.Type == codec.EventTrade:
		if t.lost && t.numbered && !t.filtered && u.No > t.no {
			t.dropped = u.No - t.no - 1
		}
		t.goesOn, t.lost = false, false
		if t.numbered && !t.filtered && u.No != t.no+1+t.dropped {
			fault(fmt.Sprintf("trade %d after trade %d, with %d drops told", u.No, t.no, t.dropped))
		}
	default:
		if u.Type == codec.EventQuote && t.numbered && u.No < t.no {
			fault(fmt.Sprintf("quote %d after quote %d", u.No, t.no))
		}
		u.Merged = t.merged(&u.Update)
	}
	t.known, t.seq = true, u.Seq
	t.no, t.numbered = u.No, u.Type != codec.EventTicker
}

// merged is how many ticks of the channel u stands for besides the newest.
func (t *topic) merged(u *native.Update) uint64 {
	switch {
	case u.Channel == codec.ChannelTicker && u.Seq > t.seq && t.seq > 0: // not the first of an epoch
		return u.Seq - t.seq - 1
	case u.Channel == codec.ChannelQuotes && t.numbered && u.No > t.no:
		return u.No - t.no - 1
	}
	return 0
}

// granted tells the epoch of a symbol that is new: its ticks may come without a
// snapshot, from the first.
func (t *topic) granted(epoch int64) {
	if !t.known && epoch != 0 {
		t.known, t.epoch = true, epoch
	}
}

// reset begins a numbering anew.
func (t *topic) reset(epoch int64, fault func(string)) {
	if t.known && epoch <= t.epoch {
		fault(fmt.Sprintf("reset to epoch %d after epoch %d", epoch, t.epoch))
	}
	t.known, t.epoch, t.seq, t.lost = true, epoch, 0, false
	t.no, t.numbered = 0, false
}
