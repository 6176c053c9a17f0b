package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tickgate/codec"
	"tickgate/codec/record"
)

// Tick is one made tick.
type Tick struct {
	Symbol string
	Kind   codec.Kind   // trade or quote
	Due    int64        // Unix ns: when it was to happen
	State  *codec.State // after it; Last or Quote is the tick itself
}

// Sink takes ticks.
type Sink interface {
	// Add takes one; its State is the source's and changes after Add.
	Add(t *Tick)
	// Flush has what was added on its way. It may wait.
	Flush(ctx context.Context) error
}

// source makes ticks when they are due, and knows what every client must hold
// in the end.
type source struct {
	market  Market
	sink    Sink
	rng     *rand.Rand
	symbols []string
	states  []codec.State // owned by run; read when it has returned
	pick    alias

	closed  atomic.Bool   // the market makes no more
	rate    atomic.Uint64 // math.Float64bits of ticks a second
	made    atomic.Uint64
	blocked atomic.Int64 // ns that the sink waited

	mu       sync.Mutex
	lag      *hdrhistogram.Histogram // us from due to made, the sink's waiting apart
	clamped  uint64                  // that lag was too short for
	began    time.Time               // zero: run has not
	due      time.Duration           // of the next tick, since then
	waited   time.Duration           // for the sink since nothing was late: so much of a lateness is its
	flushing time.Time               // since when the sink has been waited for; zero if it is not
}

// newSource makes symbols whose names are of this run alone, so that a feed
// that has seen others does not go on with their totals.
func newSource(m Market, sink Sink, seed uint64, epoch time.Time) *source {
	s := &source{
		market: m, sink: sink, rng: rand.New(rand.NewPCG(seed, 1)),
		lag: newHistogram(),
	}
	weights := make([]float64, m.Symbols)
	tag := uint32(epoch.UnixMilli()/100) & 0xfffffff
	for i := range m.Symbols {
		s.symbols = append(s.symbols, fmt.Sprintf("B%07X-%05d", tag, i))
		weights[i] = math.Pow(float64(i+1), -m.Exponent)
		s.states = append(s.states, codec.State{Epoch: epoch.UnixMilli()})
		price, _ := codec.NewDecimal(int64(1_000_00+100*i), 2)
		s.states[i].Last.Price = price
	}
	s.pick = newAlias(weights)
	s.setRate(float64(m.Rate))
	return s
}

func (s *source) setRate(perSecond float64) { s.rate.Store(math.Float64bits(perSecond)) }

// takeLag is the lag since the last call, and how many ticks were later than it
// can hold.
func (s *source) takeLag() (lag *hdrhistogram.Histogram, clamped uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lag, clamped = s.lag, s.clamped
	// What is due and not made yet is late too: one that is held up all the time
	// makes nothing that could be late.
	if !s.began.IsZero() {
		now := time.Now()
		late := now.Sub(s.began) - s.due - s.waited
		if !s.flushing.IsZero() {
			late -= now.Sub(s.flushing)
		}
		if n := int64(late.Seconds() * math.Float64frombits(s.rate.Load())); n > 0 {
			if recordN(lag, int64(late), n) {
				clamped += uint64(n)
			}
		}
	}
	s.lag, s.clamped = newHistogram(), 0
	return lag, clamped
}

// seed makes one tick of every symbol, so that there is something to snapshot:
// a quote first if there are quotes, then a trade.
func (s *source) seed(ctx context.Context) error {
	now := time.Now().UnixNano()
	for i := range s.symbols {
		if s.market.Quotes > 0 {
			s.make(i, codec.KindQuote, now)
		}
		s.make(i, codec.KindTrade, now)
		if i%1000 == 999 {
			if err := s.sink.Flush(ctx); err != nil {
				return err
			}
		}
	}
	return s.sink.Flush(ctx)
}

const (
	// sourceNap is the least time that the source sleeps, and so the most by
	// which its sleeping makes a tick late. At 100 us, 5,000 ticks/s were nearly
	// as many writes, each of which woke the gateway: a tenth of what it did.
	sourceNap = 500 * time.Microsecond
	// sourceNapMax is how soon it looks whether it shall end.
	sourceNapMax = 20 * time.Millisecond
	// sourceBatch bounds what is made between two looks at the clock.
	sourceBatch = 2000
)

