package record

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"tickgate/codec"
)

var update = flag.Bool("update", false, "write the golden records anew: only for a version that was never released")

const goldenPath = "testdata/golden.json"

// golden is a record as it stands in the file: its bytes, and what any
// MessagePack library makes of them. {"int": "…"} stands for an integer beyond
// 2^53, {"bin": "…"} for bytes in hex.
type golden struct {
	Name     string `json:"name"`
	MsgPack  string `json:"msgpack"`
	Elements any    `json:"elements"`
}

// samples are records of every kind, each with something odd.
func samples() map[string]Record {
	d := codec.MustDecimal
	list := map[string]Record{"trade": sample()}

	late := sample()
	late.Trade = codec.Trade{No: 8, Seq: 21, Price: d("61000.10"), Size: d("1"), Side: codec.SideBuy, Flags: codec.TradeOrdinary, IngestTime: late.IngestTime}
	late.EventTime = 0
	late.State.TradeNo, late.State.Seq = 8, 21
	list["trade of an earlier day, without id and time"] = late

	quote := sample()
	quote.Kind, quote.EventTime = codec.KindQuote, 0
	quote.Trade = codec.Trade{}
	quote.State.Quote.Ask, quote.State.Quote.AskSize = codec.Decimal{}, codec.Decimal{}
	list["one-sided quote"] = quote

	first := sample()
	first.Kind = codec.KindQuote
	first.Trade = codec.Trade{}
	first.Source.RawTopicID = [16]byte{}
	first.State = codec.State{Epoch: 1, Seq: 1, QuoteNo: 1, Quote: codec.Quote{No: 1, Seq: 1, Bid: d("1"), Ask: d("2"), IngestTime: 5}}
	list["quote of a symbol that never traded"] = first

	correction := sample()
	correction.Kind = codec.KindCorrection
	correction.Trade.No, correction.Trade.Seq = 8, 21
	correction.Ref = codec.Trade{Price: d("61837.63"), Size: d("0.03"), ID: 3735683258, HasID: true, EventTime: 1723161255000e6}
	list["correction"] = correction

	cancel := correction
	cancel.Kind = codec.KindCancel
	cancel.State.Day.RangeUnsure = true
	list["cancel"] = cancel

	status := sample()
	status.Kind, status.Trade = codec.KindStatus, codec.Trade{}
	status.State.Status = codec.VenueStatusHalted
	list["status"] = status

	gap := sample()
	gap.Kind, gap.Trade = codec.KindGap, codec.Trade{}
	gap.Gap = Gap{From: 41001, To: 52000}
	list["gap"] = gap

	moved := sample()
	moved.Kind, moved.Trade = codec.KindMoved, codec.Trade{}
	moved.Source.Partition = 7
	list["moved"] = moved

	fence := Record{Kind: codec.KindFence, Symbol: "BTC-USD.COINBASE", Venue: "coinbase", IngestTime: 1723161254087896568,
		Source: codec.Source{RawTopicID: [16]byte{0xff}, Partition: 3, Offset: 12, ProducerEra: 9}, Claim: Claim{RawTopic: "raw.coinbase", VenueSymbol: "BTC-USD"}}
	list["fence"] = fence

	big := sample()
	big.State.Notional = codec.Mul(d("999999999999999999"), d("0.999999999999999999"))
	big.State.Volume = codec.LostTotal()
	big.State.Day.BaseNotional = big.State.Notional.Neg()
	list["totals beyond 64 bits and lost"] = big
	return list
}

var heartbeatSample = Heartbeat{RawTopic: "raw.binance", RawTopicID: [16]byte{1, 2}, Venue: "binance", Era: 4, Position: 41000, End: 41010,
	LastTime: 1723161254087896568, Time: 1723161254187896568}

// elements is what another library decodes, as JSON can hold it.
func elements(t *testing.T, b []byte) any {
	t.Helper()
	v, err := msgpack.NewDecoder(bytes.NewReader(b)).DecodeInterface()
	if err != nil {
		t.Fatal(err)
	}
	var plain func(v any) any
	plain = func(v any) any {
		switch v := v.(type) {
		case []any:
			list := make([]any, len(v))
			for i := range v {
				list[i] = plain(v[i])
			}
			return list
		case []byte:
			return map[string]any{"bin": hex.EncodeToString(v)}
		case nil, bool, string:
			return v
		case float32, float64:
			t.Errorf("a float: %v", v)
		}
		n, ok := new(big.Int).SetString(fmt.Sprint(v), 10)
		if !ok {
			t.Fatalf("%T %v", v, v)
		}
		if n.CmpAbs(big.NewInt(1<<53)) >= 0 {
			return map[string]any{"int": n.String()}
		}
		return json.Number(n.String())
	}
	return plain(v)
}

