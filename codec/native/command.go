package native

import (
	"bytes"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"tickgate/codec"
)

// A key of a command.
type key uint8

const (
	keyUnknown key = iota
	keyOp
	keyRef
	keyChannel
	keySymbols
	keyEvery
	keyView
	keyMinSize
	keyDeadband
	keySilence
	keyMore
	keyFrame
	keyToken
	keyCount
)

// keyNames is as the keys stand in frames.
var keyNames = [keyCount]string{
	keyOp: "op", keyRef: "ref", keyChannel: "channel", keySymbols: "symbols",
	keyEvery: "every", keyView: "view", keyMinSize: "min_size",
	keyDeadband: "deadband", keySilence: "silence", keyMore: "more",
	keyFrame: "frame", keyToken: "token",
}

func keyOf(name []byte) key {
	for k := keyOp; k < keyCount; k++ {
		if keyNames[k] == string(name) {
			return k
		}
	}
	return keyUnknown
}

// keySet is a set of keys.
type keySet uint16

func keysOf(keys ...key) (s keySet) {
	for _, k := range keys {
		s |= 1 << k
	}
	return s
}

func (s keySet) has(k key) bool { return s&(1<<k) != 0 }

// lowest is the first key of s.
func (s keySet) lowest() key { return key(bits.TrailingZeros16(uint16(s))) }

const opCount = int(codec.OpPing) + 1

// opIndex is where an op stands in the tables below; 0 for none.
func opIndex(o codec.Op) int {
	if int(o) < opCount {
		return int(o)
	}
	return 0
}

// opKeys are the keys that each command may have, opNeeds those it must.
var (
	opKeys = [opCount]keySet{
		codec.OpSubscribe:   keysOf(keyOp, keyRef, keyChannel, keySymbols, keyEvery, keyView, keyMinSize, keyDeadband, keySilence),
		codec.OpUnsubscribe: keysOf(keyOp, keyRef, keyChannel, keySymbols),
		codec.OpSet:         keysOf(keyOp, keyRef, keyChannel, keySymbols, keyEvery, keyView, keyMinSize, keyDeadband, keySilence, keyMore),
		codec.OpAuth:        keysOf(keyOp, keyRef, keyToken),
		codec.OpAck:         keysOf(keyOp, keyRef, keyFrame),
		codec.OpLedger:      keysOf(keyOp, keyRef),
		codec.OpPing:        keysOf(keyOp, keyRef),
	}
	opNeeds = [opCount]keySet{
		codec.OpSubscribe:   keysOf(keyOp, keyChannel, keySymbols),
		codec.OpUnsubscribe: keysOf(keyOp, keyChannel, keySymbols),
		codec.OpSet:         keysOf(keyOp, keyChannel, keySymbols),
		codec.OpAuth:        keysOf(keyOp, keyToken),
		codec.OpAck:         keysOf(keyOp, keyFrame),
		codec.OpLedger:      keysOf(keyOp),
		codec.OpPing:        keysOf(keyOp),
	}
)

func (msgPack) DecodeCommand(frame []byte, c *codec.Command) error {
	return decodeCommand(frame, false, c)
}

func (jsonText) DecodeCommand(frame []byte, c *codec.Command) error {
	return decodeCommand(frame, true, c)
}

// decodeCommand reads a command into c, whose memory is used again. After an
// error c holds nothing of use but Ref, 0 if it had not been read.
func decodeCommand(frame []byte, text bool, c *codec.Command) error {
	symbols, token := c.Symbols, c.Token[:0]
	symbols.Reset()
	*c = codec.Command{Symbols: symbols, Token: token}
	if len(frame) > codec.CommandBytesMax {
		return &codec.Error{
			Code: CodeTooBig, What: "a frame of " + strconv.Itoa(len(frame)) + " bytes",
			Want: "at most " + strconv.Itoa(codec.CommandBytesMax) + "; send a long list in several commands",
		}
	}
	r := reader{b: frame, text: text, item: -1, skipLeft: skipBytesMax, spaceLeft: spaceBytesMax, escapesLeft: escapesMax, fromLeft: FromMax}
	r.command(c)
	if r.err != nil {
		return r.err
	}
	return nil
}

