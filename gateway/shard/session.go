package shard

import (
	"bytes"
	"context"
	"strings"
	"time"

	"tickgate/codec"
	"tickgate/gateway/board"
	"tickgate/gateway/socket"
)

// SessionOptions bound one session.
type SessionOptions struct {
	// SymbolsMax bounds its subscriptions, patterns and waiting names
	// together; 0: no bound.
	SymbolsMax int
}

// Session is one client at its shard. Its exported methods are for other
// goroutines; its fields are the shard's.
type Session struct {
	// Fixed.
	shard     *Shard
	conn      Conn
	dialect   codec.Dialect
	dialectNo int // among the shard's
	opts      SessionOptions
	phase     int

	// Owned by Shard.Run.
	ended   bool
	frameNo uint64
	subs    map[subscriptionKey]*subscription
	groups  []*group
	touched []*subscription // have something to send; each once
	listed  bool            // to be visited in this round
	rescan  bool            // a visit was cut off: look at every subscription
	hopes   []hope
	work    *work
	events  []codec.Event // to be told; at most tellMax
	setNo   uint64        // the set that is being put together, 0 if none
	sets    uint64

	isOwing   bool
	owingAt   time.Time
	owingWait time.Duration

	inFrame uint64 // ticks carried by the frame being assembled
	afloat  uint64 // ticks carried by a frame that the kernel has not taken whole
	gone    codec.Ledger
}

// subscriptionKey is what a session has at most one subscription of.
type subscriptionKey struct {
	topic   uint32
	channel codec.Channel
}

// subscription is a topic and a cursor.
type subscription struct {
	session *Session
	topic   *topic
	group   *group // nil: unconflated
	terms   terms

	cursor   uint64 // where this client stands on its channel
	start    uint64 // where it began
	epoch    int64  // told last; 0: none yet
	standing uint64 // version told last

	granted  bool              // the client knows the terms, and the epoch
	waited   bool              // the client knows that there is no tick yet
	snapshot bool              // owed a snapshot before anything else
	first    bool              // came with its topic: served from its first tick
	behind   bool              // the client has seen more than this node
	lost     bool              // resumed from a point that the ring no longer holds
	from     *codec.SymbolItem // where to go on from, once the topic is loaded
	touched  bool
	ref      uint64

	delivered, merged, filtered, dropped, snapshots uint64
	setNo                                           uint64
}

// terms are what a client asked for.
type terms struct {
	channel codec.Channel
	view    codec.View
	every   time.Duration
	minSize codec.Decimal
}

// hope is a name that has not traded, or a pattern that new names may match.
type hope struct {
	name  string // without the star
	wild  bool
	terms terms
	ref   uint64
	setNo uint64
}

func (h *hope) matches(symbol string) bool {
	if h.wild {
		return strings.HasPrefix(symbol, h.name)
	}
	return symbol == h.name
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
	sub  *subscription
	kind codec.EventType // if sub is nil: EventWaiting, EventRefused, EventUnsubscribed
	name string
	why  refusal
	n    uint64
}

// refusal is why a symbol was refused.
type refusal uint8

const (
	refusedName refusal = 1 + iota
	refusedMany
)

// Attach makes conn a session of this shard.
func (s *Shard) Attach(conn Conn, d codec.Dialect, opts SessionOptions) (*Session, error) {
	se := &Session{shard: s, conn: conn, dialect: d, opts: opts, subs: make(map[subscriptionKey]*subscription)}
	select {
	case <-s.ended:
		return nil, ErrEnded
	case s.mailbox <- func() { s.attach(se) }:
		return se, nil
	}
}

func (s *Shard) attach(se *Session) {
	se.dialectNo = s.dialectNo(se.dialect)
	se.phase = len(s.sessions) % phases
	s.sessions[se] = struct{}{}
}

