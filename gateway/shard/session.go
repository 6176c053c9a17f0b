package shard

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"tickgate/codec"
	"tickgate/gateway/board"
	"tickgate/gateway/socket"
)

// SessionOptions bound one session.
type SessionOptions struct {
	// SymbolsMax bounds its subscriptions, patterns and waiting names
	// together; 0: no bound. Until a set is complete there may be as many
	// besides: those of its channel that it is about to end.
	SymbolsMax int
}

// Session is one client at its shard. Its exported methods are for other
// goroutines; its fields are the shard's.
type Session struct {
	// Fixed.
	shard   *Shard
	conn    Conn
	dialect codec.Dialect
	opts    SessionOptions
	phase   int

	// Owned by Shard.Run.
	ended   bool
	listed  bool    // to be visited in this round
	rescan  bool    // look at every subscription
	setting [4]bool // by channel: a set is being put together
	frameNo uint64
	n       int      // subscriptions, in all groups
	spare   int      // while a part of a set is carried out: what of its channel is not named yet
	groups  []*group // each has subscriptions
	scanAt  int      // of all subscriptions: where a rescan that was cut off goes on
	hopes   map[hopeKey]hope
	hopeFor [4]uint64           // by channel: which keys hopes may have, a bit a pattern's length and hopeNames
	hopeNo  uint64              // of the last
	late    map[lateKey]lateAsk // of those flagged late
	work    *work
	events  []codec.Event // to be told; at most tellMax

	isOwing    bool
	owingIndex int // in Shard.owing
	owingAt    time.Time
	owingWait  time.Duration

	// The ledger. Offered is the sum of all heads, at the end of those that
	// have ended, less the sum of where they began.
	counts  codec.Ledger // Delivered, Merged, Filtered, Dropped, Snapshots, of all time
	starts  uint64       // modulo 2^64
	heads   uint64       // of those that have ended, modulo 2^64
	inFrame uint64       // ticks carried by the frame being assembled
	afloat  uint64       // ticks carried by a frame that the kernel has not taken whole
}

// lateKey names a subscription that is flagged late: one that could not be
// served when it was asked for.
type lateKey struct {
	topic   uint32
	channel codec.Channel
}

// lateAsk is what the client asked for when it subscribed.
type lateAsk struct {
	ref     uint64
	hasFrom bool // where to go on from, once the topic is loaded
	epoch   int64
	seq     uint64
}

// work is a subscribe or a set that is being answered.
type work struct {
	ref     uint64
	channel codec.Channel
	items   []workItem
	at      int
	done    chan struct{}
}

// workItem is one symbol's answer: its subscription, or why there is none.
type workItem struct {
	topic uint32 // if kind is eventSubscription
	kind  codec.EventType
	name  string
	why   refusal
	n     uint64
}

// These are no events: the item is what its subscription is owed, or nothing.
const (
	eventSubscription codec.EventType = 0
	eventNothing      codec.EventType = 255 // it has ended meanwhile
)

// refusal is why a symbol was refused.
type refusal uint8

const (
	refusedName refusal = 1 + iota
	refusedMany
	refusedTerms
)

// Attach makes conn a session of this shard.
func (s *Shard) Attach(conn Conn, d codec.Dialect, opts SessionOptions) (*Session, error) {
	se := &Session{shard: s, conn: conn, dialect: d, opts: opts}
	select {
	case <-s.ended:
		return nil, ErrEnded
	case s.mailbox <- func() { s.attach(se) }:
		return se, nil
	}
}

func (s *Shard) attach(se *Session) {
	se.phase = len(s.sessions) % phases
	s.sessions[se] = struct{}{}
}

