package venue_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tickgate/codec"
	"tickgate/feed/sharedtest"
	"tickgate/feed/venue"
	"tickgate/feed/venue/venuetest"
)

func TestBinanceGolden(t *testing.T)  { venuetest.Run(t, venue.Binance, "testdata/binance") }
func TestCoinbaseGolden(t *testing.T) { venuetest.Run(t, venue.Coinbase, "testdata/coinbase") }

func TestAllVenues(t *testing.T) {
	names := map[string]bool{}
	for _, v := range venue.All() {
		if names[v.Name] {
			t.Errorf("%s stands twice in the table", v.Name)
		}
		names[v.Name] = true
		if _, err := os.Stat(filepath.Join("testdata", v.Name)); err != nil {
			t.Errorf("%s has no golden messages: %v", v.Name, err)
		}
	}
	if _, ok := venue.Lookup("nowhere"); ok {
		t.Error("Lookup finds a venue that is none")
	}
}

// TestRecordedKinds counts what venues really sent, by what it was taken for.
func TestRecordedKinds(t *testing.T) {
	for name, tt := range map[string]struct {
		venue  venue.Venue
		file   string
		kinds  map[string]int
		ticks  map[codec.Kind]int
		volume string // of all trades; "": of many symbols, so not summed
		days   int    // that the trades fall on
	}{
		"Binance BTCUSDT over midnight": {
			venue: venue.Binance, file: "binance/spot_btcusdt_20240808.raw.gz",
			kinds:  map[string]int{"trade": 9757, "bookTicker": 28040, "depth": 3452},
			ticks:  map[codec.Kind]int{codec.KindTrade: 9757, codec.KindQuote: 28040},
			volume: "212.03315000", days: 2,
		},
		"Binance ETHUSDT over midnight": {
			venue: venue.Binance, file: "binance/spot_ethusdt_20240808.raw.gz",
			kinds: map[string]int{"trade": 6106, "bookTicker": 24077, "depth": 3435},
			ticks: map[codec.Kind]int{codec.KindTrade: 6106, codec.KindQuote: 24077},
			days:  2,
		},
		"Binance as cryptofeed took it": {
			venue: venue.Binance, file: "binance/binance.ws.1.0.rec.gz",
			kinds: map[string]int{"aggTrade": 1, "bookTicker": 75, "depth": 160, "kline": 1},
			ticks: map[codec.Kind]int{codec.KindQuote: 75},
		},
		"Binance US": {
			venue: venue.Binance, file: "binance/binance_us.ws.1.0.rec.gz",
			kinds: map[string]int{"aggTrade": 11, "bookTicker": 73, "depth": 200, "kline": 5},
			ticks: map[codec.Kind]int{codec.KindQuote: 73},
		},
		"Binance of all years": {
			venue: venue.Binance, file: "binance/binance.tardis-messages.ndjson",
			kinds:  map[string]int{"trade": 1, "bookTicker": 1, "depth": 5, "ticker": 1},
			ticks:  map[codec.Kind]int{codec.KindTrade: 1, codec.KindQuote: 1},
			volume: "33.82", days: 1,
		},
		"Coinbase as cryptofeed took it": {
			venue: venue.Coinbase, file: "coinbase/coinbase.ws.28.0.rec.gz",
			kinds: map[string]int{"match": 74, "ticker": 74, "depth": 399, "ack": 3},
			ticks: map[codec.Kind]int{codec.KindTrade: 74, codec.KindQuote: 74},
			days:  1,
		},
		"Coinbase of all years": {
			venue: venue.Coinbase, file: "coinbase/coinbase.tardis-messages.ndjson",
			kinds:  map[string]int{"match": 1, "ticker": 2, "depth": 3},
			ticks:  map[codec.Kind]int{codec.KindTrade: 1, codec.KindQuote: 2},
			volume: "0.97133855", days: 1,
		},
		// Other markets' messages in this raw topic are told, not taken for silence.
		"Coinbase Advanced Trade is another venue": {
			venue: venue.Coinbase, file: "coinbase/advanced_trade.ndjson",
			kinds: map[string]int{"malformed": 3}, ticks: map[codec.Kind]int{},
		},
		"Coinbase International is another venue": {
			venue: venue.Coinbase, file: "coinbase/coinbase-international.tardis-messages.ndjson",
			kinds: map[string]int{"malformed": 7}, ticks: map[codec.Kind]int{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			kinds, counts, days := map[string]int{}, map[codec.Kind]int{}, map[int32]bool{}
			var volume codec.Total
			var ticks []codec.Tick
			for _, msg := range messages(t, sharedtest.Path(t, "data", "ticks", tt.file)) {
				var kind string
				var err error
				ticks, kind, err = tt.venue.Normalize(ticks[:0], msg)
				if (err != nil) != (kind == "malformed") {
					t.Fatalf("kind %s, error %v: %s", kind, err, msg)
				}
				kinds[kind]++
				for _, tick := range ticks {
					counts[tick.Kind]++
					if symbol, ok := tt.venue.Symbol(msg); !ok || !bytes.Equal(symbol, tick.VenueSymbol) {
						t.Fatalf("Symbol says %q, its tick %q: %s", symbol, tick.VenueSymbol, msg)
					}
					if tick.Kind == codec.KindTrade {
						days[tt.venue.DayOf(tick.EventTime)] = true
						volume = volume.AddDecimal(tick.Size)
					}
				}
			}
			if !maps.Equal(kinds, tt.kinds) {
				t.Errorf("kinds %v, want %v", kinds, tt.kinds)
			}
			if !maps.Equal(counts, tt.ticks) {
				t.Errorf("ticks %v, want %v", counts, tt.ticks)
			}
			if tt.volume != "" && volume.Cmp(codec.TotalOf(codec.MustDecimal(tt.volume))) != 0 {
				t.Errorf("volume %v, want %s", volume, tt.volume)
			}
			if len(days) != tt.days {
				t.Errorf("trades on %d days, want %d", len(days), tt.days)
			}
		})
	}
}

