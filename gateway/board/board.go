// Package board holds what this gateway knows of the market right now: one
// topic per symbol, with its state and the ring of its last trades.
//
// It knows ticks and symbols; it knows nothing of sockets, dialects or Kafka.
//
// A topic has one writer. A shard learns of a change by a mark, one bit per
// topic, and then reads from where its own cursors stand. Setting a bit twice
// is setting it once: a slow shard merges more, it never queues more, and
// [Board.Publish] never waits for one. Publish stores, then marks; a shard
// clears, then loads; so no change is ever missed.
//
// The design's least and greatest price of each block of 16 entries of a ring are
// not here: they are for high and low between two updates of a client, which no
// command can ask for yet.
package board

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
)

// Bounds of a board.
const (
	// TopicsMax is how many topics a board can hold: its marks are 8 KiB a
	// shard. Beyond it symbols are refused and counted.
	TopicsMax = 1 << 16

	// ShardsMax is how many shards can watch: one bit each in a word.
	ShardsMax = 64

	// A ring begins small and doubles while it would lose trades younger than
	// ringSpan: what a client that slept a little wants to resume from. The
	// design says 4,096 at most; at that size a replay at full speed, 10,000
	// trades of a symbol in a quarter of a second, left a client that reads as
	// fast as it can only 0.1 s of grace, so the bound is higher and the
	// node's ring memory is what limits.
	ringMin  = 16
	ringMax  = 1 << 14
	ringSpan = 10 * time.Second
)

// Options configure a [Board]. A zero field means its default.
type Options struct {
	// RingMemory bounds the rings of all topics together, in bytes, besides the
	// least ring that each topic has of its own.
	//
	// Defaults to 256 MiB; must be at least 1 MiB.
	RingMemory int64
}

func (o Options) withDefaults() Options {
	o.RingMemory = cmp.Or(o.RingMemory, 256<<20)
	return o
}

func (o Options) validate() error {
	if o.RingMemory < 1<<20 {
		return fmt.Errorf("RingMemory %d: want at least 1 MiB", o.RingMemory)
	}
	return nil
}

// Board is the topics of this gateway.
type Board struct {
	opts Options

	ringBytes atomic.Int64 // of all rings
	refused   atomic.Uint64
	repeats   atomic.Uint64
	published atomic.Uint64

	topics   atomic.Pointer[[]*Topic]   // append-only; index is the topic's id
	watchers atomic.Pointer[[]*Watcher] // append-only

	mu       sync.RWMutex // held to append to those two; guards bySymbol
	bySymbol map[string]*Topic
}

// New returns an empty board.
func New(opts Options) (*Board, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	b := &Board{opts: opts, bySymbol: make(map[string]*Topic)}
	b.topics.Store(new([]*Topic))
	b.watchers.Store(new([]*Watcher))
	return b, nil
}

// Topics are all topics, by id. The slice is not to be changed.
func (b *Board) Topics() []*Topic { return *b.topics.Load() }

// Lookup finds a topic; nil if there is none of that symbol.
func (b *Board) Lookup(symbol string) *Topic {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.bySymbol[symbol]
}

// Declare makes a topic that is loading, unless there is one. begins says that
// what will be published of it is all there is: its symbol has just appeared.
func (b *Board) Declare(symbol string, begins bool) { b.declare(symbol, begins) }

