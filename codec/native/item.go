package native

import (
	"encoding/binary"
	"math/bits"

	"tickgate/codec"
)

// A list of symbols may be as long as a frame, so its items are read here in
// one go, over bytes, without a call for every token. Whatever order, space and
// width of numbers a client's library chose is read here; an item with an
// escape in it, one near the frame's end and one that is wrong are left to
// slowItem. Escapes are few by [escapesMax], so no frame can have many of those.

// How far may be looked ahead of a token, so that the frame's end need not be
// looked for at each byte.
const (
	textAhead = 128 // a whole item in its longest form, without space in it
	packAhead = 160 // the same in MessagePack
)

// The parts of an item with epoch and seq.
const (
	sawSymbol = 1 << iota
	sawEpoch
	sawSeq
	sawAll = sawSymbol | sawEpoch | sawSeq
)

// Keys as they stand in JSON, as a little-endian load of eight bytes sees them.
const (
	symbolKey uint64 = '"' | 's'<<8 | 'y'<<16 | 'm'<<24 | 'b'<<32 | 'o'<<40 | 'l'<<48 | '"'<<56
	epochKey  uint64 = '"' | 'e'<<8 | 'p'<<16 | 'o'<<24 | 'c'<<32 | 'h'<<40 | '"'<<48
	seqKey    uint64 = '"' | 's'<<8 | 'e'<<16 | 'q'<<24 | '"'<<32
)

// textItems reads all items up to one that is not for it, or the last.
func (r *reader) textItems(l *codec.SymbolList, s *span) {
	r.space()
	b := r.b
	var it codec.SymbolItem
	for s.left > 0 && len(b)-r.i >= textAhead {
		i, spaceLeft := r.i, r.spaceLeft
		if b[i] == '"' {
			n := nameEnd(b, i+1)
			if n == 0 {
				return
			}
			it = codec.SymbolItem{Name: b[i+1 : n]}
			i = n + 1
		} else {
			i = 0
			switch w := binary.LittleEndian.Uint64(b[r.i+1:]); {
			case w == symbolKey:
				i = r.usualItem(r.i, &it)
			case w == epochKey|':'<<56:
				i = sortedItem(b, r.i, &it)
			case b[r.i] == '[':
				i = listItem(b, r.i, &it)
			}
			if i == 0 {
				i = r.textItem(r.i, &it)
			}
			if i == 0 {
				r.spaceLeft = spaceLeft
				return
			}
		}
		if b[i] <= ' ' {
			i = r.gap(i)
		}
		if i+1 >= len(b) || b[i] != ',' {
			r.spaceLeft = spaceLeft
			return
		}
		if i++; b[i] <= ' ' {
			if i = r.gap(i); r.spaceLeft < 0 {
				r.spaceLeft = spaceLeft
				return
			}
		}
		if it.HasFrom && !r.payFrom() {
			return
		}
		l.Append(it)
		r.i = i
		s.left--
		r.item++
	}
}

