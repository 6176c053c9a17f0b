package socket

import (
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tickgate/codec"
)

// A socket that is written to although it is not ready ends once more is left over
// than may be: as one that took nothing, and its memory with it.
func TestRemainderIsBounded(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{}, nil)
		_, so := s.dial(t, smallBuffer)
		for i := 0; ; i++ {
			_, err := so.WriteFrame(payload(i, FrameMax))
			if left := so.Stats().Left; left > so.wire.remainderMax || left > FrameMax+HeaderRoom+controlRoom+tlsRoom {
				t.Fatalf("%d bytes left over, want at most %d", left, so.wire.remainderMax)
			}
			if err != nil {
				break
			}
			if i > 1000 {
				t.Fatal("16 MiB were taken for a client that does not read")
			}
		}
		if _, err := so.WriteFrame(payload(1, 10)); err == nil {
			t.Error("written to after it broke")
		}
		if left := so.Stats().Left; left != 0 {
			t.Errorf("%d bytes are kept for a stream with a hole in it", left)
		}
		s.wantEnd(t, codec.CloseStalled)
	})
}

// The kernel keeps few bytes that it has not sent, and does not kill a client
// whose window is closed before it counts as stalled.
func TestSocketOptions(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{StallMax: 40 * time.Second}, nil)
		_, so := s.dial(t, 0)
		for name, o := range map[string]struct{ option, want int }{
			"TCP_NOTSENT_LOWAT": {unix.TCP_NOTSENT_LOWAT, 16 << 10},
			"TCP_USER_TIMEOUT":  {unix.TCP_USER_TIMEOUT, 55_000},
		} {
			var got int
			var err error
			if e := so.wire.raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, o.option) }); e != nil {
				err = e
			}
			if err != nil || got != o.want {
				t.Errorf("%s = %d, %v; want %d", name, got, err, o.want)
			}
		}
	})
}

// Bytes that the kernel has not sent make a socket not ready before it has to
// leave anything over.
func TestUnsentIsBounded(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{}, nil)
		_, so := s.dial(t, smallBuffer)
		frames := uint64(0)
		for so.Ready() {
			if frames++; frames > 4000 {
				t.Fatal("4 MB were taken for a client that does not read")
			}
			if _, err := so.WriteFrame(payload(1, 1000)); err != nil {
				t.Fatal(err)
			}
			so.Acked(frames) // so that nothing counts as unread
		}
		so.wire.mu.Lock()
		defer so.wire.mu.Unlock()
		if so.wire.unsent <= unsentMax || len(so.wire.remainder) > 0 {
			t.Errorf("not ready with %d bytes unsent and %d left over; want more than %d and none", so.wire.unsent, len(so.wire.remainder), unsentMax)
		}
	})
}

// What may be unread is 64 KiB, or what the client's line needs for two round
// trips, at most a second of what it reads.
func TestUnreadAllowance(t *testing.T) {
	for name, tt := range map[string]struct {
		rate           uint64
		trip, tripLast time.Duration
		want           uint64
	}{
		"nothing known":           {want: unreadMax},
		"no trip yet":             {rate: 50 << 20, want: unreadMax},
		"a near client":           {rate: 10 << 20, trip: 200 * time.Microsecond, want: unreadMax},
		"a slow one":              {rate: 10_000, trip: 400 * time.Millisecond, want: unreadMax},
		"a long fast line":        {rate: 10_000_000, trip: 100 * time.Millisecond, want: 2_000_000},
		"by the least of late":    {rate: 10_000_000, trip: 300 * time.Millisecond, tripLast: 100 * time.Millisecond, want: 2_000_000},
		"a second at the most":    {rate: 10_000_000, trip: 5 * time.Second, want: 10_000_000},
		"only the trip of before": {rate: 10_000_000, tripLast: 100 * time.Millisecond, want: 2_000_000},
	} {
		s := &Socket{readRate: tt.rate, trip: tt.trip, tripLast: tt.tripLast}
		if got := s.allowanceLocked(); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", name, got, tt.want)
		}
	}
}

