package feed

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tickgate/codec"
	"tickgate/codec/record"
	"tickgate/feed/venue"
)

const dayNs = int64(24 * time.Hour)

// day is a time so many days and hours after the epoch.
func day(d, hour int64) int64 { return d*dayNs + hour*int64(time.Hour) }

func newStamper(late, ahead *int) *stamper {
	return &stamper{dayOf: venue.Binance.DayOf, late: func() { *late++ }, ahead: func() { *ahead++ }}
}

func trade(id uint64, at int64, price, size string) codec.Tick {
	return codec.Tick{Kind: codec.KindTrade, EventTime: at, Price: codec.MustDecimal(price), Size: codec.MustDecimal(size),
		Flags: codec.TradeOrdinary, ID: id, HasID: id != 0}
}

func quote(bid, ask string) codec.Tick {
	t := codec.Tick{Kind: codec.KindQuote}
	if bid != "" {
		t.Bid, t.BidSize = codec.MustDecimal(bid), codec.MustDecimal("1")
	}
	if ask != "" {
		t.Ask, t.AskSize = codec.MustDecimal(ask), codec.MustDecimal("2")
	}
	return t
}

// told is what matters of a state, for a person to read.
func told(s *codec.State) string {
	d := &s.Day
	dayVolume := s.Volume.Sub(d.BaseVolume)
	text := fmt.Sprintf("seq %d trades %d volume %v day %d: %v %v %v %v prev %v volume %v", s.Seq, s.Trades, s.Volume,
		d.Number, d.Open, d.High, d.Low, s.Last.Price, d.PrevClose, dayVolume)
	if d.RangeUnsure {
		text += " unsure"
	}
	return text
}

func TestStamp(t *testing.T) {
	cancel := codec.Tick{Kind: codec.KindCancel, EventTime: day(10, 5), RefID: 2, RefPrice: codec.MustDecimal("12"), RefSize: codec.MustDecimal("1"),
		RefEventTime: day(10, 2), RefCountedInVolume: true}
	correction := trade(0, day(10, 5), "11", "3")
	correction.Kind, correction.RefID, correction.RefPrice, correction.RefSize = codec.KindCorrection, 2, codec.MustDecimal("12"), codec.MustDecimal("1")
	correction.RefEventTime, correction.RefCountedInVolume = day(10, 2), true
	odd := trade(3, day(10, 3), "99", "5")
	odd.Flags = codec.TradeCountsVolume
	two := []codec.Tick{trade(1, day(10, 1), "10", "2"), trade(2, day(10, 2), "12", "1")}

	for name, tt := range map[string]struct {
		ticks       []codec.Tick
		want        string
		late, ahead int
	}{
		"the first trade opens a day": {ticks: two[:1], want: "seq 1 trades 1 volume 2 day 10: 10 10 10 10 prev  volume 2"},
		"high and low":                {ticks: two, want: "seq 2 trades 2 volume 3 day 10: 10 12 10 12 prev  volume 3"},
		"midnight":                    {ticks: append(two[:2:2], trade(3, day(11, 0), "9", "4")), want: "seq 3 trades 3 volume 7 day 11: 9 9 9 9 prev 12 volume 4"},
		"a late trade raises total and base": {ticks: append(two[:2:2], trade(3, day(11, 0), "9", "4"), trade(4, day(10, 23), "50", "1")),
			want: "seq 4 trades 4 volume 8 day 11: 9 9 9 9 prev 12 volume 4", late: 1},
		"the future opens no day": {ticks: append(two[:2:2], trade(3, day(12, 0), "9", "4")),
			want: "seq 3 trades 3 volume 7 day 10: 10 12 9 9 prev  volume 7", ahead: 1},
		"a repeat is left out":     {ticks: append(two[:2:2], trade(2, day(10, 2), "12", "1"), trade(1, day(10, 1), "10", "2")), want: "seq 2 trades 2 volume 3 day 10: 10 12 10 12 prev  volume 3"},
		"an odd trade":             {ticks: append(two[:2:2], odd), want: "seq 3 trades 3 volume 8 day 10: 10 12 10 12 prev  volume 8"},
		"a cancel of the high":     {ticks: append(two[:2:2], cancel), want: "seq 3 trades 1 volume 2 day 10: 10 12 10 12 prev  volume 2 unsure"},
		"a correction of the last": {ticks: append(two[:2:2], correction), want: "seq 3 trades 2 volume 5 day 10: 10 12 10 11 prev  volume 5 unsure"},
		"a quote moves no day":     {ticks: append(two[:2:2], quote("9", "13")), want: "seq 3 trades 2 volume 3 day 10: 10 12 10 12 prev  volume 3"},
		"no event time":            {ticks: []codec.Tick{trade(1, 0, "10", "2")}, want: "seq 1 trades 1 volume 2 day 11: 10 10 10 10 prev  volume 2"},
	} {
		t.Run(name, func(t *testing.T) {
			var st codec.State
			var rec record.Record
			var late, ahead int
			sp := newStamper(&late, &ahead)
			for i := range tt.ticks {
				sp.stamp(&st, &tt.ticks[i], day(11, 1), &rec)
			}
			if got := told(&st); got != tt.want || late != tt.late || ahead != tt.ahead {
				t.Errorf("got  %s, %d late, %d ahead\nwant %s, %d, %d", got, late, ahead, tt.want, tt.late, tt.ahead)
			}
			if rec.State != st {
				t.Error("the record has another state than the symbol")
			}
		})
	}
}

