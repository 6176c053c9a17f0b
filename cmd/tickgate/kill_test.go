package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
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

// seen is how many records the log has, fences and repeats too.
func (l *ticksLog) seen() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for symbol := range l.records {
		n += len(l.records[symbol])
	}
	return n
}

// reached is the raw offset of the newest record of a symbol, -1 if there is none.
func (l *ticksLog) reached(symbol string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.records[symbol]
	if len(list) == 0 {
		return -1
	}
	return list[len(list)-1].Source.Offset
}

// feedRun puts raw into a broker of its own while a feed reads it, and returns
// what the topics hold at the end. If rng is given the feed is killed several
// times while raw messages are unread.
func feedRun(t *testing.T, raw []feed.Entry, rng *rand.Rand) *ticksLog {
	t.Helper()
	kafka := startKafka(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*within)
	defer cancel()
	client, err := broker.New(broker.Options{Brokers: []string{kafka}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.CreateTopics(ctx, []broker.TopicSpec{{Name: "raw.binance", Partitions: 1, Configs: map[string]string{"retention.ms": "-1"}}}); err != nil {
		t.Fatal(err)
	}
	w := client.NewWriter(broker.WriterOptions{})
	defer w.Close()

	log := &ticksLog{records: map[string][]record.Record{}, fences: map[string]int{}}
	tailer := client.NewTailer(broker.TailOptions{Handle: log.handle})
	tailing, stop := context.WithCancel(ctx)
	var tailDone sync.WaitGroup
	tailDone.Go(func() { tailer.Run(tailing) })
	defer tailDone.Wait()
	defer stop()
	lastOf := map[string]int64{} // raw offset of the last tick of each symbol
	v, _ := venue.Lookup("binance")
	for i, e := range raw {
		if ticks, _, _ := v.Normalize(nil, e.Value); len(ticks) > 0 {
			lastOf[string(ticks[0].VenueSymbol)] = int64(i)
		}
	}
	for symbol := range lastOf {
		tailer.Add("ticks."+symbol, broker.StartFirst)
	}

	if err := w.Write(ctx, raw); err != nil {
		t.Fatalf("raw messages: %v", err)
	}
	args := []string{"feed", "--brokers", kafka, "--raw", "binance", "--admin", "127.0.0.1:0"}
	p := start(t, args...)
	for kill := range kills {
		if rng == nil {
			break
		}
		// Somewhere in this twelfth of the file: much of it is unread then, even
		// if the feed goes on for a while before this test sees how far it is.
		at := (len(raw)*kill + rng.IntN(len(raw))) / (2 * (kills + 1))
		eventually(t, "the feed works on", func() error {
			if n := log.seen(); n < at {
				return fmt.Errorf("%d records, want %d", n, at)
			}
			return nil
		})
		p.kill()
		time.Sleep(200 * time.Millisecond) // what it had written is read
		unread := int64(len(raw)-1) - max(log.reached("BTCUSDT"), log.reached("ETHUSDT"))
		t.Logf("kill %d with %d raw messages unread", kill+1, unread)
		if unread <= 0 {
			t.Error("that is no kill while raw messages are unread")
		}
		p = start(t, args...)
	}
	for symbol, offset := range lastOf {
		eventually(t, "the feed has read all of "+symbol, func() error {
			if at := log.reached(symbol); at < offset {
				return fmt.Errorf("raw offset %d of %d", at, offset)
			}
			return nil
		})
	}
	time.Sleep(200 * time.Millisecond) // whatever comes too much has time to come
	p.interrupt()
	return log
}
