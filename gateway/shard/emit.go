package shard

import (
	"cmp"

	"tickgate/codec"
)

// visit sends a session what it has not seen, as far as its socket and its turn
// allow.
func (s *Shard) visit(se *Session) {
	if se.ended || se.isOwing {
		return
	}
	if !se.conn.Ready() {
		s.owe(se)
		return
	}
	s.serve(se)
}

// owe puts a session among those whose socket takes nothing. It needs no list
// of what it missed: it will look at everything.
func (s *Shard) owe(se *Session) {
	se.rescan, se.isOwing = true, true
	for _, g := range se.groups {
		g.touched = nil
	}
	se.owingWait = min(max(2*se.owingWait, owingMin), owingMax)
	// A little early, together with others: a thousand of them shall not wake
	// the shard a thousand times.
	after := s.now.Add(se.owingWait).Sub(s.began)
	se.owingAt = s.began.Add(after - after%(se.owingWait/owingSpread))
	s.owing.push(se)
}

// retry tries an owing session before its time.
func (s *Shard) retry(se *Session) {
	if se.isOwing && !se.ended {
		s.revisit(s.owing.remove(se.owingIndex))
	}
}

// revisit tries an owing session again.
func (s *Shard) revisit(se *Session) {
	if se.ended {
		return
	}
	se.isOwing = false
	done, err := se.conn.Flush()
	if err != nil {
		s.end(se, codec.CloseGone)
		return
	}
	if done {
		s.stats.live.Ledger.Delivered += se.afloat
		se.afloat = 0
	}
	if !done || !se.conn.Ready() {
		s.owe(se)
		return
	}
	se.owingWait = 0
	s.serve(se)
}

// serve assembles and sends frames for a session that is ready.
func (s *Shard) serve(se *Session) {
	s.visited = 0
	whole := s.emitAll(se) && s.send(se)
	s.rows, se.inFrame = 0, 0
	switch {
	case se.ended, whole:
	case se.afloat == 0 && se.conn.Ready():
		se.rescan = true
		if !se.listed {
			se.listed = true
			s.again = append(s.again, se)
		}
	default:
		s.owe(se)
	}
}

// emitAll assembles all that the session is owed. It returns false if it had
// to stop; what had been assembled is sent then.
func (s *Shard) emitAll(se *Session) bool {
	for len(se.events) > 0 {
		if !s.event(se, &se.events[0]) {
			return false
		}
		se.events = se.events[1:]
	}
	se.events = nil
	if se.work != nil && !s.emitWork(se) {
		return false
	}
	if se.rescan {
		for _, g := range se.groups {
			g.touched = g.touched[:0]
		}
		return s.emitEach(se)
	}
	for i, g := range se.groups {
		s.fetch(g)
		for _, at := range g.touched {
			if !s.emit(g, &g.subs[at], 0) {
				if se.ended {
					return false
				}
				se.rescan = true
				for _, g := range se.groups[i:] {
					g.touched = g.touched[:0]
				}
				return false
			}
		}
		g.touched = g.touched[:0]
	}
	return true
}

// fetch looks at what emit will need of the touched subscriptions, which has left
// the processor's caches since this client's turn before: looked at together it
// comes together, while emit would wait for one piece after another.
func (s *Shard) fetch(g *group) {
	seen := uint64(0)
	for _, at := range g.touched {
		sub := &g.subs[at]
		t := s.topics[sub.topic]
		seen += sub.cursor + t.heads[0]
		if g.kind >= 0 && g.kind < len(t.spellings) {
			if sp := &t.spellings[g.kind]; len(sp.rows) > 0 && len(sp.ends) > 0 {
				seen += uint64(sp.rows[len(sp.rows)-1]) + uint64(sp.ends[len(sp.ends)-1])
			}
		}
	}
	s.fetched += seen
}

// emitEach looks at every subscription, from where it was cut off before.
func (s *Shard) emitEach(se *Session) bool {
	from := se.scanAt
	if from >= se.n {
		from = 0
	}
	for _, part := range [2][2]int{{from, se.n}, {0, from}} {
		before := 0 // subscriptions of the groups before
		for _, g := range se.groups {
			for i := max(0, part[0]-before); i < min(len(g.subs), part[1]-before); i++ {
				if !s.emit(g, &g.subs[i], 0) {
					se.scanAt = before + i
					return false
				}
			}
			before += len(g.subs)
		}
	}
	se.rescan, se.scanAt = false, 0
	return true
}

