package socket

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/lxzan/gws"
	"golang.org/x/sys/unix"
)

// The design had a goroutine read for each socket. Parked inside gws it held a
// stack of 8 KB, twice what all else of an idle client takes, and a bufio.Reader.
// So a socket that sends nothing has none: a few desks, each a goroutine inside
// gws's loop on a connection that is whichever socket has something to say, read
// for all. It works because a guard shows gws whole messages only: between two
// of them gws knows nothing of the socket.

const (
	// deskBufferBytes is what a desk reads with.
	deskBufferBytes = 4 << 10

	// readyMax is how many ready sockets one look gives.
	readyMax = 128

	// turnBytes is how much a desk reads from a socket before the others have
	// their turn: one that always has more would keep it for good.
	turnBytes = 64 << 10

	// desksMin is so many that one can wait for sockets while another reads.
	desksMin = 2
)

// readers are the desks and the sockets they read for. A desk that has nothing
// to read waits for all sockets at once; the others wait for that one.
type readers struct {
	file *os.File // an epoll instance, for which Go's own poller waits
	raw  syscall.RawConn
	fd   int
	gws  *gws.Upgrader

	mu      sync.Mutex
	more    sync.Cond // the queue has something, nobody waits for sockets, or closed
	sockets []*Socket // by file descriptor
	queue   []*Socket // have something to read
	waiting bool      // a desk waits for sockets
	closed  bool
}

// readState is where a socket stands with the desks. Guarded by readers.mu.
type readState uint8

const (
	readNot    readState = iota // not served yet: there is no handler
	readIdle                    // nothing to read
	readQueued                  // in the queue
	readBusy                    // a desk reads
	readAgain                   // a desk reads, and more has come meanwhile
	readOver                    // seen out; for good
)

func newReaders(o *gws.ServerOption) (*readers, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or os.NewFile would not have it polled
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	r := &readers{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, gws: gws.NewUpgrader(events{}, o)}
	r.more.L = &r.mu
	if r.raw, err = r.file.SyscallConn(); err != nil {
		_ = r.file.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	return r, nil
}

// run reads until ctx is done, when no socket may be left.
func (r *readers) run(ctx context.Context) {
	var desks sync.WaitGroup
	for range max(desksMin, runtime.GOMAXPROCS(0)) {
		desks.Go((&desk{readers: r}).run)
	}
	<-ctx.Done()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.more.Broadcast()
	_ = r.file.SetReadDeadline(time.Now()) // who waits for sockets waits no more
	desks.Wait()
	_ = r.file.Close()
}

// add begins to look after a socket, whose handler is set. Before that no desk
// reads it, whatever happens to its wire.
func (r *readers) add(s *Socket) error {
	var err error
	if e := s.wire.raw.Control(func(fd uintptr) {
		if r.enter(s, int(fd)) {
			err = unix.EpollCtl(r.fd, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{
				Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET&(1<<32-1), Fd: int32(fd)})
		}
	}); e != nil {
		return e
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// enter notes whose descriptor it is, unless that one has been seen out already.
func (r *readers) enter(s *Socket, fd int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.reads == readOver {
		return false
	}
	for fd >= len(r.sockets) {
		r.sockets = append(r.sockets, make([]*Socket, max(64, len(r.sockets)))...)
	}
	r.sockets[fd], s.fd, s.reads = s, fd, readIdle
	return true
}

// remove ends that. The kernel forgets the descriptor when it is closed.
func (r *readers) remove(s *Socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.fd < len(r.sockets) && r.sockets[s.fd] == s {
		r.sockets[s.fd] = nil
	}
	s.reads = readOver
}

// look has a desk look at the socket.
func (r *readers) look(s *Socket) {
	r.mu.Lock()
	r.lookLocked(s)
	r.mu.Unlock()
	r.more.Signal()
}

func (r *readers) lookLocked(s *Socket) {
	switch s.reads {
	case readIdle:
		s.reads = readQueued
		r.queue = append(r.queue, s)
	case readBusy:
		s.reads = readAgain
	}
}

// done lets go of a socket that has nothing more to read, unless it has. Who finds
// it in the queue from then on can have it.
func (r *readers) done(s *Socket) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.reads == readAgain {
		s.reads = readBusy
		return false
	}
	s.reads = readIdle
	s.reading.Unlock()
	return true
}

// yield lets go of a socket that may have more to read, behind those that have
// something to read as well.
func (r *readers) yield(d *desk, s *Socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.reads = readIdle
	s.reading.Unlock()
	if !r.waiting { // if all desks are busy nobody has looked for a while
		n, errno := poll(uintptr(r.fd), &d.events)
		if errno != 0 {
			panic("socket: looking for sockets: " + errno.Error())
		}
		r.enqueueLocked(d.events[:n])
	}
	r.lookLocked(s)
	r.more.Signal()
}

// next waits for a socket to read; nil if there will be none.
func (r *readers) next(d *desk) *Socket {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed {
		if n := len(r.queue); n > 0 {
			s := r.queue[0]
			r.queue[0] = nil
			if r.queue = r.queue[1:]; n == 1 {
				r.queue = nil
			} else {
				r.more.Signal() // for the next one
			}
			if s.reads == readOver {
				continue
			}
			s.reads = readBusy
			return s
		}
		if r.waiting {
			r.more.Wait()
			continue
		}
		r.waiting = true
		r.mu.Unlock()
		n, err := r.ready(&d.events)
		r.mu.Lock()
		r.waiting = false
		if err != nil && !r.closed {
			panic("socket: waiting for sockets: " + err.Error()) // a descriptor of our own is wrong
		}
		r.enqueueLocked(d.events[:n])
	}
	return nil
}

// enqueueLocked has desks look at the sockets that have something to read.
func (r *readers) enqueueLocked(events []unix.EpollEvent) {
	for i := range events {
		// One that was closed and whose number another one has since costs that
		// one a look.
		if fd := int(events[i].Fd); fd < len(r.sockets) && r.sockets[fd] != nil {
			r.lookLocked(r.sockets[fd])
		}
	}
}

// ready waits until sockets have something to read.
func (r *readers) ready(events *[readyMax]unix.EpollEvent) (n int, err error) {
	var errno syscall.Errno
	err = r.raw.Read(func(fd uintptr) bool {
		n, errno = poll(fd, events)
		return errno != 0 || n > 0
	})
	if err == nil && errno != 0 {
		return 0, errno
	}
	return n, err
}

// poll tells which sockets have something to read now.
func poll(fd uintptr, events *[readyMax]unix.EpollEvent) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(events)), readyMax, 0, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// desk is a goroutine that reads for one socket after another. To gws it is a
// connection.
type desk struct {
	readers *readers
	s       *Socket // nil: none at the moment
	turn    int     // bytes read from it in this turn
	events  [readyMax]unix.EpollEvent
}

func (d *desk) run() {
	for {
		// One that gws has refused something on is of no use any more.
		c, err := d.readers.gws.UpgradeFromConn(d, bufio.NewReaderSize(d, deskBufferBytes), handshake())
		if err != nil {
			panic("socket: gws refuses its own handshake: " + err.Error())
		}
		c.ReadLoop()
		s := d.s
		if s == nil {
			return
		}
		d.s = nil
		s.Close(s.endReason())
		s.reading.Unlock() // and is not read again: it is closing
	}
}

// handshake is a request that gws grants.
func handshake() *http.Request {
	return &http.Request{Method: http.MethodGet, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}}
}

