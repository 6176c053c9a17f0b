package shard

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"tickgate/codec"
)

// Stats are what a shard has counted; its ledger is that of all its sessions,
// live and closed, kept as ticks come and go. That it is what [Shard.Ledger] finds
// by looking at every subscription is tested.
type Stats struct {
	Sessions, Subscriptions, Owing int
	Frames, Bytes, Rows, Events    uint64
	EventsLost                     uint64
	Ledger                         codec.Ledger
}

// Stats returns the counts as of the shard's last round.
func (s *Shard) Stats() Stats {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	return s.stats.told
}

// Ledger sums the ledgers of all sessions, live and closed. All that was
// published before the call has been offered in it.
func (s *Shard) Ledger(ctx context.Context) (sum codec.Ledger, err error) {
	err = s.do(ctx, func() { sum = s.ledgers() })
	return sum, err
}

func (s *Shard) ledgers() codec.Ledger {
	s.watcher.Take(s.changed)
	sum := s.closedLedger
	for se := range s.sessions {
		sum.Add(s.ledger(se))
	}
	return sum
}

// statsCell holds the counts: live is the shard's own, told is for others.
type statsCell struct {
	live  Stats
	every atomic.Int64 // Unix ns of the last store

	mu   sync.Mutex
	told Stats
}

// storePeriod is how old told may be.
const storePeriod = 100 * time.Millisecond

func (c *statsCell) store(s *Shard) {
	now := s.now.UnixNano()
	if now-c.every.Load() < int64(storePeriod) {
		return
	}
	c.every.Store(now)
	c.live.Sessions, c.live.Owing = len(s.sessions), len(s.owing)
	l := &c.live.Ledger
	l.Pending = l.Offered - l.Delivered - l.Merged - l.Filtered - l.Dropped
	c.mu.Lock()
	c.told = c.live
	c.mu.Unlock()
}
