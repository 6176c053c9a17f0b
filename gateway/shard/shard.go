// Package shard moves the cursors of clients: it spells what has changed since
// a client's last frame, once for all clients that see the same, and hands
// frames to sockets.
//
// It knows the board, dialects and bytes; it knows nothing of HTTP, of TCP or
// of where ticks come from.
//
// A shard is one goroutine that owns its sessions, their cursors and its
// buffers, and takes no lock for them. Everything else reaches it through its
// mailbox or as a mark on the board. Nothing is queued for a client: a
// subscription is a topic and a cursor, and a client whose socket takes nothing
// is a cursor that moves later. Snapshot, conflation, drop and resume are one
// mechanism, in [Shard.emit].
//
// The subscriptions of a session on the same terms are a [group]: side by side,
// ordered by topic, so that what has changed is found by ANDing bitsets and a
// symbol costs a client 24 bytes, and 4 more where every change of it is wanted.
package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tickgate/codec"
	"tickgate/gateway/board"
	"tickgate/gateway/socket"
)

// Conn is a socket as a shard sees it: bytes only. gateway/socket fulfils it.
type Conn interface {
	// Ready tells whether a frame may be spelled for it: nothing is left over,
	// and unsent and unread bytes are within their bounds.
	Ready() bool
	// WriteFrame sends one frame whose payload is buf[socket.HeaderRoom:]. It
	// never blocks. whole tells whether the kernel took all of it now.
	WriteFrame(buf []byte) (whole bool, err error)
	// Flush tries what is left over again; done tells that nothing is.
	Flush() (done bool, err error)
	// Tick is called about once a second; a reason means: close it.
	Tick(now time.Time) codec.CloseReason
	// Close begins the close. It never blocks.
	Close(reason codec.CloseReason)
}

// Bounds of a shard.
const (
	// visitBytesMax is what one session is sent before it is the next one's
	// turn.
	visitBytesMax = 64 << 10

	// mailboxMax is how many commands may wait. Who sends one waits for it, so
	// it is the number of sessions whose readers can be ahead of the shard.
	mailboxMax = 1024

	// tellMax is how many events wait for a session that takes nothing; more
	// are lost and counted, for they answer what it sent while not reading.
	tellMax = 32

	// owingMin and owingMax are the times between two visits to a session that
	// takes nothing: 5 ms, doubling.
	owingMin = 5 * time.Millisecond
	owingMax = 250 * time.Millisecond

	// owingSpread is how many visits a time that long is divided into: those
	// due in the same part are made together.
	owingSpread = 8

	// tickPeriod is the time between two ticks of a socket; the sessions are
	// spread over tickParts of it.
	tickPeriod = time.Second
	tickParts  = 10

	// phases spread the sessions of one cadence over its period, as many as
	// keep phaseMin between them: each wakes the shard, which costs as much as
	// a frame.
	phases   = 8
	phaseMin = 2500 * time.Microsecond

	// tradesChunk is how many trades are copied from a ring at a time.
	tradesChunk = 64

	// spellingsMax is how many (dialect, channel, view) spellings a shard
	// shares among clients; a seventeenth is spelled for each client anew.
	spellingsMax = 16

	// groupsMax is on how many different terms one session may be subscribed:
	// each is looked through for each symbol that a command names.
	groupsMax = 64

	// freshKept is how much room for new subscriptions is kept from one command
	// to the next.
	freshKept = 1024

	// spelledTradesMax bounds the kept spelling of a topic's last trades.
	spelledTradesMax = 16 << 10
)

// Options configure a [Shard]. A zero field means its default.
type Options struct {
	// FrameMax bounds the payload of a frame.
	//
	// Defaults to socket.FrameMax, which is also the most; at least 1 KiB.
	FrameMax int
}

func (o Options) withDefaults() Options {
	o.FrameMax = cmp.Or(o.FrameMax, socket.FrameMax)
	return o
}

func (o Options) validate() error {
	if o.FrameMax < 1<<10 || o.FrameMax > socket.FrameMax {
		return fmt.Errorf("FrameMax %d: want 1024 to %d", o.FrameMax, socket.FrameMax)
	}
	return nil
}

// ErrEnded says that the shard no longer runs.
var ErrEnded = errors.New("the shard has ended")

