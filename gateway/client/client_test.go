package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/gateway/client"
)

func ticker(symbols ...string) client.Subscription {
	return client.Subscription{Channel: codec.ChannelTicker, Symbols: symbols}
}

func trades(symbols ...string) client.Subscription {
	return client.Subscription{Channel: codec.ChannelTrades, Symbols: symbols}
}

// TestFollow: in both spellings, plain and TLS, a client says what it wants,
// tells what comes with what was merged, and acknowledges it.
func TestFollow(t *testing.T) {
	for _, subprotocol := range []string{native.SubprotocolMsgPack, native.SubprotocolJSON} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s tls=%v", subprotocol, secure), func(t *testing.T) {
				g := newGateway(t, secure)
				o := client.Options{URL: g.url, Subprotocol: subprotocol}
				if secure {
					roots := x509.NewCertPool()
					roots.AddCert(g.server.Certificate())
					o.TLS = &tls.Config{RootCAs: roots}
				}
				sub := ticker("BTCUSDT", "ETH-*")
				sub.Every, sub.View = 100*time.Millisecond, codec.ViewAll
				r := start(t, newClient(t, o, sub))
				p := g.next()
				if got := p.conn.SubProtocol(); got != subprotocol {
					t.Errorf("subprotocol %q, want %q", got, subprotocol)
				}
				c := p.command(codec.OpSubscribe)
				names := items(&c)
				if c.Ref == 0 || c.Channel != codec.ChannelTicker || c.Every != sub.Every || c.View != sub.View || len(names) != 2 ||
					string(names[0].Name) != "BTCUSDT" || string(names[1].Name) != "ETH-*" || names[0].HasFrom {
					t.Errorf("subscribed by %+v %v", c, names)
				}
				p.send(event(codec.Event{Type: codec.EventWelcome, Node: "n"}), granted(codec.ChannelTicker, 7, "BTCUSDT"), snapshot(codec.ChannelTicker, 7, market(1, 10)))
				p.send(tick(codec.ChannelTicker, 7, 11), tick(codec.ChannelTicker, 7, 15))

				u := r.update()
				if !u.Snapshot() || u.Symbol != "BTCUSDT" || u.Epoch != 1 || u.Seq != 10 || u.Merged != 0 || u.Last.String() != "100.10" {
					t.Errorf("snapshot %+v", u)
				}
				if u = r.update(); u.Snapshot() || u.Epoch != 1 || u.Seq != 11 || u.Merged != 0 {
					t.Errorf("tick %+v", u)
				}
				if u = r.update(); u.Seq != 15 || u.Merged != 3 || u.Volume.String() != "7.5" {
					t.Errorf("tick that stands for four: %+v", u)
				}
				age, ok := u.Age()
				if !ok || age < 0 || age > wait {
					t.Errorf("age %v, %v", age, ok)
				}
				if eventAge, ok := u.EventAge(); !ok || eventAge < time.Second || eventAge > time.Second+wait {
					t.Errorf("event age %v, %v", eventAge, ok)
				}
				if e := receive(t, r.events, "welcome"); e.Type != codec.EventWelcome || e.Node != "n" {
					t.Errorf("event %+v, want welcome", e)
				}
				for receive(t, p.acks, "an acknowledgement of frame 2") != 2 {
				}
			})
		}
	}
}

// TestMerged: what an update stands for is the difference of the channel's own
// number.
func TestMerged(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url}, client.Subscription{Channel: codec.ChannelQuotes, Symbols: []string{"BTCUSDT"}}))
	p := g.next()
	quote := func(seq, no uint64) rows {
		return func(s native.Spelling, dst []byte) ([]byte, int) {
			m := market(1, seq)
			m.QuoteNo = no
			return s.AppendState(dst, codec.ChannelQuotes, codec.ViewQuote, 7, "BTCUSDT", m), 1
		}
	}
	first := market(1, 10)
	first.QuoteNo = 4
	p.send(granted(codec.ChannelQuotes, 7, "BTCUSDT"), snapshot(codec.ChannelQuotes, 7, first), quote(20, 5), quote(30, 8), quote(31, 8))
	for i, want := range []uint64{0, 0, 2, 0} {
		if u := r.update(); u.Merged != want {
			t.Errorf("update %d, quote %d at seq %d: merged %d, want %d", i, u.No, u.Seq, u.Merged, want)
		}
	}
}

