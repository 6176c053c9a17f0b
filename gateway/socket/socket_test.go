package socket

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tickgate/codec"
)

// A client that reads a byte at a time gets every frame, whole and in order.
func TestReadsByteByByte(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{}, nil)
		p, so := s.dial(t, 4096)
		stop, stopped := make(chan struct{}), make(chan int)
		go func() { stopped <- pump(t, so, 5000, stop) }()
		for want := 1; want <= 8; {
			var h [4]byte
			for i := range h[:2] {
				h[i], _ = p.br.ReadByte()
			}
			n := int(h[1])
			if n == 126 {
				h[2], _ = p.br.ReadByte()
				h[3], _ = p.br.ReadByte()
				n = int(binary.BigEndian.Uint16(h[2:]))
			}
			b := make([]byte, n)
			for i := range b {
				var err error
				if b[i], err = p.br.ReadByte(); err != nil {
					t.Fatal(err)
				}
			}
			switch h[0] & 0x0f {
			case opPing:
				p.send(0x80|opPong, b)
			case opBinary:
				if no := number(t, b); no != want {
					t.Fatalf("frame %d, want %d", no, want)
				}
				want++
			default:
				t.Fatalf("header % x", h)
			}
		}
		close(stop)
		<-stopped
	})
}

// A client that stops in the middle of a frame and reads on later goes on with
// whole frames, and had at most a frame kept for it meanwhile.
func TestStopsInMidFrame(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{}, nil)
		p, so := s.dial(t, 4096)
		stop, stopped := make(chan struct{}), make(chan int)
		go func() { stopped <- pump(t, so, 16000, stop) }()
		if _, err := p.br.Discard(1000); err != nil { // in frame 1
			t.Fatal(err)
		}
		time.Sleep(1200 * time.Millisecond)
		st := so.Stats()
		if so.Ready() {
			t.Error("ready although the client does not read")
		}
		if st.Left > so.wire.remainderMax {
			t.Errorf("%d bytes left over, want at most %d", st.Left, so.wire.remainderMax)
		}
		rest := make([]byte, 4+16000-1000)
		for i := 0; i < len(rest); {
			n, err := p.br.Read(rest[i:])
			if err != nil {
				t.Fatal(err)
			}
			i += n
		}
		for want := 2; want < 5; want++ {
			op, b, err := p.next()
			if err != nil || op != opBinary {
				t.Fatal(op, err)
			}
			if no := number(t, b); no != want {
				t.Fatalf("frame %d, want %d", no, want)
			}
		}
		close(stop)
		<-stopped
	})
}

// What a client may hide in its own receive buffer is bounded, however large
// that buffer is: it answers no ping while it does not read.
func TestUnreadIsBounded(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{}, nil)
		p, so := s.dial(t, 4<<20)
		stop, stopped := make(chan struct{}), make(chan int)
		go func() { stopped <- pump(t, so, 1000, stop) }()
		time.Sleep(1500 * time.Millisecond)
		if st := so.Stats(); st.Bytes < unreadMax/2 || st.Bytes > unreadMax+2*FrameMax {
			t.Errorf("sent %d bytes to a client that never read, want about %d", st.Bytes, unreadMax)
		}
		// Reading on opens it again.
		begin := time.Now()
		for want := 1; want < 300; want++ {
			op, b, err := p.next()
			if err != nil || op != opBinary || number(t, b) != want {
				t.Fatalf("frame %d: %d, %v", want, op, err)
			}
		}
		if d := time.Since(begin); d > 3*time.Second {
			t.Errorf("300 frames took %v", d)
		}
		close(stop)
		<-stopped
	})
}

