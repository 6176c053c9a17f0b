package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/initproducerid"

	"tickgate/feed"
)

// Bounds of producing.
const (
	// batchBytesMax bounds a record batch: brokers take 1 MiB by default.
	batchBytesMax = 512 << 10
	// produceBytesMax bounds a request.
	produceBytesMax = 8 << 20
	// produceTime is how long the outcome of a batch is waited for: long
	// enough for a broker to be replaced, short enough that a symbol which
	// cannot be written does not hold up its raw partition for ever.
	produceTime = 30 * time.Second
	// ackTime is how long a broker may wait for its in-sync replicas.
	ackTime = 10 * time.Second
	// transactionTime is told for our transactional ids, which never begin a
	// transaction.
	transactionTime = time.Minute
)

// producer is an idempotent producer, used by one goroutine: one batch of a
// partition in flight, and the same sequence numbers until its outcome is
// known. With a transactional id, a later producer of that id fences it.
type producer struct {
	client *Client
	pool   *pool
	txID   string

	ready bool
	id    int64
	era   int16
	seqs  map[topicPartition]int32
}

func newProducer(c *Client, txID string) *producer {
	return &producer{client: c, pool: newPool(c), txID: txID}
}

// init gets a producer id, or a higher era of the one that the transactional
// id has.
func (p *producer) init(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, produceTime)
	defer cancel()
	var last error
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		res, err := p.ask(ctx)
		if err == nil {
			switch code := kafka.Error(res.ErrorCode); {
			case code == 0:
				p.id, p.era, p.ready = res.ProducerID, res.ProducerEpoch, true
				p.seqs = map[topicPartition]int32{}
				return nil
			case code == kafka.InvalidProducerEpoch || code == errProducerFenced:
				return feed.ErrFenced
			case code.Temporary() || code == kafka.ConcurrentTransactions:
				err = code
			default:
				return fmt.Errorf("producer id for %q: %w", p.txID, code)
			}
		}
		last = err
		if !pause(ctx, wait) {
			return errors.Join(ctx.Err(), last)
		}
	}
}

// errProducerFenced is what newer brokers say instead of InvalidProducerEpoch.
const errProducerFenced kafka.Error = 90

func (p *producer) ask(ctx context.Context) (*initproducerid.Response, error) {
	c := p.client
	c.mu.Lock()
	k, err := c.dialAnyLocked(ctx)
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	defer func() { k.Close() }()
	if p.txID != "" {
		res, err := k.ask(ctx, &findcoordinator.Request{Key: p.txID, KeyType: 1})
		if err != nil {
			return nil, err
		}
		at := res.(*findcoordinator.Response)
		if at.ErrorCode != 0 {
			return nil, kafka.Error(at.ErrorCode)
		}
		k.Close()
		if k, err = c.dial(ctx, net.JoinHostPort(at.Host, strconv.Itoa(int(at.Port)))); err != nil {
			return nil, err
		}
	}
	res, err := k.ask(ctx, &initproducerid.Request{TransactionalID: p.txID, TransactionTimeoutMs: int32(transactionTime / time.Millisecond), ProducerID: -1, ProducerEpoch: -1})
	if err != nil {
		return nil, err
	}
	return res.(*initproducerid.Response), nil
}

// write writes batches, at most one of each partition, and returns when the
// outcome of each is known or given up; it is in batch.err.
func (p *producer) write(ctx context.Context, batches []*batch) {
	deadline := time.Now().Add(produceTime)
	giveUp, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var last error
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		left := batches[:0:0]
		tps := make([]topicPartition, 0, len(batches))
		for _, b := range batches {
			if !b.done {
				left = append(left, b)
				tps = append(tps, b.tp)
			}
		}
		if len(left) == 0 {
			return
		}
		if err := giveUp.Err(); err != nil {
			for _, b := range left {
				b.done, b.err = true, fmt.Errorf("%w: %w", feed.ErrUnknownOutcome, errors.Join(err, last))
			}
			p.ready = false // the sequence numbers are in doubt: a new era next time
			return
		}
		progress := false
		if err := p.prepare(giveUp, left); err != nil {
			if errors.Is(err, feed.ErrFenced) {
				for _, b := range left {
					b.done, b.err = true, err
				}
				return
			}
			last = err
		} else if groups, err := p.client.byLeader(giveUp, tps); err != nil {
			last = err
		} else {
			for leader, list := range groups {
				mine := left[:0:0]
				for _, b := range left {
					for _, tp := range list {
						if b.tp == tp {
							mine = append(mine, b)
						}
					}
				}
				done, err := p.send(giveUp, leader, mine)
				progress = progress || done
				if err != nil {
					last = err
				}
			}
		}
		if progress {
			wait = 5 * time.Millisecond
			continue
		}
		p.client.metrics.produceRetries.Inc()
		pause(giveUp, wait)
	}
}

// prepare makes sure of a producer id and seals what is not sealed yet.
func (p *producer) prepare(ctx context.Context, batches []*batch) error {
	if !p.ready {
		for _, b := range batches { // sealed for the era that has ended
			if b.sealed {
				b.done, b.err = true, fmt.Errorf("%w: the producer's era ended", feed.ErrUnknownOutcome)
			}
		}
		if err := p.init(ctx); err != nil {
			return err
		}
	}
	for _, b := range batches {
		if !b.sealed {
			b.seal(p.id, p.era, p.seqs[b.tp])
		}
	}
	return nil
}

