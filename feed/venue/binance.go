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
// event type and no time.
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
	stream, data                       value
	e, s, id, p, q, at, m              value // a trade's
	u, bid, bidSize, ask, askSize      value // a bookTicker's
	result, hasID, lastUpdateID, error value
}

func (f *binanceFields) read(msg []byte) error {
	return fields(msg, func(key []byte, v value) {
		if len(key) == 1 {
			switch key[0] {
			case 'e':
				f.e = v
			case 's':
				f.s = v
			case 't':
				f.id = v
			case 'p':
				f.p = v
			case 'q':
				f.q = v
			case 'T':
				f.at = v
			case 'm':
				f.m = v
			case 'u':
				f.u = v
			case 'b':
				f.bid = v
			case 'B':
				f.bidSize = v
			case 'a':
				f.ask = v
			case 'A':
				f.askSize = v
			}
			return
		}
		switch string(key) {
		case "stream":
			f.stream = v
		case "data":
			f.data = v
		case "result":
			f.result = v
		case "id":
			f.hasID = v
		case "lastUpdateId":
			f.lastUpdateID = v
		case "error":
			f.error = v
		}
	})
}

// binance reads a message and, if it is one, the message in its envelope.
func (f *binanceFields) open(msg []byte) error {
	if err := f.read(msg); err != nil {
		return &MessageError{Venue: "binance", Err: err}
	}
	if f.stream.kind != '"' || f.data.kind != '{' {
		return nil
	}
	data := f.data.raw
	*f = binanceFields{}
	if err := f.read(data); err != nil {
		return &MessageError{Venue: "binance", Field: "data", Err: err}
	}
	return nil
}

func symbolBinance(msg []byte) ([]byte, bool) {
	var f binanceFields
	if f.open(msg) != nil {
		return nil, false
	}
	s, err := f.s.name()
	return s, err == nil
}

func normalizeBinance(dst []codec.Tick, msg []byte) ([]codec.Tick, string, error) {
	var f binanceFields
	if err := f.open(msg); err != nil {
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
		if t.Size, err = f.q.decimal(); err != nil {
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
		if t.Bid, t.BidSize, err = side(f.bid, f.bidSize); err != nil {
			return fault("bookTicker", "b", err)
		}
		if t.Ask, t.AskSize, err = side(f.ask, f.askSize); err != nil {
			return fault("bookTicker", "a", err)
		}
		return append(dst, t), "bookTicker", nil

	case f.lastUpdateID.kind == '0':
		return dst, "depth", nil
	case f.error.kind != 0:
		return dst, "error", nil
	case f.result.kind != 0 || f.hasID.kind != 0:
		return dst, "ack", nil
	}
	return fault("malformed", "", errUnknown)
}

// binanceNonTicks are the event types that tell no tick, and how they count.
// An aggTrade is the same trades as trade tells, so it must not count again.
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

// side is one side of a quote: absent if its price is zero, which is how
// venues write that nobody quotes.
func side(price, size value) (p, s codec.Decimal, err error) {
	if p, err = price.decimal(); err != nil {
		return p, s, err
	}
	if size.kind != 0 {
		if s, err = size.decimal(); err != nil {
			return p, s, err
		}
	}
	switch {
	case p.Sign() < 0 || s.Sign() < 0:
		return p, s, errRange
	case p.Sign() == 0:
		return codec.Decimal{}, codec.Decimal{}, nil
	}
	return p, s, nil
}
