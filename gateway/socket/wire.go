package socket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tickgate/codec"
)

const (
	// controlRoom is what the remainder may hold besides one frame: a pong, a
	// ping and a close frame.
	controlRoom = 512

	// tlsRoom is what TLS may add to all of it: 2 % of a frame, which is more
	// than its two records need, and the records of the control frames.
	tlsRoom = FrameMax/50 + 128

	// notsentLow is TCP_NOTSENT_LOWAT: what the kernel may hold of bytes that
	// it has not sent. More would only be prices getting old. It looks at it
	// before each segment: on loopback 39 to 65 KB were seen.
	notsentLow = 16 << 10

	// unsentMax is how many unsent bytes a client may have before the next
	// frame is spelled for it.
	unsentMax = 16 << 10
)

var (
	// ErrClosed is the answer of a socket that is closing or closed.
	ErrClosed = errors.New("socket: closed")

	// errOverrun ends a socket that is given more than may be left over.
	errOverrun = errors.New("socket: more than the remainder may hold")

	// errTooFast ends the reading from a client beyond its limits.
	errTooFast = errors.New("socket: bytes or reads beyond the limit")
)

// wire is the TCP connection under a socket. Until nonblocking is called it is
// an ordinary one; then Write takes everything at once, and deadlines are set
// by this package only.
type wire struct {
	net.Conn // the same as tcp
	tcp      *net.TCPConn
	raw      syscall.RawConn
	fd       uintptr // used by who holds mu and has seen that broken is nil: it is closed under mu
	released func()  // told once, when the connection is upgraded or closed
	once     sync.Once

	switched atomic.Bool
	socket   *Socket // set before switched

	// Owned by whoever holds Socket.reading.
	reads, bytes bucket
	tooFast      bool
	read         func(fd uintptr) bool // made once, so that a read allocates nothing
	in           []byte
	inN          int
	inErr        error

	mu           sync.Mutex
	remainderMax int
	remainder    []byte // what the kernel did not take; empty or remainder[sent:]
	sent         int
	broken       error  // no more writes; the file descriptor is closed
	taken        uint64 // bytes that the kernel took
	attempts     uint64 // write(2) calls
	unsent       int    // at most so many bytes in the kernel have not been sent

}

func newWire(c *net.TCPConn) (*wire, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	w := &wire{Conn: c, tcp: c, raw: raw}
	if err := raw.Control(func(fd uintptr) { w.fd = fd }); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	w.read = func(fd uintptr) bool {
		w.inN, w.inErr = ReadNow(fd, w.in)
		return true
	}
	return w, nil
}

// nonblocking switches the wire over. Nobody may be reading or writing.
func (w *wire) nonblocking(o *Options, tls bool) error {
	w.remainderMax = FrameMax + HeaderRoom + controlRoom
	if tls {
		w.remainderMax += tlsRoom
	}
	w.reads = newBucket(o.ReadsPerSecond, o.ReadsPerSecond*burstSeconds)
	w.bytes = newBucket(o.BytesPerSecond, o.BytesPerSecond*burstSeconds)
	if err := w.tcp.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	var err error
	if e := w.raw.Control(func(fd uintptr) {
		err = errors.Join(
			os.NewSyscallError("setsockopt TCP_NOTSENT_LOWAT",
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notsentLow)),
			os.NewSyscallError("setsockopt TCP_USER_TIMEOUT",
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT,
					int((o.StallMax+userTimeoutSlack)/time.Millisecond))),
		)
	}); e != nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	w.switched.Store(true)
	return nil
}

// Read counts what a client sends, before TLS and WebSocket make sense of it.
// Once switched it does not wait: if there is nothing, the error is errAgain.
func (w *wire) Read(b []byte) (int, error) {
	if !w.switched.Load() || len(b) == 0 {
		return w.Conn.Read(b)
	}
	w.in = b
	err := w.raw.Read(w.read)
	w.in = nil
	n := 0
	switch {
	case err != nil:
	case w.inErr == syscall.EAGAIN:
		return 0, errAgain
	case w.inErr != nil:
		err = os.NewSyscallError("read", w.inErr)
	case w.inN == 0:
		err = io.EOF
	default:
		n = w.inN
	}
	if n > 0 && !w.tooFast {
		now := monotonic()
		inTime := w.reads.take(now, 1)
		if !w.bytes.take(now, n) || !inTime {
			w.tooFast = true
		}
	}
	if w.tooFast {
		return 0, errTooFast
	}
	return n, err
}

