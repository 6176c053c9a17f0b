package native

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"tickgate/codec"
)

// msgPack is the binary spelling.
type msgPack struct{}

func (msgPack) Subprotocol() string { return SubprotocolMsgPack }
func (msgPack) Text() bool          { return false }

// FrameOverhead is the array's header and two integers, each at most a string
// of twenty digits.
func (msgPack) FrameOverhead() int { return 3 + 2*21 }

func (msgPack) BeginFrame(dst []byte, no uint64, sent int64) []byte {
	dst = append(dst, 0xdc, 0, 0) // array16; EndFrame knows the count
	dst = packUint(dst, no)
	return packTime(dst, sent)
}

// frameHead is how many elements of a frame stand before its rows.
const frameHead = 2

func (msgPack) EndFrame(dst []byte, start, rows int) []byte {
	if rows < 0 || rows > math.MaxUint16-frameHead {
		panic(fmt.Sprintf("native: a frame of %d rows", rows))
	}
	binary.BigEndian.PutUint16(dst[start+1:], uint16(rows+frameHead))
	return dst
}

// How many elements a row has before its groups, and each group has.
const (
	packTickerHead   = 6 // type, id, view, seq, ingest, lag
	packQuoteHead    = 7 // type, id, view, seq, no, ingest, lag
	packTradeHead    = 8 // type, id, view, seq, no, kind, ingest, lag
	packSnapshotHead = 9 // type, id, view, channel, epoch, seq, no, ingest, lag

	packLast   = 5
	packQuote  = 8
	packTotals = 5
	packDay    = 15
)

func packGroups(v codec.View) int {
	n := 0
	if v&codec.ViewLast != 0 {
		n += packLast
	}
	if v&codec.ViewQuote != 0 {
		n += packQuote
	}
	if v&codec.ViewTotals != 0 {
		n += packTotals
	}
	if v&codec.ViewDay != 0 {
		n += packDay
	}
	return n
}

func (msgPack) AppendState(dst []byte, c codec.Channel, v codec.View, id uint32, symbol string, s *codec.State) []byte {
	v = rowView(c, v)
	ingest, event := rowTimes(c, s)
	head := packTickerHead
	t := stateType(c)
	if t == codec.EventQuote {
		head = packQuoteHead
	}
	dst = packArray(dst, head+packGroups(v))
	dst = append(dst, byte(t))
	dst = packUint(dst, uint64(id))
	dst = append(dst, byte(v))
	dst = packUint(dst, s.Seq)
	if t == codec.EventQuote {
		dst = packUint(dst, s.QuoteNo)
	}
	dst = packTimes(dst, ingest, event)
	return packState(dst, v, s)
}

func (msgPack) AppendSnapshot(dst []byte, c codec.Channel, v codec.View, id uint32, symbol string, s *codec.State) []byte {
	v = rowView(c, v)
	ingest, event := rowTimes(c, s)
	dst = packArray(dst, packSnapshotHead+packGroups(v))
	dst = append(dst, byte(codec.EventSnapshot))
	dst = packUint(dst, uint64(id))
	dst = append(dst, byte(v), byte(c))
	dst = packInt(dst, s.Epoch)
	dst = packUint(dst, s.Seq)
	dst = packUint(dst, rowNo(c, s))
	dst = packTimes(dst, ingest, event)
	return packState(dst, v, s)
}

func (msgPack) AppendTrade(dst []byte, v codec.View, id uint32, symbol string, e *codec.TradeEntry) []byte {
	v = rowView(codec.ChannelTrades, v)
	t := &e.Trade
	dst = packArray(dst, packTradeHead+packGroups(v))
	dst = append(dst, byte(codec.EventTrade))
	dst = packUint(dst, uint64(id))
	dst = append(dst, byte(v))
	dst = packUint(dst, t.Seq)
	dst = packUint(dst, t.No)
	dst = append(dst, byte(e.Kind))
	dst = packTimes(dst, t.IngestTime, t.EventTime)
	if v&codec.ViewLast != 0 {
		dst = packTradeGroup(dst, t)
	}
	if v&codec.ViewQuote != 0 {
		dst = packQuoteGroup(dst, &e.Quote)
	}
	if v&codec.ViewTotals != 0 {
		dst = packTotal(dst, e.Volume)
		dst = packTotal(dst, e.Notional)
		dst = packUint(dst, e.Trades)
	}
	return dst
}

func packState(dst []byte, v codec.View, s *codec.State) []byte {
	if v&codec.ViewLast != 0 {
		dst = packTradeGroup(dst, &s.Last)
	}
	if v&codec.ViewQuote != 0 {
		dst = packQuoteGroup(dst, &s.Quote)
	}
	if v&codec.ViewTotals != 0 {
		dst = packTotal(dst, s.Volume)
		dst = packTotal(dst, s.Notional)
		dst = packUint(dst, s.Trades)
	}
	if v&codec.ViewDay != 0 {
		d := &s.Day
		dst = packDecimal(dst, d.Open)
		dst = packDecimal(dst, d.High)
		dst = packDecimal(dst, d.Low)
		dst = packDecimal(dst, d.PrevClose)
		dst = packTotal(dst, d.BaseVolume)
		dst = packTotal(dst, d.BaseNotional)
		dst = packUint(dst, d.BaseTrades)
		if d.Open.IsSet() {
			dst = packInt(dst, int64(d.Number))
		} else {
			dst = append(dst, packNil)
		}
		dst = packBool(dst, d.RangeUnsure)
	}
	return dst
}

