package socket

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lxzan/gws"

	"tickgate/codec"
)

const (
	// unreadMax is how many bytes a client may have been sent and not read,
	// unless its line needs more. A client's own receive buffer would hide
	// seconds of prices.
	unreadMax = 64 << 10

	// unreadTrips is for how many round trips of a ping a client may have
	// unread what it reads in that time, at most a second: less would have a
	// long fast line wait for our knowing that it reads. (The design says a
	// second: a client that read a megabyte a second and fell asleep then had
	// a megabyte to chew before it was current.)
	unreadTrips = 2

	// tripTicks is over how many ticks the least round trip is taken.
	tripTicks = 4

	// idlePing keeps middleboxes, which forget a connection after 30 to 60 s
	// without a byte, from forgetting this one.
	idlePing = 25 * time.Second

	// deadMax is how long bytes may be under way without any sign of the
	// peer's TCP.
	deadMax = 15 * time.Second

	// userTimeoutSlack is how much later than StallMax the kernel may give up:
	// TCP_USER_TIMEOUT also kills a living peer whose window is closed, and
	// such a one shall get the reason "stalled" from us.
	userTimeoutSlack = 15 * time.Second

	// drainMax bounds how long a closing socket waits for its remainder to be
	// taken, and then for the client to close its side.
	drainMax = time.Second

	// drainPollMin to drainPollMax is how often the remainder of a closing
	// socket is tried.
	drainPollMin = 5 * time.Millisecond
	drainPollMax = 100 * time.Millisecond

	// scrapMax is how much a closing client may send in drainPollMin: to read
	// one that floods as fast as it can would cost most of a core.
	scrapMax = 128 << 10

	// tickMin is the least time between two ticks: rates over less say little.
	tickMin = 500 * time.Millisecond

	pingBytes = 8 // of a ping's payload: the bytes of frames sent before it
)

// ErrFrameTooBig ends a socket whose frame has more than FrameMax bytes.
var ErrFrameTooBig = errors.New("socket: frame longer than FrameMax")

// A Handler takes one message of the client; b is its own until it returns, which
// must be soon: other sockets wait to be read. A reason closes the socket.
type Handler func(text bool, b []byte) codec.CloseReason

// Socket is one client connection that has been upgraded.
type Socket struct {
	// Fixed by Upgrade.
	wire    *wire
	tls     *tls.Conn // nil without TLS
	out     net.Conn  // where frames go: tls or wire
	opcode  byte      // of our frames
	options *Options
	readers *readers
	remote  netip.AddrPort

	// Fixed by Serve.
	handler Handler
	again   func() // the client has read; may be nil

	// Guarded by readers.mu.
	fd    int
	reads readState

	paused atomic.Bool // the handler takes no more for now

	// reading is held by the desk that reads, and for good by who sees the
	// socket out. No one waits while holding it, before that.
	reading sync.Mutex
	guard   guard
	readErr error

	// messageBegan is when the message that is arriving began, by monotonic;
	// 0 between messages. Who reads writes it and Tick reads it.
	messageBegan atomic.Int64

	closed atomic.Bool // as reason != ""

	mu       sync.Mutex
	reason   codec.CloseReason // set once; then nothing but the remainder is sent
	ended    func(codec.CloseReason)
	pong     []byte // the newest ping's payload that is not answered yet
	owesPong bool
	frames   uint64 // sent, the first is 1
	bytes    uint64 // of frames sent
	marks    *marks // nil until the client acknowledges a frame

	// What the client has read: told by pongs, which come in reading order,
	// and by acknowledgements.
	confirmed uint64        // bytes of frames
	pinging   bool          // a ping is under way
	pinged    uint64        // bytes sent before it
	pingedAt  time.Duration // by monotonic
	wanted    bool          // Ready said no for want of it
	readRate  uint64        // bytes confirmed between the last two ticks, per second
	trip      time.Duration // the least of late; 0: not known
	tripLast  time.Duration // of the tripTicks before
	tripAge   int           // ticks since trip began anew

	// As of the last Tick.
	tickAt        time.Time
	tickConfirmed uint64
	tickProgress  uint64
	tickBytes     uint64
	tookAt        time.Time // when the client last took anything, or owed nothing
	quietAt       time.Time // since when nothing has been sent
	aheadAt       time.Time // since when bytes have been under way unacknowledged
}

// marks remembers where recent frames ended, sparsely.
type marks struct {
	n  int
	at [markCount]mark
}

type mark struct{ frame, bytes uint64 }

// markCount marks, one each markBytes, span four times unreadMax.
const (
	markCount = 32
	markBytes = 8 << 10
)

// RemoteAddr is the client's address.
func (s *Socket) RemoteAddr() netip.AddrPort { return s.remote }

// closing tells whether Close has been called.
func (s *Socket) closing() bool { return s.closed.Load() }

