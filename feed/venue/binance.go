package venue

import (
	"time"

	"tickgate/codec"
)

// Binance is Binance spot: trade and bookTicker, alone or in the envelope of a
// combined stream.
//
//	{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,
//	 "p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}
//	{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54698000"}
//
// m says that the buyer was the maker, so the taker sold. A bookTicker has no
// event type and no time. An aggTrade is the same trades again, so it is none.
//
// Kinds: trade, bookTicker, depth, aggTrade, ticker, kline, status, ack, error,
// other (an event type that we do not know, or an array), malformed.
//
// Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
var Binance = Venue{
	Name:       "binance",
	Normalize:  normalizeBinance,
	Symbol:     symbolBinance,
	MaxSilence: time.Minute, // its server pings every 20 s
	DayOf:      utcDay,
}

// binanceFields are those of all the messages that matter to us.
type binanceFields struct {
	e, s, id, p, q, at, m         value // a trade's
	u, bid, bidSize, ask, askSize value // a bookTicker's

	// What else tells a message apart.
	result, requestID, lastUpdateID, error bool
	array                                  bool // many tickers in one message
}

// read reads a message, or the one in the envelope of a combined stream.
func (f *binanceFields) read(msg []byte) error {
	s := scanner{b: msg}
	var err error
	if s.next() == '[' { // the streams of all symbols send arrays, of tickers only
		f.array = true
		if err = s.skip(depthMax); err == nil {
			err = s.end()
		}
	} else {
		stream, data := false, false
		err = s.message(func(key []byte) error {
			switch string(key) {
			case "stream":
				stream = true
			case "data":
				data = true
				*f = binanceFields{}
				if s.next() == '{' {
					return s.object(depthMax-1, func(key []byte) error { return f.take(&s, key) })
				}
				f.array = s.next() == '['
			default:
				if !data {
					return f.take(&s, key)
				}
			}
			return s.skip(depthMax - 1)
		})
		if err == nil && data && !stream {
			return &MessageError{Venue: "binance", Field: "stream", Err: errMissing}
		}
	}
	if err != nil {
		return &MessageError{Venue: "binance", Err: err}
	}
	return nil
}

// take takes the value of one field.
func (f *binanceFields) take(s *scanner, key []byte) error {
	var to *value
	if len(key) == 1 {
		switch key[0] {
		case 'e':
			to = &f.e
		case 's':
			to = &f.s
		case 't':
			to = &f.id
		case 'p':
			to = &f.p
		case 'q':
			to = &f.q
		case 'T':
			to = &f.at
		case 'm':
			to = &f.m
		case 'u':
			to = &f.u
		case 'b':
			to = &f.bid
		case 'B':
			to = &f.bidSize
		case 'a':
			to = &f.ask
		case 'A':
			to = &f.askSize
		}
	} else {
		switch string(key) {
		case "result":
			f.result = true
		case "id":
			f.requestID = true
		case "lastUpdateId":
			f.lastUpdateID = true
		case "error", "code":
			f.error = true
		}
	}
	if to == nil {
		return s.skip(depthMax - 2)
	}
	v, err := s.value(depthMax - 2)
	*to = v
	return err
}

func symbolBinance(msg []byte) ([]byte, bool) {
	var f binanceFields
	if f.read(msg) != nil || f.s.kind == 0 {
		return nil, false
	}
	s, err := f.s.name()
	return s, err == nil
}