// messages are the venue's messages in a recorded file, without the recorder's
// times before them.
func messages(t *testing.T, path string) [][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	var all [][]byte
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if at := bytes.IndexByte(lines.Bytes(), '{'); at >= 0 {
			all = append(all, bytes.Clone(lines.Bytes()[at:]))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// fuzzTicks: whatever the bytes, ticks are such as a state can take, Symbol
// agrees with them, and an error comes without any.
func fuzzTicks(f *testing.F, v venue.Venue) {
	paths, err := filepath.Glob(filepath.Join("testdata", v.Name, "*.json"))
	if err != nil || len(paths) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range paths {
		msg, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := bytes.Clone(msg)
		ticks, kind, err := v.Normalize(nil, msg)
		symbol, ok := v.Symbol(msg)
		if !bytes.Equal(msg, before) {
			t.Fatal("the message was changed")
		}
		if kind == "" || err != nil && (len(ticks) > 0 || !errors.Is(err, venue.ErrMalformed)) {
			t.Errorf("kind %q, %d ticks and error %v", kind, len(ticks), err)
		}
		for _, tick := range ticks {
			if !ok || !bytes.Equal(symbol, tick.VenueSymbol) || len(symbol) == 0 {
				t.Errorf("Symbol says %q, its tick %q", symbol, tick.VenueSymbol)
			}
			switch tick.Kind {
			case codec.KindTrade:
				if tick.Price.Sign() <= 0 || !tick.Size.IsSet() || tick.Size.Sign() < 0 || tick.EventTime <= 0 || tick.Side == codec.SideUnknown {
					t.Errorf("no trade can be %+v", tick)
				}
			case codec.KindQuote:
				if tick.Bid.IsSet() && tick.Bid.Sign() <= 0 || tick.Ask.IsSet() && tick.Ask.Sign() <= 0 ||
					tick.BidSize.Sign() < 0 || tick.AskSize.Sign() < 0 || tick.EventTime < 0 {
					t.Errorf("no quote can be %+v", tick)
				}
			default:
				t.Errorf("this venue tells no %v", tick.Kind)
			}
		}
	})
}

func FuzzBinanceTicks(f *testing.F)  { fuzzTicks(f, venue.Binance) }
func FuzzCoinbaseTicks(f *testing.F) { fuzzTicks(f, venue.Coinbase) }