func (r *reader) command(c *codec.Command) {
	if r.next() != kindMap {
		r.malformed(`a map such as {"op":"ping"}`)
		return
	}
	var seen keySet
	var unknown [unknownKeysMax][]byte
	unknowns := 0
	for s := r.openMap(keysMax); ; {
		r.key, r.item = "", -1
		name, ok := r.nextKey(&s)
		if !ok {
			break
		}
		k := keyOf(name)
		if k == keyUnknown {
			for _, u := range unknown[:unknowns] {
				if bytes.Equal(u, name) {
					r.fail(CodeDuplicateKey, "the key "+quote(name)+" stands twice", "each key once")
					return
				}
			}
			if unknowns == unknownKeysMax {
				r.fail(CodeTooMany, "more than "+strconv.Itoa(unknownKeysMax)+" keys that are unknown, the last of them "+quote(name),
					strings.Join(keyNames[keyOp:], ", "))
				return
			}
			unknown[unknowns] = name
			if r.text {
				unknown[unknowns] = bytes.Clone(name) // it may stand in the scratch
			}
			unknowns++
			r.skip(skipDepthMax)
			continue
		}
		r.key = keyNames[k]
		if seen.has(k) {
			r.fail(CodeDuplicateKey, "the key "+r.key+" stands twice", "each key once")
			return
		}
		if r.null() { // as good as not there
			continue
		}
		seen |= 1 << k
		r.value(k, c)
	}
	r.key, r.item = "", -1
	r.end()
	if r.err != nil {
		return
	}
	if !seen.has(keyOp) {
		r.err = &codec.Error{Code: CodeMissingKey, What: "no op", Where: "op", Want: opWant}
		return
	}
	if odd := seen &^ opKeys[c.Op]; odd != 0 {
		name := keyNames[odd.lowest()]
		r.err = &codec.Error{Code: CodeBadValue, What: "the op " + c.Op.String() + " has no " + name, Where: name, Want: opKeys[c.Op].String()}
		return
	}
	if missing := opNeeds[c.Op] &^ seen; missing != 0 {
		name := keyNames[missing.lowest()]
		r.err = &codec.Error{Code: CodeMissingKey, What: "the op " + c.Op.String() + " needs " + name, Where: name, Want: opNeeds[c.Op].String()}
		return
	}
	if c.Op != codec.OpSubscribe && c.Op != codec.OpSet && len(r.b) > codec.SmallCommandBytesMax {
		r.err = &codec.Error{
			Code: CodeTooBig, What: "a frame of " + strconv.Itoa(len(r.b)) + " bytes for the op " + c.Op.String(),
			Want: "at most " + strconv.Itoa(codec.SmallCommandBytesMax) + "; only subscribe and set may be longer",
		}
	}
}

func (s keySet) String() string {
	var names []string
	for k := keyOp; k < keyCount; k++ {
		if s.has(k) {
			names = append(names, keyNames[k])
		}
	}
	return strings.Join(names, ", ")
}

const (
	opWant      = "subscribe, unsubscribe, set, auth, ack, ledger or ping"
	channelWant = "ticker, quotes or trades"
	viewWant    = `a list of last, quote, totals, day, all`
	decimalWant = `a decimal number in a string, such as "0.25", of at least 0`
	symbolWant  = `A to Z, 0 to 9, '.', '_' and '-', at most 32 of them; a pattern ends in '*'`
	itemWant    = `a symbol, or {"symbol":"BTCUSDT","epoch":1,"seq":2}, or ["BTCUSDT",1,2]`
)