// A client that acknowledges frames but is slow with pongs is known by its
// acknowledgements.
func TestAcknowledgements(t *testing.T) {
	s := serve(t, false, Options{}, nil)
	_, so := s.dial(t, 4<<20)
	frames := 0
	// send sends n frames, or as many as the socket is ready for within 100 ms.
	send := func(n int) {
		until := time.Now().Add(100 * time.Millisecond)
		for n > 0 && time.Now().Before(until) {
			if !so.Ready() {
				time.Sleep(time.Millisecond) // the kernel sends
				continue
			}
			if _, err := so.WriteFrame(payload(frames, 1000)); err != nil {
				t.Fatal(err)
			}
			frames++
			n--
		}
	}
	so.Acked(0)
	so.Acked(1 << 40) // never sent
	send(1000)
	first := frames
	if so.Ready() || first < 60 || first > 90 {
		t.Fatalf("%d frames before the client was not ready; want about 65", first)
	}
	so.Acked(uint64(first))
	if so.Stats().Unread != 0 {
		t.Errorf("%d bytes unread after all was acknowledged", so.Stats().Unread)
	}
	send(50)
	so.Acked(uint64(frames - 20))
	if u := so.Stats().Unread; frames != first+50 || u < 20*1004 || u > 20*1004+markBytes+1004 {
		t.Errorf("%d bytes unread with 20 of %d frames of 1,004 bytes unacknowledged", u, frames-first)
	}
}

// A flood of pings is answered as far as the client reads, and closed beyond
// the limit.
func TestPings(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{MessagesPerSecond: 100}, nil)
		p, _ := s.dial(t, 0)
		for _, b := range []string{"a", "", strings.Repeat("x", 125)} {
			p.send(0x80|opPing, []byte(b))
			op, got, err := p.frame()
			if err != nil || op != opPong || string(got) != b {
				t.Fatalf("ping %q: answer %d %q, %v", b, op, got, err)
			}
		}
		go func() {
			for range 2000 {
				p.send(0x80|opPing, []byte("flood"))
			}
		}()
		p.wantClose(codec.CloseTooFast)
		s.wantEnd(t, codec.CloseTooFast)
	})
}

// While something is left over the newest ping waits, and only that one.
func TestPongSlot(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{}, nil)
		p, so := s.dial(t, smallBuffer)
		sent := 0
		for so.wire.empty() {
			sent++
			if _, err := so.WriteFrame(payload(sent, 16000)); err != nil {
				t.Fatal(err)
			}
		}
		for _, b := range []string{"first", "second", "third"} {
			p.send(0x80|opPing, []byte(b))
		}
		time.Sleep(100 * time.Millisecond)
		go func() {
			for range 10_000 {
				if done, err := so.Flush(); done || err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
		frames, pongs := 0, []string{}
		for len(pongs) == 0 {
			op, b, err := p.next()
			if err != nil {
				t.Fatal(err)
			}
			switch op {
			case opBinary:
				frames++
			case opPong:
				pongs = append(pongs, string(b))
			}
		}
		if frames != sent || pongs[0] != "third" {
			t.Errorf("%d frames, then pong %q; want %d and %q", frames, pongs, sent, "third")
		}
	})
}

// A pong that the kernel did not take goes out although no frame follows: a
// client that reads has it soon, and does not count as stalled.
func TestPongLeftOver(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{StallMax: 2 * time.Second}, nil)
		p, so := s.dial(t, 0)
		if whole, err := so.WriteFrame(payload(1, 100)); !whole || err != nil {
			t.Fatal(whole, err)
		}
		full := make([]int, 2)
		if err := unix.Pipe2(full, unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = unix.Close(full[0]), unix.Close(full[1]) }()
		for err := error(nil); err == nil; {
			_, err = unix.Write(full[1], make([]byte, 4096))
		}
		takes := func(fd uintptr) (was uintptr) {
			so.wire.mu.Lock()
			defer so.wire.mu.Unlock()
			was, so.wire.fd = so.wire.fd, fd
			return was
		}
		fd := takes(uintptr(full[1])) // a kernel that takes nothing
		p.send(0x80|opPing, []byte("there?"))
		for so.wire.empty() {
			time.Sleep(time.Millisecond)
		}
		takes(fd)
		got := make(chan string)
		go func() {
			for {
				op, b, err := p.next()
				if err != nil || op == opPong || op == opClose {
					got <- string(b)
					return
				}
			}
		}()
		now := time.Now()
		for i := range 10 { // a shard that has nothing more to send
			if r := so.Tick(now.Add(time.Duration(i) * time.Second)); r != "" {
				t.Errorf("Tick = %q of a client that reads, after %d s", r, i)
				so.Close(r)
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		select {
		case b := <-got:
			if b != "there?" {
				t.Errorf("got %q, want the pong", b)
			}
		case <-time.After(2 * time.Second):
			t.Error("no pong")
		}
	})
}

