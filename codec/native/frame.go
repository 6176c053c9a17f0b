package native

import (
	"strconv"
	"time"
	"unicode/utf8"

	"tickgate/codec"
)

// Update is one row of a frame, the same for both spellings. The first group
// counts for every tick row and snapshot, the groups after it if View has
// them; all other rows are in Event.
type Update struct {
	Type    codec.EventType
	ID      uint32 // of the topic
	View    codec.View
	Channel codec.Channel
	Epoch   int64  // snapshots only
	Seq, No uint64 // No: of the quote or the trade; none in ticker
	Kind    codec.Kind

	IngestTime, EventTime int64 // Unix ns to the microsecond; 0: not known
	SentTime              int64 // of the frame

	// ViewLast: the last trade; in a trade row that trade.
	Price, Size codec.Decimal
	Side        codec.Side

	// ViewQuote.
	Bid, BidSize, Ask, AskSize codec.Decimal

	// ViewTotals.
	Volume, Notional codec.Total
	Trades           uint64

	// ViewDay.
	Day codec.Day

	// Rows that carry no tick.
	Event codec.Event
}

// Frame is a frame being read: a cursor over its rows. It allocates nothing for
// ticks and snapshots. The gateway is not trusted: every length is checked.
type Frame struct {
	No       uint64
	SentTime int64 // Unix ns

	r    reader
	rows span
	done bool
}

func (msgPack) OpenFrame(b []byte) (Frame, error)  { return openFrame(b, false) }
func (jsonText) OpenFrame(b []byte) (Frame, error) { return openFrame(b, true) }

// rowsMax bounds the rows of a frame; the shortest row has two bytes.
const rowsMax = FrameBytesMax / 2

func openFrame(b []byte, text bool) (Frame, error) {
	if len(b) > FrameBytesMax {
		return Frame{}, &codec.Error{Code: CodeTooBig, What: "a frame of " + strconv.Itoa(len(b)) + " bytes", Want: "at most " + strconv.Itoa(FrameBytesMax)}
	}
	f := Frame{r: reader{b: b, text: text, item: -1, skipLeft: (1 + skipOpenBytes) * len(b), spaceLeft: len(b), escapesLeft: len(b)}}
	r := &f.r
	if text {
		f.openText()
	} else {
		f.rows = r.openList(rowsMax)
		f.No = r.uint()
		f.SentTime = r.time()
		if f.rows.left -= frameHead; f.rows.left < 0 && r.err == nil {
			r.fail(CodeBadFrame, "a frame without number and time", "")
		}
	}
	if r.err != nil {
		return Frame{}, r.err
	}
	return f, nil
}

func (f *Frame) openText() {
	r := &f.r
	for s := r.openMap(keysMax); ; {
		name, ok := r.nextKey(&s)
		if !ok {
			r.fail(CodeBadFrame, "a frame without events", "")
			return
		}
		switch string(name) {
		case "frame":
			f.No = r.uint()
		case "sent":
			f.SentTime = r.time()
		case "events":
			f.rows = r.openList(rowsMax)
			return
		default:
			r.skip(skipDepthMax)
		}
	}
}

// Next reads the next row into u and tells whether there was one. Rows of types
// that this version does not know are passed over.
func (f *Frame) Next(u *Update) bool {
	r := &f.r
	for !f.done && r.err == nil {
		if !r.moreItems(&f.rows) {
			f.done = true
			if r.err == nil && r.text {
				for s := (span{left: keysMax, begun: true}); ; {
					if _, ok := r.nextKey(&s); !ok {
						break
					}
					r.skip(skipDepthMax)
				}
			}
			r.end()
			return false
		}
		*u = Update{SentTime: f.SentTime}
		known := false
		if r.text {
			known = r.textRow(u)
		} else {
			known = r.packRow(u)
		}
		if r.err != nil {
			return false
		}
		if known {
			u.finish()
			return true
		}
	}
	return false
}

// Err is what was wrong with the frame, nil if all of it was read or nothing
// was wrong so far.
func (f *Frame) Err() error {
	if f.r.err != nil {
		return f.r.err
	}
	return nil
}

