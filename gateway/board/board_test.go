package board

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
)

func newBoard(t *testing.T, o Options) *Board {
	t.Helper()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// watched is a board with a topic, A, in which a watcher is interested.
func watched(t *testing.T) (*Board, *Watcher, *Topic) {
	t.Helper()
	b := newBoard(t, Options{})
	w, err := b.Watch()
	if err != nil {
		t.Fatal(err)
	}
	b.Declare("A", true)
	a := b.Lookup("A")
	w.Interest(a)
	return b, w, a
}

// of is the n-th trade of a symbol, at a second of its own, of an epoch.
func of(symbol string, epoch int64, n uint64, second float64) *record.Record {
	r := trade(n)
	r.Symbol = symbol
	r.Source.Epoch, r.State.Epoch = epoch, epoch
	r.IngestTime = int64(second * 1e9)
	r.Trade.IngestTime = r.IngestTime
	r.State.Last = r.Trade
	return r
}

// held is how many of the first n trades the ring still has.
func held(t *Topic, n uint64) uint64 {
	_, first := t.Trades(nil, 0, n)
	return n - first
}

// TestRepeats: what is not newer is not taken, whatever it says.
func TestRepeats(t *testing.T) {
	b := newBoard(t, Options{})
	at := func(epoch, offset int64, index int32, seq uint64) *record.Record {
		r := of("A", epoch, seq, 1)
		r.Source.Offset, r.Source.Index = offset, index
		return r
	}
	for i, tt := range []struct {
		r    *record.Record
		want bool
	}{
		{at(1, 10, 0, 1), true},
		{at(1, 10, 0, 1), false}, // again
		{at(1, 10, 1, 2), true},  // of the same message
		{at(1, 9, 5, 3), false},  // an older one
		{at(1, 11, 0, 3), true},
		{at(2, 3, 0, 1), true}, // a numbering that began anew
		{at(1, 99, 0, 4), false},
	} {
		if got := b.Publish(tt.r); got != tt.want {
			t.Errorf("record %d of source %+v taken: %v, want %v", i, tt.r.Source, got, tt.want)
		}
	}
	if c := b.Counts(); c.Published != 4 || c.Repeats != 3 {
		t.Errorf("counted %+v, want 4 taken and 3 repeats", c)
	}
	var v View
	if b.Lookup("A").Read(&v); v.State.Epoch != 2 || v.State.Seq != 1 || v.Heads.Trades != 4 {
		t.Errorf("state %d, %d and head %d", v.State.Epoch, v.State.Seq, v.Heads.Trades)
	}
}

// TestRingGrowsWithTheRate: a ring doubles while it would lose trades younger than
// ringSpan, up to ringMax.
func TestRingGrowsWithTheRate(t *testing.T) {
	for name, tt := range map[string]struct {
		trades uint64
		every  float64 // seconds
		want   uint64
	}{
		"one a second":        {1000, 1, ringMin},
		"ten a second":        {1000, 0.1, 128},
		"a thousand a second": {40_000, 0.001, 1 << 14},
		"all at once":         {40_000, 0, ringMax},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBoard(t, Options{})
			for n := range tt.trades {
				b.Publish(of("A", 1, n+1, 1000+float64(n)*tt.every))
			}
			a := b.Lookup("A")
			if got := held(a, tt.trades); got != tt.want {
				t.Errorf("the ring holds %d trades, want %d", got, tt.want)
			}
			if got, want := b.Counts().RingBytes, int64(tt.want)*entryBytes; got != want {
				t.Errorf("%d bytes counted, want %d", got, want)
			}
		})
	}
}

// TestRingMemory: all rings together stay within the bound, but each symbol has
// its first one.
func TestRingMemory(t *testing.T) {
	const bound = 1 << 20
	b := newBoard(t, Options{RingMemory: bound})
	const symbols, each = 20, 3000
	for n := range uint64(each) {
		for i := range symbols {
			b.Publish(of(fmt.Sprintf("S%d", i), 1, n+1, 1000))
		}
	}
	if got := b.Counts().RingBytes; got > bound || got < bound/2 {
		t.Errorf("rings take %d bytes of %d", got, bound)
	}
	sum := int64(0)
	for _, tp := range b.Topics() {
		sum += int64(len(tp.ring)) * entryBytes
		if n := held(tp, each); n < ringMin {
			t.Errorf("%s holds %d trades, want at least %d", tp.Symbol, n, ringMin)
		}
	}
	if sum != b.Counts().RingBytes {
		t.Errorf("%d bytes counted, the rings have %d", b.Counts().RingBytes, sum)
	}
	if _, err := New(Options{RingMemory: 1}); err == nil {
		t.Error("a bound of one byte was taken")
	}
}