// Read gives gws the next bytes of the socket at hand, or of the next one that
// has some. gws is between two messages whenever a socket has no more.
func (d *desk) Read(p []byte) (int, error) {
	for {
		if d.s == nil {
			s := d.readers.next(d)
			if s == nil {
				return 0, io.EOF
			}
			if !s.reading.TryLock() {
				continue // it is being seen out
			}
			d.s, d.turn = s, 0
		}
		if d.turn >= turnBytes && d.s.guard.between() {
			d.readers.yield(d, d.s)
			d.s = nil
			continue
		}
		n, err := 0, error(errAgain)
		if !d.s.paused.Load() {
			n, err = d.s.guard.Read(p)
		}
		if n > 0 || !errors.Is(err, errAgain) {
			d.turn += n
			return n, err
		}
		if d.readers.done(d.s) {
			d.s = nil
		}
	}
}

// Write takes what gws would send: the answer to its own handshake, and the
// close frame that it ends a socket with, whose code is noted.
func (d *desk) Write(b []byte) (int, error) {
	if d.s != nil && len(b) >= 4 && b[0]&0x0f == opClose {
		d.s.guard.gwsCode = uint16(b[2])<<8 | uint16(b[3])
	}
	return len(b), nil
}

func (d *desk) Close() error                     { return nil } // the socket's business
func (d *desk) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (d *desk) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (d *desk) SetDeadline(time.Time) error      { return nil }
func (d *desk) SetReadDeadline(time.Time) error  { return nil }
func (d *desk) SetWriteDeadline(time.Time) error { return nil }

// errAgain says that there is nothing to read now. It is a temporary net.Error:
// crypto/tls keeps any other for good.
var errAgain again

type again struct{}

func (again) Error() string   { return "socket: nothing to read now" }
func (again) Timeout() bool   { return false }
func (again) Temporary() bool { return true }
