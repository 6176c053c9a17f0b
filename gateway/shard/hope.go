package shard

import (
	"maps"
	"math/bits"

	"tickgate/codec"
	"tickgate/gateway/board"
)

// goOnFrom takes the other's place to go on from, if it has none.
func (a *lateAsk) goOnFrom(other *lateAsk) {
	if !a.hasFrom {
		a.hasFrom, a.epoch, a.seq = other.hasFrom, other.epoch, other.seq
	}
}

// hopeKey is a name that has not traded, or a pattern that new names may match.
type hopeKey struct {
	name    string // without the star
	wild    bool
	channel codec.Channel
}

// hopeNames is the bit of Session.hopeFor that stands for names.
const hopeNames uint64 = 1 << 63

// bit is what stands for the key in Session.hopeFor.
func (k *hopeKey) bit() uint64 {
	if k.wild {
		return 1 << len(k.name)
	}
	return hopeNames
}

// hope is what is asked for, if it appears.
type hope struct {
	terms terms
	ask   lateAsk
	named bool   // by the set that is being put together
	no    uint64 // counts the hopes of its session, from 1
	stamp uint32 // of the command: Shard.stampNo
}

// hope remembers a name or a pattern; one that is there already gets the new
// terms, and keeps the place to go on from unless it gets a new one. ok tells
// whether there was room, again that this command has named it before.
func (se *Session) hope(s *Shard, key hopeKey, h hope) (ok, again bool) {
	have, there := se.hopes[key]
	toName := there && !have.named && se.setting[key.channel&3]
	if (!there || toName) && se.full() {
		return false, false
	}
	if toName {
		se.spare--
	}
	se.hopeNo++
	h.no, h.stamp, h.named = se.hopeNo, s.stampNo, se.setting[key.channel&3]
	if there {
		h.ask.goOnFrom(&have.ask)
	}
	if se.hopes == nil {
		se.hopes = make(map[hopeKey]hope)
	}
	se.hopes[key] = h
	se.hopeFor[key.channel&3] |= key.bit()
	s.hoping[se] = struct{}{}
	return true, there && have.stamp == h.stamp
}

// forgo ends those hopes that are chosen.
func (se *Session) forgo(s *Shard, chosen func(hopeKey, hope) bool) {
	se.hopeFor = [4]uint64{}
	maps.DeleteFunc(se.hopes, func(k hopeKey, h hope) bool {
		if chosen(k, h) {
			return true
		}
		se.hopeFor[k.channel&3] |= k.bit()
		return false
	})
	se.hopeless(s)
}

// hopeless lets the shard know if a session hopes for nothing any more.
func (se *Session) hopeless(s *Shard) {
	if len(se.hopes) == 0 {
		se.hopes, se.hopeFor = nil, [4]uint64{}
		delete(s.hoping, se)
	}
}

// meet subscribes to a new topic if it was hoped for: on the terms that were
// asked for last, as it would be if it had been there. It looks for the keys that
// match, so that thousands of others cost nothing.
func (se *Session) meet(s *Shard, bt *board.Topic) {
	for c, keys := range se.hopeFor {
		var newest hope
		for ; keys != 0; keys &= keys - 1 {
			key := hopeKey{name: bt.Symbol, channel: codec.Channel(c)}
			if n := bits.TrailingZeros64(keys); uint64(1)<<n != hopeNames {
				if n > len(bt.Symbol) {
					continue
				}
				key.name, key.wild = bt.Symbol[:n], true
			}
			h, ok := se.hopes[key]
			if !ok {
				continue
			}
			if !key.wild {
				delete(se.hopes, key)
			}
			if h.no > newest.no {
				h, newest = newest, h
			}
			newest.ask.goOnFrom(&h.ask)
		}
		if newest.no > 0 {
			se.meetHope(s, bt, &newest)
		}
	}
	se.hopeless(s)
}

// meetHope subscribes to a topic as h says.
func (se *Session) meetHope(s *Shard, bt *board.Topic, h *hope) {
	if old, _ := se.find(h.terms.channel, bt.ID); old != nil {
		return
	}
	refuse := func(why refusal) {
		e := codec.Event{Type: codec.EventRefused, Ref: h.ask.ref, Channel: h.terms.channel, Symbol: bt.Symbol}
		why.explain(&e)
		s.tell(se, e)
	}
	if se.full() { // also while a set is open: to count what it has not named would be for each symbol
		refuse(refusedMany)
		return
	}
	g := s.groupOf(se, h.terms)
	if g == nil {
		refuse(refusedTerms)
		return
	}
	t := s.enter(se, bt, h.terms.channel)
	s.fresh = append(s.fresh[:0], subscription{topic: bt.ID, flags: first | waited})
	sub := &s.fresh[0]
	if !bt.Begins || h.ask.hasFrom { // what is read of it first is its past
		if sub.flags = waited; h.ask.hasFrom || !t.loaded || t.view.State.Seq != 0 {
			sub.flags |= snapshot
		}
		se.begin(sub, t.head(h.terms.channel))
	}
	if h.named {
		sub.flags |= named
	}
	if h.ask.ref != 0 || h.ask.hasFrom {
		se.remember(g, sub, h.ask)
	}
	s.gather(g)
	s.touch(g, bt.ID)
}

// prefixes are beginnings of symbols. To look whether a symbol has one of
// thousands costs no more than of one of each length.
type prefixes struct {
	set     map[string]struct{}
	lengths uint64 // a bit each; a symbol is shorter than 63
}

func (p *prefixes) add(prefix string) {
	if len(prefix) > codec.SymbolBytesMax {
		return // of nothing
	}
	if p.set == nil {
		p.set = make(map[string]struct{})
	}
	p.set[prefix] = struct{}{}
	p.lengths |= 1 << len(prefix)
}

func (p *prefixes) match(symbol string) bool {
	if p.lengths&1 != 0 {
		return true
	}
	for l := p.lengths; l != 0; l &= l - 1 {
		n := bits.TrailingZeros64(l)
		if n > len(symbol) {
			break
		}
		if _, ok := p.set[symbol[:n]]; ok {
			return true
		}
	}
	return false
}
