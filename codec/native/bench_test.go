package native_test

import (
	"testing"

	"tickgate/codec"
	"tickgate/codec/native"
)

func trade() *codec.TradeEntry {
	return &codec.TradeEntry{Kind: codec.KindTrade, Trade: btc.Last, Quote: btc.Quote, Volume: btc.Volume, Notional: btc.Notional, Trades: btc.Trades}
}

// BenchmarkRow: a row is spelled once for all clients; a trade within 150 ns.
func BenchmarkRow(b *testing.B) {
	e := trade()
	for _, s := range spellings {
		for name, spell := range map[string]func(dst []byte) []byte{
			"trade lean": func(dst []byte) []byte { return s.AppendTrade(dst, codec.ViewLast, btcID, "BTCUSDT", e) },
			"trade": func(dst []byte) []byte {
				return s.AppendTrade(dst, codec.DefaultView(codec.ChannelTrades), btcID, "BTCUSDT", e)
			},
			"quote": func(dst []byte) []byte {
				return s.AppendState(dst, codec.ChannelQuotes, codec.ViewQuote, btcID, "BTCUSDT", &btc)
			},
			"ticker": func(dst []byte) []byte {
				return s.AppendState(dst, codec.ChannelTicker, codec.ViewAll, btcID, "BTCUSDT", &btc)
			},
		} {
			b.Run(s.Subprotocol()+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				buf := make([]byte, 0, 1024)
				for b.Loop() {
					buf = spell(buf[:0])
				}
				b.ReportMetric(float64(len(buf)), "bytes")
			})
		}
	}
}

// BenchmarkFrame: fifty spelled ticks are a frame within 1 us.
func BenchmarkFrame(b *testing.B) {
	const ticks = 50
	for _, s := range spellings {
		row := s.AppendTrade(nil, codec.DefaultView(codec.ChannelTrades), btcID, "BTCUSDT", trade())
		b.Run(s.Subprotocol(), func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, 16<<10)
			for b.Loop() {
				buf = s.BeginFrame(buf[:0], 12345, goldenSent)
				for range ticks {
					buf = append(buf, row...)
				}
				buf = s.EndFrame(buf, 0, ticks)
			}
		})
	}
}

// BenchmarkReadFrame: what a client pays for a tick.
func BenchmarkReadFrame(b *testing.B) {
	const ticks = 50
	for _, s := range spellings {
		frame := s.BeginFrame(nil, 12345, goldenSent)
		for range ticks {
			frame = s.AppendTrade(frame, codec.DefaultView(codec.ChannelTrades), btcID, "BTCUSDT", trade())
		}
		frame = s.EndFrame(frame, 0, ticks)
		b.Run(s.Subprotocol(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				readTicks(b, s, frame)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/ticks, "ns/tick")
		})
	}
}

func readTicks(t testing.TB, s native.Spelling, frame []byte) (n int) {
	f, err := s.OpenFrame(frame)
	if err != nil {
		t.Fatal(err)
	}
	var u native.Update
	for f.Next(&u) {
		n++
	}
	if f.Err() != nil {
		t.Fatal(f.Err())
	}
	return n
}

// TestReadingAllocatesNothing: ticks and snapshots of any view are read without
// memory of their own.
func TestReadingAllocatesNothing(t *testing.T) {
	for _, s := range spellings {
		frame := s.BeginFrame(nil, 1, goldenSent)
		rows := 0
		for _, r := range goldenRows() {
			if r.want.Type <= codec.EventSnapshot {
				frame = r.spell(s, frame)
				rows++
			}
		}
		frame = s.EndFrame(frame, 0, rows)
		if n := readTicks(t, s, frame); n != rows || rows == 0 {
			t.Fatalf("%s: read %d rows of %d", s.Subprotocol(), n, rows)
		}
		if n := testing.AllocsPerRun(100, func() { readTicks(t, s, frame) }); n != 0 {
			t.Errorf("%s: reading %d rows: %v allocations", s.Subprotocol(), rows, n)
		}
	}
}