// Shard owns a share of the sessions.
type Shard struct {
	opts    Options
	board   *board.Board
	watcher *board.Watcher
	began   time.Time
	mailbox chan func()
	ended   chan struct{} // closed when Run returns

	// Owned by Run.
	now       time.Time
	sessions  map[*Session]struct{}
	topics    []*topic // by id; nil if no session here is subscribed
	seen      int      // topics of the board that patterns and waiting names know of
	hoping    map[*Session]struct{}
	dirty     []*Session // have something unconflated to send
	again     []*Session // were cut off by visitBytesMax
	owing     owingHeap
	slots     []*slot
	tickOrder []*Session // sessions in the order of their next tick
	tickNext  time.Time
	tickAt    int // in tickOrder
	tickPart  int // how many parts of tickPeriod have been served

	groups     []*group // by their number
	freeGroups []uint32
	kinds      []kind

	// While a command is carried out: what take took, whether it moves from
	// another group, and which topics it has taken already.
	fresh   []subscription
	moved   bool
	stamps  []uint32 // by topic
	stampNo uint32

	visited int    // bytes sent in the visit that is under way
	frame   []byte // being assembled, with room for its header
	scratch []byte // a row that is spelled for one client
	entries [tradesChunk]codec.TradeEntry
	rows    int
	fetched uint64 // means nothing: it has subscriptions fetched ahead

	closedLedger codec.Ledger // of the sessions that have ended

	stats statsCell
}

// New makes a shard of a board.
func New(b *board.Board, opts Options) (*Shard, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	w, err := b.Watch()
	if err != nil {
		return nil, err
	}
	return &Shard{
		opts:     opts,
		board:    b,
		watcher:  w,
		began:    time.Now(),
		mailbox:  make(chan func(), mailboxMax),
		ended:    make(chan struct{}),
		sessions: make(map[*Session]struct{}),
		hoping:   make(map[*Session]struct{}),
		frame:    make([]byte, 0, socket.HeaderRoom+opts.FrameMax),
	}, nil
}

