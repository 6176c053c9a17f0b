package codec

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Numbers are most of what a tick's text is, so their digits are made eight at
// a time and stand where they belong at once.

const (
	unit8  = 1_0000_0000
	unit16 = unit8 * unit8
	zeros8 = 0x3030303030303030
	room   = 24 // three times eight digits: no uint64 has more than twenty
)

// NumberRoom is a capacity that the text of a number never outgrows, nor what is
// written behind it for a moment.
const NumberRoom = 64

// digits8 is the eight digits of n, which is below unit8, as the bytes 0 to 9;
// the first digit is the lowest byte.
func digits8(n uint64) uint64 {
	n = n/1e4 | n%1e4<<32                       // two of four digits
	q := (n * 10486 >> 20) & 0x7f_0000007f      // each by 100
	n = q | (n-100*q)<<16                       // four of two
	q = (n * 103 >> 10) & 0x000f_000f_000f_000f // each by 10
	return q | (n-10*q)<<8                      // eight of one
}

// AppendUint appends n in decimal, as strconv does.
func AppendUint(dst []byte, n uint64) []byte {
	if n < 10 {
		return append(dst, '0'+byte(n))
	}
	if cap(dst)-len(dst) < room {
		dst = slices.Grow(dst, room)
	}
	return putUint(dst, n)
}

// putUint needs room behind dst.
func putUint(dst []byte, n uint64) []byte {
	at := len(dst)
	b := dst[at : at+room : at+room]
	if n < 1e4 { // as ids and the whole of prices are
		return dst[:at+putShort(b, uint32(n))]
	}
	head, tail := n, 0
	if n >= unit8 {
		if head, tail = n/unit8, 8; n >= unit16 {
			head, tail = n/unit16, 16
		}
	}
	w := digits8(head)
	lead := bits.TrailingZeros64(w) &^ 7
	binary.LittleEndian.PutUint64(b, (w|zeros8)>>lead)
	size := 8 - lead/8
	if tail != 0 {
		if tail == 16 {
			binary.LittleEndian.PutUint64(b[size&7:], digits8(n/unit8%unit8)|zeros8)
			size += 8
		}
		binary.LittleEndian.PutUint64(b[size&15:], digits8(n%unit8)|zeros8)
		size += 8
	}
	return dst[:at+size]
}

// AppendTimes appends a in decimal, between, and b in decimal. Two times of one
// tick are nearly always alike in their first digits, which are then made once.
func AppendTimes(dst []byte, a uint64, between string, b uint64) []byte {
	high, low := a/unit8, b-a/unit8*unit8
	if high < unit8/10 || high >= unit8 || low >= unit8 { // not sixteen digits, or not alike
		return AppendUint(append(AppendUint(dst, a), between...), b)
	}
	if cap(dst)-len(dst) < 2*room+len(between) {
		dst = slices.Grow(dst, 2*room+len(between))
	}
	digits := digits8(high) | zeros8
	dst = put16(dst, digits, a-high*unit8)
	return put16(append(dst, between...), digits, low)
}

// put16 needs room behind dst.
func put16(dst []byte, high, low uint64) []byte {
	b := dst[len(dst) : len(dst)+16 : len(dst)+16]
	binary.LittleEndian.PutUint64(b, high)
	binary.LittleEndian.PutUint64(b[8:], digits8(low)|zeros8)
	return dst[:len(dst)+16]
}

// putShort puts a number of at most four digits.
func putShort(b []byte, n uint32) int {
	_ = b[3]
	w := digits4(n)
	lead := bits.TrailingZeros32((w&0x0f0f0f0f)|1<<24) &^ 7 // one digit stays
	binary.LittleEndian.PutUint32(b, w>>lead)
	return 4 - lead/8
}

// digits4 is the text of four digits, the first its lowest byte.
func digits4(n uint32) uint32 { return pairs[n/100] | pairs[n%100]<<16 }

// pairs are the texts of 00 to 99.
var pairs = func() (p [100]uint32) {
	for n := range p {
		p[n] = uint32('0'+n/10) | uint32('0'+n%10)<<8
	}
	return p
}()

// appendFixed appends n * 10^-scale; scale is at most DecimalDigitsMax.
func appendFixed(dst []byte, n uint64, scale uint8) []byte {
	if scale == 0 {
		return AppendUint(dst, n)
	}
	if cap(dst)-len(dst) < 2*room+1 {
		dst = slices.Grow(dst, 2*room+1)
	}
	p := pow10[scale]
	whole := n / p
	n -= whole * p
	dst = putUint(dst, whole)
	at := len(dst)
	b := dst[at : at+1+room : at+1+room]
	b[0] = '.'
	switch { // the digits fill fours and eights from the left
	case scale <= 4:
		binary.LittleEndian.PutUint32(b[1:], digits4(uint32(n*pow10[4-scale])))
	case scale <= 8:
		binary.LittleEndian.PutUint64(b[1:], digits8(n*pow10[8-scale])|zeros8)
	case scale <= 12:
		last := pow10[scale-8]
		high := n / last
		binary.LittleEndian.PutUint64(b[1:], digits8(high)|zeros8)
		binary.LittleEndian.PutUint32(b[9:], digits4(uint32((n-high*last)*pow10[12-scale])))
	case scale <= 16:
		n *= pow10[16-scale]
		binary.LittleEndian.PutUint64(b[1:], digits8(n/unit8)|zeros8)
		binary.LittleEndian.PutUint64(b[9:], digits8(n%unit8)|zeros8)
	default:
		last := pow10[scale-16]
		high := n / last
		binary.LittleEndian.PutUint64(b[1:], digits8(high/unit8)|zeros8)
		binary.LittleEndian.PutUint64(b[9:], digits8(high%unit8)|zeros8)
		binary.LittleEndian.PutUint64(b[17:], digits8(n%last*pow10[24-scale])|zeros8)
	}
	return dst[:at+1+int(scale)]
}