// Do has the shard carry out a command, and returns when its answer, snapshots
// and all, is on its way: one command of a session is in work at a time.
func (se *Session) Do(ctx context.Context, c *codec.Command) error {
	done := make(chan struct{})
	select {
	case se.shard.mailbox <- func() { se.shard.carryOut(se, c, done) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-se.shard.ended:
		return ErrEnded
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-se.shard.ended:
		return ErrEnded
	}
}

// Tell has the client told an event soon. It is lost, and counted, if too many
// wait already.
func (se *Session) Tell(e codec.Event) {
	se.shard.post(func() { se.shard.tell(se, e) })
}

// Retry tells that the session's socket may take again: it is tried now, and not
// when its time comes. It never waits; at worst nothing comes of it.
func (se *Session) Retry() {
	select {
	case se.shard.mailbox <- func() { se.shard.retry(se) }:
	default:
	}
}

// Detach ends the session; its connection has ended for reason.
func (se *Session) Detach(reason codec.CloseReason) {
	se.shard.post(func() { se.shard.end(se, reason) })
}

func (s *Shard) tell(se *Session, e codec.Event) {
	if se.ended {
		return
	}
	if len(se.events) >= tellMax {
		s.stats.live.EventsLost++
		return
	}
	se.events = append(se.events, e)
	s.list(se)
}

// carryOut begins a command; done is closed when it is answered.
func (s *Shard) carryOut(se *Session, c *codec.Command, done chan struct{}) {
	if se.ended {
		close(done)
		return
	}
	switch c.Op {
	case codec.OpSubscribe, codec.OpSet:
		if c.Deadband.IsSet() || c.SilenceMax > 0 { // better no than a filter that is none
			s.tell(se, codec.Event{Type: codec.EventError, Ref: c.Ref, Code: "not-supported", Why: "this gateway does not filter by deadband yet",
				Where: "deadband, silence", Want: "min_size, or every"})
			break
		}
		s.subscribe(se, c, done)
		s.list(se)
		return
	case codec.OpUnsubscribe:
		s.tell(se, codec.Event{Type: codec.EventUnsubscribed, Ref: c.Ref, Channel: c.Channel, Count: se.unsubscribe(s, c)})
	case codec.OpLedger:
		s.watcher.Take(s.changed)
		s.tell(se, codec.Event{Type: codec.EventLedger, Ref: c.Ref, Ledger: s.ledger(se)})
	case codec.OpPing:
		s.tell(se, codec.Event{Type: codec.EventPong, Ref: c.Ref})
	case codec.OpAuth:
		s.tell(se, codec.Event{Type: codec.EventError, Ref: c.Ref, Code: "no-auth", Why: "this gateway asks for no token"})
	}
	close(done)
}

// subscribe makes or changes subscriptions and lays out the answer.
func (s *Shard) subscribe(se *Session, c *codec.Command, done chan struct{}) {
	t := terms{channel: c.Channel, view: c.View, every: cadence(c.Every), minSize: c.MinSize}
	if t.view == 0 {
		t.view = codec.DefaultView(c.Channel)
	}
	w := &work{ref: c.Ref, channel: c.Channel, done: done}
	s.meetNewTopics() // so that a topic is either seen or hoped for, never both
	if setting := &se.setting[c.Channel&3]; c.Op == codec.OpSet && !*setting {
		*setting = true
		for _, g := range se.groups {
			for i := range g.subs {
				if g.terms.channel == c.Channel {
					g.subs[i].flags &^= named
				}
			}
		}
		for k, h := range se.hopes {
			if k.channel == c.Channel {
				h.named = false
				se.hopes[k] = h
			}
		}
	}
	if se.setting[c.Channel&3] {
		se.spare = se.unnamed(c.Channel)
	}
	g := s.groupOf(se, t)
	s.stampNo++
	var wanted prefixes
	refuse := func(name string, why refusal) {
		w.items = append(w.items, workItem{kind: codec.EventRefused, name: name, why: why})
	}
	for it := range c.Symbols.All() {
		prefix, wild := bytes.CutSuffix(it.Name, []byte("*"))
		switch {
		case !codec.ValidSymbol(prefix) && (!wild || len(prefix) > 0):
			refuse(string(it.Name), refusedName)
		case g == nil:
			refuse(string(it.Name), refusedTerms)
		case wild:
			ok, again := se.hope(s, hopeKey{string(prefix), true, t.channel}, hope{terms: t, ask: lateAsk{ref: c.Ref}})
			if !ok {
				refuse(string(it.Name), refusedMany)
			} else if !again {
				wanted.add(string(prefix))
			}
		default:
			if bt := s.board.Lookup(string(it.Name)); bt != nil && int(bt.ID) < s.seen {
				s.take(g, w, bt, it)
				continue
			}
			name := string(it.Name)
			ask := lateAsk{ref: c.Ref, hasFrom: it.HasFrom, epoch: it.Epoch, seq: it.Seq}
			if ok, _ := se.hope(s, hopeKey{name, false, t.channel}, hope{terms: t, ask: ask}); !ok {
				refuse(name, refusedMany)
				continue
			}
			w.items = append(w.items, workItem{kind: codec.EventWaiting, name: name})
		}
	}
	if g != nil {
		if len(wanted.set) > 0 {
			for _, bt := range s.board.Topics()[:s.seen] { // the others are met later, by the hope
				if wanted.match(bt.Symbol) {
					s.take(g, w, bt, codec.SymbolItem{})
				}
			}
		}
		s.gather(g)
	}
	se.spare = 0
	if c.Op == codec.OpSet && !c.More {
		w.items = append(w.items, workItem{kind: codec.EventUnsubscribed, n: se.keepNamed(s, c.Channel)})
		se.setting[c.Channel&3] = false
	}
	s.tidy(se)
	if se.work != nil { // its Do was given up; the answer is told all the same
		w.items = append(se.work.items[se.work.at:], w.items...)
		close(se.work.done)
	}
	se.work = w
}

// take subscribes the group's session to a topic, or has a subscription to it
// come to the group, and adds the answer to w. What it takes is in the group
// once gather is called.
func (s *Shard) take(g *group, w *work, bt *board.Topic, from codec.SymbolItem) {
	se := g.session
	for int(bt.ID) >= len(s.stamps) {
		s.stamps = append(s.stamps, 0)
	}
	if s.stamps[bt.ID] == s.stampNo {
		return // named twice
	}
	old, at := se.find(g.terms.channel, bt.ID)
	toName := old != nil && se.setting[g.terms.channel&3] && old.subs[at].flags&named == 0
	if (old == nil || toName) && se.full() {
		w.items = append(w.items, workItem{kind: codec.EventRefused, name: bt.Symbol, why: refusedMany})
		return
	}
	s.stamps[bt.ID] = s.stampNo
	if toName {
		se.spare--
	}
	var sub *subscription
	switch {
	case old == nil:
		t := s.enter(se, bt, g.terms.channel)
		s.fresh = append(s.fresh, subscription{topic: bt.ID})
		sub = &s.fresh[len(s.fresh)-1]
		se.begin(sub, t.head(g.terms.channel))
		if !t.loaded || t.view.State.Seq != 0 {
			sub.flags |= snapshot
		}
	case old == g:
		sub = &old.subs[at]
	default: // its cursor stays
		s.fresh = append(s.fresh, old.subs[at])
		sub = &s.fresh[len(s.fresh)-1]
		old.subs[at].flags |= leaving
		s.moved = true
		s.unfollow(old, s.topics[bt.ID])
	}
	sub.flags &^= granted | waited // this command is answered, too
	if key := (lateKey{bt.ID, g.terms.channel}); sub.flags&late != 0 {
		ask := se.late[key]
		ask.ref = w.ref
		se.late[key] = ask
	}
	if se.setting[g.terms.channel&3] {
		sub.flags |= named
	}
	if from.HasFrom && sub.epoch == 0 && sub.flags&served == 0 { // nothing has been sent of it: not too late
		sub.flags = sub.flags&^first | snapshot
		se.remember(g, sub, lateAsk{ref: w.ref, hasFrom: true, epoch: from.Epoch, seq: from.Seq})
	}
	w.items = append(w.items, workItem{kind: eventSubscription, topic: bt.ID})
}

// remember keeps what was asked until it can be answered.
func (se *Session) remember(g *group, sub *subscription, ask lateAsk) {
	if se.late == nil {
		se.late = make(map[lateKey]lateAsk)
	}
	se.late[lateKey{sub.topic, g.terms.channel}] = ask
	sub.flags |= late
}

// forget is the end of remember.
func (se *Session) forget(g *group, sub *subscription) {
	delete(se.late, lateKey{sub.topic, g.terms.channel})
	sub.flags &^= late
	if len(se.late) == 0 {
		se.late = nil
	}
}

// gather puts what take took into the group.
func (s *Shard) gather(g *group) {
	if s.moved {
		for _, old := range g.session.groups {
			if slices.ContainsFunc(old.subs, func(sub subscription) bool { return sub.flags&leaving != 0 }) {
				old.sweep()
			}
		}
		s.moved = false
	}
	slices.SortFunc(s.fresh, func(a, b subscription) int { return cmp.Compare(a.topic, b.topic) })
	g.merge(s.fresh)
	for i := range s.fresh {
		s.follow(g, s.topics[s.fresh[i].topic])
	}
	s.fresh = s.fresh[:0]
	if cap(s.fresh) > freshKept {
		s.fresh = nil
	}
}

// find is where a session's subscription stands; nil if there is none.
func (se *Session) find(c codec.Channel, topic uint32) (*group, int) {
	for _, g := range se.groups {
		if g.terms.channel == c {
			if at := g.find(topic); at >= 0 {
				return g, at
			}
		}
	}
	return nil, 0
}

// full tells whether there is no room for more. What a set has not named yet
// takes none: it goes when the set is complete, or is named and takes it then.
func (se *Session) full() bool {
	return se.opts.SymbolsMax > 0 && se.n+len(se.hopes)-se.spare >= se.opts.SymbolsMax
}

// unnamed is how many of a channel the set that is being put together has not
// named.
func (se *Session) unnamed(c codec.Channel) (n int) {
	for _, g := range se.groups {
		for i := range g.subs {
			if g.terms.channel == c && g.subs[i].flags&named == 0 {
				n++
			}
		}
	}
	for k, h := range se.hopes {
		if k.channel == c && !h.named {
			n++
		}
	}
	return n
}

// enter counts one subscription more to a topic.
func (s *Shard) enter(se *Session, bt *board.Topic, c codec.Channel) *topic {
	se.n++
	s.stats.live.Subscriptions++
	t := s.hold(bt, c)
	s.stats.live.Ledger.Offered += t.head(c) // less where its cursor begins: begin
	return t
}

// drop accounts for a subscription that ends, and marks it for the sweep.
func (s *Shard) drop(g *group, sub *subscription) {
	se, t := g.session, s.topics[sub.topic]
	sub.flags |= leaving
	s.unfollow(g, t)
	head := t.head(g.terms.channel)
	se.heads += head
	se.counts.Dropped += head - sub.cursor
	s.stats.live.Ledger.Dropped += head - sub.cursor
	if sub.flags&late != 0 {
		se.forget(g, sub)
	}
	if w := se.work; w != nil && w.channel == g.terms.channel {
		for i := w.at; i < len(w.items); i++ {
			if it := &w.items[i]; it.kind == eventSubscription && it.topic == sub.topic {
				it.kind = eventNothing
			}
		}
	}
	se.n--
	s.stats.live.Subscriptions--
	s.release(t, g.terms.channel)
}

// dropAll ends those subscriptions of a session that are chosen, and tells how
// many they were.
func (s *Shard) dropAll(se *Session, chosen func(*group, *subscription) bool) (n uint64) {
	for _, g := range se.groups {
		before := n
		for i := range g.subs {
			if sub := &g.subs[i]; chosen(g, sub) {
				s.drop(g, sub)
				n++
			}
		}
		if n != before {
			g.sweep()
		}
	}
	s.tidy(se)
	return n
}

// rescanAll has every subscription looked at in the next visit.
func (se *Session) rescanAll() {
	for _, g := range se.groups {
		if len(g.touched) > 0 {
			se.rescan = true
			g.touched = g.touched[:0]
		}
	}
}

// resume moves the cursor to where the client says it stands. The topic is
// loaded: before that its ring does not tell what the client has missed.
func (se *Session) resume(g *group, sub *subscription, t *topic, from *lateAsk) {
	v := &t.view
	se.begin(sub, t.head(g.terms.channel))
	switch {
	case from.epoch < v.State.Epoch:
		sub.epoch = otherEpoch // emit tells the reset
	case from.epoch > v.State.Epoch || from.seq > v.State.Seq:
		sub.flags |= behind
	case from.seq == v.State.Seq:
		sub.flags &^= snapshot
		sub.epoch = t.epoch
	case g.terms.channel == codec.ChannelTrades:
		cursor, whole := t.Resume(from.epoch, from.seq, t.head(codec.ChannelTrades))
		se.begin(sub, cursor)
		sub.epoch = t.epoch
		sub.flags &^= snapshot
		if !whole { // what the ring has of it follows all the same
			sub.flags |= lost
		}
	}
}

// begin puts the cursor of a subscription that has been sent nothing where it
// begins.
func (se *Session) begin(sub *subscription, cursor uint64) {
	se.starts += cursor - sub.cursor
	se.shard.stats.live.Ledger.Offered -= cursor - sub.cursor
	sub.cursor = cursor
}

// unsubscribe ends subscriptions and hopes by name or pattern.
func (se *Session) unsubscribe(s *Shard, c *codec.Command) (n uint64) {
	var unwanted prefixes
	for it := range c.Symbols.All() {
		if prefix, wild := bytes.CutSuffix(it.Name, []byte("*")); wild {
			unwanted.add(string(prefix))
			continue
		}
		delete(se.hopes, hopeKey{string(it.Name), false, c.Channel})
		if bt := s.board.Lookup(string(it.Name)); bt != nil {
			if g, at := se.find(c.Channel, bt.ID); g != nil && g.subs[at].flags&leaving == 0 {
				s.drop(g, &g.subs[at])
				n++
			}
		}
	}
	if len(unwanted.set) > 0 {
		se.forgo(s, func(k hopeKey, _ hope) bool { return k.channel == c.Channel && unwanted.match(k.name) })
		for _, g := range se.groups {
			for i := range g.subs {
				if sub := &g.subs[i]; g.terms.channel == c.Channel && sub.flags&leaving == 0 && unwanted.match(s.symbol(sub)) {
					s.drop(g, sub)
					n++
				}
			}
		}
	}
	if n > 0 {
		for _, g := range se.groups {
			if g.terms.channel == c.Channel {
				g.sweep()
			}
		}
		s.tidy(se)
	}
	se.hopeless(s)
	return n
}

// symbol is what the subscription's topic is called.
func (s *Shard) symbol(sub *subscription) string { return s.board.Topics()[sub.topic].Symbol }

// keepNamed ends what of its channel a set did not name.
func (se *Session) keepNamed(s *Shard, c codec.Channel) (n uint64) {
	se.forgo(s, func(k hopeKey, h hope) bool { return k.channel == c && !h.named })
	return s.dropAll(se, func(g *group, sub *subscription) bool { return g.terms.channel == c && sub.flags&named == 0 })
}

// end ends a session for good.
func (s *Shard) end(se *Session, reason codec.CloseReason) {
	if se.ended {
		return
	}
	se.ended = true
	se.conn.Close(reason)
	if se.work != nil { // before what it is about: nobody looks for what ends in its items
		close(se.work.done)
		se.work = nil
	}
	s.dropAll(se, func(*group, *subscription) bool { return true })
	se.counts.Dropped += se.afloat
	se.counts.Delivered -= se.afloat
	s.stats.live.Ledger.Dropped += se.afloat
	se.afloat = 0
	s.closedLedger.Add(s.ledger(se))
	se.events, se.hopes = nil, nil
	delete(s.sessions, se)
	delete(s.hoping, se)
}

// ledger accounts for all that was offered to the session.
func (s *Shard) ledger(se *Session) codec.Ledger {
	l := se.counts
	l.Offered = se.heads - se.starts
	for _, g := range se.groups {
		for i := range g.subs {
			sub := &g.subs[i]
			head := s.topics[sub.topic].head(g.terms.channel)
			l.Offered += head
			l.Pending += head - sub.cursor
		}
	}
	l.Delivered -= se.afloat
	l.Pending += se.afloat
	return l
}

const headerRoom = socket.HeaderRoom
