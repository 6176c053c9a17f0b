package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
)

// owner holds one raw partition. It is one goroutine and takes no lock.
type owner struct {
	feed *Feed
	log  *slog.Logger
	part Partition
	id   PartitionID
	raw  RawTopic
	stamper

	symbols map[string]*symbol // by venue symbol
	lost    Gap                // raw offsets that retention took, for symbols not yet held

	end       int64 // of the raw partition
	taken     int64 // raw offsets below it are taken
	committed int64
	commitAt  time.Time
	lastWord  int64 // raw timestamp of the last message of any kind
	beatAt    time.Time

	// Of the batch under way.
	ticks   []codec.Tick
	pending []pending
	entries []Entry
	of      []*symbol // whose entry is whose; nil: a dead letter or a heartbeat
	values  []byte
	rec     record.Record
}

// Gap is a range of raw offsets: From included, To not.
type Gap = record.Gap

// symbol is what an owner knows of one venue symbol.
type symbol struct {
	name        string // ours; "" if it has none
	venueSymbol string
	kafkaTopic  string
	key         []byte

	// held tells that our fence is in the log and state is what stood before
	// it and what we have written since.
	held   bool
	state  codec.State
	source codec.Source

	refused   error // why its ticks are not used
	refusedAt time.Time
	refusals  int // since it was last told
	parked    time.Time
	failed    error // of the batch under way
}

// pending is a tick of the batch under way.
type pending struct {
	symbol *symbol
	tick   codec.Tick
	msg    *Message
	index  int32
}

func newOwner(f *Feed, p Partition) *owner {
	id := p.ID()
	raw := f.raw[id.Topic]
	return &owner{
		feed: f, part: p, id: id, raw: raw,
		log:     f.opts.Logger.With("rawTopic", id.Topic, "partition", id.Partition),
		symbols: map[string]*symbol{},
		stamper: stamper{dayOf: raw.Venue.DayOf, late: f.metrics.late.Inc, ahead: f.metrics.ahead.Inc},
	}
}

// run owns the partition until ctx is done or it is fenced.
func (o *owner) run(ctx context.Context) error {
	if err := o.part.Prepare(ctx, []string{DeadTopic, HeartbeatTopic}); err != nil {
		return fmt.Errorf("preparing %s and %s: %w", DeadTopic, HeartbeatTopic, err)
	}
	o.taken = o.part.Position()
	o.committed = o.taken
	o.log.Info("raw partition taken", "offset", o.taken, "era", o.part.Era())
	if o.taken > 0 {
		o.part.SeekTo(o.taken - 1) // the last message taken tells when the venue was last heard
	}
	for {
		batch, err := o.part.Poll(ctx)
		if err == nil {
			err = o.take(ctx, &batch)
		}
		if ctx.Err() != nil {
			o.finish()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// finish commits what is taken although ctx is done.
func (o *owner) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), finishTime)
	defer cancel()
	if err := o.commit(ctx, true); err != nil {
		o.log.Debug("the last commit was refused: the partition is another feed's already", "error", err)
	}
}

// take normalizes, stamps and writes a batch.
func (o *owner) take(ctx context.Context, b *Batch) error {
	now := time.Now()
	o.end = b.End
	if b.Reset {
		o.log.Warn("the raw topic is another one than it was: a new epoch begins", "end", b.End)
		for _, s := range o.symbols {
			s.held = false
		}
		o.taken = o.part.Position()
		o.committed = -1
	}
	o.pending, o.entries, o.of, o.values = o.pending[:0], o.entries[:0], o.of[:0], o.values[:0]
	if b.LostTo > b.LostFrom && b.LostTo > o.taken {
		o.lose(Gap{From: max(b.LostFrom, o.taken), To: b.LostTo})
	}
	messages := b.Messages
	for len(messages) > 0 {
		n := o.normalize(messages, now)
		if err := o.write(ctx, now); err != nil {
			return err
		}
		o.taken = max(o.taken, messages[n-1].Offset+1)
		messages = messages[n:]
		o.pending, o.entries, o.of, o.values = o.pending[:0], o.entries[:0], o.of[:0], o.values[:0]
	}
	if now.Sub(o.beatAt) >= heartbeatPeriod || len(o.entries) > 0 {
		o.beatAt = now
		o.beat(now)
		if err := o.write(ctx, now); err != nil {
			return err
		}
	}
	o.feed.metrics.lag.WithLabelValues(o.id.Topic, strconv.Itoa(int(o.id.Partition))).Set(float64(o.end - o.taken))
	return o.commit(ctx, false)
}

