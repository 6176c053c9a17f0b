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
// the trade before the subscription; its id tells whether it is a repeat.
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
	err := fields(msg, func(key []byte, v value) {
		switch string(key) {
		case "type":
			f.typ = v
		case "product_id":
			f.product = v
		case "side":
			f.side = v
		case "size":
			f.size = v
		case "price":
			f.price = v
		case "time":
			f.at = v
		case "trade_id":
			f.tradeID = v
		case "best_bid":
			f.bid = v
		case "best_bid_size":
			f.bidSize = v
		case "best_ask":
			f.ask = v
		case "best_ask_size":
			f.askSize = v
		}
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
		if t.Size, err = f.size.decimal(); err != nil {
			return fault("match", "size", err)
		}
		if t.Size.Sign() < 0 {
			return fault("match", "size", errRange)
		}
		if t.EventTime, err = f.at.rfc3339(); err != nil {
			return fault("match", "time", err)
		}
		switch string(f.side.raw) {
		case "sell":
			t.Side = codec.SideBuy
		case "buy":
			t.Side = codec.SideSell
		default:
			return fault("match", "side", errKind)
		}
		return append(dst, t), "match", nil

	case "ticker":
		t := codec.Tick{Kind: codec.KindQuote}
		if t.VenueSymbol, err = f.product.name(); err != nil {
			return fault("ticker", "product_id", err)
		}
		if f.bid.kind == 0 && f.ask.kind == 0 {
			return fault("ticker", "best_bid", errMissing)
		}
		if f.bid.kind == '"' && len(f.bid.raw) > 0 {
			if t.Bid, t.BidSize, err = side(f.bid, f.bidSize); err != nil {
				return fault("ticker", "best_bid", err)
			}
		}
		if f.ask.kind == '"' && len(f.ask.raw) > 0 {
			if t.Ask, t.AskSize, err = side(f.ask, f.askSize); err != nil {
				return fault("ticker", "best_ask", err)
			}
		}
		if f.at.kind != 0 { // a product that never traded has none
			if t.EventTime, err = f.at.rfc3339(); err != nil {
				return fault("ticker", "time", err)
			}
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

var errTime = errors.New("not a time as RFC 3339 in UTC writes it")

// rfc3339 reads "2021-04-17T16:43:37.089723Z", with up to nine digits behind
// the point.
func (v value) rfc3339() (int64, error) {
	if v.kind != '"' {
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