// emitWork answers the command in work.
func (s *Shard) emitWork(se *Session) bool {
	w := se.work
	for ; w.at < len(w.items); w.at++ {
		it := &w.items[w.at]
		switch it.kind {
		case eventNothing:
			continue
		case eventSubscription:
			g, at := se.find(w.channel, it.topic)
			if g == nil {
				continue
			}
			sub := &g.subs[at]
			if !s.emit(g, sub, w.ref) {
				return false
			}
			if sub.flags&(granted|late) == 0 && w.ref != 0 {
				se.remember(g, sub, lateAsk{ref: w.ref})
			}
			continue
		}
		e := codec.Event{Type: it.kind, Ref: w.ref, Channel: w.channel, Symbol: it.name, Count: it.n}
		it.why.explain(&e)
		if !s.event(se, &e) {
			return false
		}
	}
	if !s.event(se, &codec.Event{Type: codec.EventSnapshotEnd, Ref: w.ref, Channel: w.channel}) {
		return false
	}
	close(w.done)
	se.work = nil
	return true
}

// explain says in e why, if something was refused.
func (why refusal) explain(e *codec.Event) {
	switch why {
	case refusedName:
		e.Code, e.Why, e.Want = "bad-symbol", "not a symbol", "[A-Z0-9._-]{1,32}, or a beginning of one and *"
	case refusedMany:
		e.Code, e.Why, e.Want = "too-many-symbols", "this session has as many symbols as it may", "unsubscribe some"
	case refusedTerms:
		e.Code, e.Why, e.Want = "too-many-terms", "this session has subscriptions on as many different terms as it may", "the same every, view and filters for many symbols"
	}
}

// event adds an event's row.
func (s *Shard) event(se *Session, e *codec.Event) bool {
	s.scratch = se.dialect.AppendEvent(s.scratch[:0], e)
	if !s.add(se, s.scratch, 1) {
		return false
	}
	s.stats.live.Events++
	return true
}

// emit adds all that a subscription is owed, and moves its cursor. It returns
// false if it had to stop; it goes on from where the cursor stands then. ref is
// of the command that asks for it now, 0 if none does.
func (s *Shard) emit(g *group, sub *subscription, ref uint64) bool {
	se, t := g.session, s.topics[sub.topic]
	const steady = granted | late | snapshot | behind | lost
	if sub.flags&steady != granted || sub.epoch != t.epoch || sub.standing != t.standing || !t.loaded {
		if on, ok := s.emitTerms(g, sub, t, ref); !on {
			return ok
		}
	}
	c := g.terms.channel
	if c == codec.ChannelTrades {
		return s.emitTrades(g, sub, t)
	}
	head := t.head(c)
	if sub.cursor == head {
		return true
	}
	if sub.flags&(first|served) == first {
		// It stands for no others: a client cannot tell how many came before
		// the first that it is sent, so none of them was offered.
		se.begin(sub, head-1)
	}
	if !s.add(se, s.stateRow(g, t, head), 1) {
		return false
	}
	sub.flags |= served
	se.counts.Delivered++
	se.inFrame++
	merged := head - sub.cursor - 1
	se.counts.Merged += merged
	s.stats.live.Ledger.Merged += merged
	sub.cursor = head
	return true
}

