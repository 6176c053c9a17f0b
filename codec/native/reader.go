package native

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"tickgate/codec"
)

// reader reads values of either spelling from bytes that nobody vouches for.
// It copies and allocates nothing but what a JSON escape makes necessary, and
// believes no count before it has seen that the bytes could hold it.
//
// The first fault sticks: every later call returns zero values, so that callers
// look once, at the end.
type reader struct {
	b    []byte
	i    int
	text bool // JSON, not MessagePack
	err  *codec.Error

	// For the fault's place: the key being read, and the item in its list.
	key  string
	item int // -1: none

	skipLeft  int    // bytes of unknown values that may still be skipped
	spaceLeft int    // bytes of space
	scratch   []byte // an unescaped JSON string
	spare     []byte // the scratch of one that outlasts the next

	escapesLeft int // of JSON
	fromLeft    int // symbols with epoch and seq
}

// span is a list or a map that is being read.
type span struct {
	left  int // elements to come; in JSON, that may come
	most  int
	begun bool
}

func (r *reader) fail(code, what, want string) {
	if r.err != nil {
		return
	}
	var where string
	switch {
	case r.key == "":
		where = "byte " + strconv.Itoa(r.i)
	case r.item >= 0:
		where = r.key + "[" + strconv.Itoa(r.item) + "]"
	default:
		where = r.key
	}
	r.err = &codec.Error{Code: code, What: what, Where: where, Want: want}
}

// malformed tells that the bytes at r.i are not what must stand there.
func (r *reader) malformed(want string) {
	if r.err != nil {
		return
	}
	if r.i >= len(r.b) {
		r.fail(CodeBadFrame, "the frame ends too early", want)
		return
	}
	r.fail(CodeBadFrame, "unexpected "+r.nameOf(r.b[r.i]), want)
}

// kind is what a value is, as its first byte tells.
type kind uint8

const (
	kindNone kind = iota // the end, or no value
	kindMap
	kindList
	kindString
	kindInteger
	kindNull
	kindBoolean
	kindOther // binary, float, extension
)

var kindNames = [...]string{
	kindMap: "map", kindList: "list", kindString: "string", kindInteger: "number",
	kindNull: "null", kindBoolean: "boolean", kindOther: "binary, float or extension",
}

var textKinds, packKinds = func() (text, pack [256]kind) {
	text['{'], text['['], text['"'] = kindMap, kindList, kindString
	text['n'], text['t'], text['f'] = kindNull, kindBoolean, kindBoolean
	text['-'] = kindInteger
	for c := '0'; c <= '9'; c++ {
		text[c] = kindInteger
	}
	for c := range pack {
		switch {
		case c < 0x80, c >= 0xe0, c >= 0xcc && c <= 0xd3:
			pack[c] = kindInteger
		case c < 0x90, c >= 0xde:
			pack[c] = kindMap
		case c < 0xa0, c >= 0xdc:
			pack[c] = kindList
		case c < 0xc0, c >= 0xd9:
			pack[c] = kindString
		case c == packNil:
			pack[c] = kindNull
		case c == 0xc2, c == 0xc3:
			pack[c] = kindBoolean
		case c != 0xc1: // which is reserved
			pack[c] = kindOther
		}
	}
	return text, pack
}()

// next is the kind of the value that comes next, behind space.
func (r *reader) next() kind {
	if !r.text {
		if r.i < len(r.b) && r.err == nil {
			return packKinds[r.b[r.i]]
		}
		return kindNone
	}
	r.space()
	if r.i < len(r.b) && r.err == nil {
		return textKinds[r.b[r.i]]
	}
	return kindNone
}

// nameOf tells people what begins with c.
func (r *reader) nameOf(c byte) string {
	kinds := &packKinds
	if r.text {
		kinds = &textKinds
	}
	if k := kinds[c]; k != kindNone {
		return kindNames[k]
	}
	if r.text && c > ' ' && c < 0x7f {
		return "character '" + string(rune(c)) + "'"
	}
	return fmt.Sprintf("byte 0x%02x", c)
}