// TestDrops: drops that were told are told on, and what is missing else is a
// violation.
func TestDrops(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url}, trades("BTCUSDT")))
	p := g.next()
	drop := event(codec.Event{Type: codec.EventDrop, Channel: codec.ChannelTrades, ID: 7, Symbol: "BTCUSDT", Count: 5})
	p.send(granted(codec.ChannelTrades, 7, "BTCUSDT"), snapshot(codec.ChannelTrades, 7, market(1, 10)), tick(codec.ChannelTrades, 7, 11), drop, tick(codec.ChannelTrades, 7, 17))
	for i, want := range []uint64{0, 0, 5} {
		if u := r.update(); u.Dropped != want || u.Merged != 0 {
			t.Errorf("update %d: dropped %d, merged %d, want %d, 0", i, u.Dropped, u.Merged, want)
		}
	}
	p.send(tick(codec.ChannelTrades, 7, 19))
	r.violation("trade 19 after trade 17")
	receive(t, r.updates, "the update all the same")
	p.send(drop, tick(codec.ChannelTrades, 7, 20))
	r.violation("trade 20 after trade 19, with 5 drops told")
}

// TestViolations: a promise that is broken is told, and following goes on.
func TestViolations(t *testing.T) {
	start7 := []rows{granted(codec.ChannelTicker, 7, "BTCUSDT"), snapshot(codec.ChannelTicker, 7, market(1, 10))}
	for name, tt := range map[string]struct {
		rows []rows
		want string
	}{
		"seq goes back":       {append(start7[:2:2], tick(codec.ChannelTicker, 7, 9)), "seq 9 after 10 in epoch 1"},
		"snapshot goes back":  {append(start7[:2:2], snapshot(codec.ChannelTicker, 7, market(1, 9))), "snapshot of seq 9 after seq 10"},
		"epoch goes back":     {append(start7[:2:2], snapshot(codec.ChannelTicker, 7, market(0, 99))), "snapshot of epoch 0 after epoch 1"},
		"reset goes back":     {append(start7[:2:2], event(codec.Event{Type: codec.EventReset, ID: 7, Symbol: "BTCUSDT", Epoch: 1})), "reset to epoch 1 after epoch 1"},
		"not granted":         {[]rows{tick(codec.ChannelTicker, 8, 9)}, "id 8, which was not granted"},
		"other channel":       {append(start7[:2:2], tick(codec.ChannelQuotes, 7, 11)), "id 7, which was not granted"},
		"no snapshot":         {[]rows{start7[0], tick(codec.ChannelTicker, 7, 9)}, "a tick of an epoch that was not told"},
		"id of two symbols":   {append(start7[:2:2], granted(codec.ChannelTicker, 7, "ETHUSDT")), "granted for BTCUSDT before"},
		"no symbol":           {[]rows{granted(codec.ChannelTicker, 7, "\x1b[2J")}, "is no symbol"},
		"drop of what is not": {[]rows{event(codec.Event{Type: codec.EventDrop, Channel: codec.ChannelTrades, ID: 9, Symbol: "X", Count: 1})}, "a drop of what was not granted"},
		"trade twice":         {[]rows{granted(codec.ChannelTrades, 7, "BTCUSDT"), snapshot(codec.ChannelTrades, 7, market(1, 10)), tick(codec.ChannelTrades, 7, 11), tick(codec.ChannelTrades, 7, 11)}, "seq 11 after 11"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, false)
			r := start(t, newClient(t, client.Options{URL: g.url}, ticker("BTCUSDT"), trades("BTCUSDT")))
			p := g.next()
			p.send(tt.rows...)
			r.violation(tt.want)
			p.send(event(codec.Event{Type: codec.EventPong, Ref: 1}))
			for receive(t, r.events, "the next frame").Type != codec.EventPong {
			}
		})
	}
}

// TestFilteredTradesMayBeMissing: who asked for large trades only sees gaps.
func TestFilteredTradesMayBeMissing(t *testing.T) {
	g := newGateway(t, false)
	sub := trades("BTCUSDT")
	sub.MinSize = codec.MustDecimal("10")
	r := start(t, newClient(t, client.Options{URL: g.url}, sub))
	p := g.next()
	if c := p.command(codec.OpSubscribe); c.MinSize.String() != "10" {
		t.Errorf("min size %q", c.MinSize)
	}
	p.send(granted(codec.ChannelTrades, 7, "BTCUSDT"), snapshot(codec.ChannelTrades, 7, market(1, 10)), tick(codec.ChannelTrades, 7, 15))
	r.update()
	if u := r.update(); u.No != 15 || u.Dropped != 0 {
		t.Errorf("%+v", u)
	}
}

