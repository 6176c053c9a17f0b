package bench

import (
	"fmt"
	"strconv"
	"sync"

	"tickgate/codec"
	"tickgate/codec/native"
)

// The checks, as reports name them.
const (
	CheckOrder  = "order"  // (epoch, seq) never goes back
	CheckRepeat = "repeat" // no tick comes twice
	CheckGap    = "gap"    // a missing trade is told by a drop
	CheckTotal  = "total"  // totals are sums: they grow by what is traded, and never shrink
	CheckFinal  = "final"  // when the market has stopped, the newest state is held
	CheckLedger = "ledger" // the counts of both sides are equal, and add up
	CheckFrame  = "frame"  // frames can be read, are numbered, and name what was granted
	CheckOpen   = "open"   // who reads is not closed
)

// Violation is a promise that was broken, with both values.
type Violation struct {
	Check   string `json:"check"`
	Client  int    `json:"client"`
	Symbol  string `json:"symbol,omitempty"`
	Channel string `json:"channel,omitempty"`
	Got     string `json:"got"`
	Want    string `json:"want"`
}

func (v *Violation) String() string {
	where := "client " + strconv.Itoa(v.Client)
	if v.Symbol != "" {
		where += ", " + v.Channel + " of " + v.Symbol
	}
	return fmt.Sprintf("%s: %s: got %s; want %s", v.Check, where, v.Got, v.Want)
}

// violations gathers them from all loops: the first ones whole, the others as
// a count.
type violations struct {
	mu    sync.Mutex
	first []Violation
	count map[string]uint64
}

// violationsKept is as many as a person reads.
const violationsKept = 100

func (vs *violations) add(v Violation) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if vs.count == nil {
		vs.count = map[string]uint64{}
	}
	if vs.count[v.Check]++; len(vs.first) < violationsKept {
		vs.first = append(vs.first, v)
	}
}

func (vs *violations) total() (n uint64) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	for _, c := range vs.count {
		n += c
	}
	return n
}

// follower is what a client knows of one symbol, whatever comes: 128 bytes, two
// lines of the processor's cache. A hundred thousand of them are in no cache, and
// what is fetched for each tick is most of what checking it costs.
type follower struct {
	symbol   int32 // of the market; -1: not one of ours
	id       uint32
	known    bool // epoch and seq are
	numbered bool // no is
	totalled bool // volume and trades are
	behind   bool
	anew     bool // it has been asked for again: the next snapshot is where it goes on
	goesOn   bool // it has been granted, and nothing has come since
	lost     bool // told: trades since where it goes on are missing, the next one's no says how many
	epoch    int64
	seq      uint64
	no       uint64
	dropped  uint64 // told since the last tick
	trades   uint64
	volume   codec.Total
	notional codec.Total
	price    codec.Decimal
	wide     *wide // nil before a row has something of it
}

// wide is what views have that tell more than the last trade and the totals.
type wide struct {
	quote quoted
	day   ranged
}

// quoted and ranged are the parts of a state by those names, without what no
// client needs to hold in the end.
type (
	quoted struct{ bid, bidSize, ask, askSize codec.Decimal }
	ranged struct {
		number          int32
		open, high, low codec.Decimal
	}
)

func quotedOf(q *codec.Quote) quoted { return quoted{q.Bid, q.BidSize, q.Ask, q.AskSize} }
func rangedOf(d *codec.Day) ranged   { return ranged{d.Number, d.Open, d.High, d.Low} }

func (q quoted) String() string {
	return fmt.Sprintf("bid %v of %v, ask %v of %v", q.bid, q.bidSize, q.ask, q.askSize)
}

func (d ranged) String() string {
	return fmt.Sprintf("day %d from %v, %v to %v", d.number, d.open, d.low, d.high)
}

// judge is told of each breach as (check, got, want).
type judge func(check, got, want string)

func num[T int64 | uint64](n T) string { return fmt.Sprint(n) }

// snapshot begins to follow, or goes on.
func (f *follower) snapshot(u *native.Update, bad judge) {
	if f.known && !f.behind {
		switch {
		case u.Epoch < f.epoch:
			bad(CheckOrder, "a snapshot of epoch "+num(u.Epoch), "at least "+num(f.epoch))
		case u.Epoch == f.epoch && u.Seq < f.seq:
			bad(CheckOrder, "a snapshot of seq "+num(u.Seq), "at least "+num(f.seq))
		}
	}
	sameNumbering := f.known && f.epoch == u.Epoch
	f.known, f.epoch, f.seq, f.behind, f.goesOn, f.lost = true, u.Epoch, u.Seq, false, false, false
	f.no, f.numbered = u.No, u.Channel != codec.ChannelTicker
	f.totals(u, sameNumbering, bad)
}

