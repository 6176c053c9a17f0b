package venue

import (
	"errors"
	"time"

	"tickgate/codec"
)

// Coinbase is Coinbase Exchange (ws-feed): match and last_match as trades,
// ticker as a quote.
//
//	{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e-…","taker_order_id":"3c82abaa-…","side":"sell",
//	 "size":"985","price":"0.00001305","product_id":"SKL-BTC","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}
//	{"type":"ticker","product_id":"SKL-GBP","price":"0.5752","best_bid":"0.5752","best_ask":"0.5771","side":"sell",
//	 "time":"2021-04-17T16:43:29.571587Z","trade_id":82007,"last_size":"1008.2", …}
//
// A match's side is the maker's, so the taker's is the other one. A ticker
// comes with each match and repeats it: it is only a quote here. last_match is
// the trade before the subscription; its id tells whether it is a repeat. A type
// that is not listed below is an error: Advanced Trade and International look
// alike, but have other fields, and would say nothing for ever.
//
// Kinds: match, ticker, ack, heartbeat, depth, order, status, error, malformed.
//
// Source: https://docs.cdp.coinbase.com/exchange/websocket-feed/channels
var Coinbase = Venue{
	Name:       "coinbase",
	Normalize:  normalizeCoinbase,
	Symbol:     symbolCoinbase,
	MaxSilence: time.Minute, // its heartbeat channel says something each second, if asked for
	DayOf:      utcDay,
}

var errUnknown = errors.New("no message of this venue that we know")

type coinbaseFields struct {
	typ, product, side, size, price, at, tradeID value
	bid, bidSize, ask, askSize                   value
}

func (f *coinbaseFields) read(msg []byte) error {
	s := scanner{b: msg}
	err := s.message(func(key []byte) error {
		var to *value
		switch string(key) {
		case "type":
			to = &f.typ
		case "product_id":
			to = &f.product
		case "side":
			to = &f.side
		case "size":
			to = &f.size
		case "price":
			to = &f.price
		case "time":
			to = &f.at
		case "trade_id":
			to = &f.tradeID
		case "best_bid":
			to = &f.bid
		case "best_bid_size":
			to = &f.bidSize
		case "best_ask":
			to = &f.ask
		case "best_ask_size":
			to = &f.askSize
		default:
			return s.skip(depthMax - 1)
		}
		v, err := s.value(depthMax - 1)
		*to = v
		return err
	})
	if err != nil {
		return &MessageError{Venue: "coinbase", Err: err}
	}
	return nil
}

func symbolCoinbase(msg []byte) ([]byte, bool) {
	var f coinbaseFields
	if f.read(msg) != nil {
		return nil, false
	}
	s, err := f.product.name()
	return s, err == nil
}

