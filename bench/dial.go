package bench

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// answerMax bounds the answer to a handshake.
	answerMax = 16 << 10

	// handshakeTime bounds a TLS handshake.
	handshakeTime = 30 * time.Second

	// ipBindAddressNoPort has the kernel choose the port at connect, when the
	// other end is known: ports are then shared between destinations.
	ipBindAddressNoPort = 24
)

// connect begins to connect. The client belongs to its loop by now.
func (c *client) connect() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		c.loop.swarm.refused.Add(1)
		err = fmt.Errorf("socket: %w", err)
		c.loop.swarm.lastErr.Store(&err)
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, ipBindAddressNoPort, 1)
	to := c.loop.swarm.endpoint.Addr
	if to.Addr().IsLoopback() {
		_ = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(1 + c.no%sources)}})
	}
	c.fd, c.phase, c.connectedAt = fd, phaseConnecting, time.Now()
	c.reading, c.writing, c.settled, c.leaving = false, true, false, false
	c.in, c.out, c.rest, c.secure = nil, nil, nil, nil
	c.index = idIndex{}
	c.frameNo, c.bytes, c.delivered, c.merged, c.dropped, c.ledger = 0, 0, 0, 0, 0, nil
	for i := range c.subs {
		c.subs[i].dropped = 0
	}
	c.loop.clients[int32(fd)] = c
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		c.lost(fmt.Errorf("connect: %w", err))
		return
	}
	_ = unix.EpollCtl(c.loop.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)})
}

// connected goes on when the kernel has connected, or has not.
func (c *client) connected() {
	if code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
		c.lost(fmt.Errorf("connect: %w", unix.Errno(code)))
		return
	}
	c.phase = phaseUpgrading
	if !c.loop.swarm.endpoint.TLS {
		c.ask()
		return
	}
	// The handshake waits, so a goroutine does it; the loop reads when it is
	// done.
	_ = unix.EpollCtl(c.loop.ep, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Fd: int32(c.fd)})
	c.writing = false
	s := newSecure(c.fd)
	l, fd := c.loop, c.fd
	l.swarm.wait.Go(func() {
		err := s.handshake()
		l.post(func() {
			if c.fd != fd || c.phase != phaseUpgrading {
				return // given up meanwhile
			}
			if err != nil {
				c.lost(fmt.Errorf("TLS: %w", err))
				return
			}
			c.secure = s
			c.ask()
		})
	})
}

// ask sends the request to upgrade.
func (c *client) ask() {
	e := &c.loop.swarm.endpoint
	b := "GET " + cmp.Or(c.path, e.Path) + " HTTP/1.1\r\nHost: " + e.Addr.String() + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGlja2dhdGUgYmVuY2ggMQ==\r\n"
	if p := c.speaker.Subprotocol(); p != "" {
		b += "Sec-WebSocket-Protocol: " + p + "\r\n"
	}
	c.reading = true
	c.writing = true // so that flush tells the loop
	c.out = append(c.out, b+"\r\n"...)
	c.flush()
	if len(c.out) > 0 { // it waits for room, and reads then
		c.watchFD(true, true)
	}
}

// upgraded reads the answer; n is its length, 0 if it is not whole yet.
func (c *client) upgraded(b []byte) (n int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > answerMax {
			return 0, errors.New("upgrade: an endless answer")
		}
		return 0, nil
	}
	first, _, _ := bytes.Cut(b[:end], []byte("\r\n"))
	if !bytes.HasPrefix(first, []byte("HTTP/1.1 101 ")) {
		return 0, fmt.Errorf("upgrade: %.100s", strings.ToValidUTF8(string(first), "?"))
	}
	c.phase = phaseOpen
	c.subscribe()
	return end + 4, nil
}

// secure is TLS over a descriptor that never blocks. crypto/tls goes on after
// an error that calls itself temporary.
type secure struct {
	raw  *rawConn
	conn *tls.Conn
}

func newSecure(fd int) *secure {
	raw := &rawConn{fd: fd, wait: true}
	return &secure{raw, tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})}
}

// handshake waits as long as it takes, within its bound.
func (s *secure) handshake() error {
	s.raw.until = time.Now().Add(handshakeTime)
	err := s.conn.Handshake()
	s.raw.wait = false
	return err
}

func (s *secure) read(b []byte) (int, error) {
	n, err := s.conn.Read(b)
	switch {
	case n > 0:
		return n, nil
	case errors.Is(err, errWould):
		return 0, unix.EAGAIN
	case errors.Is(err, io.EOF):
		return 0, nil
	}
	return n, err
}

func (s *secure) write(b []byte) (int, error) {
	s.raw.wait = true // a record is written whole: what we send is short
	s.raw.until = time.Now().Add(time.Second)
	n, err := s.conn.Write(b)
	s.raw.wait = false
	return n, err
}

// wouldBlock is a temporary error, as crypto/tls understands it.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

var errWould error = wouldBlock{}

// rawConn is a descriptor as crypto/tls wants it.
type rawConn struct {
	fd    int
	wait  bool
	until time.Time
}

func (r *rawConn) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(r.fd, b)
		switch {
		case err == unix.EAGAIN && r.wait:
			if err := r.poll(unix.POLLIN); err != nil {
				return 0, err
			}
		case err == unix.EAGAIN || err == unix.EINTR:
			return 0, errWould
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (r *rawConn) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Write(r.fd, b[done:])
		switch {
		case err == unix.EAGAIN:
			if err := r.poll(unix.POLLOUT); err != nil {
				return done, err
			}
		case err == unix.EINTR:
		case err != nil:
			return done, err
		default:
			done += n
		}
	}
	return done, nil
}

func (r *rawConn) poll(events int16) error {
	left := time.Until(r.until)
	if left <= 0 {
		return errors.New("took too long")
	}
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(r.fd), Events: events}}, int(left.Milliseconds())+1)
	if err == unix.EINTR {
		return nil
	}
	return err
}

func (r *rawConn) Close() error                     { return nil }
func (r *rawConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (r *rawConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (r *rawConn) SetDeadline(time.Time) error      { return nil }
func (r *rawConn) SetReadDeadline(time.Time) error  { return nil }
func (r *rawConn) SetWriteDeadline(time.Time) error { return nil }
