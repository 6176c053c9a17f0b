package feed

import (
	"context"
	"errors"
	"fmt"
)

// Header is a Kafka record header.
type Header struct {
	Key   string
	Value []byte
}

// Message is one raw record. Its bytes are valid until the next Poll.
type Message struct {
	Offset     int64
	Time       int64 // Unix ns: the record's timestamp
	Key, Value []byte
	Headers    []Header
}

// Batch is what one Poll found.
type Batch struct {
	Messages []Message
	// End is the raw partition's end (its high watermark) when the batch was
	// read: our lag is End minus the last offset minus one.
	End int64
	// LostFrom and LostTo are raw offsets that retention took before we read
	// them, From included; equal if none were lost.
	LostFrom, LostTo int64
	// Reset tells that our position lay beyond the raw partition's end: it is
	// another log than the one we knew, read from its start again.
	Reset bool
}

// Entry is one record to append. Its bytes must stay unchanged until Append
// returns.
type Entry struct {
	KafkaTopic string
	Key, Value []byte
	Time       int64 // Unix ns
	Headers    []Header
}

// PartitionID names a raw partition.
type PartitionID struct {
	Topic     string
	TopicID   [16]byte // Kafka's id of the topic; zero if the broker tells none
	Partition int32
}

var (
	// ErrFenced says that another feed owns the raw partition now: the owner
	// must stop at once.
	ErrFenced = errors.New("another feed has taken this raw partition")
	// ErrUnknownOutcome says that an append may or may not be in the log.
	ErrUnknownOutcome = errors.New("outcome of the append unknown")
	// ErrRefused says that the broker will never do what was asked.
	ErrRefused = errors.New("refused for good")
)

// Log is what a feed needs of Kafka. feed/broker fulfils it on a cluster.
type Log interface {
	// Consume joins the consumer group and calls own for each raw partition
	// this feed is given, each in a goroutine of its own, until ctx is done.
	// The context of own ends when the partition is to be given up; the group
	// goes on only when every own of the old generation has returned. If own
	// returns an error while its partition is held, the partition is given up
	// and taken again after a pause. Consume returns nil when ctx is done.
	Consume(ctx context.Context, rawTopics []string, own func(context.Context, Partition) error) error
}

// Partition is one raw partition in the hands of its owner, with a producer
// that is fenced with it: once a newer owner has appended to a Kafka topic,
// Append there fails with [ErrFenced]. It is used by one goroutine.
type Partition interface {
	ID() PartitionID
	// Era is the producer epoch of this ownership; later owners have higher ones.
	Era() int16
	// Position is the raw offset that the next Poll starts from.
	Position() int64
	// SeekTo makes the next Poll start from offset.
	SeekTo(offset int64)

	// Poll waits for raw messages, at most for a moment (100 ms): a batch may
	// be empty. Connection faults are retried inside; an error is final.
	Poll(ctx context.Context) (Batch, error)

	// Prepare creates those of the Kafka topics that do not exist, with the
	// retention of state topics (by size, never by time). [ErrRefused] is of at
	// least one of them.
	Prepare(ctx context.Context, kafkaTopics []string) error

	// Append appends entries in order, one batch a Kafka topic, acknowledged
	// by all in-sync replicas and never twice; it retries with the same
	// sequence numbers until each outcome is known or given up. It returns nil
	// if all were appended, else an error per entry: nil, [ErrFenced],
	// [ErrUnknownOutcome], or why the broker refused it (it is not in the log).
	Append(ctx context.Context, entries []Entry) []error

	// Newest returns, per Kafka topic, the value of the newest record for
	// which want is true, nil if there is none. It sees all that Append has
	// acknowledged. Values are the caller's.
	Newest(ctx context.Context, kafkaTopics []string, want func(value []byte) bool) ([][]byte, error)

	// Commit notes that all raw offsets below offset are taken.
	Commit(ctx context.Context, offset int64) error
}

// kafkaTopicBytesMax is Kafka's: a topic is a folder's name.
const kafkaTopicBytesMax = 249

// CheckKafkaTopic tells why no broker would have a topic of that name. A wrong
// name is not refused as such by all of them, and would be tried for ever.
func CheckKafkaTopic(name string) error {
	legal := len(name) > 0 && len(name) <= kafkaTopicBytesMax && name != "." && name != ".."
	for _, c := range []byte(name) {
		legal = legal && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
	}
	if !legal {
		return fmt.Errorf("Kafka topic %q: want [a-zA-Z0-9._-]{1,%d}", name, kafkaTopicBytesMax)
	}
	return nil
}