func packTradeGroup(dst []byte, t *codec.Trade) []byte {
	dst = packDecimal(dst, t.Price)
	dst = packDecimal(dst, t.Size)
	return append(dst, byte(t.Side))
}

func packQuoteGroup(dst []byte, q *codec.Quote) []byte {
	dst = packDecimal(dst, q.Bid)
	dst = packDecimal(dst, q.BidSize)
	dst = packDecimal(dst, q.Ask)
	return packDecimal(dst, q.AskSize)
}

func (msgPack) AppendEvent(dst []byte, e *codec.Event) []byte {
	row := func(n int) { dst = append(packArray(dst, n), byte(e.Type)) }
	num := func(n uint64) { dst = packUint(dst, n) }
	text := func(s string) { dst = packText(dst, s) }
	millis := func(d time.Duration) { num(uint64(max(0, d.Milliseconds()))) }
	channel := func() { dst = append(dst, byte(e.Channel)) }
	topic := func() { num(uint64(e.ID)); text(e.Symbol) }
	fault := func() { text(e.Code); text(e.Why); text(e.Where); text(e.Want) }
	switch e.Type {
	case codec.EventSnapshotEnd:
		row(3)
		num(e.Ref)
		channel()
	case codec.EventWelcome:
		row(3)
		text(e.Node)
		text(e.Version)
	case codec.EventGranted:
		row(9)
		num(e.Ref)
		channel()
		topic()
		millis(e.Every)
		dst = append(dst, byte(e.View&codec.ViewAll))
		dst = packInt(dst, e.Epoch)
		num(e.Seq)
	case codec.EventWaiting:
		row(4)
		num(e.Ref)
		channel()
		text(e.Symbol)
	case codec.EventRefused:
		row(8)
		num(e.Ref)
		channel()
		text(e.Symbol)
		fault()
	case codec.EventUnsubscribed:
		row(4)
		num(e.Ref)
		channel()
		num(e.Count)
	case codec.EventDrop:
		row(5)
		channel()
		topic()
		num(e.Count)
	case codec.EventState:
		row(7)
		channel()
		topic()
		dst = append(dst, byte(e.State))
		dst = packTime(dst, e.Since)
		text(e.Why)
	case codec.EventReset:
		row(5)
		channel()
		topic()
		dst = packInt(dst, e.Epoch)
	case codec.EventBehind:
		row(7)
		num(e.Ref)
		channel()
		topic()
		dst = packInt(dst, e.Epoch)
		num(e.Seq)
	case codec.EventLedger:
		l := &e.Ledger
		row(9)
		num(e.Ref)
		num(l.Offered)
		num(l.Delivered)
		num(l.Merged)
		num(l.Filtered)
		num(l.Dropped)
		num(l.Pending)
		num(l.Snapshots)
	case codec.EventGoaway:
		row(3)
		millis(e.Window)
		text(e.Why)
	case codec.EventError:
		row(6)
		num(e.Ref)
		fault()
	case codec.EventPong:
		row(2)
		num(e.Ref)
	default:
		panic(fmt.Sprintf("native: event %d is not spelled by AppendEvent", e.Type))
	}
	return dst
}

func (msgPack) AppendCommand(dst []byte, c *codec.Command) []byte {
	var keys uint8
	start := len(dst)
	dst = append(dst, 0x80)
	key := func(name string) {
		keys++
		dst = packText(dst, name)
	}
	key("op")
	dst = packText(dst, c.Op.String())
	use := opKeys[opIndex(c.Op)]
	if c.Ref != 0 {
		key("ref")
		dst = packUint(dst, c.Ref)
	}
	if use.has(keyChannel) && c.Channel != 0 {
		key("channel")
		dst = packText(dst, c.Channel.String())
	}
	if use.has(keySymbols) {
		key("symbols")
		dst = packArray(dst, c.Symbols.Len())
		for it := range c.Symbols.All() {
			if it.HasFrom {
				dst = packArray(dst, 3)
			}
			dst = packHead(dst, len(it.Name))
			dst = append(dst, it.Name...)
			if it.HasFrom {
				dst = packInt(dst, it.Epoch)
				dst = packUint(dst, it.Seq)
			}
		}
	}
	if use.has(keyEvery) && c.Every >= time.Millisecond {
		key("every")
		dst = packUint(dst, uint64(c.Every.Milliseconds()))
	}
	if use.has(keyView) && c.View != 0 {
		key("view")
		n := 0
		for _, v := range viewNames {
			if c.View&v.view != 0 {
				n++
			}
		}
		dst = packArray(dst, n)
		for _, v := range viewNames {
			if c.View&v.view != 0 {
				dst = packText(dst, v.name)
			}
		}
	}
	if use.has(keyMinSize) && c.MinSize.IsSet() {
		key("min_size")
		dst = packDigits(dst, c.MinSize)
	}
	if use.has(keyDeadband) && c.Deadband.IsSet() {
		key("deadband")
		dst = packDigits(dst, c.Deadband)
	}
	if use.has(keySilence) && c.SilenceMax >= time.Millisecond {
		key("silence")
		dst = packUint(dst, uint64(c.SilenceMax.Milliseconds()))
	}
	if use.has(keyMore) && c.More {
		key("more")
		dst = packBool(dst, true)
	}
	if use.has(keyFrame) {
		key("frame")
		dst = packUint(dst, c.Frame)
	}
	if use.has(keyToken) {
		key("token")
		dst = packHead(dst, len(c.Token))
		dst = append(dst, c.Token...)
	}
	dst[start] |= keys // fewer than the sixteen that one byte can say
	return dst
}

