package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"tickgate/codec"
	"tickgate/codec/native"
)

const (
	// readBuffer is what one read takes at most; a loop's clients share it.
	readBuffer = 256 << 10

	// messageMax bounds a message of the server, whose length is not trusted.
	messageMax = 16 << 20

	// eventsMax is how many ready sockets one look gives. Frames that a gateway
	// sends to hundreds of clients at once are read in turn, which is no lag of
	// ours: a look at few of them tells a slow loop from a long queue.
	eventsMax = 32

	// timerPeriod is how often clients that read slowly are served.
	timerPeriod = 20 * time.Millisecond

	// sources are the loopback addresses that clients come from, so that no
	// one's ports run out.
	sources = 8
)

// swarm is all clients, on a few event loops.
type swarm struct {
	endpoint Endpoint
	recorded bool // event times are those of a file: ticks are due when they come into Kafka
	bySymbol map[string]int32
	symbols  []string
	loops    []*loop
	clients  []*client
	faults   violations
	open     atomic.Int64 // connected, and their snapshots have come
	refused  atomic.Int64
	closed   atomic.Int64
	lastErr  atomic.Pointer[error]
	names    sync.Map // of symbols that are none of the market's, by topic id
	wait     sync.WaitGroup
}

// window is what a loop has counted since it was last asked.
type window struct {
	age, ingest, gateway, wire *hdrhistogram.Histogram // us
	batch                      *hdrhistogram.Histogram // us that one look's sockets took
	wait                       *hdrhistogram.Histogram // us that each socket that was ready waited for us, at most
	delivered, merged, dropped uint64
	snapshots, frames, bytes   uint64
	messages                   uint64
	negative                   uint64                  // ages below zero: a clock problem
	clamped                    uint64                  // values beyond a histogram's bounds
	settle                     *hdrhistogram.Histogram // us from connecting to the last snapshot
}

func newWindow() *window {
	return &window{age: newHistogram(), ingest: newHistogram(), gateway: newHistogram(), wire: newHistogram(), batch: newHistogram(), wait: newHistogram(), settle: newHistogram()}
}

// record records ns n times in one of the window's histograms, and counts what
// that cannot hold.
func (w *window) record(h *hdrhistogram.Histogram, ns, n int64) {
	if recordN(h, ns, n) {
		w.clamped += uint64(n)
	}
}

// add merges v into w.
func (w *window) add(v *window) {
	w.age.Merge(v.age)
	w.ingest.Merge(v.ingest)
	w.gateway.Merge(v.gateway)
	w.wire.Merge(v.wire)
	w.batch.Merge(v.batch)
	w.wait.Merge(v.wait)
	w.settle.Merge(v.settle)
	w.delivered += v.delivered
	w.merged += v.merged
	w.dropped += v.dropped
	w.snapshots += v.snapshots
	w.frames += v.frames
	w.bytes += v.bytes
	w.messages += v.messages
	w.negative += v.negative
	w.clamped += v.clamped
}

// loop is one thread that owns its clients.
type loop struct {
	swarm  *swarm
	ep     int
	wakeFD int
	done   atomic.Bool

	mu   sync.Mutex
	mail []func()

	// Owned by run.
	clients map[int32]*client
	slow    []*client // read by timer
	buf     []byte
	update  native.Update
	window  *window
	now     int64   // Unix ns of the last read
	trace   *tracer // nil: not traced
	traced  *tracer // what it was when measuring ended
}

func newSwarm(e Endpoint, symbols []string, loops int) (*swarm, error) {
	s := &swarm{endpoint: e, symbols: symbols, bySymbol: make(map[string]int32, len(symbols))}
	for i, name := range symbols {
		s.bySymbol[name] = int32(i)
	}
	for range loops {
		l := &loop{swarm: s, clients: map[int32]*client{}, buf: make([]byte, readBuffer), window: newWindow()}
		var err error
		if l.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return nil, err
		}
		if l.wakeFD, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
			return nil, err
		}
		if err = unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, l.wakeFD, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l.wakeFD)}); err != nil {
			return nil, err
		}
		s.loops = append(s.loops, l)
		s.wait.Go(l.run)
	}
	return s, nil
}

// stop closes all clients and waits for the loops.
func (s *swarm) stop() {
	for _, l := range s.loops {
		l.post(func() {
			for _, c := range l.clients {
				c.drop()
			}
			l.done.Store(true)
		})
	}
	s.wait.Wait()
}

