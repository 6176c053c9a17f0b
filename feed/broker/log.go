package broker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"tickgate/feed"
)

// Bounds of reading raw messages.
const (
	// pollWait is the long poll of an owner: how long it may not look at its
	// context.
	pollWait = 100 * time.Millisecond
	// pollBytesMax bounds what one poll brings, and so a feed's batch.
	pollBytesMax = 1 << 20
	// newestBack is how far back the newest record that is wanted is looked
	// for at first; then eight times as far each time.
	newestBack = 1
)

// LogOptions configure a [feed.Log] on a cluster. A zero field means its
// default.
type LogOptions struct {
	// Group is the consumer group that the feeds share.
	//
	// Defaults to "tickgate".
	Group string

	// SessionTimeout is how long a feed that has died keeps its partitions.
	//
	// Defaults to 6s, Kafka's least.
	SessionTimeout time.Duration

	// StateBytes is the retention of each state topic, by size: a symbol that
	// is quiet for a month must not lose its only record to time.
	//
	// Defaults to 64 MiB; must be at least 64 KiB.
	StateBytes int64

	// SegmentBytes is the size of a state topic's segments, which are deleted
	// whole.
	//
	// Defaults to a quarter of StateBytes.
	SegmentBytes int64

	// Replication of the topics that are created.
	//
	// Defaults to the cluster's.
	Replication int
}

func (o LogOptions) withDefaults() LogOptions {
	o.Group = cmp.Or(o.Group, "tickgate")
	o.SessionTimeout = cmp.Or(o.SessionTimeout, 6*time.Second)
	o.StateBytes = max(cmp.Or(o.StateBytes, 64<<20), 64<<10)
	o.SegmentBytes = cmp.Or(o.SegmentBytes, o.StateBytes/4)
	return o
}

// Log returns the cluster as a feed needs it.
func (c *Client) Log(opts LogOptions) feed.Log {
	return &groupLog{client: c, opts: opts.withDefaults()}
}

type groupLog struct {
	client *Client
	opts   LogOptions
}

// dialer is kafka-go's, for its consumer group.
func (c *Client) dialer() *kafka.Dialer {
	return &kafka.Dialer{ClientID: c.opts.ClientID, Timeout: c.opts.Timeout, TLS: c.opts.TLS, SASLMechanism: c.mechanism, DualStack: true}
}

// Consume implements [feed.Log].
func (l *groupLog) Consume(ctx context.Context, rawTopics []string, own func(context.Context, feed.Partition) error) error {
	log := l.client.opts.Logger
	trouble := complaint{log: log, what: "Kafka cannot be reached or refuses us"}
	var specs []TopicSpec
	for _, name := range rawTopics {
		specs = append(specs, TopicSpec{Name: name, Replication: l.opts.Replication})
	}
	for {
		err := l.client.Ping(ctx)
		if err == nil {
			err = l.client.CreateTopics(ctx, specs)
		}
		if err == nil {
			err = l.generations(ctx, rawTopics, own, &trouble)
		}
		if ctx.Err() != nil {
			return nil
		}
		trouble.fault(err)
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

// generations joins the group and serves one generation after another.
func (l *groupLog) generations(ctx context.Context, rawTopics []string, own func(context.Context, feed.Partition) error, trouble *complaint) error {
	info, err := l.client.metadata(ctx, rawTopics)
	if err != nil {
		return err
	}
	ids := map[string][16]byte{}
	for _, t := range info.topics {
		ids[t.Name] = t.ID
	}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                     l.opts.Group,
		Brokers:                l.client.opts.Brokers,
		Dialer:                 l.client.dialer(),
		Topics:                 rawTopics,
		HeartbeatInterval:      500 * time.Millisecond,
		SessionTimeout:         l.opts.SessionTimeout,
		RebalanceTimeout:       l.opts.SessionTimeout,
		JoinGroupBackoff:       500 * time.Millisecond,
		PartitionWatchInterval: 5 * time.Second,
		WatchPartitionChanges:  true,
		StartOffset:            kafka.FirstOffset,
	})
	if err != nil {
		return fmt.Errorf("consumer group %s: %w", l.opts.Group, err)
	}
	defer group.Close()
	for {
		gen, err := group.Next(ctx)
		if err != nil {
			return fmt.Errorf("consumer group %s: %w", l.opts.Group, err)
		}
		trouble.fine()
		var owners sync.WaitGroup
		for topic, list := range gen.Assignments {
			for _, a := range list {
				p := newPartition(l, gen, feed.PartitionID{Topic: topic, TopicID: ids[topic], Partition: int32(a.ID)}, a.Offset)
				owners.Add(1)
				gen.Start(func(genCtx context.Context) {
					defer owners.Done()
					defer p.close()
					p.run(ctx, genCtx, own)
				})
			}
		}
		if len(gen.Assignments) == 0 {
			l.client.opts.Logger.Info("no raw partition is ours; another feed has them", "group", l.opts.Group)
		}
		owners.Wait()
	}
}