// emitTerms tells a client what comes before its ticks: terms, standing, resets,
// the snapshot. on tells whether ticks may follow; if not, ok is emit's answer.
func (s *Shard) emitTerms(g *group, sub *subscription, t *topic, ref uint64) (on, ok bool) {
	se, v, c := g.session, &t.view, g.terms.channel
	if v.State.Seq == 0 {
		if sub.flags&waited == 0 && !s.event(se, &codec.Event{Type: codec.EventWaiting, Ref: ref, Channel: c, Symbol: t.Symbol}) {
			return false, false
		}
		sub.flags |= waited
		return false, true
	}
	var ask lateAsk
	if sub.flags&late != 0 {
		ask = se.late[lateKey{sub.topic, c}]
		ref = cmp.Or(ref, ask.ref)
		if ask.hasFrom && t.loaded {
			se.resume(g, sub, t, &ask)
			ask.hasFrom = false
			se.late[lateKey{sub.topic, c}] = ask
		}
	}
	if sub.flags&granted == 0 {
		if !s.event(se, &codec.Event{Type: codec.EventGranted, Ref: ref, Channel: c, ID: t.ID, Symbol: t.Symbol,
			Epoch: v.State.Epoch, Seq: v.State.Seq, Every: g.terms.every, View: g.terms.view}) {
			return false, false
		}
		sub.flags |= granted
		if sub.flags&snapshot == 0 && sub.epoch == 0 {
			sub.epoch = t.epoch
		}
	}
	if sub.flags&late != 0 && !ask.hasFrom {
		se.forget(g, sub)
	}
	if sub.flags&lost != 0 {
		if sub.epoch == t.epoch && !s.event(se, &codec.Event{Type: codec.EventState, Channel: c, ID: t.ID, Symbol: t.Symbol, State: codec.StateGap,
			Since: s.now.UnixNano(), Why: "some trades since then have left this node's ring"}) {
			return false, false
		}
		sub.flags &^= lost
		sub.standing = 0 // and how it stands now
	}
	if sub.standing != t.standing {
		if !s.event(se, &codec.Event{Type: codec.EventState, Channel: c, ID: t.ID, Symbol: t.Symbol,
			State: v.Standing.State, Since: v.Standing.Since, Why: v.Standing.Why}) {
			return false, false
		}
		sub.standing = t.standing
	}
	if !t.loaded && sub.flags&first == 0 {
		return false, true
	}
	if sub.epoch != t.epoch && sub.epoch != 0 {
		if !s.event(se, &codec.Event{Type: codec.EventReset, Channel: c, ID: t.ID, Symbol: t.Symbol, Epoch: v.State.Epoch}) {
			return false, false
		}
		sub.epoch = t.epoch // told once, even if the frame ends here
	}
	if sub.flags&behind != 0 {
		if !s.event(se, &codec.Event{Type: codec.EventBehind, Channel: c, ID: t.ID, Symbol: t.Symbol, Epoch: v.State.Epoch, Seq: v.State.Seq}) {
			return false, false
		}
		sub.flags &^= behind
	}
	if sub.flags&snapshot != 0 {
		s.scratch = se.dialect.AppendSnapshot(s.scratch[:0], c, g.terms.view, t.ID, t.Symbol, &v.State)
		if !s.add(se, s.scratch, 1) {
			return false, false
		}
		sub.flags &^= snapshot
		sub.flags |= served
		se.counts.Snapshots++
		s.stats.live.Ledger.Snapshots++
		se.begin(sub, t.head(c)) // what follows is newer
	}
	sub.epoch = t.epoch
	return true, true
}

// spell is the place of a kind's spelling.
func (t *topic) spell(kind int) *spelling {
	for kind >= len(t.spellings) {
		t.spellings = append(t.spellings, spelling{})
	}
	return &t.spellings[kind]
}

// stateRow is the ticker or quotes row of now, spelled once for all.
func (s *Shard) stateRow(g *group, t *topic, head uint64) []byte {
	d, tr := g.session.dialect, &g.terms
	if g.kind < 0 {
		s.scratch = d.AppendState(s.scratch[:0], tr.channel, tr.view, t.ID, t.Symbol, &t.view.State)
		return s.scratch
	}
	sp := t.spell(g.kind)
	if !sp.valid || sp.head != head {
		sp.rows = d.AppendState(sp.rows[:0], tr.channel, tr.view, t.ID, t.Symbol, &t.view.State)
		sp.head, sp.valid = head, true
	}
	return sp.rows
}

// emitTrades adds the trades from the cursor to the head.
func (s *Shard) emitTrades(g *group, sub *subscription, t *topic) bool {
	head := t.head(codec.ChannelTrades)
	if sub.cursor == head {
		return true
	}
	if g.kind >= 0 && !g.terms.minSize.IsSet() {
		if sp := t.spell(g.kind); s.spellTrades(g, sp, t, sub.cursor, head) {
			return s.emitSpelled(g, sub, t, sp, head)
		}
	}
	return s.emitFromRing(g, sub, t, head)
}

// emitFromRing serves a client that is further back than what is kept spelled,
// or that wants not all trades.
func (s *Shard) emitFromRing(g *group, sub *subscription, t *topic, head uint64) bool {
	se, tr := g.session, &g.terms
	for sub.cursor < head {
		n, first := t.Trades(s.entries[:], sub.cursor, head)
		if first > sub.cursor && !s.dropped(g, sub, t, min(first, head)) {
			return false
		}
		for i := range n {
			e := &s.entries[i]
			if tr.minSize.IsSet() && e.Kind == codec.KindTrade && e.Trade.Size.Cmp(tr.minSize) < 0 {
				se.counts.Filtered++
				s.stats.live.Ledger.Filtered++
				sub.cursor++
				continue
			}
			s.scratch = se.dialect.AppendTrade(s.scratch[:0], tr.view, t.ID, t.Symbol, e)
			if !s.add(se, s.scratch, 1) {
				return false
			}
			se.carry(sub, 1)
		}
	}
	return true
}

