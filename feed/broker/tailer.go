package broker

import (
	"context"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"
)

// StartAt is where a tailer begins to read a Kafka topic.
type StartAt int64

// Where to begin; see [StartBack].
const (
	StartFirst StartAt = -2 // at the first record that there is
	StartEnd   StartAt = 0  // after the last
)

// StartBack begins so many records before the end.
func StartBack(n int64) StartAt { return StartAt(max(0, n)) }

// TailOptions configure a [Tailer].
type TailOptions struct {
	// Handle takes the records of a partition in order, with the partition's
	// end as of the fetch. It is called once without records if there are
	// none. Calls of one partition never overlap; those of several may.
	Handle func(kafkaTopic string, partition int32, recs []Record, end int64)
}

// Bounds of a tailer.
const (
	// tailWait is the long poll: how late a topic that is added may start.
	tailWait = 100 * time.Millisecond
	// tailBytesMax bounds an answer, and tailPartBytesMax what one partition
	// may have of it.
	tailBytesMax     = 8 << 20
	tailPartBytesMax = 256 << 10
	// tailRefresh is the time between two looks for partitions without a
	// leader or without a place to begin.
	tailRefresh = 100 * time.Millisecond
)

// Tailer follows many Kafka topics over one connection a broker.
type Tailer struct {
	client *Client
	handle func(string, int32, []Record, int64)
	kick   chan struct{}

	mu    sync.Mutex
	parts map[topicPartition]*tailPart
}

// tailPart is one partition that is followed.
type tailPart struct {
	tp    topicPartition
	start StartAt

	// Guarded by Tailer.mu; offset and told are written by the fetch loop of
	// leader only.
	leader int32 // -1: not known
	offset int64 // -1: not known
	told   bool  // Handle has been called
}

// NewTailer returns a tailer that follows nothing yet.
func (c *Client) NewTailer(opts TailOptions) *Tailer {
	return &Tailer{client: c, handle: opts.Handle, kick: make(chan struct{}, 1), parts: map[topicPartition]*tailPart{}}
}

// Add follows partition 0 of a Kafka topic, which need not exist yet.
func (t *Tailer) Add(kafkaTopic string, start StartAt) {
	t.mu.Lock()
	tp := topicPartition{kafkaTopic, 0}
	if t.parts[tp] == nil {
		t.parts[tp] = &tailPart{tp: tp, start: start, leader: -1, offset: -1}
	}
	t.mu.Unlock()
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// Remove ends the following of a Kafka topic. A call of Handle may still be
// under way.
func (t *Tailer) Remove(kafkaTopic string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.parts, topicPartition{kafkaTopic, 0})
}

// Run follows until ctx is done; faults are tried again for ever.
func (t *Tailer) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	defer loops.Wait()
	running := map[int32]chan struct{}{}
	reads := newPool(t.client)
	defer reads.close()
	trouble := complaint{log: t.client.opts.Logger, what: "Kafka topics cannot be followed"}
	tick := time.NewTicker(tailRefresh)
	defer tick.Stop()
	for {
		err := t.place(ctx, reads)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			trouble.fault(err)
		} else {
			trouble.fine()
		}
		t.mu.Lock()
		for _, p := range t.parts {
			if p.leader >= 0 && running[p.leader] == nil {
				id, wake := p.leader, make(chan struct{}, 1)
				running[id] = wake
				loops.Go(func() { t.follow(ctx, id, wake) })
			}
		}
		t.mu.Unlock()
		for _, wake := range running {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.kick:
		case <-tick.C:
		}
	}
}