// each has f run by every loop, and waits for all of them.
func (s *swarm) each(f func(l *loop)) {
	var done sync.WaitGroup
	for _, l := range s.loops {
		done.Add(1)
		l.post(func() { f(l); done.Done() })
	}
	done.Wait()
}

// take is what has been counted since it was last asked.
func (s *swarm) take() *window {
	sum := newWindow()
	var mu sync.Mutex
	s.each(func(l *loop) {
		w := l.window
		l.window = newWindow()
		mu.Lock()
		sum.add(w)
		mu.Unlock()
	})
	return sum
}

// post has f run by the loop soon.
func (l *loop) post(f func()) {
	l.mu.Lock()
	l.mail = append(l.mail, f)
	first := len(l.mail) == 1
	l.mu.Unlock()
	if first {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(l.wakeFD, one[:])
	}
}

func (l *loop) run() {
	runtime.LockOSThread()
	defer unix.Close(l.ep)
	defer unix.Close(l.wakeFD)
	var events [eventsMax]unix.EpollEvent
	nextTimer := time.Now().Add(timerPeriod)
	// When the last looks began that gave as many sockets as one can, which says
	// that there are more. The kernel gives them in turn: one has waited since
	// as many looks ago as all of them take.
	var full []time.Time
	for !l.done.Load() {
		n, err := readyNow(l.ep, &events)
		if n == 0 && err == nil {
			full = full[:0]
			n, err = unix.EpollWait(l.ep, events[:], int(timerPeriod/time.Millisecond))
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic("bench: epoll: " + err.Error()) // a descriptor of our own is wrong
		}
		began := time.Now()
		for i := range max(n, 0) {
			e := &events[i]
			if e.Fd == int32(l.wakeFD) {
				l.readMail()
				continue
			}
			if c := l.clients[e.Fd]; c != nil {
				c.ready(e.Events)
			}
		}
		if len(l.slow) > 0 && !began.Before(nextTimer) {
			nextTimer = began.Add(timerPeriod)
			for _, c := range l.slow {
				c.timer(began)
			}
		}
		if n > 0 {
			full = append(full, began)
			if turn := len(l.clients)/eventsMax + 1; len(full) > turn {
				full = append(full[:0], full[len(full)-turn:]...)
			}
			l.window.record(l.window.batch, int64(time.Since(began)), 1)
			l.window.record(l.window.wait, int64(time.Since(full[0])), int64(n))
		}
		if n < eventsMax {
			full = full[:0]
		}
	}
}

func (l *loop) readMail() {
	var b [8]byte
	_, _ = unix.Read(l.wakeFD, b[:])
	l.mu.Lock()
	mail := l.mail
	l.mail = nil
	l.mu.Unlock()
	for _, f := range mail {
		f()
	}
}

// phase is how far a connection has come.
type phase uint8

const (
	phaseNone phase = iota
	phaseConnecting
	phaseUpgrading
	phaseOpen
)

// client is one client. Its loop owns it.
type client struct {
	no      int
	group   *Group
	channel codec.Channel
	view    codec.View
	speaker Speaker
	watch   []int32 // nil: all
	path    string  // instead of the endpoint's
	loop    *loop
	timed   bool // its ages count

	fd      int
	secure  *secure // nil without TLS
	phase   phase
	reading bool // the loop reads for it when there is something
	writing bool // the loop waits until more can be written
	settled bool // all snapshots have come
	leaving bool // it closes, or may be closed
	in, out []byte
	rest    []byte // of the speaker

	subs  []follower
	index idIndex
	ends  int // snapshot ends that are awaited
	ref   uint64

	connectedAt time.Time
	napUntil    time.Time
	budget      float64 // bytes that a slow one may read now
	lastTimer   time.Time

	// Of this connection.
	frameNo                           uint64
	bytes, delivered, merged, dropped uint64
	ledger                            *codec.Ledger
	woke                              int64  // Unix ns; 0: not asleep before, or current again
	wokeBytes                         uint64 // read since
	currentAfter                      uint64 // bytes read until what came was sent after it woke
	currentWait                       time.Duration
	slept                             bool
}

// ready serves a socket.
func (c *client) ready(events uint32) {
	if c.phase == phaseConnecting {
		c.connected()
		return
	}
	if events&unix.EPOLLOUT != 0 {
		c.flush()
	}
	switch {
	case c.phase == phaseNone:
	case c.reading && events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0:
		c.read(readBuffer)
	case events&(unix.EPOLLHUP|unix.EPOLLERR) != 0: // told again and again, so it ends here
		c.lost(errors.New("the connection was reset"))
	}
}

