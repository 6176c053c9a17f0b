package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/feed/sharedtest"
)

// line is what tail --json promises of every line.
type line struct {
	Symbol     string  `json:"symbol"`
	Channel    string  `json:"channel"`
	Epoch      int64   `json:"epoch"`
	Seq        uint64  `json:"seq"`
	Last       *string `json:"last"`
	Bid        *string `json:"bid"`
	Ask        *string `json:"ask"`
	Volume     *string `json:"volume"`
	Trades     *uint64 `json:"trades"`
	AgeUs      *int64  `json:"age_us"`
	EventAgeUs *int64  `json:"event_age_us"`
	Merged     *uint64 `json:"merged"`
	Dropped    *uint64 `json:"dropped"`
	Price      *string `json:"price"`
	Size       *string `json:"size"`
}

// lines parses what a tail has printed so far of one symbol.
func (p *process) jsonLines(symbol string) []line {
	p.t.Helper()
	var list []line
	for _, text := range p.stdout() {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			p.t.Fatalf("tail printed %q: %v", text, err)
		}
		if l.Symbol == symbol {
			list = append(list, l)
		}
	}
	return list
}

// sums is what testdata/oracle finds in a file.
type sums struct {
	Symbol, Volume, Notional, Last string
	Trades, Quotes                 uint64
}

func oracle(t *testing.T, path string) sums {
	t.Helper()
	out, err := exec.Command("go", "run", "./testdata/oracle", path).Output()
	if err != nil {
		t.Fatalf("oracle: %v", err)
	}
	var s sums
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("oracle printed %q: %v", out, err)
	}
	return s
}

// within is the patience of these tests: a bound against hanging, no figure.
const within = 2 * time.Minute

