// Package codectest is the contract that every [codec.Dialect] passes.
//
// It knows what a gateway relies on; it knows nothing of any dialect's bytes.
package codectest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"tickgate/codec"
)

// RowBytesMax bounds every row: a gateway's frames have 16 KiB, and a row that
// fits none could never be sent.
const RowBytesMax = 8 << 10

// Run tests d. Commands are frames that d reads, of as many kinds as it has;
// from them come the broken ones.
//
//	func TestContract(t *testing.T) {
//		codectest.Run(t, native.JSON, []byte(`{"op":"ping"}`), ...)
//	}
func Run(t *testing.T, d codec.Dialect, commands ...[]byte) {
	t.Run("names", func(t *testing.T) { testNames(t, d) })
	t.Run("rows append", func(t *testing.T) { testAppend(t, d) })
	t.Run("rows are shared", func(t *testing.T) { testShared(t, d) })
	t.Run("rows are bounded", func(t *testing.T) { testBounded(t, d) })
	t.Run("frames assemble", func(t *testing.T) { testFrames(t, d) })
	t.Run("spelling allocates nothing", func(t *testing.T) { testAllocs(t, d) })
	t.Run("commands", func(t *testing.T) { testCommands(t, d, commands) })
	t.Run("hostile commands", func(t *testing.T) { testHostile(t, d, commands) })
}

// row is one way to spell a row.
type row struct {
	name  string
	spell func(d codec.Dialect, dst []byte) []byte
}

// state has a value in every field, or none.
func state(full bool) *codec.State {
	if !full {
		return &codec.State{}
	}
	total := func(s string) codec.Total {
		t, err := codec.ParseTotal([]byte(s))
		if err != nil {
			panic(err)
		}
		return t
	}
	return &codec.State{
		Epoch: 1723075200000, Seq: 48213, TradeNo: 9757, QuoteNo: 38456,
		Volume: total("212.03315"), Notional: total("12700212.0331512345"), Trades: 9757,
		Day: codec.Day{
			Number: 19943, RangeUnsure: true,
			Open: codec.MustDecimal("60000.00"), High: codec.MustDecimal("62000.10"), Low: codec.MustDecimal("59000.90"),
			PrevClose: codec.MustDecimal("59999.99"), BaseVolume: total("100.5"), BaseNotional: codec.LostTotal(), BaseTrades: 4000,
		},
		Last: codec.Trade{
			No: 9757, Seq: 48212, Price: codec.MustDecimal("61500.12"), Size: codec.MustDecimal("0.00100000"), Side: codec.SideBuy,
			Flags: codec.TradeOrdinary, EventTime: 1723105200120_000_000, IngestTime: 1723105200123_456_000,
		},
		Quote: codec.Quote{
			No: 38456, Seq: 48213, Bid: codec.MustDecimal("61500.11"), BidSize: codec.MustDecimal("1.5"),
			Ask: codec.MustDecimal("61500.12"), IngestTime: 1723105200123_999_000,
		},
	}
}

func entry(full bool, k codec.Kind) *codec.TradeEntry {
	s := state(full)
	return &codec.TradeEntry{Kind: k, Trade: s.Last, Quote: s.Quote, Volume: s.Volume, Notional: s.Notional, Trades: s.Trades}
}

const symbol = "BTCUSDT"

// ticks are all rows that carry a state or a trade.
func ticks() (rows []row) {
	for _, full := range []bool{true, false} {
		for v := codec.View(0); v <= codec.ViewAll; v++ {
			for _, c := range []codec.Channel{codec.ChannelTicker, codec.ChannelQuotes, codec.ChannelTrades} {
				name := fmt.Sprintf("%v view=%d full=%v", c, v, full)
				s := state(full)
				if c != codec.ChannelTrades {
					rows = append(rows, row{name, func(d codec.Dialect, dst []byte) []byte {
						return d.AppendState(dst, c, v, 17, symbol, s)
					}})
				}
				rows = append(rows, row{"snapshot " + name, func(d codec.Dialect, dst []byte) []byte {
					return d.AppendSnapshot(dst, c, v, 17, symbol, s)
				}})
			}
			for _, k := range []codec.Kind{codec.KindTrade, codec.KindCorrection, codec.KindCancel} {
				e := entry(full, k)
				rows = append(rows, row{fmt.Sprintf("%v view=%d full=%v", k, v, full), func(d codec.Dialect, dst []byte) []byte {
					return d.AppendTrade(dst, v, 17, symbol, e)
				}})
			}
		}
	}
	return rows
}

