package shard

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"tickgate/codec"
)

// subscription is a topic and a cursor. A client may have thousands, and who
// takes nothing costs no more than them: it is 24 bytes, and what few of them
// need stands elsewhere.
type subscription struct {
	cursor   uint64 // where this client stands on its channel
	topic    uint32
	epoch    uint32 // the shard's number of the epoch that was told last; 0: none yet
	standing uint32 // version told last
	flags    flags
}

// flags of a subscription.
type flags uint16

const (
	granted  flags = 1 << iota // the client knows the terms, and the epoch
	waited                     // the client knows that there is no tick yet
	snapshot                   // owed a snapshot before anything else
	first                      // came with its topic: served from its first tick
	served                     // has been sent a tick or a snapshot
	behind                     // the client has seen more than this node
	lost                       // resumed from a point that the ring no longer holds
	late                       // Session.late knows more
	named                      // by the set that is being put together
	leaving                    // goes with the next sweep
)

// otherEpoch is a told epoch that is none of the topic's here.
const otherEpoch = math.MaxUint32

// terms are what a client asked for.
type terms struct {
	channel codec.Channel
	view    codec.View
	every   time.Duration
	minSize codec.Decimal
}

// group is the subscriptions of one session on the same terms, by topic.
type group struct {
	session *Session
	terms   terms
	no      uint32 // its place among the shard's groups
	kind    int    // of its spelling; -1: its rows are spelled for it alone
	slot    *slot  // of its cadence; nil: unconflated
	subs    []subscription
	touched []uint32 // of subs: have something to send. None while session.rescan

	// Which topics subs are of, as bits, and how many of them stand before each
	// word: nil below membersMin, made when first wanted after a change.
	members []uint64
	ranks   []uint16
}

// membersMin is how many subscriptions are better found by a bitset than by a
// look at each.
const membersMin = 64