// TestEndToEndRealFiles sends two recorded mornings of Binance through replay,
// broker, feed and gateway, as fast as they go, to two clients: one conflated,
// which must end with the exact totals, and one that must see every trade.
func TestEndToEndRealFiles(t *testing.T) {
	files := []string{
		sharedtest.Path(t, "data", "ticks", "binance", "spot_btcusdt_20240808.raw.gz"),
		sharedtest.Path(t, "data", "ticks", "binance", "spot_ethusdt_20240808.raw.gz"),
	}
	want := map[string]sums{}
	for _, f := range files {
		s := oracle(t, f)
		want[s.Symbol] = s
	}
	if got := want["BTCUSDT"]; got.Trades != 9757 || got.Volume != "212.03315" {
		t.Fatalf("the oracle says %+v: not the file this test was written for", got)
	}

	kafka := startKafka(t)
	start(t, "feed", "--brokers", kafka, "--raw", "binance", "--admin", "127.0.0.1:0")
	gw := start(t, "serve", "--brokers", kafka, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	url := gw.await(within, `ws://\S+/v1/ws`)[0]
	ticker := start(t, "tail", "--url", url, "--json", "--every", "100", "BTCUSDT", "ETHUSDT")
	trades := start(t, "tail", "--url", url, "--json", "--channel", "trades", "--every", "0", "BTCUSDT", "ETHUSDT")
	for _, p := range []*process{ticker, trades} {
		p.await(within, `(?s)BTCUSDT.*has not traded`)
		p.await(within, `(?s)ETHUSDT.*has not traded`)
	}

	replay := start(t, append([]string{"replay", "--brokers", kafka, "--venue", "binance", "--speed", "max"}, files...)...)
	if code := replay.wait(within); code != 0 {
		t.Fatalf("replay: exit %d", code)
	}

	for symbol, s := range want {
		eventually(t, "the conflated client has all trades of "+symbol, func() error {
			lines := ticker.jsonLines(symbol)
			if len(lines) == 0 {
				return fmt.Errorf("no line yet")
			}
			last := lines[len(lines)-1]
			if last.Trades == nil || *last.Trades != s.Trades {
				return fmt.Errorf("trades %v, want %d", deref(last.Trades), s.Trades)
			}
			return nil
		})
		eventually(t, "the unconflated client has all trades of "+symbol, func() error {
			if n := len(tradeLines(trades.jsonLines(symbol))); uint64(n) < s.Trades {
				return fmt.Errorf("%d of %d", n, s.Trades)
			}
			return nil
		})
	}
	time.Sleep(300 * time.Millisecond) // whatever comes too much has time to come
	ticker.interrupt()
	trades.interrupt()

	for symbol, s := range want {
		lines := ticker.jsonLines(symbol)
		last := lines[len(lines)-1]
		if deref(last.Volume) != s.Volume || deref(last.Last) != s.Last || *last.Trades != s.Trades {
			t.Errorf("%s ends with volume %s, last %s, %d trades; the file has %s, %s, %d",
				symbol, deref(last.Volume), deref(last.Last), *last.Trades, s.Volume, s.Last, s.Trades)
		}
		checkOrder(t, lines)

		lines = tradeLines(trades.jsonLines(symbol))
		checkOrder(t, lines)
		if uint64(len(lines)) != s.Trades {
			t.Errorf("%s: %d trades seen, the file has %d", symbol, len(lines), s.Trades)
		}
		var volume codec.Total
		for i, l := range lines {
			if deref(l.Dropped) != 0 || deref(l.Merged) != 0 {
				t.Fatalf("%s: trade %d tells of %d dropped, %d merged", symbol, i, deref(l.Dropped), deref(l.Merged))
			}
			if *l.Trades != uint64(i+1) {
				t.Fatalf("%s: line %d is trade %d", symbol, i, *l.Trades)
			}
			volume = volume.AddDecimal(codec.MustDecimal(deref(l.Size)))
		}
		if volume.String() != s.Volume {
			t.Errorf("%s: the trades seen add up to %s, the file's to %s", symbol, volume, s.Volume)
		}
	}
}

// tradeLines leaves out the snapshot's line, which has no price of its own.
func tradeLines(lines []line) []line {
	return slices.DeleteFunc(slices.Clone(lines), func(l line) bool { return l.Price == nil })
}

// checkOrder: a symbol's (epoch, seq) only goes up.
func checkOrder(t *testing.T, lines []line) {
	t.Helper()
	for i := 1; i < len(lines); i++ {
		a, b := lines[i-1], lines[i]
		if b.Epoch < a.Epoch || b.Epoch == a.Epoch && b.Seq <= a.Seq {
			t.Fatalf("%s: (epoch, seq) goes from (%d, %d) to (%d, %d)", a.Symbol, a.Epoch, a.Seq, b.Epoch, b.Seq)
		}
	}
}

func deref[T any](p *T) (zero T) {
	if p == nil {
		return zero
	}
	return *p
}

// eventually waits until check has no complaint.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestDevPlays(t *testing.T) {
	dev := start(t, "dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0", "--symbols", "20", "--rate", "300")
	url := dev.await(within, `ws://\S+/v1/ws`)[0]
	page := dev.await(within, `http://\S+/`)[0]
	tail := start(t, "tail", "--url", url, "--json", "--every", "0", "*")
	eventually(t, "ten symbols move", func() error {
		seen := map[string]int{}
		for _, text := range tail.stdout() {
			var l line
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatalf("tail printed %q: %v", text, err)
			}
			seen[l.Symbol]++
		}
		moving := 0
		for _, n := range seen {
			if n > 3 {
				moving++
			}
		}
		if moving < 10 {
			return fmt.Errorf("%d move", moving)
		}
		return nil
	})
	body := get(t, page)
	if !strings.Contains(body, "tickgate") {
		t.Errorf("the page at %s does not say what it is", page)
	}
	dev.await(within, `\d+ ticks/s`)
	tail.interrupt()
	began := time.Now()
	dev.interrupt()
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("dev took %v to end, twice what it may", d)
	}
}

func TestTakenPortNamesItsFlag(t *testing.T) {
	taken := fmt.Sprintf("127.0.0.1:%d", occupied(t))
	for _, flag := range []string{"--listen", "--admin", "--broker-listen"} {
		t.Run(flag, func(t *testing.T) {
			args := []string{"dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0"}
			p := start(t, append(args, flag, taken)...)
			if code := p.wait(within); code != 1 {
				t.Errorf("exit %d, want 1", code)
			}
			if !strings.Contains(p.stderr(), flag) || !strings.Contains(p.stderr(), "address already in use") {
				t.Errorf("the error names neither flag nor cause:\n%s", p.stderr())
			}
		})
	}
}
