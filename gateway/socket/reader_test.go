package socket

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tickgate/codec"
)

// Clients that say nothing have no goroutine, those in the middle of a message
// neither, and nobody waits for them.
func TestNoGoroutineIsParked(t *testing.T) {
	const clients = 100
	var got atomic.Int64
	s := serve(t, false, Options{}, func(bool, []byte) codec.CloseReason { got.Add(1); return "" })
	stacks := func() string {
		b := make([]byte, 4<<20)
		return string(b[:runtime.Stack(b, true)])
	}
	var peers []*peer
	for i := range clients {
		p, _ := s.dial(t, 0)
		peers = append(peers, p)
		switch i % 4 { // a quarter each: silent, a header cut in two, a message begun, fragments begun
		case 1:
			_, _ = p.conn.Write([]byte{0x82})
		case 2:
			_, _ = p.conn.Write(clientFrame(0x82, make([]byte, 9000))[:5000])
		case 3:
			p.send(0x02, []byte("frag"))
			p.send(0x89, []byte("between"))
		}
	}
	other, _ := s.dial(t, 0)
	for range 50 {
		other.send(0x82, []byte("now"))
	}
	for deadline := time.Now().Add(5 * time.Second); got.Load() < 50; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages of 50 came past %d clients in the middle of one", got.Load(), clients)
		}
	}
	// Other tests run beside this one: only stacks inside gws count, and there
	// are a few desks for each server.
	if n, most := strings.Count(stacks(), "gws.(*Conn).ReadLoop"), 20*(desksMin+runtime.GOMAXPROCS(0)); n > most {
		t.Errorf("%d goroutines inside gws, want at most %d", n, most)
	}
	for i, p := range peers {
		switch i % 4 {
		case 1:
			_, _ = p.conn.Write(clientFrame(0x82, []byte("x"))[1:])
		case 2:
			_, _ = p.conn.Write(clientFrame(0x82, make([]byte, 9000))[5000:])
		case 3:
			p.send(0x80, []byte("ment"))
			if op, b, err := p.next(); op != opPong || string(b) != "between" || err != nil {
				t.Errorf("%d %q %v, want the pong", op, b, err)
			}
		}
	}
	for deadline := time.Now().Add(5 * time.Second); got.Load() < 50+3*clients/4; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages, want %d", got.Load(), 50+3*clients/4)
		}
	}
}

// A handler that takes no more pauses its socket; what has been read comes all
// the same, the rest after Resume, and nothing is lost.
func TestPause(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		var mu sync.Mutex
		var got []byte
		var so *Socket
		pauseAt := 3
		ready := make(chan struct{})
		s := serve(t, useTLS, Options{}, func(_ bool, b []byte) codec.CloseReason {
			<-ready
			mu.Lock()
			defer mu.Unlock()
			got = append(got, b[0])
			if len(got) == pauseAt {
				so.Pause()
			}
			return ""
		})
		p, socket := s.dial(t, 0)
		so = socket
		close(ready)
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(got) }
		const sent = 40
		for i := range sent {
			f := make([]byte, 1000)
			f[0] = byte(i)
			p.send(0x82, f)
		}
		time.Sleep(300 * time.Millisecond)
		if n := count(); n < pauseAt || n > pauseAt+deskBufferBytes/1000+1 {
			t.Errorf("%d messages came, want %d and what had been read", n, pauseAt)
		}
		so.Resume()
		for deadline := time.Now().Add(5 * time.Second); count() < sent; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d messages", count(), sent)
			}
		}
		for i, b := range got {
			if int(b) != i {
				t.Fatalf("message %d came as number %d", b, i)
			}
		}
	})
}