// tick follows a row and returns how many ticks it stands for besides itself.
func (f *follower) tick(u *native.Update, bad judge) (merged uint64) {
	switch {
	case !f.known:
		bad(CheckFrame, "a tick of seq "+num(u.Seq), "its epoch first")
	case u.Seq < f.seq:
		bad(CheckOrder, "seq "+num(u.Seq), "above "+num(f.seq))
	case u.Seq == f.seq && u.Type == codec.EventTrade:
		bad(CheckRepeat, "seq "+num(u.Seq)+" again", "above "+num(f.seq))
	}
	summed := false
	switch u.Type {
	case codec.EventTrade:
		if f.lost && u.No > f.no {
			f.dropped = u.No - f.no - 1
		}
		if want := f.no + 1 + f.dropped; f.numbered && u.No != want && u.Seq > f.seq {
			bad(CheckGap, "trade "+num(u.No)+" after "+num(f.no)+" with "+num(f.dropped)+" drops told", "trade "+num(want))
		}
		if f.totalled && f.numbered && u.No == f.no+1 && u.View&(codec.ViewTotals|codec.ViewLast) == codec.ViewTotals|codec.ViewLast && u.Kind == codec.KindTrade {
			summed = true
			if want := f.volume.AddDecimal(u.Size); u.Volume != want {
				bad(CheckTotal, "volume "+u.Volume.String(), want.String()+" (the sizes' sum)")
			}
			if want := f.notional.Add(codec.Mul(u.Price, u.Size)); u.Notional != want && !u.Notional.Lost() {
				bad(CheckTotal, "notional "+u.Notional.String(), want.String()+" (the sum of price times size)")
			}
			if u.Trades != f.trades+1 {
				bad(CheckTotal, num(u.Trades)+" trades", num(f.trades+1))
			}
		}
	case codec.EventQuote:
		if f.numbered && u.No > f.no {
			merged = u.No - f.no - 1
		}
	default:
		if f.seq > 0 && u.Seq > f.seq {
			merged = u.Seq - f.seq - 1
		}
	}
	f.totals(u, f.known && !summed, bad) // a sum does not shrink
	f.known, f.seq, f.dropped = true, u.Seq, 0
	f.no, f.numbered = u.No, u.Type != codec.EventTicker
	f.goesOn, f.lost = false, false
	return merged
}

// totals takes a row's state, and checks that totals do not shrink if this is the
// numbering of before.
func (f *follower) totals(u *native.Update, same bool, bad judge) {
	if u.View&codec.ViewLast != 0 {
		f.price = u.Price
	}
	if u.View&(codec.ViewQuote|codec.ViewDay) != 0 && f.wide == nil {
		f.wide = &wide{}
	}
	if u.View&codec.ViewQuote != 0 {
		f.wide.quote = quoted{u.Bid, u.BidSize, u.Ask, u.AskSize}
	}
	if u.View&codec.ViewDay != 0 {
		f.wide.day = rangedOf(&u.Day)
	}
	if u.View&codec.ViewTotals == 0 {
		return
	}
	takesBack := u.Type == codec.EventTrade && u.Kind != codec.KindTrade
	if same && f.totalled && !takesBack { // no market here takes back what a ticker could have merged
		if u.Trades < f.trades {
			bad(CheckTotal, num(u.Trades)+" trades", "at least "+num(f.trades))
		}
		if !u.Volume.Lost() && u.Volume.Cmp(f.volume) < 0 {
			bad(CheckTotal, "volume "+u.Volume.String(), "at least "+f.volume.String())
		}
		if !u.Notional.Lost() && u.Notional.Cmp(f.notional) < 0 {
			bad(CheckTotal, "notional "+u.Notional.String(), "at least "+f.notional.String())
		}
	}
	f.totalled, f.trades, f.volume, f.notional = true, u.Trades, u.Volume, u.Notional
}

// reset begins a numbering anew.
func (f *follower) reset(epoch int64, bad judge) {
	if f.known && epoch <= f.epoch {
		bad(CheckOrder, "a reset to epoch "+num(epoch), "above "+num(f.epoch))
	}
	*f = follower{symbol: f.symbol, id: f.id, known: true, epoch: epoch}
}

// beyond is wide, or what it was before anything came.
func (f *follower) beyond() wide {
	if f.wide == nil {
		return wide{}
	}
	return *f.wide
}

// holds tells whether f is what the market made, as far as the channel and the
// view tell; got and want if not.
func (f *follower) holds(c codec.Channel, v codec.View, s *codec.State) (got, want string, ok bool) {
	switch c {
	case codec.ChannelTrades:
		if s.TradeNo > 0 && f.no != s.TradeNo {
			return "trade " + num(f.no), "trade " + num(s.TradeNo), false
		}
	case codec.ChannelQuotes:
		if f.no != s.QuoteNo {
			return "quote " + num(f.no), "quote " + num(s.QuoteNo), false
		}
		if got, want := f.beyond().quote, quotedOf(&s.Quote); v&codec.ViewQuote != 0 && s.QuoteNo > 0 && got != want {
			return got.String(), want.String(), false
		}
		return "", "", true
	default:
		if f.seq != s.Seq {
			return "seq " + num(f.seq), "seq " + num(s.Seq), false
		}
		if got, want := f.beyond().quote, quotedOf(&s.Quote); v&codec.ViewQuote != 0 && got != want {
			return got.String(), want.String(), false
		}
		// Ours is the day that it was when the run began.
		if got, want := f.beyond().day, rangedOf(&s.Day); v&codec.ViewDay != 0 && got.number == want.number && got != want {
			return got.String(), want.String(), false
		}
	}
	if v&codec.ViewLast != 0 && f.price != s.Last.Price { // the venue's digits, not their value alone
		return "price " + f.price.String(), s.Last.Price.String(), false
	}
	if v&codec.ViewTotals != 0 {
		if f.trades != s.Trades {
			return num(f.trades) + " trades", num(s.Trades), false
		}
		if f.volume != s.Volume {
			return "volume " + f.volume.String(), s.Volume.String(), false
		}
		if f.notional != s.Notional {
			return "notional " + f.notional.String(), s.Notional.String(), false
		}
	}
	return "", "", true
}
