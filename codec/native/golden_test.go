package native_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"tickgate/codec"
	"tickgate/codec/codectest"
	"tickgate/codec/native"
)

var update = flag.Bool("update", false, "write testdata/golden.json anew")

var spellings = []native.Spelling{native.MsgPack, native.JSON}

func total(s string) codec.Total {
	t, err := codec.ParseTotal([]byte(s))
	if err != nil {
		panic(err)
	}
	return t
}

var dec = codec.MustDecimal

// The market of the golden frames: one symbol, of which all is known, and one
// that has a bid and nothing else.
var (
	btc = codec.State{
		Epoch: 1723075200000, Seq: 48213, TradeNo: 9757, QuoteNo: 38456,
		Volume: total("212.03315"), Notional: total("12700212.0331512345"), Trades: 9755,
		Day: codec.Day{
			Number: 19943, RangeUnsure: true,
			Open: dec("60000.00"), High: dec("62000.10"), Low: dec("59000.90"), PrevClose: dec("59999.99"),
			BaseVolume: total("100.5"), BaseNotional: total("6000000"), BaseTrades: 4000,
		},
		Last: codec.Trade{
			No: 9757, Seq: 48212, Price: dec("61500.12"), Size: dec("0.00100000"), Side: codec.SideBuy,
			EventTime: 1723105200120_000_000, IngestTime: 1723105200123_456_000,
		},
		Quote: codec.Quote{
			No: 38456, Seq: 48213, Bid: dec("61500.11"), BidSize: dec("1.5"), Ask: dec("61500.12"), AskSize: dec("0.25"),
			EventTime: 1723105200124_100_000, IngestTime: 1723105200123_999_000, // the venue's clock is ahead
		},
	}
	thin = codec.State{
		Epoch: 1723075200000, Seq: 1, QuoteNo: 1,
		Quote: codec.Quote{No: 1, Seq: 1, Bid: dec("0.000000000000000001"), IngestTime: 1723105200123_999_000},
	}
	// huge holds what is beyond 2^53, in each of its places.
	huge = codec.State{
		Epoch: math.MaxInt64, Seq: math.MaxUint64, TradeNo: 1 << 53, QuoteNo: 1<<53 - 1,
		Volume: total("170141183460469231731687303715884105727"), Notional: codec.LostTotal(), Trades: 1 << 60,
		Last: codec.Trade{No: 1 << 53, Seq: math.MaxUint64, Price: dec("-999999999999999999"), Size: dec("0.999999999999999999"), IngestTime: 1_000_000},
	}
)

const btcID, thinID = 17, 70000

// ticked is the update of a row of s.
func ticked(t codec.EventType, c codec.Channel, v codec.View, id uint32, s *codec.State) native.Update {
	u := native.Update{Type: t, ID: id, View: v, Channel: c, Seq: s.Seq, IngestTime: s.Last.IngestTime, EventTime: s.Last.EventTime}
	if c == codec.ChannelQuotes || c == codec.ChannelTicker && s.Quote.Seq > s.Last.Seq {
		u.IngestTime, u.EventTime = s.Quote.IngestTime, s.Quote.EventTime
	}
	switch c {
	case codec.ChannelQuotes:
		u.No = s.QuoteNo
	case codec.ChannelTrades:
		u.No = s.TradeNo
	}
	if t == codec.EventSnapshot {
		u.Epoch = s.Epoch
	}
	return grouped(u, &s.Last, &s.Quote, s.Volume, s.Notional, s.Trades, s.Day)
}

func grouped(u native.Update, t *codec.Trade, q *codec.Quote, volume, notional codec.Total, trades uint64, d codec.Day) native.Update {
	if u.View&codec.ViewLast != 0 {
		u.Price, u.Size, u.Side = t.Price, t.Size, t.Side
	}
	if u.View&codec.ViewQuote != 0 {
		u.Bid, u.BidSize, u.Ask, u.AskSize = q.Bid, q.BidSize, q.Ask, q.AskSize
	}
	if u.View&codec.ViewTotals != 0 {
		u.Volume, u.Notional, u.Trades = volume, notional, trades
	}
	if u.View&codec.ViewDay != 0 {
		u.Day = d
	}
	return u
}

// golden is one row, how it is spelled and what it must be read as.
type golden struct {
	name  string
	spell func(d codec.Dialect, dst []byte) []byte
	want  native.Update
}

