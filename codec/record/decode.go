package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"tickgate/codec"
)

// ErrMalformed marks bytes that are no record; a [*FormatError] says where.
var ErrMalformed = errors.New("malformed record")

// ErrVersion marks a record of a version that this build does not know.
var ErrVersion = errors.New("unknown record version")

// A FormatError says what in a record could not be read, and where.
type FormatError struct {
	At   int    // byte offset
	Want string // what should have stood there
	Err  error  // ErrMalformed or ErrVersion
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%v at byte %d: want %s", e.Err, e.At, e.Want)
}

func (e *FormatError) Unwrap() error { return e.Err }

// Bounds of what a record may hold; a record beyond them is refused.
const (
	recordBytesMax = 4 << 10 // a full record has some 300
	stringBytesMax = 249     // as a Kafka topic's name
	arrayLenMax    = 64      // leaves room for later versions' additions
	skipDepthMax   = 4       // of additions that we do not know
)

// reader reads MessagePack values by hand. After the first fault it has nothing
// left to read.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) fail(want string) {
	if r.err == nil {
		r.err = &FormatError{At: r.at, Want: want, Err: ErrMalformed}
		r.b, r.at = nil, 0
	}
}

// peek is the next byte, 0xc1 (which MessagePack never uses) if there is none.
func (r *reader) peek() byte {
	if r.at >= len(r.b) {
		return 0xc1
	}
	return r.b[r.at]
}