// value reads what stands under a known key.
func (r *reader) value(k key, c *codec.Command) {
	switch k {
	case keyOp:
		word := r.str(keyBytesMax)
		for o := codec.OpSubscribe; int(o) < opCount; o++ {
			if o.String() == string(word) {
				c.Op = o
				return
			}
		}
		r.fail(CodeUnknownOp, "there is no op "+quote(word), opWant)
	case keyRef:
		c.Ref = r.uint()
	case keyChannel:
		word := r.str(keyBytesMax)
		for _, ch := range [...]codec.Channel{codec.ChannelTicker, codec.ChannelQuotes, codec.ChannelTrades} {
			if ch.String() == string(word) {
				c.Channel = ch
				return
			}
		}
		r.fail(CodeBadValue, "there is no channel "+quote(word), channelWant)
	case keySymbols:
		r.symbols(&c.Symbols)
	case keyEvery:
		c.Every = time.Duration(r.uintMax(durationMillisMax)) * time.Millisecond
	case keyView:
		c.View = r.view()
	case keyMinSize:
		c.MinSize = r.positive()
	case keyDeadband:
		c.Deadband = r.positive()
	case keySilence:
		c.SilenceMax = time.Duration(r.uintMax(durationMillisMax)) * time.Millisecond
	case keyMore:
		c.More = r.boolean()
	case keyFrame:
		c.Frame = r.uint()
	case keyToken:
		token := r.str(codec.SmallCommandBytesMax)
		if r.err == nil && (len(token) == 0 || !utf8.Valid(token)) {
			r.fail(CodeBadValue, "an empty token, or one that is no UTF-8", "the token as it was issued")
			return
		}
		c.Token = append(c.Token, token...)
	}
}

func (r *reader) view() (v codec.View) {
	one := func() {
		word := r.str(keyBytesMax)
		add := viewOf(word)
		if add == 0 {
			r.fail(CodeBadValue, "there is no view "+quote(word), viewWant)
		}
		v |= add
	}
	if r.next() == kindString {
		one()
		return v
	}
	s := r.openList(len(viewNames) + 1)
	for r.item = 0; r.moreItems(&s); r.item++ {
		one()
	}
	r.item = -1
	return v
}

// positive reads a filter's decimal.
func (r *reader) positive() codec.Decimal {
	const decimalBytesMax = 64
	text := r.str(decimalBytesMax)
	if r.err != nil {
		return codec.Decimal{}
	}
	d, err := codec.ParseDecimal(text)
	if err != nil {
		r.fail(CodeBadValue, quote(text)+" is "+err.Error(), decimalWant)
		return codec.Decimal{}
	}
	if d.Sign() < 0 {
		r.fail(CodeBadValue, d.String()+" is negative", decimalWant)
		return codec.Decimal{}
	}
	return d
}

// symbols reads the list of a command.
func (r *reader) symbols(l *codec.SymbolList) {
	s := r.openList(SymbolsMax)
	if r.err != nil {
		return
	}
	// No name takes more than twice as many bytes in the list as in the frame, and
	// what is beyond these bounds is refused: the list will not grow again.
	room := 2*(len(r.b)-r.i) + FromMax*codec.SymbolFromBytes
	l.Grow(min(room, SymbolsMax*codec.SymbolItemBytesMax+FromMax*codec.SymbolFromBytes))
	r.escapesLeft = min(r.escapesLeft, symbolEscapesMax)
	for r.item = 0; r.moreItems(&s); r.item++ {
		if r.text {
			r.textItems(l, &s)
		} else {
			r.packItems(l, &s)
		}
		it := r.slowItem()
		if r.err != nil || it.HasFrom && !r.payFrom() {
			return
		}
		l.Append(it)
	}
	r.item = -1
}

// payFrom takes one of the symbols with epoch and seq that a command may have.
func (r *reader) payFrom() bool {
	if r.fromLeft--; r.fromLeft < 0 {
		r.fail(CodeTooMany, "too many symbols with epoch and seq", "at most "+strconv.Itoa(FromMax)+" in one command")
		return false
	}
	return true
}