// normalize turns messages into pending ticks and dead letters, as many as one
// append may have, and returns how many messages that were.
func (o *owner) normalize(messages []Message, now time.Time) int {
	m := &o.feed.metrics
	o.ticks = o.ticks[:0]
	for i := range messages {
		msg := &messages[i]
		if msg.Offset < o.taken {
			o.lastWord = max(o.lastWord, msg.Time)
			continue
		}
		o.lastWord = max(o.lastWord, msg.Time)
		from := len(o.ticks)
		ticks, kind, err := o.raw.Venue.Normalize(o.ticks, msg.Value)
		m.messages.WithLabelValues(o.raw.Venue.Name, kind).Inc()
		if err != nil {
			o.dead(msg, deadMalformed, err.Error(), now)
			continue
		}
		o.ticks = ticks
		for j := from; j < len(ticks); j++ {
			t := &ticks[j]
			s := o.symbols[string(t.VenueSymbol)]
			if s == nil {
				s = o.meet(t.VenueSymbol, now)
			}
			if s.refused != nil {
				o.refuse(s, msg, now)
				continue
			}
			if !s.parked.IsZero() {
				if now.Before(s.parked) {
					o.dead(msg, deadParked, "the symbol's Kafka topic could not be written", now)
					continue
				}
				s.parked = time.Time{}
			}
			o.pending = append(o.pending, pending{symbol: s, tick: *t, msg: msg, index: int32(j - from)})
		}
		if len(o.pending) >= ticksMax {
			return i + 1
		}
	}
	return len(messages)
}

// meet makes a symbol of a venue symbol that is new here.
func (o *owner) meet(venueSymbol []byte, now time.Time) *symbol {
	s := &symbol{venueSymbol: string(venueSymbol)}
	name, err := o.feed.symbolName(o.raw.Venue.Name, venueSymbol)
	if err == nil {
		err = o.feed.admit(name, claim{o.id.Topic, s.venueSymbol}, now)
	}
	if err != nil {
		s.refused = err
		if len(o.symbols) >= 2*o.feed.opts.SymbolsMax {
			return s // not remembered: a producer of endless names must not fill memory
		}
	} else {
		s.name, s.kafkaTopic, s.key = name, TickTopicPrefix+name, []byte(name)
	}
	o.symbols[s.venueSymbol] = s
	return s
}

// refuse tells once a minute of a symbol whose ticks are not used, and counts.
func (o *owner) refuse(s *symbol, msg *Message, now time.Time) {
	s.refusals++
	o.feed.metrics.refused.Inc()
	if now.Sub(s.refusedAt) < claimPeriod {
		return
	}
	s.refusedAt = now
	o.dead(msg, deadSymbol, fmt.Sprintf("%v (%d ticks since the last word of it)", s.refused, s.refusals), now)
	s.refusals = 0
	if errors.Is(s.refused, errTooManyNew) { // it may be its turn now
		delete(o.symbols, s.venueSymbol)
	}
}

// write fences what is not held, stamps what is pending and appends it all.
func (o *owner) write(ctx context.Context, now time.Time) error {
	for try := 0; ; try++ {
		if err := o.hold(ctx, now); err != nil {
			return err
		}
		o.stampPending()
		if len(o.entries) == 0 {
			return nil
		}
		began := time.Now()
		faults := o.part.Append(ctx, o.entries)
		o.feed.metrics.append.Observe(time.Since(began).Seconds())
		if faults == nil {
			return nil
		}
		again, err := o.failed(faults, try, now)
		if err != nil || !again {
			return err
		}
	}
}

