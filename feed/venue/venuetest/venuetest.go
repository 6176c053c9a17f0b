// Package venuetest is the contract that every venue passes: recorded messages
// become the ticks of their golden files, and broken ones become errors.
//
// It knows venues as package venue declares them. It is used by tests only.
package venuetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tickgate/codec"
	"tickgate/feed/venue"
)

var update = flag.Bool("update", false, "write the golden files of venues anew")

// Run holds v to its contract with the messages dir/*.json, one a file. Beside
// each stands what comes of it, as a .golden file of text that -update writes.
//
// Of every message: it is left as it was; what stands in dst stays; spaces and
// fields that nobody knows change nothing; one that yields ticks costs no
// allocation; and what is left of it when it is cut off is malformed.
func Run(t *testing.T, v venue.Venue, dir string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no messages in %s: %v", dir, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			msg, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			msg = bytes.TrimSpace(msg)
			told := Tell(v, msg)
			golden := strings.TrimSuffix(path, ".json") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(told), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if told != string(want) {
				t.Errorf("%s\nbecame\n%swant\n%s", msg, told, want)
			}
			held(t, v, msg, told)
		})
	}
	t.Run("the venue itself", func(t *testing.T) {
		if found, ok := venue.Lookup(v.Name); !ok || found.Name != v.Name {
			t.Errorf("Lookup(%q) finds %q, %v", v.Name, found.Name, ok)
		}
		if v.MaxSilence <= 0 {
			t.Errorf("MaxSilence %v: it would always be stale", v.MaxSilence)
		}
		if a, b := v.DayOf(0), v.DayOf(48*3600*1e9); b != a+2 {
			t.Errorf("two days after day %d is day %d", a, b)
		}
	})
}

// held checks what is true of every message.
func held(t *testing.T, v venue.Venue, msg []byte, told string) {
	t.Helper()
	before := bytes.Clone(msg)
	kept := codec.Tick{Kind: codec.KindStatus, Status: codec.VenueStatusHalted}
	ticks, _, err := v.Normalize([]codec.Tick{kept}, msg)
	if !bytes.Equal(msg, before) {
		t.Errorf("the message was changed into %s", msg)
	}
	if len(ticks) == 0 || ticks[0].Kind != kept.Kind || ticks[0].Status != kept.Status {
		t.Error("what stood in dst is gone")
	}
	if err != nil {
		if !errors.Is(err, venue.ErrMalformed) {
			t.Errorf("error %v is no ErrMalformed", err)
		}
		if len(ticks) > 1 {
			t.Error("ticks came with an error")
		}
	}
	if len(ticks) > 1 && !bytes.ContainsRune(msg, '\\') {
		if n := testing.AllocsPerRun(100, func() { ticks, _, _ = v.Normalize(ticks[:1], msg) }); n != 0 {
			t.Errorf("%v allocations, want none", n)
		}
	}
	if !json.Valid(msg) {
		return
	}
	var spaced bytes.Buffer
	if err := json.Indent(&spaced, msg, " ", "\t"); err != nil {
		t.Fatal(err)
	}
	if got := Tell(v, spaced.Bytes()); stripPlace(got) != stripPlace(told) {
		t.Errorf("with spaces it became\n%s", got)
	}
	if msg[0] == '{' && len(msg) > 2 {
		more := append([]byte(`{"nobody knows":[{"this":"\"}]{"},-1.5e+3,null],`), msg[1:]...)
		if got := Tell(v, more); got != told {
			t.Errorf("with a field that nobody knows it became\n%s", got)
		}
	}
	for n := range len(msg) {
		if ticks, _, err := v.Normalize(nil, msg[:n]); err == nil || len(ticks) > 0 {
			t.Fatalf("cut off after %d bytes it is no error, and %d ticks: %s", n, len(ticks), msg[:n])
		}
	}
}

// stripPlace leaves out where in a message a fault is.
func stripPlace(told string) string {
	before, _, _ := strings.Cut(told, ": at byte ")
	return before
}

// Tell writes what becomes of a message, a line each: its kind, its symbol if it
// has one, the error or the ticks.
func Tell(v venue.Venue, msg []byte) string {
	ticks, kind, err := v.Normalize(nil, msg)
	b := fmt.Appendf(nil, "kind %s\n", kind)
	if symbol, ok := v.Symbol(msg); ok {
		b = fmt.Appendf(b, "symbol %s\n", symbol)
	}
	if err != nil {
		b = fmt.Appendf(b, "error %v\n", err)
	}
	for i := range ticks {
		b = appendTick(b, &ticks[i])
	}
	return string(b)
}

// appendTick writes what a tick says, and leaves out what it does not.
func appendTick(b []byte, t *codec.Tick) []byte {
	b = fmt.Appendf(b, "%v of %s", t.Kind, t.VenueSymbol)
	number := func(name string, d codec.Decimal) {
		if d.IsSet() {
			b = fmt.Appendf(b, " %s=%v", name, d)
		}
	}
	number("price", t.Price)
	number("size", t.Size)
	if t.Side != codec.SideUnknown {
		b = fmt.Appendf(b, " taker=%v", t.Side)
	}
	if t.Flags != 0 {
		b = fmt.Appendf(b, " flags=%03b", t.Flags)
	}
	if t.HasID {
		b = fmt.Appendf(b, " id=%d", t.ID)
	}
	if t.RefID != 0 {
		b = fmt.Appendf(b, " ref.id=%d", t.RefID)
	}
	number("ref.price", t.RefPrice)
	number("ref.size", t.RefSize)
	number("bid", t.Bid)
	number("bidSize", t.BidSize)
	number("ask", t.Ask)
	number("askSize", t.AskSize)
	if t.Partial {
		b = append(b, " partial"...)
	}
	if t.Status != codec.VenueStatusUnknown {
		b = fmt.Appendf(b, " status=%d", t.Status)
	}
	if t.EventTime != 0 {
		b = fmt.Appendf(b, " at=%d", t.EventTime)
	}
	return append(b, '\n')
}