// events are all other rows, each with these texts.
func events(text string) (rows []row) {
	for _, typ := range []codec.EventType{
		codec.EventSnapshotEnd, codec.EventWelcome, codec.EventGranted, codec.EventWaiting, codec.EventRefused,
		codec.EventUnsubscribed, codec.EventDrop, codec.EventState, codec.EventReset, codec.EventBehind,
		codec.EventLedger, codec.EventGoaway, codec.EventError, codec.EventPong,
	} {
		e := codec.Event{
			Type: typ, Ref: math.MaxUint64, Channel: codec.ChannelTrades, ID: math.MaxUint32, Symbol: text,
			Epoch: math.MaxInt64, Seq: math.MaxUint64, Every: math.MaxInt64, View: codec.ViewAll, Count: math.MaxUint64,
			State: codec.StateStale, Since: math.MaxInt64, Code: text, Why: text, Where: text, Want: text,
			Ledger: codec.Ledger{Offered: math.MaxUint64, Delivered: 1, Merged: 2, Filtered: 3, Dropped: 4, Pending: 5, Snapshots: 6},
			Node:   text, Version: text, Window: math.MaxInt64,
		}
		rows = append(rows, row{fmt.Sprintf("event %d", typ), func(d codec.Dialect, dst []byte) []byte {
			return d.AppendEvent(dst, &e)
		}})
	}
	return rows
}

func testNames(t *testing.T, d codec.Dialect) {
	name := d.Subprotocol()
	if name == "" || name != d.Subprotocol() {
		t.Errorf("Subprotocol() = %q, then %q", name, d.Subprotocol())
	}
	for _, c := range []byte(name) { // a token of HTTP
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			t.Errorf("Subprotocol() = %q: %q cannot stand in a header", name, c)
		}
	}
}

// testAppend: rows are put behind what is there.
func testAppend(t *testing.T, d codec.Dialect) {
	prefix := []byte("what was there")
	for _, r := range slices.Concat(ticks(), events(symbol)) {
		alone := r.spell(d, nil)
		behind := r.spell(d, slices.Clone(prefix))
		if len(alone) == 0 || !bytes.Equal(behind, slices.Concat(prefix, alone)) {
			t.Errorf("%s: alone %q, behind %q %q", r.name, alone, prefix, behind)
		}
	}
}

// testShared: a row is the same bytes for everybody, whoever spells it and
// whatever was spelled before.
func testShared(t *testing.T, d codec.Dialect) {
	rows := slices.Concat(ticks(), events(symbol))
	want := make([][]byte, len(rows))
	for i, r := range rows {
		want[i] = r.spell(d, nil)
	}
	const sessions = 4
	var all sync.WaitGroup
	for n := range sessions {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			buf := d.BeginFrame(nil, rnd.Uint64(), rnd.Int64())
			for _, i := range rnd.Perm(len(rows)) {
				start := len(buf)
				if buf = rows[i].spell(d, buf); !bytes.Equal(buf[start:], want[i]) {
					t.Errorf("%s: %q, in another session %q", rows[i].name, want[i], buf[start:])
				}
			}
		})
	}
	all.Wait()
}

// testBounded: no text makes a row that fits no frame, or one that is no UTF-8.
func testBounded(t *testing.T, d codec.Dialect) {
	for name, text := range map[string]string{
		"long":       strings.Repeat("x", 1<<20),
		"escapes":    strings.Repeat("\x00\"\\\n", 1<<16),
		"no UTF-8":   strings.Repeat("\xff", 1<<16),
		"cut runes":  "x" + strings.Repeat("\U0001F4B9", 1<<14),
		"separators": "\u2028\u2029</script>",
	} {
		for _, r := range events(text) {
			b := r.spell(d, nil)
			if len(b) > RowBytesMax {
				t.Errorf("%s, text %s: a row of %d bytes, want at most %d", r.name, name, len(b), RowBytesMax)
			}
			if d.Text() && !utf8.Valid(b) {
				t.Errorf("%s, text %s: not UTF-8: %q", r.name, name, b)
			}
		}
	}
	for _, r := range ticks() {
		if n := len(r.spell(d, nil)); n > RowBytesMax {
			t.Errorf("%s: a row of %d bytes, want at most %d", r.name, n, RowBytesMax)
		}
	}
}