// TestResume: where a client goes on that has seen a seq, and whether all since is
// there.
func TestResume(t *testing.T) {
	full := func(b *Board) { // trades 1 to 100 as seq 2, 4, ..., quotes between
		for n := range uint64(100) {
			r := of("A", 1, n+1, 1000+float64(n))
			r.Trade.Seq, r.State.Seq, r.Source.Offset = 2*n+2, 2*n+2, int64(2*n+2)
			r.State.Last = r.Trade
			b.Publish(r)
		}
	}
	few := func(b *Board) {
		for n := range uint64(3) {
			b.Publish(of("A", 1, n+1, 1000))
		}
	}
	quoted := func(b *Board) { // a state that came as a quote: its trades were before our time
		r := of("A", 1, 50, 1000)
		r.Kind = codec.KindQuote
		r.State.Seq = 60
		b.Publish(r)
	}
	cancelled := func(b *Board) { // so did this one, and the last of them was a cancel: it moved no price
		r := of("A", 1, 50, 1000)
		r.Kind = codec.KindQuote
		r.State.Seq, r.State.TradeNo = 60, 51
		b.Publish(r)
	}
	anew := func(b *Board) { full(b); b.Publish(of("A", 2, 1, 2000)) }
	for name, tt := range map[string]struct {
		board  func(*Board)
		epoch  int64
		seq    uint64
		cursor uint64
		whole  bool
	}{
		"at the head":                    {full, 1, 200, 100, true},
		"one behind":                     {full, 1, 199, 99, true},
		"at a trade":                     {full, 1, 198, 99, true},
		"the oldest was seen":            {full, 1, 170, 85, true},
		"one before the oldest":          {full, 1, 168, 84, false},
		"long gone":                      {full, 1, 4, 84, false},
		"from the start of what is new":  {few, 1, 0, 0, true},
		"no trade since, none in a ring": {quoted, 1, 55, 0, true},
		"one since, none in a ring":      {quoted, 1, 49, 0, false},
		"a cancel since, none in a ring": {cancelled, 1, 55, 0, false},
		"of an epoch that is over":       {anew, 1, 200, 101, false},
		"of the new epoch, nothing seen": {anew, 2, 0, 100, true},
		"of the new epoch, at its head":  {anew, 2, 1, 101, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBoard(t, Options{})
			tt.board(b)
			var v View
			b.Lookup("A").Read(&v)
			cursor, whole := b.Lookup("A").Resume(tt.epoch, tt.seq, v.Heads.Trades)
			if cursor != tt.cursor || whole != tt.whole {
				t.Errorf("Resume(%d, %d) = %d, %v, want %d, %v", tt.epoch, tt.seq, cursor, whole, tt.cursor, tt.whole)
			}
		})
	}
}

// TestStanding: a declared topic is loading and has no state; what changes is
// marked once.
func TestStanding(t *testing.T) {
	b := newBoard(t, Options{})
	w, err := b.Watch()
	if err != nil {
		t.Fatal(err)
	}
	marked := func() (n int) { w.Take(func(uint32) { n++ }); return n }
	b.Declare("A", true)
	b.Declare("A", true)
	a := b.Lookup("A")
	var v View
	a.Read(&v)
	if len(b.Topics()) != 1 || v.Standing.State != codec.StateLoading || v.Loaded || v.State.Seq != 0 {
		t.Errorf("declared: %d topics, %+v", len(b.Topics()), v.Standing)
	}
	if b.SetState("A", codec.StateLive, 5, ""); marked() != 0 {
		t.Error("marked for one that is not interested")
	}
	w.Interest(a)
	if b.SetState("A", codec.StateLive, 6, ""); marked() != 0 {
		t.Error("marked although nothing has changed")
	}
	if b.SetState("A", codec.StateStale, 7, "why"); marked() != 1 {
		t.Error("a change of state was not marked")
	}
	a.Read(&v)
	if v.Standing != (Standing{State: codec.StateStale, Since: 7, Why: "why", Version: 3}) {
		t.Errorf("standing %+v", v.Standing)
	}
	if b.Loaded("A"); marked() != 1 {
		t.Error("Loaded was not marked")
	}
	if a.Read(&v); !v.Loaded {
		t.Error("not loaded")
	}
	w.Lose(a)
	if b.Publish(of("A", 1, 1, 1)); marked() != 0 {
		t.Error("marked for one that is no longer interested")
	}
	b.Loaded("NONE")
	b.SetState("NONE", codec.StateLive, 1, "") // of what is not there: nothing
	if b.Lookup("NONE") != nil {
		t.Error("a topic came from nowhere")
	}
}

