// Package market is a market that plays for ever: deterministic from a seed,
// and told in the messages of a real venue, so that everything behind the raw
// topic does real work.
//
// It knows prices and messages; where they go is a [Sink]. Prices are integers
// of a symbol's tick size; floats only say when a symbol ticks. A [Market] is
// used by one goroutine.
package market

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"tickgate/feed"
)

// Sink takes raw messages, and is done with their bytes when Write returns.
// broker.Writer fulfils it.
type Sink interface {
	Write(ctx context.Context, entries []feed.Entry) error
}

// Bounds of a market.
const (
	symbolsMax = 10_000
	rateMax    = 1_000_000

	writePeriod = 5 * time.Millisecond
	writeMax    = 10_000          // messages a write
	backlogMax  = 2 * time.Second // beyond it the market stands still: its sink is too slow
	faultPeriod = time.Minute     // between two tellings of what is wrong
)

// What the market is like.
const (
	// activityExponent is the power by which activity falls with rank: the
	// second symbol has half of the first one's ticks to the power 0.9, which
	// is what a day of Binance spot looks like.
	activityExponent = 0.9

	// quotesPerTrade is how many quotes come for each trade, about.
	quotesPerTrade = 3

	// Bursts: now and then a symbol ticks burstFactor times as fast for a while.
	burstFactor = 8
	burstEvery  = 20 * time.Second
	burstLength = 1500 * time.Millisecond
	// calmShare is how much slower it ticks otherwise, so that the mean is right.
	calmShare = 1 + (burstFactor-1)*float64(burstLength)/float64(burstEvery+burstLength)

	driftBack = 2000   // ticks away from home at which each step is back towards it
	spreadMax = 4      // ticks between bid and ask
	quoteMax  = 20_000 // the largest size quoted, in units of the quote currency
	tradeMean = 400    // the mean size traded, likewise

	// idsPerMicro is more trades than a symbol can have, in a burst at the
	// highest rate: ids are counted from the start in so many a microsecond, so
	// that a market which starts later never repeats one. They stay below 2^53.
	idsPerMicro = 2
)

// Options configure a [Market]. A zero field means its default.
type Options struct {
	// Seed decides everything but the times.
	Seed uint64
	// Symbols is how many there are. Defaults to 50; at most 10000.
	Symbols int
	// Rate is ticks a second, of all symbols together. Defaults to 500; at
	// most 1000000.
	Rate int
	// Start is the time at which the market begins. Trade ids are counted from
	// it, so that one which begins later never repeats an id.
	Start time.Time
	// KafkaTopic is where Run writes. Defaults to raw.binance.
	KafkaTopic string
}

func (o Options) withDefaults() Options {
	o.Symbols = cmp.Or(o.Symbols, 50)
	o.Rate = cmp.Or(o.Rate, 500)
	o.KafkaTopic = cmp.Or(o.KafkaTopic, "raw.binance")
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	return o
}

func (o Options) validate() error {
	var faults []error
	if o.Symbols < 1 || o.Symbols > symbolsMax {
		faults = append(faults, fmt.Errorf("Symbols %d: want 1 to %d", o.Symbols, symbolsMax))
	}
	if o.Rate < 1 || o.Rate > rateMax {
		faults = append(faults, fmt.Errorf("Rate %d: want 1 to %d", o.Rate, rateMax))
	}
	return errors.Join(faults...)
}

// Market makes messages one after another.
type Market struct {
	opts    Options
	start   time.Time // what due times count from; later than Options.Start once it runs
	rng     *rand.Rand
	symbols []symbol
	queue   queue
	msg     []byte
}

// symbol is one instrument. Prices and sizes are in units of 10^-8.
type symbol struct {
	instrument
	key    []byte // its name
	stream string

	// When it ticks, in ns since Start.
	gap        float64 // the mean when it is calm
	bursts     bool    // it ticks often enough for a burst to be one
	due        int64
	burstUntil int64
	nextBurst  int64

	// What it says.
	bid      int64
	spread   int64 // in ticks
	bidSize  int64
	askSize  int64
	tradeID  uint64
	updateID uint64
}