// slowItem reads an item of a list of symbols in any form, and says what is
// wrong with one that is none.
func (r *reader) slowItem() (it codec.SymbolItem) {
	switch r.next() {
	case kindString:
		it.Name = r.symbol()
	case kindMap:
		it = r.itemMap()
	case kindList:
		it = r.itemList()
	default:
		r.malformed(itemWant)
	}
	return it
}

// itemList reads ["BTCUSDT", epoch, seq].
func (r *reader) itemList() (it codec.SymbolItem) {
	const elements = 3
	n := 0
	for s := r.openList(elements); r.moreItems(&s); n++ {
		switch n {
		case 0:
			it.Name = r.symbol()
		case 1:
			it.Epoch = r.int63()
		case 2:
			it.Seq = r.uint()
		}
	}
	if r.err == nil && n != elements {
		r.fail(CodeBadValue, "a list of "+strconv.Itoa(n), itemWant)
	}
	it.HasFrom = true
	r.noPattern(it.Name)
	return it
}

// itemMap reads {"symbol":"BTCUSDT","epoch":1,"seq":2}.
func (r *reader) itemMap() (it codec.SymbolItem) {
	const elements = 3
	var seen uint8
	for s := r.openMap(elements); ; {
		name, ok := r.nextKey(&s)
		if !ok {
			break
		}
		bit := uint8(0)
		switch string(name) {
		case "symbol":
			bit, it.Name = 1, r.symbol()
			if r.err == nil && r.text {
				it.Name = r.outlast(it.Name)
			}
		case "epoch":
			bit, it.Epoch = 2, r.int63()
		case "seq":
			bit, it.Seq = 4, r.uint()
		default:
			r.fail(CodeBadValue, "there is no key "+quote(name)+" in a symbol", itemWant)
		}
		if seen&bit != 0 {
			r.fail(CodeDuplicateKey, "a key stands twice", "each key once")
		}
		seen |= bit
	}
	if r.err == nil && seen&1 == 0 {
		r.fail(CodeMissingKey, "no symbol", itemWant)
	}
	if r.err == nil && seen != 1 && seen != 7 {
		r.fail(CodeMissingKey, "only one of epoch and seq", itemWant)
	}
	it.HasFrom = seen == 7
	if it.HasFrom {
		r.noPattern(it.Name)
	}
	return it
}

// outlast makes a name outlast the next string, if it stands in the scratch.
func (r *reader) outlast(name []byte) []byte {
	if len(r.scratch) > 0 && len(name) > 0 && &r.scratch[0] == &name[0] {
		r.scratch, r.spare = r.spare, r.scratch // the one that outlasted before is done with
	}
	return name
}

// noPattern refuses to go on from somewhere with a pattern: each symbol has its
// own place.
func (r *reader) noPattern(name []byte) {
	if r.err == nil && len(name) > 0 && name[len(name)-1] == '*' {
		r.fail(CodeBadSymbol, "a pattern with epoch and seq", "them with names only")
	}
}

// symbol reads a name or a pattern.
func (r *reader) symbol() []byte {
	name := r.str(codec.PatternBytesMax)
	if r.err != nil {
		if r.err.Code == CodeBadValue { // too long
			r.err.Code, r.err.Want = CodeBadSymbol, symbolWant
		}
		return nil
	}
	plain := name
	if n := len(name); n > 0 && name[n-1] == '*' {
		if n == 1 {
			return name
		}
		plain = name[:n-1]
	}
	if !codec.ValidSymbol(plain) {
		r.fail(CodeBadSymbol, quote(name)+" is no symbol", symbolWant)
		return nil
	}
	return name
}

// quote shows what a client sent, in ASCII and not at length.
func quote(b []byte) string {
	const bytesMax = 40
	if len(b) > bytesMax {
		return strconv.QuoteToASCII(string(b[:bytesMax])) + "..."
	}
	return strconv.QuoteToASCII(string(b))
}