// failed sorts out an append that did not wholly succeed. Symbols whose state
// is in doubt are taken anew, and their ticks stamped again.
func (o *owner) failed(faults []error, try int, now time.Time) (again bool, err error) {
	var dead []Entry
	for i, fault := range faults {
		s := o.of[i]
		switch {
		case errors.Is(fault, ErrFenced):
			return false, ErrFenced
		case s == nil && fault != nil:
			if try >= restampMax {
				return false, fmt.Errorf("dead letters and heartbeats cannot be written: %w", fault)
			}
			dead = append(dead, o.entries[i])
		case fault != nil:
			s.failed, s.held = fault, false
		}
	}
	left := o.pending[:0]
	for _, p := range o.pending {
		if p.symbol.failed != nil {
			left = append(left, p)
		}
	}
	o.entries, o.of = append(o.entries[:0], dead...), o.of[:0]
	for range dead {
		o.of = append(o.of, nil)
	}
	o.pending = left[:0]
	for _, p := range left {
		s := p.symbol
		if try >= restampMax && s.parked.IsZero() {
			o.log.Error("a symbol's Kafka topic cannot be written: parked", "symbol", s.name, "error", s.failed, "for", parkTime)
			s.parked = now.Add(parkTime)
		}
		if !s.parked.IsZero() {
			o.feed.metrics.parked.Inc()
			o.dead(p.msg, deadParked, fmt.Sprintf("the symbol's Kafka topic could not be written: %v", s.failed), now)
			continue
		}
		o.pending = append(o.pending, p)
	}
	return true, nil
}