// read reads at most most bytes, once, and what they hold.
func (c *client) read(most int) int {
	total := 0
	for {
		buf := c.loop.buf
		have := copy(buf, c.in)
		if have == len(buf) { // a message longer than the buffer
			buf = append(c.in, make([]byte, len(c.in))...)
			have = len(c.in)
		}
		n, err := c.readSome(buf[have:min(len(buf), have+most)])
		if err == unix.EAGAIN || err == unix.EINTR {
			return total
		}
		if n <= 0 {
			c.lost(fmt.Errorf("read: %w", orEOF(err)))
			return total
		}
		total += n
		c.loop.now = time.Now().UnixNano()
		c.bytes += uint64(n)
		c.loop.window.bytes += uint64(n)
		if c.woke != 0 {
			c.wokeBytes += uint64(n)
		}
		used := c.parse(buf[:have+n])
		if c.phase == phaseNone {
			return total
		}
		if left := buf[used : have+n]; len(left) > 0 {
			c.in = append(c.in[:0], left...)
		} else if cap(c.in) > 4<<10 {
			c.in = nil
		} else {
			c.in = c.in[:0]
		}
		if c.secure == nil || most < readBuffer {
			return total // what else there is, the loop tells again
		}
	}
}

func (c *client) readSome(b []byte) (int, error) {
	if c.secure != nil {
		return c.secure.read(b)
	}
	return readNow(c.fd, b)
}

var errEnd = errors.New("the server closed the connection")

func orEOF(err error) error {
	if err == nil {
		return errEnd
	}
	return err
}

// parse reads messages, and returns how many bytes it is done with.
func (c *client) parse(b []byte) (used int) {
	if c.phase == phaseUpgrading {
		n, err := c.upgraded(b)
		if err != nil {
			c.lost(err)
			return len(b)
		}
		if n == 0 {
			return 0
		}
		used = n
	}
	for c.phase == phaseOpen {
		rest := b[used:]
		if len(rest) < 2 {
			return used
		}
		size, head := uint64(rest[1]&0x7f), 2
		switch size {
		case 126:
			if len(rest) < 4 {
				return used
			}
			size, head = uint64(binary.BigEndian.Uint16(rest[2:])), 4
		case 127:
			if len(rest) < 10 {
				return used
			}
			size, head = binary.BigEndian.Uint64(rest[2:]), 10
		}
		if size > messageMax {
			c.fault(CheckFrame, nil, fmt.Sprintf("a message of %d bytes", size), fmt.Sprintf("at most %d", messageMax))
			c.lost(errors.New("a message too long"))
			return len(b)
		}
		if uint64(len(rest)-head) < size {
			return used
		}
		used += head + int(size)
		c.frame(rest[0], rest[head:head+int(size)], head)
	}
	return used
}

// frame takes one frame of the WebSocket.
func (c *client) frame(first byte, payload []byte, head int) {
	switch first {
	case 0x81, 0x82:
		c.loop.window.messages++
		if c.loop.trace != nil {
			c.loop.trace.add(c, head+len(payload))
		}
		answer, err := c.speaker.Read(&c.rest, payload, c.rows)
		if err != nil {
			c.fault(CheckFrame, nil, err.Error(), "a frame that can be read")
			c.lost(err)
			return
		}
		if answer != nil {
			c.message(answer)
		}
	case 0x89:
		c.control(0x8a, payload)
	case 0x8a:
	case 0x88:
		why := "no reason"
		if len(payload) >= 2 {
			why = fmt.Sprintf("%d %s", binary.BigEndian.Uint16(payload), payload[2:])
		}
		c.control(0x88, payload[:min(len(payload), 2)])
		c.lost(fmt.Errorf("the server closed: %s", why))
	default:
		c.fault(CheckFrame, nil, fmt.Sprintf("a frame that begins with 0x%02x", first), "whole messages, pings and close")
		c.lost(errors.New("a frame of an unknown kind"))
	}
}