// send writes one request to a broker and notes the outcomes that it tells.
func (p *producer) send(ctx context.Context, leader int32, batches []*batch) (progress bool, err error) {
	k, err := p.pool.get(ctx, leader)
	if err != nil {
		p.forget(batches)
		return false, err
	}
	b := k.begin(protocol.Produce)
	b = binary.BigEndian.AppendUint16(b, 0xffff) // not in a transaction
	b = binary.BigEndian.AppendUint16(b, 0xffff) // all in-sync replicas
	b = binary.BigEndian.AppendUint32(b, uint32(ackTime/time.Millisecond))
	at, n := len(b), uint32(0)
	b = append(b, 0, 0, 0, 0)
	for _, w := range batches {
		if n > 0 && len(b)+len(w.b) > produceBytesMax {
			break // the next request's
		}
		b = appendText(b, w.tp.topic)
		b = binary.BigEndian.AppendUint32(b, 1)
		b = binary.BigEndian.AppendUint32(b, uint32(w.tp.partition))
		b = binary.BigEndian.AppendUint32(b, uint32(len(w.b)))
		b = append(b, w.b...)
		n++
	}
	binary.BigEndian.PutUint32(b[at:], n)
	answer, err := k.exchange(ctx, b, ackTime)
	if err != nil {
		p.pool.drop(leader)
		p.forget(batches)
		return false, err
	}
	d := decoder{b: answer}
	for topics := d.int32(); topics > 0 && !d.bad; topics-- {
		topic := d.text()
		for parts := d.int32(); parts > 0 && !d.bad; parts-- {
			tp := topicPartition{topic, d.int32()}
			code := kafka.Error(d.int16())
			d.take(8 + 8 + 8) // base offset, append time, log start
			for faults := d.int32(); faults > 0 && !d.bad; faults-- {
				d.int32()
				d.text()
			}
			message := d.text()
			for _, w := range batches {
				if w.tp == tp && !d.bad {
					if fault := p.outcome(w, code, message); fault != nil {
						err = fault
					}
					progress = progress || w.done
				}
			}
		}
	}
	if d.bad {
		p.pool.drop(leader)
		return progress, errShort
	}
	return progress, err
}

// outcome notes what a broker says of a batch; an error means: try again.
func (p *producer) outcome(w *batch, code kafka.Error, message string) error {
	switch code {
	case 0, kafka.DuplicateSequenceNumber: // it is in the log, now or since the last try
		w.done = true
		p.seqs[w.tp] = w.seq + w.n
		p.client.metrics.produced.Add(float64(w.n))
		return nil
	case kafka.InvalidProducerEpoch, errProducerFenced:
		w.done, w.err = true, feed.ErrFenced
		return nil
	case kafka.OutOfOrderSequenceNumber, errUnknownProducer:
		// The broker no longer knows what came before this batch.
		w.done, w.err = true, fmt.Errorf("%w: %w", feed.ErrUnknownOutcome, code)
		p.ready = false
		return nil
	case kafka.UnknownTopicOrPartition, kafka.LeaderNotAvailable, kafka.NotLeaderForPartition, kafka.RequestTimedOut,
		kafka.NotEnoughReplicas, kafka.NotEnoughReplicasAfterAppend, kafka.NetworkException, kafka.KafkaStorageError, kafka.ReplicaNotAvailable:
		p.client.forget(w.tp)
		return fmt.Errorf("%v: %w", w.tp, code)
	}
	w.done, w.err = true, &refusedError{"Kafka topic " + w.tp.topic, fmt.Errorf("%w %s", code, message)}
	return nil
}

const errUnknownProducer kafka.Error = 59

func (p *producer) forget(batches []*batch) {
	for _, b := range batches {
		p.client.forget(b.tp)
	}
}

// append writes entries in order, and returns nil or an error for each.
func (p *producer) append(ctx context.Context, entries []feed.Entry, partition func(*feed.Entry) int32) []error {
	faults := make([]error, len(entries))
	failed := false
	bad := map[topicPartition]error{}
	for from := 0; from < len(entries); {
		// One batch of each partition, as many entries as they hold.
		at := map[topicPartition]*batch{}
		var batches []*batch
		to := from
		of := make([]*batch, 0, len(entries)-from)
		for ; to < len(entries); to++ {
			e := &entries[to]
			tp := topicPartition{e.KafkaTopic, partition(e)}
			b := at[tp]
			if b == nil {
				b = &batch{tp: tp}
				if err := bad[tp]; err != nil { // what follows a failure must not overtake it
					b.done, b.err = true, err
				}
				at[tp] = b
				batches = append(batches, b)
			}
			if b.n > 0 && len(b.b)+len(e.Key)+len(e.Value) > batchBytesMax {
				break
			}
			b.add(e)
			of = append(of, b)
		}
		p.write(ctx, batches)
		for i, b := range of {
			if b.err != nil {
				faults[from+i], failed = b.err, true
				bad[b.tp] = b.err
			}
		}
		from = to
	}
	if !failed {
		return nil
	}
	return faults
}

func (p *producer) close() { p.pool.close() }