// finish puts what is told in two places there.
func (u *Update) finish() {
	switch u.Type {
	case codec.EventTicker:
		u.Channel = codec.ChannelTicker
	case codec.EventQuote:
		u.Channel = codec.ChannelQuotes
	case codec.EventTrade:
		u.Channel = codec.ChannelTrades
	case codec.EventSnapshot:
	default:
		u.Event.Type = u.Type
		u.ID, u.Channel, u.Epoch, u.Seq = u.Event.ID, u.Event.Channel, u.Event.Epoch, u.Event.Seq
	}
}

// time reads Unix microseconds, or null for 0.
func (r *reader) time() int64 {
	if r.null() {
		return 0
	}
	const microsMax = 1<<63/1000 - 1
	return int64(r.uintMax(microsMax)) * 1000
}

func (r *reader) millis() time.Duration {
	const millisMax = 1<<63/1_000_000 - 1
	return time.Duration(r.uintMax(millisMax)) * time.Millisecond
}

// words reads a text of a row. It allocates.
func (r *reader) words() string {
	// A text is cut to its bound in bytes; bad UTF-8 in it may have grown.
	s := r.str(3 * textBytesMax)
	if !utf8.Valid(s) {
		r.fail(CodeBadFrame, "a text that is no UTF-8", "")
		return ""
	}
	return string(s)
}

func (r *reader) small(most uint8) uint8 { return uint8(r.uintMax(uint64(most))) }
func (r *reader) id() uint32             { return uint32(r.uintMax(1<<32 - 1)) }

// packRow reads a row of the binary spelling; known is false for a type of a
// later version. Rows may grow at their ends: what is behind is passed over.
func (r *reader) packRow(u *Update) (known bool) {
	const elementsMax = 64
	s := r.openList(elementsMax)
	n := s.left
	used := 0
	need := func(more int) bool {
		used += more
		if used > n {
			r.fail(CodeBadFrame, "a row of type "+strconv.Itoa(int(u.Type))+" with only "+strconv.Itoa(n)+" elements", "")
		}
		return r.err == nil
	}
	if !need(1) {
		return false
	}
	u.Type = codec.EventType(r.small(255))
	known = true
	e := &u.Event
	switch u.Type {
	case codec.EventTicker:
		if need(packTickerHead - 1) {
			u.ID, u.View = r.id(), codec.View(r.small(255))
			u.Seq = r.uint()
			r.packTimes(u)
		}
	case codec.EventQuote:
		if need(packQuoteHead - 1) {
			u.ID, u.View = r.id(), codec.View(r.small(255))
			u.Seq, u.No = r.uint(), r.uint()
			r.packTimes(u)
		}
	case codec.EventTrade:
		if need(packTradeHead - 1) {
			u.ID, u.View = r.id(), codec.View(r.small(255))
			u.Seq, u.No = r.uint(), r.uint()
			u.Kind = codec.Kind(r.small(255))
			r.packTimes(u)
		}
	case codec.EventSnapshot:
		if need(packSnapshotHead - 1) {
			u.ID, u.View = r.id(), codec.View(r.small(255))
			u.Channel = codec.Channel(r.small(255))
			u.Epoch, u.Seq, u.No = r.int64(), r.uint(), r.uint()
			r.packTimes(u)
		}
	case codec.EventSnapshotEnd:
		if need(2) {
			e.Ref, e.Channel = r.uint(), r.channel()
		}
	case codec.EventWelcome:
		if need(2) {
			e.Node, e.Version = r.words(), r.words()
		}
	case codec.EventGranted:
		if need(8) {
			e.Ref, e.Channel = r.uint(), r.channel()
			e.ID, e.Symbol = r.id(), r.words()
			e.Every, e.View = r.millis(), codec.View(r.small(255))
			e.Epoch, e.Seq = r.int64(), r.uint()
		}
	case codec.EventWaiting:
		if need(3) {
			e.Ref, e.Channel, e.Symbol = r.uint(), r.channel(), r.words()
		}
	case codec.EventRefused:
		if need(7) {
			e.Ref, e.Channel, e.Symbol = r.uint(), r.channel(), r.words()
			r.packFault(e)
		}
	case codec.EventUnsubscribed:
		if need(3) {
			e.Ref, e.Channel, e.Count = r.uint(), r.channel(), r.uint()
		}
	case codec.EventDrop:
		if need(4) {
			e.Channel = r.channel()
			e.ID, e.Symbol, e.Count = r.id(), r.words(), r.uint()
		}
	case codec.EventState:
		if need(6) {
			e.Channel = r.channel()
			e.ID, e.Symbol = r.id(), r.words()
			e.State, e.Since, e.Why = codec.TopicState(r.small(255)), r.time(), r.words()
		}
	case codec.EventReset:
		if need(4) {
			e.Channel = r.channel()
			e.ID, e.Symbol, e.Epoch = r.id(), r.words(), r.int64()
		}
	case codec.EventBehind:
		if need(6) {
			e.Ref, e.Channel = r.uint(), r.channel()
			e.ID, e.Symbol = r.id(), r.words()
			e.Epoch, e.Seq = r.int64(), r.uint()
		}
	case codec.EventLedger:
		if need(8) {
			l := &e.Ledger
			e.Ref = r.uint()
			for _, p := range [...]*uint64{&l.Offered, &l.Delivered, &l.Merged, &l.Filtered, &l.Dropped, &l.Pending, &l.Snapshots} {
				*p = r.uint()
			}
		}
	case codec.EventGoaway:
		if need(2) {
			e.Window, e.Why = r.millis(), r.words()
		}
	case codec.EventError:
		if need(5) {
			e.Ref = r.uint()
			r.packFault(e)
		}
	case codec.EventPong:
		if need(1) {
			e.Ref = r.uint()
		}
	default:
		known = false
	}
	switch u.Type {
	case codec.EventTicker, codec.EventQuote, codec.EventTrade, codec.EventSnapshot:
		u.View &= codec.ViewAll // a later version's groups stand behind ours
		if need(packGroups(u.View)) {
			r.packGroups(u)
		}
	}
	for ; used < n && r.err == nil; used++ {
		r.skip(skipDepthMax)
	}
	return known
}

