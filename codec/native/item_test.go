package native

import (
	"bytes"
	"testing"

	"tickgate/codec"
)

// FuzzItem: the quick way reads an item as the slow way does, to the same byte,
// and leaves to it only what has an escape or is wrong: no frame can be slow by
// its spelling.
func FuzzItem(f *testing.F) {
	for _, s := range []string{
		`"BTCUSDT"`, `"*"`, `"BTC-*"`, `{"symbol":"BTCUSDT","epoch":1723075200000,"seq":48213}`, `{"symbol": "A.B_C-1", "epoch": 1, "seq": 0}`,
		`{"epoch":1,"seq":"18446744073709551615","symbol":"X"}`, "[ \"A\" ,\n-0\t,\r\n\"-0\" ]", `{"symbol":"A*"}`, `{"symbol":"A*","epoch":1,"seq":1}`,
		`{"symbol":"A","symbol":"B"}`, `["A",01,1]`, `["A",1.0,1]`, `["A",9223372036854775808,1]`, `["A","00000000000000000001",1]`, `{"symbol":"A","epoch":1}`,
		`["A",1,2,3]`, `{"symbol":"\u0041"}`, `["A",18446744073709551615,18446744073709551616]`, `{}`, `[]`, `{"symbol":"A",}`, `""`,
	} {
		f.Add(true, []byte(s))
	}
	for _, s := range []string{
		"\xa1A", "\xd9\x02A*", "\xda\x00\x01A", "\xdb\x00\x00\x00\x01A", "\x93\xa1A\x01\x02", "\xdc\x00\x03\xa1A\xcf\x00\x00\x00\x00\x00\x00\x00\x01\xd3\x00\x00\x00\x00\x00\x00\x00\x01",
		"\xdf\x00\x00\x00\x03\xa3seq\xa2-0\xa5epoch\xb39223372036854775807\xd9\x06symbol\xa1A", "\x81\xa6symbol\xa1*", "\x93\xa1A\xff\x01", "\x93\xa2A*\x01\x01", "\x91\xa1A", "\x80", "\xa0",
		"\x93\xa1A\xb500000000000000000001\x01", "\x82\xa6symbol\xa1A\xa6symbol\xa1A",
	} {
		f.Add(false, []byte(s))
	}
	f.Fuzz(func(t *testing.T, text bool, item []byte) {
		if len(item) > 256 {
			return
		}
		frame := append(bytes.Clone(item), bytes.Repeat([]byte{','}, 2*packAhead)...) // as others follow
		newReader := func() *reader {
			return &reader{b: frame, text: text, item: -1, spaceLeft: spaceBytesMax, escapesLeft: escapesMax, fromLeft: FromMax}
		}
		slow := newReader()
		want := slow.slowItem()
		if !want.HasFrom {
			want.Epoch, want.Seq = 0, 0
		}
		quick := newReader()
		var list codec.SymbolList
		if text {
			quick.textItems(&list, &span{left: 1})
		} else {
			quick.packItems(&list, &span{left: 1})
		}
		if list.Len() == 0 {
			comma := slow.i < len(frame) && frame[slow.i] == ','
			if slow.err == nil && comma && slow.escapesLeft == escapesMax && slow.i <= len(item) {
				t.Errorf("%q is left to the slow way", item)
			}
			return
		}
		for got := range list.All() {
			if text {
				slow.space()
				slow.i++ // the comma
				slow.space()
			}
			if slow.err != nil || string(got.Name) != string(want.Name) || got.HasFrom != want.HasFrom || got.Epoch != want.Epoch || got.Seq != want.Seq ||
				quick.i != slow.i || quick.spaceLeft != slow.spaceLeft {
				t.Errorf("%q is %+v up to %d, the slow way %+v up to %d, %v", item, got, quick.i, want, slow.i, slow.err)
			}
			break
		}
	})
}

// TestNoSpaces: of eight bytes those that are no space of JSON are told, whatever
// stands beside them.
func TestNoSpaces(t *testing.T) {
	for _, beside := range []byte{' ', '\t', '\n', '\r', 0, 8, 11, 0x20 | 0x80, 0x8a, 0xff} {
		for c := range 256 {
			w := uint64(beside) * ones
			w = w&^(0xff<<24) | uint64(c)<<24
			if odd := noSpaces(w)>>(24+7)&1 != 0; odd == isSpace(byte(c)) {
				t.Errorf("byte 0x%02x among 0x%02x: odd %v", c, beside, odd)
			}
		}
	}
}
