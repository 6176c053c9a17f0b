package socket

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tickgate/codec"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16") // these tests wait more than they compute
	goleak.VerifyTestMain(m)
}

// server is a listener whose sockets are served until the test ends.
type server struct {
	addr    string
	tls     bool
	sockets chan *Socket           // one for each client, once it is upgraded
	ended   chan codec.CloseReason // why its Serve ended
}

func serve(t testing.TB, useTLS bool, o Options, h Handler) *server {
	t.Helper()
	if h == nil {
		h = func(bool, []byte) codec.CloseReason { return "" }
	}
	u, err := NewUpgrader(o, "tickgate.v1.msgpack")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), tls: useTLS,
		sockets: make(chan *Socket, 1000), ended: make(chan codec.CloseReason, 1000)}
	var c *tls.Config
	if useTLS {
		cert, key := writeCertificate(t, t.TempDir(), 1)
		certs, err := LoadCertificates(cert, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = TLSConfig(certs.Get); err != nil {
			t.Fatal(err)
		}
	}
	var readers, serving sync.WaitGroup
	var mu sync.Mutex
	var all []*Socket
	hs := &http.Server{
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, err := u.Subprotocol(r)
			if err != nil {
				http.Error(w, err.Error(), err.(*RequestError).Status)
				return
			}
			so, err := u.Upgrade(w, r, p, false)
			if err != nil {
				t.Errorf("Upgrade: %v", err)
				return
			}
			mu.Lock()
			all = append(all, so)
			mu.Unlock()
			readers.Add(1)
			so.Serve(h, nil, func(reason codec.CloseReason) { s.ended <- reason; readers.Done() })
			s.sockets <- so
		}),
	}
	serving.Go(func() { _ = hs.Serve(NewListener(l, c, nil)) })
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() { u.Run(ctx) })
	t.Cleanup(func() {
		defer reading.Wait()
		defer cancel()
		_ = hs.Close()
		serving.Wait()
		mu.Lock()
		defer mu.Unlock()
		for _, so := range all {
			so.Close(codec.CloseDraining)
		}
		readers.Wait()
	})
	return s
}

// smallBuffer is a receive buffer that is soon full. With one much smaller the
// kernels wait for each other, up to seconds, before a closed window is open.
const smallBuffer = 32 << 10

// peer is a client that does exactly what a test tells it to.
type peer struct {
	t    testing.TB
	tcp  *net.TCPConn
	conn net.Conn // TLS over tcp, or tcp
	br   *bufio.Reader
}