// Ready tells whether the next frame may be spelled: nothing is left over,
// the kernel sends what it has, and the client reads what it was sent.
func (s *Socket) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = !s.readingLocked()
	return s.reason == "" && !s.wanted && s.wire.clear()
}

// readingLocked tells whether the client has read enough of what it was sent:
// all but what its line needs.
func (s *Socket) readingLocked() bool {
	return s.bytes-s.confirmed <= s.allowanceLocked()
}

func (s *Socket) allowanceLocked() uint64 {
	trip := s.trip
	if trip == 0 || s.tripLast != 0 && s.tripLast < trip {
		trip = s.tripLast
	}
	rate := max(s.readRate, s.confirmed-s.tickConfirmed) // a second
	return max(unreadMax, rate*uint64(min(unreadTrips*trip, time.Second))/uint64(time.Second))
}

// WriteFrame sends one frame whose payload is buf[HeaderRoom:], and never
// blocks: what the kernel does not take now is left over for Flush, and whole
// is false. An error means that the socket is closing.
func (s *Socket) WriteFrame(buf []byte) (whole bool, err error) {
	payload := len(buf) - HeaderRoom
	if payload > FrameMax {
		s.Close(codec.CloseInternal)
		return false, ErrFrameTooBig
	}
	var f []byte
	if payload <= controlBytesMax {
		f = buf[HeaderRoom-2:]
		f[1] = byte(payload)
	} else {
		f = buf[HeaderRoom-4:]
		f[1] = 126
		binary.BigEndian.PutUint16(f[2:], uint16(payload))
	}
	f[0] = 0x80 | s.opcode

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != "" {
		return false, ErrClosed
	}
	if _, err := s.out.Write(f); err != nil {
		return false, err
	}
	whole = s.wire.empty()
	s.frames++
	s.bytes += uint64(len(f))
	if s.marks != nil {
		s.marks.add(mark{s.frames, s.bytes})
	}
	if whole && s.owesPong {
		s.pongLocked()
	}
	if !s.pinging && s.bytes-s.confirmed > s.allowanceLocked()/2 {
		s.pingLocked()
	}
	return whole, nil
}

// Flush tries the remainder once, and tells whether none is left.
func (s *Socket) Flush() (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != "" {
		return false, ErrClosed
	}
	return s.flushLocked()
}

func (s *Socket) flushLocked() (done bool, err error) {
	if done, err = s.wire.flush(); done && s.owesPong {
		s.pongLocked()
	}
	return done, err
}

