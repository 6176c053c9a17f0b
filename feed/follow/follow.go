// Package follow is the way from Kafka to a board: it follows the per-symbol
// topics and the feeds' heartbeats, and publishes every record once, in order,
// with how far each topic can be trusted.
//
// It knows Kafka topics, records and heartbeats; the board it publishes to is
// an interface, for feed and gateway do not know each other.
//
// Records are handed over by the goroutine that fetched them, one at a time
// for a Kafka topic; looking for new topics and judging how fresh each one is
// are two more goroutines. [Follower.Run] starts them and waits for them.
package follow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tickgate/codec"
	"tickgate/codec/record"
	"tickgate/feed"
	"tickgate/feed/broker"
	"tickgate/feed/venue"
)

// Board is where records go. gateway/board fulfils it.
type Board interface {
	// Declare makes a topic that is loading. begins says that it has just
	// appeared, and is read from its first record.
	Declare(symbol string, begins bool)
	// Loaded says that a declared topic has been read up to its newest record,
	// if it has one.
	Loaded(symbol string)
	// Publish takes a record, unless it is not newer than the last one.
	Publish(r *record.Record) bool
	// SetState says how far a topic can be trusted, since when (Unix ns) and why.
	SetState(symbol string, state codec.TopicState, since int64, why string)
}

// Options configure a [Follower]. A zero field means its default.
type Options struct {
	Client *broker.Client
	Board  Board

	// TopicPrefix begins the name of every per-symbol Kafka topic.
	//
	// Defaults to "ticks.".
	TopicPrefix string

	// Ring is how many records before the newest one are read when a topic
	// that already exists is first followed: what a client can resume from.
	//
	// Defaults to 4096; must be within [1, 1000000].
	Ring int

	// Discover is the time between two looks for new topics.
	//
	// Defaults to 500ms; must be within [50ms, 1m].
	Discover time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: counted, not exported
}

func (o Options) withDefaults() Options {
	o.TopicPrefix = cmp.Or(o.TopicPrefix, feed.TickTopicPrefix)
	o.Ring = cmp.Or(o.Ring, 4096)
	o.Discover = cmp.Or(o.Discover, 500*time.Millisecond)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	var faults []error
	if o.Client == nil {
		faults = append(faults, errors.New("Client: missing"))
	}
	if o.Board == nil {
		faults = append(faults, errors.New("Board: missing"))
	}
	if o.Ring < 0 || o.Ring > 1_000_000 {
		faults = append(faults, fmt.Errorf("Ring %d: want 1 to 1000000, or 0 for its default", o.Ring))
	}
	if o.Discover < 50*time.Millisecond || o.Discover > time.Minute {
		faults = append(faults, fmt.Errorf("Discover %v: want 50ms to 1m", o.Discover))
	}
	return errors.Join(faults...)
}

// sourceID names a raw partition as records and heartbeats both tell it.
type sourceID struct {
	rawTopicID [16]byte
	venue      string
	partition  int32
}

// Follower follows the per-symbol topics of one cluster.
type Follower struct {
	opts   Options
	tailer *broker.Tailer
	stats  metrics

	// Guarded by mu: fetch goroutines, discovery and judging all look.
	mu      sync.Mutex
	topics  map[string]*topic // by Kafka topic
	sources map[sourceID]*source
	listed  bool // the first list of topics has come
	badTold time.Time
}

// New checks the options; it opens no connection.
func New(opts Options) (*Follower, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	f := &Follower{
		opts:    opts,
		topics:  make(map[string]*topic),
		sources: make(map[sourceID]*source),
		stats:   newMetrics(opts.Registerer),
	}
	f.tailer = opts.Client.NewTailer(broker.TailOptions{Handle: f.handle})
	return f, nil
}

