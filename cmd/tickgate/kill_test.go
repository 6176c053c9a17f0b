package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
	"tickgate/feed"
	"tickgate/feed/broker"
	"tickgate/feed/sharedtest"
	"tickgate/feed/venue"
)

// kills is how often the feed is killed while raw messages are unread.
const kills = 5

// TestKillLeavesNoTrace kills the feed with SIGKILL at random moments while raw
// messages are unread, and starts it again. What a client could see of every
// symbol, fences and repeats removed, must equal an undisturbed run, record for
// record.
func TestKillLeavesNoTrace(t *testing.T) {
	raw := rawEntries(t,
		sharedtest.Path(t, "data", "ticks", "binance", "spot_btcusdt_20240808.raw.gz"),
		sharedtest.Path(t, "data", "ticks", "binance", "spot_ethusdt_20240808.raw.gz"))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	undisturbed := feedRun(t, raw, nil)
	killed := feedRun(t, raw, rng)

	for _, symbol := range []string{"BTCUSDT", "ETHUSDT"} {
		want, got := undisturbed.visible(symbol), killed.visible(symbol)
		t.Logf("%s: %d records seen; fences %d and repeats %d in the killed run", symbol, len(got), killed.fences[symbol], killed.repeats(symbol))
		if len(want) < 30_000 {
			t.Fatalf("%s: the undisturbed run has only %d records", symbol, len(want))
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d records after %d kills, %d in the undisturbed run", symbol, len(got), kills, len(want))
		}
		for i := range want {
			if want[i] != got[i] {
				t.Fatalf("%s: record %d differs:\n got %+v\nwant %+v", symbol, i, got[i], want[i])
			}
		}
		if killed.fences[symbol] < 2 {
			t.Errorf("%s: %d fences: no feed ever took over", symbol, killed.fences[symbol])
		}
	}
}

// rawEntries merges recorded files by their times, with the recorder's times
// as Kafka timestamps so that two runs can be compared.
func rawEntries(t *testing.T, paths ...string) []feed.Entry {
	t.Helper()
	v, _ := venue.Lookup("binance")
	var files [][]feed.Entry
	total := 0
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		var list []feed.Entry
		in := bufio.NewScanner(z)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			ns, msg, _ := bytes.Cut(in.Bytes(), []byte(" "))
			var at int64
			if _, err := fmt.Sscan(string(ns), &at); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			e := feed.Entry{KafkaTopic: "raw.binance", Value: bytes.Clone(msg), Time: at}
			if s, ok := v.Symbol(e.Value); ok {
				e.Key = bytes.Clone(s)
			}
			list = append(list, e)
		}
		if err := in.Err(); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		files = append(files, list)
		total += len(list)
	}
	merged := make([]feed.Entry, 0, total)
	for len(merged) < total {
		first := -1
		for i, list := range files {
			if len(list) > 0 && (first < 0 || list[0].Time < files[first][0].Time) {
				first = i
			}
		}
		merged = append(merged, files[first][0])
		files[first] = files[first][1:]
	}
	return merged
}

// ticksLog is what a reader of the per-symbol topics finds.
type ticksLog struct {
	mu      sync.Mutex
	records map[string][]record.Record // fences left out
	fences  map[string]int
}

func (l *ticksLog) handle(kafkaTopic string, _ int32, recs []broker.Record, _ int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, rec := range recs {
		var r record.Record
		if err := record.Decode(rec.Value, &r); err != nil {
			panic(fmt.Sprintf("%s offset %d: %v", kafkaTopic, rec.Offset, err))
		}
		if r.Kind == codec.KindFence {
			l.fences[r.Symbol]++
			continue
		}
		l.records[r.Symbol] = append(l.records[r.Symbol], r)
	}
}

// visible is what a client could see: each record newer than the one before.
// Who wrote a record is not to be seen.
func (l *ticksLog) visible(symbol string) []record.Record {
	var list []record.Record
	for _, r := range l.records[symbol] {
		if len(list) > 0 && !r.Source.Newer(list[len(list)-1].Source) {
			continue
		}
		list = append(list, r)
	}
	for i := range list {
		list[i].Source.ProducerEra = 0
		list[i].Source.RawTopicID = [16]byte{}
	}
	return list
}

func (l *ticksLog) repeats(symbol string) int {
	return len(l.records[symbol]) - len(l.visible(symbol))
}

// feedRun puts raw into a broker of its own while a feed reads it, killed
// several times if rng is given, and returns what the topics hold at the end.
func feedRun(t *testing.T, raw []feed.Entry, rng *rand.Rand) *ticksLog {
	t.Helper()
	kafka := startKafka(t)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	client, err := broker.New(broker.Options{Brokers: []string{kafka}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.CreateTopics(ctx, []broker.TopicSpec{{Name: "raw.binance", Partitions: 1}}); err != nil {
		t.Fatal(err)
	}

	// The venue: a tenth of the file every 300 ms, so that there is always
	// something unread when the feed dies.
	var venueDone sync.WaitGroup
	venueDone.Go(func() {
		w := client.NewWriter(broker.WriterOptions{})
		defer w.Close()
		for part := range 10 {
			from, to := len(raw)*part/10, len(raw)*(part+1)/10
			if err := w.Write(ctx, raw[from:to]); err != nil {
				t.Errorf("raw messages: %v", err)
				return
			}
			if rng != nil {
				time.Sleep(300 * time.Millisecond)
			}
		}
	})

	args := []string{"feed", "--brokers", kafka, "--raw", "binance", "--admin", "127.0.0.1:0"}
	p := start(t, args...)
	if rng != nil {
		for range kills {
			time.Sleep(200*time.Millisecond + time.Duration(rng.Int64N(int64(400*time.Millisecond))))
			p.kill()
			p = start(t, args...)
		}
	}
	venueDone.Wait()

	log := &ticksLog{records: map[string][]record.Record{}, fences: map[string]int{}}
	tailer := client.NewTailer(broker.TailOptions{Handle: log.handle})
	tailing, stop := context.WithCancel(ctx)
	var tailDone sync.WaitGroup
	tailDone.Go(func() { tailer.Run(tailing) })
	tailer.Add("ticks.BTCUSDT", broker.StartFirst)
	tailer.Add("ticks.ETHUSDT", broker.StartFirst)
	lastOf := map[string]int64{} // raw offset of the last tick of each symbol
	v, _ := venue.Lookup("binance")
	for i, e := range raw {
		if ticks, _, _ := v.Normalize(nil, e.Value); len(ticks) > 0 {
			lastOf[string(ticks[0].VenueSymbol)] = int64(i)
		}
	}
	eventually(t, "the feed has read all", func() error {
		log.mu.Lock()
		defer log.mu.Unlock()
		for symbol, offset := range lastOf {
			list := log.records[symbol]
			if len(list) == 0 || list[len(list)-1].Source.Offset < offset {
				return fmt.Errorf("%s: %d records, raw offset %d not reached", symbol, len(list), offset)
			}
		}
		return nil
	})
	stop()
	tailDone.Wait()
	p.interrupt()
	return log
}