// TestResume: after a lost connection each symbol is gone on with where it was,
// those that a pattern found too, and ids may be others.
func TestResume(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url}, trades("BTCUSDT", "NEW"), trades("ETH*")))
	p := g.next()
	p.command(codec.OpSubscribe)
	p.command(codec.OpSubscribe)
	p.send(granted(codec.ChannelTrades, 7, "BTCUSDT"), snapshot(codec.ChannelTrades, 7, market(1, 10)), tick(codec.ChannelTrades, 7, 11),
		granted(codec.ChannelTrades, 8, "ETHUSDT"), snapshot(codec.ChannelTrades, 8, market(1, 50)))
	for range 3 {
		r.update()
	}
	p.conn.NetConn().Close()
	if err := receive(t, r.lost, "the loss"); err == nil || !strings.Contains(err.Error(), g.url) {
		t.Errorf("lost because of %v, want the URL in it", err)
	}

	p = g.next()
	c := p.command(codec.OpSubscribe)
	if it := items(&c); len(it) != 2 || !it[0].HasFrom || it[0].Epoch != 1 || it[0].Seq != 11 || it[1].HasFrom {
		t.Errorf("went on by %+v, want BTCUSDT from 1, 11 and NEW from nowhere", it)
	}
	c = p.command(codec.OpSubscribe)
	if it := items(&c); len(it) != 2 || string(it[0].Name) != "ETHUSDT" || !it[0].HasFrom || it[0].Seq != 50 || string(it[1].Name) != "ETH*" {
		t.Errorf("went on by %+v, want ETHUSDT from 1, 50 and ETH*", it)
	}
	p.send(granted(codec.ChannelTrades, 3, "BTCUSDT"), tick(codec.ChannelTrades, 3, 12))
	if u := r.update(); u.Symbol != "BTCUSDT" || u.Epoch != 1 || u.No != 12 || u.Dropped != 0 {
		t.Errorf("after the loss %+v", u)
	}
	// What left the ring while it went on there is told by a drop, as always.
	p.send(granted(codec.ChannelTrades, 4, "ETHUSDT"),
		event(codec.Event{Type: codec.EventDrop, Channel: codec.ChannelTrades, ID: 4, Symbol: "ETHUSDT", Count: 15}),
		tick(codec.ChannelTrades, 4, 66), tick(codec.ChannelTrades, 4, 67))
	for i, want := range []uint64{15, 0} {
		if u := r.update(); u.Symbol != "ETHUSDT" || u.Dropped != want {
			t.Errorf("update %d: %+v, want %d dropped", i, u, want)
		}
	}
}

// TestNewSymbol: one that a pattern finds new is served from its first tick,
// without a snapshot, in the epoch that was granted.
func TestNewSymbol(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url}, trades("*")))
	p := g.next()
	p.send(event(codec.Event{Type: codec.EventGranted, Channel: codec.ChannelTrades, ID: 7, Symbol: "BTCUSDT", Epoch: 5, Seq: 2}),
		tick(codec.ChannelTrades, 7, 1), tick(codec.ChannelTrades, 7, 2))
	for _, want := range []uint64{1, 2} {
		if u := r.update(); u.Epoch != 5 || u.No != want || u.Dropped != 0 {
			t.Errorf("%+v, want trade %d of epoch 5", u, want)
		}
	}
}

// TestBehind: a node that knows less says so, and may then tell less.
func TestBehind(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url}, ticker("BTCUSDT")))
	p := g.next()
	p.send(granted(codec.ChannelTicker, 7, "BTCUSDT"), snapshot(codec.ChannelTicker, 7, market(1, 10)))
	r.update()
	p.conn.NetConn().Close()
	p = g.next()
	p.send(granted(codec.ChannelTicker, 7, "BTCUSDT"), event(codec.Event{Type: codec.EventBehind, Channel: codec.ChannelTicker, ID: 7, Symbol: "BTCUSDT", Epoch: 1, Seq: 8}),
		snapshot(codec.ChannelTicker, 7, market(1, 8)), tick(codec.ChannelTicker, 7, 9))
	for _, want := range []uint64{8, 9} {
		if u := r.update(); u.Seq != want {
			t.Errorf("seq %d, want %d", u.Seq, want)
		}
	}
}