// place finds leader and offset of the partitions that lack them.
func (t *Tailer) place(ctx context.Context, reads *pool) error {
	var lost []*tailPart
	t.mu.Lock()
	for _, p := range t.parts {
		if p.leader < 0 {
			lost = append(lost, p)
		}
	}
	t.mu.Unlock()
	if len(lost) == 0 {
		return nil
	}
	names := make([]string, len(lost))
	for i, p := range lost {
		names[i] = p.tp.topic
		t.client.forget(p.tp)
	}
	info, err := t.client.metadata(ctx, names)
	if err != nil {
		return err
	}
	leaders := map[topicPartition]int32{}
	for _, topic := range info.topics {
		if topic.err == 0 {
			for partition, leader := range topic.leaders {
				leaders[topicPartition{topic.Name, partition}] = leader
			}
		}
	}
	var first, end map[topicPartition]int64
	var unplaced []topicPartition
	for _, p := range lost {
		if leader, ok := leaders[p.tp]; ok && leader >= 0 && p.offset < 0 {
			unplaced = append(unplaced, p.tp)
		}
	}
	if len(unplaced) > 0 {
		if first, err = t.client.offsets(ctx, reads, offsetFirst, unplaced); err != nil {
			return err
		}
		if end, err = t.client.offsets(ctx, reads, offsetEnd, unplaced); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range lost {
		leader, ok := leaders[p.tp]
		if !ok || leader < 0 {
			continue // not there yet: asked again
		}
		if p.offset < 0 {
			if p.start == StartFirst {
				p.offset = first[p.tp]
			} else {
				p.offset = max(first[p.tp], end[p.tp]-int64(p.start))
			}
		}
		p.leader = leader
	}
	return nil
}

// follow is the fetch loop of one broker.
func (t *Tailer) follow(ctx context.Context, leader int32, wake <-chan struct{}) {
	reads := newPool(t.client)
	defer reads.close()
	var parts []fetchPart
	var recs []Record
	for ctx.Err() == nil {
		parts = parts[:0]
		t.mu.Lock()
		for _, p := range t.parts {
			if p.leader == leader {
				parts = append(parts, fetchPart{p.tp, p.offset})
			}
		}
		t.mu.Unlock()
		if len(parts) == 0 {
			select {
			case <-ctx.Done():
			case <-wake:
			}
			continue
		}
		k, err := reads.get(ctx, leader)
		if err == nil {
			err = k.fetch(ctx, parts, fetchSize{wait: tailWait, bytes: tailBytesMax, partBytes: tailPartBytesMax},
				func(tp topicPartition, code kafka.Error, end int64, data []byte) error {
					recs = t.took(leader, tp, code, end, data, recs[:0])
					return nil
				})
		}
		if err != nil && ctx.Err() == nil {
			t.client.metrics.fetchFaults.Inc()
			reads.drop(leader)
			t.lose(parts, leader)
			pause(ctx, tailRefresh)
		}
	}
}

// took handles one partition's part of an answer.
func (t *Tailer) took(leader int32, tp topicPartition, code kafka.Error, end int64, data []byte, recs []Record) []Record {
	t.mu.Lock()
	p := t.parts[tp]
	if p == nil || p.leader != leader {
		t.mu.Unlock()
		return recs
	}
	offset, told := p.offset, p.told
	t.mu.Unlock()
	next, fault := offset, error(nil)
	if code == 0 {
		next, fault = decodeBatches(data, offset, func(r Record) { recs = append(recs, r) })
		if len(recs) > 0 || !told {
			t.handle(tp.topic, tp.partition, recs, end)
			t.client.metrics.fetched.Add(float64(len(recs)))
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p.told = p.told || code == 0
	switch {
	case code == kafka.OffsetOutOfRange: // retention passed us, or it is another topic of that name
		p.leader, p.offset, p.start = -1, -1, StartFirst
	case code != 0 || fault != nil:
		p.leader = -1
		if fault != nil {
			t.client.opts.Logger.Error("a batch cannot be read", "partition", tp.String(), "offset", next, "error", fault)
			t.client.metrics.fetchFaults.Inc()
		}
		p.offset = next
	default:
		p.offset = next
	}
	return recs
}

// lose has the partitions' leader looked for again.
func (t *Tailer) lose(parts []fetchPart, leader int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, part := range parts {
		if p := t.parts[part.tp]; p != nil && p.leader == leader {
			p.leader = -1
		}
	}
}