const packNil = 0xc0

func packBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 0xc3)
	}
	return append(dst, 0xc2)
}

func packArray(dst []byte, n int) []byte {
	if n < 16 {
		return append(dst, 0x90|byte(n))
	}
	return append(dst, 0xdc, byte(n>>8), byte(n))
}

func packUint(dst []byte, n uint64) []byte {
	switch {
	case n < 1<<7:
		return append(dst, byte(n))
	case n < 1<<8:
		return append(dst, 0xcc, byte(n))
	case n < 1<<16:
		return append(dst, 0xcd, byte(n>>8), byte(n))
	case n < 1<<32:
		return append(dst, 0xce, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	case n <= safeInteger:
		return binary.BigEndian.AppendUint64(append(dst, 0xcf), n)
	}
	var buf [codec.NumberRoom]byte
	digits := appendUint(buf[:0], n)
	dst = packHead(dst, len(digits))
	return append(dst, digits...)
}

func packInt(dst []byte, n int64) []byte {
	switch {
	case n >= 0:
		return packUint(dst, uint64(n))
	case n >= -1<<5:
		return append(dst, byte(n))
	case n >= math.MinInt8:
		return append(dst, 0xd0, byte(n))
	case n >= math.MinInt16:
		return append(dst, 0xd1, byte(n>>8), byte(n))
	case n >= math.MinInt32:
		return append(dst, 0xd2, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	case n >= -safeInteger:
		return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(n))
	}
	var buf [codec.NumberRoom]byte
	digits := appendUint(append(buf[:0], '-'), -uint64(n))
	dst = packHead(dst, len(digits))
	return append(dst, digits...)
}

// packTime writes Unix ns as Unix microseconds, nil for none.
func packTime(dst []byte, ns int64) []byte {
	if ns <= 0 {
		return append(dst, packNil)
	}
	return packUint(dst, uint64(ns)/1000)
}

// packTimes writes the ingest time and how long before it the event was: a
// difference takes three bytes where a time takes nine.
func packTimes(dst []byte, ingest, event int64) []byte {
	dst = packTime(dst, ingest)
	if ingest <= 0 || event <= 0 {
		return append(dst, packNil)
	}
	return packInt(dst, ingest/1000-event/1000)
}

// packDecimal writes coefficient and scale: nil and 0 if d is absent.
func packDecimal(dst []byte, d codec.Decimal) []byte {
	if !d.IsSet() {
		return append(dst, packNil, 0)
	}
	dst = packInt(dst, d.Coef())
	return append(dst, byte(d.Scale()))
}

// packTotal writes coefficient and scale: nil and 0 if t is lost.
func packTotal(dst []byte, t codec.Total) []byte {
	if coef, ok := t.Coef64(); ok {
		dst = packInt(dst, coef)
		return append(dst, byte(t.Scale()))
	}
	if t.Lost() {
		return append(dst, packNil, 0)
	}
	var buf [codec.NumberRoom]byte
	digits := t.AppendCoef(buf[:0])
	dst = packHead(dst, len(digits))
	dst = append(dst, digits...)
	return append(dst, byte(t.Scale()))
}

// packDigits writes a decimal as a string, which is how commands carry it.
func packDigits(dst []byte, d codec.Decimal) []byte {
	var buf [codec.NumberRoom]byte
	digits := d.AppendText(buf[:0])
	dst = packHead(dst, len(digits))
	return append(dst, digits...)
}

// packHead begins a string of n bytes.
func packHead(dst []byte, n int) []byte {
	switch {
	case n < 32:
		return append(dst, 0xa0|byte(n))
	case n < 1<<8:
		return append(dst, 0xd9, byte(n))
	}
	return append(dst, 0xda, byte(n>>8), byte(n))
}

// packText writes a text, which is cut to its bound and made valid UTF-8.
func packText(dst []byte, s string) []byte {
	s = cut(s)
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	dst = packHead(dst, len(s))
	return append(dst, s...)
}