// TestGoingOnBeyondTheRing: a client that comes back too late for some trades is
// told so by the gateway, and tells its handler how many they were.
func TestGoingOnBeyondTheRing(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url}, trades("BTCUSDT")))
	p := g.next()
	p.send(granted(codec.ChannelTrades, 7, "BTCUSDT"), snapshot(codec.ChannelTrades, 7, market(1, 10)))
	r.update()
	p.conn.NetConn().Close()
	p = g.next()
	p.send(granted(codec.ChannelTrades, 7, "BTCUSDT"),
		event(codec.Event{Type: codec.EventState, Channel: codec.ChannelTrades, ID: 7, Symbol: "BTCUSDT", State: codec.StateGap}),
		event(codec.Event{Type: codec.EventState, Channel: codec.ChannelTrades, ID: 7, Symbol: "BTCUSDT", State: codec.StateLive}),
		tick(codec.ChannelTrades, 7, 18), tick(codec.ChannelTrades, 7, 19),
		snapshot(codec.ChannelTrades, 7, market(1, 25)), tick(codec.ChannelTrades, 7, 26))
	for _, want := range []struct{ no, dropped uint64 }{{18, 7}, {19, 0}, {25, 6}, {26, 0}} {
		if u := r.update(); u.No != want.no || u.Dropped != want.dropped {
			t.Errorf("trade %d with %d dropped, want %d with %d", u.No, u.Dropped, want.no, want.dropped)
		}
	}
}

// TestReset: a new numbering begins low.
func TestReset(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url}, ticker("BTCUSDT")))
	p := g.next()
	p.send(granted(codec.ChannelTicker, 7, "BTCUSDT"), snapshot(codec.ChannelTicker, 7, market(1, 10)),
		event(codec.Event{Type: codec.EventReset, Channel: codec.ChannelTicker, ID: 7, Symbol: "BTCUSDT", Epoch: 2}),
		tick(codec.ChannelTicker, 7, 3), snapshot(codec.ChannelTicker, 7, market(2, 4)))
	r.update()
	for _, want := range []uint64{3, 4} {
		if u := r.update(); u.Epoch != 2 || u.Seq != want || u.Merged != 0 {
			t.Errorf("%+v, want epoch 2, seq %d, merged 0", u, want)
		}
	}
}

// TestBadFrames: what is no frame ends the connection, and the next is tried.
func TestBadFrames(t *testing.T) {
	for name, spoil := range map[string]func(p *peer){
		"no frame":        func(p *peer) { p.raw([]byte("\x93\x01\x01\xc1")) },
		"text":            func(p *peer) { p.conn.WriteString(`{"frame":1,"sent":1,"events":[]}`) },
		"number skipped":  func(p *peer) { p.frameNo++; p.send() },
		"too long":        func(p *peer) { p.raw(make([]byte, native.FrameBytesMax+1)) },
		"half a row":      func(p *peer) { p.raw([]byte("\x93\x01\x01\x92\x14")) },
		"no WebSocket":    func(p *peer) { p.conn.NetConn().Write(bytes.Repeat([]byte{0xff}, 64)) },
		"nothing, closed": func(p *peer) { p.conn.NetConn().Close() },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, false)
			r := start(t, newClient(t, client.Options{URL: g.url}, ticker("BTCUSDT")))
			p := g.next()
			p.send(granted(codec.ChannelTicker, 7, "BTCUSDT"), snapshot(codec.ChannelTicker, 7, market(1, 10)))
			r.update()
			spoil(p)
			receive(t, r.lost, "the loss")
			p = g.next()
			p.send(granted(codec.ChannelTicker, 7, "BTCUSDT"), snapshot(codec.ChannelTicker, 7, market(1, 12)))
			if u := receive(t, r.updates, "an update"); u.Seq != 12 || u.Merged != 1 {
				t.Errorf("after the loss %+v, want seq 12, merged 1", u)
			}
		})
	}
}