// hold takes every symbol that has something pending and is not held: a fence,
// and only then the state that stands before it.
func (o *owner) hold(ctx context.Context, now time.Time) error {
	var wanted []*symbol
	first := map[*symbol]*Message{}
	for i := range o.pending {
		if s := o.pending[i].symbol; !s.held && first[s] == nil {
			first[s] = o.pending[i].msg
			wanted = append(wanted, s)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	wanted, err := o.prepare(ctx, wanted)
	if err != nil {
		return err
	}
	topics := kafkaTopics(wanted)
	before, err := o.part.Newest(ctx, topics, func([]byte) bool { return true })
	if err != nil {
		return fmt.Errorf("reading the claims of %d symbols: %w", len(wanted), err)
	}
	var fences []Entry
	var mine []*symbol
	topics = topics[:0]
	for i, s := range wanted {
		if err := o.checkClaim(s, before[i]); err != nil {
			s.refused = err
			continue
		}
		fence := record.Record{Kind: codec.KindFence, Symbol: s.name, Venue: o.raw.Venue.Name, IngestTime: now.UnixNano(),
			Source: codec.Source{RawTopicID: o.id.TopicID, Partition: o.id.Partition, Offset: o.taken, ProducerEra: o.part.Era()},
			Claim:  record.Claim{RawTopic: o.id.Topic, VenueSymbol: s.venueSymbol}}
		fences = append(fences, Entry{KafkaTopic: s.kafkaTopic, Key: s.key, Value: record.Append(nil, &fence), Time: now.UnixNano()})
		mine = append(mine, s)
		topics = append(topics, s.kafkaTopic)
	}
	o.dropRefused(now)
	for i, fault := range o.part.Append(ctx, fences) {
		if fault != nil {
			return fmt.Errorf("fencing symbol %s: %w", mine[i].name, fault)
		}
	}
	values, err := o.part.Newest(ctx, topics, o.isState)
	if err != nil {
		return fmt.Errorf("reading the state of %d symbols: %w", len(mine), err)
	}
	for i, s := range mine {
		if err := o.adopt(s, values[i], first[s]); err != nil {
			s.refused = err
		}
	}
	o.dropRefused(now)
	return nil
}

// isState tells a record that holds a symbol's state from a fence, and from
// bytes that are no record at all: somebody else's, which must not cost the
// symbol its totals. A record of a later version is wanted, so that adopt
// refuses the symbol rather than begin it anew.
func (o *owner) isState(value []byte) bool {
	if errors.Is(record.Decode(value, &o.rec), record.ErrMalformed) {
		o.feed.metrics.foreign.Inc()
		return false
	}
	return o.rec.Kind != codec.KindFence
}

// prepare creates the symbols' Kafka topics. A symbol that the broker will not
// have is refused; the others go on.
func (o *owner) prepare(ctx context.Context, wanted []*symbol) ([]*symbol, error) {
	err := o.part.Prepare(ctx, kafkaTopics(wanted))
	if err == nil {
		return wanted, nil
	}
	if !errors.Is(err, ErrRefused) {
		return nil, fmt.Errorf("preparing the Kafka topics of %d symbols: %w", len(wanted), err)
	}
	left := wanted[:0]
	for _, s := range wanted {
		switch err := o.part.Prepare(ctx, []string{s.kafkaTopic}); {
		case errors.Is(err, ErrRefused):
			s.refused = err
		case err != nil:
			return nil, fmt.Errorf("preparing Kafka topic %s: %w", s.kafkaTopic, err)
		default:
			left = append(left, s)
		}
	}
	return left, nil
}

func kafkaTopics(symbols []*symbol) []string {
	list := make([]string, len(symbols))
	for i, s := range symbols {
		list[i] = s.kafkaTopic
	}
	return list
}

// checkClaim tells whether the newest record of a symbol is somebody else's.
func (o *owner) checkClaim(s *symbol, newest []byte) error {
	if newest == nil {
		return nil
	}
	if err := record.Decode(newest, &o.rec); err != nil {
		return nil // whatever it is, it is no claim; adopt says so
	}
	r := &o.rec
	if r.Venue != o.raw.Venue.Name {
		return claimError(s.name, claim{"of venue " + r.Venue, r.Symbol})
	}
	if r.Kind == codec.KindFence && (r.Claim.RawTopic != o.id.Topic || r.Claim.VenueSymbol != s.venueSymbol) {
		return claimError(s.name, claim{r.Claim.RawTopic, r.Claim.VenueSymbol})
	}
	return nil
}

// dropRefused takes the ticks of symbols that were refused just now out of
// what is pending.
func (o *owner) dropRefused(now time.Time) {
	left := o.pending[:0]
	for _, p := range o.pending {
		if p.symbol.refused != nil {
			o.refuse(p.symbol, p.msg, now)
			continue
		}
		left = append(left, p)
	}
	o.pending = left
}

// adopt makes what stands in the log the symbol's state. If it was numbered by
// another log than the one we read, a new epoch begins: totals go on, numbers
// begin again.
func (o *owner) adopt(s *symbol, newest []byte, first *Message) error {
	s.state, s.source = codec.State{}, codec.Source{}
	epoch := first.Time / int64(time.Millisecond)
	if newest == nil {
		s.state.Epoch = max(1, epoch)
	} else {
		if err := record.Decode(newest, &o.rec); err != nil {
			return fmt.Errorf("the newest record of symbol %s cannot be read, and its totals would be lost: %w", s.name, err)
		}
		s.state, s.source = o.rec.State, o.rec.Source
		other := s.source.Partition != o.id.Partition || s.source.Offset >= o.end ||
			s.source.RawTopicID != o.id.TopicID && s.source.RawTopicID != [16]byte{} && o.id.TopicID != [16]byte{}
		if other {
			s.state.Epoch = max(epoch, s.state.Epoch+1)
			s.state.Seq, s.state.TradeNo, s.state.QuoteNo = 0, 0, 0
			s.state.Last.No, s.state.Last.Seq, s.state.Quote.No, s.state.Quote.Seq = 0, 0, 0, 0
			o.feed.metrics.epochs.Inc()
		}
	}
	if s.source.Epoch != s.state.Epoch {
		s.source = codec.Source{Epoch: s.state.Epoch, Offset: -1}
	}
	s.held, s.failed = true, nil
	if o.lost.To > o.lost.From && s.source.Offset < o.lost.To && s.state.Seq != 0 {
		o.gap(s, Gap{From: max(o.lost.From, s.source.Offset+1), To: o.lost.To})
	}
	return nil
}

// lose tells every symbol that raw messages are gone.
func (o *owner) lose(g Gap) {
	o.log.Error("raw messages were deleted before they were read: raise the raw topic's retention", "from", g.From, "to", g.To)
	o.feed.metrics.lostRaw.Add(float64(g.To - g.From))
	o.lost = g
	o.taken = max(o.taken, g.To)
	for _, s := range o.symbols {
		if s.held {
			o.gap(s, g)
		}
	}
}

// gap adds a gap record of a symbol.
func (o *owner) gap(s *symbol, g Gap) {
	s.state.Seq++
	s.source = codec.Source{Epoch: s.state.Epoch, RawTopicID: o.id.TopicID, Partition: o.id.Partition, Offset: g.To - 1, ProducerEra: o.part.Era()}
	now := time.Now().UnixNano()
	r := record.Record{Kind: codec.KindGap, Symbol: s.name, Venue: o.raw.Venue.Name, IngestTime: now, Source: s.source, Gap: g, State: s.state}
	o.add(s, &r, now)
}

// stampPending turns what is pending into entries. What was written before, as
// the state tells, is left out.
func (o *owner) stampPending() {
	m := &o.feed.metrics
	r := &o.rec
	for i := range o.pending {
		p := &o.pending[i]
		s := p.symbol
		source := codec.Source{Epoch: s.state.Epoch, RawTopicID: o.id.TopicID, Partition: o.id.Partition,
			Offset: p.msg.Offset, Index: p.index, ProducerEra: o.part.Era()}
		if !source.Newer(s.source) {
			m.again.Inc()
			continue
		}
		if o.stamp(&s.state, &p.tick, p.msg.Time, r) == repeated {
			m.repeats.Inc()
			continue
		}
		s.source = source
		r.Symbol, r.Venue, r.Source = s.name, o.raw.Venue.Name, source
		o.add(s, r, p.msg.Time)
		m.ticks[min(int(p.tick.Kind), len(m.ticks)-1)].Inc()
	}
}

// add adds a record of a symbol to the entries.
func (o *owner) add(s *symbol, r *record.Record, at int64) {
	from := len(o.values)
	o.values = record.Append(o.values, r)
	o.entries = append(o.entries, Entry{KafkaTopic: s.kafkaTopic, Key: s.key, Value: o.values[from:len(o.values):len(o.values)], Time: at})
	o.of = append(o.of, s)
}

// The reasons of dead letters, in their headers and in the metric.
const (
	deadMalformed = "malformed" // no message of its venue
	deadSymbol    = "symbol"    // its symbol could not be named or claimed
	deadParked    = "parked"    // its symbol's Kafka topic could not be written
)

// dead adds a dead letter.
func (o *owner) dead(msg *Message, reason, why string, now time.Time) {
	o.feed.metrics.dead.WithLabelValues(reason).Inc()
	value := msg.Value
	headers := append([]Header(nil), msg.Headers...)
	text := func(key, value string) { headers = append(headers, Header{key, []byte(value)}) }
	text("reason", reason)
	text("why", why)
	text("venue", o.raw.Venue.Name)
	text("raw-topic", o.id.Topic)
	text("raw-partition", strconv.Itoa(int(o.id.Partition)))
	text("raw-offset", strconv.FormatInt(msg.Offset, 10))
	text("raw-time", strconv.FormatInt(msg.Time, 10))
	if len(value) > deadBytesMax {
		text("cut-from-bytes", strconv.Itoa(len(value)))
		value = value[:deadBytesMax]
	}
	o.entries = append(o.entries, Entry{KafkaTopic: DeadTopic, Key: msg.Key, Value: value, Time: now.UnixNano(), Headers: headers})
	o.of = append(o.of, nil)
}

// beat adds a heartbeat.
func (o *owner) beat(now time.Time) {
	hb := record.Heartbeat{RawTopic: o.id.Topic, RawTopicID: o.id.TopicID, Partition: o.id.Partition, Venue: o.raw.Venue.Name,
		Era: o.part.Era(), Position: o.taken, End: o.end, LastTime: o.lastWord, Time: now.UnixNano()}
	key := []byte(o.id.Topic + "/" + strconv.Itoa(int(o.id.Partition)))
	o.entries = append(o.entries, Entry{KafkaTopic: HeartbeatTopic, Key: key, Value: record.AppendHeartbeat(nil, &hb), Time: now.UnixNano()})
	o.of = append(o.of, nil)
}

// commit notes what is taken, now and then.
func (o *owner) commit(ctx context.Context, last bool) error {
	if o.taken == o.committed || !last && time.Since(o.commitAt) < commitPeriod {
		return nil
	}
	if err := o.part.Commit(ctx, o.taken); err != nil {
		return fmt.Errorf("committing raw offset %d: %w", o.taken, err)
	}
	o.committed, o.commitAt = o.taken, time.Now()
	return nil
}
