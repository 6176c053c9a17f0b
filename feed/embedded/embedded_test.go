package embedded_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tickgate/feed"
	"tickgate/feed/broker"
	"tickgate/feed/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTakenPort(t *testing.T) {
	b, err := embedded.Start(embedded.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := embedded.Start(embedded.Options{Listen: b.Addr()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second broker on %s: %v", b.Addr(), err)
	}
}

// TestRetentionIsHonoured writes forty times what a topic may keep: what it
// still has is bounded.
func TestRetentionIsHonoured(t *testing.T) {
	const keep, written = 1 << 20, 40 << 20
	b, err := embedded.Start(embedded.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	client, err := broker.New(broker.Options{Brokers: []string{b.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.CreateTopics(t.Context(), []broker.TopicSpec{{Name: "x", Configs: map[string]string{
		"retention.ms": "-1", "retention.bytes": fmt.Sprint(keep), "segment.bytes": fmt.Sprint(keep / 8)}}}); err != nil {
		t.Fatal(err)
	}
	w := client.NewWriter(broker.WriterOptions{})
	defer w.Close()
	value := make([]byte, 1<<10)
	var list []feed.Entry
	for range 64 {
		list = append(list, feed.Entry{KafkaTopic: "x", Value: value, Time: time.Now().UnixNano()})
	}
	for n := 0; n < written; n += len(list) * len(value) {
		if err := w.Write(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	// What a reader from the beginning finds.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		first, end, err := client.Bounds(t.Context(), "x", 0)
		if err != nil {
			t.Fatal(err)
		}
		if held := (end - first) * int64(len(value)); held <= 2*keep {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the topic still holds %d bytes of %d, and may keep %d", held, written, keep)
		}
	}
}