func stateRow(name string, c codec.Channel, v codec.View, id uint32, symbol string, s *codec.State) golden {
	t := codec.EventTicker
	if c == codec.ChannelQuotes {
		t = codec.EventQuote
	}
	return golden{name, func(d codec.Dialect, dst []byte) []byte {
		return d.AppendState(dst, c, v, id, symbol, s)
	}, ticked(t, c, v, id, s)}
}

func snapshotRow(name string, c codec.Channel, v codec.View, id uint32, symbol string, s *codec.State) golden {
	want := ticked(codec.EventSnapshot, c, v, id, s)
	if c == codec.ChannelTrades {
		want.View &^= codec.ViewDay
		want.Day = codec.Day{}
	}
	return golden{name, func(d codec.Dialect, dst []byte) []byte {
		return d.AppendSnapshot(dst, c, v, id, symbol, s)
	}, want}
}

func tradeRow(name string, v codec.View, k codec.Kind, t codec.Trade) golden {
	e := &codec.TradeEntry{Kind: k, Trade: t, Quote: btc.Quote, Volume: btc.Volume, Notional: btc.Notional, Trades: btc.Trades}
	u := native.Update{
		Type: codec.EventTrade, ID: btcID, View: v &^ codec.ViewDay, Channel: codec.ChannelTrades,
		Seq: t.Seq, No: t.No, Kind: k, IngestTime: t.IngestTime, EventTime: t.EventTime,
	}
	return golden{name, func(d codec.Dialect, dst []byte) []byte {
		return d.AppendTrade(dst, v, btcID, "BTCUSDT", e)
	}, grouped(u, &e.Trade, &e.Quote, e.Volume, e.Notional, e.Trades, codec.Day{})}
}

func eventRow(name string, e codec.Event) golden {
	return golden{name, func(d codec.Dialect, dst []byte) []byte {
		return d.AppendEvent(dst, &e)
	}, native.Update{Type: e.Type, ID: e.ID, Channel: e.Channel, Epoch: e.Epoch, Seq: e.Seq, Event: e}}
}