func (s *Shard) dialectNo(d codec.Dialect) int {
	for i, have := range s.dialects {
		if have == d {
			return i
		}
	}
	s.dialects = append(s.dialects, d)
	return len(s.dialects) - 1
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
		s.tell(se, codec.Event{Type: codec.EventLedger, Ref: c.Ref, Ledger: se.ledger()})
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
	if c.Op == codec.OpSet && se.setNo == 0 {
		se.sets++
		se.setNo = se.sets
	}
	for it := range c.Symbols.All() {
		if prefix, wild := bytes.CutSuffix(it.Name, []byte("*")); wild {
			if len(prefix) > 0 && !codec.ValidSymbol(prefix) {
				w.items = append(w.items, workItem{kind: codec.EventRefused, name: string(it.Name), why: refusedName})
				continue
			}
			if !se.hope(s, hope{name: string(prefix), wild: true, terms: t, ref: c.Ref, setNo: se.setNo}) {
				w.items = append(w.items, workItem{kind: codec.EventRefused, name: string(it.Name), why: refusedMany})
				continue
			}
			for _, bt := range s.board.Topics()[:s.seen] { // the others are met later, by the hope
				if strings.HasPrefix(bt.Symbol, string(prefix)) {
					se.take(s, w, bt, t, codec.SymbolItem{})
				}
			}
			continue
		}
		if !codec.ValidSymbol(it.Name) {
			w.items = append(w.items, workItem{kind: codec.EventRefused, name: string(it.Name), why: refusedName})
			continue
		}
		if bt := s.board.Lookup(string(it.Name)); bt != nil && int(bt.ID) < s.seen {
			se.take(s, w, bt, t, it)
			continue
		}
		name := string(it.Name)
		if !se.hope(s, hope{name: name, terms: t, ref: c.Ref, setNo: se.setNo}) {
			w.items = append(w.items, workItem{kind: codec.EventRefused, name: name, why: refusedMany})
			continue
		}
		w.items = append(w.items, workItem{kind: codec.EventWaiting, name: name})
	}
	if c.Op == codec.OpSet && !c.More {
		w.items = append(w.items, workItem{kind: codec.EventUnsubscribed, n: se.keepOnly(s, se.setNo)})
		se.setNo = 0
	}
	if se.work != nil { // its Do was given up; the answer is told all the same
		w.items = append(se.work.items[se.work.at:], w.items...)
		close(se.work.done)
	}
	se.work = w
}

// take subscribes to a topic and adds the answer to w.
func (se *Session) take(s *Shard, w *work, bt *board.Topic, t terms, from codec.SymbolItem) {
	key := subscriptionKey{bt.ID, t.channel}
	sub := se.subs[key]
	if sub == nil && se.full() {
		w.items = append(w.items, workItem{kind: codec.EventRefused, name: bt.Symbol, why: refusedMany})
		return
	}
	if sub == nil {
		sub = se.add(s, bt, t)
		v := &sub.topic.view
		sub.cursor = v.Heads.Of(t.channel)
		sub.snapshot = !v.Loaded || v.State.Seq != 0
		sub.start = sub.cursor
		if from.HasFrom {
			sub.from = &codec.SymbolItem{HasFrom: true, Epoch: from.Epoch, Seq: from.Seq}
		}
	} else {
		se.setTerms(s, sub, t)
	}
	sub.granted, sub.ref, sub.setNo = false, w.ref, se.setNo
	w.items = append(w.items, workItem{sub: sub})
}

func (se *Session) full() bool {
	return se.opts.SymbolsMax > 0 && len(se.subs)+len(se.hopes) >= se.opts.SymbolsMax
}

// add makes a subscription without a cursor.
func (se *Session) add(s *Shard, bt *board.Topic, t terms) *subscription {
	sub := &subscription{session: se, topic: s.hold(bt)}
	se.subs[subscriptionKey{bt.ID, t.channel}] = sub
	s.stats.live.Subscriptions++
	sub.terms = t
	se.join(s, sub)
	return sub
}

// setTerms changes what a subscription carries; its cursor stays.
func (se *Session) setTerms(s *Shard, sub *subscription, t terms) {
	se.leave(s, sub)
	sub.terms = t
	se.join(s, sub)
}