// Each message comes, however closely it follows the moment in which a desk lets
// go of its socket.
func TestNothingIsForgotten(t *testing.T) {
	var got [8]atomic.Int64
	s := serve(t, false, Options{MessagesPerSecond: Off, BytesPerSecond: Off, ReadsPerSecond: Off}, func(_ bool, b []byte) codec.CloseReason {
		got[b[0]].Add(1)
		return ""
	})
	var clients sync.WaitGroup
	for i := range got {
		p, _ := s.dial(t, 0)
		clients.Go(func() {
			// A slow machine does fewer: a peer's deadline comes after 20 s.
			for n, began := int64(0), time.Now(); n < 4000 && time.Since(began) < 10*time.Second; n++ {
				p.send(0x82, []byte{byte(i)})
				for until := time.Now().Add(5 * time.Second); got[i].Load() <= n; runtime.Gosched() {
					if time.Now().After(until) {
						t.Errorf("client %d: message %d has not come", i, n)
						return
					}
				}
			}
		})
	}
	clients.Wait()
}

// A socket that a desk has let go of can be had at once by who is told of it:
// else that one would take it for one that is being seen out, and nobody would
// read it again.
func TestLetGoIsWhole(t *testing.T) {
	r := &readers{}
	for state, want := range map[readState]bool{readBusy: true, readAgain: false} {
		s := &Socket{reads: state}
		s.reading.Lock()
		if got := r.done(s); got != want {
			t.Errorf("done in state %d: %v, want %v", state, got, want)
		}
		if free := s.reading.TryLock(); free != want {
			t.Errorf("after done in state %d the socket can be read: %v, want %v", state, free, want)
		}
	}
}

// A client that sends its first command right behind its request and resets: its
// wire breaks under the shard before the socket is served. Nobody reads the
// command, for which there is no handler yet, and the socket ends when it is
// served.
func TestBrokenBeforeServed(t *testing.T) {
	u, err := NewUpgrader(Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sockets := make(chan *Socket, 1)
	hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		so, err := u.Upgrade(w, r, "", false)
		if err != nil {
			t.Errorf("Upgrade: %v", err)
		}
		sockets <- so
	})}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = hs.Serve(NewListener(l, nil, nil)) })
	running.Go(func() { u.Run(ctx) })
	defer running.Wait()
	defer cancel()
	defer func() { _ = hs.Close() }()

	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"+
		string(clientFrame(0x82, []byte("first"))))
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	so := <-sockets
	if len(so.guard.early) == 0 {
		t.Fatal("the command did not come with the request")
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := so.WriteFrame(payload(1, 100)); err != nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal("the reset is not seen")
		}
	}
	time.Sleep(20 * time.Millisecond) // for a desk to look
	ended := make(chan codec.CloseReason, 1)
	so.Serve(func(bool, []byte) codec.CloseReason {
		t.Error("a message of a client that is gone")
		return ""
	}, nil, func(r codec.CloseReason) { ended <- r })
	if r := <-ended; r != codec.CloseGone {
		t.Errorf("ended as %q, want %q", r, codec.CloseGone)
	}
}

// A socket that is seen out while it is being served is not kept.
func TestServedTooLate(t *testing.T) {
	r, s := &readers{}, &Socket{}
	r.remove(s)
	if r.enter(s, 7) || len(r.sockets) > 7 && r.sockets[7] != nil {
		t.Error("a socket that has ended is looked after")
	}
	if r.lookLocked(s); len(r.queue) != 0 {
		t.Error("a socket that has ended is to be read")
	}
}

// Clients that always have more to be read, as many as there are desks, leave the
// others their turn.
func TestTurns(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{MessagesPerSecond: Off, BytesPerSecond: Off, ReadsPerSecond: Off}, nil)
		other, _ := s.dial(t, 0)
		stop := make(chan struct{})
		var floods sync.WaitGroup
		flood := bytes.Repeat(clientFrame(0x82, []byte("more")), 5000)
		for range max(desksMin, runtime.GOMAXPROCS(0)) {
			p, _ := s.dial(t, 0)
			floods.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_, _ = p.conn.Write(flood)
					}
				}
			})
		}
		time.Sleep(100 * time.Millisecond) // all desks are at it
		for i := range 5 {
			began := time.Now()
			_ = other.tcp.SetReadDeadline(began.Add(3 * time.Second))
			other.send(0x80|opPing, []byte("my turn?"))
			if op, _, err := other.next(); op != opPong || err != nil {
				t.Errorf("ping %d: op %d, %v after %v", i, op, err, time.Since(began))
				break
			}
		}
		close(stop)
		floods.Wait()
	})
}