// What a client must not send closes it with the reason, and what it may send
// arrives.
func TestInbound(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789abcdef"), 4096) // 64 KiB
	join := func(b ...[]byte) []byte { return bytes.Join(b, nil) }
	fragments := func(n int, piece []byte) []byte {
		out := clientFrame(opText, piece)
		for range n - 2 {
			out = append(out, clientFrame(opContinuation, piece)...)
		}
		return append(out, clientFrame(0x80|opContinuation, piece)...)
	}
	for name, tt := range map[string]struct {
		in   []byte
		want []string          // messages
		end  codec.CloseReason // none: still open
	}{
		"a command":                    {in: clientFrame(0x80|opText, []byte("hello")), want: []string{"hello"}},
		"an empty one":                 {in: clientFrame(0x80|opText, nil), want: []string{""}},
		"the longest":                  {in: clientFrame(0x80|opText, long), want: []string{string(long)}},
		"two long ones":                {in: join(clientFrame(0x80|opText, long), clientFrame(0x80|opBinary, long[:5000])), want: []string{string(long), string(long[:5000])}},
		"fragments":                    {in: fragments(10, []byte("ab")), want: []string{strings.Repeat("ab", 10)}},
		"fragments around a ping":      {in: join(clientFrame(opText, []byte("a")), clientFrame(0x80|opPing, nil), clientFrame(0x80|opContinuation, []byte("b"))), want: []string{"ab"}},
		"long fragments":               {in: fragments(8, long[:8192]), want: []string{string(long)}},
		"one byte too long":            {in: clientFrame(0x80|opText, append(long, 'x')), end: codec.CloseTooBig},
		"fragments too long together":  {in: fragments(9, long[:8192]), end: codec.CloseTooBig},
		"too many fragments":           {in: fragments(fragmentsMax+1, []byte("a")), end: codec.CloseTooBig},
		"zero-length continuations":    {in: join(clientFrame(opText, nil), bytes.Repeat(clientFrame(opContinuation, nil), 300)), end: codec.CloseTooBig},
		"a claim of 2^63":              {in: []byte{0x82, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, end: codec.CloseTooBig},
		"a claim of 2^64-1":            {in: []byte{0x82, 0x80 | 127, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0}, end: codec.CloseTooBig},
		"not masked":                   {in: []byte{0x81, 1, 'a'}, end: codec.CloseProtocol},
		"reserved bit":                 {in: clientFrame(0xC0|opText, []byte("a")), end: codec.CloseProtocol},
		"unknown opcode":               {in: clientFrame(0x83, []byte("a")), end: codec.CloseProtocol},
		"unknown control opcode":       {in: clientFrame(0x8B, []byte("a")), end: codec.CloseProtocol},
		"a ping in fragments":          {in: clientFrame(opPing, []byte("a")), end: codec.CloseProtocol},
		"a ping of 126 bytes":          {in: clientFrame(0x80|opPing, long[:126]), end: codec.CloseProtocol},
		"continuation of nothing":      {in: clientFrame(0x80|opContinuation, []byte("a")), end: codec.CloseProtocol},
		"a message within a message":   {in: join(clientFrame(opText, []byte("a")), clientFrame(0x80|opText, []byte("b"))), end: codec.CloseProtocol},
		"text that is not UTF-8":       {in: clientFrame(0x80|opText, []byte{0xff, 0xfe}), end: codec.CloseProtocol},
		"close":                        {in: clientFrame(0x80|opClose, []byte{0x03, 0xe9, 'b', 'y', 'e'}), end: codec.CloseNormal},
		"close without a code":         {in: clientFrame(0x80|opClose, nil), end: codec.CloseNormal},
		"close with a code of 1 byte":  {in: clientFrame(0x80|opClose, []byte{3}), end: codec.CloseProtocol},
		"close with a code of nobody":  {in: clientFrame(0x80|opClose, []byte{0x03, 0xed}), end: codec.CloseProtocol},
		"a command, then a broken one": {in: join(clientFrame(0x80|opText, []byte("ok")), []byte{0xff, 0xff}), want: []string{"ok"}, end: codec.CloseProtocol},
	} {
		for _, useTLS := range []bool{false, true} {
			for pace, chunk := range map[string]int{"at once": len(tt.in), "in pieces": 701, "byte by byte": 1} {
				if chunk == 1 && len(tt.in) > 1000 {
					continue
				}
				variant := map[bool]string{false: " plain ", true: " tls "}[useTLS]
				t.Run(name+variant+pace, func(t *testing.T) {
					t.Parallel()
					var mu sync.Mutex
					var got []string
					s := serve(t, useTLS, Options{}, func(_ bool, b []byte) codec.CloseReason {
						mu.Lock()
						defer mu.Unlock()
						got = append(got, string(b))
						return ""
					})
					p, _ := s.dial(t, 0)
					for b := tt.in; len(b) > 0; b = b[min(chunk, len(b)):] {
						if _, err := p.conn.Write(b[:min(chunk, len(b))]); err != nil {
							break // closed already: what is wanted is checked below
						}
					}
					if tt.end != "" {
						p.wantClose(tt.end)
						s.wantEnd(t, tt.end)
					} else {
						p.send(0x80|opPing, []byte("done?"))
						for {
							op, b, err := p.next()
							if err != nil {
								t.Fatal(err)
							}
							if op == opPong && string(b) == "done?" {
								break
							}
						}
					}
					mu.Lock()
					defer mu.Unlock()
					if strings.Join(got, "|") != strings.Join(tt.want, "|") {
						t.Errorf("got %d messages %.80q, want %d %.80q", len(got), got, len(tt.want), tt.want)
					}
				})
			}
		}
	}
}

// A message that does not become whole in time closes the socket.
func TestSlowMessage(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{MessageTimeMax: 200 * time.Millisecond}, nil)
		p, so := s.dial(t, 0)
		whole := clientFrame(0x80|opText, []byte("hello"))
		_, _ = p.conn.Write(whole)
		_, _ = p.conn.Write(whole[:3])
		deadline := time.Now().Add(5 * time.Second)
		for {
			if r := so.Tick(time.Now()); r != "" {
				if r != codec.CloseSlowMessage {
					t.Fatalf("Tick = %q", r)
				}
				so.Close(r)
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("half a message for 5s and no reason to close")
			}
			time.Sleep(10 * time.Millisecond)
		}
		p.wantClose(codec.CloseSlowMessage)
		s.wantEnd(t, codec.CloseSlowMessage)
	})
}

