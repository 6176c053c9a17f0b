package native

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"tickgate/codec"
)

// jsonText is the text spelling.
type jsonText struct{}

func (jsonText) Subprotocol() string { return SubprotocolJSON }
func (jsonText) Text() bool          { return true }

// FrameOverhead is the keys and two integers, each at most a string of twenty
// digits.
func (jsonText) FrameOverhead() int {
	return len(`{"frame":,"sent":,"events":[]}`) + 2*22
}

func (jsonText) BeginFrame(dst []byte, no uint64, sent int64) []byte {
	dst = append(dst, `{"frame":`...)
	dst = textUint(dst, no)
	dst = append(dst, `,"sent":`...)
	dst = textTime(dst, sent)
	return append(dst, `,"events":[`...)
}

// EndFrame closes the list. Every row was spelled with a comma behind it, so
// that rows concatenate; the last one's becomes the end of the list.
func (jsonText) EndFrame(dst []byte, start, rows int) []byte {
	if rows > 0 {
		dst = dst[:len(dst)-1]
	}
	return append(dst, ']', '}')
}

func (jsonText) AppendState(dst []byte, c codec.Channel, v codec.View, id uint32, symbol string, s *codec.State) []byte {
	t := stateType(c)
	if t == codec.EventTicker {
		dst = append(dst, `{"type":"ticker","symbol":`...)
	} else {
		dst = append(dst, `{"type":"quote","symbol":`...)
	}
	dst = textTopic(dst, id, symbol)
	dst = textUint(append(dst, `,"seq":`...), s.Seq)
	if t == codec.EventQuote {
		dst = textUint(append(dst, `,"no":`...), s.QuoteNo)
	}
	ingest, event := rowTimes(c, s)
	dst = textTimes(dst, ingest, event)
	dst = textState(dst, rowView(c, v), s)
	return append(dst, '}', ',')
}

func (jsonText) AppendSnapshot(dst []byte, c codec.Channel, v codec.View, id uint32, symbol string, s *codec.State) []byte {
	v = rowView(c, v)
	dst = append(dst, `{"type":"snapshot","symbol":`...)
	dst = textTopic(dst, id, symbol)
	dst = textChannel(append(dst, `,"channel":`...), c)
	dst = textView(append(dst, `,"view":`...), v)
	dst = textInt(append(dst, `,"epoch":`...), s.Epoch)
	dst = textUint(append(dst, `,"seq":`...), s.Seq)
	if c != codec.ChannelTicker {
		dst = textUint(append(dst, `,"no":`...), rowNo(c, s))
	}
	ingest, event := rowTimes(c, s)
	dst = textTimes(dst, ingest, event)
	dst = textState(dst, v, s)
	return append(dst, '}', ',')
}

func (jsonText) AppendTrade(dst []byte, v codec.View, id uint32, symbol string, e *codec.TradeEntry) []byte {
	v = rowView(codec.ChannelTrades, v)
	t := &e.Trade
	dst = append(dst, `{"type":"trade","symbol":`...)
	dst = textTopic(dst, id, symbol)
	dst = textUint(append(dst, `,"seq":`...), t.Seq)
	dst = textUint(append(dst, `,"no":`...), t.No)
	if e.Kind == codec.KindTrade {
		dst = append(dst, `,"kind":"trade"`...)
	} else {
		dst = append(dst, `,"kind":"`...)
		dst = append(dst, e.Kind.String()...)
		dst = append(dst, '"')
	}
	dst = textTimes(dst, t.IngestTime, t.EventTime)
	if v&codec.ViewLast != 0 {
		dst = textDecimal(append(dst, `,"price":`...), t.Price)
		dst = textSizeSide(dst, t)
	}
	if v&codec.ViewQuote != 0 {
		dst = textQuoteGroup(dst, &e.Quote)
	}
	if v&codec.ViewTotals != 0 {
		dst = textTotals(dst, e.Volume, e.Notional, e.Trades)
	}
	return append(dst, '}', ',')
}

func textState(dst []byte, v codec.View, s *codec.State) []byte {
	if v&codec.ViewLast != 0 {
		dst = textDecimal(append(dst, `,"last":`...), s.Last.Price)
		dst = textSizeSide(dst, &s.Last)
	}
	if v&codec.ViewQuote != 0 {
		dst = textQuoteGroup(dst, &s.Quote)
	}
	if v&codec.ViewTotals != 0 {
		dst = textTotals(dst, s.Volume, s.Notional, s.Trades)
	}
	if v&codec.ViewDay != 0 {
		d := &s.Day
		dst = textDecimal(append(dst, `,"open":`...), d.Open)
		dst = textDecimal(append(dst, `,"high":`...), d.High)
		dst = textDecimal(append(dst, `,"low":`...), d.Low)
		dst = textDecimal(append(dst, `,"prev_close":`...), d.PrevClose)
		dst = textTotal(append(dst, `,"base_volume":`...), d.BaseVolume)
		dst = textTotal(append(dst, `,"base_notional":`...), d.BaseNotional)
		dst = textUint(append(dst, `,"base_trades":`...), d.BaseTrades)
		dst = append(dst, `,"day":`...)
		if d.Open.IsSet() {
			dst = textInt(dst, int64(d.Number))
		} else {
			dst = append(dst, "null"...)
		}
		dst = strconv.AppendBool(append(dst, `,"range_unsure":`...), d.RangeUnsure)
	}
	return dst
}