func (r *reader) channel() codec.Channel { return codec.Channel(r.small(255)) }

func (r *reader) packFault(e *codec.Event) {
	e.Code, e.Why, e.Where, e.Want = r.words(), r.words(), r.words(), r.words()
}

func (r *reader) packTimes(u *Update) {
	u.IngestTime = r.time()
	if r.null() {
		return
	}
	lag := r.int64()
	if lag > u.IngestTime/1000 || lag < -(1<<63-1-u.IngestTime)/1000 {
		r.fail(CodeBadFrame, "an event "+strconv.FormatInt(lag, 10)+" us before its ingest", "")
		return
	}
	u.EventTime = u.IngestTime - lag*1000
}

func (r *reader) packGroups(u *Update) {
	if u.View&codec.ViewLast != 0 {
		u.Price, u.Size = r.packDecimal(), r.packDecimal()
		u.Side = codec.Side(r.small(255))
	}
	if u.View&codec.ViewQuote != 0 {
		u.Bid, u.BidSize = r.packDecimal(), r.packDecimal()
		u.Ask, u.AskSize = r.packDecimal(), r.packDecimal()
	}
	if u.View&codec.ViewTotals != 0 {
		u.Volume, u.Notional = r.packTotal(), r.packTotal()
		u.Trades = r.uint()
	}
	if u.View&codec.ViewDay != 0 {
		d := &u.Day
		d.Open, d.High = r.packDecimal(), r.packDecimal()
		d.Low, d.PrevClose = r.packDecimal(), r.packDecimal()
		d.BaseVolume, d.BaseNotional = r.packTotal(), r.packTotal()
		d.BaseTrades = r.uint()
		d.Number = r.dayNumber()
		d.RangeUnsure = r.boolean()
	}
}

