package shard

import (
	"runtime"
	"sync/atomic"
	"testing"

	"tickgate/codec"
)

// TestInterestBeforeState: a tick that comes while a shard begins to follow its
// topic is either read with the state or marked: registered the other way round,
// one between the two would be told with the next one only, if ever. It is tried
// until the two have met in many ways.
func TestInterestBeforeState(t *testing.T) {
	const tries = 100_000
	h := newHouse(t, 1)
	bt := h.board.Lookup(h.names[0])
	var begun, published atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := int64(1); n <= tries; n++ {
			for begun.Load() < n {
				runtime.Gosched()
			}
			for range n % 61 { // now before, now after
				begun.Load()
			}
			h.trade(0)
			published.Store(n)
		}
	}()
	for n := int64(1); n <= tries; n++ {
		begun.Store(n)
		for range n % 67 {
			published.Load()
		}
		s := h.shard
		tp := s.hold(bt, codec.ChannelTicker)
		for published.Load() < n {
			runtime.Gosched()
		}
		s.watcher.Take(s.changed)
		if got, want := tp.view.State.Seq, uint64(n+1); got != want {
			t.Errorf("try %d: seq %d is known, want %d", n, got, want)
			break
		}
		s.release(tp, codec.ChannelTicker)
	}
	begun.Store(tries)
	<-done
}