// Run serves its sessions until ctx is done. Sessions are closed by then, or
// are closed now.
func (s *Shard) Run(ctx context.Context) {
	defer close(s.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	s.tickNext = time.Now().Add(tickPeriod / tickParts)
	for {
		s.now = time.Now()
		s.round()
		wait := s.untilNext()
		if len(s.again) > 0 || !s.watcher.Sleep(s.seen, s.timed()) {
			wait = 0
		}
		if wait == 0 {
			s.watcher.Awake()
			select {
			case f := <-s.mailbox:
				f()
			case <-ctx.Done():
				s.endAll()
				return
			default:
			}
			continue
		}
		timer.Reset(wait)
		select {
		case f := <-s.mailbox:
			s.now = time.Now()
			f()
		case <-s.watcher.C():
		case <-timer.C:
		case <-ctx.Done():
			s.endAll()
			return
		}
		s.watcher.Awake()
	}
}

// round does all that is due now.
func (s *Shard) round() {
	for range mailboxMax {
		select {
		case f := <-s.mailbox:
			f()
			continue
		default:
		}
		break
	}
	s.meetNewTopics()
	s.watcher.Take(s.changed)
	for _, sl := range s.slots {
		s.fire(sl)
	}
	s.visitAll(&s.again)
	s.visitAll(&s.dirty)
	for len(s.owing) > 0 && !s.owing[0].owingAt.After(s.now) {
		s.revisit(s.owing.remove(0))
	}
	if !s.now.Before(s.tickNext) {
		s.tick()
	}
	s.stats.store(s)
}

// visitAll visits the sessions of a list, which may get new ones meanwhile.
func (s *Shard) visitAll(list *[]*Session) {
	work := *list
	*list = nil
	for _, se := range work {
		se.listed = false
		s.visit(se)
	}
	if *list == nil {
		*list = work[:0] // keep its memory
	}
}

// untilNext is how long nothing is due.
func (s *Shard) untilNext() time.Duration {
	next := s.tickNext
	if len(s.owing) > 0 && s.owing[0].owingAt.Before(next) {
		next = s.owing[0].owingAt
	}
	for _, sl := range s.slots {
		if sl.any && sl.next.Before(next) {
			next = sl.next
		}
	}
	return max(0, time.Until(next))
}

// topic is what a shard keeps of a board's topic that its sessions want. What
// is looked at for each client comes first: one line of the processor's cache.
type topic struct {
	heads     [4]uint64 // by channel
	epoch     uint32    // counts the epochs that this shard has seen, from 1
	standing  uint32    // its version
	loaded    bool
	spellings []spelling // by kind

	*board.Topic
	subs        [4]uint32 // subscriptions in this shard, by channel
	unconflated []uint32  // the groups with no cadence that follow it
	view        board.View
}

// read brings the view up to date.
func (t *topic) read() {
	t.Read(&t.view)
	v := &t.view
	t.heads = [4]uint64{codec.ChannelTicker: v.Heads.Ticker, codec.ChannelQuotes: v.Heads.Quotes, codec.ChannelTrades: v.Heads.Trades}
	t.standing, t.loaded = uint32(v.Standing.Version), v.Loaded
}

// head is how far the channel has come.
func (t *topic) head(c codec.Channel) uint64 { return t.heads[c&3] }

// spelling is how one kind spells the topic now.
type spelling struct {
	base uint64 // trades: the cursor of the first spelled
	ends []int
	rows []byte // what a state row was spelled into, too

	head  uint64 // ticker and quotes: what rows was spelled at
	valid bool
}

// changed takes a mark: it reads the topic and touches who follows it.
func (s *Shard) changed(id uint32) {
	if int(id) >= len(s.topics) || s.topics[id] == nil {
		return
	}
	t := s.topics[id]
	epoch, heads := t.view.State.Epoch, t.heads
	t.read()
	for c, n := range t.subs {
		s.stats.live.Ledger.Offered += uint64(n) * (t.heads[c] - heads[c])
	}
	if epoch != t.view.State.Epoch {
		t.epoch++
		clear(t.spellings) // trades of the old numbering must not be told after the reset
	}
	for i := range t.spellings {
		t.spellings[i].valid = false
	}
	for _, no := range t.unconflated {
		s.touch(s.groups[no], id)
	}
	for _, sl := range s.slots {
		sl.set(id)
	}
}

// touch puts an unconflated subscription among those to be visited.
func (s *Shard) touch(g *group, id uint32) {
	se := g.session
	if se.isOwing {
		return // it will look at everything when its socket takes again
	}
	if !se.rescan {
		at := g.find(id)
		if at < 0 {
			return
		}
		g.touched = append(g.touched, uint32(at))
	}
	s.list(se)
}

// list has a session visited in this round, unless it waits for its socket.
func (s *Shard) list(se *Session) {
	if se.listed || se.isOwing {
		return
	}
	se.listed = true
	s.dirty = append(s.dirty, se)
}

// meetNewTopics offers the board's new topics to patterns and waiting names.
func (s *Shard) meetNewTopics() {
	all := s.board.Topics()
	for ; s.seen < len(all); s.seen++ {
		for se := range s.hoping {
			se.meet(s, all[s.seen])
		}
	}
}

// hold returns the shard's topic of a board's topic for one more subscription,
// with interest registered before its state is read: no change after that is missed.
func (s *Shard) hold(bt *board.Topic, c codec.Channel) *topic {
	for int(bt.ID) >= len(s.topics) {
		s.topics = append(s.topics, nil)
	}
	t := s.topics[bt.ID]
	if t == nil {
		t = &topic{Topic: bt, epoch: 1}
		s.topics[bt.ID] = t
		s.watcher.Interest(bt)
		t.read()
	}
	t.subs[c&3]++
	return t
}

// release ends the hold of one subscription.
func (s *Shard) release(t *topic, c codec.Channel) {
	if t.subs[c&3]--; t.subs != [4]uint32{} {
		return
	}
	s.watcher.Lose(t.Topic)
	s.topics[t.ID] = nil
}

// tick lets a part of the sockets tick.
func (s *Shard) tick() {
	s.tickNext = s.now.Add(tickPeriod / tickParts)
	if s.tickPart == tickParts {
		s.tickOrder = s.tickOrder[:0]
		for se := range s.sessions {
			s.tickOrder = append(s.tickOrder, se)
		}
		s.tickAt, s.tickPart = 0, 0
	}
	s.tickPart++
	for until := (len(s.tickOrder)*s.tickPart + tickParts - 1) / tickParts; s.tickAt < until; {
		se := s.tickOrder[s.tickAt]
		s.tickOrder[s.tickAt] = nil
		s.tickAt++
		if se.ended {
			continue
		}
		if reason := se.conn.Tick(s.now); reason != "" {
			s.end(se, reason)
		}
	}
}

// endAll closes what is still open when the shard ends.
func (s *Shard) endAll() {
	for {
		select {
		case f := <-s.mailbox:
			f()
			continue
		default:
		}
		break
	}
	for se := range s.sessions {
		s.end(se, codec.CloseDraining)
	}
	s.stats.store(s)
}

// do has f run by the shard and waits for it.
func (s *Shard) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case s.mailbox <- func() { f(); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return ErrEnded
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return ErrEnded
	}
}

// post has f run by the shard soon.
func (s *Shard) post(f func()) {
	select {
	case s.mailbox <- f:
	case <-s.ended:
	}
}

// BeginDrain tells every client to go elsewhere within window.
func (s *Shard) BeginDrain(window time.Duration) {
	s.post(func() {
		for se := range s.sessions {
			s.tell(se, codec.Event{Type: codec.EventGoaway, Window: window, Why: "this node is leaving"})
		}
	})
}

func remove[T comparable](list []T, x T) []T {
	if i := slices.Index(list, x); i >= 0 {
		last := len(list) - 1
		list[i] = list[last]
		var zero T
		list[last] = zero
		return list[:last]
	}
	return list
}
