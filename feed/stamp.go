package feed

import (
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
)

// futureMax is how far a trade's event time may be ahead of its raw timestamp
// and still open a day: a venue's broken clock must not end the day early.
const futureMax = int64(60 * time.Second)

// outcome is what became of a tick.
type outcome uint8

const (
	stamped outcome = iota
	repeated
)

// stamper turns ticks into records: it moves a symbol's state on by one tick.
// It knows no log; what it does to a state depends on nothing but its
// arguments, so that a feed which takes over goes on as the last one would.
type stamper struct {
	dayOf func(eventTime int64) int32
	late  func() // a trade or a correction of an earlier day was counted
	ahead func() // a trade's event time was too far in the future to open a day
}

// stamp moves st on by t, and fills in rec but for what names the symbol and
// the source. A repeat changes nothing.
func (sp *stamper) stamp(st *codec.State, t *codec.Tick, ingest int64, rec *record.Record) outcome {
	if t.Kind == codec.KindTrade && t.HasID && st.HasHighID && t.ID <= st.HighID {
		return repeated
	}
	st.Seq++
	rec.Kind, rec.IngestTime, rec.EventTime = t.Kind, ingest, t.EventTime
	rec.Trade, rec.Ref = codec.Trade{}, codec.Trade{}
	switch t.Kind {
	case codec.KindTrade:
		rec.Trade = sp.newTrade(st, t, ingest)
		sp.trade(st, &rec.Trade)
		if t.HasID {
			st.HighID, st.HasHighID = t.ID, true
		}
	case codec.KindCorrection:
		rec.Trade = sp.newTrade(st, t, ingest)
		rec.Ref = refOf(t)
		sp.correct(st, t, &rec.Trade)
	case codec.KindCancel:
		rec.Trade = sp.newTrade(st, t, ingest)
		rec.Ref = refOf(t)
		sp.takeBack(st, t)
	case codec.KindQuote:
		sp.quote(st, t, ingest)
	case codec.KindStatus:
		st.Status = t.Status
	}
	rec.State = *st
	return stamped
}

func (sp *stamper) newTrade(st *codec.State, t *codec.Tick, ingest int64) codec.Trade {
	st.TradeNo++
	return codec.Trade{No: st.TradeNo, Seq: st.Seq, Price: t.Price, Size: t.Size, Side: t.Side, Flags: t.Flags,
		ID: t.ID, HasID: t.HasID, EventTime: t.EventTime, IngestTime: ingest}
}

func refOf(t *codec.Tick) codec.Trade {
	return codec.Trade{Price: t.RefPrice, Size: t.RefSize, ID: t.RefID, HasID: t.RefID != 0, EventTime: t.RefEventTime}
}

// dayAt is the day of a trade, by event time or else by its raw timestamp.
func (sp *stamper) dayAt(eventTime, ingest int64) int32 {
	if eventTime == 0 {
		eventTime = ingest
	}
	return sp.dayOf(eventTime)
}

// trade counts a trade and lets it move what it may.
func (sp *stamper) trade(st *codec.State, tr *codec.Trade) {
	open := st.Day.Open.IsSet()
	day := sp.dayAt(tr.EventTime, tr.IngestTime)
	late := open && day < st.Day.Number
	if (!open || day > st.Day.Number) && tr.Flags&codec.TradeMovesRange != 0 {
		if tr.EventTime-tr.IngestTime > futureMax {
			sp.ahead()
		} else {
			st.Day = codec.Day{
				Number: day, Open: tr.Price, High: tr.Price, Low: tr.Price, PrevClose: st.Last.Price,
				BaseVolume: st.Volume, BaseNotional: st.Notional, BaseTrades: st.Trades,
			}
		}
	}
	if tr.Flags&codec.TradeCountsVolume != 0 {
		count(st, tr.Price, tr.Size, late)
	}
	if late {
		sp.late()
		return
	}
	if tr.Flags&codec.TradeMovesRange != 0 {
		moveRange(&st.Day, tr.Price)
	}
	if tr.Flags&codec.TradeMovesLast != 0 {
		st.Last = *tr
	}
}

// count adds a trade to the totals; a late one to those of the day's start too,
// so that the day's own stay as they are.
func count(st *codec.State, price, size codec.Decimal, late bool) {
	volume, notional := codec.TotalOf(size), codec.Mul(price, size)
	st.Volume, st.Notional, st.Trades = st.Volume.Add(volume), st.Notional.Add(notional), st.Trades+1
	if d := &st.Day; late {
		d.BaseVolume, d.BaseNotional, d.BaseTrades = d.BaseVolume.Add(volume), d.BaseNotional.Add(notional), d.BaseTrades+1
	}
}

// uncount is the inverse of count. A trade that was never told may be taken
// back, so the numbers of trades stop at 0.
func uncount(st *codec.State, price, size codec.Decimal, late bool) {
	volume, notional := codec.TotalOf(size), codec.Mul(price, size)
	st.Volume, st.Notional, st.Trades = st.Volume.Sub(volume), st.Notional.Sub(notional), max(st.Trades, 1)-1
	if d := &st.Day; late {
		d.BaseVolume, d.BaseNotional, d.BaseTrades = d.BaseVolume.Sub(volume), d.BaseNotional.Sub(notional), max(d.BaseTrades, 1)-1
	}
}

func moveRange(d *codec.Day, price codec.Decimal) {
	if !d.Open.IsSet() {
		return
	}
	if price.Cmp(d.High) > 0 {
		d.High = price
	}
	if price.Cmp(d.Low) < 0 {
		d.Low = price
	}
}

// takeBack uncounts the trade that a correction or a cancel means.
func (sp *stamper) takeBack(st *codec.State, t *codec.Tick) (late bool) {
	open := st.Day.Open.IsSet()
	late = open && t.RefEventTime != 0 && sp.dayOf(t.RefEventTime) < st.Day.Number
	if t.RefCountedInVolume {
		uncount(st, t.RefPrice, t.RefSize, late)
	}
	if late {
		sp.late()
	} else if open && (t.RefPrice.Cmp(st.Day.High) == 0 || t.RefPrice.Cmp(st.Day.Low) == 0) {
		st.Day.RangeUnsure = true
	}
	return late
}

// correct puts one trade in the place of another.
func (sp *stamper) correct(st *codec.State, t *codec.Tick, tr *codec.Trade) {
	late := sp.takeBack(st, t)
	if t.Flags&codec.TradeCountsVolume != 0 {
		count(st, t.Price, t.Size, late)
	}
	if late {
		return
	}
	if t.Flags&codec.TradeMovesRange != 0 {
		moveRange(&st.Day, t.Price)
	}
	if t.Flags&codec.TradeMovesLast != 0 && st.Last.HasID && t.RefID == st.Last.ID {
		st.Last.Price, st.Last.Size, st.Last.Side = tr.Price, tr.Size, tr.Side
	}
}

func (sp *stamper) quote(st *codec.State, t *codec.Tick, ingest int64) {
	st.QuoteNo++
	q := codec.Quote{No: st.QuoteNo, Seq: st.Seq, Bid: t.Bid, BidSize: t.BidSize, Ask: t.Ask, AskSize: t.AskSize,
		EventTime: t.EventTime, IngestTime: ingest}
	if t.Partial {
		old := &st.Quote
		if !t.Bid.IsSet() {
			q.Bid = old.Bid
		}
		if !t.BidSize.IsSet() {
			q.BidSize = old.BidSize
		}
		if !t.Ask.IsSet() {
			q.Ask = old.Ask
		}
		if !t.AskSize.IsSet() {
			q.AskSize = old.AskSize
		}
	}
	st.Quote = q
}