// New makes a market.
func New(opts Options) (*Market, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("market: %w", err)
	}
	m := &Market{opts: opts, start: opts.Start, rng: rand.New(rand.NewPCG(opts.Seed, 0x7469636b67617465))}
	weights, sum := make([]float64, opts.Symbols), 0.0
	for i := range weights {
		weights[i] = math.Pow(float64(i+1), -activityExponent)
		sum += weights[i]
	}
	ids := uint64(opts.Start.UnixMicro()) * idsPerMicro
	m.symbols = make([]symbol, opts.Symbols)
	for i := range m.symbols {
		it := instrumentAt(i)
		s := &m.symbols[i]
		*s = symbol{instrument: it, key: []byte(it.name), stream: strings.ToLower(it.name), bid: it.home,
			gap: 1e9 * sum / (weights[i] * float64(opts.Rate)), nextBurst: math.MaxInt64, tradeID: ids, updateID: ids}
		if s.gap <= float64(burstLength) {
			s.bursts = true
			s.gap *= calmShare
			s.nextBurst = int64(m.rng.ExpFloat64() * float64(burstEvery))
		}
		m.requote(s)
		m.plan(s)
	}
	m.queue = queue{m.symbols, make([]int, opts.Symbols)}
	for i := range m.queue.order {
		m.queue.order[i] = i
	}
	heap.Init(&m.queue)
	return m, nil
}

// requote draws new sizes and a spread.
func (m *Market) requote(s *symbol) {
	s.spread = 1 + m.rng.Int64N(spreadMax)
	s.bidSize = s.lot * (1 + m.rng.Int64N(quoteMax*s.lots))
	s.askSize = s.lot * (1 + m.rng.Int64N(quoteMax*s.lots))
}

// Next makes the next message: how long after the start it is due, whose it is,
// and its bytes, which are valid until the next call.
func (m *Market) Next() (due time.Duration, venueSymbol string, msg []byte) {
	s, due := m.next()
	return due, s.name, m.msg
}

func (m *Market) next() (s *symbol, due time.Duration) {
	s = &m.symbols[m.queue.order[0]]
	due = time.Duration(s.due)
	if m.rng.IntN(quotesPerTrade+1) == 0 {
		m.trade(s)
	} else {
		m.quote(s)
	}
	m.plan(s)
	heap.Fix(&m.queue, 0)
	return s, due
}

// plan draws when a symbol ticks next. Its gaps have no memory, so that where
// the pace changes before the next tick it is drawn anew from there.
func (m *Market) plan(s *symbol) {
	for at := s.due; ; {
		gap, until := s.gap, s.nextBurst
		if at < s.burstUntil {
			gap, until = s.gap/burstFactor, s.burstUntil
		}
		next := at + 1 + int64(m.rng.ExpFloat64()*gap)
		if next < until {
			s.due = next
			return
		}
		if at = until; at == s.nextBurst {
			s.burstUntil = at + int64(burstLength)
			s.nextBurst = s.burstUntil + 1 + int64(m.rng.ExpFloat64()*float64(burstEvery))
		}
	}
}

// quote moves the price by at most one tick: the farther it has strayed, the
// likelier back home, so that it neither runs away nor comes near zero.
func (m *Market) quote(s *symbol) {
	step := m.rng.Int64N(3) - 1
	if away := (s.bid - s.home) / s.tick; m.rng.Int64N(driftBack) < max(away, -away) {
		step = -1
		if away < 0 {
			step = 1
		}
	}
	s.bid = max(s.tick, s.bid+step*s.tick)
	m.requote(s)
	s.updateID += 1 + m.rng.Uint64N(20)
	b := append(m.msg[:0], `{"stream":"`...)
	b = append(b, s.stream...)
	b = append(b, `@bookTicker","data":{"u":`...)
	b = strconv.AppendUint(b, s.updateID, 10)
	b = append(b, `,"s":"`...)
	b = append(b, s.name...)
	b = appendUnits(append(b, `","b":"`...), s.bid)
	b = appendUnits(append(b, `","B":"`...), s.bidSize)
	b = appendUnits(append(b, `","a":"`...), s.bid+s.spread*s.tick)
	b = appendUnits(append(b, `","A":"`...), s.askSize)
	m.msg = append(b, `"}}`...)
}