// dial upgrades; rcvbuf, if not 0, is the size of the client's receive buffer.
func (s *server) dial(t testing.TB, rcvbuf int) (*peer, *Socket) {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, tcp: c.(*net.TCPConn), conn: c}
	t.Cleanup(func() { _ = c.Close() })
	if rcvbuf != 0 {
		if err := p.tcp.SetReadBuffer(rcvbuf); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // a test that hangs fails
	if s.tls {
		p.conn = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	p.br = bufio.NewReaderSize(p.conn, 16)
	if _, err := fmt.Fprintf(p.conn, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(p.br, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	return p, <-s.sockets
}

// frame reads the next frame that the server sent.
func (p *peer) frame() (op byte, payload []byte, err error) {
	var h [4]byte
	if _, err := io.ReadFull(p.br, h[:2]); err != nil {
		return 0, nil, err
	}
	n := int(h[1])
	if n == 126 {
		if _, err := io.ReadFull(p.br, h[2:4]); err != nil {
			return 0, nil, err
		}
		n = int(binary.BigEndian.Uint16(h[2:]))
	} else if n > 126 {
		return 0, nil, fmt.Errorf("frame header % x", h)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(p.br, payload)
	return h[0] & 0x0f, payload, err
}

// next reads until a frame that is no ping, and answers the pings.
func (p *peer) next() (op byte, payload []byte, err error) {
	for {
		op, payload, err = p.frame()
		if err != nil || op != opPing {
			return op, payload, err
		}
		p.send(0x80|opPong, payload)
	}
}

// clientFrame is a frame as a client sends it, masked with zeros.
func clientFrame(b0 byte, payload []byte) []byte {
	f := []byte{b0, 0x80 | byte(len(payload))}
	if len(payload) > 125 {
		f = append(f[:1], 0x80|126, byte(len(payload)>>8), byte(len(payload)))
	}
	if len(payload) > 0xffff {
		f = binary.BigEndian.AppendUint64([]byte{b0, 0x80 | 127}, uint64(len(payload)))
	}
	f = append(f, 0, 0, 0, 0)
	return append(f, payload...)
}

func (p *peer) send(b0 byte, payload []byte) { _, _ = p.conn.Write(clientFrame(b0, payload)) }

// wantClose reads on to the close frame and the end after it.
func (p *peer) wantClose(reason codec.CloseReason) {
	p.t.Helper()
	for {
		op, payload, err := p.next()
		if err != nil {
			p.t.Fatalf("the connection ended with %v; want a close frame that says %s", err, reason)
		}
		if op != opClose {
			continue
		}
		if code := binary.BigEndian.Uint16(payload); code != reason.Code() || string(payload[2:]) != string(reason) {
			p.t.Errorf("closed with %d %q, want %d %q", code, payload[2:], reason.Code(), reason)
		}
		break
	}
	if b, err := p.br.ReadByte(); err != io.EOF {
		p.t.Errorf("after the close frame came %x, %v; want the end", b, err)
	}
	_ = p.tcp.Close()
}

func (s *server) wantEnd(t *testing.T, reasons ...codec.CloseReason) {
	t.Helper()
	select {
	case got := <-s.ended:
		for _, r := range reasons {
			if got == r {
				return
			}
		}
		t.Errorf("ended as %q, want %q", got, reasons)
	case <-time.After(10 * time.Second):
		t.Errorf("not ended after 10s; want %q", reasons)
	}
}

// both runs a test plain and over TLS, beside other tests.
func both(t *testing.T, f func(t *testing.T, useTLS bool)) {
	t.Parallel()
	t.Run("plain", func(t *testing.T) { t.Parallel(); f(t, false) })
	t.Run("tls", func(t *testing.T) { t.Parallel(); f(t, true) })
}

// payload is frame no of a test: its number, then a pattern.
func payload(no, n int) []byte {
	b := make([]byte, HeaderRoom+n)
	binary.BigEndian.PutUint32(b[HeaderRoom:], uint32(no))
	for i := 4; i < n; i++ {
		b[HeaderRoom+i] = byte(no + i)
	}
	return b
}

// number checks the pattern and tells the number.
func number(t *testing.T, b []byte) int {
	t.Helper()
	no := int(binary.BigEndian.Uint32(b))
	for i := 4; i < len(b); i++ {
		if b[i] != byte(no+i) {
			t.Fatalf("frame %d is broken at byte %d of %d", no, i, len(b))
		}
	}
	return no
}

// pump is the shard of a test: it sends frames of n bytes as long as the
// socket is ready, flushes what is left over, and ticks.
func pump(t *testing.T, s *Socket, n int, stop <-chan struct{}) (sent int) {
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	for {
		select {
		case <-stop:
			return sent
		case now := <-ticks.C:
			if r := s.Tick(now); r != "" {
				s.Close(r)
				return sent
			}
		default:
		}
		if _, err := s.Flush(); err != nil {
			return sent
		}
		if !s.Ready() {
			time.Sleep(time.Millisecond)
			continue
		}
		sent++
		if _, err := s.WriteFrame(payload(sent, n)); err != nil {
			return sent
		}
		if sent%32 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// writeCertificate writes a self-signed certificate and its key.
func writeCertificate(t testing.TB, dir string, serial int64) (certFile, keyFile string) {
	t.Helper()
	return writeCertificateUntil(t, dir, serial, time.Now().Add(time.Hour))
}

func writeCertificateUntil(t testing.TB, dir string, serial int64, notAfter time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: notAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