// testFrames: rows concatenate into frames in any order and number, behind
// other frames, and stay as they are for the next one.
func testFrames(t *testing.T, d codec.Dialect) {
	var spelled [][]byte
	for _, r := range slices.Concat(ticks(), events(symbol)) {
		spelled = append(spelled, r.spell(d, nil))
	}
	before := slices.Clone(spelled)
	for i := range before {
		before[i] = bytes.Clone(before[i])
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	for n := range 60 {
		no, sent := rnd.Uint64()>>rnd.IntN(64), rnd.Int64()>>rnd.IntN(63)
		order := rnd.Perm(len(spelled))[:min(n, len(spelled))]
		build := func(dst []byte) []byte {
			start := len(dst)
			dst = d.BeginFrame(dst, no, sent)
			for _, i := range order {
				dst = append(dst, spelled[i]...)
			}
			return d.EndFrame(dst, start, len(order))
		}
		alone := build(nil)
		prefix := bytes.Repeat([]byte{0xdc}, 1+n)
		if behind := build(slices.Clone(prefix)); !bytes.Equal(behind, slices.Concat(prefix, alone)) {
			t.Fatalf("a frame of %d rows differs behind other bytes: %q, alone %q", n, behind, alone)
		}
		size, at := 0, 0
		for _, i := range order {
			size += len(spelled[i])
			// Its last byte may be what joins it to the next row.
			found := bytes.Index(alone[at:], spelled[i][:len(spelled[i])-1])
			if found < 0 {
				t.Fatalf("a frame of %d rows lacks %q in its place: %q", n, spelled[i], alone)
			}
			at += found + len(spelled[i]) - 1
		}
		if over := len(alone) - size; over > d.FrameOverhead() {
			t.Fatalf("frame %d sent %d with %d rows has %d bytes besides its rows; FrameOverhead says %d", no, sent, n, over, d.FrameOverhead())
		}
		if d.Text() && !utf8.Valid(alone) {
			t.Fatalf("a frame of a text dialect is not UTF-8: %q", alone)
		}
	}
	for i := range before {
		if !bytes.Equal(before[i], spelled[i]) {
			t.Fatalf("a shared row was changed: %q, was %q", spelled[i], before[i])
		}
	}
}

func testAllocs(t *testing.T, d codec.Dialect) {
	buf := make([]byte, 0, 64<<10)
	for _, r := range slices.Concat(ticks(), events(symbol)) {
		if n := testing.AllocsPerRun(20, func() { r.spell(d, buf) }); n != 0 {
			t.Errorf("%s: %v allocations", r.name, n)
		}
	}
	spelled := ticks()[0].spell(d, nil)
	n := testing.AllocsPerRun(20, func() {
		f := d.BeginFrame(buf, 12, 1723105200123_456_000)
		for range 50 {
			f = append(f, spelled...)
		}
		d.EndFrame(f, 0, 50)
	})
	if n != 0 {
		t.Errorf("a frame: %v allocations", n)
	}
}

// testCommands: the samples are read, into a command that was used before too,
// without allocating, and nothing aliases the frame.
func testCommands(t *testing.T, d codec.Dialect, commands [][]byte) {
	if len(commands) == 0 {
		t.Fatal("no sample commands")
	}
	var used codec.Command
	for _, frame := range commands {
		var fresh codec.Command
		if err := d.DecodeCommand(frame, &fresh); err != nil {
			t.Errorf("DecodeCommand(%q) = %v", frame, err)
			continue
		}
		again := bytes.Clone(frame)
		if err := d.DecodeCommand(again, &used); err != nil {
			t.Errorf("DecodeCommand(%q) into a used command = %v", frame, err)
			continue
		}
		clear(again)
		if a, b := describe(&fresh), describe(&used); a != b {
			t.Errorf("%q read as %s, into a used command %s", frame, a, b)
		}
		if n := testing.AllocsPerRun(20, func() { d.DecodeCommand(frame, &used) }); n != 0 {
			t.Errorf("%q into a used command: %v allocations", frame, n)
		}
	}
}

// describe tells all of a command, whatever memory it holds.
func describe(c *codec.Command) string {
	var b strings.Builder
	for it := range c.Symbols.All() {
		fmt.Fprintf(&b, "%s %v %d %d,", it.Name, it.HasFrom, it.Epoch, it.Seq)
	}
	plain := *c
	plain.Symbols, plain.Token = codec.SymbolList{}, nil
	return fmt.Sprintf("%+v token=%q symbols=%s", plain, c.Token, b.String())
}

// testHostile: whatever comes is read or refused by a *codec.Error that says
// what was wrong, and costs memory of its own size at most.
func testHostile(t *testing.T, d codec.Dialect, commands [][]byte) {
	rnd := rand.New(rand.NewPCG(3, 3))
	frames := [][]byte{
		nil, {0}, []byte(" "), []byte("null"), []byte("[]"), []byte("{}"), []byte("[[[["), []byte("hello"),
		bytes.Repeat([]byte("["), codec.CommandBytesMax),
		bytes.Repeat([]byte(`{"a":`), codec.CommandBytesMax/5),
		bytes.Repeat([]byte{0x91}, codec.CommandBytesMax),
		bytes.Repeat([]byte{0x81}, codec.CommandBytesMax),
		bytes.Repeat([]byte{0xff}, codec.CommandBytesMax),
		bytes.Repeat([]byte{' '}, codec.CommandBytesMax),
		{0xdf, 0xff, 0xff, 0xff, 0xff}, {0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdb, 0xff, 0xff, 0xff, 0xff}, {0xc6, 0xff, 0xff, 0xff, 0xff},
	}
	for _, c := range commands {
		for n := range len(c) {
			frames = append(frames, c[:n])
		}
		frames = append(frames, slices.Concat(c, c), slices.Concat(c, []byte{0}), slices.Concat([]byte{0xff}, c))
		for range 200 {
			b := bytes.Clone(c)
			for range 1 + rnd.IntN(4) {
				b[rnd.IntN(len(b))] = byte(rnd.Uint32())
			}
			frames = append(frames, b)
		}
	}
	for _, f := range frames {
		var c codec.Command
		if err := d.DecodeCommand(f, &c); err != nil {
			check(t, f, err)
		}
	}
	for n := range commands {
		long := slices.Concat(commands[n], bytes.Repeat([]byte(" "), codec.CommandBytesMax))
		var c codec.Command
		if err := d.DecodeCommand(long, &c); err == nil {
			t.Errorf("a frame of %d bytes was read; CommandBytesMax is %d", len(long), codec.CommandBytesMax)
		} else {
			check(t, long[:64], err)
		}
	}
	// Memory: what a command takes besides its frame, read or refused.
	const memoryMax = 64 << 10
	for _, f := range frames {
		if len(f) > 64 && len(f) < codec.CommandBytesMax {
			continue
		}
		var before, after runtime.MemStats
		var c codec.Command
		runtime.ReadMemStats(&before)
		d.DecodeCommand(f, &c)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > memoryMax {
			t.Errorf("a frame of %d bytes (%.16q...) took %d bytes of memory", len(f), f, n)
		}
	}
}

func check(t *testing.T, frame []byte, err error) {
	t.Helper()
	var no *codec.Error
	if !errors.As(err, &no) {
		t.Errorf("DecodeCommand(%.100q) = %T %v, want a *codec.Error", frame, err, err)
		return
	}
	const textMax = 512
	if no.Code == "" || no.What == "" || len(no.Error()) > textMax || !utf8.ValidString(no.Error()) {
		t.Errorf("DecodeCommand(%.100q) = %+v: want a code, what, and at most %d bytes of UTF-8", frame, *no, textMax)
	}
}