// partition is one raw partition in a generation of the group.
type partition struct {
	log      *groupLog
	gen      *kafka.Generation
	id       feed.PartitionID
	producer *producer
	reads    *pool
	trouble  complaint

	position int64
	messages []feed.Message
}

func newPartition(l *groupLog, gen *kafka.Generation, id feed.PartitionID, offset int64) *partition {
	txID := "tickgate." + l.opts.Group + "." + id.Topic + "." + strconv.Itoa(int(id.Partition))
	return &partition{
		log: l, gen: gen, id: id, position: offset,
		producer: newProducer(l.client, txID),
		reads:    newPool(l.client),
		trouble:  complaint{log: l.client.opts.Logger.With(slog.String("rawTopic", id.Topic), slog.Int("partition", int(id.Partition))), what: "the raw partition cannot be read"},
	}
}

func (p *partition) close() {
	p.producer.close()
	p.reads.close()
}

// run lets own have the partition until the generation ends. Its end ends the
// generation, so that the partition is taken anew.
func (p *partition) run(ctx, genCtx context.Context, own func(context.Context, feed.Partition) error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(genCtx, cancel)
	defer stop()
	err := p.producer.init(ctx)
	if err == nil {
		err = p.begin(ctx)
	}
	if err == nil {
		err = own(ctx, p)
	}
	if err != nil && ctx.Err() == nil {
		p.trouble.log.Error("the raw partition is given up and taken again", "error", err)
		pause(ctx, time.Second)
	}
}