func TestStampQuotes(t *testing.T) {
	partial := quote("", "14")
	partial.Partial = true
	for name, tt := range map[string]struct {
		ticks    []codec.Tick
		bid, ask string
	}{
		"both sides":                {[]codec.Tick{quote("9", "13")}, "9", "13"},
		"one side gone":             {[]codec.Tick{quote("9", "13"), quote("9", "")}, "9", ""},
		"one side not spoken of":    {[]codec.Tick{quote("9", "13"), partial}, "9", "14"},
		"a first quote of one side": {[]codec.Tick{quote("", "13")}, "", "13"},
		"nobody quotes":             {[]codec.Tick{quote("9", "13"), quote("", "")}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var st codec.State
			var rec record.Record
			var n int
			for i := range tt.ticks {
				newStamper(&n, &n).stamp(&st, &tt.ticks[i], 1, &rec)
			}
			if st.Quote.Bid.String() != tt.bid || st.Quote.Ask.String() != tt.ask || st.QuoteNo != uint64(len(tt.ticks)) || st.Quote.No != st.QuoteNo {
				t.Errorf("%+v", st.Quote)
			}
		})
	}
}

// TestStampAgainstModel: whatever comes, totals are exact sums, what a client
// subtracts is a day's volume, and sequence numbers count what was stamped.
func TestStampAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var st codec.State
		var rec record.Record
		var late, ahead int
		sp := newStamper(&late, &ahead)
		volume, notional := new(big.Rat), new(big.Rat)
		byDay := map[int32]*big.Rat{}
		var seq, trades, highID uint64
		for range rapid.IntRange(1, 60).Draw(t, "ticks") {
			d := rapid.Int64Range(10, 12).Draw(t, "day")
			id := rapid.Uint64Range(1, 80).Draw(t, "id")
			price := fmt.Sprintf("%d.%02d", rapid.IntRange(1, 9).Draw(t, "whole"), rapid.IntRange(0, 99).Draw(t, "cents"))
			size := fmt.Sprintf("0.%04d", rapid.IntRange(1, 9999).Draw(t, "size"))
			tick := trade(id, day(d, 1), price, size)
			if rapid.Bool().Draw(t, "quote") {
				tick = quote(price, "")
			}
			before := st
			got := sp.stamp(&st, &tick, day(d, 1), &rec)
			if tick.Kind == codec.KindTrade && id <= highID {
				if got != repeated || st != before {
					t.Fatalf("the repeat of %d was stamped", id)
				}
				continue
			}
			seq++
			if tick.Kind == codec.KindTrade {
				highID = id
				trades++
				p, _ := new(big.Rat).SetString(price)
				s, _ := new(big.Rat).SetString(size)
				volume.Add(volume, s)
				notional.Add(notional, p.Mul(p, s))
				if byDay[int32(d)] == nil {
					byDay[int32(d)] = new(big.Rat)
				}
				byDay[int32(d)].Add(byDay[int32(d)], s)
			}
			if st.Seq != seq || st.Trades != trades || rec.State != st || rec.State.TradeNo+rec.State.QuoteNo != seq {
				t.Fatalf("state %+v after %d ticks, %d trades", st, seq, trades)
			}
			if before.Day.Open.IsSet() && st.Day.Number < before.Day.Number {
				t.Fatalf("the day went back from %d to %d", before.Day.Number, st.Day.Number)
			}
		}
		same := func(what string, got codec.Total, want *big.Rat) {
			if r, _ := new(big.Rat).SetString(got.String()); r.Cmp(want) != 0 {
				t.Fatalf("%s %v, want %v", what, got, want.FloatString(8))
			}
		}
		same("volume", st.Volume, volume)
		same("notional", st.Notional, notional)
		if trades > 0 {
			same("the day's volume", st.Volume.Sub(st.Day.BaseVolume), byDay[st.Day.Number])
			if st.Day.Low.Cmp(st.Day.High) > 0 || st.Last.Price.Cmp(st.Day.High) > 0 || st.Last.Price.Cmp(st.Day.Low) < 0 {
				t.Fatalf("last %v is not between %v and %v", st.Last.Price, st.Day.Low, st.Day.High)
			}
		}
	})
}