// trade takes from the bid or from the ask.
func (m *Market) trade(s *symbol) {
	price := s.bid
	sold := m.rng.IntN(2) == 0
	if !sold {
		price += s.spread * s.tick
	}
	size := s.lot * (1 + int64(m.rng.ExpFloat64()*float64(tradeMean*s.lots)))
	s.tradeID++
	ms := m.start.Add(time.Duration(s.due)).UnixMilli()
	b := append(m.msg[:0], `{"stream":"`...)
	b = append(b, s.stream...)
	b = append(b, `@trade","data":{"e":"trade","E":`...)
	b = strconv.AppendInt(b, ms+1, 10)
	b = append(b, `,"s":"`...)
	b = append(b, s.name...)
	b = append(b, `","t":`...)
	b = strconv.AppendUint(b, s.tradeID, 10)
	b = appendUnits(append(b, `,"p":"`...), price)
	b = appendUnits(append(b, `","q":"`...), size)
	b = append(b, `","T":`...)
	b = strconv.AppendInt(b, ms, 10)
	b = append(b, `,"m":`...)
	b = strconv.AppendBool(b, sold)
	m.msg = append(b, `,"M":true}}`...)
}

// appendUnits prints 10^-8 units as Binance does, with all eight decimals.
func appendUnits(b []byte, v int64) []byte {
	const one = 100_000_000
	b = strconv.AppendInt(b, v/one, 10)
	b = append(b, '.')
	frac := v % one
	for div := int64(one / 10); div > 1 && frac < div; div /= 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, frac, 10)
}

// Run plays until ctx is done: it writes each message when it is due, with event
// times of now. A sink that takes too little makes the market stand still rather
// than pile up; what a write that failed had in it is lost. Both are told to
// fault, at once and then no more than each minute.
func (m *Market) Run(ctx context.Context, sink Sink, fault func(error)) error {
	tick := time.NewTicker(writePeriod)
	defer tick.Stop()
	began := time.Now()
	m.start = began
	s, due := m.next()
	var entries []feed.Entry
	var arena []byte
	var toldAt time.Time
	tell := func(err error) {
		if now := time.Now(); toldAt.IsZero() || now.Sub(toldAt) >= faultPeriod {
			toldAt = now
			fault(err)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if late := time.Since(began) - due; late > backlogMax {
			tell(fmt.Errorf("the market stood still for %v: its messages are not taken as fast as they are made", late.Round(time.Millisecond)))
			began, m.start = began.Add(late), m.start.Add(late)
		}
		now := time.Now()
		entries, arena = entries[:0], arena[:0]
		for due <= now.Sub(began) && len(entries) < writeMax {
			from := len(arena)
			arena = append(arena, m.msg...)
			entries = append(entries, feed.Entry{KafkaTopic: m.opts.KafkaTopic, Key: s.key, Value: arena[from:len(arena):len(arena)], Time: now.UnixNano()})
			s, due = m.next()
		}
		if len(entries) == 0 {
			continue
		}
		if err := sink.Write(ctx, entries); err != nil && ctx.Err() == nil {
			tell(fmt.Errorf("%d messages are lost: %w", len(entries), err))
		}
	}
}

// queue orders symbols by when they tick next.
type queue struct {
	symbols []symbol
	order   []int
}

func (q *queue) Len() int { return len(q.order) }
func (q *queue) Less(i, j int) bool {
	a, b := &q.symbols[q.order[i]], &q.symbols[q.order[j]]
	return a.due < b.due || a.due == b.due && q.order[i] < q.order[j]
}
func (q *queue) Swap(i, j int) { q.order[i], q.order[j] = q.order[j], q.order[i] }
func (q *queue) Push(any)      { panic("market: symbols are fixed") }
func (q *queue) Pop() any      { panic("market: symbols are fixed") }
