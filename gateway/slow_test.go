package gateway

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
)

// TestMidFrameAndSilence: a client stops in the middle of a frame, and its
// symbols never tick again. When it reads on it is current within 250 ms: not
// because something new comes, but because it takes again.
func TestMidFrameAndSilence(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plain": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const bound = 2 * 250 * time.Millisecond // twice what is promised
			best := time.Hour
			// On a busy machine the kernels may wait for each other, seconds,
			// before a closed window is open: that does not happen each time.
			for again := 0; best > bound && again < 4; again++ {
				best = min(best, midFrame(t, secure))
			}
			t.Logf("current %v after it read on", best)
			if best > bound {
				t.Errorf("current %v after it read on, want %v", best, bound)
			}
		})
	}
}

// raw is a WebSocket client that reads exactly what a test tells it to.
type raw struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
	read int               // bytes of frames
	seen map[uint32]uint64 // the newest seq, by id
	sent int64             // send time of the newest frame
}

// raw connects; rcvbuf, if not 0, is the size of its receive buffer.
func (r *running) raw(secure bool, rcvbuf int) *raw {
	t := r.t.(*testing.T)
	t.Helper()
	tcp, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tcp.Close() })
	if rcvbuf != 0 {
		if err := tcp.(*net.TCPConn).SetReadBuffer(rcvbuf); err != nil {
			t.Fatal(err)
		}
	}
	_ = tcp.SetDeadline(time.Now().Add(20 * time.Second))
	c := &raw{t: t, conn: tcp, seen: map[uint32]uint64{}}
	if secure {
		c.conn = tls.Client(tcp, &tls.Config{InsecureSkipVerify: true})
	}
	c.br = bufio.NewReaderSize(c.conn, 16)
	fmt.Fprintf(c.conn, "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: %s\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", native.MsgPack.Subprotocol())
	if resp, err := http.ReadResponse(c.br, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return c
}

func (c *raw) send(b0 byte, payload []byte) {
	f := []byte{b0, 0x80 | 126, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0}
	if len(payload) < 126 {
		f = []byte{b0, 0x80 | byte(len(payload)), 0, 0, 0, 0}
	}
	if _, err := c.conn.Write(append(f, payload...)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *raw) command(cmd *codec.Command) { c.send(0x82, native.MsgPack.AppendCommand(nil, cmd)) }

func (c *raw) fill(b []byte) {
	c.t.Helper()
	if _, err := io.ReadFull(c.br, b); err != nil {
		c.t.Fatal(err)
	}
	c.read += len(b)
}

func (c *raw) header() (op byte, size int) {
	c.t.Helper()
	var h [4]byte
	if c.fill(h[:2]); h[1] == 126 {
		c.fill(h[2:])
		return h[0] & 0x0f, int(binary.BigEndian.Uint16(h[2:]))
	}
	return h[0] & 0x0f, int(h[1])
}

// take answers a ping, and notes what a frame tells.
func (c *raw) take(op byte, b []byte) {
	switch op {
	case 0x9:
		c.send(0x8a, b)
	case 0x2:
		f, err := native.MsgPack.OpenFrame(b)
		if err != nil {
			c.t.Fatal(err)
		}
		c.sent = f.SentTime
		for u := (native.Update{}); f.Next(&u); {
			if u.Type == codec.EventSnapshot || u.Type == codec.EventTicker {
				c.seen[u.ID] = u.Seq
			}
		}
	}
}

// next reads a frame.
func (c *raw) next() {
	c.t.Helper()
	op, size := c.header()
	b := make([]byte, size)
	c.fill(b)
	c.take(op, b)
}

// slow runs a server with so many symbols, and what asks for all of them.
func slow(t *testing.T, secure bool, symbols int) (*running, *codec.Command) {
	t.Helper()
	o := Options{StallMax: 2 * time.Second}
	if secure {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, DynamicRecordSizingDisabled: true}
	}
	r := run(t, o)
	ask := &codec.Command{Op: codec.OpSubscribe, Ref: 1, Channel: codec.ChannelTicker}
	for i := range symbols {
		name := fmt.Sprintf("MF%d", i)
		r.trade(name, 100)
		ask.Symbols.Append(codec.SymbolItem{Name: []byte(name)})
	}
	return r, ask
}

