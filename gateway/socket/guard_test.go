package socket

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"tickgate/codec"
)

// pieces is a connection on which bytes arrive in pieces of at most n.
type pieces struct {
	net.Conn
	b []byte
	n int
}

func (c *pieces) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.b[:min(c.n, len(c.b))])
	c.b = c.b[n:]
	return n, nil
}

func (c *pieces) Write(b []byte) (int, error)      { return len(b), nil }
func (c *pieces) SetDeadline(time.Time) error      { return nil }
func (c *pieces) SetReadDeadline(time.Time) error  { return nil }
func (c *pieces) SetWriteDeadline(time.Time) error { return nil }
func (c *pieces) Close() error                     { return nil }

// heard are the messages that gws puts together.
type heard struct {
	gws.BuiltinEventHandler
	messages [][]byte
	largest  int
	refused  bool // by the guard
}

func (h *heard) OnClose(_ *gws.Conn, err error) { h.refused = errors.Is(err, errRefused) }

func (h *heard) OnPing(*gws.Conn, []byte) {}
func (h *heard) OnMessage(_ *gws.Conn, m *gws.Message) {
	h.messages = append(h.messages, bytes.Clone(m.Bytes()))
	h.largest = max(h.largest, len(m.Bytes()))
	_ = m.Close()
}

// FuzzGuard: whatever arrives and however it is cut, gws sees a prefix of it
// and is not upset; the same bytes give the same messages; and what is held is
// bounded.
func FuzzGuard(f *testing.F) {
	for _, b := range [][]byte{
		clientFrame(0x81, []byte("hello")),
		append(clientFrame(0x01, []byte("a")), clientFrame(0x80, []byte("b"))...),
		clientFrame(0x82, make([]byte, 70000)),
		bytes.Repeat(clientFrame(0x82, make([]byte, 5000)), 3),
		append(clientFrame(0x82, make([]byte, 9000)), clientFrame(0x89, []byte("p"))...),
		{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
		bytes.Repeat(clientFrame(0x00, nil), 100),
	} {
		f.Add(b, uint16(1))
		f.Add(b, uint16(400))
	}
	const messageMax = 64 << 10
	run := func(t *testing.T, in []byte, n int) (seen []byte, reason codec.CloseReason, h *heard) {
		g := &guard{in: &pieces{b: in, n: n}, s: &Socket{}, scan: scanner{messageMax: messageMax}}
		h = &heard{}
		u := gws.NewUpgrader(h, &gws.ServerOption{ReadMaxPayloadSize: messageMax, CheckUtf8Enabled: true})
		tee := &pieces{} // for its Write and Close
		c, err := u.UpgradeFromConn(tee, bufio.NewReaderSize(io.TeeReader(readerFunc(func(p []byte) (int, error) {
			n, err := g.Read(p)
			if cap(g.held) > 4*messageMax {
				t.Fatalf("%d bytes held", cap(g.held))
			}
			return n, err
		}), writerFunc(func(p []byte) { seen = append(seen, p...) })), deskBufferBytes), handshake())
		if err != nil {
			t.Fatal(err)
		}
		c.ReadLoop()
		return seen, g.reason, h
	}
	f.Fuzz(func(t *testing.T, in []byte, n uint16) {
		if len(in) > 1<<20 || n == 0 {
			return
		}
		seen, reason, h := run(t, in, int(n))
		if !bytes.HasPrefix(in, seen) {
			t.Fatalf("gws saw %d bytes that are no prefix of what came", len(seen))
		}
		if h.largest > messageMax {
			t.Fatalf("a message of %d bytes", h.largest)
		}
		_, _, again := run(t, in, 1<<20)
		if !slices.EqualFunc(h.messages, again.messages, bytes.Equal) {
			t.Errorf("in pieces of %d: %d messages; at once: %d", n, len(h.messages), len(again.messages))
		}
		if reason == "" && h.refused {
			t.Errorf("refused without a reason after %d of %d bytes", len(seen), len(in))
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestBucket(t *testing.T) {
	b := newBucket(10, 20)
	now := time.Duration(0)
	taken := 0
	for b.take(now, 1) {
		taken++
	}
	if taken != 20 {
		t.Errorf("%d at once, want the burst of 20", taken)
	}
	b.giveBack(1) // the one that was refused
	for range 50 {
		now += 100 * time.Millisecond
		if !b.take(now, 1) {
			t.Fatalf("refused at %v at the rate", now)
		}
	}
	if b.take(now, 1) {
		t.Error("more than the rate was allowed")
	}
	none := newBucket(Off, 0)
	for range 1000 {
		if !none.take(0, 1<<20) {
			t.Fatal("refused without a limit")
		}
	}
}
