package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestLimiterUpgrade(t *testing.T) {
	office, other := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("203.0.113.8")
	loopback, loopback6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	home := []netip.Addr{netip.MustParseAddr("2001:db8:1:2::a"), netip.MustParseAddr("2001:db8:1:2:ffff::b")}
	type step struct {
		addr   netip.Addr
		status int // 0: admitted
	}
	for name, tt := range map[string]struct {
		limits Limits
		steps  []step
	}{
		"per address": {Limits{ConnectionsPerAddress: 2},
			[]step{{office, 0}, {office, 0}, {office, http.StatusTooManyRequests}, {other, 0}}},
		"an IPv6 network is one address": {Limits{ConnectionsPerAddress: 2},
			[]step{{home[0], 0}, {home[1], 0}, {home[0], http.StatusTooManyRequests}}},
		"IPv4 in IPv6 is IPv4": {Limits{ConnectionsPerAddress: 1},
			[]step{{office, 0}, {netip.MustParseAddr("::ffff:203.0.113.7"), http.StatusTooManyRequests}}},
		"loopback is not counted": {Limits{ConnectionsPerAddress: 1},
			[]step{{loopback, 0}, {loopback, 0}, {loopback, 0}}},
		"IPv6's neither": {Limits{ConnectionsPerAddress: 1},
			[]step{{loopback6, 0}, {loopback6, 0}, {loopback6, 0}}},
		"unless told": {Limits{ConnectionsPerAddress: 1, CountLoopback: true},
			[]step{{loopback, 0}, {loopback, http.StatusTooManyRequests}}},
		"off": {Limits{ConnectionsPerAddress: Off, Connections: Off, UpgradesPerSecond: Off},
			[]step{{office, 0}, {office, 0}, {office, 0}}},
		"in all": {Limits{Connections: 2},
			[]step{{office, 0}, {other, 0}, {loopback, http.StatusServiceUnavailable}}},
		"rate": {Limits{UpgradesPerSecond: 1},
			[]step{{office, 0}, {office, 0}, {office, http.StatusServiceUnavailable}}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimiter(tt.limits.withDefaults())
			now := time.Unix(1e9, 0)
			l.now = func() time.Time { return now }
			var held []func()
			for i, s := range tt.steps {
				done, no := l.upgrade(s.addr)
				got := 0
				if no != nil {
					got = no.status
				} else {
					held = append(held, done)
				}
				if got != s.status {
					t.Errorf("upgrade %d from %v: status %d, want %d", i+1, s.addr, got, s.status)
				}
			}
			for _, done := range held {
				done()
			}
			if l.sessions != 0 || len(l.by) != 0 {
				t.Errorf("all have ended and %d sessions of %d addresses are kept", l.sessions, len(l.by))
			}
			now = now.Add(time.Minute)
			if _, no := l.upgrade(tt.steps[0].addr); no != nil {
				t.Errorf("after all have ended: %s", no.text)
			}
		})
	}
}

func TestLimiterConnect(t *testing.T) {
	l := newLimiter(Limits{}.withDefaults())
	one := netip.MustParseAddr("198.51.100.1")
	var held []func()
	for range pendingPerAddress {
		done, limit := l.connect(one, nil)
		if limit != "" {
			t.Fatalf("refused by %s", limit)
		}
		held = append(held, done)
	}
	if _, limit := l.connect(one, nil); limit != limitPending {
		t.Errorf("connection %d of one address: %q, want %q", pendingPerAddress+1, limit, limitPending)
	}
	for i := len(held); i < pendingMax; i++ {
		done, limit := l.connect(netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", i/256, i%256)), nil)
		if limit != "" {
			t.Fatalf("connection %d refused by %s", i, limit)
		}
		held = append(held, done)
	}
	admitted := make(chan string)
	go func() {
		_, limit := l.connect(one.Next(), nil)
		admitted <- limit
	}()
	select {
	case limit := <-admitted:
		t.Fatalf("connection %d did not wait: %q", pendingMax+1, limit)
	case <-time.After(20 * time.Millisecond):
	}
	held[0]()
	if limit := <-admitted; limit != "" {
		t.Errorf("a place became free: %q", limit)
	}
	stop := make(chan struct{})
	close(stop)
	if _, limit := l.connect(one.Next().Next(), stop); limit != limitDraining {
		t.Errorf("while stopping: %q, want %q", limit, limitDraining)
	}
}

// Connections that are kept after an answer leave places for clients.
func TestKeptConnectionsLeavePlaces(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limits Limits
		places int
	}{
		"in all":      {Limits{}, pendingMax},
		"per address": {Limits{CountLoopback: true}, pendingPerAddress},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, Options{Limits: tt.limits})
			kept := 0
			for i := range tt.places {
				c, err := net.Dial("tcp", r.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatalf("request %d: %v", i+1, err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				if !resp.Close {
					kept++
				}
			}
			if kept != tt.places/2 {
				t.Errorf("%d connections are kept, want %d of %d", kept, tt.places/2, tt.places)
			}
			r.dial().next("welcome")
		})
	}
}

func TestOptionsTellAllFaults(t *testing.T) {
	_, err := New(Options{Shards: 99, DrainWindow: time.Hour, StallMax: time.Millisecond, Limits: Limits{Symbols: -7}})
	if err == nil {
		t.Fatal("New took them")
	}
	for _, want := range []string{"Board is nil", "Shards 99", "DrainWindow 1h0m0s", "StallMax 1ms", "Limits.Symbols -7"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nhas no %q", err, want)
		}
	}
}