// Run follows until ctx is done. Losing Kafka is no error: the topics become
// stale, and it goes on when Kafka is back.
func (f *Follower) Run(ctx context.Context) error {
	f.tailer.Add(feed.HeartbeatTopic, broker.StartEnd)
	var wg sync.WaitGroup
	wg.Go(func() { f.discover(ctx) })
	wg.Go(func() { f.judgeAll(ctx) })
	err := f.tailer.Run(ctx)
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// discover looks for new per-symbol topics again and again.
func (f *Follower) discover(ctx context.Context) {
	tick := time.NewTicker(f.opts.Discover)
	defer tick.Stop()
	for {
		list, err := f.opts.Client.Topics(ctx, f.opts.TopicPrefix)
		if err == nil { // else the tailer says so
			f.adopt(list)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// adopt begins to follow the topics that are new. One that was there before us
// is read from a ring before its end; one that appears is read from its start.
func (f *Follower) adopt(list []broker.TopicInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, info := range list {
		if f.topics[info.Name] != nil {
			continue
		}
		symbol := strings.TrimPrefix(info.Name, f.opts.TopicPrefix)
		if !codec.ValidSymbol(symbol) {
			f.topics[info.Name] = &topic{} // told once, never followed
			f.opts.Logger.Warn("not a symbol's topic: left alone", "kafkaTopic", info.Name, "want", f.opts.TopicPrefix+"[A-Z0-9._-]{1,32}")
			continue
		}
		f.topics[info.Name] = &topic{symbol: symbol, told: codec.StateLoading}
		f.opts.Board.Declare(symbol, f.listed)
		start := broker.StartFirst
		if !f.listed {
			start = broker.StartBack(int64(f.opts.Ring))
		}
		f.tailer.Add(info.Name, start)
		f.stats.topics.Inc()
	}
	f.listed = true
}

// handle takes what was fetched of one Kafka topic.
func (f *Follower) handle(kafkaTopic string, partition int32, recs []broker.Record, end int64) {
	if kafkaTopic == feed.HeartbeatTopic {
		f.beats(recs)
		return
	}
	f.mu.Lock()
	t := f.topics[kafkaTopic]
	f.mu.Unlock()
	if t == nil || t.symbol == "" {
		return
	}
	// t.rec belongs to this goroutine: a Kafka topic has one partition, and a
	// partition is fetched by one loop at a time.
	for i := range recs {
		f.take(t, &recs[i])
	}
	caughtUp := len(recs) == 0 || recs[len(recs)-1].Offset+1 >= end
	f.mu.Lock()
	defer f.mu.Unlock()
	if caughtUp && !t.loaded {
		t.loaded = true
		f.opts.Board.Loaded(t.symbol)
	}
}

// take publishes one record.
func (f *Follower) take(t *topic, rec *broker.Record) {
	if record.IsFence(rec.Value) {
		return // a claim, no state
	}
	r := &t.rec
	if err := record.Decode(rec.Value, r); err != nil {
		f.bad(t.symbol, rec.Offset, err)
		return
	}
	if r.Symbol != t.symbol {
		f.bad(t.symbol, rec.Offset, fmt.Errorf("record of symbol %q in the topic of %q", r.Symbol, t.symbol))
		return
	}
	if !f.opts.Board.Publish(r) {
		f.stats.repeats.Inc()
		return
	}
	f.stats.records.Inc()
	now := time.Now()
	f.stats.age.Observe(float64(now.UnixNano()-r.IngestTime) / 1e9)
	f.mu.Lock()
	defer f.mu.Unlock()
	t.tickAt = now
	t.status = r.State.Status
	t.source = sourceID{r.Source.RawTopicID, r.Venue, r.Source.Partition}
	if r.Kind == codec.KindGap {
		t.gapAt = now
	}
}

// bad counts a record that cannot be used; it says so at most once a minute.
func (f *Follower) bad(symbol string, offset int64, err error) {
	f.stats.bad.Inc()
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.badTold) < time.Minute {
		return
	}
	f.badTold = time.Now()
	f.opts.Logger.Error("a record cannot be used and was left out; is something else writing to this Kafka topic?",
		"symbol", symbol, "offset", offset, "error", err)
}

// beats takes heartbeats.
func (f *Follower) beats(recs []broker.Record) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range recs {
		var hb record.Heartbeat
		if err := record.DecodeHeartbeat(recs[i].Value, &hb); err != nil {
			f.stats.bad.Inc()
			continue
		}
		id := sourceID{hb.RawTopicID, hb.Venue, hb.Partition}
		s := f.sources[id]
		if s == nil {
			if len(f.sources) >= sourcesMax {
				continue
			}
			s = &source{}
			f.sources[id] = s
		}
		if s.beatAt.IsZero() { // also if its symbols' ticks came before
			if v, ok := venue.Lookup(hb.Venue); ok {
				s.silenceMax = v.MaxSilence
			}
		}
		s.beat(now, &hb)
	}
}

// sourcesMax bounds what a broken writer of heartbeats can make us remember.
const sourcesMax = 10_000

// judgeAll tells the board of every topic whose state has changed.
func (f *Follower) judgeAll(ctx context.Context) {
	tick := time.NewTicker(judgePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			f.judgeOnce(now)
		}
	}
}

func (f *Follower) judgeOnce(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.topics {
		if t.symbol == "" {
			continue
		}
		s := f.sources[t.source]
		if s == nil && !t.tickAt.IsZero() {
			// Its feed has not been heard of yet: give it the time of a heartbeat.
			s = &source{started: now}
			f.sources[t.source] = s
		}
		state, why := judge(now, t, s)
		if state == t.told && why == t.toldWhy {
			continue
		}
		t.told, t.toldWhy = state, why
		f.opts.Board.SetState(t.symbol, state, now.UnixNano(), why)
	}
}