// rows follows a frame of tickgate's.
func (c *client) rows(frame []byte) error {
	f, err := c.speaker.Spelling().OpenFrame(frame)
	if err != nil {
		return err
	}
	l := c.loop
	w := l.window
	w.frames++
	if c.frameNo++; c.loop.swarm.endpoint.Numbered && f.No != c.frameNo {
		c.fault(CheckFrame, nil, "frame "+num(f.No), "frame "+num(c.frameNo))
		c.frameNo = f.No
	}
	if c.woke != 0 && f.SentTime >= c.woke {
		c.currentAfter, c.currentWait, c.woke = c.wokeBytes, time.Duration(l.now-c.woke), 0
	}
	ticks := int64(0)
	u := &l.update
	for f.Next(u) {
		if u.Type > codec.EventSnapshot {
			c.event(&u.Event)
			continue
		}
		at, ok := c.index.get(u.ID)
		if !ok && l.swarm.endpoint.Early {
			continue
		}
		if !ok {
			c.fault(CheckFrame, nil, fmt.Sprintf("a %v row of id %d", u.Type, u.ID), "ids that were granted")
			continue
		}
		sub := &c.subs[at]
		bad := func(check, got, want string) { c.fault(check, sub, got, want) }
		if u.Type == codec.EventSnapshot {
			sub.snapshot(u, bad)
			w.snapshots++
			continue
		}
		merged := sub.tick(u, bad)
		c.delivered++
		c.merged += merged
		w.delivered++
		w.merged += merged
		ticks++
		if !c.timed {
			continue
		}
		due := u.EventTime
		if due == 0 || l.swarm.recorded {
			due = u.IngestTime
		}
		if l.now < due {
			w.negative++
		}
		w.record(w.age, l.now-due, 1)
		w.record(w.ingest, u.IngestTime-due, 1)
		w.record(w.gateway, f.SentTime-u.IngestTime, 1)
	}
	if ticks > 0 && c.timed {
		w.record(w.wire, l.now-f.SentTime, ticks)
	}
	return f.Err()
}

// event follows what is no tick.
func (c *client) event(e *codec.Event) {
	switch e.Type {
	case codec.EventGranted:
		c.granted(e)
	case codec.EventSnapshotEnd:
		if c.ends--; c.ends == 0 && !c.settled {
			c.settle()
		}
	case codec.EventDrop:
		c.dropped += e.Count
		c.loop.window.dropped += e.Count
		if at, ok := c.index.get(e.ID); ok {
			c.subs[at].dropped += e.Count
		}
	case codec.EventState:
		if at, ok := c.index.get(e.ID); ok && e.State == codec.StateGap {
			c.subs[at].lost = c.subs[at].goesOn
		}
	case codec.EventBehind:
		if at, ok := c.index.get(e.ID); ok {
			c.subs[at].behind = true
		}
	case codec.EventReset:
		if at, ok := c.index.get(e.ID); ok {
			sub := &c.subs[at]
			sub.reset(e.Epoch, func(check, got, want string) { c.fault(check, sub, got, want) })
		}
	case codec.EventLedger:
		l := e.Ledger
		c.ledger = &l
	case codec.EventGoaway:
		c.leaving = true
	case codec.EventRefused, codec.EventError:
		c.fault(CheckFrame, nil, e.Code+": "+e.Why+" "+e.Symbol, "what was asked for")
	}
}

func (c *client) settle() {
	c.settled = true
	c.loop.swarm.open.Add(1)
	c.loop.window.record(c.loop.window.settle, int64(time.Since(c.connectedAt)), 1)
}

func (c *client) granted(e *codec.Event) {
	symbol, ok := c.loop.swarm.bySymbol[e.Symbol]
	if !ok {
		symbol = -1 // of a file, or of somebody else under a pattern
		c.loop.swarm.names.Store(e.ID, strings.Clone(e.Symbol))
	}
	at := -1
	for i := range c.subs {
		if c.subs[i].symbol == symbol && (ok || c.subs[i].id == e.ID) {
			at = i
		}
	}
	if at < 0 {
		at = len(c.subs)
		c.subs = append(c.subs, follower{symbol: symbol, id: e.ID})
	}
	f := &c.subs[at]
	f.id, f.goesOn = e.ID, true
	if f.anew {
		f.anew, f.numbered, f.dropped = false, false, 0
	}
	if !f.known && e.Epoch != 0 {
		f.known, f.epoch = true, e.Epoch
	}
	c.index.set(e.ID, int32(at))
}

// fault tells of a violation.
func (c *client) fault(check string, f *follower, got, want string) {
	v := Violation{Check: check, Client: c.no, Got: got, Want: want}
	v.Channel = c.channel.String()
	if f != nil {
		v.Symbol = c.loop.swarm.name(f)
	} else {
		v.Symbol = c.watched()
	}
	c.loop.swarm.faults.add(v)
}

