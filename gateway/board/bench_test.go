package board

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
)

func trade(seq uint64) *record.Record {
	one := codec.MustDecimal("1.25")
	tr := codec.Trade{No: seq, Seq: seq, Price: codec.MustDecimal("64123.45"), Size: one, IngestTime: 1_800_000_000_000_000_000 + int64(seq)*1e6, Flags: codec.TradeOrdinary}
	return &record.Record{Kind: codec.KindTrade, Symbol: "BTCUSDT", IngestTime: tr.IngestTime, Trade: tr,
		Source: codec.Source{Epoch: 1, Offset: int64(seq)}, State: codec.State{Epoch: 1, Seq: seq, TradeNo: seq, Trades: seq, Last: tr}}
}

// next makes r the record after it.
func next(r *record.Record) {
	r.State.Seq++
	r.State.TradeNo++
	r.State.Trades++
	r.Source.Offset++
	r.Trade.No, r.Trade.Seq = r.State.TradeNo, r.State.Seq
	r.IngestTime += 1e6
	r.Trade.IngestTime = r.IngestTime
	r.State.Last = r.Trade
}

// BenchmarkPublish is what a tick costs the one who publishes it: with nobody
// who watches, and with two shards that read it at once.
func BenchmarkPublish(b *testing.B) {
	b.Run("watchers=0", func(b *testing.B) {
		board, r := filled(b)
		b.ReportAllocs()
		for b.Loop() {
			next(r)
			board.Publish(r)
		}
	})
	b.Run("watchers=2", func(b *testing.B) {
		board, r := filled(b)
		done := make(chan struct{})
		var readers sync.WaitGroup
		defer readers.Wait()
		defer close(done)
		for range 2 {
			w, err := board.Watch()
			if err != nil {
				b.Fatal(err)
			}
			t := board.Topics()[0]
			w.Interest(t)
			w.Prompt(t, true)
			readers.Go(func() {
				var v View
				read := func(uint32) { t.Read(&v) }
				for {
					w.Take(read)
					if w.Sleep(1, false) {
						select {
						case <-w.C():
						case <-done:
							return
						}
					}
					w.Awake()
				}
			})
		}
		took := make([]time.Duration, 0, 1<<20)
		b.ReportAllocs()
		for b.Loop() {
			next(r)
			began := time.Now()
			board.Publish(r)
			if len(took) < cap(took) {
				took = append(took, time.Since(began))
			}
			runtime.Gosched() // or two readers and one publisher share two cores unfairly
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
		b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
	})
}

// filled is a board whose one topic's ring has its full size.
func filled(tb testing.TB) (*Board, *record.Record) {
	tb.Helper()
	board, err := New(Options{})
	if err != nil {
		tb.Fatal(err)
	}
	r := trade(1)
	board.Publish(r)
	for range ringMax + 1 {
		next(r)
		board.Publish(r)
	}
	return board, r
}

func TestPublishAllocatesNothing(t *testing.T) {
	board, r := filled(t)
	if n := testing.AllocsPerRun(1000, func() { next(r); board.Publish(r) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