// A client under traffic is pinged each second, however little that is; a pong
// that we did not ask for tells nothing.
func TestPingedUnderTraffic(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{MessagesPerSecond: 1}, nil) // five at once: pongs that we asked for do not count
		p, so := s.dial(t, 0)
		now := time.Now()
		so.Tick(now)
		for i := range 12 {
			if _, err := so.WriteFrame(payload(i, 100)); err != nil {
				t.Fatal(err)
			}
			now = now.Add(time.Second)
			if r := so.Tick(now); r != "" {
				t.Fatalf("tick %d: %q", i, r)
			}
			if op, b, err := p.frame(); op != opBinary || err != nil {
				t.Fatalf("frame %d: op %d, %v", number(t, b), op, err)
			}
			op, b, err := p.frame()
			if op != opPing || err != nil {
				t.Fatalf("after a second of traffic: op %d, %v; want a ping", op, err)
			}
			if i == 0 {
				p.send(0x80|opPong, []byte("whatever"))
				p.send(0x80|opPing, []byte("read that?"))
				if op, _, err := p.frame(); op != opPong || err != nil {
					t.Fatal(op, err)
				}
				if so.Stats().Unread == 0 {
					t.Error("a pong that was not asked for counts")
				}
			}
			p.send(0x80|opPong, b)
			for until := time.Now().Add(5 * time.Second); so.Stats().Unread > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(until) {
					t.Fatalf("%d bytes unread after pong %d", so.Stats().Unread, i)
				}
			}
		}
	})
}

// Who waits for a client to read is told when it has.
func TestAgain(t *testing.T) {
	for name, read := range map[string]func(*Socket){
		"acknowledged": func(so *Socket) { so.Acked(so.Stats().Frames) },
		"pong":         func(so *Socket) { so.gotPong(nil) },
	} {
		told := 0
		s := serve(t, false, Options{}, nil)
		_, so := s.dial(t, 4<<20)
		so.mu.Lock()
		so.again = func() { told++ }
		so.mu.Unlock()
		read(so)
		if told != 0 {
			t.Errorf("%s: told although nobody waits", name)
		}
		for until := time.Now().Add(200 * time.Millisecond); time.Now().Before(until); {
			if !so.Ready() {
				time.Sleep(time.Millisecond)
				continue
			}
			if _, err := so.WriteFrame(payload(1, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		so.mu.Lock()
		if so.pinged = so.bytes; !so.pinging { // as if the ping stood behind all
			t.Error("no ping is under way")
		}
		so.mu.Unlock()
		if read(so); told != 1 {
			t.Errorf("%s: told %d times that it has read, want once", name, told)
		}
		if read(so); told != 1 {
			t.Errorf("%s: told again", name)
		}
	}
}

// A client that takes nothing while its TCP lives is not dead, and one that takes
// a little now and then and answers no ping is not stalled.
func TestNeitherDeadNorStalled(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		t.Run("a closed window", func(t *testing.T) {
			s := serve(t, useTLS, Options{DeadMax: time.Second, StallMax: 10 * time.Minute}, nil)
			_, so := s.dial(t, smallBuffer)
			stop := make(chan struct{})
			time.AfterFunc(5*time.Second, func() { close(stop) })
			pump(t, so, 4000, stop)
			select {
			case r := <-s.ended:
				t.Errorf("ended as %q", r)
			default:
			}
		})
		t.Run("a slow reader", func(t *testing.T) {
			s := serve(t, useTLS, Options{StallMax: 10 * time.Second}, nil)
			p, so := s.dial(t, smallBuffer)
			now := time.Now()
			for i := range 60 {
				for range 8 {
					if _, err := so.Flush(); err != nil {
						t.Fatal(err)
					}
					if so.wire.empty() && so.wire.clear() {
						if _, err := so.WriteFrame(payload(i, 16000)); err != nil {
							t.Fatal(err)
						}
					}
					_, _ = p.br.Discard(2000)
					time.Sleep(2 * time.Millisecond)
				}
				if r := so.Tick(now.Add(time.Duration(i) * time.Second)); r != "" {
					t.Fatalf("after %d s of reading a little: %q", i, r)
				}
			}
		})
	})
}

// After its end a socket has no file descriptor, and a client hears the end of
// what is sent before it has ended its own side.
func TestEndIsWhole(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		best := time.Hour
		for range 3 {
			s := serve(t, useTLS, Options{}, nil)
			p, so := s.dial(t, 0)
			began := time.Now()
			so.Close(codec.CloseDraining)
			if op, _, err := p.next(); op != opClose || err != nil {
				t.Fatal(op, err)
			}
			if _, err := p.br.ReadByte(); err == nil {
				t.Error("more after the close frame")
			}
			best = min(best, time.Since(began))
			_ = p.tcp.Close()
			s.wantEnd(t, codec.CloseDraining)
			if err := so.wire.raw.Control(func(uintptr) {}); err == nil {
				t.Error("the file descriptor is open after the end")
			}
		}
		if best > drainMax/2 {
			t.Errorf("the end of what is sent came after %v, want it with the close frame", best)
		}
	})
}