// textItem reads the map or the list at i and tells where it ends, 0 if it is
// not for it.
func (r *reader) textItem(i int, it *codec.SymbolItem) int {
	b := r.b
	c := b[i]
	if c != '{' && c != '[' {
		return 0
	}
	saw := 0
	for {
		if i++; b[i] <= ' ' {
			if i = r.gap(i); len(b)-i < textAhead {
				return 0
			}
		}
		what := saw + 1 // in a list they come in order
		if c == '{' {
			switch w := binary.LittleEndian.Uint64(b[i:]); {
			case w == symbolKey:
				i, what = i+8, sawSymbol
			case w&(1<<40-1) == seqKey:
				i, what = i+5, sawSeq
			case w&(1<<56-1) == epochKey:
				i, what = i+7, sawEpoch
			default:
				return 0
			}
			if b[i] <= ' ' {
				if i = r.gap(i); len(b)-i < textAhead {
					return 0
				}
			}
			if b[i] != ':' || saw&what != 0 {
				return 0
			}
			if i++; b[i] <= ' ' {
				if i = r.gap(i); len(b)-i < textAhead {
					return 0
				}
			}
		}
		switch {
		case what == sawSymbol:
			n := nameEnd(b, i+1)
			if n == 0 || b[i] != '"' {
				return 0
			}
			it.Name = b[i+1 : n]
			i = n + 1
		case what > sawSeq: // a list of more than three
			return 0
		default:
			var v uint64
			var n int
			if b[i]-'0' < 10 {
				v, n = digits((*[digitsRoom]byte)(b[i:]))
			} else {
				v, n = oddNumber(b[i:])
			}
			if n == 0 || n > 1 && b[i] == '0' {
				return 0
			}
			if what == sawEpoch {
				it.Epoch = int64(v)
			} else {
				it.Seq = v
			}
			if n == epochDigits {
				i += epochDigits
			} else {
				i += n
			}
		}
		saw |= what
		if b[i] <= ' ' {
			if i = r.gap(i); len(b)-i < textAhead {
				return 0
			}
		}
		if b[i] == c+2 { // the same bracket's end, in ASCII
			break
		}
		if b[i] != ',' {
			return 0
		}
	}
	if saw&sawEpoch != 0 && it.Epoch < 0 || !complete(it, saw, c == '[') {
		return 0
	}
	return i + 1
}

// epochDigits is how many digits an epoch, a time in milliseconds, has until
// 2286. The processor need not wait for a count that it can guess.
const epochDigits = 13

// usualItem reads {"symbol":"BTCUSDT","epoch":1,"seq":2} as most libraries write
// it: in this order, and with a space or none behind a colon and a comma. Its
// first key has been looked at. It does nothing that textItem could not do, only
// faster, and is 0 for all else.
func (r *reader) usualItem(from int, it *codec.SymbolItem) int {
	b := r.b[from:]
	if r.spaceLeft < 5 {
		return 0
	}
	i, spaces := 10, 0
	if b[0] != '{' || b[9] != ':' {
		return 0
	}
	if b[i] == ' ' {
		i, spaces = 11, 1
	}
	n := i + 1 + nameRun((*[nameRoom]byte)(b[i+1:]))
	if b[i] != '"' || n == i+1 || n > i+1+codec.SymbolBytesMax || b[n] != '"' || b[n+1] != ',' {
		return 0
	}
	name := b[i+1 : n]
	if i = n + 2; b[i] == ' ' {
		i, spaces = i+1, spaces+1
	}
	if binary.LittleEndian.Uint64(b[i:]) != epochKey|':'<<56 {
		return 0
	}
	if i += 8; b[i] == ' ' {
		i, spaces = i+1, spaces+1
	}
	epoch, n := digits((*[digitsRoom]byte)(b[i:]))
	if n != epochDigits || b[i] == '0' {
		return 0
	}
	if i += epochDigits; b[i] != ',' {
		return 0
	}
	if i++; b[i] == ' ' {
		i, spaces = i+1, spaces+1
	}
	if binary.LittleEndian.Uint64(b[i:])<<16 != (seqKey|':'<<40)<<16 {
		return 0
	}
	if i += 6; b[i] == ' ' {
		i, spaces = i+1, spaces+1
	}
	seq, n := digits((*[digitsRoom]byte)(b[i:]))
	if n == 0 || n > 1 && b[i] == '0' {
		return 0
	}
	if i += n; b[i] != '}' {
		return 0
	}
	r.spaceLeft -= spaces
	it.Name, it.HasFrom, it.Epoch, it.Seq = name, true, int64(epoch), seq
	return from + i + 1
}