// watched names what the client follows, of which a violation of its connection
// or its counts is.
func (c *client) watched() string {
	name, n := "", len(c.subs)
	switch {
	case n > 0:
		name = c.loop.swarm.name(&c.subs[0])
	case c.watch == nil:
		return "*"
	default:
		name, n = c.loop.swarm.symbols[c.watch[0]], len(c.watch)
	}
	if n > 1 {
		name += fmt.Sprintf(" and %d more", n-1)
	}
	return name
}

func (s *swarm) name(f *follower) string {
	if f.symbol >= 0 {
		return s.symbols[f.symbol]
	}
	if name, ok := s.names.Load(f.id); ok {
		return name.(string)
	}
	return "?"
}

// sleeps have a reader not read for a while.
func (c *client) sleep(d time.Duration) {
	c.napUntil = time.Now().Add(d)
	c.slept = true
	c.setReading(false)
	c.loop.slow = append(c.loop.slow, c)
}

const (
	dripReads = time.Second
	dripCycle = 6 * time.Second
)

// timer serves a client that does not read at once.
func (c *client) timer(now time.Time) {
	if c.phase != phaseOpen {
		return
	}
	switch c.group.Does.Kind {
	case "sleeps":
		if !c.reading && !now.Before(c.napUntil) {
			c.woke, c.wokeBytes = now.UnixNano(), 0
			c.setReading(true)
		}
	case "drips":
		c.setReading(now.Sub(c.connectedAt)%dripCycle < dripReads)
	case "slow":
		if c.lastTimer.IsZero() {
			c.lastTimer = now
		}
		c.budget = min(c.budget+now.Sub(c.lastTimer).Seconds()*float64(c.group.Does.BytesPerSecond), float64(c.group.Does.BytesPerSecond))
		c.lastTimer = now
		if c.budget >= 1 {
			c.budget -= float64(c.read(min(int(c.budget), readBuffer/2)))
		}
	}
}

// behave begins what the group does besides reading.
func (c *client) behave() {
	switch c.group.Does.Kind {
	case "stalls":
		c.setReading(false)
	case "drips":
		c.loop.slow = append(c.loop.slow, c)
	case "slow":
		c.setReading(false)
		c.loop.slow = append(c.loop.slow, c)
	case "sleeps":
		c.sleep(time.Duration(c.group.Does.For))
	}
}

// readOn ends that.
func (c *client) readOn() {
	if c.phase == phaseOpen {
		c.setReading(true)
	}
}

// resubscribe drops a symbol and asks for it again.
func (c *client) resubscribe(rng *rand.Rand) {
	if c.phase != phaseOpen || !c.settled || len(c.subs) == 0 {
		return
	}
	f := &c.subs[rng.IntN(len(c.subs))]
	if f.symbol < 0 {
		return
	}
	var cmd codec.Command
	c.ref++
	cmd.Op, cmd.Channel, cmd.Ref = codec.OpUnsubscribe, c.channel, c.ref
	cmd.Symbols.Append(codec.SymbolItem{Name: []byte(c.loop.swarm.symbols[f.symbol])})
	c.command(&cmd)
	// What was under way still comes; then the symbol begins with a snapshot.
	// The follower goes on: what it holds must not go back.
	f.anew = true
	cmd.Op = codec.OpSubscribe
	c.terms(&cmd)
	c.ends++
	c.command(&cmd)
}

// terms puts in what the group asks for.
func (c *client) terms(cmd *codec.Command) {
	c.ref++
	cmd.Ref, cmd.Channel, cmd.View = c.ref, c.channel, c.view
	if c.loop.swarm.endpoint.Conflates {
		cmd.Every = time.Duration(c.group.Every)
	}
}

// subscribe asks for all that the client watches, going on where it was.
func (c *client) subscribe() {
	if hello := c.speaker.Hello(); hello != nil {
		c.message(hello)
	}
	var cmd codec.Command
	names := c.watch
	if names == nil {
		c.ends = 1
		cmd.Op = codec.OpSubscribe
		c.terms(&cmd)
		cmd.Symbols.Append(codec.SymbolItem{Name: []byte("*")})
		c.command(&cmd)
		return
	}
	c.ends = (len(names) + subscribeChunk - 1) / subscribeChunk
	for len(names) > 0 {
		n := min(len(names), subscribeChunk)
		cmd.Op = codec.OpSubscribe
		c.terms(&cmd)
		cmd.Symbols.Reset()
		for _, symbol := range names[:n] {
			it := codec.SymbolItem{Name: []byte(c.loop.swarm.symbols[symbol])}
			for i := range c.subs {
				if f := &c.subs[i]; f.symbol == symbol && f.known && f.seq > 0 {
					it.HasFrom, it.Epoch, it.Seq = true, f.epoch, f.seq
				}
			}
			cmd.Symbols.Append(it)
		}
		c.command(&cmd)
		names = names[n:]
	}
}

