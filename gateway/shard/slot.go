package shard

import (
	"math/bits"
	"time"
)

// cadences are the periods that are granted: the next one above what is asked.
var cadences = [...]time.Duration{
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	200 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
	5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
}

func cadence(every time.Duration) time.Duration {
	if every <= 0 {
		return 0
	}
	for _, c := range cadences {
		if every <= c {
			return c
		}
	}
	return cadences[len(cadences)-1]
}

// slot is one phase of one cadence: the sessions that are served together.
type slot struct {
	period time.Duration
	phase  int
	next   time.Time
	groups []*group

	any     bool // something has changed since it last fired
	changed []uint64
}

func (sl *slot) set(id uint32) {
	for int(id/64) >= len(sl.changed) {
		sl.changed = append(sl.changed, 0)
	}
	sl.changed[id/64] |= 1 << (id % 64)
	sl.any = true
}

// fire serves the sessions of a slot if its time has come.
func (s *Shard) fire(sl *slot) {
	if !sl.any || s.now.Before(sl.next) {
		return
	}
	for _, g := range sl.groups {
		se := g.session
		if se.isOwing || se.ended {
			continue // it will look at everything when its socket takes again
		}
		if !se.rescan && !g.match(sl.changed) {
			continue
		}
		s.list(se)
	}
	clear(sl.changed)
	sl.any = false
	for !sl.next.After(s.now) {
		sl.next = sl.next.Add(max(sl.period, s.now.Sub(sl.next).Truncate(sl.period)))
	}
}

// match touches the subscriptions whose topics have changed, and tells whether
// there is one.
func (g *group) match(changed []uint64) bool {
	g.index()
	if g.members == nil {
		for i := range g.subs {
			id := g.subs[i].topic
			if w := int(id / 64); w < len(changed) && changed[w]>>(id%64)&1 != 0 {
				g.touched = append(g.touched, uint32(i))
			}
		}
		return len(g.touched) > 0
	}
	n := min(len(changed), len(g.members))
	members := g.members[:n]
	for w, word := range changed[:n] {
		for word &= members[w]; word != 0; word &= word - 1 {
			g.touched = append(g.touched, uint32(g.at(w, uint32(bits.TrailingZeros64(word)))))
		}
	}
	return len(g.touched) > 0
}

// slotOf finds or makes the slot of a session's cadence.
func (s *Shard) slotOf(period time.Duration, phase int) *slot {
	most := int(min(phases, max(1, period/phaseMin)))
	phase %= most
	for _, sl := range s.slots {
		if sl.period == period && sl.phase == phase {
			return sl
		}
	}
	// Counted from when the shard began, and not by time.Time.Truncate: that
	// is of the wall clock, and when it is set back nothing would be due.
	after := s.now.Sub(s.began)
	next := s.began.Add(after - after%period + period*time.Duration(phase)/time.Duration(most))
	for !next.After(s.now) {
		next = next.Add(period)
	}
	sl := &slot{period: period, phase: phase, next: next}
	s.slots = append(s.slots, sl)
	return sl
}

// timed tells whether the shard may sleep through marks that can wait: the next
// time at which a slot may fire is one at which one will.
func (s *Shard) timed() bool {
	var first *slot
	for _, sl := range s.slots {
		if sl.any && (first == nil || sl.next.Before(first.next)) {
			first = sl
		}
	}
	if first == nil {
		return false
	}
	for _, sl := range s.slots {
		if sl.any {
			continue
		}
		next := sl.next
		if late := s.now.Sub(next); late >= 0 {
			next = next.Add(late - late%sl.period + sl.period)
		}
		if next.Before(first.next) {
			return false
		}
	}
	return true
}