// A client that resets, vanishes or closes half of its connection ends.
func TestGone(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		t.Run("reset", func(t *testing.T) {
			s := serve(t, useTLS, Options{}, nil)
			p, _ := s.dial(t, 0)
			_ = p.tcp.SetLinger(0)
			_ = p.tcp.Close()
			s.wantEnd(t, codec.CloseGone)
		})
		t.Run("closed without a word", func(t *testing.T) {
			s := serve(t, useTLS, Options{}, nil)
			p, _ := s.dial(t, 0)
			_ = p.tcp.Close()
			s.wantEnd(t, codec.CloseGone)
		})
		t.Run("half closed", func(t *testing.T) {
			s := serve(t, useTLS, Options{}, nil)
			p, _ := s.dial(t, 0)
			_ = p.tcp.CloseWrite()
			p.wantClose(codec.CloseGone)
			s.wantEnd(t, codec.CloseGone)
		})
		t.Run("reset while being written to", func(t *testing.T) {
			s := serve(t, useTLS, Options{}, nil)
			p, so := s.dial(t, 0)
			done := make(chan int)
			go func() { done <- pump(t, so, 4000, nil) }()
			_ = p.tcp.SetLinger(0)
			_ = p.tcp.Close()
			<-done
			s.wantEnd(t, codec.CloseGone)
		})
	})
}

