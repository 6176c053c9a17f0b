package broker

import (
	"context"
	"fmt"
	"sync"

	"tickgate/feed"
)

// WriterOptions configure a [Writer].
type WriterOptions struct{}

// Writer writes records that nobody owns: raw messages of a replay or a market.
// It is idempotent: nothing is written twice by a retry.
type Writer struct {
	mu         sync.Mutex // one write at a time
	producer   *producer
	partitions map[string]int32
}

// NewWriter returns a writer. It opens no connection.
func (c *Client) NewWriter(WriterOptions) *Writer {
	return &Writer{producer: newProducer(c, ""), partitions: map[string]int32{}}
}

// Write writes entries in order and returns when all are acknowledged. An
// entry's partition is chosen by its key as Kafka's own producer does; without
// one it is partition 0.
func (w *Writer) Write(ctx context.Context, entries []feed.Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range entries {
		name := entries[i].KafkaTopic
		if _, ok := w.partitions[name]; ok {
			continue
		}
		info, err := w.producer.client.metadata(ctx, []string{name})
		if err != nil {
			return err
		}
		for _, t := range info.topics {
			if t.err != 0 {
				return &refusedError{"Kafka topic " + name, t.err}
			}
			w.partitions[name] = int32(t.Partitions)
		}
	}
	faults := w.producer.append(ctx, entries, func(e *feed.Entry) int32 {
		if e.Key == nil {
			return 0
		}
		return int32(murmur2(e.Key)&0x7fffffff) % max(1, w.partitions[e.KafkaTopic])
	})
	for i, err := range faults {
		if err != nil {
			return fmt.Errorf("entry %d of %d: %w", i, len(entries), err)
		}
	}
	return nil
}

// Close closes the writer's connections.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.producer.close()
}

// murmur2 is the hash by which Kafka's Java producer chooses partitions
// (org.apache.kafka.common.utils.Utils.murmur2), so that a key goes where other
// producers put it.
func murmur2(b []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
