package broker_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
	"tickgate/feed"
	"tickgate/feed/broker"
	"tickgate/feed/embedded"
	"tickgate/feed/venue"
)

// TestForeignRecordsCostNothing runs a feed, lets a stranger write garbage to a
// symbol's topic, and runs another feed: totals go on as if it were not there.
func TestForeignRecordsCostNothing(t *testing.T) {
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
	if err := client.CreateTopics(ctx, []broker.TopicSpec{{Name: "raw.binance"}}); err != nil {
		t.Fatal(err)
	}
	id := 0
	put := func(symbol string, n int) {
		t.Helper()
		var list []feed.Entry
		for range n {
			id++
			list = append(list, feed.Entry{KafkaTopic: "raw.binance", Key: []byte(symbol), Time: time.Now().UnixNano(),
				Value: fmt.Appendf(nil, `{"e":"trade","s":%q,"t":%d,"p":"2.50","q":"0.1","T":%d,"m":true}`, symbol, id, time.Now().UnixMilli())})
		}
		if err := w.Write(ctx, list); err != nil {
			t.Fatal(err)
		}
	}

	var mu sync.Mutex
	last := map[string]record.Record{}
	tailer := client.NewTailer(broker.TailOptions{Handle: func(_ string, _ int32, recs []broker.Record, _ int64) {
		mu.Lock()
		defer mu.Unlock()
		for _, rec := range recs {
			var r record.Record
			if record.Decode(rec.Value, &r) == nil && r.Kind != codec.KindFence {
				last[r.Symbol] = r
			}
		}
	}})
	tailing, stopTail := context.WithCancel(ctx)
	var tail sync.WaitGroup
	tail.Go(func() { tailer.Run(tailing) })
	defer tail.Wait()
	defer stopTail()

	// run lets a feed run until symbol has so many trades.
	run := func(symbol string, trades uint64) codec.State {
		t.Helper()
		f, err := feed.New(feed.Options{Log: client.Log(broker.LogOptions{}), RawTopics: []feed.RawTopic{{KafkaTopic: "raw.binance", Venue: venue.Binance}},
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		feeding, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := f.Run(feeding); err != nil {
				t.Errorf("feed: %v", err)
			}
		})
		defer wg.Wait()
		defer stop()
		tailer.Add("ticks."+symbol, broker.StartFirst)
		for {
			mu.Lock()
			r := last[symbol]
			mu.Unlock()
			if r.State.Trades == trades {
				return r.State
			}
			if ctx.Err() != nil {
				t.Fatalf("%s has %d trades, want %d", symbol, r.State.Trades, trades)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	put("AUSDT", 20)
	before := run("AUSDT", 20)
	garbage := []feed.Entry{{KafkaTopic: "ticks.AUSDT", Value: []byte("hello"), Time: 1}, {KafkaTopic: "ticks.AUSDT", Value: []byte{0x99, 1, 200}, Time: 1}, {KafkaTopic: "ticks.AUSDT", Time: 1}}
	if err := w.Write(ctx, garbage); err != nil {
		t.Fatal(err)
	}
	put("AUSDT", 5)
	put("BUSDT", 1)
	after := run("AUSDT", 25)
	if after.Epoch != before.Epoch || after.Seq != 25 || after.Volume.String() != "2.5" {
		t.Errorf("after the garbage: epoch %d, seq %d, volume %v; want %d, 25, 2.5", after.Epoch, after.Seq, after.Volume, before.Epoch)
	}
	if s := run("BUSDT", 1); s.Seq != 1 {
		t.Errorf("another symbol: %+v", s)
	}

	// A record of a later version is somebody's state: the symbol is refused
	// rather than counted from nothing, and the others go on.
	r := last["AUSDT"]
	newer := record.Append(nil, &r)
	newer[1] = 2
	if err := w.Write(ctx, []feed.Entry{{KafkaTopic: "ticks.AUSDT", Value: newer, Time: 1}}); err != nil {
		t.Fatal(err)
	}
	put("AUSDT", 1)
	put("BUSDT", 2)
	run("BUSDT", 3)
	mu.Lock()
	defer mu.Unlock()
	if got := last["AUSDT"].State.Trades; got != 25 {
		t.Errorf("the symbol of a newer tickgate was counted on: %d trades", got)
	}
}
