// Package venue turns the messages of venues into ticks: one file and one
// folder of testdata a venue, and the table in this file.
//
// It knows bytes and ticks; it knows no symbols of ours, no state and no Kafka.
// A venue yields only what a message says. All functions are pure and safe for
// concurrent use; ticks alias the message that they were made of, and cost no
// allocation. Of a key that stands twice in a message, the last one counts.
package venue

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"tickgate/codec"
)

// Venue is how one venue's messages become ticks.
type Venue struct {
	// Name is the suffix of the raw topic: raw.<Name>.
	Name string

	// Normalize appends the ticks of msg to dst. kind names what the message
	// was, for counters, out of a small fixed set. No ticks and no error is a
	// known message that tells no price. Errors wrap [ErrMalformed].
	Normalize func(dst []codec.Tick, msg []byte) (ticks []codec.Tick, kind string, err error)

	// Symbol finds the venue symbol that a message is about, which keys it in
	// the raw topic; false if it is about none.
	Symbol func(msg []byte) (venueSymbol []byte, ok bool)

	// MaxSilence is how long the venue may say nothing at all before its
	// topics are stale.
	MaxSilence time.Duration

	// DayOf is the trading day, as days since 1970-01-01, of an event time.
	DayOf func(eventTime int64) int32
}

// All are the venues that we know.
func All() []Venue { return []Venue{Binance, Coinbase} }

// Lookup finds a venue by its name.
func Lookup(name string) (Venue, bool) {
	for _, v := range All() {
		if v.Name == name {
			return v, true
		}
	}
	return Venue{}, false
}

// ErrMalformed marks a message that will never parse.
var ErrMalformed = errors.New("malformed message")

// A MessageError says what in a venue's message could not be used.
type MessageError struct {
	Venue, Field string // "binance", "p"; Field is empty if it is the whole message
	Err          error
}

func (e *MessageError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %v: %v", e.Venue, ErrMalformed, e.Err)
	}
	return fmt.Sprintf("%s: %v: field %q: %v", e.Venue, ErrMalformed, e.Field, e.Err)
}

// Unwrap makes every MessageError an [ErrMalformed].
func (e *MessageError) Unwrap() []error { return []error{ErrMalformed, e.Err} }

var (
	errMissing = errors.New("missing")
	errKind    = errors.New("of another type than it should be")
	errRange   = errors.New("out of range")
)

// utcDay is the calendar of venues that never close.
func utcDay(eventTime int64) int32 {
	const day = int64(24 * time.Hour)
	d := eventTime / day
	if eventTime%day < 0 {
		d--
	}
	return int32(d)
}

// decimal reads a decimal that a venue writes as a string.
func (v value) decimal() (codec.Decimal, error) {
	switch v.kind {
	case 0:
		return codec.Decimal{}, errMissing
	case '"', '0':
		return codec.ParseDecimal(v.raw)
	}
	return codec.Decimal{}, errKind
}

// size reads the size of a trade or of a quote. Venues print all with the same
// number of decimals, so that billions of a cheap coin have more digits than a
// Decimal: zeros behind the point that it cannot hold are left out.
func (v value) size() (codec.Decimal, error) {
	d, err := v.decimal()
	if !errors.Is(err, codec.ErrDigits) || bytes.IndexByte(v.raw, '.') < 0 || bytes.ContainsAny(v.raw, "eE") {
		return d, err
	}
	return codec.ParseDecimal(bytes.TrimSuffix(bytes.TrimRight(v.raw, "0"), []byte(".")))
}

// uint reads an integer that a venue writes as a number.
func (v value) uint() (uint64, error) {
	switch v.kind {
	case 0:
		return 0, errMissing
	case '0', '"':
	default:
		return 0, errKind
	}
	if len(v.raw) == 0 || len(v.raw) > 19 {
		return 0, errRange
	}
	var n uint64
	for _, c := range v.raw {
		if c < '0' || c > '9' {
			return 0, errKind
		}
		n = n*10 + uint64(c-'0')
	}
	return n, nil
}

// name reads a symbol as the venue writes it.
func (v value) name() ([]byte, error) {
	switch {
	case v.kind == 0:
		return nil, errMissing
	case v.kind != '"':
		return nil, errKind
	case len(v.raw) == 0 || len(v.raw) > nameBytesMax:
		return nil, errRange
	}
	return v.raw, nil
}

// nameBytesMax bounds venue symbols; the longest that we know of, options',
// have some 30 bytes.
const nameBytesMax = 64