// begin turns "from the first" into an offset.
func (p *partition) begin(ctx context.Context) error {
	for p.position < 0 {
		first, _, err := p.bounds(ctx)
		if err == nil {
			p.position = first
			return nil
		}
		p.trouble.fault(err)
		if !pause(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

func (p *partition) bounds(ctx context.Context) (first, end int64, err error) {
	return p.log.client.bounds(ctx, p.reads, topicPartition{p.id.Topic, p.id.Partition})
}

func (p *partition) ID() feed.PartitionID { return p.id }
func (p *partition) Era() int16           { return p.producer.era }
func (p *partition) Position() int64      { return p.position }
func (p *partition) SeekTo(offset int64)  { p.position = offset }

// Poll implements [feed.Partition].
func (p *partition) Poll(ctx context.Context) (feed.Batch, error) {
	tp := topicPartition{p.id.Topic, p.id.Partition}
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		batch, err := p.poll(ctx, tp)
		if err == nil {
			p.trouble.fine()
			return batch, nil
		}
		if ctx.Err() != nil {
			return feed.Batch{}, ctx.Err()
		}
		p.log.client.metrics.fetchFaults.Inc()
		p.trouble.fault(err)
		p.log.client.forget(tp)
		if !pause(ctx, wait) {
			return feed.Batch{}, ctx.Err()
		}
	}
}

func (p *partition) poll(ctx context.Context, tp topicPartition) (feed.Batch, error) {
	var batch feed.Batch
	groups, err := p.log.client.byLeader(ctx, []topicPartition{tp})
	if err != nil {
		return batch, err
	}
	for leader := range groups {
		k, err := p.reads.get(ctx, leader)
		if err != nil {
			return batch, err
		}
		p.messages = p.messages[:0]
		var code kafka.Error
		err = k.fetch(ctx, []fetchPart{{tp, p.position}}, fetchSize{wait: pollWait, bytes: pollBytesMax, partBytes: pollBytesMax},
			func(_ topicPartition, c kafka.Error, end int64, data []byte) error {
				code, batch.End = c, end
				next, err := decodeBatches(data, p.position, func(r Record) {
					p.messages = append(p.messages, feed.Message{Offset: r.Offset, Time: r.Time, Key: r.Key, Value: r.Value, Headers: r.Headers()})
				})
				p.position = next
				return err
			})
		if err != nil {
			p.reads.drop(leader)
			return batch, err
		}
		batch.Messages = p.messages
		switch code {
		case 0:
			p.log.client.metrics.fetched.Add(float64(len(p.messages)))
		case kafka.OffsetOutOfRange:
			first, end, err := p.bounds(ctx)
			if err != nil {
				return batch, err
			}
			batch.End = end
			if p.position < first {
				batch.LostFrom, batch.LostTo = p.position, first
			} else {
				batch.Reset = true
			}
			p.position = first
		default:
			return batch, code
		}
	}
	return batch, nil
}

// Prepare implements [feed.Partition].
func (p *partition) Prepare(ctx context.Context, kafkaTopics []string) error {
	o := &p.log.opts
	var specs []TopicSpec
	for _, name := range kafkaTopics {
		specs = append(specs, TopicSpec{Name: name, Replication: o.Replication, Configs: map[string]string{
			"retention.ms":    "-1",
			"retention.bytes": strconv.FormatInt(o.StateBytes, 10),
			"segment.bytes":   strconv.FormatInt(o.SegmentBytes, 10),
		}})
	}
	return p.log.client.CreateTopics(ctx, specs)
}

// Append implements [feed.Partition].
func (p *partition) Append(ctx context.Context, entries []feed.Entry) []error {
	return p.producer.append(ctx, entries, func(*feed.Entry) int32 { return 0 })
}

// Newest implements [feed.Partition].
func (p *partition) Newest(ctx context.Context, kafkaTopics []string, want func([]byte) bool) ([][]byte, error) {
	var values [][]byte
	var err error
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if values, err = p.newest(ctx, kafkaTopics, want); err == nil {
			return values, nil
		}
		p.trouble.fault(err)
		if !pause(ctx, wait) {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

func (p *partition) newest(ctx context.Context, kafkaTopics []string, want func([]byte) bool) ([][]byte, error) {
	c := p.log.client
	tps := make([]topicPartition, len(kafkaTopics))
	at := make(map[topicPartition]int, len(kafkaTopics))
	for i, name := range kafkaTopics {
		tps[i] = topicPartition{name, 0}
		at[tps[i]] = i
	}
	firsts, err := c.offsets(ctx, p.reads, offsetFirst, tps)
	if err != nil {
		return nil, err
	}
	ends, err := c.offsets(ctx, p.reads, offsetEnd, tps)
	if err != nil {
		return nil, err
	}
	values := make([][]byte, len(kafkaTopics))
	pending := tps
	for back := int64(newestBack); len(pending) > 0; back *= 8 {
		next := map[topicPartition]int64{} // where each is to be read on from
		for _, tp := range pending {
			if from := max(firsts[tp], ends[tp]-back); from < ends[tp] {
				next[tp] = from
			}
		}
		if err := p.readTo(ctx, next, ends, func(tp topicPartition, value []byte) {
			if want(value) {
				values[at[tp]] = append(values[at[tp]][:0], value...)
			}
		}); err != nil {
			return nil, err
		}
		left := pending[:0:0]
		for _, tp := range pending {
			if values[at[tp]] == nil && ends[tp]-back > firsts[tp] {
				left = append(left, tp)
			}
		}
		pending = left
	}
	return values, nil
}

// readTo reads every partition of next up to its end.
func (p *partition) readTo(ctx context.Context, next, ends map[topicPartition]int64, f func(topicPartition, []byte)) error {
	c := p.log.client
	for len(next) > 0 {
		tps := make([]topicPartition, 0, len(next))
		for tp := range next {
			tps = append(tps, tp)
		}
		groups, err := c.byLeader(ctx, tps)
		if err != nil {
			return err
		}
		for leader, list := range groups {
			k, err := p.reads.get(ctx, leader)
			if err != nil {
				return err
			}
			parts := make([]fetchPart, len(list))
			for i, tp := range list {
				parts[i] = fetchPart{tp, next[tp]}
			}
			err = k.fetch(ctx, parts, fetchSize{wait: pollWait, bytes: produceBytesMax, partBytes: 256 << 10},
				func(tp topicPartition, code kafka.Error, _ int64, data []byte) error {
					if code != 0 {
						c.forget(tp)
						return fmt.Errorf("%v: %w", tp, code)
					}
					to, err := decodeBatches(data, next[tp], func(r Record) { f(tp, r.Value) })
					next[tp] = to
					if to >= ends[tp] {
						delete(next, tp)
					}
					return err
				})
			if err != nil {
				p.reads.drop(leader)
				return err
			}
		}
	}
	return nil
}

// Commit implements [feed.Partition].
func (p *partition) Commit(_ context.Context, offset int64) error {
	return p.gen.CommitOffsets(map[string]map[int]int64{p.id.Topic: {int(p.id.Partition): offset}})
}

// fetchPart is where a partition is to be read from.
type fetchPart struct {
	tp     topicPartition
	offset int64
}

type fetchSize struct {
	wait             time.Duration
	bytes, partBytes int32
}

// fetch asks one broker for several partitions and calls f with the answer of
// each: its fault, its end and its batches.
func (k *conn) fetch(ctx context.Context, parts []fetchPart, size fetchSize, f func(tp topicPartition, code kafka.Error, end int64, data []byte) error) error {
	be := binary.BigEndian
	b := k.begin(protocol.Fetch)
	b = be.AppendUint32(b, 0xffffffff) // no replica
	b = be.AppendUint32(b, uint32(size.wait/time.Millisecond))
	b = be.AppendUint32(b, 1)
	b = be.AppendUint32(b, uint32(size.bytes))
	b = append(b, 0)                   // read uncommitted: we have no transactions
	b = be.AppendUint32(b, 0)          // no session
	b = be.AppendUint32(b, 0xffffffff) // nor a wish for one
	b = be.AppendUint32(b, uint32(len(parts)))
	for _, p := range parts {
		b = appendText(b, p.tp.topic)
		b = be.AppendUint32(b, 1)
		b = be.AppendUint32(b, uint32(p.tp.partition))
		b = be.AppendUint32(b, 0xffffffff) // leader epoch: unknown
		b = be.AppendUint64(b, uint64(p.offset))
		b = be.AppendUint64(b, 0xffffffffffffffff)
		b = be.AppendUint32(b, uint32(size.partBytes))
	}
	b = be.AppendUint32(b, 0) // nothing forgotten
	b = appendText(b, "")     // no rack
	answer, err := k.exchange(ctx, b, size.wait)
	if err != nil {
		return err
	}
	d := decoder{b: answer}
	d.int32() // throttle
	if code := kafka.Error(d.int16()); code != 0 {
		return code
	}
	d.int32() // session
	var topic []byte
	for topics := d.int32(); topics > 0 && !d.bad; topics-- {
		topic = d.take(max(0, int(d.int16())))
		for n := d.int32(); n > 0 && !d.bad; n-- {
			partition := d.int32()
			code := kafka.Error(d.int16())
			end := d.int64()
			d.int64()
			d.int64()
			for aborted := d.int32(); aborted > 0 && !d.bad; aborted-- {
				d.take(16)
			}
			d.int32()
			data := d.take(max(0, int(d.int32())))
			if d.bad {
				return errShort
			}
			tp := topicPartition{partition: partition}
			for i := range parts { // no allocation for a name that we have
				if parts[i].tp.partition == partition && bytes.Equal([]byte(parts[i].tp.topic), topic) {
					tp = parts[i].tp
					break
				}
			}
			if err := f(tp, code, end, data); err != nil {
				return err
			}
		}
	}
	if d.bad {
		return errShort
	}
	return nil
}