// join puts a subscription where its cadence is served.
func (se *Session) join(s *Shard, sub *subscription) {
	if sub.terms.every == 0 {
		if len(sub.topic.unconflated) == 0 {
			s.watcher.Prompt(sub.topic.Topic, true)
			s.changed(sub.topic.ID) // what was marked before shall not wait for a timer
		}
		sub.topic.unconflated = append(sub.topic.unconflated, sub)
		return
	}
	for _, g := range se.groups {
		if g.slot.period == sub.terms.every {
			sub.group = g
		}
	}
	if sub.group == nil {
		sub.group = &group{session: se, slot: s.slotOf(sub.terms.every, se.phase)}
		sub.group.slot.groups = append(sub.group.slot.groups, sub.group)
		se.groups = append(se.groups, sub.group)
	}
	g := sub.group
	g.ids = append(g.ids, sub.topic.ID)
	g.subs = append(g.subs, sub)
}

// leave is the inverse of join.
func (se *Session) leave(s *Shard, sub *subscription) {
	g := sub.group
	if g == nil {
		sub.topic.unconflated = remove(sub.topic.unconflated, sub)
		if len(sub.topic.unconflated) == 0 {
			s.watcher.Prompt(sub.topic.Topic, false)
		}
		return
	}
	sub.group = nil
	for i, have := range g.subs {
		if have == sub {
			last := len(g.subs) - 1
			g.subs[i], g.ids[i] = g.subs[last], g.ids[last]
			g.subs[last] = nil
			g.subs, g.ids = g.subs[:last], g.ids[:last]
			break
		}
	}
	if len(g.subs) == 0 {
		se.groups = remove(se.groups, g)
		g.slot.groups = remove(g.slot.groups, g)
		if len(g.slot.groups) == 0 {
			s.slots = remove(s.slots, g.slot)
		}
	}
}

// drop ends a subscription; its counts stay in the session's ledger.
func (se *Session) drop(s *Shard, key subscriptionKey, sub *subscription) {
	se.leave(s, sub)
	if sub.touched {
		se.touched = remove(se.touched, sub)
	}
	l := sub.ledger()
	l.Dropped += l.Pending
	s.stats.live.Ledger.Dropped += l.Pending
	l.Pending = 0
	se.gone.Add(l)
	delete(se.subs, key)
	s.stats.live.Subscriptions--
	s.release(sub.topic)
	if w := se.work; w != nil {
		for i := w.at; i < len(w.items); i++ {
			if w.items[i].sub == sub {
				w.items[i] = workItem{}
			}
		}
	}
}

// hope remembers a name or a pattern; one that is there already gets the new
// terms. It tells whether there was room.
func (se *Session) hope(s *Shard, h hope) bool {
	for i := range se.hopes {
		have := &se.hopes[i]
		if have.name == h.name && have.wild == h.wild && have.terms.channel == h.terms.channel {
			*have = h
			return true
		}
	}
	if se.full() {
		return false
	}
	se.hopes = append(se.hopes, h)
	s.hoping[se] = struct{}{}
	return true
}

// meet subscribes to a new topic if it was hoped for.
func (se *Session) meet(s *Shard, bt *board.Topic) {
	for i := 0; i < len(se.hopes); i++ {
		h := se.hopes[i]
		if !h.matches(bt.Symbol) {
			continue
		}
		if !h.wild {
			se.hopes = append(se.hopes[:i], se.hopes[i+1:]...)
			i--
		}
		if se.subs[subscriptionKey{bt.ID, h.terms.channel}] != nil || se.full() {
			continue
		}
		sub := se.add(s, bt, h.terms)
		sub.first, sub.waited, sub.ref, sub.setNo = true, true, h.ref, h.setNo
		sub.touched = true
		se.touched = append(se.touched, sub)
		s.list(se)
	}
	if len(se.hopes) == 0 {
		delete(s.hoping, se)
	}
}

