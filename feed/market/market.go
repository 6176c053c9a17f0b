// Package market is a market that plays for ever: deterministic from a seed,
// and told in the messages of a real venue, so that everything behind the raw
// topic does real work.
//
// It knows prices and messages; where they go is a [Sink]. Prices are integers
// of a symbol's tick size, never floats. A [Market] is used by one goroutine.
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
	"time"

	"tickgate/feed"
)

// Sink takes raw messages. broker.Writer fulfils it.
type Sink interface {
	Write(ctx context.Context, entries []feed.Entry) error
}

// Bounds of a market.
const (
	symbolsMax = 10_000
	rateMax    = 1_000_000

	// activityExponent is the power by which activity falls with rank: the
	// second symbol has half of the first one's ticks to the power 0.9, which
	// is what a day of Binance spot looks like.
	activityExponent = 0.9

	// quotesPerTrade is how many quotes come for each trade, about.
	quotesPerTrade = 3

	// Bursts: now and then a symbol ticks burstFactor times as fast for a while.
	burstFactor  = 8
	burstEvery   = 20 * time.Second
	burstLength  = 1500 * time.Millisecond
	writePeriod  = 5 * time.Millisecond
	backlogMax   = 2 * time.Second // beyond it the market skips ahead: Kafka is too slow
	writeMax     = 10_000          // messages a write
	driftBack    = 2000            // ticks of distance at which a price is pulled back
	spreadMax    = 4               // ticks between bid and ask
	decimalsKept = 8               // as Binance prints
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
	rng     *rand.Rand
	symbols []symbol
	queue   queue
	msg     []byte
}

// symbol is one instrument. Prices and sizes are in units of 10^-8.
type symbol struct {
	name, stream string
	tick, lot    int64
	home, price  int64 // price is the bid's
	spread       int64 // in ticks
	bidSize      int64
	askSize      int64
	gap          float64 // mean nanoseconds between ticks
	due          int64   // ns since Start
	burstUntil   int64
	nextBurst    int64
	tradeID      uint64
	updateID     uint64
}

// New makes a market.
func New(opts Options) (*Market, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("market: %w", err)
	}
	m := &Market{opts: opts, rng: rand.New(rand.NewPCG(opts.Seed, 0x7469636b67617465))}
	weights, sum := make([]float64, opts.Symbols), 0.0
	for i := range weights {
		weights[i] = math.Pow(float64(i+1), -activityExponent)
		sum += weights[i]
	}
	m.symbols = make([]symbol, opts.Symbols)
	for i := range m.symbols {
		s := &m.symbols[i]
		name, home, tick, lot := instrument(i, m.rng)
		*s = symbol{
			name: name, stream: lower(name), tick: tick, lot: lot, home: home - home%tick,
			// Bursts add to the mean, so the calm rate is a little lower.
			gap:       1e9 * sum / (weights[i] * float64(opts.Rate)) * calmShare,
			nextBurst: int64(m.rng.ExpFloat64() * float64(burstEvery)),
			tradeID:   uint64(opts.Start.UnixMilli()) * 1000,
			updateID:  uint64(opts.Start.UnixMilli()) * 1000,
		}
		s.price = s.home
		m.requote(s)
		s.due = int64(m.rng.ExpFloat64() * s.gap)
	}
	m.queue = queue{m.symbols, make([]int, opts.Symbols)}
	for i := range m.queue.order {
		m.queue.order[i] = i
	}
	heap.Init(&m.queue)
	return m, nil
}

// calmShare makes up for bursts: within one of burstLength in burstEvery a
// symbol ticks burstFactor times as fast.
var calmShare = 1 + (burstFactor-1)*float64(burstLength)/float64(burstEvery+burstLength)

// majors are the symbols that a page should show first: name, price, tick size.
var majors = []struct{ name, price, tick string }{
	{"BTCUSDT", "61837.63", "0.01"}, {"ETHUSDT", "2683.81", "0.01"}, {"SOLUSDT", "154.27", "0.01"},
	{"XRPUSDT", "0.6173", "0.0001"}, {"BNBUSDT", "524.6", "0.1"}, {"DOGEUSDT", "0.10562", "0.00001"},
	{"ADAUSDT", "0.3482", "0.0001"}, {"AVAXUSDT", "22.41", "0.01"}, {"LINKUSDT", "10.53", "0.01"},
	{"DOTUSDT", "4.713", "0.001"}, {"LTCUSDT", "62.14", "0.01"}, {"TRXUSDT", "0.12651", "0.00001"},
	{"SHIBUSDT", "0.00001412", "0.00000001"}, {"BCHUSDT", "352.7", "0.1"}, {"UNIUSDT", "6.214", "0.001"},
	{"ATOMUSDT", "4.871", "0.001"}, {"ETHBTC", "0.04341", "0.00001"}, {"NEARUSDT", "4.213", "0.001"},
	{"XLMUSDT", "0.1021", "0.0001"}, {"FILUSDT", "3.782", "0.001"},
}