// declare returns the topic of symbol, nil if the board is full.
func (b *Board) declare(symbol string, begins bool) *Topic {
	if t := b.Lookup(symbol); t != nil {
		return t
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.bySymbol[symbol]; t != nil {
		return t
	}
	old := b.Topics()
	if len(old) >= TopicsMax {
		b.refused.Add(1)
		return nil
	}
	t := &Topic{ID: uint32(len(old)), Symbol: symbol, Begins: begins, board: b, standing: Standing{State: codec.StateLoading, Version: 1}}
	list := append(old, t) // readers of the shorter slice do not see it
	b.topics.Store(&list)
	b.bySymbol[symbol] = t
	for _, w := range *b.watchers.Load() {
		w.wake(true)
	}
	return t
}

// Loaded says that a declared topic has been read up to its newest record, if
// it has one: what comes next is new.
func (b *Board) Loaded(symbol string) {
	t := b.Lookup(symbol)
	if t == nil {
		return
	}
	t.mu.Lock()
	t.loaded = true
	t.mu.Unlock()
	t.mark()
}

// SetState says how far a topic can be trusted, since when (Unix ns) and why.
func (b *Board) SetState(symbol string, state codec.TopicState, since int64, why string) {
	t := b.Lookup(symbol)
	if t == nil {
		return
	}
	t.mu.Lock()
	changed := t.standing.State != state || t.standing.Why != why
	if changed {
		t.standing = Standing{State: state, Since: since, Why: why, Version: t.standing.Version + 1}
	}
	t.mu.Unlock()
	if changed {
		t.mark()
	}
}

// Publish takes a record of a symbol and tells whether it was newer than the
// last one. Records of a symbol come from one goroutine at a time.
func (b *Board) Publish(r *record.Record) bool {
	t := b.declare(r.Symbol, true)
	if t == nil {
		return false
	}
	if !t.publish(r) {
		b.repeats.Add(1)
		return false
	}
	b.published.Add(1)
	t.mark()
	return true
}

// Counts are what a board has counted.
type Counts struct {
	Topics                      int
	Published, Repeats, Refused uint64
	RingBytes                   int64
}

// Counts returns what has been counted so far.
func (b *Board) Counts() Counts {
	return Counts{
		Topics:    len(b.Topics()),
		Published: b.published.Load(),
		Repeats:   b.repeats.Load(),
		Refused:   b.refused.Load(),
		RingBytes: b.ringBytes.Load(),
	}
}

// States counts the topics by how far they can be trusted.
func (b *Board) States() map[codec.TopicState]int {
	n := make(map[codec.TopicState]int)
	for _, t := range b.Topics() {
		t.mu.Lock()
		n[t.standing.State]++
		t.mu.Unlock()
	}
	return n
}

// Watcher is a shard's place at the board: the marks of what has changed.
type Watcher struct {
	board *Board
	bit   uint64
	marks []atomic.Uint64

	// sleeping is set by the shard before it looks at its marks for the last
	// time; who marks after that sees it and sends. prompt tells that one of the
	// marks is of a topic that does not wait for a timer.
	sleeping atomic.Uint32 // awake, napping or asleep
	prompt   atomic.Bool
	signal   chan struct{}
}

// How a shard waits. One whose timer will serve all that is marked naps, so that
// a busy market does not wake it for each tick.
const (
	awake   = iota
	napping // only a prompt mark wakes it
	asleep  // any mark does
)

// ErrShards says that a board has as many watchers as it has bits.
var ErrShards = errors.New("a board has at most 64 shards")

// Watch makes a place for one more shard.
func (b *Board) Watch() (*Watcher, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.watchers.Load()
	if len(old) >= ShardsMax {
		return nil, ErrShards
	}
	w := &Watcher{
		board:  b,
		bit:    1 << len(old),
		marks:  make([]atomic.Uint64, TopicsMax/64),
		signal: make(chan struct{}, 1),
	}
	list := append(old, w) // readers of the shorter slice do not see it
	b.watchers.Store(&list)
	return w, nil
}

// C is sent to when something is marked, or a topic is new, while the shard
// sleeps.
func (w *Watcher) C() <-chan struct{} { return w.signal }

// Sleep says that the shard is about to wait on C, and tells whether it may:
// not if something is marked already. If timed, the shard waits on a timer too,
// at which it looks at all marks: then only prompt marks count and wake it.
func (w *Watcher) Sleep(topicsSeen int, timed bool) bool {
	depth := uint32(asleep)
	if timed {
		depth = napping
	}
	w.sleeping.Store(depth)
	topics := len(w.board.Topics())
	if topics != topicsSeen || w.prompt.Load() || !timed && w.marked(topics) {
		w.sleeping.Store(awake)
		return false
	}
	return true
}

func (w *Watcher) marked(topics int) bool {
	for i := range (topics + 63) / 64 {
		if w.marks[i].Load() != 0 {
			return true
		}
	}
	return false
}

// Awake says that the shard no longer waits on C.
func (w *Watcher) Awake() { w.sleeping.Store(awake) }

// wake wakes a shard that is asleep, and one that naps if prompt.
func (w *Watcher) wake(prompt bool) {
	depth := w.sleeping.Load()
	if depth == awake || depth == napping && !prompt || !w.sleeping.CompareAndSwap(depth, awake) {
		return
	}
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// Take clears the marks and calls f with each topic that was marked.
func (w *Watcher) Take(f func(id uint32)) {
	w.prompt.Store(false) // before the marks, so that none is taken for seen
	for i := range (len(w.board.Topics()) + 63) / 64 {
		if w.marks[i].Load() == 0 {
			continue
		}
		for word := w.marks[i].Swap(0); word != 0; word &= word - 1 {
			f(uint32(i*64 + bits.TrailingZeros64(word)))
		}
	}
}

// Interest makes t mark this watcher from now on. Take the state after it.
func (w *Watcher) Interest(t *Topic) { t.interest.Or(w.bit) }

// Lose ends the interest. A last mark may still come.
func (w *Watcher) Lose(t *Topic) {
	t.interest.And(^w.bit)
	t.prompt.And(^w.bit)
}

// Prompt says whether t's marks shall wake the shard at once, since somebody
// wants every update. Take the state after it.
func (w *Watcher) Prompt(t *Topic, on bool) {
	if on {
		t.prompt.Or(w.bit)
	} else {
		t.prompt.And(^w.bit)
	}
}

// mark sets t's bit at every shard that is interested.
func (t *Topic) mark() {
	set := t.interest.Load()
	if set == 0 {
		return
	}
	prompt := t.prompt.Load()
	watchers := *t.board.watchers.Load()
	for ; set != 0; set &= set - 1 {
		w := watchers[bits.TrailingZeros64(set)]
		w.marks[t.ID/64].Or(1 << (t.ID % 64))
		now := prompt&w.bit != 0
		if now {
			w.prompt.Store(true)
		}
		w.wake(now)
	}
}