func textTopic(dst []byte, id uint32, symbol string) []byte {
	dst = textString(dst, symbol)
	dst = append(dst, `,"id":`...)
	return appendUint(dst, uint64(id))
}

func textTimes(dst []byte, ingest, event int64) []byte {
	dst = append(dst, `,"ingest":`...)
	if ingest > 0 && event > 0 { // microseconds are below 2^53 until 2255
		if i, e := uint64(ingest)/1000, uint64(event)/1000; i|e <= safeInteger {
			return codec.AppendTimes(dst, i, `,"event":`, e)
		}
	}
	dst = textTime(dst, ingest)
	return textTime(append(dst, `,"event":`...), event)
}

func textSizeSide(dst []byte, t *codec.Trade) []byte {
	dst = textDecimal(append(dst, `,"size":`...), t.Size)
	switch t.Side {
	case codec.SideBuy:
		return append(dst, `,"side":"buy"`...)
	case codec.SideSell:
		return append(dst, `,"side":"sell"`...)
	}
	return append(dst, `,"side":null`...)
}

func textQuoteGroup(dst []byte, q *codec.Quote) []byte {
	dst = textDecimal(append(dst, `,"bid":`...), q.Bid)
	dst = textDecimal(append(dst, `,"bid_size":`...), q.BidSize)
	dst = textDecimal(append(dst, `,"ask":`...), q.Ask)
	return textDecimal(append(dst, `,"ask_size":`...), q.AskSize)
}

func textTotals(dst []byte, volume, notional codec.Total, trades uint64) []byte {
	dst = textTotal(append(dst, `,"volume":`...), volume)
	dst = textTotal(append(dst, `,"notional":`...), notional)
	return textUint(append(dst, `,"trades":`...), trades)
}

func (jsonText) AppendEvent(dst []byte, e *codec.Event) []byte {
	word := ""
	if int(e.Type) < len(typeWords) && e.Type > codec.EventSnapshot {
		word = typeWords[e.Type]
	}
	if word == "" {
		panic(fmt.Sprintf("native: event %d is not spelled by AppendEvent", e.Type))
	}
	key := func(name string) {
		dst = append(dst, ',', '"')
		dst = append(dst, name...)
		dst = append(dst, '"', ':')
	}
	num := func(name string, n uint64) { key(name); dst = textUint(dst, n) }
	text := func(name, s string) { key(name); dst = textString(dst, s) }
	millis := func(name string, d time.Duration) { num(name, uint64(max(0, d.Milliseconds()))) }
	channel := func() { key("channel"); dst = textChannel(dst, e.Channel) }
	topic := func() { key("symbol"); dst = textTopic(dst, e.ID, e.Symbol) }
	fault := func() {
		text("code", e.Code)
		text("what", e.Why)
		text("where", e.Where)
		text("want", e.Want)
	}
	dst = append(dst, `{"type":"`...)
	dst = append(dst, word...)
	dst = append(dst, '"')
	switch e.Type {
	case codec.EventSnapshotEnd:
		num("ref", e.Ref)
		channel()
	case codec.EventWelcome:
		text("node", e.Node)
		text("version", e.Version)
	case codec.EventGranted:
		num("ref", e.Ref)
		channel()
		topic()
		millis("every", e.Every)
		key("view")
		dst = textView(dst, e.View)
		key("epoch")
		dst = textInt(dst, e.Epoch)
		num("seq", e.Seq)
	case codec.EventWaiting:
		num("ref", e.Ref)
		channel()
		text("symbol", e.Symbol)
	case codec.EventRefused:
		num("ref", e.Ref)
		channel()
		text("symbol", e.Symbol)
		fault()
	case codec.EventUnsubscribed:
		num("ref", e.Ref)
		channel()
		num("count", e.Count)
	case codec.EventDrop:
		channel()
		topic()
		num("count", e.Count)
	case codec.EventState:
		channel()
		topic()
		text("state", e.State.String())
		key("since")
		dst = textTime(dst, e.Since)
		text("why", e.Why)
	case codec.EventReset:
		channel()
		topic()
		key("epoch")
		dst = textInt(dst, e.Epoch)
	case codec.EventBehind:
		num("ref", e.Ref)
		channel()
		topic()
		key("epoch")
		dst = textInt(dst, e.Epoch)
		num("seq", e.Seq)
	case codec.EventLedger:
		l := &e.Ledger
		num("ref", e.Ref)
		num("offered", l.Offered)
		num("delivered", l.Delivered)
		num("merged", l.Merged)
		num("filtered", l.Filtered)
		num("dropped", l.Dropped)
		num("pending", l.Pending)
		num("snapshots", l.Snapshots)
	case codec.EventGoaway:
		millis("window", e.Window)
		text("why", e.Why)
	case codec.EventError:
		num("ref", e.Ref)
		fault()
	case codec.EventPong:
		num("ref", e.Ref)
	}
	return append(dst, '}', ',')
}