// A client that is slow to read while it is being closed gets the reason, and
// nothing after it; one that takes nothing ends all the same.
func TestClose(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		fill := func(t *testing.T, so *Socket) (sent int) {
			for so.wire.empty() {
				sent++
				if _, err := so.WriteFrame(payload(sent, 16000)); err != nil {
					t.Fatal(err)
				}
			}
			return sent
		}
		t.Run("reads late", func(t *testing.T) {
			s := serve(t, useTLS, Options{}, nil)
			p, so := s.dial(t, smallBuffer)
			sent := fill(t, so)
			so.Close(codec.CloseOverload)
			so.Close(codec.CloseStalled) // the first reason counts
			if _, err := so.WriteFrame(payload(99, 10)); !errors.Is(err, ErrClosed) {
				t.Errorf("WriteFrame after Close: %v, want ErrClosed", err)
			}
			p.send(0x80|opPing, []byte("late"))
			time.Sleep(300 * time.Millisecond)
			for want := 1; want <= sent; want++ {
				op, b, err := p.next()
				if err != nil || op != opBinary || number(t, b) != want {
					t.Fatalf("frame %d of %d: op %d, %v", want, sent, op, err)
				}
			}
			p.wantClose(codec.CloseOverload)
			_ = p.tcp.Close()
			s.wantEnd(t, codec.CloseOverload)
		})
		t.Run("never reads", func(t *testing.T) {
			s := serve(t, useTLS, Options{}, nil)
			_, so := s.dial(t, 4096)
			fill(t, so)
			begin := time.Now()
			so.Close(codec.CloseStalled)
			if d := time.Since(begin); d > 100*time.Millisecond {
				t.Errorf("Close took %v", d)
			}
			s.wantEnd(t, codec.CloseStalled)
			if d := time.Since(begin); d > 4*time.Second {
				t.Errorf("ended after %v, want at most 2s", d)
			}
		})
		t.Run("sends on and on", func(t *testing.T) {
			s := serve(t, useTLS, Options{MessagesPerSecond: Off, BytesPerSecond: Off, ReadsPerSecond: Off}, nil)
			p, so := s.dial(t, 0)
			go func() {
				for range 100000 {
					if _, err := p.conn.Write(clientFrame(0x80|opText, make([]byte, 1000))); err != nil {
						return
					}
				}
			}()
			so.Close(codec.CloseDraining)
			for {
				op, payload, err := p.next()
				if err != nil {
					t.Fatalf("ended with %v, want the reason", err)
				}
				if op == opClose {
					if got := string(payload[2:]); got != string(codec.CloseDraining) {
						t.Errorf("reason %q", got)
					}
					break
				}
			}
			s.wantEnd(t, codec.CloseDraining)
		})
		t.Run("sends a little more", func(t *testing.T) {
			s := serve(t, useTLS, Options{}, nil)
			p, so := s.dial(t, 0)
			so.Close(codec.CloseOverload)
			for i := range 20 { // a reset would make the client's next write fail
				if _, err := p.conn.Write(clientFrame(0x80|opText, make([]byte, 1000))); err != nil {
					t.Errorf("message %d while it is being closed: %v", i, err)
					break
				}
				time.Sleep(2 * time.Millisecond)
			}
			p.wantClose(codec.CloseOverload)
			s.wantEnd(t, codec.CloseOverload)
		})
		t.Run("sends as fast as it can", func(t *testing.T) {
			s := serve(t, useTLS, Options{}, nil)
			p, so := s.dial(t, 0)
			so.Close(codec.CloseTooFast)
			sent, flood := 0, make([]byte, 64<<10)
			for {
				n, err := p.conn.Write(flood)
				if sent += n; err != nil {
					break
				}
			}
			s.wantEnd(t, codec.CloseTooFast)
			// In drainMax, and what the kernels hold.
			if most := scrapMax*int(drainMax/drainPollMin) + 16<<20; sent > most {
				t.Errorf("%d MiB were read of a client that is being closed, want at most %d", sent>>20, most>>20)
			}
		})
	})
}

// A client that takes nothing is closed after StallMax by the clock that Tick
// is given, and not before.
func TestStalled(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{StallMax: 30 * time.Second}, nil)
		_, so := s.dial(t, 4096)
		for so.Ready() {
			if _, err := so.WriteFrame(payload(1, 16000)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(300 * time.Millisecond) // the kernel sends what it can
		now := time.Now()
		for i := range 40 {
			r := so.Tick(now.Add(time.Duration(i) * time.Second))
			if r == "" && i < 38 {
				continue
			}
			if r != codec.CloseStalled || i < 30 {
				t.Fatalf("after %ds: %q, want %q after 30s", i, r, codec.CloseStalled)
			}
			break
		}
		before := so.Stats().Attempts
		so.Close(codec.CloseStalled)
		s.wantEnd(t, codec.CloseStalled)
		if n := so.Stats().Attempts - before; n > 50 {
			t.Errorf("%d write attempts while closing a client that takes nothing", n)
		}
	})
}