// midFrame tells after what time the client is current.
func midFrame(t *testing.T, secure bool) time.Duration {
	const symbols = 200
	r, ask := slow(t, secure, symbols)
	c := r.raw(secure, 32<<10)
	c.command(ask)
	op, size := c.header()
	for size < 4096 { // the snapshots' frame is long
		b := make([]byte, size)
		c.fill(b)
		c.take(op, b)
		op, size = c.header()
	}
	b := make([]byte, size)
	c.fill(b[:size/2])
	// It reads no more, while all tick, and then none does for ever.
	for range 200 {
		for i := range symbols {
			r.trade(fmt.Sprintf("MF%d", i), 101)
		}
		time.Sleep(2 * time.Millisecond)
	}
	time.Sleep(600 * time.Millisecond) // the visits to it are rare by now
	final := r.seqs["MF0"]
	began := time.Now()
	c.fill(b[size/2:])
	c.take(op, b)
	for behind := symbols; behind > 0; {
		c.next()
		behind = symbols
		for _, seq := range c.seen {
			if seq == final {
				behind--
			}
		}
	}
	return time.Since(began)
}

// closedAs is how many clients the metric says were closed for reason.
func (r *running) closedAs(reason codec.CloseReason) (n float64) {
	families, err := r.options.Gatherer.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "tickgate_gateway_sessions_closed_total" && m.Label[0].GetValue() == string(reason) {
				n = m.Counter.GetValue()
			}
		}
	}
	return n
}

// TestSleeper: a client that read fast and then slept, with room for megabytes in
// its own receive buffer, is current after what it had been sent and not read, and
// what was unsent: 64 KiB each.
func TestSleeper(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plain": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const symbols = 100
			r, ask := slow(t, secure, symbols)
			c := r.raw(secure, 4<<20)
			c.command(ask)
			var over atomic.Bool
			var market sync.WaitGroup
			defer market.Wait()
			defer over.Store(true)
			market.Go(func() {
				for !over.Load() {
					for i := range symbols {
						r.trade(fmt.Sprintf("MF%d", i), 101)
					}
					time.Sleep(2 * time.Millisecond)
				}
			})
			for began := time.Now(); time.Since(began) < time.Second; {
				c.next()
			}
			time.Sleep(1500 * time.Millisecond)
			woke := time.Now().UnixNano()
			c.read, c.sent = 0, 0
			for c.sent < woke {
				c.next()
			}
			t.Logf("current after %d bytes", c.read)
			if most := 2*64<<10 + 2*16<<10; c.read > most { // and the frames at either end
				t.Errorf("current after %d bytes, want at most %d", c.read, most)
			}
		})
	}
}

// TestStallMax: who takes nothing for StallMax is closed, and the metric says why.
func TestStallMax(t *testing.T) {
	t.Parallel()
	r, _ := slow(t, false, 2000)
	ask := &codec.Command{Op: codec.OpSubscribe, Ref: 1, Channel: codec.ChannelTicker}
	ask.Symbols.Append(codec.SymbolItem{Name: []byte("*")})
	c := r.raw(false, 32<<10)
	c.command(ask)
	began := time.Now()
	for r.Sessions() > 0 {
		if time.Since(began) > 15*time.Second {
			t.Fatal("a client that takes nothing is still here after 15 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if d := time.Since(began); d < 2*time.Second {
		t.Errorf("closed after %v, want 2s and more", d)
	}
	if n := r.closedAs(codec.CloseStalled); n != 1 {
		t.Errorf("%v clients counted as stalled, want 1", n)
	}
}

// TestCommandsUnread: who sends command after command and reads no answer is read
// from no more, and closed after a while.
func TestCommandsUnread(t *testing.T) {
	t.Parallel()
	r := run(t, Options{Limits: Limits{MessagesPerSecond: Off, BytesPerSecond: Off, ReadsPerSecond: Off}})
	ask := &codec.Command{Op: codec.OpSubscribe, Ref: 1, Channel: codec.ChannelTicker}
	ask.Symbols.Append(codec.SymbolItem{Name: []byte("*")})
	for i := range 2000 {
		r.trade(fmt.Sprintf("MF%d", i), 100)
	}
	c := r.raw(false, 32<<10)
	frame := native.MsgPack.AppendCommand(nil, ask)
	for range 1000 { // each counts for its size and 256 bytes
		c.send(0x82, frame)
	}
	began := time.Now()
	time.Sleep(300 * time.Millisecond)
	r.mu.Lock()
	for se := range r.sessions {
		se.mu.Lock()
		if q := se.courier; q == nil || q.bytes > waitingBytesMax+(4<<10)/len(frame)*(len(frame)+commandBytes)+4<<10 {
			t.Errorf("commands that wait: %+v, want at most %d bytes and what one read brings", q, waitingBytesMax)
		}
		se.mu.Unlock()
	}
	r.mu.Unlock()
	for r.Sessions() > 0 {
		if time.Since(began) > 15*time.Second {
			t.Fatal("still here after 15 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := r.closedAs(codec.CloseTooFast); n != 1 {
		t.Errorf("%v clients counted as too fast, want 1", n)
	}
}

// selfSigned is a certificate for loopback.
func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
