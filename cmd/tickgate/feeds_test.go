package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"tickgate/codec/record"
	"tickgate/feed"
	"tickgate/feed/broker"
	"tickgate/feed/market"
	"tickgate/feed/venue"
)

// TestFeedsShareRawPartitions lets a second feed join and the first one die
// while messages come in four raw partitions: every tick of every symbol is
// stamped once, in order.
func TestFeedsShareRawPartitions(t *testing.T) {
	kafka := startKafka(t)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	client, err := broker.New(broker.Options{Brokers: []string{kafka}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.CreateTopics(ctx, []broker.TopicSpec{{Name: "raw.binance", Partitions: 4}}); err != nil {
		t.Fatal(err)
	}
	w := client.NewWriter(broker.WriterOptions{})
	defer w.Close()
	m, err := market.New(market.Options{Symbols: 20, Rate: 1000})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{} // ticks by symbol
	v, _ := venue.Lookup("binance")
	put := func(n int) {
		t.Helper()
		var list []feed.Entry
		for range n {
			_, name, msg := m.Next()
			e := feed.Entry{KafkaTopic: "raw.binance", Key: []byte(name), Value: bytes.Clone(msg), Time: time.Now().UnixNano()}
			ticks, _, err := v.Normalize(nil, e.Value)
			if err != nil {
				t.Fatal(err)
			}
			want[name] += uint64(len(ticks))
			list = append(list, e)
		}
		if err := w.Write(ctx, list); err != nil {
			t.Fatal(err)
		}
	}

	log := &ticksLog{records: map[string][]record.Record{}, fences: map[string]int{}}
	tailer := client.NewTailer(broker.TailOptions{Handle: log.handle})
	tailing, stop := context.WithCancel(ctx)
	var tailDone sync.WaitGroup
	tailDone.Go(func() { tailer.Run(tailing) })
	defer tailDone.Wait()
	defer stop()
	all := func(what string) {
		t.Helper()
		for symbol, n := range want {
			tailer.Add("ticks."+symbol, broker.StartFirst)
			eventually(t, what+" of "+symbol, func() error {
				log.mu.Lock()
				defer log.mu.Unlock()
				if list := log.visible(symbol); uint64(len(list)) != n {
					return fmt.Errorf("%d ticks, want %d", len(list), n)
				}
				return nil
			})
		}
	}

	args := []string{"feed", "--brokers", kafka, "--raw", "binance", "--admin", "127.0.0.1:0"}
	first := start(t, args...)
	put(2000)
	all("one feed: all")
	second := start(t, args...)
	second.await(within, "raw partition taken")
	put(2000)
	all("two feeds: all")
	first.kill()
	put(2000)
	all("the second feed alone: all")
	second.interrupt()

	for symbol := range want {
		for i, r := range log.visible(symbol) {
			if r.State.Seq != uint64(i+1) {
				t.Fatalf("%s: record %d has sequence number %d", symbol, i, r.State.Seq)
			}
		}
	}
}