// carry moves the cursor past n ticks that are in the frame now.
func (se *Session) carry(sub *subscription, n uint64) {
	se.counts.Delivered += n
	se.inFrame += n
	sub.cursor += n
}

// dropped tells a client how many trades the ring no longer holds for it.
func (s *Shard) dropped(g *group, sub *subscription, t *topic, to uint64) bool {
	n := to - sub.cursor
	if !s.event(g.session, &codec.Event{Type: codec.EventDrop, Channel: g.terms.channel, ID: t.ID, Symbol: t.Symbol, Count: n}) {
		return false
	}
	g.session.counts.Dropped += n
	s.stats.live.Ledger.Dropped += n
	sub.cursor = to
	return true
}

// spellTrades brings a kept spelling up to head if it can hold the trades from
// cursor on; false if the client must be served from the ring.
func (s *Shard) spellTrades(g *group, sp *spelling, t *topic, cursor, head uint64) bool {
	end := sp.base + uint64(len(sp.ends))
	if end == head && cursor >= sp.base && len(sp.ends) > 0 {
		return true
	}
	if len(sp.rows) > spelledTradesMax || cursor > end || len(sp.ends) == 0 {
		sp.base, sp.rows, sp.ends = cursor, sp.rows[:0], sp.ends[:0]
		end = cursor
	}
	if cursor < sp.base {
		return false
	}
	for end < head {
		n, first := t.Trades(s.entries[:], end, head)
		if first != end || n == 0 || len(sp.rows) > 2*spelledTradesMax {
			// More than a spelling holds, or gone from the ring already: what
			// is spelled is served, the rest from the ring.
			break
		}
		for i := range n {
			sp.rows = g.session.dialect.AppendTrade(sp.rows, g.terms.view, t.ID, t.Symbol, &s.entries[i])
			sp.ends = append(sp.ends, len(sp.rows))
		}
		end += uint64(n)
	}
	return end > cursor
}

// emitSpelled adds spelled trades from the cursor on.
func (s *Shard) emitSpelled(g *group, sub *subscription, t *topic, sp *spelling, head uint64) bool {
	se := g.session
	for i := int(sub.cursor - sp.base); i < len(sp.ends); {
		from := 0
		if i > 0 {
			from = sp.ends[i-1]
		}
		// As many rows as the frame has room for, at least one.
		last := i + 1
		for last < len(sp.ends) && s.fits(sp.ends[last]-from) {
			last++
		}
		if !s.add(se, sp.rows[from:sp.ends[last-1]], last-i) {
			return false
		}
		se.carry(sub, uint64(last-i))
		i = last
	}
	if sub.cursor < head {
		return s.emitFromRing(g, sub, t, head)
	}
	return true
}

// fits tells whether so many bytes more fit the frame being assembled.
func (s *Shard) fits(n int) bool {
	used := len(s.frame)
	if s.rows == 0 {
		used = headerRoom
	}
	return used+n+frameTail <= headerRoom+s.opts.FrameMax
}

// frameTail is room for what a dialect ends a frame with, and begins it.
const frameTail = 96

// add puts spelled rows into the frame being assembled, sending it first if
// they do not fit. It returns false if nothing more may be added now; the rows
// were not added then.
func (s *Shard) add(se *Session, row []byte, rows int) bool {
	if s.rows > 0 && !s.fits(len(row)) && (!s.send(se) || s.visited >= visitBytesMax || !se.conn.Ready()) {
		return false
	}
	if s.rows == 0 {
		se.frameNo++
		s.frame = se.dialect.BeginFrame(s.frame[:headerRoom], se.frameNo, s.now.UnixNano())
	}
	s.frame = append(s.frame, row...)
	s.rows += rows
	return true
}

// send sends the frame that has been assembled, if any, and tells whether the
// kernel took all of it.
func (s *Shard) send(se *Session) bool {
	if s.rows == 0 {
		return true
	}
	s.frame = se.dialect.EndFrame(s.frame, headerRoom, s.rows)
	carried := se.inFrame
	s.stats.live.Rows += uint64(s.rows)
	s.rows, se.inFrame = 0, 0
	whole, err := se.conn.WriteFrame(s.frame)
	if err != nil {
		se.afloat += carried
		s.end(se, codec.CloseGone)
		return false
	}
	s.stats.live.Frames++
	s.stats.live.Bytes += uint64(len(s.frame) - headerRoom)
	s.visited += len(s.frame)
	if !whole {
		se.afloat += carried
		return false
	}
	s.stats.live.Ledger.Delivered += carried
	return true
}