// instrument is the i-th symbol: name, price, tick size and lot in 10^-8.
func instrument(i int, rng *rand.Rand) (name string, price, tick, lot int64) {
	if i < len(majors) {
		m := majors[i]
		return m.name, units(m.price), units(m.tick), units("0.0001")
	}
	// The rest: three letters that no major has, and a price between 0.01 and 1000.
	n := i - len(majors)
	name = "T" + string([]byte{'A' + byte(n/26/26%26), 'A' + byte(n/26%26), 'A' + byte(n%26)}) + "USDT"
	price = 1_000_000
	for range rng.IntN(6) {
		price *= 10
	}
	price += rng.Int64N(price * 9)
	for tick = 1; tick*50_000 < price; {
		tick *= 10
	}
	return name, price, tick, units("0.01")
}

// units turns a plain decimal into 10^-8.
func units(s string) int64 {
	var v int64
	decimals := -1
	for _, c := range s {
		if c == '.' {
			decimals = 0
			continue
		}
		v = v*10 + int64(c-'0')
		if decimals >= 0 {
			decimals++
		}
	}
	for range decimalsKept - max(0, decimals) {
		v *= 10
	}
	return v
}

func lower(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] >= 'A' && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}

// requote draws new sizes and a spread.
func (m *Market) requote(s *symbol) {
	s.spread = 1 + m.rng.Int64N(spreadMax)
	s.bidSize = s.lot * (1 + m.rng.Int64N(100_000))
	s.askSize = s.lot * (1 + m.rng.Int64N(100_000))
}

// Next makes the next message: when it is due, whose it is, and its bytes,
// which are valid until the next call.
func (m *Market) Next() (due time.Duration, venueSymbol string, msg []byte) {
	s := &m.symbols[m.queue.order[0]]
	at := s.due
	if m.rng.IntN(quotesPerTrade+1) == 0 {
		m.trade(s, at)
	} else {
		m.quote(s)
	}
	m.plan(s)
	heap.Fix(&m.queue, 0)
	return time.Duration(at), s.name, m.msg
}

// plan draws when a symbol ticks next.
func (m *Market) plan(s *symbol) {
	gap := s.gap
	if s.due >= s.nextBurst {
		s.burstUntil = s.nextBurst + int64(burstLength)
		s.nextBurst = s.burstUntil + int64(m.rng.ExpFloat64()*float64(burstEvery))
	}
	if s.due < s.burstUntil {
		gap /= burstFactor
	}
	s.due += 1 + int64(m.rng.ExpFloat64()*gap)
}

// quote moves the price by at most one tick, back home if it has strayed.
func (m *Market) quote(s *symbol) {
	step := m.rng.Int64N(3) - 1
	if away := (s.price - s.home) / s.tick; m.rng.Int64N(driftBack) < max(away, -away) {
		step = -1
		if away < 0 {
			step = 1
		}
	}
	s.price = max(s.tick, s.price+step*s.tick)
	m.requote(s)
	s.updateID += 1 + m.rng.Uint64N(20)
	b := append(m.msg[:0], `{"stream":"`...)
	b = append(b, s.stream...)
	b = append(b, `@bookTicker","data":{"u":`...)
	b = strconv.AppendUint(b, s.updateID, 10)
	b = append(b, `,"s":"`...)
	b = append(b, s.name...)
	b = appendUnits(append(b, `","b":"`...), s.price)
	b = appendUnits(append(b, `","B":"`...), s.bidSize)
	b = appendUnits(append(b, `","a":"`...), s.price+s.spread*s.tick)
	b = appendUnits(append(b, `","A":"`...), s.askSize)
	m.msg = append(b, `"}}`...)
}

// trade takes from the bid or from the ask.
func (m *Market) trade(s *symbol, at int64) {
	price := s.price
	sold := m.rng.IntN(2) == 0
	if !sold {
		price += s.spread * s.tick
	}
	size := s.lot * (1 + int64(m.rng.ExpFloat64()*500))
	s.tradeID++
	ms := m.opts.Start.Add(time.Duration(at)).UnixMilli()
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

// Run plays until ctx is done: it writes each message when it is due. If Kafka
// takes them too slowly it skips what is more than 2 s late. An error of the
// sink is final only when ctx is done; until then it is told and tried again.
func (m *Market) Run(ctx context.Context, sink Sink, fault func(error)) error {
	began := time.Now()
	due, name, msg := m.Next()
	var entries []feed.Entry
	var arena []byte
	keys := map[string][]byte{}
	for tick := time.NewTicker(writePeriod); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
		now := time.Since(began)
		entries, arena = entries[:0], arena[:0]
		for due <= now && len(entries) < writeMax {
			if now-due <= backlogMax {
				key := keys[name]
				if key == nil {
					key = []byte(name)
					keys[name] = key
				}
				from := len(arena)
				arena = append(arena, msg...)
				entries = append(entries, feed.Entry{KafkaTopic: m.opts.KafkaTopic, Key: key, Value: arena[from:len(arena):len(arena)],
					Time: time.Now().UnixNano()})
			}
			due, name, msg = m.Next()
		}
		if len(entries) == 0 {
			continue
		}
		if err := sink.Write(ctx, entries); err != nil && ctx.Err() == nil {
			fault(err)
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