func (r *reader) dayNumber() int32 {
	if r.null() {
		return 0
	}
	n := r.int64()
	if n != int64(int32(n)) {
		r.fail(CodeBadFrame, "a day beyond all calendars", "")
		return 0
	}
	return int32(n)
}

func (r *reader) packDecimal() codec.Decimal {
	if r.null() {
		r.small(codec.DecimalScaleMax)
		return codec.Decimal{}
	}
	coef := r.int64()
	d, err := codec.NewDecimal(coef, int(r.small(codec.DecimalScaleMax)))
	if err != nil && r.err == nil {
		r.fail(CodeBadFrame, err.Error(), "")
	}
	return d
}

// totalScaleMax is the scale of a product of two decimals.
const totalScaleMax = 2 * codec.DecimalScaleMax

// totalBytesMax is a sign, the digits of 2^127, a point and a zero before it.
const totalBytesMax = 1 + 39 + 2

func (r *reader) packTotal() codec.Total {
	if r.null() {
		r.small(totalScaleMax)
		return codec.LostTotal()
	}
	if r.next() != kindString {
		coef := r.int64()
		t, err := codec.NewTotal(coef, int(r.small(totalScaleMax)))
		if err != nil && r.err == nil {
			r.fail(CodeBadFrame, err.Error(), "")
		}
		return t
	}
	digits := r.str(totalBytesMax)
	scale := int(r.small(totalScaleMax))
	if r.err != nil {
		return codec.Total{}
	}
	var buf [totalBytesMax + totalScaleMax + len("0.")]byte
	plain := buf[:0]
	if len(digits) > 0 && digits[0] == '-' {
		plain, digits = append(plain, '-'), digits[1:]
	}
	if whole := len(digits) - scale; whole > 0 {
		plain = append(plain, digits[:whole]...)
		digits = digits[whole:]
	} else {
		plain = append(plain, '0')
	}
	if scale > 0 {
		plain = append(plain, '.')
		for range scale - len(digits) {
			plain = append(plain, '0')
		}
		plain = append(plain, digits...)
	}
	t, err := codec.ParseTotal(plain)
	if err != nil {
		r.fail(CodeBadFrame, "a total that is "+err.Error(), "")
	}
	return t
}