// goldenRows has each event, and each branch of a tick.
func goldenRows() []golden {
	const last, quote, totals, all = codec.ViewLast, codec.ViewQuote, codec.ViewTotals, codec.ViewAll
	timeless := btc.Last
	timeless.EventTime, timeless.Side, timeless.Size = 0, codec.SideSell, codec.Decimal{}
	rows := []golden{
		eventRow("welcome", codec.Event{Type: codec.EventWelcome, Node: "gw-1", Version: "v1.2.3"}),
		eventRow("granted", codec.Event{Type: codec.EventGranted, Ref: 1, Channel: codec.ChannelTicker, ID: btcID, Symbol: "BTCUSDT", Every: 100 * time.Millisecond, View: all, Epoch: 1723075200000, Seq: 48213}),
		eventRow("granted lean", codec.Event{Type: codec.EventGranted, Ref: 1 << 62, Channel: codec.ChannelTrades, ID: thinID, Symbol: "ETH-USD", View: last}),
		eventRow("waiting", codec.Event{Type: codec.EventWaiting, Ref: 2, Channel: codec.ChannelQuotes, Symbol: "NEWUSDT"}),
		eventRow("refused", codec.Event{Type: codec.EventRefused, Ref: 2, Channel: codec.ChannelTrades, Symbol: "GONE", Code: native.CodeBadSymbol, Why: "no \"GONE\" here\n", Where: "symbols[3]", Want: "a symbol; größer \u2028"}),
		snapshotRow("snapshot ticker", codec.ChannelTicker, all, btcID, "BTCUSDT", &btc),
		snapshotRow("snapshot ticker thin", codec.ChannelTicker, all, thinID, "THIN", &thin),
		snapshotRow("snapshot quotes", codec.ChannelQuotes, quote, btcID, "BTCUSDT", &btc),
		snapshotRow("snapshot trades", codec.ChannelTrades, all, btcID, "BTCUSDT", &btc),
		snapshotRow("snapshot huge", codec.ChannelTrades, last|totals, math.MaxUint32, "HUGE", &huge),
		snapshotRow("snapshot without groups", codec.ChannelTicker, 0, btcID, "BTCUSDT", &codec.State{}),
		eventRow("snapshot end", codec.Event{Type: codec.EventSnapshotEnd, Ref: 1, Channel: codec.ChannelTicker}),
		stateRow("ticker", codec.ChannelTicker, all, btcID, "BTCUSDT", &btc),
		stateRow("ticker last", codec.ChannelTicker, last, btcID, "BTCUSDT", &btc),
		stateRow("ticker thin", codec.ChannelTicker, all, thinID, "THIN", &thin),
		stateRow("ticker huge", codec.ChannelTicker, last|totals, btcID, "HUGE", &huge),
		stateRow("quote", codec.ChannelQuotes, quote, btcID, "BTCUSDT", &btc),
		stateRow("quote last totals", codec.ChannelQuotes, last|quote|totals, btcID, "BTCUSDT", &btc),
		stateRow("quote thin", codec.ChannelQuotes, quote, thinID, "THIN", &thin),
		tradeRow("trade", last|totals, codec.KindTrade, btc.Last),
		tradeRow("trade lean", last, codec.KindTrade, btc.Last),
		tradeRow("trade all", all, codec.KindTrade, btc.Last),
		tradeRow("trade without event time and size", last, codec.KindTrade, timeless),
		tradeRow("correction", last|totals, codec.KindCorrection, btc.Last),
		tradeRow("cancel", last|totals, codec.KindCancel, btc.Last),
		eventRow("drop", codec.Event{Type: codec.EventDrop, Channel: codec.ChannelTrades, ID: btcID, Symbol: "BTCUSDT", Count: 1234567}),
		eventRow("reset", codec.Event{Type: codec.EventReset, Channel: codec.ChannelTicker, ID: btcID, Symbol: "BTCUSDT", Epoch: 1723075200001}),
		eventRow("reset all channels", codec.Event{Type: codec.EventReset, ID: btcID, Symbol: "BTCUSDT", Epoch: 1723075200002_000_000}),
		eventRow("behind", codec.Event{Type: codec.EventBehind, Ref: 3, Channel: codec.ChannelTrades, ID: btcID, Symbol: "BTCUSDT", Epoch: 1723075200000, Seq: 48000}),
		eventRow("unsubscribed", codec.Event{Type: codec.EventUnsubscribed, Ref: 4, Channel: codec.ChannelQuotes, Count: 12}),
		eventRow("ledger", codec.Event{Type: codec.EventLedger, Ref: 5, Ledger: codec.Ledger{Offered: 1 << 54, Delivered: 2, Merged: 300, Filtered: 4, Dropped: 50000, Pending: 6, Snapshots: 7}}),
		eventRow("goaway", codec.Event{Type: codec.EventGoaway, Window: 30 * time.Second, Why: "draining"}),
		eventRow("error", codec.Event{Type: codec.EventError, Ref: 6, Code: native.CodeBadValue, Why: "there is no channel \"tape\"", Where: "channel", Want: "ticker, quotes or trades"}),
		eventRow("pong", codec.Event{Type: codec.EventPong, Ref: 7}),
	}
	for s := codec.StateLoading; s <= codec.StateReplay; s++ {
		rows = append(rows, eventRow("state "+s.String(), codec.Event{
			Type: codec.EventState, Channel: codec.ChannelQuotes, ID: btcID, Symbol: "BTCUSDT", State: s, Since: 1723105200000_000_000 * min(1, int64(s)-1), Why: "no heartbeat for 1.5 s",
		}))
	}
	return rows
}

// goldenCommand is one command.
type goldenCommand struct {
	name string
	want codec.Command
}

func symbols(items ...codec.SymbolItem) (l codec.SymbolList) {
	for _, it := range items {
		l.Append(it)
	}
	return l
}

func named(name string) codec.SymbolItem { return codec.SymbolItem{Name: []byte(name)} }

func from(name string, epoch int64, seq uint64) codec.SymbolItem {
	return codec.SymbolItem{Name: []byte(name), HasFrom: true, Epoch: epoch, Seq: seq}
}