// sortedItem reads {"epoch":1,"seq":2,"symbol":"BTCUSDT"}, as libraries write it
// that sort keys, and listItem ["BTCUSDT",1,2]; both without space. They too do
// nothing that textItem could not do. The first key has been looked at.
func sortedItem(all []byte, from int, it *codec.SymbolItem) int {
	b := all[from:]
	if b[0] != '{' {
		return 0
	}
	epoch, n := digits((*[digitsRoom]byte)(b[9:]))
	i := 9 + epochDigits
	if n != epochDigits || b[9] == '0' || binary.LittleEndian.Uint64(b[i:])<<8 != (','|(seqKey|':'<<40)<<8)<<8 {
		return 0
	}
	i += 7
	seq, n := digits((*[digitsRoom]byte)(b[i:]))
	if n == 0 || n > 1 && b[i] == '0' {
		return 0
	}
	if i += n; b[i] != ',' || binary.LittleEndian.Uint64(b[i+1:]) != symbolKey || b[i+9] != ':' || b[i+10] != '"' {
		return 0
	}
	i += 11
	n = i + nameRun((*[nameRoom]byte)(b[i:]))
	if n == i || n > i+codec.SymbolBytesMax || b[n] != '"' || b[n+1] != '}' {
		return 0
	}
	it.Name, it.HasFrom, it.Epoch, it.Seq = b[i:n], true, int64(epoch), seq
	return from + n + 2
}

func listItem(all []byte, from int, it *codec.SymbolItem) int {
	b := all[from:]
	n := 2 + nameRun((*[nameRoom]byte)(b[2:]))
	if b[1] != '"' || n == 2 || n > 2+codec.SymbolBytesMax || b[n] != '"' || b[n+1] != ',' {
		return 0
	}
	name, i := b[2:n], n+2
	epoch, n := digits((*[digitsRoom]byte)(b[i:]))
	if n != epochDigits || b[i] == '0' || b[i+epochDigits] != ',' {
		return 0
	}
	i += epochDigits + 1
	seq, n := digits((*[digitsRoom]byte)(b[i:]))
	if n == 0 || n > 1 && b[i] == '0' || b[i+n] != ']' {
		return 0
	}
	it.Name, it.HasFrom, it.Epoch, it.Seq = name, true, int64(epoch), seq
	return from + i + n + 1
}

// nameEnd is where the closing quote of a name or pattern that begins at i
// stands, 0 if there is none of either.
func nameEnd(b []byte, i int) int {
	end := i + nameRun((*[nameRoom]byte)(b[i:]))
	if end > i+codec.SymbolBytesMax {
		return 0
	}
	c := b[end]
	if c == '*' {
		end++
		c = b[end]
	}
	if c != '"' || end == i {
		return 0
	}
	return end
}

// oddNumber is the number that b begins with, as a string of digits or a zero
// with a minus, and its length; 0 if it is neither.
func oddNumber(b []byte) (v uint64, length int) {
	at, quotes := 0, 0
	if b[0] == '"' {
		at, quotes = 1, 2
		v, n := digits((*[digitsRoom]byte)(b[1:]))
		if n > 0 && b[1+n] == '"' {
			return v, n + quotes
		}
	}
	if b[at] != '-' {
		return 0, 0
	}
	v, n := digits((*[digitsRoom]byte)(b[at+1:]))
	if n == 0 || v != 0 || quotes == 0 && n > 1 || quotes > 0 && b[at+1+n] != '"' {
		return 0, 0
	}
	return 0, 1 + n + quotes
}

// packItems reads all items up to one that is not for it, or the last.
func (r *reader) packItems(l *codec.SymbolList, s *span) {
	var it codec.SymbolItem
	for s.left > 0 && len(r.b)-r.i >= packAhead {
		n := packItem(r.b[r.i:], &it)
		if n == 0 || it.HasFrom && !r.payFrom() {
			return
		}
		l.Append(it)
		r.i += n
		s.left--
		r.item++
	}
}