// resume moves the cursor to where the client says it stands. The topic is
// loaded: before that its ring does not tell what the client has missed.
func (sub *subscription) resume() {
	from := sub.from
	sub.from = nil
	v := &sub.topic.view
	sub.cursor = v.Heads.Of(sub.terms.channel)
	sub.start = sub.cursor
	if from.Epoch != v.State.Epoch {
		sub.epoch = from.Epoch // emit tells the reset
		return
	}
	switch {
	case from.Seq > v.State.Seq:
		sub.behind = true
	case from.Seq == v.State.Seq:
		sub.snapshot, sub.epoch = false, from.Epoch
	case sub.terms.channel == codec.ChannelTrades:
		var whole bool
		sub.cursor, whole = sub.topic.Resume(from.Seq)
		sub.start = sub.cursor
		sub.epoch = from.Epoch
		sub.lost = !whole
		sub.snapshot = !whole
	}
}

// unsubscribe ends subscriptions and hopes by name or pattern.
func (se *Session) unsubscribe(s *Shard, c *codec.Command) (n uint64) {
	for it := range c.Symbols.All() {
		prefix, wild := bytes.CutSuffix(it.Name, []byte("*"))
		for i := 0; i < len(se.hopes); i++ {
			h := &se.hopes[i]
			if h.terms.channel == c.Channel && (h.name == string(prefix) && h.wild == wild || wild && strings.HasPrefix(h.name, string(prefix))) {
				se.hopes = append(se.hopes[:i], se.hopes[i+1:]...)
				i--
			}
		}
		if !wild {
			if bt := s.board.Lookup(string(it.Name)); bt != nil {
				key := subscriptionKey{bt.ID, c.Channel}
				if sub := se.subs[key]; sub != nil {
					se.drop(s, key, sub)
					n++
				}
			}
			continue
		}
		for key, sub := range se.subs {
			if key.channel == c.Channel && strings.HasPrefix(sub.topic.Symbol, string(prefix)) {
				se.drop(s, key, sub)
				n++
			}
		}
	}
	if len(se.hopes) == 0 {
		delete(s.hoping, se)
	}
	return n
}

// keepOnly ends what a set did not name.
func (se *Session) keepOnly(s *Shard, setNo uint64) (n uint64) {
	for i := 0; i < len(se.hopes); i++ {
		if se.hopes[i].setNo != setNo {
			se.hopes = append(se.hopes[:i], se.hopes[i+1:]...)
			i--
		}
	}
	for key, sub := range se.subs {
		if sub.setNo != setNo {
			se.drop(s, key, sub)
			n++
		}
	}
	if len(se.hopes) == 0 {
		delete(s.hoping, se)
	}
	return n
}

// end ends a session for good.
func (s *Shard) end(se *Session, reason codec.CloseReason) {
	if se.ended {
		return
	}
	se.ended = true
	se.conn.Close(reason)
	for key, sub := range se.subs {
		se.drop(s, key, sub)
	}
	se.gone.Dropped += se.afloat
	se.gone.Delivered -= se.afloat
	s.stats.live.Ledger.Dropped += se.afloat
	se.afloat = 0
	s.closedLedger.Add(se.gone)
	if se.work != nil {
		close(se.work.done)
		se.work = nil
	}
	se.events, se.hopes, se.touched = nil, nil, nil
	delete(s.sessions, se)
	delete(s.hoping, se)
}

// ledger accounts for all that was offered to the session.
func (se *Session) ledger() codec.Ledger {
	sum := se.gone
	for _, sub := range se.subs {
		sum.Add(sub.ledger())
	}
	sum.Delivered -= se.afloat
	sum.Pending += se.afloat
	return sum
}

func (sub *subscription) ledger() codec.Ledger {
	head := sub.topic.view.Heads.Of(sub.terms.channel)
	l := codec.Ledger{
		Offered:   head - sub.start,
		Delivered: sub.delivered,
		Merged:    sub.merged,
		Filtered:  sub.filtered,
		Dropped:   sub.dropped,
		Pending:   head - sub.cursor,
		Snapshots: sub.snapshots,
	}
	return l
}

const headerRoom = socket.HeaderRoom