// space goes past what JSON allows between values, of which there may be much,
// but not a frame full.
func (r *reader) space() {
	if r.i >= len(r.b) || r.b[r.i] > ' ' {
		return
	}
	i := r.gap(r.i)
	if r.spaceLeft < 0 {
		r.fail(CodeTooBig, "too much space", "at most "+strconv.Itoa(spaceBytesMax)+" bytes of it")
		return
	}
	r.i = i
}

// gap is where the space that begins at i ends. It is paid for by spaceLeft;
// beyond that the frame seems to end.
func (r *reader) gap(i int) int {
	const short = 4 // as most are; longer ones are read by eights
	b, from := r.b, i
	for end := min(len(b), i+short); i < end && isSpace(b[i]); {
		i++
	}
	if i-from == short {
		for len(b)-i >= 8 && i-from <= r.spaceLeft {
			odd := noSpaces(binary.LittleEndian.Uint64(b[i:]))
			if odd != 0 {
				i += bits.TrailingZeros64(odd) / 8
				break
			}
			i += 8
		}
		for i < len(b) && i-from <= r.spaceLeft && isSpace(b[i]) { // the frame's last
			i++
		}
	}
	if r.spaceLeft -= i - from; r.spaceLeft < 0 {
		return len(b)
	}
	return i
}

func isSpace(c byte) bool {
	return c <= ' ' && (1<<' '|1<<'\n'|1<<'\t'|1<<'\r')>>c&1 != 0
}

// noSpaces has the highest bit of each byte of w set that is no space of JSON.
func noSpaces(w uint64) uint64 {
	if w == ' '*ones {
		return 0
	}
	// Of a byte that is zero, and of no other, this leaves the highest bit 0.
	odd := func(w uint64) uint64 { return (w&^highs + 0x7f*ones) | w }
	low := w &^ highs
	tabs := (low + (0x80-'\t')*ones) & ((0x80+'\n')*ones - low) &^ w // and the line feeds: see oddBytes
	return odd(w^' '*ones) & odd(w^'\r'*ones) & highs &^ tabs
}

// take is the next n bytes, nil if they are not there.
func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b)-r.i {
		r.i = len(r.b)
		r.malformed("")
		return nil
	}
	b := r.b[r.i : r.i+n]
	r.i += n
	return b
}

