package client

import (
	"strconv"
	"time"

	"tickgate/codec"
)

// LineView is the view that a line of [AppendLine] needs.
func LineView(c codec.Channel) codec.View {
	if c == codec.ChannelTicker {
		return codec.ViewAll
	}
	return codec.ViewLast | codec.ViewQuote | codec.ViewTotals
}

// AppendLine appends u as one line of JSON. Prices and totals are strings, ages
// are microseconds, and what is not known is null. Trades have kind, price,
// size and side besides. The snapshot that a subscription to trades begins with
// is no trade and has no line.
//
//	{"symbol":"BTCUSDT","channel":"ticker","epoch":1,"seq":48213,"last":"61500.12",
//	 "bid":"61500.11","ask":"61500.12","volume":"212.03315","trades":9757,
//	 "age_us":812,"event_age_us":4268,"merged":3,"dropped":0}
func AppendLine(dst []byte, u *Update) []byte {
	trade := u.Channel == codec.ChannelTrades
	if trade && u.Snapshot() {
		return dst
	}
	dst = append(dst, `{"symbol":"`...)
	dst = append(dst, u.Symbol...) // a valid symbol needs no escape
	dst = append(dst, `","channel":"`...)
	dst = append(dst, u.Channel.String()...)
	dst = strconv.AppendInt(append(dst, `","epoch":`...), u.Epoch, 10)
	dst = strconv.AppendUint(append(dst, `,"seq":`...), u.Seq, 10)
	dst = appendDecimal(append(dst, `,"last":`...), u.Last)
	dst = appendDecimal(append(dst, `,"bid":`...), u.Bid)
	dst = appendDecimal(append(dst, `,"ask":`...), u.Ask)
	totals := u.View&codec.ViewTotals != 0
	dst = append(dst, `,"volume":`...)
	if totals && !u.Volume.Lost() {
		dst = append(u.Volume.AppendText(append(dst, '"')), '"')
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"trades":`...)
	if totals {
		dst = strconv.AppendUint(dst, u.Trades, 10)
	} else {
		dst = append(dst, "null"...)
	}
	age, ok := u.Age()
	dst = appendAge(append(dst, `,"age_us":`...), age, ok)
	age, ok = u.EventAge()
	dst = appendAge(append(dst, `,"event_age_us":`...), age, ok)
	dst = strconv.AppendUint(append(dst, `,"merged":`...), u.Merged, 10)
	dst = strconv.AppendUint(append(dst, `,"dropped":`...), u.Dropped, 10)
	if trade {
		dst = append(dst, `,"kind":"`...)
		dst = append(dst, u.Kind.String()...)
		dst = appendDecimal(append(dst, `","price":`...), u.Price)
		dst = appendDecimal(append(dst, `,"size":`...), u.Size)
		dst = append(dst, `,"side":`...)
		if side := u.Side.String(); side != "" {
			dst = append(append(append(dst, '"'), side...), '"')
		} else {
			dst = append(dst, "null"...)
		}
	}
	return append(dst, '}', '\n')
}

func appendDecimal(dst []byte, d codec.Decimal) []byte {
	if !d.IsSet() {
		return append(dst, "null"...)
	}
	return append(d.AppendText(append(dst, '"')), '"')
}

func appendAge(dst []byte, age time.Duration, ok bool) []byte {
	if !ok {
		return append(dst, "null"...)
	}
	return strconv.AppendInt(dst, age.Microseconds(), 10)
}