// Write takes all of b or breaks the wire, and never blocks.
func (w *wire) Write(b []byte) (int, error) {
	if !w.switched.Load() {
		return w.Conn.Write(b)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return 0, w.broken
	}
	n := 0
	if len(w.remainder) == 0 {
		var err error
		if n, err = w.tryLocked(b); err != nil {
			return 0, w.breakLocked(err)
		}
	}
	if n < len(b) {
		if w.leftLocked()+len(b)-n > w.remainderMax {
			return 0, w.breakLocked(errOverrun)
		}
		if w.sent > 0 {
			w.remainder = append(w.remainder[:0], w.remainder[w.sent:]...)
			w.sent = 0
		}
		w.remainder = append(w.remainder, b[n:]...)
	}
	return len(b), nil
}

// tryLocked gives b to the kernel and tells how much of it was taken.
func (w *wire) tryLocked(b []byte) (int, error) {
	w.attempts++
	n, err := WriteNow(w.fd, b)
	if err == syscall.EAGAIN {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("write", err)
	}
	w.taken += uint64(n)
	w.unsent += n
	return n, nil
}

// breakLocked ends the connection: a stream with a hole in it is worth nothing.
func (w *wire) breakLocked(err error) error {
	w.broken = err
	w.remainder, w.sent = nil, 0
	w.closeFD()
	if w.socket != nil {
		w.socket.readers.look(w.socket) // the kernel tells nothing of what we have closed
	}
	return err
}

func (w *wire) leftLocked() int { return len(w.remainder) - w.sent }

// flush tries the remainder and tells whether none is left.
func (w *wire) flush() (done bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return false, w.broken
	}
	if len(w.remainder) == 0 {
		return true, nil
	}
	n, err := w.tryLocked(w.remainder[w.sent:])
	if err != nil {
		return false, w.breakLocked(err)
	}
	if w.sent += n; w.sent < len(w.remainder) {
		return false, nil
	}
	w.remainder, w.sent = nil, 0
	return true, nil
}

// room is how much more may be left over.
func (w *wire) room() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.remainderMax - w.leftLocked()
}

// clear tells whether the kernel took everything, and has sent so much of it
// that more would not only be waiting there.
func (w *wire) clear() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil || len(w.remainder) > 0 {
		return false
	}
	if w.unsent > unsentMax {
		w.refreshUnsentLocked()
	}
	return w.unsent <= unsentMax
}

// empty tells whether nothing is left over.
func (w *wire) empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken == nil && len(w.remainder) == 0
}

func (w *wire) refreshUnsentLocked() {
	if n, err := unix.IoctlGetInt(int(w.fd), unix.SIOCOUTQNSD); err == nil {
		w.unsent = n
	}
}

// progress is how many bytes have left this machine's queues; it grows as
// long as the client takes anything.
func (w *wire) progress() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unsent > 0 && w.broken == nil {
		w.refreshUnsentLocked()
	}
	return w.taken - min(w.taken, uint64(w.unsent))
}

// info is what the kernel knows of the connection.
func (w *wire) info() (*unix.TCPInfo, error) {
	var info *unix.TCPInfo
	var err error
	if e := w.raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); e != nil {
		err = e
	}
	return info, err
}

// Close is called by net/http before the upgrade and by the socket after it.
func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		w.broken = ErrClosed
	}
	w.remainder, w.sent = nil, 0
	return w.closeFD()
}

func (w *wire) closeFD() error {
	err := w.Conn.Close()
	w.release()
	return err
}

func (w *wire) release() {
	w.once.Do(func() {
		if w.released != nil {
			w.released()
		}
	})
}

// reset ends the connection by RST: what the kernel holds goes too.
func (w *wire) reset() {
	_ = w.tcp.SetLinger(0) // only fails if the peer was faster
	_ = w.Close()
}

// After the switch, deadlines of others (gws, crypto/tls) count for nothing.

func (w *wire) SetDeadline(t time.Time) error {
	if w.switched.Load() {
		return nil
	}
	return w.Conn.SetDeadline(t)
}

func (w *wire) SetReadDeadline(t time.Time) error {
	if w.switched.Load() {
		return nil
	}
	return w.Conn.SetReadDeadline(t)
}

func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.switched.Load() {
		return nil
	}
	return w.Conn.SetWriteDeadline(t)
}

// ended is the reason why the wire ended, as far as it knows one.
func (w *wire) ended() codec.CloseReason {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case errors.Is(w.broken, errOverrun):
		return codec.CloseStalled
	case errors.Is(w.broken, syscall.ETIMEDOUT):
		return codec.CloseDead
	}
	return codec.CloseGone
}
