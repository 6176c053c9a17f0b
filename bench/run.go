package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tickgate/codec"
)

// Options say how a scenario is run. A zero field means its default.
type Options struct {
	// ServerCores, BrokerCores, FeedCores and ClientCores are where the gateway,
	// Kafka, the feed and this program run; empty leaves it to the kernel.
	ServerCores, BrokerCores, FeedCores, ClientCores []int
	// Loops is how many event loops the clients share. Defaults to 1.
	Loops int
	// Kafka sends ticks the whole way, through Kafka and the feed.
	Kafka bool
	// KafkaSink connects to Kafka; wanted if Kafka is set.
	KafkaSink func(ctx context.Context, brokers, rawTopic string) (Sink, io.Closer, error)
	// Replay plays the scenario's file into Kafka; it returns at its end.
	Replay func(ctx context.Context, brokers, rawTopic string, m *Market) error
	// Floor measures the same messages written by a bare program, which is
	// started by this command line.
	Floor []string
	// CatchUp bounds the time in which every client must hold the final state
	// once the market has stopped: a line that was slow has 64 KiB to read, and
	// who owed nothing may wait as long as it asked for. Defaults to 20s.
	CatchUp time.Duration
	// Seed decides which client watches what, and all prices.
	Seed uint64
	// Progress is told what goes on.
	Progress func(Status)
}

// Status is what a person who waits wants to know.
type Status struct {
	Phase     string
	Done      float64 // share of the phase, 0 to 1
	Clients   int
	Delivered float64 // a second
	AgeP99    float64 // ms
	CPU       float64 // of the target, in cores
	Faults    uint64
}

// ErrUnsupported says that the target lacks what the scenario needs.
var ErrUnsupported = errors.New("unsupported")

const (
	// connectTime bounds the time in which all clients must be in.
	connectTime = 2 * time.Minute

	// inFlight is how many connections may be on their way at once.
	inFlight = 512

	// answerTime bounds the wait for ledgers.
	answerTime = 10 * time.Second

	// retryAfter is when a refused client tries again.
	retryAfter = 500 * time.Millisecond

	// A stalled client that got nothing for stallQuiet gets nothing more: no
	// scenario's cadence is longer. stallSettleMax bounds the wait for all.
	stallQuiet     = 1500 * time.Millisecond
	stallLook      = 250 * time.Millisecond
	stallSettleMax = time.Minute
)

// runner is one run.
type runner struct {
	o        Options
	scenario *Scenario
	target   *Target
	in       *Instance
	swarm    *swarm
	source   *source // nil if a file is replayed
	result   *Run
	rng      *rand.Rand

	lastUsage map[string]Usage
	lastAt    time.Time
	total     *window
}

// Do runs a scenario on a target once.
func Do(ctx context.Context, s *Scenario, t *Target, o Options) (_ *Run, err error) {
	if err := t.Supports(s); err != nil {
		return nil, err
	}
	o.Loops = cmp.Or(o.Loops, 1)
	o.CatchUp = cmp.Or(o.CatchUp, 20*time.Second)
	if s.Market.File != "" {
		o.Kafka = true
	}
	if o.Progress == nil {
		o.Progress = func(Status) {}
	}
	dir, err := os.MkdirTemp("", "tickbench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := Pin(o.ClientCores); err != nil {
		return nil, err
	}
	r := &runner{o: o, scenario: s, target: t, result: &Run{}, rng: rand.New(rand.NewPCG(o.Seed, 2)), total: newWindow()}
	r.status("starting "+t.Name, 0)
	if r.in, err = t.Start(ctx, &StartOptions{Scenario: s, Dir: dir, Cores: o.ServerCores, BrokerCores: o.BrokerCores, FeedCores: o.FeedCores, Kafka: o.Kafka}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.in.Close()) }()
	if err := r.run(ctx); err != nil {
		return nil, err
	}
	if len(o.Floor) > 0 {
		if err := r.floor(ctx, dir); err != nil {
			return nil, fmt.Errorf("the floor: %w", err)
		}
	}
	return r.result, nil
}

func (r *runner) status(phase string, done float64) {
	s := Status{Phase: phase, Done: done}
	if r.swarm != nil {
		s.Clients = int(r.swarm.open.Load())
		s.Faults = r.swarm.faults.total()
	}
	if n := len(r.result.Timeline); n > 0 {
		last := r.result.Timeline[n-1]
		s.Delivered, s.AgeP99, s.CPU = float64(last.Delivered), last.AgeP99, last.CPU
	}
	r.o.Progress(s)
}