// bigEndian reads n bytes as a number.
func (r *reader) bigEndian(n int) (v uint64) {
	for _, c := range r.take(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

// null takes a null if one comes.
func (r *reader) null() bool {
	if r.next() != kindNull {
		return false
	}
	if r.text {
		return r.literal("null")
	}
	r.i++
	return true
}

func (r *reader) literal(word string) bool {
	if r.err != nil || len(r.b)-r.i < len(word) || string(r.b[r.i:r.i+len(word)]) != word {
		return false
	}
	r.i += len(word)
	return true
}

func (r *reader) boolean() bool {
	if r.next() == kindBoolean {
		if !r.text {
			r.i++
			return r.b[r.i-1] == 0xc3
		}
		if r.literal("true") {
			return true
		}
		if r.literal("false") {
			return false
		}
	}
	r.malformed("true or false")
	return false
}

// openMap begins a map of at most most entries.
func (r *reader) openMap(most int) span {
	if r.next() != kindMap {
		r.malformed("a map")
		return span{}
	}
	return r.open(0x80, most, 2, "keys")
}

// openList begins a list of at most most items.
func (r *reader) openList(most int) span {
	if r.next() != kindList {
		r.malformed("a list")
		return span{}
	}
	return r.open(0x90, most, 1, "items")
}

// open reads the header of a map or a list, whose elements take at least so
// many bytes each.
func (r *reader) open(fix byte, most, bytesEach int, of string) span {
	c := r.b[r.i]
	r.i++
	if r.text {
		return span{left: most, most: most}
	}
	var n uint64
	switch {
	case c&0xf0 == fix:
		n = uint64(c & 0x0f)
	case c&1 == 0: // array16, map16
		n = r.bigEndian(2)
	default:
		n = r.bigEndian(4)
	}
	if r.err != nil {
		return span{}
	}
	if n > uint64(most) {
		r.fail(CodeTooMany, strconv.FormatUint(n, 10)+" "+of, "at most "+strconv.Itoa(most))
		return span{}
	}
	if n > uint64((len(r.b)-r.i)/bytesEach) {
		r.fail(CodeBadFrame, "the frame is too short for "+strconv.FormatUint(n, 10)+" "+of, "")
		return span{}
	}
	return span{left: int(n)}
}

// more tells whether the list or map that s reads has another element; in a
// map its key comes next.
func (r *reader) more(s *span, end byte) bool {
	if r.err != nil {
		return false
	}
	if !r.text {
		s.left--
		return s.left >= 0
	}
	r.space()
	if r.i < len(r.b) && r.b[r.i] == end {
		r.i++
		return false
	}
	if s.begun {
		if r.i >= len(r.b) || r.b[r.i] != ',' {
			r.malformed("',' or '" + string(rune(end)) + "'")
			return false
		}
		r.i++
	}
	s.begun = true
	if s.left--; s.left < 0 {
		r.fail(CodeTooMany, "too many elements", "at most "+strconv.Itoa(s.most))
		return false
	}
	return true
}

func (r *reader) moreItems(s *span) bool { return r.more(s, ']') }

// nextKey is the next key of the map that s reads; ok is false at its end.
// The key is valid until the next string is read.
func (r *reader) nextKey(s *span) (key []byte, ok bool) {
	if !r.more(s, '}') {
		return nil, false
	}
	if key = r.plainKey(); key != nil {
		return key, true
	}
	if r.next() != kindString {
		r.malformed("a key, which is a string")
		return nil, false
	}
	key = r.str(keyBytesMax)
	if r.text && r.err == nil {
		if r.i < len(r.b) && r.b[r.i] != ':' {
			r.space()
		}
		if r.i >= len(r.b) || r.b[r.i] != ':' {
			r.malformed("':'")
			return nil, false
		}
		r.i++
	}
	return key, r.err == nil
}

// plainKey reads a key and its colon if they are written in JSON as nearly all
// are: small letters, no escape, no space. Else it reads nothing.
func (r *reader) plainKey() []byte {
	rest := r.b[r.i:]
	if !r.text || len(rest) == 0 || rest[0] != '"' {
		return nil
	}
	n := 1
	for n < len(rest) && n <= keyBytesMax && (rest[n]-'a' < 26 || rest[n] == '_') {
		n++
	}
	if n+1 >= len(rest) || rest[n] != '"' || rest[n+1] != ':' {
		return nil
	}
	r.i += n + 2
	return rest[1:n]
}

// str reads a string of at most most bytes. The result aliases the frame or the
// scratch: it is valid until the next string is read. It may be no UTF-8.
func (r *reader) str(most int) []byte {
	if r.next() != kindString {
		r.malformed("a string")
		return nil
	}
	var s []byte
	if r.text {
		r.i++
		s = r.jsonString(most)
	} else {
		n := uint64(0)
		switch c := r.b[r.i]; {
		case c < 0xc0:
			r.i++
			n = uint64(c & 0x1f)
		default:
			r.i++
			n = r.bigEndian(1 << (c - 0xd9))
		}
		if r.err != nil {
			return nil
		}
		if n > uint64(most) {
			r.fail(CodeBadValue, "a string of "+strconv.FormatUint(n, 10)+" bytes", "at most "+strconv.Itoa(most))
			return nil
		}
		s = r.take(int(n))
	}
	return s
}

// jsonString reads on behind the opening quote.
func (r *reader) jsonString(most int) []byte {
	// One that has no escape ends at the next quote; most bytes and their
	// escapes are at most six times as long.
	rest := r.b[r.i:]
	n := bytes.IndexByte(rest[:min(len(rest), 6*most+1)], '"')
	if n < 0 {
		if len(rest) > 6*most {
			r.fail(CodeBadValue, "a string too long", "at most "+strconv.Itoa(most)+" bytes")
		} else {
			r.i = len(r.b)
			r.malformed("the end of a string")
		}
		return nil
	}
	plain := true
	for _, c := range rest[:n] {
		if c < 0x20 || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		r.i += n + 1
		if n > most {
			r.fail(CodeBadValue, "a string of "+strconv.Itoa(n)+" bytes", "at most "+strconv.Itoa(most))
			return nil
		}
		return rest[:n]
	}
	out := r.scratch[:0]
	for {
		if len(out) > most {
			r.fail(CodeBadValue, "a string too long", "at most "+strconv.Itoa(most)+" bytes")
			return nil
		}
		if r.i >= len(r.b) {
			r.malformed("the end of a string")
			return nil
		}
		c := r.b[r.i]
		switch {
		case c == '"':
			r.i++
			r.scratch = out
			return out
		case c < 0x20:
			r.malformed("control characters escaped")
			return nil
		case c != '\\':
			out = append(out, c)
			r.i++
		default:
			if r.escapesLeft--; r.escapesLeft < 0 {
				r.fail(CodeTooBig, "too many escapes", "at most "+strconv.Itoa(escapesMax)+": symbols need none")
				return nil
			}
			r.i++
			if out = r.unescape(out); r.err != nil {
				return nil
			}
		}
	}
}

// unescape reads what follows a backslash.
func (r *reader) unescape(out []byte) []byte {
	esc := r.take(1)
	if esc == nil {
		return out
	}
	switch esc[0] {
	case '"', '\\', '/':
		return append(out, esc[0])
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'u':
		c := r.hex4()
		switch {
		case c >= 0xdc00 && c < 0xe000:
			r.fail(CodeBadFrame, "half a surrogate pair", "")
		case c >= 0xd800 && c < 0xdc00:
			if !r.literal(`\u`) {
				r.fail(CodeBadFrame, "half a surrogate pair", "")
				return out
			}
			low := r.hex4()
			if low < 0xdc00 || low >= 0xe000 {
				r.fail(CodeBadFrame, "half a surrogate pair", "")
				return out
			}
			c = 0x10000 + (c-0xd800)<<10 + low - 0xdc00
		}
		return utf8.AppendRune(out, rune(c))
	}
	r.i--
	r.malformed("an escape of JSON")
	return out
}

func (r *reader) hex4() (v uint32) {
	for _, c := range r.take(4) {
		v <<= 4
		switch {
		case c >= '0' && c <= '9':
			v |= uint32(c - '0')
		case c >= 'a' && c <= 'f':
			v |= uint32(c-'a') + 10
		case c >= 'A' && c <= 'F':
			v |= uint32(c-'A') + 10
		default:
			r.fail(CodeBadFrame, "not four hexadecimal digits", "")
			return 0
		}
	}
	return v
}

const integerWant = "a whole number of at least 0 (beyond 2^53 a string of digits)"

// uint reads a number that is not negative, or the string of its digits.
func (r *reader) uint() uint64 {
	v, neg := r.integer()
	if neg {
		r.fail(CodeBadValue, "a negative number", integerWant)
		return 0
	}
	return v
}

// int63 reads a number of at least 0 that an int64 holds.
func (r *reader) int63() int64 {
	v := r.uint()
	if v>>63 != 0 {
		r.fail(CodeBadValue, "a number beyond 2^63", integerWant)
		return 0
	}
	return int64(v)
}

// int64 reads any number that an int64 holds, but for the lowest.
func (r *reader) int64() int64 {
	v, neg := r.integer()
	if v>>63 != 0 {
		r.fail(CodeBadValue, "a number beyond 2^63", "")
		return 0
	}
	if neg {
		return -int64(v)
	}
	return int64(v)
}

// uintMax reads a number from 0 to most.
func (r *reader) uintMax(most uint64) uint64 {
	v := r.uint()
	if v > most {
		r.fail(CodeBadValue, strconv.FormatUint(v, 10), "0 to "+strconv.FormatUint(most, 10))
		return 0
	}
	return v
}

// integer reads a number, or the string of its digits, as magnitude and sign.
func (r *reader) integer() (v uint64, neg bool) {
	switch r.next() {
	case kindInteger:
		if r.text {
			return r.textInteger()
		}
		return r.packInteger()
	case kindString:
		digits := r.str(20)
		if len(digits) > 0 && digits[0] == '-' {
			neg, digits = true, digits[1:]
		}
		v, ok := parseDigits(digits)
		if !ok && r.err == nil {
			r.fail(CodeBadValue, "a string that is no number", integerWant)
		}
		return v, neg && v != 0
	}
	r.malformed(integerWant)
	return 0, false
}

func (r *reader) packInteger() (v uint64, neg bool) {
	c := r.b[r.i]
	r.i++
	switch {
	case c < 0x80:
		return uint64(c), false
	case c >= 0xe0:
		return uint64(-int64(int8(c))), true
	case c <= 0xcf:
		return r.bigEndian(1 << (c - 0xcc)), false
	}
	n := 1 << (c - 0xd0)
	i := int64(r.bigEndian(n)<<(64-8*n)) >> (64 - 8*n)
	if i < 0 {
		return -uint64(i), true
	}
	return uint64(i), false
}

func (r *reader) textInteger() (v uint64, neg bool) {
	const digitsSafe = 19 // that many always fit 64 bits
	if r.b[r.i] == '-' {
		neg = true
		r.i++
	}
	first := r.i
	for r.i < len(r.b) && r.i-first <= digitsSafe {
		d := r.b[r.i] - '0'
		if d > 9 {
			break
		}
		if r.i-first < digitsSafe {
			v = v*10 + uint64(d)
		}
		r.i++
	}
	n := r.i - first
	if n > digitsSafe {
		var ok bool
		if v, ok = parseDigits(r.b[first:r.i]); !ok || r.i < len(r.b) && r.b[r.i]-'0' < 10 {
			r.fail(CodeBadValue, "a number beyond 2^64", integerWant)
			return 0, false
		}
	}
	switch {
	case n == 0:
		r.malformed(integerWant)
		return 0, false
	case n > 1 && r.b[first] == '0':
		r.fail(CodeBadFrame, "a number with a leading zero", "")
		return 0, false
	case r.i < len(r.b) && (r.b[r.i] == '.' || r.b[r.i]|0x20 == 'e'):
		r.fail(CodeBadValue, "a number with a point or an exponent", integerWant)
		return 0, false
	}
	return v, neg && v != 0
}

func parseDigits(b []byte) (v uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	for i, c := range b {
		d := uint64(c - '0')
		if d > 9 {
			return 0, false
		}
		if i == 19 && (v > (1<<64-1)/10 || v*10 > 1<<64-1-d) {
			return 0, false
		}
		v = v*10 + d
	}
	return v, true
}

// skip goes past a value of any kind, within the bounds.
func (r *reader) skip(depth int) {
	if r.err != nil {
		return
	}
	if depth == 0 {
		r.fail(CodeBadFrame, "nested too deep", "")
		return
	}
	k := r.next()
	from := r.i
	if k == kindMap || k == kindList {
		r.skipPay(skipOpenBytes)
	}
	switch {
	case k == kindMap:
		for s := r.openMap(r.skipLeft); r.more(&s, '}'); {
			r.skipPay(1)
			r.skipKey(depth - 1)
			r.skip(depth - 1)
		}
		return
	case k == kindList:
		for s := r.openList(r.skipLeft); r.more(&s, ']'); {
			r.skipPay(1)
			r.skip(depth - 1)
		}
		return
	case k == kindString:
		r.str(r.skipLeft)
	case r.text:
		r.skipWord()
	default:
		r.skipPacked()
	}
	r.skipPay(r.i - from)
}

// skipKey goes past a key: in JSON a string, in MessagePack anything.
func (r *reader) skipKey(depth int) {
	if !r.text {
		r.skip(depth)
		return
	}
	if r.next() != kindString {
		r.malformed("a key, which is a string")
		return
	}
	r.skip(depth)
	if r.space(); r.err == nil && (r.i >= len(r.b) || r.b[r.i] != ':') {
		r.malformed("':'")
		return
	}
	r.i++
}

// skipWord goes past a number, true, false or null of JSON.
func (r *reader) skipWord() {
	from := r.i
	for r.i < len(r.b) && r.i-from <= r.skipLeft {
		c := r.b[r.i]
		if c != '+' && c != '-' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != 'E' {
			break
		}
		r.i++
	}
	if w := r.b[from:r.i]; string(w) != "null" && string(w) != "true" && string(w) != "false" && !isNumber(w) {
		r.i = from
		r.malformed("a value")
	}
}

// skipPay pays for what is skipped.
func (r *reader) skipPay(bytes int) {
	if r.skipLeft -= bytes; r.skipLeft < 0 {
		r.fail(CodeTooBig, "too much under keys that are unknown", "")
	}
}

// isNumber follows the grammar of JSON.
func isNumber(b []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(b) && b[n]-'0' < 10 {
			n++
		}
		b = b[n:]
		return n > 0
	}
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) > 1 && b[0] == '0' && b[1]-'0' < 10 || !digits() {
		return false
	}
	if len(b) > 0 && b[0] == '.' {
		if b = b[1:]; !digits() {
			return false
		}
	}
	if len(b) > 0 && b[0]|0x20 == 'e' {
		if b = b[1:]; len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(b) == 0
}

// skipPacked goes past a MessagePack value that is no list, map or string.
func (r *reader) skipPacked() {
	if r.i >= len(r.b) {
		r.malformed("a value")
		return
	}
	c := r.b[r.i]
	n := 0
	switch {
	case c < 0x80 || c >= 0xe0 || c == packNil || c == 0xc2 || c == 0xc3:
	case c >= 0xc4 && c <= 0xc6: // binary
		r.i++
		r.takeClaimed(r.bigEndian(1<<(c-0xc4)), 0)
		return
	case c >= 0xc7 && c <= 0xc9: // extension
		r.i++
		r.takeClaimed(r.bigEndian(1<<(c-0xc7)), 1)
		return
	case c == 0xca:
		n = 4
	case c == 0xcb:
		n = 8
	case c >= 0xcc && c <= 0xcf:
		n = 1 << (c - 0xcc)
	case c >= 0xd0 && c <= 0xd3:
		n = 1 << (c - 0xd0)
	case c >= 0xd4 && c <= 0xd8: // extension of a fixed length
		n = 1 + 1<<(c-0xd4)
	default:
		r.malformed("a value")
		return
	}
	r.take(1 + n)
}

// takeClaimed goes past as many bytes as a header claims, and extra.
func (r *reader) takeClaimed(claim uint64, extra int) {
	if claim > uint64(len(r.b)) {
		r.i = len(r.b)
		r.malformed("")
		return
	}
	r.take(int(claim) + extra)
}

// end tells that nothing may follow.
func (r *reader) end() {
	if r.text {
		r.space()
	}
	if r.err == nil && r.i < len(r.b) {
		r.key = ""
		r.fail(CodeBadFrame, strconv.Itoa(len(r.b)-r.i)+" bytes behind the end", "one message a frame")
	}
}