// find returns where the subscription of a topic stands, or -1.
func (g *group) find(topic uint32) int {
	if g.members != nil {
		w := int(topic / 64)
		if w >= len(g.members) || g.members[w]>>(topic%64)&1 == 0 {
			return -1
		}
		return g.at(w, topic%64)
	}
	lo, hi := 0, len(g.subs)
	for lo < hi {
		if mid := int(uint(lo+hi) / 2); g.subs[mid].topic < topic {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(g.subs) && g.subs[lo].topic == topic {
		return lo
	}
	return -1
}

// at is where the member that is bit b of word w stands.
func (g *group) at(w int, b uint32) int {
	return int(g.ranks[w]) + bits.OnesCount64(g.members[w]&(1<<b-1))
}

// index makes the bitset, if it pays.
func (g *group) index() {
	if g.members != nil || len(g.subs) < membersMin {
		return
	}
	words := int(g.subs[len(g.subs)-1].topic/64) + 1
	g.members, g.ranks = make([]uint64, words), make([]uint16, words)
	for i := range g.subs {
		g.members[g.subs[i].topic/64] |= 1 << (g.subs[i].topic % 64)
	}
	n := 0
	for w, word := range g.members {
		g.ranks[w] = uint16(n)
		n += bits.OnesCount64(word)
	}
}

// unsettle is called before subs are moved: what pointed at them does no more.
func (g *group) unsettle() {
	g.members, g.ranks = nil, nil
	g.session.rescanAll()
}

// merge puts fresh subscriptions, sorted by topic and none of them there yet,
// among subs.
func (g *group) merge(fresh []subscription) {
	if len(fresh) == 0 {
		return
	}
	g.unsettle()
	old := g.subs
	n := len(old) + len(fresh)
	if cap(old) < n { // what is never used is never lost: a sixteenth, and that only for who comes back for more
		room := n
		if len(old) > 0 {
			room += n / 16
		}
		g.subs = make([]subscription, n, room)
	} else {
		g.subs = old[:n]
	}
	for i, j, k := len(old)-1, len(fresh)-1, n-1; k >= 0; k-- { // from the end, so that it can be in place
		if j < 0 || i >= 0 && old[i].topic > fresh[j].topic {
			g.subs[k] = old[i]
			i--
		} else {
			g.subs[k] = fresh[j]
			j--
		}
	}
}

// sweep takes out those that leave.
func (g *group) sweep() {
	g.unsettle()
	g.subs = slices.DeleteFunc(g.subs, func(sub subscription) bool { return sub.flags&leaving != 0 })
	if cap(g.subs) > 4*len(g.subs)+membersMin {
		g.subs = slices.Clone(g.subs)
	}
}

// kind is one way of spelling that clients share: the same bytes for all of the
// same dialect, channel and view.
type kind struct {
	dialect codec.Dialect
	channel codec.Channel
	view    codec.View
	groups  int // that use it; 0: free
}

// kindOf finds or makes the kind of a group; -1 if there are too many.
func (s *Shard) kindOf(d codec.Dialect, c codec.Channel, v codec.View) int {
	free := -1
	for i := range s.kinds {
		k := &s.kinds[i]
		if k.groups > 0 && k.dialect == d && k.channel == c && k.view == v {
			k.groups++
			return i
		}
		if k.groups == 0 {
			free = i
		}
	}
	if free < 0 {
		if len(s.kinds) == spellingsMax {
			return -1
		}
		free = len(s.kinds)
		s.kinds = append(s.kinds, kind{})
	}
	for _, t := range s.topics {
		if t != nil && free < len(t.spellings) {
			t.spellings[free] = spelling{}
		}
	}
	s.kinds[free] = kind{d, c, v, 1}
	return free
}

// groupOf finds or makes the session's group of these terms; nil if it has too
// many.
func (s *Shard) groupOf(se *Session, t terms) *group {
	for _, g := range se.groups {
		if g.terms == t {
			return g
		}
	}
	if len(se.groups) >= groupsMax {
		return nil
	}
	g := &group{session: se, terms: t, kind: s.kindOf(se.dialect, t.channel, t.view)}
	if n := len(s.freeGroups); n > 0 {
		g.no = s.freeGroups[n-1]
		s.freeGroups = s.freeGroups[:n-1]
		s.groups[g.no] = g
	} else {
		g.no = uint32(len(s.groups))
		s.groups = append(s.groups, g)
	}
	if t.every > 0 {
		g.slot = s.slotOf(t.every, se.phase)
		g.slot.groups = append(g.slot.groups, g)
	}
	se.groups = append(se.groups, g)
	return g
}

// tidy lets go of the session's groups that have no subscription left.
func (s *Shard) tidy(se *Session) {
	se.groups = slices.DeleteFunc(se.groups, func(g *group) bool {
		if len(g.subs) > 0 {
			return false
		}
		if g.slot != nil {
			if g.slot.groups = remove(g.slot.groups, g); len(g.slot.groups) == 0 {
				s.slots = remove(s.slots, g.slot)
			}
		}
		if g.kind >= 0 {
			s.kinds[g.kind].groups--
		}
		s.groups[g.no] = nil
		s.freeGroups = append(s.freeGroups, g.no)
		return true
	})
}

// follow has the group told of the topic's changes.
func (s *Shard) follow(g *group, t *topic) {
	if g.slot != nil {
		return // it looks at its slot's bits
	}
	if len(t.unconflated) == 0 {
		s.watcher.Prompt(t.Topic, true)
		s.changed(t.ID) // what was marked before shall not wait for a timer
	}
	t.unconflated = append(t.unconflated, g.no)
}

// unfollow is the inverse of follow.
func (s *Shard) unfollow(g *group, t *topic) {
	if g.slot != nil {
		return
	}
	if t.unconflated = remove(t.unconflated, g.no); len(t.unconflated) == 0 {
		t.unconflated = nil
		s.watcher.Prompt(t.Topic, false)
	}
}
