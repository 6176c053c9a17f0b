package venue_test

import (
	"os"
	"testing"

	"tickgate/codec"
	"tickgate/feed/venue"
)

func BenchmarkNormalize(b *testing.B) {
	for name, c := range map[string]struct {
		v    venue.Venue
		path string
	}{
		"binance/trade":      {venue.Binance, "testdata/binance/trade.json"},
		"binance/bookTicker": {venue.Binance, "testdata/binance/book_ticker.json"},
		"coinbase/match":     {venue.Coinbase, "testdata/coinbase/match.json"},
	} {
		b.Run(name, func(b *testing.B) {
			msg, err := os.ReadFile(c.path)
			if err != nil {
				b.Fatal(err)
			}
			ticks := make([]codec.Tick, 0, 4)
			b.ReportAllocs()
			b.SetBytes(int64(len(msg)))
			for b.Loop() {
				if ticks, _, err = c.v.Normalize(ticks[:0], msg); err != nil || len(ticks) != 1 {
					b.Fatal(err, len(ticks))
				}
			}
		})
	}
}
