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
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
)

// TestMidFrameAndSilence: a client stops in the middle of a frame, and its
// symbols never tick again. When it reads on it is current soon (250 ms is the
// bound): not because something new comes, but because it takes again.
func TestMidFrameAndSilence(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plain": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			took := readOn(t, secure)
			// On a busy machine the kernels may wait for each other, seconds,
			// before a closed window is open: that does not happen each time.
			const bound = 2 * 250 * time.Millisecond // twice what is promised
			for again := 0; took > bound && again < 3; again++ {
				t.Logf("current %v after it read on; once more", took)
				took = readOn(t, secure)
			}
			t.Logf("current %v after it read on", took)
			if took > bound {
				t.Errorf("current %v after it read on, want %v", took, bound)
			}
		})
	}
}

// readOn has a client stop in the middle of a frame and read on when nothing
// ticks any more, and tells how long it took to be current then.
func readOn(t *testing.T, secure bool) time.Duration {
	t.Helper()
	o := Options{}
	if secure {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, DynamicRecordSizingDisabled: true}
	}
	r := run(t, o)
	const symbols = 200
	ask := &codec.Command{Op: codec.OpSubscribe, Ref: 1, Channel: codec.ChannelTicker}
	for i := range symbols {
		name := fmt.Sprintf("MF%d", i)
		r.trade(name, 100)
		ask.Symbols.Append(codec.SymbolItem{Name: []byte(name)})
	}
	tcp, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	if err := tcp.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
		t.Fatal(err)
	}
	_ = tcp.SetDeadline(time.Now().Add(20 * time.Second))
	c := tcp
	if secure {
		c = tls.Client(tcp, &tls.Config{InsecureSkipVerify: true})
	}
	br := bufio.NewReaderSize(c, 16)
	fmt.Fprintf(c, "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: %s\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", native.MsgPack.Subprotocol())
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	send := func(b0 byte, payload []byte) {
		f := []byte{b0, 0x80 | 126, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0}
		if len(payload) < 126 {
			f = []byte{b0, 0x80 | byte(len(payload)), 0, 0, 0, 0}
		}
		if _, err := c.Write(append(f, payload...)); err != nil {
			t.Fatal(err)
		}
	}
	fill := func(b []byte) {
		t.Helper()
		if _, err := io.ReadFull(br, b); err != nil {
			t.Fatal(err)
		}
	}
	header := func() (op byte, size int) {
		t.Helper()
		var h [4]byte
		if fill(h[:2]); h[1] == 126 {
			fill(h[2:])
			return h[0] & 0x0f, int(binary.BigEndian.Uint16(h[2:]))
		}
		return h[0] & 0x0f, int(h[1])
	}
	seen := map[uint32]uint64{}
	take := func(op byte, b []byte) {
		switch op {
		case 0x9: // ping
			send(0x8a, b)
		case 0x2:
			f, err := native.MsgPack.OpenFrame(b)
			if err != nil {
				t.Fatal(err)
			}
			for u := (native.Update{}); f.Next(&u); {
				if u.Type == codec.EventSnapshot || u.Type == codec.EventTicker {
					seen[u.ID] = u.Seq
				}
			}
		}
	}
	send(0x82, native.MsgPack.AppendCommand(nil, ask))
	op, size := header()
	for size < 4096 { // the snapshots' frame is long
		b := make([]byte, size)
		fill(b)
		take(op, b)
		op, size = header()
	}
	b := make([]byte, size)
	fill(b[:size/2])
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
	fill(b[size/2:])
	take(op, b)
	for behind := symbols; behind > 0; {
		op, size := header()
		b := make([]byte, size)
		fill(b)
		take(op, b)
		behind = symbols
		for _, seq := range seen {
			if seq == final {
				behind--
			}
		}
	}
	return time.Since(began)
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