type noLog struct{ Log }

func newTestFeed(t *testing.T, o Options) *Feed {
	t.Helper()
	o.Log = noLog{}
	if o.RawTopics == nil {
		o.RawTopics = []RawTopic{{"raw.binance", venue.Binance}}
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSymbolNames(t *testing.T) {
	one := newTestFeed(t, Options{})
	two := newTestFeed(t, Options{RawTopics: []RawTopic{{"raw.binance", venue.Binance}, {"raw.coinbase", venue.Coinbase}}})
	for _, tt := range []struct {
		f          *Feed
		in, want   string
		wantInside string // of the error
	}{
		{one, "BTCUSDT", "BTCUSDT", ""},
		{one, "btc/usd", "BTC-USD", ""},
		{one, "a:b", "A-B", ""},
		{two, "BTC-USD", "BTC-USD.BINANCE", ""},
		{one, "btc usd", "", "[A-Z0-9._-]{1,32}"},
		{one, strings.Repeat("x", 33), "", "template"},
		{one, "µ", "", "template"},
	} {
		got, err := tt.f.symbolName("binance", []byte(tt.in))
		if got != tt.want || (err == nil) != (tt.wantInside == "") || err != nil && !strings.Contains(err.Error(), tt.wantInside) {
			t.Errorf("symbolName(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestAdmit(t *testing.T) {
	f := newTestFeed(t, Options{SymbolsMax: 5, SymbolsPerMinute: 3})
	now := time.Unix(1000, 0)
	mine := claim{"raw.binance", "a"}
	for _, tt := range []struct {
		symbol string
		claim  claim
		after  time.Duration
		want   error
	}{
		{"A.B", mine, 0, nil},
		{"A.B", mine, 0, nil},
		{"A.B", claim{"raw.other", "a"}, 0, errClaimed},
		{"A_B", claim{"raw.binance", "b"}, 0, errClaimed}, // the same to Kafka
		{"C", mine, 0, nil},
		{"D", mine, 0, nil},
		{"E", mine, 0, errTooManyNew},
		{"E", mine, time.Minute, nil},
		{"F", mine, time.Minute, nil},
		{"G", mine, time.Minute, errTooManySymbols},
	} {
		if err := f.admit(tt.symbol, tt.claim, now.Add(tt.after)); !errors.Is(err, tt.want) {
			t.Errorf("admit(%s, %v) = %v, want %v", tt.symbol, tt.claim, err, tt.want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := New(Options{Template: "x", SymbolsMax: -1, RawTopics: []RawTopic{{}, {}, {KafkaTopic: "a b/c"}}})
	for _, part := range []string{"Log", "Template", "SymbolsMax", "RawTopics", "twice", "a venue", `"a b/c"`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name %s", err, part)
		}
	}
	if _, err := New(Options{Template: "{symbol}-{foo}"}); err == nil || !strings.Contains(err.Error(), "A-{FOO}") {
		t.Errorf("a template with {foo}: %v", err)
	}
}

func TestCheckKafkaTopic(t *testing.T) {
	for name, want := range map[string]bool{"raw.binance": true, "A_z-9": true, strings.Repeat("x", 249): true,
		"": false, ".": false, "..": false, "a b": false, "a/b": false, "ä": false, strings.Repeat("x", 250): false} {
		if err := CheckKafkaTopic(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}