func normalizeCoinbase(dst []codec.Tick, msg []byte) ([]codec.Tick, string, error) {
	var f coinbaseFields
	if err := f.read(msg); err != nil {
		return dst, "malformed", err
	}
	if f.typ.kind != '"' {
		return dst, "malformed", &MessageError{Venue: "coinbase", Field: "type", Err: errMissing}
	}
	fault := func(kind, field string, err error) ([]codec.Tick, string, error) {
		return dst, kind, &MessageError{Venue: "coinbase", Field: field, Err: err}
	}
	var err error
	switch string(f.typ.raw) {
	case "match", "last_match":
		t := codec.Tick{Kind: codec.KindTrade, Flags: codec.TradeOrdinary, HasID: true}
		if t.VenueSymbol, err = f.product.name(); err != nil {
			return fault("match", "product_id", err)
		}
		if t.ID, err = f.tradeID.uint(); err != nil {
			return fault("match", "trade_id", err)
		}
		if t.Price, err = f.price.decimal(); err != nil {
			return fault("match", "price", err)
		}
		if t.Price.Sign() <= 0 {
			return fault("match", "price", errRange)
		}
		if t.Size, err = f.size.size(); err != nil {
			return fault("match", "size", err)
		}
		if t.Size.Sign() < 0 {
			return fault("match", "size", errRange)
		}
		if t.EventTime, err = f.at.rfc3339(); err != nil {
			return fault("match", "time", err)
		}
		switch {
		case f.side.kind == '"' && string(f.side.raw) == "sell":
			t.Side = codec.SideBuy
		case f.side.kind == '"' && string(f.side.raw) == "buy":
			t.Side = codec.SideSell
		case f.side.kind == 0:
			return fault("match", "side", errMissing)
		default:
			return fault("match", "side", errRange)
		}
		return append(dst, t), "match", nil

	case "ticker":
		t := codec.Tick{Kind: codec.KindQuote}
		if t.VenueSymbol, err = f.product.name(); err != nil {
			return fault("ticker", "product_id", err)
		}
		var field string
		if t.Bid, t.BidSize, field, err = coinbaseSide("best_bid", f.bid, "best_bid_size", f.bidSize); err != nil {
			return fault("ticker", field, err)
		}
		if t.Ask, t.AskSize, field, err = coinbaseSide("best_ask", f.ask, "best_ask_size", f.askSize); err != nil {
			return fault("ticker", field, err)
		}
		if f.at.kind != 0 { // a product that never traded has none
			if t.EventTime, err = f.at.rfc3339(); err != nil {
				return fault("ticker", "time", err)
			}
		}
		t.Partial = f.bid.kind == 0 || f.ask.kind == 0
		if t.Partial && !t.Bid.IsSet() && !t.Ask.IsSet() {
			return dst, "ticker", nil // it tells a last price only
		}
		return append(dst, t), "ticker", nil

	case "subscriptions":
		return dst, "ack", nil
	case "heartbeat":
		return dst, "heartbeat", nil
	case "snapshot", "l2update":
		return dst, "depth", nil
	case "status":
		return dst, "status", nil
	case "error":
		return dst, "error", nil
	case "received", "open", "done", "change", "activate":
		return dst, "order", nil
	}
	return fault("malformed", "type", errUnknown)
}

// coinbaseSide is one side of a ticker. Where nobody quotes, it is empty, null
// or zero; older tickers have no sizes.
func coinbaseSide(priceField string, price value, sizeField string, size value) (p, s codec.Decimal, field string, err error) {
	switch {
	case price.kind == 0, price.kind == 'n', price.kind == '"' && len(price.raw) == 0:
		return p, s, "", nil
	case size.kind != 0 && size.kind != 'n':
		return side(priceField, price, sizeField, size)
	}
	if p, err = price.decimal(); err != nil {
		return p, s, priceField, err
	}
	switch p.Sign() {
	case -1:
		return p, s, priceField, errRange
	case 0:
		return codec.Decimal{}, s, "", nil
	}
	return p, s, "", nil
}

var errTime = errors.New("not a time as RFC 3339 in UTC writes it")

// rfc3339 reads "2021-04-17T16:43:37.089723Z", with up to nine digits behind
// the point.
func (v value) rfc3339() (int64, error) {
	switch v.kind {
	case 0:
		return 0, errMissing
	case '"':
	default:
		return 0, errKind
	}
	b := v.raw
	if len(b) < len("2006-01-02T15:04:05Z") || len(b) > len("2006-01-02T15:04:05.000000000Z") || b[len(b)-1] != 'Z' {
		return 0, errTime
	}
	num := func(from, to int) int {
		n := 0
		for _, c := range b[from:to] {
			if c < '0' || c > '9' {
				return -1 << 20
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	if b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, errTime
	}
	year, month, day := num(0, 4), num(5, 7), num(8, 10)
	hour, minute, sec := num(11, 13), num(14, 16), num(17, 19)
	if year < 1973 || year > 2255 || month < 1 || month > 12 || day < 1 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || sec < 0 || sec > 59 {
		return 0, errTime
	}
	nanos := 0
	if frac := b[19 : len(b)-1]; len(frac) > 0 {
		if frac[0] != '.' || len(frac) == 1 {
			return 0, errTime
		}
		nanos = num(20, len(b)-1)
		if nanos < 0 {
			return 0, errTime
		}
		for range 10 - len(frac) {
			nanos *= 10
		}
	}
	at := time.Date(year, time.Month(month), day, hour, minute, sec, nanos, time.UTC)
	if at.Day() != day {
		return 0, errTime // the 30th of February
	}
	return at.UnixNano(), nil
}