// textRow reads a row of the text spelling; known is false for a type of a
// later version. Keys that a later version may add are passed over.
func (r *reader) textRow(u *Update) (known bool) {
	const rowKeysMax = 64
	var symbol []byte
	e := &u.Event
	s := r.openMap(rowKeysMax)
	for first := true; ; first = false {
		name, ok := r.nextKey(&s)
		if !ok {
			break
		}
		switch string(name) {
		case "type":
			if u.Type = typeOf(r.str(keyBytesMax)); u.Type == 0 && first {
				for {
					if _, ok := r.nextKey(&s); !ok {
						return false
					}
					r.skip(skipDepthMax)
				}
			}
		case "symbol":
			symbol = r.outlast(r.str(3 * textBytesMax))
		case "id":
			u.ID = r.id()
		case "channel":
			if !r.null() {
				u.Channel, _ = codec.ParseChannel(string(r.str(keyBytesMax)))
			}
		case "view":
			for l := r.openList(keysMax); r.moreItems(&l); {
				u.View |= viewOf(r.str(keyBytesMax))
			}
		case "epoch":
			u.Epoch = r.int64()
		case "seq":
			u.Seq = r.uint()
		case "no":
			u.No = r.uint()
		case "kind":
			u.Kind = kindOf(r.str(keyBytesMax))
		case "ingest":
			u.IngestTime = r.time()
		case "event":
			u.EventTime = r.time()
		case "last", "price":
			u.Price = r.textDecimal()
			u.View |= codec.ViewLast
		case "size":
			u.Size = r.textDecimal()
		case "side":
			if !r.null() {
				u.Side = sideOf(r.str(keyBytesMax))
			}
		case "bid":
			u.Bid = r.textDecimal()
			u.View |= codec.ViewQuote
		case "bid_size":
			u.BidSize = r.textDecimal()
		case "ask":
			u.Ask = r.textDecimal()
		case "ask_size":
			u.AskSize = r.textDecimal()
		case "volume":
			u.Volume = r.textTotal()
			u.View |= codec.ViewTotals
		case "notional":
			u.Notional = r.textTotal()
		case "trades":
			u.Trades = r.uint()
		case "open":
			u.Day.Open = r.textDecimal()
			u.View |= codec.ViewDay
		case "high":
			u.Day.High = r.textDecimal()
		case "low":
			u.Day.Low = r.textDecimal()
		case "prev_close":
			u.Day.PrevClose = r.textDecimal()
		case "base_volume":
			u.Day.BaseVolume = r.textTotal()
		case "base_notional":
			u.Day.BaseNotional = r.textTotal()
		case "base_trades":
			u.Day.BaseTrades = r.uint()
		case "day":
			u.Day.Number = r.dayNumber()
		case "range_unsure":
			u.Day.RangeUnsure = r.boolean()
		case "ref":
			e.Ref = r.uint()
		case "every":
			e.Every = r.millis()
		case "count":
			e.Count = r.uint()
		case "state":
			e.State = stateOf(r.str(keyBytesMax))
		case "since":
			e.Since = r.time()
		case "code":
			e.Code = r.words()
		case "what", "why":
			e.Why = r.words()
		case "where":
			e.Where = r.words()
		case "want":
			e.Want = r.words()
		case "node":
			e.Node = r.words()
		case "version":
			e.Version = r.words()
		case "window":
			e.Window = r.millis()
		case "offered":
			e.Ledger.Offered = r.uint()
		case "delivered":
			e.Ledger.Delivered = r.uint()
		case "merged":
			e.Ledger.Merged = r.uint()
		case "filtered":
			e.Ledger.Filtered = r.uint()
		case "dropped":
			e.Ledger.Dropped = r.uint()
		case "pending":
			e.Ledger.Pending = r.uint()
		case "snapshots":
			e.Ledger.Snapshots = r.uint()
		default:
			r.skip(skipDepthMax)
		}
	}
	if r.err != nil || u.Type == 0 {
		return false
	}
	if u.Type > codec.EventSnapshot {
		if !utf8.Valid(symbol) {
			r.fail(CodeBadFrame, "a symbol that is no UTF-8", "")
			return false
		}
		e.ID, e.Symbol, e.Channel, e.View, e.Epoch, e.Seq = u.ID, string(symbol), u.Channel, u.View, u.Epoch, u.Seq
		u.View = 0
	}
	return true
}

func (r *reader) textDecimal() codec.Decimal {
	if r.null() {
		return codec.Decimal{}
	}
	text := r.str(2 * totalBytesMax)
	if r.err != nil {
		return codec.Decimal{}
	}
	d, err := codec.ParseDecimal(text)
	if err != nil {
		r.fail(CodeBadFrame, quote(text)+" is "+err.Error(), "")
	}
	return d
}

func (r *reader) textTotal() codec.Total {
	if r.null() {
		return codec.LostTotal()
	}
	text := r.str(2 * totalBytesMax)
	if r.err != nil {
		return codec.Total{}
	}
	t, err := codec.ParseTotal(text)
	if err != nil {
		r.fail(CodeBadFrame, quote(text)+" is "+err.Error(), "")
	}
	return t
}

func kindOf(word []byte) codec.Kind {
	for k := codec.KindTrade; k <= codec.KindStatus; k++ {
		if k.String() == string(word) {
			return k
		}
	}
	return 0
}

func sideOf(word []byte) codec.Side {
	switch string(word) {
	case "buy":
		return codec.SideBuy
	case "sell":
		return codec.SideSell
	}
	return codec.SideUnknown
}

func stateOf(word []byte) codec.TopicState {
	for s := codec.StateLoading; s <= codec.StateReplay; s++ {
		if s.String() == string(word) {
			return s
		}
	}
	return 0
}