// TestBounds: so many topics, so many shards.
func TestBounds(t *testing.T) {
	b := newBoard(t, Options{})
	for i := range TopicsMax + 3 {
		b.Declare(fmt.Sprintf("S%d", i), true)
	}
	if n := len(b.Topics()); n != TopicsMax || b.Counts().Refused != 3 {
		t.Errorf("%d topics, %d refused; want %d and 3", n, b.Counts().Refused, TopicsMax)
	}
	if b.Publish(of("ONE-MORE", 1, 1, 1)) {
		t.Error("a record of a symbol was taken for which there is no room")
	}
	for range ShardsMax {
		if _, err := b.Watch(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Watch(); !errors.Is(err, ErrShards) {
		t.Errorf("one shard more: %v, want %v", err, ErrShards)
	}
}

// TestSleep: who sleeps is woken by any mark, who naps by a prompt one, and nobody
// falls asleep over one.
func TestSleep(t *testing.T) {
	for name, tt := range map[string]struct {
		timed, prompt, before, after bool // before: a mark before Sleep
	}{
		"asleep":                 {after: true},
		"asleep, prompt":         {prompt: true, after: true},
		"marked before":          {before: true},
		"napping":                {timed: true},
		"napping, prompt":        {timed: true, prompt: true, after: true},
		"napping, marked before": {timed: true, prompt: true, before: true},
	} {
		t.Run(name, func(t *testing.T) {
			b, w, a := watched(t)
			w.Prompt(a, tt.prompt)
			if tt.before {
				b.Publish(of("A", 1, 1, 1))
			}
			if may := w.Sleep(1, tt.timed); may == tt.before {
				t.Fatalf("may sleep: %v", may)
			} else if !may {
				return
			}
			b.Publish(of("A", 1, 1, 1))
			select {
			case <-w.C():
				if !tt.after {
					t.Error("woken")
				}
			default:
				if tt.after {
					t.Error("not woken")
				}
			}
		})
	}
	b := newBoard(t, Options{})
	w, _ := b.Watch()
	b.Declare("NEW", true)
	if w.Sleep(0, true) {
		t.Error("asleep over a new topic")
	}
	if !w.Sleep(1, true) {
		t.Error("awake without a reason")
	}
	b.Declare("NEWER", true)
	select {
	case <-w.C():
	default:
		t.Error("a new topic does not wake who naps")
	}
}

// TestNoChangeIsMissed: publish stores, then marks; a shard clears, then loads. So
// once all is published, what two shards have read is the newest, though each
// looks at a topic for its marks only.
func TestNoChangeIsMissed(t *testing.T) {
	const topics, rounds = 200, 400
	b := newBoard(t, Options{})
	for i := range topics {
		b.Declare(fmt.Sprintf("S%d", i), true)
	}
	all := b.Topics()
	var over atomic.Bool
	var reading, publishing sync.WaitGroup
	var seen [2][topics]uint64
	for s := range seen {
		w, err := b.Watch()
		if err != nil {
			t.Fatal(err)
		}
		for i, tp := range all {
			w.Interest(tp)
			w.Prompt(tp, (i+s)%2 == 0)
		}
		reading.Go(func() {
			var v View
			for last := false; ; {
				w.Take(func(id uint32) { all[id].Read(&v); seen[s][id] = v.State.Seq })
				if last {
					return
				}
				if last = over.Load(); !last && w.Sleep(topics, false) {
					select {
					case <-w.C():
					case <-time.After(10 * time.Millisecond):
					}
				}
				w.Awake()
			}
		})
	}
	for p := range 2 {
		publishing.Go(func() {
			for n := range uint64(rounds) {
				for i := p; i < topics; i += 2 {
					b.Publish(of(all[i].Symbol, 1, n+1, 1))
				}
			}
		})
	}
	publishing.Wait()
	over.Store(true)
	reading.Wait()
	for s := range seen {
		for id, seq := range seen[s] {
			if seq != rounds {
				t.Fatalf("shard %d has read %s up to %d, want %d", s, all[id].Symbol, seq, rounds)
			}
		}
	}
}

// TestStoreThenMark: a mark tells of what is there already.
func TestStoreThenMark(t *testing.T) {
	b, w, a := watched(t)
	a.mu.Lock() // so that nothing can be stored
	done := make(chan struct{})
	go func() { defer close(done); b.Publish(of("A", 1, 1, 1)) }()
	time.Sleep(20 * time.Millisecond)
	early := w.marked(1)
	a.mu.Unlock()
	<-done
	if early || !w.marked(1) {
		t.Errorf("marked before it was stored: %v, after: %v", early, w.marked(1))
	}
}

// TestClearThenLoad: what changes while a shard reads is marked for its next look.
func TestClearThenLoad(t *testing.T) {
	b, w, _ := watched(t)
	b.Publish(of("A", 1, 1, 1))
	looks := 0
	for range 3 {
		w.Take(func(uint32) {
			if looks++; looks == 1 {
				b.Publish(of("A", 1, 2, 1))
			}
		})
	}
	if looks != 2 {
		t.Errorf("%d looks at two changes, want 2", looks)
	}
}