// TestChange: what is followed can be changed while it runs, and is what the
// next connection is told.
func TestChange(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url}, ticker("A", "B")))
	p := g.next()
	p.command(codec.OpSubscribe)
	if err := r.client.Subscribe(ticker("C")); err != nil {
		t.Fatal(err)
	}
	if c := p.command(codec.OpSubscribe); string(items(&c)[0].Name) != "C" || c.Symbols.Len() != 1 {
		t.Errorf("subscribed to %v", items(&c))
	}
	if err := r.client.Unsubscribe(codec.ChannelTicker, "A"); err != nil {
		t.Fatal(err)
	}
	c := p.command(codec.OpUnsubscribe)
	if string(items(&c)[0].Name) != "A" || c.Symbols.Len() != 1 {
		t.Errorf("unsubscribed from %v", items(&c))
	}
	p.send(granted(codec.ChannelTicker, 1, "A"), snapshot(codec.ChannelTicker, 1, market(1, 1)),
		event(codec.Event{Type: codec.EventUnsubscribed, Ref: c.Ref, Channel: codec.ChannelTicker, Count: 1}),
		tick(codec.ChannelTicker, 1, 2))
	r.violation("id 1, which was not granted")
	p.conn.NetConn().Close()
	p = g.next()
	var names []string
	for range 2 {
		c := p.command(codec.OpSubscribe)
		for _, it := range items(&c) {
			names = append(names, string(it.Name))
		}
	}
	if !slices.Equal(names, []string{"B", "C"}) {
		t.Errorf("the next connection is told %v, want B and C", names)
	}
}

// TestAgain: who takes a symbol back and wants it again has not been promised
// what came between.
func TestAgain(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url}, trades("BTCUSDT")))
	p := g.next()
	p.command(codec.OpSubscribe)
	p.send(granted(codec.ChannelTrades, 7, "BTCUSDT"), snapshot(codec.ChannelTrades, 7, market(1, 10)))
	r.update()
	r.client.Unsubscribe(codec.ChannelTrades, "BTC*")
	r.client.Unsubscribe(codec.ChannelTrades, "BTCUSDT")
	r.client.Subscribe(trades("BTCUSDT"))
	for range 2 {
		c := p.command(codec.OpUnsubscribe)
		p.send(event(codec.Event{Type: codec.EventUnsubscribed, Ref: c.Ref, Channel: codec.ChannelTrades}))
	}
	p.command(codec.OpSubscribe)
	p.send(granted(codec.ChannelTrades, 7, "BTCUSDT"), snapshot(codec.ChannelTrades, 7, market(1, 20)), tick(codec.ChannelTrades, 7, 21))
	for _, want := range []uint64{20, 21} {
		if u := r.update(); u.No != want {
			t.Errorf("%+v, want number %d", u, want)
		}
	}
}

// TestLongLists: lists are sent in parts that a gateway takes.
func TestLongLists(t *testing.T) {
	names := make([]string, 2500)
	for i := range names {
		names[i] = fmt.Sprintf("SYMBOL-%04d.LONG-ENOUGH-TO-COUNT", i)
	}
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url, Subprotocol: native.SubprotocolJSON}, ticker(names...)))
	p := g.next()
	collect := func(op codec.Op) (got []string) {
		for len(got) < len(names) {
			c := p.command(op)
			for _, it := range items(&c) {
				got = append(got, string(it.Name))
			}
		}
		return got
	}
	if got := collect(codec.OpSubscribe); !slices.Equal(got, names) {
		t.Errorf("subscribed to %d symbols, want %d in order", len(got), len(names))
	}
	if err := r.client.Unsubscribe(codec.ChannelTicker, names...); err != nil {
		t.Fatal(err)
	}
	if got := collect(codec.OpUnsubscribe); !slices.Equal(got, names) {
		t.Errorf("unsubscribed from %d symbols, want %d in order", len(got), len(names))
	}
	// And with where to go on.
	if err := r.client.Subscribe(ticker(names...)); err != nil {
		t.Fatal(err)
	}
	collect(codec.OpSubscribe)
	for i, n := range names {
		p.send(granted(codec.ChannelTicker, uint32(i), n), snapshot(codec.ChannelTicker, uint32(i), market(1723075200000_000_000, 1)))
		r.update()
	}
	p.conn.NetConn().Close()
	p = g.next()
	for n := 0; n < len(names); {
		c := p.command(codec.OpSubscribe)
		for _, it := range items(&c) {
			if n++; !it.HasFrom {
				t.Fatalf("%s from nowhere", it.Name)
			}
		}
	}
}