// take takes n bytes, nil if there are not as many.
func (r *reader) take(n int, want string) []byte {
	if n > len(r.b)-r.at {
		r.fail(want)
		return nil
	}
	b := r.b[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

// null takes a nil if one is next.
func (r *reader) null() bool {
	if r.peek() == 0xc0 {
		r.at++
		return true
	}
	return false
}

// array takes the header of an array of at least n elements and returns how
// many more there are.
func (r *reader) array(n int, want string) (more int) {
	if r.at < len(r.b) && int(r.b[r.at]) == 0x90|n {
		r.at++
		return 0
	}
	return r.longArray(n, want)
}

func (r *reader) longArray(n int, want string) (more int) {
	c := r.peek()
	switch {
	case c&0xf0 == 0x90:
		more = int(c & 0x0f)
		r.at++
	case c == 0xdc:
		h := r.take(3, want)
		if h == nil {
			return 0
		}
		more = int(binary.BigEndian.Uint16(h[1:]))
	default:
		r.fail(want)
		return 0
	}
	if more < n || more > arrayLenMax {
		r.fail(want)
		return 0
	}
	return more - n
}

// skip passes over what a later writer of the same version has added.
func (r *reader) skip(n, depth int) {
	const want = "an addition of a later writer"
	for ; n > 0 && r.err == nil; n-- {
		c := r.peek()
		switch {
		case c == 0xc1:
			r.fail(want)
		case c < 0x80 || c >= 0xe0 || c == 0xc0 || c == 0xc2 || c == 0xc3:
			r.at++
		case c&0xf0 == 0x90, c&0xf0 == 0x80:
			if depth == 0 {
				r.fail(want)
				return
			}
			r.at++
			m := int(c & 0x0f)
			if c&0xf0 == 0x80 {
				m *= 2
			}
			r.skip(m, depth-1)
		case c&0xe0 == 0xa0:
			r.take(1+int(c&0x1f), want)
		case c == 0xcc || c == 0xd0:
			r.take(2, want)
		case c == 0xcd || c == 0xd1:
			r.take(3, want)
		case c == 0xce || c == 0xd2 || c == 0xca:
			r.take(5, want)
		case c == 0xcf || c == 0xd3 || c == 0xcb:
			r.take(9, want)
		case c == 0xc4 || c == 0xd9:
			if h := r.take(2, want); h != nil {
				r.take(int(h[1]), want)
			}
		default:
			r.fail(want)
		}
	}
}

// uintAt reads an integer that is written as an unsigned one; n is 0 if b does
// not begin with one.
func uintAt(b []byte) (v uint64, n int) {
	if len(b) >= 9 { // nearly always: no number stands at a record's end
		v = binary.BigEndian.Uint64(b[1:])
		switch c := b[0]; c {
		case 0xcf:
			return v, 9
		case 0xce:
			return v >> 32, 5
		case 0xcd:
			return v >> 48, 3
		case 0xcc:
			return v >> 56, 2
		default:
			if c < 0x80 {
				return uint64(c), 1
			}
			return 0, 0
		}
	}
	if len(b) == 0 {
		return 0, 0
	}
	switch c := b[0]; {
	case c < 0x80:
		return uint64(c), 1
	case c == 0xce && len(b) >= 5:
		return uint64(binary.BigEndian.Uint32(b[1:])), 5
	case c == 0xcd && len(b) >= 3:
		return uint64(binary.BigEndian.Uint16(b[1:])), 3
	case c == 0xcc && len(b) >= 2:
		return uint64(b[1]), 2
	}
	return 0, 0
}

// uint takes an integer that is not negative; most have one byte.
func (r *reader) uint(want string) uint64 {
	b := r.b[r.at:]
	if len(b) > 0 && b[0] < 0x80 {
		r.at++
		return uint64(b[0])
	}
	if v, n := uintAt(b); n > 0 {
		r.at += n
		return v
	}
	if v := r.longInt(want); v >= 0 {
		return uint64(v)
	}
	r.fail(want)
	return 0
}

func (r *reader) int(want string) int64 {
	if b := r.b[r.at:]; len(b) > 0 && b[0] < 0x80 {
		r.at++
		return int64(b[0])
	}
	return r.longInt(want)
}

func (r *reader) longInt(want string) int64 {
	if v, n := uintAt(r.b[r.at:]); n > 0 {
		if v > math.MaxInt64 {
			r.fail(want)
			return 0
		}
		r.at += n
		return int64(v)
	}
	c := r.peek()
	switch {
	case c == 0xc1:
		r.fail(want)
	case c >= 0xe0:
		r.at++
		return int64(int8(c))
	case c == 0xd0:
		if b := r.take(2, want); b != nil {
			return int64(int8(b[1]))
		}
	case c == 0xd1:
		if b := r.take(3, want); b != nil {
			return int64(int16(binary.BigEndian.Uint16(b[1:])))
		}
	case c == 0xd2:
		if b := r.take(5, want); b != nil {
			return int64(int32(binary.BigEndian.Uint32(b[1:])))
		}
	case c == 0xd3:
		if b := r.take(9, want); b != nil {
			return int64(binary.BigEndian.Uint64(b[1:]))
		}
	default:
		r.fail(want)
	}
	return 0
}

// bounded takes an integer of at most max.
func (r *reader) bounded(max uint64, want string) uint64 {
	v := r.uint(want)
	if v > max {
		r.fail(want)
		return 0
	}
	return v
}

// time takes a time, which has eight bytes from 1970 to 2262, or nil.
func (r *reader) time(want string) int64 {
	if b := r.b[r.at:]; len(b) >= 9 && b[0] == 0xcf && b[1] < 0x80 {
		r.at += 9
		return int64(binary.BigEndian.Uint64(b[1:]))
	}
	if r.null() {
		return 0
	}
	return r.int(want)
}

// text takes a string into *s, which keeps its memory if it says so already.
func (r *reader) text(s *string, want string) {
	c := r.peek()
	n := 0
	switch {
	case c&0xe0 == 0xa0:
		r.at++
		n = int(c & 0x1f)
	case c == 0xd9:
		if h := r.take(2, want); h != nil {
			n = int(h[1])
		}
	default:
		r.fail(want)
		return
	}
	if n > stringBytesMax {
		r.fail(want)
		return
	}
	if b := r.take(n, want); b != nil && string(b) != *s {
		*s = string(b)
	}
}

// pair takes an array of exactly a coefficient that is not negative and a
// scale, which is what nearly all numbers are; if it is something else it takes
// nothing.
func (r *reader) pair(scaleMax byte) (coef int64, scale int, ok bool) {
	b := r.b[r.at:]
	if len(b) < 1+9+1 || b[0] != 0x92 { // no number stands at a record's end
		return 0, 0, false
	}
	c, w := b[1], binary.BigEndian.Uint64(b[2:])
	var n int
	switch {
	case c < 0x80:
		w, n = uint64(c), 2
	case c == 0xcf:
		n = 10
	case c == 0xce:
		w, n = w>>32, 6
	case c == 0xcd:
		w, n = w>>48, 4
	case c == 0xcc:
		w, n = w>>56, 3
	default:
		return 0, 0, false
	}
	if b[n] > scaleMax || w > math.MaxInt64 {
		return 0, 0, false
	}
	r.at += n + 1
	return int64(w), int(b[n]), true
}

func (r *reader) decimal(d *codec.Decimal, want string) {
	coef, scale, ok := r.pair(codec.DecimalScaleMax)
	if !ok {
		r.longDecimal(d, want)
		return
	}
	var err error
	if *d, err = codec.NewDecimal(coef, scale); err != nil {
		r.fail(want)
	}
}

// longDecimal takes one that is absent, negative, or has additions.
func (r *reader) longDecimal(d *codec.Decimal, want string) {
	*d = codec.Decimal{}
	if r.null() {
		return
	}
	more := r.array(2, want)
	coef := r.int(want)
	scale := r.bounded(codec.DecimalScaleMax, want)
	if more > 0 {
		r.skip(more, skipDepthMax)
	}
	if r.err != nil {
		return
	}
	var err error
	if *d, err = codec.NewDecimal(coef, int(scale)); err != nil {
		r.fail(want)
	}
}

func (r *reader) total(t *codec.Total, want string) {
	coef, scale, ok := r.pair(2 * codec.DecimalScaleMax)
	switch {
	case !ok:
		r.longTotal(t, want)
		return
	case coef == 0: // as all are when the first day begins
		*t = codec.Total{}
		return
	}
	var err error
	if *t, err = codec.NewTotal(coef, scale); err != nil {
		r.fail(want)
	}
}

// longTotal takes one that is lost, negative, beyond 64 bits, or has additions.
func (r *reader) longTotal(t *codec.Total, want string) {
	if r.null() {
		*t = codec.LostTotal()
		return
	}
	more := r.array(2, want)
	var digits []byte
	var coef int64
	if c := r.peek(); c == 0xd9 || c&0xe0 == 0xa0 {
		n := int(c & 0x1f)
		if c == 0xd9 {
			if h := r.take(2, want); h != nil {
				n = int(h[1])
			}
		} else {
			r.at++
		}
		digits = r.take(n, want)
	} else {
		coef = r.int(want)
	}
	scale := int(r.bounded(2*codec.DecimalScaleMax, want))
	if more > 0 {
		r.skip(more, skipDepthMax)
	}
	if r.err != nil {
		return
	}
	var err error
	if digits == nil {
		*t, err = codec.NewTotal(coef, scale)
	} else {
		*t, err = parseCoef(digits, scale)
	}
	if err != nil {
		r.fail(want)
	}
}

// parseCoef reads a coefficient beyond 64 bits: the point goes into the digits.
func parseCoef(digits []byte, scale int) (codec.Total, error) {
	if len(digits) > 40 { // a sign and 39 digits are 128 bits
		return codec.Total{}, codec.ErrDigits
	}
	var buf [80]byte
	text := buf[:0]
	if len(digits) > 0 && digits[0] == '-' {
		text, digits = append(text, '-'), digits[1:]
	}
	for range scale + 1 - len(digits) {
		text = append(text, '0')
	}
	text = append(text, digits...)
	at := len(text) - scale
	text = append(text, 0)
	copy(text[at+1:], text[at:])
	text[at] = '.'
	return codec.ParseTotal(text)
}

func (r *reader) trade(t *codec.Trade, want string) {
	more := r.array(tradeLen, want)
	t.No = r.uint("trade number")
	t.Seq = r.uint("trade's sequence number")
	r.decimal(&t.Price, "price")
	r.decimal(&t.Size, "size")
	t.Side = codec.Side(r.bounded(uint64(codec.SideSell), "side"))
	t.Flags = codec.TradeFlags(r.bounded(uint64(codec.TradeOrdinary), "trade flags"))
	t.HasID = !r.null()
	t.ID = 0
	if t.HasID {
		t.ID = r.uint("trade id")
	}
	t.EventTime = r.time("trade's event time")
	t.IngestTime = r.time("trade's ingest time")
	if more > 0 {
		r.skip(more, skipDepthMax)
	}
}

func (r *reader) quote(q *codec.Quote) {
	more := r.array(quoteLen, "quote")
	q.No = r.uint("quote number")
	q.Seq = r.uint("quote's sequence number")
	r.decimal(&q.Bid, "bid")
	r.decimal(&q.BidSize, "bid size")
	r.decimal(&q.Ask, "ask")
	r.decimal(&q.AskSize, "ask size")
	q.EventTime = r.time("quote's event time")
	q.IngestTime = r.time("quote's ingest time")
	if more > 0 {
		r.skip(more, skipDepthMax)
	}
}

func (r *reader) day(d *codec.Day) {
	more := r.array(dayLen, "day")
	n := r.int("day number")
	if n < math.MinInt32 || n > math.MaxInt32 {
		r.fail("day number")
	}
	d.Number = int32(n)
	switch r.peek() {
	case 0xc2, 0xc3:
		d.RangeUnsure = r.peek() == 0xc3
		r.at++
	default:
		r.fail("range unsure")
	}
	r.decimal(&d.Open, "open")
	r.decimal(&d.High, "high")
	r.decimal(&d.Low, "low")
	r.decimal(&d.PrevClose, "previous close")
	r.total(&d.BaseVolume, "volume at the day's start")
	r.total(&d.BaseNotional, "notional at the day's start")
	d.BaseTrades = r.uint("trades at the day's start")
	if more > 0 {
		r.skip(more, skipDepthMax)
	}
}

func (r *reader) state(s *codec.State) {
	more := r.array(stateLen, "state")
	s.Epoch = r.int("epoch")
	s.Seq = r.uint("sequence number")
	s.TradeNo = r.uint("trades told")
	s.QuoteNo = r.uint("quotes told")
	r.total(&s.Volume, "volume")
	r.total(&s.Notional, "notional")
	s.Trades = r.uint("trades")
	if r.null() {
		s.Day = codec.Day{}
	} else {
		r.day(&s.Day)
	}
	if r.null() {
		s.Last = codec.Trade{}
	} else {
		r.trade(&s.Last, "last trade")
	}
	if r.null() {
		s.Quote = codec.Quote{}
	} else {
		r.quote(&s.Quote)
	}
	s.Status = codec.VenueStatus(r.bounded(uint64(codec.VenueStatusClosed), "venue status"))
	s.HighID = 0
	if s.HasHighID = !r.null(); s.HasHighID {
		s.HighID = r.uint("highest trade id")
	}
	if more > 0 {
		r.skip(more, skipDepthMax)
	}
}

func (r *reader) source(s *codec.Source) {
	more := r.array(sourceLen, "source")
	s.Epoch = r.int("source's epoch")
	r.topicID(&s.RawTopicID)
	s.Partition = int32(r.bounded(math.MaxInt32, "raw partition"))
	s.Offset = r.int("raw offset")
	s.Index = int32(r.bounded(math.MaxInt32, "index in the raw message"))
	s.ProducerEra = int16(r.bounded(math.MaxInt16, "producer era"))
	if more > 0 {
		r.skip(more, skipDepthMax)
	}
}

func (r *reader) topicID(id *[16]byte) {
	*id = [16]byte{}
	if r.null() {
		return
	}
	const want = "raw topic's id: 16 bytes"
	if b := r.take(18, want); b != nil {
		if b[0] != 0xc4 || b[1] != 16 {
			r.fail(want)
		}
		copy(id[:], b[2:])
	}
}

func (r *reader) version() {
	at := r.at
	if v := r.uint("version"); r.err == nil && v != Version {
		r.err = &FormatError{At: at, Want: fmt.Sprintf("version %d, not %d: written by a newer tickgate?", Version, v), Err: ErrVersion}
	}
}

// head reads what all kinds begin with.
func (r *reader) head() (more int, kind codec.Kind) {
	if len(r.b) > recordBytesMax {
		r.fail(fmt.Sprintf("at most %d bytes", recordBytesMax))
		return 0, 0
	}
	more = r.array(recordLen, "a record: an array of 9")
	r.version()
	at := r.at
	kind = codec.Kind(r.bounded(math.MaxUint8, "kind"))
	switch kind {
	case codec.KindTrade, codec.KindQuote, codec.KindCorrection, codec.KindCancel, codec.KindStatus, codec.KindFence, codec.KindGap, codec.KindMoved:
	default:
		if r.err == nil {
			r.at = at
		}
		r.fail("a kind that we know")
	}
	return more, kind
}

// Decode reads a record. It overwrites all of r and keeps the memory of r's
// strings if they say the same: a caller that reuses r for one Kafka topic
// allocates nothing.
func Decode(b []byte, rec *Record) error {
	r := reader{b: b}
	symbol, venue, claim := rec.Symbol, rec.Venue, rec.Claim
	more, kind := r.head()
	rec.Kind = kind
	rec.Trade, rec.Ref, rec.Claim, rec.Gap = codec.Trade{}, codec.Trade{}, Claim{}, Gap{}
	r.text(&symbol, "symbol")
	if r.err == nil && !codec.ValidSymbol(symbol) {
		r.fail("a symbol: [A-Z0-9._-]{1,32}")
	}
	r.text(&venue, "venue")
	rec.Symbol, rec.Venue = symbol, venue
	rec.IngestTime = r.int("ingest time")
	rec.EventTime = r.time("event time")
	r.source(&rec.Source)
	isLast := false // the trade is the state's last one
	switch kind {
	case codec.KindFence:
		m := r.array(2, "claim")
		r.text(&claim.RawTopic, "raw topic")
		r.text(&claim.VenueSymbol, "venue symbol")
		if m > 0 {
			r.skip(m, skipDepthMax)
		}
		rec.Claim, rec.State = claim, codec.State{}
		if r.err == nil && !r.null() {
			r.fail("no state in a fence")
		}
		if more > 0 {
			r.skip(more, skipDepthMax)
		}
		return r.end()
	case codec.KindGap:
		m := r.array(2, "gap")
		rec.Gap.From = r.int("first raw offset lost")
		rec.Gap.To = r.int("first raw offset not lost")
		if m > 0 {
			r.skip(m, skipDepthMax)
		}
	case codec.KindCorrection, codec.KindCancel:
		m := r.array(2, "the trade and the one it means")
		r.trade(&rec.Trade, "trade")
		r.trade(&rec.Ref, "trade meant")
		if m > 0 {
			r.skip(m, skipDepthMax)
		}
	case codec.KindTrade:
		if isLast = r.null(); isLast {
			break
		}
		m := r.array(1, "trade")
		r.trade(&rec.Trade, "trade")
		if m > 0 {
			r.skip(m, skipDepthMax)
		}
	default:
		if r.err == nil && !r.null() {
			r.fail("no event")
		}
	}
	r.state(&rec.State)
	if more > 0 {
		r.skip(more, skipDepthMax)
	}
	if isLast {
		rec.Trade = rec.State.Last
	}
	return r.end()
}

func (r *reader) end() error {
	if r.err == nil && r.at != len(r.b) {
		r.fail("the end")
	}
	return r.err
}

// PeekKind reads only the kind of a record, 0 if it is none.
func PeekKind(b []byte) codec.Kind {
	r := reader{b: b}
	_, kind := r.head()
	if r.err != nil {
		return 0
	}
	return kind
}

// IsFence tells a fence from a record that carries state.
func IsFence(b []byte) bool { return PeekKind(b) == codec.KindFence }