// An idle client is pinged now and then, never stalls, and costs no ping when
// nothing happens.
func TestIdle(t *testing.T) {
	s := serve(t, false, Options{}, nil)
	p, so := s.dial(t, 0)
	now := time.Now()
	pings := make(chan []byte, 10)
	go func() {
		defer close(pings)
		for {
			op, b, err := p.frame()
			if err != nil {
				return
			}
			if op == opPing {
				pings <- b
				p.send(0x80|opPong, nil) // as some libraries do
			}
		}
	}()
	for i := range 51 {
		if r := so.Tick(now.Add(time.Duration(i) * time.Second)); r != "" {
			t.Fatalf("after %ds: %q", i, r)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if n := len(pings); n != 2 {
		t.Errorf("%d pings in 50 idle seconds, want 2", n)
	}
	so.Close(codec.CloseNormal)
	for range pings {
	}
}

// Memory and write attempts of clients that never read are bounded.
func TestManyThatNeverRead(t *testing.T) {
	each := func(t *testing.T, useTLS bool) { // alone: it measures the heap
		const clients = 200
		s := serve(t, useTLS, Options{}, nil)
		var sockets []*Socket
		for range clients {
			_, so := s.dial(t, 4096)
			sockets = append(sockets, so)
		}
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		frame := payload(1, 16000)
		begin := time.Now()
		for time.Since(begin) < 500*time.Millisecond {
			for _, so := range sockets {
				if so.Ready() {
					if _, err := so.WriteFrame(frame); err != nil {
						t.Fatal(err)
					}
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		if grown := (int64(heap()) - int64(before)) / clients; grown > 32<<10 {
			t.Errorf("%d bytes of heap a client, want at most 32 KiB", grown)
		}
		attempts := sockets[0].Stats().Attempts
		for i := range 100 {
			if i%10 == 0 { // a shard visits the owing 20 times a second at first, then less
				_, _ = sockets[0].Flush()
			}
			sockets[0].Ready()
		}
		if n := sockets[0].Stats().Attempts - attempts; n > 10 {
			t.Errorf("%d write attempts for 10 visits", n)
		}
	}
	t.Run("plain", func(t *testing.T) { each(t, false) })
	t.Run("tls", func(t *testing.T) { each(t, true) })
}

func TestWriteFrameAllocatesNothing(t *testing.T) {
	s := serve(t, false, Options{}, nil)
	p, so := s.dial(t, 0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if op, b, err := p.frame(); err != nil {
				return
			} else if op == opPing {
				so.Acked(so.Stats().Frames)
				_ = b
			}
		}
	}()
	frame := payload(1, 500)
	if n := testing.AllocsPerRun(500, func() {
		if so.Ready() {
			_, _ = so.WriteFrame(frame)
		}
	}); n > 0 {
		t.Errorf("%v allocations a frame that the kernel takes", n)
	}
	so.Close(codec.CloseNormal)
	<-done
}

func TestFrameTooBig(t *testing.T) {
	s := serve(t, false, Options{}, nil)
	p, so := s.dial(t, 0)
	if _, err := so.WriteFrame(make([]byte, HeaderRoom+FrameMax+1)); !errors.Is(err, ErrFrameTooBig) {
		t.Errorf("WriteFrame: %v", err)
	}
	p.wantClose(codec.CloseInternal)
}

// A changed certificate is used for the next handshake; a broken one is not.
func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := writeCertificate(t, dir, 1)
	c, err := LoadCertificates(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		c.looked = time.Time{} // as if lookEvery had passed
		cert, err := c.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf.SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Errorf("serial %d, want 1", got)
	}
	later := time.Now().Add(time.Minute)
	writeCertificate(t, dir, 2)
	_ = os.Chtimes(certFile, later, later)
	c.looked = time.Now()
	if cert, err := c.Get(nil); err != nil || cert.Leaf.SerialNumber.Int64() != 1 {
		t.Errorf("looked at the files again within %v: %v", lookEvery, err)
	}
	if got := serial(); got != 2 {
		t.Errorf("serial %d after the files changed, want 2", got)
	}
	if err := os.WriteFile(certFile, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 2 {
		t.Errorf("serial %d with a broken file, want 2 still", got)
	}
	if _, err := LoadCertificates(filepath.Join(dir, "none.pem"), keyFile, nil); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("a file that is missing: %v, want it named", err)
	}
}

// A certificate that clients will refuse is told when it is read.
func TestCertificateExpired(t *testing.T) {
	for name, notAfter := range map[string]time.Time{"valid": time.Now().Add(time.Hour), "expired": time.Now().Add(-time.Hour)} {
		t.Run(name, func(t *testing.T) {
			certFile, keyFile := writeCertificateUntil(t, t.TempDir(), 1, notAfter)
			var said bytes.Buffer
			if _, err := LoadCertificates(certFile, keyFile, slog.New(slog.NewTextHandler(&said, nil))); err != nil {
				t.Fatal(err)
			}
			if told := strings.Contains(said.String(), "not valid now"); told != (name == "expired") {
				t.Errorf("log: %q", &said)
			}
		})
	}
}

func TestOptionsSayAllFaults(t *testing.T) {
	_, err := NewUpgrader(Options{StallMax: 2 * time.Millisecond, MessageBytesMax: 1 << 20})
	if err == nil || !strings.Contains(err.Error(), "StallMax 2ms: want 1s to 10m") || !strings.Contains(err.Error(), "MessageBytesMax 1048576") {
		t.Errorf("NewUpgrader = %v, want both faults", err)
	}
}

// A client whose machine vanished is found by TCP's silence, not by its lack
// of appetite.
func TestVanishes(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{DeadMax: time.Second}, nil)
		p, so := s.dial(t, 0)
		raw, err := p.tcp.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0} // every segment that arrives
		_ = raw.Control(func(fd uintptr) {
			err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
		})
		if err != nil {
			t.Fatal(err)
		}
		if r := so.Tick(time.Now()); r != "" {
			t.Errorf("Tick = %q of a client that is owed nothing", r)
		}
		pump(t, so, 100, nil) // returns when Tick has told a reason
		s.wantEnd(t, codec.CloseDead)
	})
}