func normalizeBinance(dst []codec.Tick, msg []byte) ([]codec.Tick, string, error) {
	var f binanceFields
	if err := f.read(msg); err != nil {
		return dst, "malformed", err
	}
	fault := func(kind, field string, err error) ([]codec.Tick, string, error) {
		return dst, kind, &MessageError{Venue: "binance", Field: field, Err: err}
	}
	switch {
	case f.e.kind == '"' && string(f.e.raw) == "trade":
		t := codec.Tick{Kind: codec.KindTrade, Flags: codec.TradeOrdinary, HasID: true}
		var err error
		if t.VenueSymbol, err = f.s.name(); err != nil {
			return fault("trade", "s", err)
		}
		if t.ID, err = f.id.uint(); err != nil {
			return fault("trade", "t", err)
		}
		if t.Price, err = f.p.decimal(); err != nil {
			return fault("trade", "p", err)
		}
		if t.Price.Sign() <= 0 {
			return fault("trade", "p", errRange)
		}
		if t.Size, err = f.q.size(); err != nil {
			return fault("trade", "q", err)
		}
		if t.Size.Sign() < 0 {
			return fault("trade", "q", errRange)
		}
		if t.EventTime, err = f.at.binanceTime(); err != nil {
			return fault("trade", "T", err)
		}
		switch f.m.kind {
		case 't':
			t.Side = codec.SideSell
		case 'f':
			t.Side = codec.SideBuy
		case 0:
			return fault("trade", "m", errMissing)
		default:
			return fault("trade", "m", errKind)
		}
		return append(dst, t), "trade", nil

	case f.e.kind == '"':
		if kind, ok := binanceNonTicks[string(f.e.raw)]; ok {
			return dst, kind, nil
		}
		return dst, "other", nil

	case f.u.kind == '0' && f.bid.kind == '"' && f.ask.kind == '"':
		t := codec.Tick{Kind: codec.KindQuote}
		var err error
		if t.VenueSymbol, err = f.s.name(); err != nil {
			return fault("bookTicker", "s", err)
		}
		var field string
		if t.Bid, t.BidSize, field, err = side("b", f.bid, "B", f.bidSize); err != nil {
			return fault("bookTicker", field, err)
		}
		if t.Ask, t.AskSize, field, err = side("a", f.ask, "A", f.askSize); err != nil {
			return fault("bookTicker", field, err)
		}
		return append(dst, t), "bookTicker", nil

	case f.array:
		return dst, "other", nil
	case f.lastUpdateID:
		return dst, "depth", nil
	case f.error:
		return dst, "error", nil
	case f.result || f.requestID:
		return dst, "ack", nil
	}
	return fault("malformed", "", errUnknown)
}

// binanceNonTicks are the event types that tell no tick, and how they count.
var binanceNonTicks = map[string]string{
	"depthUpdate":    "depth",
	"aggTrade":       "aggTrade",
	"24hrTicker":     "ticker",
	"24hrMiniTicker": "ticker",
	"kline":          "kline",
	"serverShutdown": "status",
}

// binanceTime reads milliseconds, or microseconds where the stream was asked
// for them.
func (v value) binanceTime() (int64, error) {
	n, err := v.uint()
	switch {
	case err != nil:
		return 0, err
	case n < 1e11 || n >= 1e17: // 1973 in milliseconds, 5138 in microseconds
		return 0, errRange
	case n >= 1e14:
		return int64(n) * int64(time.Microsecond), nil
	case n >= 9e12: // beyond 2255, and beyond an int64 of nanoseconds
		return 0, errRange
	}
	return int64(n) * int64(time.Millisecond), nil
}

// side is one side of a quote: absent if its price and its size are zero, which
// is how the venue writes that nobody quotes. field is the one at fault.
func side(priceField string, price value, sizeField string, size value) (p, s codec.Decimal, field string, err error) {
	if p, err = price.decimal(); err != nil {
		return p, s, priceField, err
	}
	if s, err = size.size(); err != nil {
		return p, s, sizeField, err
	}
	switch {
	case s.Sign() < 0:
		return p, s, sizeField, errRange
	case p.Sign() < 0 || p.Sign() == 0 && s.Sign() != 0:
		return p, s, priceField, errRange
	case p.Sign() == 0:
		return codec.Decimal{}, codec.Decimal{}, "", nil
	}
	return p, s, "", nil
}
