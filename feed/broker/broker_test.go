package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tickgate/feed"
	"tickgate/feed/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waiting in these tests.
const patience = time.Minute

// cluster is a broker of the test's own, or the real one that TICKGATE_KAFKA
// names. Topics get names of their own.
func cluster(t *testing.T) (*Client, func(name string) string) {
	t.Helper()
	addr := os.Getenv("TICKGATE_KAFKA")
	if addr == "" {
		b, err := embedded.Start(embedded.Options{Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		addr = b.Addr()
	}
	c, err := New(Options{Brokers: []string{addr}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	mark := time.Now().UnixNano()
	return c, func(name string) string { return fmt.Sprintf("%s-%d", name, mark) }
}

func entries(kafkaTopic string, from, to int) []feed.Entry {
	var list []feed.Entry
	for i := from; i < to; i++ {
		list = append(list, feed.Entry{KafkaTopic: kafkaTopic, Key: []byte("k"), Value: fmt.Appendf(nil, "value %d", i),
			Time: int64(1_700_000_000_000+i) * 1e6, Headers: []feed.Header{{Key: "n", Value: fmt.Append(nil, i)}}})
	}
	return list
}

func TestWriterTailerKafka(t *testing.T) {
	c, name := cluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	late, early, empty := name("late"), name("early"), name("empty")
	if err := c.CreateTopics(ctx, []TopicSpec{{Name: early}, {Name: empty}}); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopics(ctx, []TopicSpec{{Name: early}}); err != nil {
		t.Errorf("creating again: %v", err)
	}
	w := c.NewWriter(WriterOptions{})
	defer w.Close()
	if err := w.Write(ctx, entries(early, 0, 5000)); err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	got := map[string][]string{}
	called := map[string]int{}
	tailer := c.NewTailer(TailOptions{Handle: func(kafkaTopic string, _ int32, recs []Record, end int64) {
		mu.Lock()
		defer mu.Unlock()
		called[kafkaTopic]++
		for _, r := range recs {
			if h := r.Headers(); len(h) != 1 || h[0].Key != "n" {
				t.Errorf("headers %v", h)
			}
			if end <= r.Offset {
				t.Errorf("offset %d, but end %d", r.Offset, end)
			}
			got[kafkaTopic] = append(got[kafkaTopic], string(r.Value))
		}
	}})
	tailing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { tailer.Run(tailing) })
	defer wg.Wait()
	defer stop()
	tailer.Add(early, StartBack(10))
	tailer.Add(late, StartFirst)
	tailer.Add(empty, StartEnd)
	await(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		if called[empty] == 0 {
			return errors.New("an empty topic was never told")
		}
		if len(got[early]) != 10 || got[early][0] != "value 4990" {
			return fmt.Errorf("early: %v", got[early])
		}
		return nil
	})
	if err := c.CreateTopics(ctx, []TopicSpec{{Name: late}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(ctx, append(entries(late, 0, 100), entries(early, 5000, 5001)...)); err != nil {
		t.Fatal(err)
	}
	await(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(got[late]) != 100 || len(got[early]) != 11 {
			return fmt.Errorf("%d of late, %d of early", len(got[late]), len(got[early]))
		}
		return nil
	})
	list, err := c.Topics(ctx, "early-")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, info := range list {
		if info.Name == early {
			found = info.ID != [16]byte{} && info.Partitions == 1
		}
	}
	if !found {
		t.Errorf("%s is not in %v with its id", early, list)
	}
}

func await(t *testing.T, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestOwnershipKafka lets a second owner take a raw partition over: the first
// is fenced where the second has appended, and the second reads what the first
// wrote last.
func TestOwnershipKafka(t *testing.T) {
	c, name := cluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	raw, state := name("raw"), name("state")
	log := c.Log(LogOptions{Group: name("group")}).(*groupLog)
	first := newPartition(log, nil, feed.PartitionID{Topic: raw}, 0)
	defer first.close()
	second := newPartition(log, nil, feed.PartitionID{Topic: raw}, 0)
	defer second.close()
	if err := first.producer.init(ctx); err != nil {
		t.Fatal(err)
	}
	if err := first.Prepare(ctx, []string{state}); err != nil {
		t.Fatal(err)
	}
	put := func(p *partition, value string) error {
		faults := p.Append(ctx, []feed.Entry{{KafkaTopic: state, Value: []byte(value), Time: time.Now().UnixNano()}})
		if faults == nil {
			return nil
		}
		return faults[0]
	}
	if err := put(first, "tick 1"); err != nil {
		t.Fatal(err)
	}
	if err := second.producer.init(ctx); err != nil {
		t.Fatal(err)
	}
	if second.Era() <= first.Era() {
		t.Errorf("the second owner's era %d is not above the first's %d", second.Era(), first.Era())
	}
	for _, v := range []string{"fence", "fence", "fence"} {
		if err := put(second, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(first, "tick 2"); !errors.Is(err, feed.ErrFenced) {
		t.Errorf("the first owner's append after the fence: %v, want %v", err, feed.ErrFenced)
	}
	values, err := second.Newest(ctx, []string{state}, func(v []byte) bool { return string(v) != "fence" })
	if err != nil || string(values[0]) != "tick 1" {
		t.Errorf("newest %q, %v; want tick 1", values, err)
	}
	if err := second.Prepare(ctx, []string{name("bare")}); err != nil {
		t.Fatal(err)
	}
	values, err = second.Newest(ctx, []string{name("bare"), state}, func(v []byte) bool { return string(v) == "fence" })
	if err != nil || values[0] != nil || string(values[1]) != "fence" {
		t.Errorf("newest %q, %v; want none and a fence", values, err)
	}
}

// TestConsumeKafka reads a raw topic through the group, commits, gives the
// partition up and takes it again from where it was committed.
func TestConsumeKafka(t *testing.T) {
	c, name := cluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	raw := name("raw")
	w := c.NewWriter(WriterOptions{})
	defer w.Close()
	log := c.Log(LogOptions{Group: name("group")})
	if err := c.CreateTopics(ctx, []TopicSpec{{Name: raw, Configs: map[string]string{"retention.ms": "-1"}}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(ctx, entries(raw, 0, 100)); err != nil {
		t.Fatal(err)
	}
	read := func(from, upTo int64, commit int64) {
		t.Helper()
		consuming, stop := context.WithCancel(ctx)
		defer stop()
		err := log.Consume(consuming, []string{raw}, func(ctx context.Context, p feed.Partition) error {
			if p.Position() != from {
				t.Errorf("position %d, want %d", p.Position(), from)
			}
			next := from
			for next < upTo {
				b, err := p.Poll(ctx)
				if err != nil {
					return err
				}
				for _, m := range b.Messages {
					if m.Offset != next || string(m.Value) != fmt.Sprintf("value %d", next) {
						t.Errorf("offset %d: %q, want offset %d", m.Offset, m.Value, next)
					}
					next++
				}
			}
			if err := p.Commit(ctx, commit); err != nil {
				t.Errorf("commit: %v", err)
			}
			stop()
			return nil
		})
		if err != nil {
			t.Errorf("consume: %v", err)
		}
	}
	read(0, 100, 40)
	read(40, 100, 100)
}

func TestPollBeyondTheEndsKafka(t *testing.T) {
	c, name := cluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	raw := name("raw")
	if err := c.CreateTopics(ctx, []TopicSpec{{Name: raw}}); err != nil {
		t.Fatal(err)
	}
	log := c.Log(LogOptions{Group: name("group")}).(*groupLog)
	p := newPartition(log, nil, feed.PartitionID{Topic: raw}, 500)
	defer p.close()
	b, err := p.Poll(ctx)
	if err != nil || !b.Reset || p.Position() != 0 {
		t.Errorf("beyond the end: %+v, %v, position %d; want a reset to 0", b, err, p.Position())
	}
}

func TestUnreachable(t *testing.T) {
	c, err := New(Options{Brokers: []string{"127.0.0.1:1"}, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Topics(t.Context(), ""); err == nil {
		t.Error("no error from a broker that is not there")
	}
	if _, err := New(Options{Brokers: []string{"nowhere"}, SASL: SASL{Mechanism: "x"}}); err == nil {
		t.Error("no error for a broker without a port and an unknown mechanism")
	}
}

// TestMurmur2 has the values of Kafka's own UtilsTest.
func TestMurmur2(t *testing.T) {
	for in, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(murmur2([]byte(in))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", in, got, want)
		}
	}
}