// TestGoaway: who is asked to leave leaves, and comes back.
func TestGoaway(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url}, ticker("A")))
	p := g.next()
	p.send(event(codec.Event{Type: codec.EventGoaway, Window: 50 * time.Millisecond, Why: "draining"}))
	var closed *gws.CloseError
	if err := receive(t, p.closed, "the client's close"); !errors.As(err, &closed) || closed.Code != codec.CloseNormal.Code() {
		t.Errorf("closed by %v, want a close frame of code %d", err, codec.CloseNormal.Code())
	}
	if err := receive(t, r.lost, "the loss"); !strings.Contains(err.Error(), "leaving") {
		t.Errorf("lost because of %v", err)
	}
	g.next().command(codec.OpSubscribe)
}

// TestSilence: a gateway that answers no ping is given up.
func TestSilence(t *testing.T) {
	g := newGateway(t, false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// Something between us and the gateway that passes the handshake and then
	// nothing.
	hung := make(chan struct{})
	go func() {
		defer close(hung)
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := net.Dial("tcp", g.server.Listener.Addr().String())
		if err != nil {
			return
		}
		defer out.Close()
		b := make([]byte, 4096)
		n, _ := in.Read(b)
		out.Write(b[:n])
		n, _ = out.Read(b)
		in.Write(b[:n])
		for {
			if _, err := in.Read(b); err != nil {
				return
			}
		}
	}()
	r := start(t, newClient(t, client.Options{URL: "ws://" + l.Addr().String() + "/v1/ws", SilenceMax: 300 * time.Millisecond, RetryFirst: true}, ticker("A")))
	if err := receive(t, r.lost, "the loss"); !strings.Contains(err.Error(), "nothing heard for 300ms") {
		t.Errorf("lost because of %v", err)
	}
	receive(t, hung, "the end of the one between")
}

// TestPings: a gateway's pings are answered, and ours keep a quiet one.
func TestPings(t *testing.T) {
	g := newGateway(t, false)
	r := start(t, newClient(t, client.Options{URL: g.url, SilenceMax: 150 * time.Millisecond}, ticker("A")))
	p := g.next()
	select {
	case err := <-r.lost:
		t.Errorf("a quiet gateway that answers pings was given up: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	p.send(event(codec.Event{Type: codec.EventPong, Ref: 1}))
	receive(t, r.events, "an event on the same connection")
}

// TestFirstConnection: what a person must do when there is no gateway is said.
func TestFirstConnection(t *testing.T) {
	answer := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if len(header) == 2 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(status)
		}
	}
	foreign := func(w http.ResponseWriter, r *http.Request) {
		if c, err := gws.NewUpgrader(&gws.BuiltinEventHandler{}, &gws.ServerOption{}).Upgrade(w, r); err == nil {
			c.NetConn().Close()
		}
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\n"))
		for {
			if _, err := c.Write([]byte("X-Y: " + strings.Repeat("z", 1024) + "\r\n")); err != nil {
				return
			}
		}
	}
	for name, tt := range map[string]struct {
		handler http.HandlerFunc // nil: nothing listens
		want    string
	}{
		"refused":        {nil, "is the gateway running there?"},
		"full":           {answer(503, "Retry-After", "7"), "try again in 7s"},
		"no path":        {answer(404), "is its path right? A gateway's is /v1/ws"},
		"unauthorized":   {answer(401), "it wants another token"},
		"no subprotocol": {foreign, "does not speak the subprotocol"},
		"no WebSocket":   {answer(200), "answered HTTP 200"},
		"endless header": {endless, "bytes instead of a handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			url := "ws://" + freeAddress(t) + "/v1/ws"
			if tt.handler != nil {
				s := httptest.NewServer(tt.handler)
				defer s.Close()
				url = "ws://" + s.Listener.Addr().String() + "/v1/ws"
			}
			ctx, cancel := context.WithTimeout(context.Background(), wait)
			defer cancel()
			c := newClient(t, client.Options{URL: url}, ticker("A"))
			err := c.Run(ctx, client.Handler{Update: func(*client.Update) error { return nil }})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), url) {
				t.Errorf("Run = %v, want %q and the URL", err, tt.want)
			}
		})
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestRetryFirst: a gateway may come up later than its client.
func TestRetryFirst(t *testing.T) {
	attempts := make(chan struct{}, 16)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case attempts <- struct{}{}:
		default:
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer s.Close()
	start(t, newClient(t, client.Options{URL: "ws://" + s.Listener.Addr().String(), RetryFirst: true}, ticker("A")))
	for range 3 {
		receive(t, attempts, "another try")
	}
}

