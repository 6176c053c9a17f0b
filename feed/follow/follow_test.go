package follow

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tickgate/codec"
	"tickgate/codec/record"
	"tickgate/feed"
	"tickgate/feed/broker"
	"tickgate/feed/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBoard notes what it is told.
type fakeBoard struct {
	mu     sync.Mutex
	seqs   map[string][]uint64
	states map[string][]string
	loaded map[string]bool
	begins map[string]bool
}

func (b *fakeBoard) Declare(symbol string, begins bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begins[symbol] = begins
}

func (b *fakeBoard) Loaded(symbol string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loaded[symbol] = true
}

func (b *fakeBoard) Publish(r *record.Record) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seqs[r.Symbol] = append(b.seqs[r.Symbol], r.State.Seq)
	return true
}

func (b *fakeBoard) SetState(symbol string, state codec.TopicState, _ int64, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := state.String()
	if why != "" {
		text += ": " + why
	}
	b.states[symbol] = append(b.states[symbol], text)
}

func (b *fakeBoard) last(symbol string) (state string, seqs []uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.states[symbol]; len(s) > 0 {
		state = s[len(s)-1]
	}
	return state, b.seqs[symbol]
}

// TestFollow: what lies in the per-symbol topics reaches the board once and in
// order, bad records harm nothing, and a topic is live while heartbeats come
// and stale when they end.
func TestFollow(t *testing.T) {
	kafka, err := embedded.Start(embedded.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer kafka.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := broker.New(broker.Options{Brokers: []string{kafka.Addr()}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	w := client.NewWriter(broker.WriterOptions{})
	defer w.Close()
	write := func(kafkaTopic string, values ...[]byte) {
		t.Helper()
		if err := client.CreateTopics(ctx, []broker.TopicSpec{{Name: kafkaTopic}}); err != nil {
			t.Fatal(err)
		}
		var list []feed.Entry
		for _, v := range values {
			list = append(list, feed.Entry{KafkaTopic: kafkaTopic, Value: v, Time: time.Now().UnixNano()})
		}
		if err := w.Write(ctx, list); err != nil {
			t.Fatal(err)
		}
	}
	tick := func(symbol string, seq uint64) []byte {
		return record.Append(nil, &record.Record{Kind: codec.KindQuote, Symbol: symbol, Venue: "binance", IngestTime: time.Now().UnixNano(),
			Source: codec.Source{Epoch: 1, Offset: int64(seq)}, State: codec.State{Epoch: 1, Seq: seq}})
	}
	beat := func() []byte {
		now := time.Now().UnixNano()
		return record.AppendHeartbeat(nil, &record.Heartbeat{RawTopic: "raw.binance", Venue: "binance", Position: 9, End: 9, LastTime: now, Time: now})
	}
	fence := record.Append(nil, &record.Record{Kind: codec.KindFence, Symbol: "A", Venue: "binance"})
	write("ticks.A", tick("A", 1), fence, tick("A", 2), []byte("garbage"), tick("B", 9), tick("A", 3))
	write("ticks.not-one", []byte("x")) // in lower case: no symbol
	write(feed.HeartbeatTopic, beat())

	board := &fakeBoard{seqs: map[string][]uint64{}, states: map[string][]string{}, loaded: map[string]bool{}, begins: map[string]bool{}}
	f, err := New(Options{Client: client, Board: board, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Discover: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	following, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		if err := f.Run(following); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	defer done.Wait()
	defer stop()

	beating, stopBeats := context.WithCancel(ctx)
	var beats sync.WaitGroup
	beats.Go(func() {
		for seq := uint64(4); beating.Err() == nil; seq++ {
			write(feed.HeartbeatTopic, beat())
			write("ticks.A", tick("A", seq))
			time.Sleep(100 * time.Millisecond)
		}
	})
	await(t, "A is live", func() error {
		if state, seqs := board.last("A"); state != "live" || len(seqs) < 5 {
			return fmt.Errorf("%s, %v", state, seqs)
		}
		return nil
	})
	write("ticks.LATE", tick("LATE", 1), tick("LATE", 2))
	await(t, "a topic that appears is read from its first record", func() error {
		if _, seqs := board.last("LATE"); fmt.Sprint(seqs) != "[1 2]" {
			return fmt.Errorf("%v", seqs)
		}
		return nil
	})
	stopBeats()
	beats.Wait()
	ended := time.Now()
	await(t, "A is stale", func() error {
		if state, _ := board.last("A"); state != "stale: no heartbeat from its feed" {
			return fmt.Errorf("%s", state)
		}
		return nil
	})
	if took := time.Since(ended); took > 4*time.Second {
		t.Errorf("stale was told after %v, twice the 2 s that it may take", took)
	}
	_, seqs := board.last("A")
	for i, seq := range seqs {
		if seq != uint64(i+1) {
			t.Fatalf("sequence %v", seqs)
		}
	}
	if !board.loaded["A"] || !board.loaded["LATE"] {
		t.Errorf("loaded: %v", board.loaded)
	}
	if board.begins["A"] || !board.begins["LATE"] {
		t.Errorf("begins: %v, want it of the topic that appeared", board.begins)
	}
}

func await(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: in vain: %v", what, err)
		}
	}
}
