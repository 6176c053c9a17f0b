package record

import (
	"encoding/binary"
	"math"

	"tickgate/codec"
)

// Version is the version that [Append] writes.
const Version = 1

// Lengths of the arrays of version 1.
const (
	recordLen = 9
	sourceLen = 6
	tradeLen  = 9
	quoteLen  = 8
	dayLen    = 9
	stateLen  = 12
)

// Append appends r's spelling to dst.
func Append(dst []byte, r *Record) []byte {
	dst = append(dst, 0x90|recordLen)
	dst = append(dst, Version)
	dst = appendUint(dst, uint64(r.Kind))
	dst = appendString(dst, r.Symbol)
	dst = appendString(dst, r.Venue)
	dst = appendInt(dst, r.IngestTime)
	dst = appendTime(dst, r.EventTime)
	dst = appendSource(dst, &r.Source)
	switch r.Kind {
	case codec.KindFence:
		dst = append(dst, 0x92)
		dst = appendString(dst, r.Claim.RawTopic)
		dst = appendString(dst, r.Claim.VenueSymbol)
		return append(dst, 0xc0)
	case codec.KindGap:
		dst = append(dst, 0x92)
		dst = appendInt(dst, r.Gap.From)
		dst = appendInt(dst, r.Gap.To)
	case codec.KindCorrection, codec.KindCancel:
		dst = append(dst, 0x92)
		dst = appendTrade(dst, &r.Trade)
		dst = appendTrade(dst, &r.Ref)
	case codec.KindTrade:
		if r.Trade == r.State.Last {
			dst = append(dst, 0xc0)
			break
		}
		dst = append(dst, 0x91)
		dst = appendTrade(dst, &r.Trade)
	default:
		dst = append(dst, 0xc0)
	}
	return appendState(dst, &r.State)
}

func appendSource(dst []byte, s *codec.Source) []byte {
	dst = append(dst, 0x90|sourceLen)
	dst = appendInt(dst, s.Epoch)
	dst = appendTopicID(dst, &s.RawTopicID)
	dst = appendInt(dst, int64(s.Partition))
	dst = appendInt(dst, s.Offset)
	dst = appendInt(dst, int64(s.Index))
	return appendInt(dst, int64(s.ProducerEra))
}

func appendTopicID(dst []byte, id *[16]byte) []byte {
	if *id == [16]byte{} {
		return append(dst, 0xc0)
	}
	dst = append(dst, 0xc4, 16)
	return append(dst, id[:]...)
}

func appendState(dst []byte, s *codec.State) []byte {
	dst = append(dst, 0x90|stateLen)
	dst = appendInt(dst, s.Epoch)
	dst = appendUint(dst, s.Seq)
	dst = appendUint(dst, s.TradeNo)
	dst = appendUint(dst, s.QuoteNo)
	dst = appendTotal(dst, s.Volume)
	dst = appendTotal(dst, s.Notional)
	dst = appendUint(dst, s.Trades)
	if s.Day == (codec.Day{}) {
		dst = append(dst, 0xc0)
	} else {
		dst = appendDay(dst, &s.Day)
	}
	if s.Last == (codec.Trade{}) {
		dst = append(dst, 0xc0)
	} else {
		dst = appendTrade(dst, &s.Last)
	}
	if s.Quote == (codec.Quote{}) {
		dst = append(dst, 0xc0)
	} else {
		dst = appendQuote(dst, &s.Quote)
	}
	dst = appendUint(dst, uint64(s.Status))
	if !s.HasHighID {
		return append(dst, 0xc0)
	}
	return appendUint(dst, s.HighID)
}

func appendTrade(dst []byte, t *codec.Trade) []byte {
	dst = append(dst, 0x90|tradeLen)
	dst = appendUint(dst, t.No)
	dst = appendUint(dst, t.Seq)
	dst = appendDecimal(dst, t.Price)
	dst = appendDecimal(dst, t.Size)
	dst = appendUint(dst, uint64(t.Side))
	dst = appendUint(dst, uint64(t.Flags))
	if t.HasID {
		dst = appendUint(dst, t.ID)
	} else {
		dst = append(dst, 0xc0)
	}
	dst = appendTime(dst, t.EventTime)
	return appendTime(dst, t.IngestTime)
}

func appendQuote(dst []byte, q *codec.Quote) []byte {
	dst = append(dst, 0x90|quoteLen)
	dst = appendUint(dst, q.No)
	dst = appendUint(dst, q.Seq)
	dst = appendDecimal(dst, q.Bid)
	dst = appendDecimal(dst, q.BidSize)
	dst = appendDecimal(dst, q.Ask)
	dst = appendDecimal(dst, q.AskSize)
	dst = appendTime(dst, q.EventTime)
	return appendTime(dst, q.IngestTime)
}

func appendDay(dst []byte, d *codec.Day) []byte {
	dst = append(dst, 0x90|dayLen)
	dst = appendInt(dst, int64(d.Number))
	if d.RangeUnsure {
		dst = append(dst, 0xc3)
	} else {
		dst = append(dst, 0xc2)
	}
	dst = appendDecimal(dst, d.Open)
	dst = appendDecimal(dst, d.High)
	dst = appendDecimal(dst, d.Low)
	dst = appendDecimal(dst, d.PrevClose)
	dst = appendTotal(dst, d.BaseVolume)
	dst = appendTotal(dst, d.BaseNotional)
	return appendUint(dst, d.BaseTrades)
}

func appendDecimal(dst []byte, d codec.Decimal) []byte {
	if !d.IsSet() {
		return append(dst, 0xc0)
	}
	dst = append(dst, 0x92)
	dst = appendInt(dst, d.Coef())
	return append(dst, byte(d.Scale()))
}

func appendTotal(dst []byte, t codec.Total) []byte {
	if t.Lost() {
		return append(dst, 0xc0)
	}
	dst = append(dst, 0x92)
	if coef, ok := t.Coef64(); ok {
		dst = appendInt(dst, coef)
	} else {
		var digits [codec.NumberRoom]byte
		d := t.AppendCoef(digits[:0])
		dst = append(dst, 0xd9, byte(len(d)))
		dst = append(dst, d...)
	}
	return append(dst, byte(t.Scale()))
}

// appendTime writes 0, which stands for no time, as nil.
func appendTime(dst []byte, ns int64) []byte {
	if ns == 0 {
		return append(dst, 0xc0)
	}
	return appendInt(dst, ns)
}

func appendString(dst []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		dst = append(dst, 0xa0|byte(n))
	case n < 256:
		dst = append(dst, 0xd9, byte(n))
	default:
		s = s[:min(n, math.MaxUint16)]
		dst = append(dst, 0xda)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	}
	return append(dst, s...)
}

func appendInt(dst []byte, v int64) []byte {
	if v >= 0 {
		return appendUint(dst, uint64(v))
	}
	switch {
	case v >= -32:
		return append(dst, byte(v))
	case v >= math.MinInt8:
		return append(dst, 0xd0, byte(v))
	case v >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, 0xd1), uint16(v))
	case v >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, 0xd2), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(v))
}

func appendUint(dst []byte, v uint64) []byte {
	switch {
	case v < 128:
		return append(dst, byte(v))
	case v <= math.MaxUint8:
		return append(dst, 0xcc, byte(v))
	case v <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, 0xcd), uint16(v))
	case v <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, 0xce), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xcf), v)
}
