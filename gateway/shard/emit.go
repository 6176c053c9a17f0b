package shard

import (
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
	se.rescan = true
	for _, sub := range se.touched {
		sub.touched = false
	}
	se.touched = se.touched[:0]
	se.isOwing = true
	se.owingWait = min(max(2*se.owingWait, owingMin), owingMax)
	se.owingAt = s.now.Add(se.owingWait)
	s.owing.push(se)
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
		for _, sub := range se.touched {
			sub.touched = false
		}
		se.touched = se.touched[:0]
		for _, sub := range se.subs {
			if !s.emit(se, sub) {
				return false
			}
		}
		se.rescan = false
		return true
	}
	touched := se.touched
	for _, sub := range touched {
		sub.touched = false
	}
	se.touched = se.touched[:0]
	for _, sub := range touched {
		if !s.emit(se, sub) {
			se.rescan = true
			return false
		}
	}
	return true
}

// emitWork answers the command in work.
func (s *Shard) emitWork(se *Session) bool {
	w := se.work
	for ; w.at < len(w.items); w.at++ {
		it := &w.items[w.at]
		if it.sub != nil {
			if !s.emit(se, it.sub) {
				return false
			}
			continue
		}
		e := codec.Event{Type: it.kind, Ref: w.ref, Channel: w.channel, Symbol: it.name, Count: it.n}
		switch it.why {
		case refusedName:
			e.Code, e.Why, e.Want = "bad-symbol", "not a symbol", "[A-Z0-9._-]{1,32}, or a beginning of one and *"
		case refusedMany:
			e.Code, e.Why, e.Want = "too-many-symbols", "this session has as many symbols as it may", "unsubscribe some"
		}
		if it.kind != 0 && !s.event(se, &e) {
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
// false if it had to stop; it goes on from where the cursor stands then.
func (s *Shard) emit(se *Session, sub *subscription) bool {
	t := sub.topic
	v := &t.view
	c := sub.terms.channel
	if v.State.Seq == 0 {
		if !sub.waited && !s.event(se, &codec.Event{Type: codec.EventWaiting, Ref: sub.ref, Channel: c, Symbol: t.Symbol}) {
			return false
		}
		sub.waited = true
		return true
	}
	if sub.from != nil && v.Loaded {
		sub.resume()
	}
	if !sub.granted {
		if !s.event(se, &codec.Event{Type: codec.EventGranted, Ref: sub.ref, Channel: c, ID: t.ID, Symbol: t.Symbol,
			Epoch: v.State.Epoch, Seq: v.State.Seq, Every: sub.terms.every, View: sub.terms.view}) {
			return false
		}
		sub.granted = true
		if !sub.snapshot && sub.epoch == 0 {
			sub.epoch = v.State.Epoch
		}
	}
	if sub.standing != v.Standing.Version {
		if !s.event(se, &codec.Event{Type: codec.EventState, Channel: c, ID: t.ID, Symbol: t.Symbol,
			State: v.Standing.State, Since: v.Standing.Since, Why: v.Standing.Why}) {
			return false
		}
		sub.standing = v.Standing.Version
	}
	if !v.Loaded && !sub.first {
		return true
	}
	if sub.epoch != v.State.Epoch && sub.epoch != 0 {
		if !s.event(se, &codec.Event{Type: codec.EventReset, Channel: c, ID: t.ID, Symbol: t.Symbol, Epoch: v.State.Epoch}) {
			return false
		}
	}
	if sub.behind {
		if !s.event(se, &codec.Event{Type: codec.EventBehind, Channel: c, ID: t.ID, Symbol: t.Symbol, Epoch: v.State.Epoch, Seq: v.State.Seq}) {
			return false
		}
		sub.behind = false
	}
	if sub.lost {
		if !s.event(se, &codec.Event{Type: codec.EventState, Channel: c, ID: t.ID, Symbol: t.Symbol, State: codec.StateGap,
			Since: s.now.UnixNano(), Why: "some trades since then have left this node's ring"}) {
			return false
		}
		sub.lost = false
	}
	if sub.snapshot {
		s.scratch = se.dialect.AppendSnapshot(s.scratch[:0], c, sub.terms.view, t.ID, t.Symbol, &v.State)
		if !s.add(se, s.scratch, 1) {
			return false
		}
		sub.snapshot = false
		sub.snapshots++
		s.stats.live.Ledger.Snapshots++
		if sub.epoch == 0 || c != codec.ChannelTrades { // else the ring serves from the cursor
			sub.cursor = v.Heads.Of(c)
			if sub.epoch == 0 {
				sub.start = sub.cursor
			}
		}
	}
	sub.epoch = v.State.Epoch
	if c == codec.ChannelTrades {
		return s.emitTrades(se, sub)
	}
	head := v.Heads.Of(c)
	if sub.cursor == head {
		return true
	}
	if sub.first && sub.delivered == 0 && sub.snapshots == 0 {
		// It stands for no others: a client cannot tell how many came before
		// the first that it is sent, so none of them was offered.
		sub.cursor, sub.start = head-1, head-1
	}
	row := s.stateRow(se, sub, head)
	if !s.add(se, row, 1) {
		return false
	}
	sub.delivered++
	se.inFrame++
	merged := head - sub.cursor - 1
	sub.merged += merged
	s.stats.live.Ledger.Merged += merged
	sub.cursor = head
	return true
}

// spell finds or makes the place of a topic's spelling; nil if it has too many.
func (t *topic) spell(dialect int, c codec.Channel, v codec.View) *spelling {
	for i := range t.spellings {
		if sp := &t.spellings[i]; sp.dialect == dialect && sp.channel == c && sp.view == v {
			return sp
		}
	}
	if len(t.spellings) >= spellingsMax {
		return nil
	}
	t.spellings = append(t.spellings, spelling{dialect: dialect, channel: c, view: v})
	return &t.spellings[len(t.spellings)-1]
}

// stateRow is the ticker or quotes row of now, spelled once for all.
func (s *Shard) stateRow(se *Session, sub *subscription, head uint64) []byte {
	t, tr := sub.topic, &sub.terms
	sp := t.spell(se.dialectNo, tr.channel, tr.view)
	if sp == nil {
		s.scratch = se.dialect.AppendState(s.scratch[:0], tr.channel, tr.view, t.ID, t.Symbol, &t.view.State)
		return s.scratch
	}
	if !sp.valid || sp.head != head {
		sp.row = se.dialect.AppendState(sp.row[:0], tr.channel, tr.view, t.ID, t.Symbol, &t.view.State)
		sp.head, sp.valid = head, true
	}
	return sp.row
}

// emitTrades adds the trades from the cursor to the head.
func (s *Shard) emitTrades(se *Session, sub *subscription) bool {
	t, tr := sub.topic, &sub.terms
	head := t.view.Heads.Trades
	if sub.cursor == head {
		return true
	}
	if !tr.minSize.IsSet() {
		if sp := t.spell(se.dialectNo, tr.channel, tr.view); sp != nil && s.spellTrades(se, sp, t, tr, sub.cursor, head) {
			return s.emitSpelled(se, sub, sp, head)
		}
	}
	return s.emitFromRing(se, sub, head)
}

// emitFromRing serves a client that is further back than what is kept spelled,
// or that wants not all trades.
func (s *Shard) emitFromRing(se *Session, sub *subscription, head uint64) bool {
	t, tr := sub.topic, &sub.terms
	for sub.cursor < head {
		n, first := t.Trades(s.entries[:], sub.cursor, head)
		if first > sub.cursor && !s.dropped(se, sub, min(first, head)) {
			return false
		}
		for i := range n {
			e := &s.entries[i]
			if tr.minSize.IsSet() && e.Kind == codec.KindTrade && e.Trade.Size.Cmp(tr.minSize) < 0 {
				sub.filtered++
				s.stats.live.Ledger.Filtered++
				sub.cursor++
				continue
			}
			s.scratch = se.dialect.AppendTrade(s.scratch[:0], tr.view, t.ID, t.Symbol, e)
			if !s.add(se, s.scratch, 1) {
				return false
			}
			sub.delivered++
			se.inFrame++
			sub.cursor++
		}
	}
	return true
}

// dropped tells a client how many trades the ring no longer holds for it.
func (s *Shard) dropped(se *Session, sub *subscription, to uint64) bool {
	lost := to - sub.cursor
	t := sub.topic
	if !s.event(se, &codec.Event{Type: codec.EventDrop, Channel: sub.terms.channel, ID: t.ID, Symbol: t.Symbol, Count: lost}) {
		return false
	}
	sub.dropped += lost
	s.stats.live.Ledger.Dropped += lost
	sub.cursor = to
	return true
}

// spellTrades brings a kept spelling up to head if it can hold the trades from
// cursor on; false if the client must be served from the ring.
func (s *Shard) spellTrades(se *Session, sp *spelling, t *topic, tr *terms, cursor, head uint64) bool {
	end := sp.base + uint64(len(sp.ends))
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
			sp.rows = se.dialect.AppendTrade(sp.rows, tr.view, t.ID, t.Symbol, &s.entries[i])
			sp.ends = append(sp.ends, len(sp.rows))
		}
		end += uint64(n)
	}
	return end > cursor
}

// emitSpelled adds spelled trades from the cursor on.
func (s *Shard) emitSpelled(se *Session, sub *subscription, sp *spelling, head uint64) bool {
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
		n := uint64(last - i)
		sub.delivered += n
		se.inFrame += n
		sub.cursor += n
		i = last
	}
	if sub.cursor < head {
		return s.emitFromRing(se, sub, head)
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