// packItem reads the item that b begins with and tells its length, 0 if it is
// not for it.
func packItem(b []byte, it *codec.SymbolItem) int {
	if n, at := packedString(b); at > 0 {
		if !isName(b[at:], n) {
			return 0
		}
		it.Name, it.HasFrom = b[at:at+n], false
		return at + n
	}
	const listHead, mapHead = 0x90, 0x80
	left, i, list := 0, 1, false
	switch c := b[0]; {
	case c < listHead:
		left = int(c) - mapHead
	case c < listHead+16:
		left, list = int(c)-listHead, true
	case c&^2 == 0xdc:
		left, i, list = int(binary.BigEndian.Uint16(b[1:])), 3, c == 0xdc
	case c&^2 == 0xdd:
		left, i, list = int(binary.BigEndian.Uint32(b[1:])), 5, c == 0xdd
	}
	if left <= 0 || left > 3 {
		return 0
	}
	saw := 0
	for ; left > 0; left-- {
		what := saw + 1
		if !list {
			n, at := packedString(b[i:])
			i += at
			switch {
			case n == 6 && string(b[i:i+6]) == "symbol":
				what = sawSymbol
			case n == 5 && string(b[i:i+5]) == "epoch":
				what = sawEpoch
			case n == 3 && string(b[i:i+3]) == "seq":
				what = sawSeq
			default:
				return 0
			}
			if i += n; saw&what != 0 {
				return 0
			}
		}
		if saw |= what; what == sawSymbol {
			n, at := packedString(b[i:])
			if i += at; !isName(b[i:], n) {
				return 0
			}
			it.Name = b[i : i+n]
			i += n
			continue
		}
		v, n := packedNumber(b[i:])
		if n == 0 {
			return 0
		}
		if i += n; what == sawSeq {
			it.Seq = v
		} else if it.Epoch = int64(v); it.Epoch < 0 {
			return 0
		}
	}
	if !complete(it, saw, list) {
		return 0
	}
	return i
}

// complete tells whether an item has all that belongs to it, and sets HasFrom.
func complete(it *codec.SymbolItem, saw int, list bool) bool {
	it.HasFrom = saw == sawAll
	if it.HasFrom { // each name has its own place, a pattern has none
		return it.Name[len(it.Name)-1] != '*'
	}
	return saw == sawSymbol && !list
}

// isName tells whether the first n bytes of b are a name or a pattern.
func isName(b []byte, n int) bool {
	run := nameRun((*[nameRoom]byte)(b))
	if run < n && run <= codec.SymbolBytesMax && b[run] == '*' {
		run++
		return run == n
	}
	return run >= n && n > 0 && n <= codec.SymbolBytesMax
}

// packedString is the length of the string that b begins with, and of its head;
// 0 if b begins otherwise.
func packedString(b []byte) (n, head int) {
	switch c := b[0]; {
	case c&0xe0 == 0xa0:
		return int(c & 0x1f), 1
	case c == 0xd9:
		return int(b[1]), 2
	case c == 0xda:
		return int(binary.BigEndian.Uint16(b[1:])), 3
	case c == 0xdb:
		return int(binary.BigEndian.Uint32(b[1:])), 5
	}
	return 0, 0
}

// packedNumber is the number that b begins with, as an integer of any width or
// a string of digits, and its length; 0 if there is none, or one below 0.
func packedNumber(b []byte) (v uint64, length int) {
	c := b[0]
	if c < 0x80 {
		return uint64(c), 1
	}
	w := binary.BigEndian.Uint64(b[1:])
	switch c {
	case 0xcc:
		return w >> 56, 2
	case 0xcd:
		return w >> 48, 3
	case 0xce:
		return w >> 32, 5
	case 0xcf:
		return w, 9
	case 0xd0, 0xd1, 0xd2, 0xd3:
		if w>>63 != 0 {
			return 0, 0
		}
		bytes := 1 << (c - 0xd0)
		return w >> (64 - 8*bytes), 1 + bytes
	}
	n, at := packedString(b)
	minus := b[at] == '-' // as in oddNumber
	if minus {
		n, at = n-1, at+1
	}
	if n <= 0 || n > digitsMax {
		return 0, 0
	}
	v, m := digits((*[digitsRoom]byte)(b[at:]))
	if m != n { // what follows the string may look like a digit
		var text [digitsRoom]byte
		copy(text[:], b[at:at+n])
		v, m = digits(&text)
	}
	if m != n || minus && v != 0 {
		return 0, 0
	}
	return v, at + n
}