// stop closes the market: run ends when the sink has taken what was made.
func (s *source) stop() { s.closed.Store(true) }

// run makes ticks until the market is closed. Once ctx is done it drops what the
// sink has not taken, and no state tells any more what clients must hold.
func (s *source) run(ctx context.Context) error {
	runtime.LockOSThread() // it sleeps in the kernel: Go's own timers are good to a millisecond
	defer runtime.UnlockOSThread()
	began := time.Now()
	wall := began.UnixNano()
	s.mu.Lock()
	s.began, s.due = began, 0
	s.mu.Unlock()
	due := time.Duration(0) // s.due, of which this is the only writer
	for ctx.Err() == nil && !s.closed.Load() {
		now := time.Since(began)
		n := 0
		s.mu.Lock()
		for due <= now && n < sourceBatch {
			rate := math.Float64frombits(s.rate.Load())
			if rate <= 0 {
				due = now + time.Millisecond
				break
			}
			kind := codec.KindTrade
			if s.market.Quotes > 0 && s.rng.Float64() < s.market.Quotes {
				kind = codec.KindQuote
			}
			s.make(s.pick.draw(s.rng), kind, wall+int64(due))
			if record1(s.lag, int64(now-due-s.waited)) {
				s.clamped++
			}
			due += time.Duration(1e9 / rate)
			n++
		}
		if s.due = due; due > now {
			s.waited = 0
		}
		if n > 0 {
			s.flushing = time.Now()
		}
		s.mu.Unlock()
		if n > 0 {
			at := time.Since(began)
			if err := s.sink.Flush(ctx); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			end := time.Since(began)
			s.mu.Lock()
			s.flushing = time.Time{}
			if end-at > time.Millisecond {
				s.waited += end - at
				s.blocked.Add(int64(end - at))
			}
			s.mu.Unlock()
		}
		if wait := due - time.Since(began); wait > 0 {
			nap(min(max(wait, sourceNap), sourceNapMax))
		}
	}
	return nil
}

// make makes one tick.
func (s *source) make(i int, kind codec.Kind, due int64) {
	st := &s.states[i]
	st.Seq++
	switch kind {
	case codec.KindQuote:
		st.QuoteNo++
		base := st.Last.Price.Coef()
		q := codec.Quote{No: st.QuoteNo, Seq: st.Seq, EventTime: due, IngestTime: due}
		q.Bid, _ = codec.NewDecimal(base-1-s.rng.Int64N(3), 2)
		q.Ask, _ = codec.NewDecimal(base+1+s.rng.Int64N(3), 2)
		q.BidSize, _ = codec.NewDecimal(1+s.rng.Int64N(1_000_000), 4)
		q.AskSize, _ = codec.NewDecimal(1+s.rng.Int64N(1_000_000), 4)
		st.Quote = q
	default:
		st.TradeNo++
		t := codec.Trade{No: st.TradeNo, Seq: st.Seq, Flags: codec.TradeOrdinary, Side: codec.SideBuy + codec.Side(s.rng.IntN(2)),
			ID: st.TradeNo, HasID: true, EventTime: due, IngestTime: due}
		t.Price, _ = codec.NewDecimal(max(100, st.Last.Price.Coef()+s.rng.Int64N(11)-5), 2)
		t.Size, _ = codec.NewDecimal(1+s.rng.Int64N(50_000), 4)
		st.Volume = st.Volume.AddDecimal(t.Size)
		st.Notional = st.Notional.Add(codec.Mul(t.Price, t.Size))
		st.Trades++
		st.HighID, st.HasHighID = st.TradeNo, true
		day := &st.Day
		if !day.Open.IsSet() {
			day.Number, day.Open, day.High, day.Low = int32(due/int64(24*time.Hour)), t.Price, t.Price, t.Price
		}
		if t.Price.Cmp(day.High) > 0 {
			day.High = t.Price
		}
		if t.Price.Cmp(day.Low) < 0 {
			day.Low = t.Price
		}
		st.Last = t
	}
	s.made.Add(1)
	s.sink.Add(&Tick{Symbol: s.symbols[i], Kind: kind, Due: due, State: st})
}

// InletSink writes records to a gateway's inlet.
type InletSink struct {
	conn net.Conn
	buf  []byte
	rec  record.Record
	n    int64
}