func TestTLSConfig(t *testing.T) {
	c, err := TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") })
	if err != nil {
		t.Fatal(err)
	}
	if !c.DynamicRecordSizingDisabled || c.MinVersion != tls.VersionTLS12 || len(c.NextProtos) != 1 || c.NextProtos[0] != "http/1.1" {
		t.Errorf("records sized by age: %v, least version %x, protocols %q; want full records, TLS 1.2 and http/1.1",
			!c.DynamicRecordSizingDisabled, c.MinVersion, c.NextProtos)
	}
	if _, err := TLSConfig(nil); err == nil {
		t.Error("no certificate, no error")
	}
}

// Bytes, reads and frames are limited each for itself.
func TestTooFast(t *testing.T) {
	for name, o := range map[string]Options{
		"bytes":  {BytesPerSecond: 1000, MessagesPerSecond: Off, ReadsPerSecond: Off},
		"reads":  {BytesPerSecond: Off, MessagesPerSecond: Off, ReadsPerSecond: 2},
		"frames": {BytesPerSecond: Off, MessagesPerSecond: 2, ReadsPerSecond: Off},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, useTLS bool) {
				s := serve(t, useTLS, o, nil)
				p, _ := s.dial(t, 0)
				go func() {
					for range 200 {
						if _, err := p.conn.Write(clientFrame(0x80|opText, make([]byte, 100))); err != nil {
							return
						}
						time.Sleep(2 * time.Millisecond) // a read each
					}
				}()
				p.wantClose(codec.CloseTooFast)
				s.wantEnd(t, codec.CloseTooFast)
			})
		})
	}
}

// A client that reads on is asked again at once how far it is, not at the next
// tick or frame.
func TestPingedAgain(t *testing.T) {
	both(t, func(t *testing.T, useTLS bool) {
		s := serve(t, useTLS, Options{}, nil)
		p, so := s.dial(t, 4<<20)
		for until := time.Now().Add(200 * time.Millisecond); time.Now().Before(until); {
			if !so.Ready() {
				time.Sleep(time.Millisecond)
				continue
			}
			if _, err := so.WriteFrame(payload(1, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		pings := 0
		for pings < 2 { // the first stands behind half of what may be unread
			op, b, err := p.frame()
			if err != nil {
				t.Fatalf("after %d pings: %v", pings, err)
			}
			if op == opPing {
				p.send(0x80|opPong, b)
				pings++
			}
		}
		for until := time.Now().Add(5 * time.Second); so.Stats().Unread > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%d bytes unread after all was read", so.Stats().Unread)
			}
		}
	})
}