func (r *runner) run(ctx context.Context) (err error) {
	var symbols []string
	sourceCtx, stopSource := context.WithCancel(ctx)
	defer stopSource()
	sourceEnd := make(chan error, 1)
	if r.scenario.Market.File == "" {
		var sink Sink
		var closer io.Closer
		if r.o.Kafka {
			sink, closer, err = r.o.KafkaSink(ctx, r.in.Brokers, r.in.RawTopic)
		} else {
			var inlet *InletSink
			inlet, err = NewInletSink(r.in.Inlet)
			sink, closer = inlet, inlet
		}
		if err != nil {
			return err
		}
		defer closer.Close()
		r.source = newSource(r.scenario.Market, sink, r.o.Seed, time.Now())
		symbols = r.source.symbols
		r.status("seeding", 0)
		if err := r.source.seed(ctx); err != nil {
			return err
		}
		go func() { sourceEnd <- r.source.run(sourceCtx) }()
	} else {
		go func() {
			sourceEnd <- r.o.Replay(sourceCtx, r.in.Brokers, r.in.RawTopic, &r.scenario.Market)
		}()
	}
	sourceEnded := false
	defer func() {
		if !sourceEnded {
			stopSource()
			err = errors.Join(err, <-sourceEnd)
		}
	}()
	if r.swarm, err = newSwarm(r.in.Endpoint, symbols, r.o.Loops); err != nil {
		return err
	}
	defer r.swarm.stop()
	r.swarm.recorded = r.source == nil
	r.makeClients()
	if err := r.connectAll(ctx); err != nil {
		return err
	}
	if len(r.scenario.Steps) == 0 {
		// What groups do begins before the warm-up, so that the measured time
		// holds none of the change to it; sleepers sleep while it is measured.
		stopActors := r.act(ctx, false)
		err := r.stalled(ctx)
		if err == nil {
			err = r.wait(ctx, "warming up", time.Duration(r.scenario.Warm))
		}
		if err == nil {
			r.act(ctx, true)
			err = r.measure(ctx, sourceEnd)
		}
		stopActors()
		if err != nil {
			return err
		}
	}
	if r.scenario.Market.File != "" {
		r.status("replaying to the end", 0)
		select {
		case err := <-sourceEnd:
			sourceEnded = true
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	} else {
		r.source.stop()
		select {
		case err := <-sourceEnd:
			sourceEnded = true
			if err != nil {
				return err
			}
		case <-time.After(r.o.CatchUp):
			return fmt.Errorf("the market has stopped, and %s has not taken its last ticks within %v", r.target.Name, r.o.CatchUp)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return r.settle(ctx)
}

// makeClients lays out who watches what.
func (r *runner) makeClients() {
	no := 0
	for g := range r.scenario.Clients {
		group := &r.scenario.Clients[g]
		var zipf alias
		if group.Watch.Kind == "zipf" {
			weights := make([]float64, r.scenario.Market.Symbols)
			for i := range weights {
				weights[i] = math.Pow(float64(i+1), -group.Watch.Exponent)
			}
			zipf = newAlias(weights)
		}
		timed := slices.Contains([]string{"reads", "reconnects", "resubscribes"}, group.Does.Kind)
		for range group.Count {
			c := &client{
				no: no, group: group, channel: group.channel(), view: group.view(), speaker: r.in.Endpoint.Speak(group.Encoding),
				watch: group.Watch.of(r.scenario.Market.Symbols, r.rng, &zipf), loop: r.swarm.loops[no%len(r.swarm.loops)], timed: timed,
			}
			r.swarm.clients = append(r.swarm.clients, c)
			no++
		}
	}
	// So that each group's come in side by side.
	order := r.rng.Perm(no)
	mixed := make([]*client, no)
	for i, at := range order {
		mixed[i] = r.swarm.clients[at]
	}
	r.swarm.clients = mixed
}

// connectAll connects, and measures memory at each step if there are steps.
func (r *runner) connectAll(ctx context.Context) error {
	steps := r.scenario.Steps
	if len(steps) == 0 {
		steps = []int{len(r.swarm.clients)}
	} else {
		r.result.Memory = &Memory{}
	}
	connected := 0
	for _, upTo := range steps {
		if err := r.connect(ctx, connected, upTo); err != nil {
			return err
		}
		connected = upTo
		if r.result.Memory == nil {
			continue
		}
		if err := r.wait(ctx, fmt.Sprintf("%d clients idle", upTo), time.Duration(r.scenario.Measure)); err != nil {
			return err
		}
		rss, err := r.collected(ctx)
		if err != nil {
			return err
		}
		m := r.result.Memory
		m.Clients, m.RSS = append(m.Clients, upTo), append(m.RSS, rss)
		if n := len(m.Clients) - 1; n > 0 {
			m.BytesPerClient = short(float64(m.RSS[n]-m.RSS[0])/float64(m.Clients[n]-m.Clients[0]), digits)
		}
	}
	return nil
}

// collected is the memory of the gateway after its garbage collector ran.
func (r *runner) collected(ctx context.Context) (int64, error) {
	if r.in.Admin != "" {
		for range 2 { // what one collection frees, the next one gives back
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.in.Admin+"/debug/pprof/heap?gc=1", nil)
			if err != nil {
				return 0, err
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return 0, err
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	}
	all, err := r.in.usage()
	if err != nil {
		return 0, err
	}
	return all[r.in.processes[len(r.in.processes)-1].name].RSS, nil
}

// connect brings clients from..to in.
func (r *runner) connect(ctx context.Context, from, to int) error {
	before, err := r.in.usage()
	if err != nil {
		return err
	}
	r.swarm.take()
	began := time.Now()
	asked := from
	refusedSeen := int64(0)
	var retry []int
	retryAt := began
	for {
		open := int(r.swarm.open.Load())
		if open >= to {
			break
		}
		if time.Since(began) > connectTime {
			why := "no error"
			if p := r.swarm.lastErr.Load(); p != nil {
				why = (*p).Error()
			}
			return fmt.Errorf("%d of %d clients are in after %v; the last error: %s", open, to, connectTime, why)
		}
		due := to
		if rate := r.scenario.ConnectPerSecond; rate > 0 {
			due = min(to, from+int(time.Since(began).Seconds()*float64(rate)))
		}
		for asked < due && asked-open < inFlight {
			c := r.swarm.clients[asked]
			c.loop.post(c.connect)
			asked++
		}
		if refused := r.swarm.refused.Load() + r.swarm.closed.Load(); refused > refusedSeen && time.Now().After(retryAt) {
			refusedSeen = refused
			retryAt = time.Now().Add(retryAfter)
			var mu sync.Mutex
			retry = retry[:0]
			r.swarm.each(func(l *loop) {
				for i, c := range r.swarm.clients[:asked] {
					if c.loop == l && c.phase == phaseNone {
						mu.Lock()
						retry = append(retry, i)
						mu.Unlock()
					}
				}
			})
			for _, i := range retry {
				c := r.swarm.clients[i]
				c.loop.post(func() {
					if c.phase == phaseNone {
						c.connect()
					}
				})
			}
		}
		r.status("connecting", float64(open)/float64(to))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	took := time.Since(began)
	if err := r.granted(ctx); err != nil {
		return err
	}
	after, err := r.in.usage()
	if err != nil {
		return err
	}
	w := r.swarm.take()
	c := &Connect{Seconds: short(took.Seconds(), digits), PerSecond: short(float64(to-from)/took.Seconds(), digits), Settle: spreadOf(w.settle, false), Refused: refusedSeen}
	for name, u := range after {
		c.CPU += u.minus(before[name]).CPU.Seconds()
	}
	c.CPU = short(c.CPU, digits)
	r.result.Connect = c
	return nil
}

// granted waits until every client has all that it asked for: what a gateway had
// not heard of when it was asked, it tells later.
func (r *runner) granted(ctx context.Context) error {
	if r.source == nil {
		return nil
	}
	began := time.Now()
	for {
		var missing atomic.Int64
		r.swarm.each(func(l *loop) {
			for _, c := range l.clients {
				want := len(c.watch)
				if c.watch == nil {
					want = len(r.swarm.symbols)
				}
				for i := range c.subs {
					if c.subs[i].known && c.subs[i].seq > 0 {
						want--
					}
				}
				missing.Add(int64(max(0, want)))
			}
		})
		if missing.Load() == 0 {
			return nil
		}
		if time.Since(began) > connectTime {
			return fmt.Errorf("%d symbols that clients asked for have not come within %v", missing.Load(), connectTime)
		}
		r.status("waiting for symbols", 0)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// wait waits and says so.
func (r *runner) wait(ctx context.Context, phase string, d time.Duration) error {
	began := time.Now()
	for time.Since(began) < d {
		r.status(phase, float64(time.Since(began))/float64(d))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(d-time.Since(began), 200*time.Millisecond)):
		}
	}
	return nil
}

// stalled waits until clients that stopped reading are sent nothing more: as
// long as the kernel's buffers and the gateway's patience take what comes, such
// a client costs what a reading one does.
func (r *runner) stalled(ctx context.Context) error {
	var members []*client
	for _, c := range r.swarm.clients {
		if c.group.Does.Kind == "stalls" {
			members = append(members, c)
		}
	}
	if len(members) == 0 {
		return nil
	}
	res := &Stall{Clients: len(members)}
	unread := make([]int64, len(members))
	began := time.Now()
	changed := began
	for time.Since(changed) < stallQuiet && time.Since(began) < stallSettleMax {
		if err := r.wait(ctx, "waiting until the stalled are sent nothing", stallLook); err != nil {
			return err
		}
		var grows atomic.Bool
		r.swarm.each(func(l *loop) {
			for i, c := range members {
				if c.loop != l || c.phase != phaseOpen {
					continue
				}
				if n, err := unix.IoctlGetInt(c.fd, unix.TIOCINQ); err == nil && int64(n) != unread[i] {
					unread[i] = int64(n)
					grows.Store(true)
				}
			}
		})
		if grows.Load() {
			changed = time.Now()
		}
	}
	res.Seconds = short(changed.Sub(began).Seconds(), digits)
	res.Settled = time.Since(changed) >= stallQuiet
	slices.Sort(unread)
	res.UnreadP50 = unread[len(unread)/2]
	r.result.Stall = res
	return nil
}

// act has clients do what their groups do, those that sleep when it is asked for
// sleepers and all others when not, until the returned function is called.
func (r *runner) act(ctx context.Context, sleepers bool) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var actors sync.WaitGroup
	for g := range r.scenario.Clients {
		group := &r.scenario.Clients[g]
		if (group.Does.Kind == "sleeps") != sleepers {
			continue
		}
		var members []*client
		for _, c := range r.swarm.clients {
			if c.group == group {
				members = append(members, c)
			}
		}
		switch group.Does.Kind {
		case "reads":
		case "reconnects", "resubscribes":
			rng := rand.New(rand.NewPCG(r.o.Seed, uint64(3+g)))
			actors.Go(func() {
				began, done := time.Now(), 0
				for {
					for due := int(time.Since(began).Seconds() * group.Does.PerSecond); done < due; done++ {
						c := members[rng.IntN(len(members))]
						seed := rng.Uint64()
						c.loop.post(func() {
							if group.Does.Kind == "resubscribes" {
								c.resubscribe(rand.New(rand.NewPCG(seed, 4)))
							} else if c.settled {
								c.drop()
								c.connect()
							}
						})
					}
					select {
					case <-ctx.Done():
						return
					case <-time.After(2 * time.Millisecond):
					}
				}
			})
		default:
			for _, c := range members {
				c.loop.post(c.behave)
			}
		}
	}
	return func() { cancel(); actors.Wait() }
}

// sample takes a second, or less, into the timeline.
func (r *runner) sample(at float64, made uint64) (*window, error) {
	w := r.swarm.take()
	now := time.Now()
	usage, err := r.in.usage()
	if err != nil {
		return nil, err
	}
	s := Second{At: short(at, digits), Made: made, Delivered: w.delivered, Merged: w.merged, Dropped: w.dropped,
		AgeP50: float64(w.age.ValueAtQuantile(50)) / 1000, AgeP99: float64(w.age.ValueAtQuantile(99)) / 1000}
	for name, u := range usage {
		s.CPU += u.minus(r.lastUsage[name]).CPU.Seconds() / now.Sub(r.lastAt).Seconds()
		s.RSS += u.RSS
	}
	s.CPU = short(s.CPU, digits)
	r.lastUsage, r.lastAt = usage, now
	r.result.Timeline = append(r.result.Timeline, s)
	r.total.add(w)
	return w, nil
}

// made is how many ticks have been made.
func (r *runner) made() uint64 {
	if r.source == nil {
		return 0
	}
	return r.source.made.Load()
}

func (r *runner) measure(ctx context.Context, sourceEnd chan error) (err error) {
	res := r.result
	base := float64(r.scenario.Market.Rate)
	var before float64
	if r.scenario.Overload > 0 {
		if before, err = r.findPeak(ctx); err != nil {
			return err
		}
		base = res.Peak.Asked
	}
	if r.source != nil {
		r.source.setRate(base)
		r.source.takeLag()
		r.source.blocked.Store(0)
	}
	if len(r.o.Floor) > 0 {
		r.swarm.each(func(l *loop) { l.trace = &tracer{left: traceRowsMax / len(r.swarm.loops)} })
	}
	r.swarm.take()
	if r.lastUsage, err = r.in.usage(); err != nil {
		return err
	}
	first := r.lastUsage
	self, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	r.total = newWindow()
	res.Timeline = nil
	began := time.Now()
	r.lastAt = began
	madeFirst := r.made()
	madeLast := madeFirst
	length := time.Duration(r.scenario.Measure)
	r.status("measuring", 0)
	for next := time.Second; ; next += time.Second {
		end := min(next, length)
		for time.Since(began) < end {
			if b := r.scenario.Market.Burst; b != nil && r.source != nil {
				at := time.Since(began)
				if at >= time.Duration(b.At) && at < time.Duration(b.At+b.For) {
					r.source.setRate(base * b.Factor)
				} else {
					r.source.setRate(base)
				}
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-sourceEnd:
				sourceEnd <- err
				if err != nil {
					return err
				}
				end = 0 // the file has come to its end
			case <-time.After(min(10*time.Millisecond, end-time.Since(began))):
			}
		}
		made := r.made()
		if _, err := r.sample(time.Since(began).Seconds(), made-madeLast); err != nil {
			return err
		}
		madeLast = made
		r.status("measuring", float64(time.Since(began))/float64(length))
		if end == 0 || end == length {
			break
		}
	}
	res.Seconds = short(time.Since(began).Seconds(), digits)
	r.swarm.each(func(l *loop) { l.traced, l.trace = l.trace, nil })
	res.Made = madeLast - madeFirst
	res.Processes = map[string]Usage{}
	for name, u := range r.lastUsage {
		res.Processes[name] = u.minus(first[name])
	}
	after, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	res.Self = after.minus(self)
	w := r.total
	res.Age, res.Ingest, res.Gateway, res.Wire = spreadOf(w.age, true), spreadOf(w.ingest, false), spreadOf(w.gateway, false), spreadOf(w.wire, false)
	res.Batch, res.Wait = spreadOf(w.batch, false), spreadOf(w.wait, false)
	res.Negative, res.Clamped = w.negative, w.clamped
	res.Delivered, res.Merged, res.Dropped, res.Snapshots = w.delivered, w.merged, w.dropped, w.snapshots
	res.Frames, res.Messages, res.Bytes = w.frames, w.messages, w.bytes
	if r.source != nil {
		lag, clamped := r.source.takeLag()
		res.Lag = spreadOf(lag, false)
		res.Clamped += clamped
		res.Waited = short(float64(r.source.blocked.Load())/1e6, digits)
	}
	res.Invalid = res.invalid()
	if r.scenario.Overload > 0 {
		return r.recover(ctx, before)
	}
	return nil
}

// inTime is the age up to which a gateway keeps up, and waitMax the share of
// time that it may have the source wait.
const (
	inTime  = 50.0 // ms
	waitMax = 0.2
)

// findPeak raises the rate until the gateway no longer serves in time.
func (r *runner) findPeak(ctx context.Context) (calm float64, err error) {
	if r.source == nil {
		return 0, errors.New("overload: want a market, not a file")
	}
	if r.lastUsage, err = r.in.usage(); err != nil {
		return 0, err
	}
	r.lastAt = time.Now()
	const factor = 1.4
	look := time.Duration(r.scenario.OverloadLook)
	settle := look / 2
	peak := 0.0
	for rate := float64(r.scenario.Market.Rate); rate < rateMax; rate *= factor {
		r.source.setRate(rate)
		if err := r.wait(ctx, fmt.Sprintf("%.0f ticks/s", rate), settle); err != nil {
			return 0, err
		}
		r.swarm.take()
		r.source.blocked.Store(0)
		made := r.made()
		if err := r.wait(ctx, fmt.Sprintf("%.0f ticks/s", rate), look); err != nil {
			return 0, err
		}
		w := r.swarm.take()
		p99 := float64(w.age.ValueAtQuantile(99)) / 1000
		if calm == 0 {
			calm = p99
		}
		waited := float64(r.source.blocked.Load()) / float64(look)
		short := float64(r.made()-made) < 0.9*rate*look.Seconds()
		if p99 > inTime || waited > waitMax || short {
			break
		}
		peak = rate
	}
	if peak == 0 {
		return 0, fmt.Errorf("overload: even %d ticks/s are not served within %v ms", r.scenario.Market.Rate, inTime)
	}
	r.result.Peak = &Peak{Rate: short(peak, digits), Asked: short(peak*r.scenario.Overload, digits)}
	return calm, nil
}

// recover halves the peak's rate and waits until ages are as they were.
func (r *runner) recover(ctx context.Context, calm float64) error {
	p := r.result.Peak
	r.source.setRate(p.Rate / 2)
	began := time.Now()
	const look = 100 * time.Millisecond
	most := 10 * time.Duration(r.scenario.OverloadLook)
	for time.Since(began) < max(most, 2*look) {
		r.swarm.take()
		if err := r.wait(ctx, "recovering", look); err != nil {
			return err
		}
		w := r.swarm.take()
		p.RecoverAge = float64(w.age.ValueAtQuantile(99)) / 1000
		if w.age.TotalCount() > 0 && p.RecoverAge <= max(2*calm, inTime/5) {
			p.RecoverMs = float64(time.Since(began).Milliseconds())
			return nil
		}
	}
	p.RecoverMs = float64(most.Milliseconds())
	return nil
}

// settle lets every client read on, then compares finals and ledgers.
func (r *runner) settle(ctx context.Context) error {
	s := r.swarm
	s.each(func(l *loop) {
		for _, c := range l.clients {
			c.readOn()
		}
		l.slow = nil
	})
	began := time.Now()
	deadline := began.Add(r.o.CatchUp)
	var late atomic.Int64
	for {
		late.Store(0)
		final := r.finals()
		s.each(func(l *loop) {
			for _, c := range l.clients {
				if !c.settled && !c.leaving {
					late.Add(1)
				}
				for i := range c.subs {
					if state, ok := final(&c.subs[i]); ok && c.settled {
						if _, _, ok := c.subs[i].holds(c.channel, c.shown(), state); !ok {
							late.Add(1)
						}
					}
				}
			}
		})
		if late.Load() == 0 && time.Since(began) > 300*time.Millisecond || time.Now().After(deadline) {
			break
		}
		r.status("catching up", 1)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	checks := &r.result.Checks
	final := r.finals()
	var finals, subs, open atomic.Int64
	s.each(func(l *loop) {
		for _, c := range l.clients {
			open.Add(1)
			if !c.settled {
				c.fault(CheckFinal, nil, "no answer to what it asked for", "its snapshots")
				continue
			}
			for i := range c.subs {
				f := &c.subs[i]
				subs.Add(1)
				state, ok := final(f)
				if !ok {
					continue
				}
				finals.Add(1)
				if got, want, ok := f.holds(c.channel, c.shown(), state); !ok {
					c.fault(CheckFinal, f, got, want)
				}
			}
		}
	})
	r.result.Clients, r.result.Subscriptions = int(open.Load()), int(subs.Load())
	checks.Finals = int(finals.Load())
	r.sleepers()
	if r.in.Endpoint.Ledger {
		if err := r.ledgers(ctx); err != nil {
			return err
		}
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	checks.Counts, checks.Violations = s.faults.count, s.faults.first
	return nil
}

// finals tells what a follower must hold in the end: what the market made, or,
// if a file was replayed, what the furthest client holds.
func (r *runner) finals() func(f *follower) (*codec.State, bool) {
	if r.source != nil {
		return func(f *follower) (*codec.State, bool) {
			if f.symbol < 0 {
				return nil, false
			}
			return &r.source.states[f.symbol], true
		}
	}
	var mu sync.Mutex
	best := map[uint32]*codec.State{}
	r.swarm.each(func(l *loop) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range l.clients {
			for i := range c.subs {
				f := &c.subs[i]
				have := best[f.id]
				if have == nil {
					have = &codec.State{}
					best[f.id] = have
				}
				// Each part from who knows it as of the latest tick that
				// changed it.
				view := c.shown()
				if c.channel != codec.ChannelQuotes && f.seq >= have.Last.Seq {
					have.Last.Seq = f.seq
					if view&codec.ViewLast != 0 {
						have.Last.Price = f.price
					}
					if view&codec.ViewTotals != 0 {
						have.Trades, have.Volume, have.Notional = f.trades, f.volume, f.notional
					}
				}
				if c.channel != codec.ChannelTrades && f.seq >= have.Quote.Seq && view&codec.ViewQuote != 0 {
					q, held := &have.Quote, f.beyond().quote
					q.Seq, q.Bid, q.BidSize, q.Ask, q.AskSize = f.seq, held.bid, held.bidSize, held.ask, held.askSize
				}
				switch c.channel {
				case codec.ChannelTrades:
					have.TradeNo = max(have.TradeNo, f.no)
				case codec.ChannelQuotes:
					have.QuoteNo = max(have.QuoteNo, f.no)
				default:
					if f.seq >= have.Seq && view&codec.ViewDay != 0 {
						d, held := &have.Day, f.beyond().day
						d.Number, d.Open, d.High, d.Low = held.number, held.open, held.high, held.low
					}
					have.Seq = max(have.Seq, f.seq)
				}
			}
		}
	})
	return func(f *follower) (*codec.State, bool) { s, ok := best[f.id]; return s, ok }
}

// shown is the view that the client is sent.
func (c *client) shown() codec.View {
	if c.view != 0 {
		return c.view
	}
	return codec.DefaultView(c.channel)
}

// sleepers tells how soon those that slept were current.
func (r *runner) sleepers() {
	var mu sync.Mutex
	var after []uint64
	s := &Sleep{}
	r.swarm.each(func(l *loop) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range l.clients {
			if !c.slept {
				continue
			}
			s.Clients++
			if c.woke != 0 || c.currentAfter == 0 {
				s.NotCurrent++
				continue
			}
			after = append(after, c.currentAfter)
			s.WaitMaxMs = max(s.WaitMaxMs, float64(c.currentWait.Microseconds())/1000)
		}
	})
	if s.Clients == 0 {
		return
	}
	if slices.Sort(after); len(after) > 0 {
		s.BytesP50, s.BytesMax = after[len(after)/2], after[len(after)-1]
	}
	r.result.Sleep = s
}

// ledgers asks every session for its counts and compares them with the client's.
func (r *runner) ledgers(ctx context.Context) error {
	s := r.swarm
	s.each(func(l *loop) {
		for _, c := range l.clients {
			if c.settled {
				c.ref++
				c.command(&codec.Command{Op: codec.OpLedger, Ref: c.ref})
			}
		}
	})
	deadline := time.Now().Add(answerTime)
	for {
		var missing atomic.Int64
		s.each(func(l *loop) {
			for _, c := range l.clients {
				if c.settled && c.ledger == nil {
					missing.Add(1)
				}
			}
		})
		if missing.Load() == 0 || time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	var compared atomic.Int64
	s.each(func(l *loop) {
		for _, c := range l.clients {
			if !c.settled {
				continue
			}
			compared.Add(1)
			c.compareLedger()
		}
	})
	r.result.Checks.Ledgers = int(compared.Load())
	return nil
}

func (c *client) compareLedger() {
	l := c.ledger
	if l == nil {
		c.fault(CheckLedger, nil, "no ledger", "an answer")
		return
	}
	if sum := l.Delivered + l.Merged + l.Filtered + l.Dropped + l.Pending; sum != l.Offered {
		c.fault(CheckLedger, nil, fmt.Sprintf("%d offered", l.Offered),
			fmt.Sprintf("%d = %d delivered + %d merged + %d filtered + %d dropped + %d pending", sum, l.Delivered, l.Merged, l.Filtered, l.Dropped, l.Pending))
	}
	compare := func(what string, theirs, ours uint64) {
		if theirs != ours {
			c.fault(CheckLedger, nil, fmt.Sprintf("%s: %d", what, theirs), fmt.Sprintf("%d, as the client counted", ours))
		}
	}
	compare("delivered", l.Delivered, c.delivered)
	compare("pending", l.Pending, 0)
	if c.group.Does.Kind == "resubscribes" {
		return // what was under way when it let go is dropped, and not told
	}
	compare("dropped", l.Dropped, c.dropped)
	compare("merged", l.Merged, c.merged) // of trades none is
}