// TestFinalClose: who is closed for what it did does not come again.
func TestFinalClose(t *testing.T) {
	g := newGateway(t, false)
	c := newClient(t, client.Options{URL: g.url}, ticker("A"))
	done := make(chan error, 1)
	go func() {
		done <- c.Run(context.Background(), client.Handler{Update: func(*client.Update) error { return nil }})
	}()
	p := g.next()
	p.send(event(codec.Event{Type: codec.EventWelcome}))
	p.conn.WriteClose(codec.CloseUnauthorized.Code(), []byte(codec.CloseUnauthorized))
	err := receive(t, done, "the end of Run")
	var closed *client.CloseError
	if !errors.As(err, &closed) || closed.Code != codec.CloseUnauthorized.Code() || closed.Reason != string(codec.CloseUnauthorized) {
		t.Errorf("Run = %v, want a CloseError of unauthorized", err)
	}
}

// TestHandlerEnds: an error of the handler is Run's.
func TestHandlerEnds(t *testing.T) {
	g := newGateway(t, false)
	c := newClient(t, client.Options{URL: g.url}, ticker("A"))
	enough := errors.New("enough")
	done := make(chan error, 1)
	go func() {
		done <- c.Run(context.Background(), client.Handler{Update: func(*client.Update) error { return enough }})
	}()
	g.next().send(granted(codec.ChannelTicker, 1, "A"), snapshot(codec.ChannelTicker, 1, market(1, 1)), tick(codec.ChannelTicker, 1, 2))
	if err := receive(t, done, "the end of Run"); !errors.Is(err, enough) {
		t.Errorf("Run = %v, want %v", err, enough)
	}
}

// TestStopWhileStuck: Run ends when its context does, whoever does not read.
func TestStopWhileStuck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // accepts nothing: the kernel takes the connection
	c := newClient(t, client.Options{URL: "ws://" + l.Addr().String()}, ticker("A"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, client.Handler{Update: func(*client.Update) error { return nil }}) }()
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := receive(t, done, "the end of Run"); err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestOptions(t *testing.T) {
	for name, tt := range map[string]struct {
		o    client.Options
		want []string
	}{
		"no URL":           {client.Options{}, []string{`URL ""`}},
		"http":             {client.Options{URL: "http://x/v1/ws"}, []string{"want ws://HOST:PORT/v1/ws"}},
		"several at once":  {client.Options{URL: "ws://x", Subprotocol: "v2", AckEvery: time.Second}, []string{`Subprotocol "v2"`, "AckEvery 1s"}},
		"backoff reversed": {client.Options{URL: "ws://x", BackoffMin: 2 * time.Second, BackoffMax: time.Second}, []string{"BackoffMin 2s, BackoffMax 1s"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client.New(tt.o)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("New = %v, want %q", err, want)
				}
			}
		})
	}
	c, err := client.New(client.Options{URL: "ws://x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []client.Subscription{ticker(), ticker("btc"), ticker("A*B"), {Channel: 9, Symbols: []string{"A"}}} {
		if err := c.Subscribe(s); err == nil {
			t.Errorf("Subscribe(%+v) was taken", s)
		}
	}
}

// TestGoodbye: a client that ends says so, also while it is being sent more than
// it has read.
func TestGoodbye(t *testing.T) {
	g := newGateway(t, false)
	for range 20 {
		r := start(t, newClient(t, client.Options{URL: g.url}, ticker("BTCUSDT")))
		p := g.next()
		p.send(granted(codec.ChannelTicker, 7, "BTCUSDT"), snapshot(codec.ChannelTicker, 7, market(1, 1)))
		r.update()
		var flood sync.WaitGroup
		var over atomic.Bool
		flood.Go(func() {
			for no := p.frameNo + 1; !over.Load(); no++ {
				b := p.spelling.EndFrame(p.spelling.BeginFrame(nil, no, time.Now().UnixNano()), 0, 0)
				if p.conn.WriteMessage(gws.OpcodeBinary, b) != nil {
					return
				}
			}
		})
		r.stop()
		err := receive(t, p.closed, "the end of the connection")
		over.Store(true)
		flood.Wait()
		var end *gws.CloseError
		if !errors.As(err, &end) || end.Code != 1000 {
			t.Fatalf("ended by %v, want close code 1000", err)
		}
	}
}