// goldenCommands has each op, and each key.
func goldenCommands() []goldenCommand {
	return []goldenCommand{
		{"subscribe", codec.Command{Op: codec.OpSubscribe, Ref: 1, Channel: codec.ChannelTicker, Symbols: symbols(named("BTCUSDT"), named("ETH-USD.COINBASE")), Every: 100 * time.Millisecond}},
		{"subscribe to all", codec.Command{Op: codec.OpSubscribe, Ref: 1, Channel: codec.ChannelQuotes, Symbols: symbols(named("*"))}},
		{"subscribe from", codec.Command{Op: codec.OpSubscribe, Ref: 2, Channel: codec.ChannelTrades, Symbols: symbols(named("ETHUSDT"), from("BTCUSDT", 1723075200000, 48213), from("X", math.MaxInt64, math.MaxUint64), named("BTC-*"))}},
		{"subscribe with view and filters", codec.Command{
			Op: codec.OpSubscribe, Ref: 3, Channel: codec.ChannelTrades, Symbols: symbols(named("BTCUSDT")), View: codec.ViewLast | codec.ViewTotals,
			MinSize: dec("0.250"), Deadband: dec("0"), SilenceMax: 5 * time.Second,
		}},
		{"unsubscribe", codec.Command{Op: codec.OpUnsubscribe, Ref: 1 << 60, Channel: codec.ChannelTrades, Symbols: symbols(named("BTCUSDT"), named("BTC*"))}},
		{"set", codec.Command{Op: codec.OpSet, Ref: 5, Channel: codec.ChannelTicker, Symbols: symbols(named("A"), named("B")), Every: time.Hour, View: codec.ViewAll, More: true}},
		{"set to nothing", codec.Command{Op: codec.OpSet, Ref: 5, Channel: codec.ChannelTicker}},
		{"auth", codec.Command{Op: codec.OpAuth, Ref: 6, Token: []byte("eyJhbGciOiJFZERTQSJ9.e30.c2ln/Zw\"+é=")}},
		{"ack", codec.Command{Op: codec.OpAck, Frame: 123456}},
		{"ledger", codec.Command{Op: codec.OpLedger, Ref: 7}},
		{"ping", codec.Command{Op: codec.OpPing, Ref: 8}},
	}
}

// goldenEntry is a message in testdata/golden.json: in JSON, in MessagePack as
// hexadecimal digits, and what any MessagePack library makes of those.
type goldenEntry struct {
	Name     string          `json:"name"`
	JSON     json.RawMessage `json:"json"`
	MsgPack  string          `json:"msgpack"`
	Elements json.RawMessage `json:"elements"`
}

type goldenFile struct {
	Frames   []goldenEntry `json:"frames"`
	Commands []goldenEntry `json:"commands"`
}

const (
	goldenPath = "testdata/golden.json"
	goldenSent = 1723105200125_000_000
)

// entryOf spells a message both ways.
func entryOf(t *testing.T, name string, spell func(native.Spelling) []byte) goldenEntry {
	packed := spell(native.MsgPack)
	decoded, err := msgpack.NewDecoder(bytes.NewReader(packed)).DecodeInterfaceLoose()
	if err != nil {
		t.Fatalf("%s: %x: another decoder says: %v", name, packed, err)
	}
	elements, err := json.Marshal(decoded)
	if err != nil {
		t.Fatal(err)
	}
	text := spell(native.JSON)
	if !json.Valid(text) {
		t.Fatalf("%s: no JSON: %s", name, text)
	}
	return goldenEntry{name, text, hex.EncodeToString(packed), elements}
}

func frameOf(s native.Spelling, no uint64, rows ...golden) []byte {
	b := s.BeginFrame(nil, no, goldenSent)
	for _, r := range rows {
		b = r.spell(s, b)
	}
	return s.EndFrame(b, 0, len(rows))
}

func spellGolden(t *testing.T) (f goldenFile) {
	add := func(name string, rows ...golden) {
		no := uint64(len(f.Frames) + 1)
		f.Frames = append(f.Frames, entryOf(t, name, func(s native.Spelling) []byte { return frameOf(s, no, rows...) }))
	}
	rows := goldenRows()
	for _, r := range rows {
		add(r.name, r)
	}
	add("no rows")
	add("all rows", rows...)
	for _, c := range goldenCommands() {
		f.Commands = append(f.Commands, entryOf(t, c.name, func(s native.Spelling) []byte { return s.AppendCommand(nil, &c.want) }))
	}
	return f
}