// NewInletSink connects to the inlet at path.
func NewInletSink(path string) (*InletSink, error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("the inlet: %w", err)
	}
	return &InletSink{conn: c}, nil
}

// Add takes one tick.
func (k *InletSink) Add(t *Tick) {
	k.n++
	r := &k.rec
	r.Kind, r.Symbol, r.Venue, r.IngestTime, r.EventTime = t.Kind, t.Symbol, "bench", t.Due, t.Due
	r.Source = codec.Source{Epoch: t.State.Epoch, Offset: k.n}
	r.State = *t.State
	r.Trade = codec.Trade{}
	if t.Kind == codec.KindTrade {
		r.Trade = t.State.Last
	}
	at := len(k.buf)
	k.buf = record.Append(append(k.buf, 0, 0, 0, 0), r)
	binary.BigEndian.PutUint32(k.buf[at:], uint32(len(k.buf)-at-4))
}

// Flush writes what was added; it waits while the gateway does not read, until
// ctx is done.
func (k *InletSink) Flush(ctx context.Context) error {
	if len(k.buf) == 0 {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = k.conn.SetWriteDeadline(time.Now()) })
	defer stop()
	_, err := k.conn.Write(k.buf)
	k.buf = k.buf[:0]
	if err != nil {
		return fmt.Errorf("the inlet: %w", err)
	}
	return nil
}

// Close ends the connection.
func (k *InletSink) Close() error { return k.conn.Close() }

// alias draws numbers by weight in constant time (Walker's method).
type alias struct {
	prob []float64
	els  []int32
}

func newAlias(weights []float64) alias {
	n := len(weights)
	a := alias{make([]float64, n), make([]int32, n)}
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	var small, large []int32
	for i, w := range weights {
		a.prob[i] = w * float64(n) / sum
		if a.prob[i] < 1 {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a.els[s] = l
		if a.prob[l] -= 1 - a.prob[s]; a.prob[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) {
		a.prob[i] = 1
	}
	return a
}

func (a *alias) draw(rng *rand.Rand) int {
	i := rng.IntN(len(a.prob))
	if rng.Float64() < a.prob[i] {
		return i
	}
	return int(a.els[i])
}

// zipfDraws is how many draws a symbol may take on average.
const zipfDraws = 50

// of is which symbols one client asks for; nil is all of them.
func (w *Watch) of(symbols int, rng *rand.Rand, zipf *alias) []int32 {
	switch w.Kind {
	case "same":
		list := make([]int32, min(w.Count, symbols))
		for i := range list {
			list[i] = int32(i)
		}
		return list
	case "random":
		n := min(w.Count, symbols)
		if 2*n > symbols { // most of them
			perm := rng.Perm(symbols)
			list := make([]int32, n)
			for i := range list {
				list[i] = int32(perm[i])
			}
			return list
		}
		seen := make(map[int32]bool, n)
		list := make([]int32, 0, n)
		for len(list) < n {
			if i := int32(rng.IntN(symbols)); !seen[i] {
				seen[i] = true
				list = append(list, i)
			}
		}
		return list
	case "zipf":
		n := min(w.Count, symbols)
		seen := make(map[int32]bool, n)
		list := make([]int32, 0, n)
		take := func(i int32) {
			if !seen[i] && len(list) < n {
				seen[i] = true
				list = append(list, i)
			}
		}
		for range zipfDraws * n {
			if len(list) == n {
				break
			}
			take(int32(zipf.draw(rng)))
		}
		// Those that are drawn once in an age are not waited for: who has all
		// that are likelier has the likeliest of the others.
		for i := range int32(symbols) {
			take(i)
		}
		return list
	}
	return nil
}

// newHistogram holds 1 us to 2 min with two digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(2*time.Minute/time.Microsecond), 2)
}

// record1 records ns as us, within the histogram's bounds, and tells whether it
// was beyond them; below zero is 0.
func record1(h *hdrhistogram.Histogram, ns int64) (clamped bool) { return recordN(h, ns, 1) }

// recordN records it n times.
func recordN(h *hdrhistogram.Histogram, ns, n int64) (clamped bool) {
	us, most := ns/1000, h.HighestTrackableValue()
	_ = h.RecordValues(min(max(us, 0), most), n)
	return us > most
}

// readFull reads until b is full or r ends.
func readFull(r io.Reader, b []byte) (int, error) {
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}