func TestGolden(t *testing.T) {
	if *update {
		var list []golden
		for name, r := range samples() {
			b := Append(nil, &r)
			list = append(list, golden{name, hex.EncodeToString(b), elements(t, b)})
		}
		b := AppendHeartbeat(nil, &heartbeatSample)
		list = append(list, golden{"heartbeat", hex.EncodeToString(b), elements(t, b)})
		sortByName(list)
		text, err := json.MarshalIndent(map[string]any{"records": list}, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(goldenPath), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenPath, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := samples()
	seen := 0
	for _, g := range readGolden(t) {
		seen++
		b, err := hex.DecodeString(g.MsgPack)
		if err != nil {
			t.Fatal(err)
		}
		got, wantElements := compact(t, elements(t, b)), compact(t, g.Elements)
		if got != wantElements {
			t.Errorf("%s: another library reads\n%s, want\n%s", g.Name, got, wantElements)
		}
		if g.Name == "heartbeat" {
			var hb Heartbeat
			if err := DecodeHeartbeat(b, &hb); err != nil || hb != heartbeatSample {
				t.Errorf("heartbeat: %+v, %v", hb, err)
			}
			continue
		}
		r := sample() // whatever it held before must not show
		r.Ref, r.Gap, r.Claim = r.Trade, Gap{1, 2}, Claim{"x", "y"}
		if err := Decode(b, &r); err != nil {
			t.Errorf("%s: %v", g.Name, err)
			continue
		}
		if r != want[g.Name] {
			t.Errorf("%s: got\n%+v, want\n%+v", g.Name, r, want[g.Name])
		}
		if again := Append(nil, &r); !bytes.Equal(again, b) {
			t.Errorf("%s: written again it is\n%x, want\n%x", g.Name, again, b)
		}
		if IsFence(b) != (r.Kind == codec.KindFence) || PeekKind(b) != r.Kind {
			t.Errorf("%s: peeked at, it is %v", g.Name, PeekKind(b))
		}
	}
	if seen != len(want)+1 {
		t.Errorf("%d golden records, want %d", seen, len(want)+1)
	}
}

func readGolden(t testing.TB) []golden {
	t.Helper()
	text, err := os.ReadFile(goldenPath)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Records []golden }
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	return file.Records
}

func compact(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sortByName(list []golden) {
	for i := range list {
		for j := i; j > 0 && list[j].Name < list[j-1].Name; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}

func TestLaterWritersMayAdd(t *testing.T) {
	want := sample()
	b := Append(nil, &want)
	// One element more at the end of the record's own array: a nested one.
	longer := append([]byte{0x90 | (recordLen + 1)}, b[1:]...)
	longer = append(longer, 0x92, 0xa1, 'x', 0xcf, 1, 2, 3, 4, 5, 6, 7, 8)
	var got Record
	if err := Decode(longer, &got); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	deep := append([]byte{0x90 | (recordLen + 1)}, b[1:]...)
	for range 20 {
		deep = append(deep, 0x91)
	}
	if err := Decode(append(deep, 0xc0), &got); !errors.Is(err, ErrMalformed) {
		t.Errorf("deep nesting: %v", err)
	}
}

func TestOtherVersionsAreRefused(t *testing.T) {
	r := sample()
	b := Append(nil, &r)
	b[1] = 2
	var fault *FormatError
	if err := Decode(b, &r); !errors.Is(err, ErrVersion) || !errors.As(err, &fault) || fault.At != 1 {
		t.Errorf("version 2: %v", err)
	}
	hb := AppendHeartbeat(nil, &heartbeatSample)
	hb[1] = 0
	if err := DecodeHeartbeat(hb, new(Heartbeat)); !errors.Is(err, ErrVersion) {
		t.Errorf("heartbeat of version 0: %v", err)
	}
}

func TestBadRecords(t *testing.T) {
	r := sample()
	good := Append(nil, &r)
	for name, b := range map[string][]byte{
		"nothing":            {},
		"a map":              {0x81, 0xa1, 'x', 1},
		"a map of 4 G":       {0xdf, 0xff, 0xff, 0xff, 0xff},
		"an array of 4 G":    {0xdd, 0xff, 0xff, 0xff, 0xff},
		"an array of 65,535": {0xdc, 0xff, 0xff},
		"more behind it":     append(bytes.Clone(good), 0xc0),
		"too long":           append(bytes.Clone(good), make([]byte, recordBytesMax)...),
		"an unknown kind":    func() []byte { b := bytes.Clone(good); b[2] = 99; return b }(),
		"a symbol in lower":  bytes.Replace(good, []byte("BTCUSDT"), []byte("btcusdt"), 1),
		"a string of 4 G":    {0x99, 1, 1, 0xdb, 0xff, 0xff, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			var got Record
			if err := Decode(b, &got); !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// FuzzDecode: what decodes is the same after being written and read again.
func FuzzDecode(f *testing.F) {
	for _, g := range readGolden(f) {
		b, _ := hex.DecodeString(g.MsgPack)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again Record
		if Decode(b, &r) != nil {
			return
		}
		if err := Decode(Append(nil, &r), &again); err != nil || again != r {
			t.Errorf("%+v\nread back as\n%+v, %v", r, again, err)
		}
	})
}

func FuzzDecodeHeartbeat(f *testing.F) {
	f.Add(AppendHeartbeat(nil, &heartbeatSample))
	f.Fuzz(func(t *testing.T, b []byte) {
		var hb, again Heartbeat
		if DecodeHeartbeat(b, &hb) != nil {
			return
		}
		if err := DecodeHeartbeat(AppendHeartbeat(nil, &hb), &again); err != nil || again != hb {
			t.Errorf("%+v\nread back as\n%+v, %v", hb, again, err)
		}
	})
}