// Who closes a socket because a write failed gives it the reason for which the
// kernel gave up, whether that was the first to see it or who reads.
func TestWriteFailsForAReason(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want codec.CloseReason
	}{
		"timed out": {os.NewSyscallError("write", unix.ETIMEDOUT), codec.CloseDead},
		"overrun":   {errOverrun, codec.CloseStalled},
		"reset":     {os.NewSyscallError("write", unix.ECONNRESET), codec.CloseGone},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Socket{wire: &wire{broken: tt.err}}
			s.out = s.wire
			if s.Close(codec.CloseGone); s.reason != tt.want {
				t.Errorf("closed as %q, want %q", s.reason, tt.want)
			}
		})
	}
}

// A client that asks for new TLS keys gets them, by crypto/tls writing from the
// reader's goroutine, and the frames around them stay whole.
func TestKeyUpdates(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs the openssl command: Go's client cannot ask for key updates")
	}
	s := serve(t, true, Options{}, nil)
	c := exec.Command(openssl, "s_client", "-quiet", "-no_ign_eof", "-connect", s.addr)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}()
	p := &peer{t: t, br: bufio.NewReader(out)}
	_, _ = io.WriteString(in, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	resp, err := http.ReadResponse(p.br, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	so := <-s.sockets
	for want := 1; want <= 40; want++ {
		if want%4 == 0 {
			_, _ = io.WriteString(in, "K\n") // "update your keys, and I want yours updated"
			time.Sleep(5 * time.Millisecond)
		}
		if _, err := so.WriteFrame(payload(want, 500)); err != nil {
			t.Fatalf("frame %d: %v", want, err)
		}
		op, b, err := p.frame()
		if err != nil || op != opBinary || number(t, b) != want {
			t.Fatalf("frame %d: op %d, %v", want, op, err)
		}
	}
	so.Close(codec.CloseDraining)
	if op, b, err := p.frame(); err != nil || op != opClose || string(b[2:]) != "draining" {
		t.Errorf("after Close: op %d %q, %v", op, b, err)
	}
}