// Tick is called about once a second with the time. It tries what is left over,
// pings a client that is being sent something and judges whether it lives; a
// reason means that the socket must be closed.
func (s *Socket) Tick(now time.Time) codec.CloseReason {
	if began := s.messageBegan.Load(); began != 0 && now.Sub(started)-time.Duration(began) > s.options.MessageTimeMax {
		return codec.CloseSlowMessage
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != "" {
		return ""
	}
	if s.tickAt.IsZero() {
		s.tickAt, s.tookAt, s.quietAt = now, now, now
		return ""
	}
	elapsed := now.Sub(s.tickAt)
	if elapsed < tickMin {
		return ""
	}
	if s.tripAge++; s.tripAge >= tripTicks && s.trip != 0 {
		s.tripLast, s.trip, s.tripAge = s.trip, 0, 0
	}
	s.readRate = (s.confirmed - s.tickConfirmed) * uint64(time.Second) / uint64(elapsed)

	if s.bytes != s.tickBytes {
		s.quietAt = now
	}
	// A shard flushes for a frame of its own. What may be left over besides is a
	// pong, a ping or new TLS keys, and there may be no more frame for long.
	if !s.wire.empty() {
		_, _ = s.flushLocked() // an error has ended the wire
	}
	if s.wire.empty() && !s.pinging && (s.bytes != s.confirmed || now.Sub(s.quietAt) >= idlePing) {
		s.pingLocked()
		s.quietAt = now
	}

	took := s.confirmed != s.tickConfirmed
	if !took && (s.pinging || s.bytes != s.confirmed) {
		progress := s.wire.progress()
		took = progress != s.tickProgress
		s.tickProgress = progress
	}
	s.tickAt, s.tickConfirmed, s.tickBytes = now, s.confirmed, s.bytes
	if took || s.bytes == s.confirmed && !s.pinging {
		s.tookAt, s.aheadAt = now, time.Time{}
		return ""
	}
	if s.readingLocked() && s.wire.clear() {
		s.tookAt = now // it could be sent more
	}
	switch {
	case s.deadLocked(now):
		return codec.CloseDead
	case now.Sub(s.tookAt) >= s.options.StallMax:
		return codec.CloseStalled
	}
	return ""
}

// deadLocked tells whether segments have been under way for DeadMax without a
// sign of the peer. Bytes that wait for a closed window are not under way: a
// peer that does not read is stalled, not dead.
func (s *Socket) deadLocked(now time.Time) bool {
	info, err := s.wire.info()
	if err != nil || info.Unacked == 0 {
		s.aheadAt = time.Time{}
		return false
	}
	if s.aheadAt.IsZero() {
		s.aheadAt = now
	}
	silent := time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond
	return now.Sub(s.aheadAt) >= s.options.DeadMax && silent >= s.options.DeadMax
}

// Acked tells that the client has read frame no and all before it.
func (s *Socket) Acked(no uint64) {
	s.mu.Lock()
	if no == 0 || no > s.frames {
		s.mu.Unlock()
		return // of a frame that was never sent: worth nothing
	}
	if s.marks == nil {
		s.marks = new(marks)
	}
	if no == s.frames {
		s.confirmLocked(s.bytes)
	} else {
		s.confirmLocked(s.marks.before(no))
	}
	s.unlockConfirmed()
}

// unlockConfirmed unlocks, and tells who waits if the client has read enough.
func (s *Socket) unlockConfirmed() {
	tell := s.wanted && s.again != nil && s.readingLocked()
	if tell {
		s.wanted = false
	}
	s.mu.Unlock()
	if tell {
		s.again() // takes no lock that is held by who calls us
	}
}

func (s *Socket) confirmLocked(bytes uint64) {
	s.confirmed = max(s.confirmed, bytes)
	if s.pinging && s.confirmed >= s.pinged {
		s.pinging = false
		if trip := monotonic() - s.pingedAt; s.trip == 0 || trip < s.trip {
			s.trip = trip
		}
	}
}

// add keeps m if it is markBytes after the newest mark, and forgets the oldest.
func (k *marks) add(m mark) {
	if k.n > 0 && m.bytes-k.at[(k.n-1)%markCount].bytes < markBytes {
		return
	}
	k.at[k.n%markCount] = m
	k.n++
}

// before is where the newest marked frame ended that is not after frame no.
func (k *marks) before(no uint64) uint64 {
	for i := k.n - 1; i >= max(0, k.n-markCount); i-- {
		if m := k.at[i%markCount]; m.frame <= no {
			return m.bytes
		}
	}
	return 0
}

func (s *Socket) pingLocked() {
	var payload [pingBytes]byte
	binary.BigEndian.PutUint64(payload[:], s.bytes)
	s.controlLocked(opPing, payload[:])
	s.pinging, s.pinged, s.pingedAt = true, s.bytes, monotonic()
}

func (s *Socket) pongLocked() {
	s.controlLocked(opPong, s.pong)
	s.pong, s.owesPong = nil, false
}

// controlLocked sends a control frame. An error has ended the wire, which who
// reads sees.
func (s *Socket) controlLocked(op byte, payload []byte) {
	var f [2 + controlBytesMax]byte
	f[0], f[1] = 0x80|op, byte(len(payload))
	_, _ = s.out.Write(f[:2+copy(f[2:], payload)])
}

// gotPing owes the client a pong: at once if nothing is left over, else the
// newest one after the frame at hand.
func (s *Socket) gotPing(payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != "" {
		return
	}
	s.pong, s.owesPong = payload, true
	if s.wire.empty() {
		s.pongLocked()
	}
}

// gotPong takes the answer to our ping. Some libraries answer without the
// payload; a pong that we did not ask for tells nothing.
func (s *Socket) gotPong(payload []byte) {
	s.mu.Lock()
	defer s.unlockConfirmed()
	if !s.pinging || (len(payload) != 0 && (len(payload) != pingBytes || binary.BigEndian.Uint64(payload) != s.pinged)) {
		return
	}
	s.confirmLocked(s.pinged)
	s.pinging = false
	// A client that reads on shall be known to in a round trip, not at the tick.
	if s.bytes-s.confirmed > s.allowanceLocked()/2 && s.wire.empty() {
		s.pingLocked()
	}
	s.guard.frames.giveBack(1)
	s.wire.reads.giveBack(1)
}

// Close begins to close and returns at once. The close frame is the last that
// is sent; the client gets drainMax to take what is left over and as long to
// close its side; then the connection ends, in Serve. The first reason counts.
func (s *Socket) Close(reason codec.CloseReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != "" {
		return
	}
	if reason == codec.CloseGone {
		reason = s.wire.ended() // a shard whose write fails knows no better
	}
	s.reason = reason
	s.closed.Store(true)
	s.pong, s.owesPong = nil, false
	if s.wire.room() >= controlRoom/2 {
		var payload [controlBytesMax]byte
		binary.BigEndian.PutUint16(payload[:], reason.Code())
		s.controlLocked(opClose, payload[:2+copy(payload[2:], reason)])
	}
	if s.ended != nil {
		go s.finish() // who called Serve waits for ended
	}
}

// finish sees a socket out that is closing.
func (s *Socket) finish() {
	s.flushOut()
	_ = s.wire.tcp.SetReadDeadline(time.Now().Add(drainMax))
	s.reading.Lock()
	if !errors.Is(s.readErr, io.EOF) { // so that a client that still sends gets the reason and no RST
		var scrap [512]byte
		for read := 0; ; {
			n, err := s.wire.Conn.Read(scrap[:])
			if err != nil {
				break
			}
			if read += n; read >= scrapMax {
				read = 0
				time.Sleep(drainPollMin)
			}
		}
	}
	s.readers.remove(s)
	_ = s.wire.Close()
	s.mu.Lock()
	reason := s.reason
	s.mu.Unlock()
	s.ended(reason)
}

// flushOut sees the remainder out.
func (s *Socket) flushOut() {
	if s.tls != nil && s.wire.room() >= controlRoom/4 {
		_ = s.tls.CloseWrite() // says close_notify; an error has ended the wire
	}
	until := time.Now().Add(drainMax)
	for poll := drainPollMin; ; poll = min(2*poll, drainPollMax) {
		done, err := s.wire.flush()
		if err != nil {
			return // the wire is closed
		}
		if done {
			break
		}
		if time.Now().After(until) {
			s.wire.reset()
			return
		}
		time.Sleep(poll)
	}
	_ = s.wire.tcp.CloseWrite() // fails if the peer has reset: reading tells
}

// Serve has the socket read, and returns at once. h is called with one message
// after another and must not wait; again, which may be nil, when a client has
// read for whose reading Ready waits; ended once, when the connection has ended,
// with the reason. Each socket must be served once, even one that is closing.
func (s *Socket) Serve(h Handler, again func(), ended func(codec.CloseReason)) {
	s.handler = h
	s.mu.Lock()
	s.again, s.ended = again, ended
	closing := s.reason != ""
	s.mu.Unlock()
	if closing {
		go s.finish()
		return
	}
	if err := s.readers.add(s); err != nil {
		s.Close(codec.CloseGone)
		return
	}
	s.readers.look(s) // something may have come before
}

// Pause has no more read from the client until Resume. The handler is still
// called with messages that have been read already: no more than deskBufferBytes.
func (s *Socket) Pause() { s.paused.Store(true) }

// Resume is the end of Pause.
func (s *Socket) Resume() {
	s.paused.Store(false)
	s.readers.look(s)
}

// endReason is why the reading ended.
func (s *Socket) endReason() codec.CloseReason {
	var closeFrame *gws.CloseError
	var op *net.OpError
	switch {
	case s.wire.tooFast:
		return codec.CloseTooFast
	case s.guard.gwsCode == 1009:
		return codec.CloseTooBig
	case s.guard.gwsCode == 1002, s.guard.gwsCode == 1003, s.guard.gwsCode == 1007:
		return codec.CloseProtocol
	case errors.As(s.readErr, &closeFrame):
		return codec.CloseNormal // whatever came after it
	case s.guard.reason != "":
		return s.guard.reason
	case errors.As(s.readErr, &op) && op.Op == "local error": // crypto/tls refused what it read
		return codec.CloseProtocol
	case errors.Is(s.readErr, syscall.ETIMEDOUT):
		return codec.CloseDead
	}
	return s.wire.ended()
}

// Stats are figures of one socket.
type Stats struct {
	Frames, Bytes uint64 // sent; of frames, before TLS
	Attempts      uint64 // write(2) calls
	Left          int    // bytes of the remainder
	Unread        uint64 // bytes of frames not known to be read
}

// Stats tells how the socket stands.
func (s *Socket) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	return Stats{
		Frames: s.frames, Bytes: s.bytes, Unread: s.bytes - s.confirmed,
		Attempts: s.wire.attempts, Left: s.wire.leftLocked(),
	}
}

// events is what gws calls, at a desk, for the socket that it reads.
type events struct{}

func socketOf(c *gws.Conn) *Socket { return c.NetConn().(*desk).s }

func (events) OnOpen(*gws.Conn) {}

func (events) OnClose(c *gws.Conn, err error) {
	if s := socketOf(c); s != nil { // else the desk ends
		s.readErr = err
	}
}

func (events) OnPing(c *gws.Conn, payload []byte) { socketOf(c).gotPing(payload) }
func (events) OnPong(c *gws.Conn, payload []byte) { socketOf(c).gotPong(payload) }

func (events) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	s := socketOf(c)
	if s.closing() {
		return
	}
	if reason := s.handler(m.Opcode == gws.OpcodeText, m.Bytes()); reason != "" {
		s.Close(reason)
	}
}
