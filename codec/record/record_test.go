package record

import (
	"testing"

	"tickgate/codec"
)

// sample is a trade record with everything set.
func sample() Record {
	d := codec.MustDecimal
	last := codec.Trade{No: 7, Seq: 20, Price: d("61837.63000000"), Size: d("0.02000000"), Side: codec.SideSell,
		Flags: codec.TradeOrdinary, ID: 3735683259, HasID: true, EventTime: 1723161255342e6, IngestTime: 1723161254087896568}
	return Record{
		Kind: codec.KindTrade, Symbol: "BTCUSDT", Venue: "binance", IngestTime: last.IngestTime, EventTime: last.EventTime,
		Source: codec.Source{Epoch: 1723161253937, RawTopicID: [16]byte{1, 2, 3}, Offset: 41000, Index: 1, ProducerEra: 3},
		Trade:  last,
		State: codec.State{Epoch: 1723161253937, Seq: 20, TradeNo: 7, QuoteNo: 13,
			Volume: codec.TotalOf(d("212.03315")), Notional: codec.Mul(d("61837.63000000"), d("212.03315000")), Trades: 7,
			Day:    codec.Day{Number: 19943, Open: d("61837.63"), High: d("61999"), Low: d("61000.1"), PrevClose: d("60000")},
			Last:   last,
			Quote:  codec.Quote{No: 13, Seq: 19, Bid: d("61837.63"), BidSize: d("3.7"), EventTime: 0, IngestTime: 1723161254087891268},
			HighID: 3735683259, HasHighID: true},
	}
}

func TestRoundTrip(t *testing.T) {
	want := sample()
	b := Append(nil, &want)
	t.Logf("%d bytes", len(b))
	var got Record
	if err := Decode(b, &got); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for n := range len(b) {
		var r Record
		if Decode(b[:n], &r) == nil {
			t.Errorf("the first %d of %d bytes decode", n, len(b))
		}
	}
	big := codec.Mul(codec.MustDecimal("999999999999999999"), codec.MustDecimal("0.999999999999999999"))
	want.State.Notional, want.State.Volume = big.Neg(), codec.LostTotal()
	if err := Decode(Append(nil, &want), &got); err != nil || got != want {
		t.Errorf("big totals: %v\ngot  %+v\nwant %+v", err, got, want)
	}
	n := testing.AllocsPerRun(100, func() {
		b = Append(b[:0], &want)
		if err := Decode(b, &got); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a round trip", n)
	}
}

func TestFence(t *testing.T) {
	want := Record{Kind: codec.KindFence, Symbol: "X", Venue: "binance", Claim: Claim{RawTopic: "raw.binance", VenueSymbol: "x"}}
	b := Append(nil, &want)
	var got Record
	if err := Decode(b, &got); err != nil || got != want || !IsFence(b) {
		t.Errorf("got %+v, %v, fence %v", got, err, IsFence(b))
	}
}

// full is a record as a busy symbol has it: nothing in it is absent.
func full() Record {
	d := codec.MustDecimal
	r := sample()
	r.State.Quote = codec.Quote{No: 48213, Seq: 57969, Bid: d("61837.63000000"), BidSize: d("3.70125000"), Ask: d("61837.64000000"), AskSize: d("0.52310000"),
		EventTime: 1723161254086e6, IngestTime: 1723161254087891268}
	day := &r.State.Day
	day.High, day.Low, day.PrevClose = d("61999.00000000"), d("61000.10000000"), d("60000.00000000")
	day.BaseVolume, day.BaseNotional, day.BaseTrades = codec.TotalOf(d("100.50125")), codec.Mul(d("61837.63000000"), d("100.50125000")), 3000
	r.State.Seq, r.State.TradeNo, r.State.QuoteNo, r.State.Trades = 57970, 9757, 48213, 9757
	r.State.Last.No, r.State.Last.Seq = 9757, 57970
	r.Trade = r.State.Last
	r.State.Status = codec.VenueStatusTrading
	return r
}

// BenchmarkAppend: a record is spelled within 250 ns.
func BenchmarkAppend(b *testing.B) {
	r := full()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = Append(buf[:0], &r)
	}
	b.ReportMetric(float64(len(buf)), "bytes")
}

// BenchmarkDecode: and read within 250 ns.
func BenchmarkDecode(b *testing.B) {
	r := full()
	buf := Append(nil, &r)
	var got Record
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(buf, &got); err != nil {
			b.Fatal(err)
		}
	}
	if got != r {
		b.Fatalf("got %+v, want %+v", got, r)
	}
}