func (jsonText) AppendCommand(dst []byte, c *codec.Command) []byte {
	use := opKeys[opIndex(c.Op)]
	dst = append(dst, `{"op":`...)
	dst = textString(dst, c.Op.String())
	if c.Ref != 0 {
		dst = textUint(append(dst, `,"ref":`...), c.Ref)
	}
	if use.has(keyChannel) && c.Channel != 0 {
		dst = textChannel(append(dst, `,"channel":`...), c.Channel)
	}
	if use.has(keySymbols) {
		dst = append(dst, `,"symbols":[`...)
		first := true
		for it := range c.Symbols.All() {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			if !it.HasFrom {
				dst = textBytes(dst, it.Name)
				continue
			}
			dst = textBytes(append(dst, `{"symbol":`...), it.Name)
			dst = textInt(append(dst, `,"epoch":`...), it.Epoch)
			dst = textUint(append(dst, `,"seq":`...), it.Seq)
			dst = append(dst, '}')
		}
		dst = append(dst, ']')
	}
	if use.has(keyEvery) && c.Every >= time.Millisecond {
		dst = textUint(append(dst, `,"every":`...), uint64(c.Every.Milliseconds()))
	}
	if use.has(keyView) && c.View != 0 {
		dst = textView(append(dst, `,"view":`...), c.View)
	}
	if use.has(keyMinSize) && c.MinSize.IsSet() {
		dst = textDecimal(append(dst, `,"min_size":`...), c.MinSize)
	}
	if use.has(keyDeadband) && c.Deadband.IsSet() {
		dst = textDecimal(append(dst, `,"deadband":`...), c.Deadband)
	}
	if use.has(keySilence) && c.SilenceMax >= time.Millisecond {
		dst = textUint(append(dst, `,"silence":`...), uint64(c.SilenceMax.Milliseconds()))
	}
	if use.has(keyMore) && c.More {
		dst = append(dst, `,"more":true`...)
	}
	if use.has(keyFrame) {
		dst = textUint(append(dst, `,"frame":`...), c.Frame)
	}
	if use.has(keyToken) {
		dst = textBytes(append(dst, `,"token":`...), c.Token)
	}
	return append(dst, '}')
}

func appendUint(dst []byte, n uint64) []byte { return codec.AppendUint(dst, n) }

func textUint(dst []byte, n uint64) []byte {
	if n <= safeInteger {
		return appendUint(dst, n)
	}
	return append(appendUint(append(dst, '"'), n), '"')
}

func textInt(dst []byte, n int64) []byte {
	if n >= 0 {
		return textUint(dst, uint64(n))
	}
	if n >= -safeInteger {
		return strconv.AppendInt(dst, n, 10)
	}
	return append(strconv.AppendInt(append(dst, '"'), n, 10), '"')
}

// textTime writes Unix ns as Unix microseconds, null for none.
func textTime(dst []byte, ns int64) []byte {
	if ns <= 0 {
		return append(dst, "null"...)
	}
	return textUint(dst, uint64(ns)/1000)
}

func textDecimal(dst []byte, d codec.Decimal) []byte {
	if !d.IsSet() {
		return append(dst, "null"...)
	}
	return append(d.AppendText(append(dst, '"')), '"')
}

func textTotal(dst []byte, t codec.Total) []byte {
	if t.Lost() {
		return append(dst, "null"...)
	}
	return append(t.AppendText(append(dst, '"')), '"')
}

func textChannel(dst []byte, c codec.Channel) []byte {
	switch c {
	case codec.ChannelTicker:
		return append(dst, `"ticker"`...)
	case codec.ChannelQuotes:
		return append(dst, `"quotes"`...)
	case codec.ChannelTrades:
		return append(dst, `"trades"`...)
	}
	return append(dst, "null"...)
}

func textView(dst []byte, v codec.View) []byte {
	dst = append(dst, '[')
	first := true
	for _, n := range viewNames {
		if v&n.view == 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, '"')
		dst = append(dst, n.name...)
		dst = append(dst, '"')
	}
	return append(dst, ']')
}

// textString writes a text, which is cut to its bound.
func textString(dst []byte, s string) []byte { return textBytes(dst, cut(s)) }

// textBytes writes a string; bytes that are no UTF-8 become U+FFFD.
func textBytes[S string | []byte](dst []byte, s S) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	plain := 0 // as all of a symbol is
	for plain < len(s) && s[plain] < 0x80 && s[plain] >= 0x20 && s[plain] != '"' && s[plain] != '\\' {
		plain++
	}
	dst = append(dst, s[:plain]...)
	s = s[plain:]
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c >= 0x80:
			r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
		i++
	}
	return append(dst, '"')
}