// digitsRoom is how many bytes digits looks at, for digitsMax digits.
const (
	digitsRoom = 24
	digitsMax  = 20
)

// digits is the number that the digits at the beginning of b are, and how many
// they are; 0 if there are none, or too many for 64 bits.
func digits(b *[digitsRoom]byte) (v uint64, n int) {
	w := binary.LittleEndian.Uint64(b[:]) ^ asciiZeros
	odd := noDigits(w)
	if odd != 0 {
		return someDigits(w, odd)
	}
	v = eightDigits(w)
	w = binary.LittleEndian.Uint64(b[8:]) ^ asciiZeros
	if odd = noDigits(w); odd != 0 {
		low, n := someDigits(w, odd)
		return v*power10[n&7] + low, 8 + n
	}
	v = v*power10[8] + eightDigits(w)
	w = binary.LittleEndian.Uint64(b[16:]) ^ asciiZeros
	low, n := someDigits(w, noDigits(w)|1<<63)
	high, v := bits.Mul64(v, power10[n&7])
	v, carry := bits.Add64(v, low, 0)
	if n > 4 || high+carry != 0 {
		return 0, 0
	}
	return v, 16 + n
}

const (
	ones       = 0x0101010101010101
	highs      = 0x80 * ones
	asciiZeros = '0' * ones
)

// noDigits has the highest bit set of the first byte of w that is above 9, and
// of no byte before it.
func noDigits(w uint64) uint64 { return ((w + 0x76*ones) | w) & highs }

// someDigits is the number that the bytes of w before the first bit of odd are,
// and how many they are.
func someDigits(w, odd uint64) (v uint64, n int) {
	at := bits.TrailingZeros64(odd)
	if at < 8 {
		return 0, 0
	}
	return eightDigits(w << ((71 - at) & 63)), at / 8 // zeros before them
}

// eightDigits is the number whose digits w is, the first its lowest byte.
func eightDigits(w uint64) uint64 {
	w = w * (10<<8 + 1) >> 8
	w = w & 0x00ff00ff00ff00ff * (100<<16 + 1) >> 16
	return w & 0x0000ffff0000ffff * (10000<<32 + 1) >> 32
}

var power10 = [9]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8}

// nameRoom is how many bytes nameRun looks at.
const nameRoom = codec.SymbolBytesMax + 8

// nameRun is how many bytes at the beginning of b may stand in a name: more than
// SymbolBytesMax if they are no name.
func nameRun(b *[nameRoom]byte) (n int) {
	odd := oddBytes(binary.LittleEndian.Uint64(b[:]))
	for odd == 0 {
		if n += 8; n > codec.SymbolBytesMax {
			break
		}
		odd = oddBytes(binary.LittleEndian.Uint64(b[n:]))
	}
	return n + bits.TrailingZeros64(odd)/8
}

// oddBytes has the highest bit of each byte of w set that is not A to Z, 0 to 9,
// '.', '_' or '-'. Nothing is carried or borrowed between bytes: each sum is below
// 256, each difference above 0.
func oddBytes(w uint64) uint64 {
	low := w &^ highs
	// The sum has a byte's highest bit set if the byte is at least the first of
	// a range, the difference if it is at most the last.
	good := (low+(0x80-'A')*ones)&((0x80+'Z')*ones-low) |
		(low+(0x80-'0')*ones)&((0x80+'9')*ones-low) |
		(low+(0x80-'-')*ones)&((0x80+'.')*ones-low) |
		(low+(0x80-'_')*ones)&((0x80+'_')*ones-low)
	return (^good | w) & highs
}