func (c *client) command(cmd *codec.Command) {
	if b := c.speaker.Command(nil, cmd); b != nil {
		c.message(b)
	}
}

// message sends a text or binary message.
func (c *client) message(b []byte) {
	op := byte(0x82)
	if c.speaker.Text() {
		op = 0x81
	}
	c.control(op, b)
}

// control sends a frame, masked as a client must.
func (c *client) control(first byte, payload []byte) {
	c.out = append(c.out, first)
	switch n := len(payload); {
	case n < 126:
		c.out = append(c.out, 0x80|byte(n))
	case n < 1<<16:
		c.out = binary.BigEndian.AppendUint16(append(c.out, 0x80|126), uint16(n))
	default:
		c.out = binary.BigEndian.AppendUint64(append(c.out, 0x80|127), uint64(n))
	}
	mask := rand.Uint32()
	c.out = binary.LittleEndian.AppendUint32(c.out, mask)
	for i, b := range payload {
		c.out = append(c.out, b^byte(mask>>(8*(i&3))))
	}
	c.flush()
}

// flush writes what is left.
func (c *client) flush() {
	for len(c.out) > 0 {
		var n int
		var err error
		if c.secure != nil {
			n, err = c.secure.write(c.out)
		} else {
			n, err = unix.Write(c.fd, c.out)
		}
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return // the read side tells
		}
		c.out = c.out[n:]
	}
	if len(c.out) == 0 {
		c.out = nil
	}
	c.watchFD(c.reading, len(c.out) > 0)
}

func (c *client) setReading(on bool) { c.watchFD(on, c.writing) }

// watchFD says what the loop waits for.
func (c *client) watchFD(reading, writing bool) {
	if c.reading == reading && c.writing == writing || c.phase == phaseNone {
		return
	}
	c.reading, c.writing = reading, writing
	var e unix.EpollEvent
	e.Fd = int32(c.fd)
	if reading {
		e.Events |= unix.EPOLLIN
	}
	if writing {
		e.Events |= unix.EPOLLOUT
	}
	_ = unix.EpollCtl(c.loop.ep, unix.EPOLL_CTL_MOD, c.fd, &e)
}

// drop closes the connection without a word.
func (c *client) drop() {
	if c.phase == phaseNone {
		return
	}
	delete(c.loop.clients, int32(c.fd))
	_ = unix.Close(c.fd)
	c.phase = phaseNone
	if c.settled {
		c.loop.swarm.open.Add(-1)
	}
	c.settled = false
}

// lost takes a connection that has ended.
func (c *client) lost(err error) {
	was := c.phase
	c.drop()
	s := c.loop.swarm
	s.lastErr.Store(&err)
	if was != phaseOpen {
		s.refused.Add(1)
		return
	}
	s.closed.Add(1)
	if c.leaving {
		return
	}
	switch c.group.Does.Kind {
	case "reads", "reconnects", "resubscribes":
		c.fault(CheckOpen, nil, err.Error(), "an open connection")
	}
}

// idIndex finds a follower by topic id: open addressing, a power of two long.
type idIndex struct {
	slots []idSlot
	n     int
}

type idSlot struct {
	key uint32 // id + 1; 0 is free
	at  int32
}

func (x *idIndex) get(id uint32) (int32, bool) {
	if len(x.slots) == 0 {
		return 0, false
	}
	mask := uint32(len(x.slots) - 1)
	for i := id * 2654435761 & mask; ; i = (i + 1) & mask {
		switch x.slots[i].key {
		case id + 1:
			return x.slots[i].at, true
		case 0:
			return 0, false
		}
	}
}

func (x *idIndex) set(id uint32, at int32) {
	if 2*(x.n+1) > len(x.slots) {
		old := x.slots
		*x = idIndex{slots: make([]idSlot, max(8, 2*len(old)))}
		for _, s := range old {
			if s.key != 0 {
				x.set(s.key-1, s.at)
			}
		}
	}
	mask := uint32(len(x.slots) - 1)
	for i := id * 2654435761 & mask; ; i = (i + 1) & mask {
		s := &x.slots[i]
		if s.key == 0 {
			x.n++
		}
		if s.key == 0 || s.key == id+1 {
			*s = idSlot{id + 1, at}
			return
		}
	}
}