// TestGolden: the bytes of every event and command are as they always were.
func TestGolden(t *testing.T) {
	got := spellGolden(t)
	// A message a line, as its bytes are: what json.Marshal would do to a
	// RawMessage (escapes for HTML) must not show.
	var file bytes.Buffer
	list := func(name, end string, entries []goldenEntry) {
		fmt.Fprintf(&file, "%q:[\n", name)
		for i, e := range entries {
			comma := ","
			if i == len(entries)-1 {
				comma = ""
			}
			fmt.Fprintf(&file, "{\"name\":%q,\n \"json\":%s,\n \"msgpack\":%q,\n \"elements\":%s}%s\n", e.Name, e.JSON, e.MsgPack, e.Elements, comma)
		}
		fmt.Fprintf(&file, "]%s\n", end)
	}
	file.WriteString("{\n")
	list("frames", ",", got.Frames)
	list("commands", "", got.Commands)
	file.WriteString("}\n")
	if *update {
		if err := os.MkdirAll(filepath.Dir(goldenPath), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenPath, file.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := readGolden(t)
	for name, lists := range map[string][2][]goldenEntry{"frames": {got.Frames, want.Frames}, "commands": {got.Commands, want.Commands}} {
		if len(lists[0]) != len(lists[1]) {
			t.Errorf("%d golden %s, want %d; run with -update if that is meant", len(lists[0]), name, len(lists[1]))
			continue
		}
		for i, g := range lists[0] {
			if w := lists[1][i]; !reflect.DeepEqual(g, w) {
				t.Errorf("golden %s %q differ; run with -update if that is meant\n got %s\n     %s\nwant %s\n     %s", name, g.Name, g.JSON, g.MsgPack, w.JSON, w.MsgPack)
			}
		}
	}
}

func readGolden(t testing.TB) (f goldenFile) {
	t.Helper()
	b, err := os.ReadFile(goldenPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestGoldenFramesRead: both spellings of every row are read as what was meant.
func TestGoldenFramesRead(t *testing.T) {
	rows := goldenRows()
	for _, s := range spellings {
		for i, r := range rows {
			got := readAll(t, s, frameOf(s, uint64(i), r))
			want := r.want
			want.SentTime = goldenSent
			if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
				t.Errorf("%s, %s:\n got %+v\nwant %+v", s.Subprotocol(), r.name, got, want)
			}
		}
		got := readAll(t, s, frameOf(s, 1, rows...))
		for i, r := range rows {
			want := r.want
			want.SentTime = goldenSent
			if i >= len(got) || !reflect.DeepEqual(got[i], want) {
				t.Errorf("%s: row %d of a frame of all, %s, is read otherwise", s.Subprotocol(), i, r.name)
			}
		}
	}
}

// readAll reads a frame that must be good.
func readAll(t *testing.T, s native.Spelling, frame []byte) (updates []native.Update) {
	t.Helper()
	f, err := s.OpenFrame(frame)
	if err != nil {
		t.Fatalf("%s: OpenFrame(%q): %v", s.Subprotocol(), frame, err)
	}
	var u native.Update
	for f.Next(&u) {
		updates = append(updates, u)
	}
	if f.Err() != nil {
		t.Fatalf("%s: frame %q: %v", s.Subprotocol(), frame, f.Err())
	}
	return updates
}

// TestGoldenCommandsRead: both spellings of every command are read as it.
func TestGoldenCommandsRead(t *testing.T) {
	for _, s := range spellings {
		for _, c := range goldenCommands() {
			b := s.AppendCommand(nil, &c.want)
			var got codec.Command
			if err := s.DecodeCommand(b, &got); err != nil {
				t.Errorf("%s, %s: %q: %v", s.Subprotocol(), c.name, b, err)
				continue
			}
			if !equal(&got, &c.want) {
				t.Errorf("%s, %s: %q\n got %+v\nwant %+v", s.Subprotocol(), c.name, b, got, c.want)
			}
		}
	}
}

// equal compares all but memory.
func equal(a, b *codec.Command) bool {
	list := func(c *codec.Command) (items []codec.SymbolItem) {
		for it := range c.Symbols.All() {
			items = append(items, it)
		}
		return items
	}
	x, y := *a, *b
	x.Symbols, y.Symbols = codec.SymbolList{}, codec.SymbolList{}
	x.Token, y.Token = nil, nil
	return reflect.DeepEqual(x, y) && bytes.Equal(a.Token, b.Token) && reflect.DeepEqual(list(a), list(b))
}

func TestContract(t *testing.T) {
	for _, s := range spellings {
		t.Run(s.Subprotocol(), func(t *testing.T) {
			var commands [][]byte
			for _, c := range goldenCommands() {
				if s.Text() && c.want.Op == codec.OpAuth {
					continue // its token needs escapes, which need memory
				}
				commands = append(commands, s.AppendCommand(nil, &c.want))
			}
			codectest.Run(t, s, commands...)
		})
	}
}
