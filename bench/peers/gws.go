package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/lxzan/gws"

	"tickgate/codec"
	"tickgate/codec/native"
)

// gwsPeer serves a part of tickgate's protocol in MessagePack: subscribe by name
// or "*", unsubscribe and ping, on ticker and trades, every tick at once. It
// writes as gws's own example does: a [gws.Broadcaster] a tick, whose bytes all
// clients share, and gws's queue of each client, which has no bound.
type gwsPeer struct {
	gws.BuiltinEventHandler
	market *market
	listen string
	log    *slog.Logger
	row    []byte // of publish

	mu       sync.Mutex
	ended    bool
	sessions map[*gws.Conn]*session
	everyone [codec.ChannelTrades + 1]map[*session]struct{} // who asked for "*"
	reading  sync.WaitGroup
}

// session is one client.
//
// Locks are taken in the order session.mu, topic.mu, gwsPeer.mu.
type session struct {
	conn *gws.Conn

	mu       sync.Mutex // guards what follows; held for a command
	everyone [codec.ChannelTrades + 1]bool
	named    map[subscription]struct{}
}

// subscription is a channel of a topic.
type subscription struct {
	topic   *topic
	channel codec.Channel
}

func newGWS(m *market, o options, log *slog.Logger) *gwsPeer {
	p := &gwsPeer{market: m, listen: o.listen, log: log, sessions: map[*gws.Conn]*session{}}
	for _, c := range channels {
		p.everyone[c] = map[*session]struct{}{}
	}
	return p
}

func (p *gwsPeer) run(ctx context.Context, ready func(net.Addr)) error {
	// Commands of one client are answered in order, so ParallelEnabled stays
	// off; all else is gws's default.
	up := gws.NewUpgrader(p, &gws.ServerOption{
		ReadMaxPayloadSize: codec.CommandBytesMax,
		SubProtocols:       []string{native.SubprotocolMsgPack},
		Logger:             quiet{},
	})
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/ws", func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r)
		if err != nil {
			p.log.Info("handshake failed", "err", err)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ended {
			_ = conn.NetConn().Close()
			return
		}
		p.sessions[conn] = &session{conn: conn, named: map[subscription]struct{}{}}
		p.reading.Go(conn.ReadLoop)
	})
	return serveHTTP(ctx, p.listen, mux, ready, func() {
		p.mu.Lock()
		p.ended = true
		for conn := range p.sessions {
			_ = conn.NetConn().Close()
		}
		p.mu.Unlock()
		p.reading.Wait()
	})
}

// quiet takes gws's messages, which are of clients that went away.
type quiet struct{}

func (quiet) Error(...any) {}

// send queues a frame, which must stay unchanged.
func (s *session) send(frame []byte) { s.conn.WriteAsync(gws.OpcodeBinary, frame, nil) }

func (s *session) event(e codec.Event) { s.send(appendEvent(nil, native.MsgPack, &e)) }

// fault tells the client what cannot be done.
func (s *session) fault(ref uint64, code, why, want string) {
	s.event(codec.Event{Type: codec.EventError, Ref: ref, Code: code, Why: why, Want: want})
}

func (p *gwsPeer) session(conn *gws.Conn) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions[conn]
}

// OnOpen greets a client.
func (p *gwsPeer) OnOpen(conn *gws.Conn) {
	p.session(conn).event(codec.Event{Type: codec.EventWelcome, Node: "gws", Version: "1"})
}

// OnPing answers.
func (p *gwsPeer) OnPing(conn *gws.Conn, payload []byte) { _ = conn.WritePong(payload) }

// OnClose takes a client out of its topics.
func (p *gwsPeer) OnClose(conn *gws.Conn, _ error) {
	s := p.session(conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range channels {
		p.leaveAll(s, c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, conn)
}

// OnMessage does a command.
func (p *gwsPeer) OnMessage(conn *gws.Conn, msg *gws.Message) {
	defer msg.Close()
	s := p.session(conn)
	var c codec.Command
	if err := native.MsgPack.DecodeCommand(msg.Bytes(), &c); err != nil {
		var e *codec.Error
		if !errors.As(err, &e) {
			panic(err) // a dialect returns nothing else
		}
		s.event(codec.Event{Type: codec.EventError, Ref: c.Ref, Code: e.Code, Why: e.What, Where: e.Where, Want: e.Want})
		return
	}
	switch c.Op {
	case codec.OpPing:
		s.event(codec.Event{Type: codec.EventPong, Ref: c.Ref})
	case codec.OpSubscribe, codec.OpUnsubscribe:
		if why, want := unserved(&c); why != "" {
			s.fault(c.Ref, "not-supported", why, want)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.Op == codec.OpSubscribe {
			p.subscribe(s, &c)
		} else {
			p.unsubscribe(s, &c)
		}
	default:
		s.fault(c.Ref, "not-supported", "no op "+c.Op.String()+" here", "subscribe, unsubscribe, ping")
	}
}

// unserved says what of a command the peers do not have; "" if nothing. Every is
// passed over: they send every tick.
func unserved(c *codec.Command) (why, want string) {
	switch {
	case !served(c.Channel):
		return "no channel " + c.Channel.String() + " here", "ticker, trades"
	case c.View != 0 && c.View != codec.DefaultView(c.Channel):
		return "one view only", "the channel's default view"
	case c.MinSize.IsSet() || c.Deadband.IsSet():
		return "no filters here", ""
	}
	for it := range c.Symbols.All() {
		if name := string(it.Name); name != "*" && !codec.ValidSymbol(name) {
			return "no pattern " + name + " here", "names, or *"
		}
	}
	return "", ""
}

func (p *gwsPeer) subscribe(s *session, c *codec.Command) {
	for it := range c.Symbols.All() {
		if string(it.Name) != "*" {
			if t := p.market.topic(string(it.Name)); t != nil {
				s.grant(t, c.Channel, c.Ref)
			} else {
				s.event(codec.Event{Type: codec.EventRefused, Ref: c.Ref, Channel: c.Channel, Symbol: string(it.Name),
					Code: "too-many-symbols", Why: "this server knows as many symbols as it may"})
			}
			continue
		}
		s.everyone[c.Channel] = true
		p.mu.Lock()
		p.everyone[c.Channel][s] = struct{}{}
		p.mu.Unlock()
		for _, t := range p.market.all() { // later ones find s in everyone
			s.grant(t, c.Channel, c.Ref)
		}
	}
	s.event(codec.Event{Type: codec.EventSnapshotEnd, Ref: c.Ref, Channel: c.Channel})
}

// grant has s follow t. The frame stands in the client's queue before t has
// another tick.
func (s *session) grant(t *topic, c codec.Channel, ref uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions[c] == nil {
		t.sessions[c] = map[*session]struct{}{}
	}
	t.sessions[c][s] = struct{}{}
	if !s.everyone[c] {
		s.named[subscription{t, c}] = struct{}{}
	}
	s.send(appendGrant(nil, native.MsgPack, c, t, ref, false))
}

func (p *gwsPeer) unsubscribe(s *session, c *codec.Command) {
	count := uint64(0)
	for it := range c.Symbols.All() {
		if string(it.Name) == "*" {
			count += p.leaveAll(s, c.Channel)
		} else if t := p.market.find(string(it.Name)); t != nil {
			count += s.leave(t, c.Channel)
		}
	}
	s.event(codec.Event{Type: codec.EventUnsubscribed, Ref: c.Ref, Channel: c.Channel, Count: count})
}

// leave ends one subscription; it returns how many there were.
func (s *session) leave(t *topic, c codec.Channel) (count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.sessions[c][s]; ok {
		count = 1
	}
	delete(t.sessions[c], s)
	delete(s.named, subscription{t, c})
	return count
}

// leaveAll ends all subscriptions to a channel. Who asked for "*" is in topics
// that have not been noted in named, but in none that begins after everyone is
// without s.
func (p *gwsPeer) leaveAll(s *session, c codec.Channel) (count uint64) {
	if !s.everyone[c] {
		for sub := range s.named {
			if sub.channel == c {
				count += s.leave(sub.topic, c)
			}
		}
		return count
	}
	s.everyone[c] = false
	p.mu.Lock()
	delete(p.everyone[c], s)
	p.mu.Unlock()
	for _, t := range p.market.all() {
		count += s.leave(t, c)
	}
	return count
}

func (p *gwsPeer) publish(t *topic, r *tick, first bool) {
	for _, c := range channels {
		if first {
			p.begin(t, c)
		}
		if tells(c, r) && len(t.sessions[c]) > 0 {
			p.row = appendTick(p.row[:0], native.MsgPack, c, t, r)
			p.broadcast(t, c)
		}
	}
}

// begin tells those who wait for t, and those who want everyone, its number.
func (p *gwsPeer) begin(t *topic, c codec.Channel) {
	p.mu.Lock()
	if t.sessions[c] == nil {
		t.sessions[c] = map[*session]struct{}{}
	}
	for s := range p.everyone[c] {
		t.sessions[c][s] = struct{}{}
	}
	p.mu.Unlock()
	if len(t.sessions[c]) > 0 {
		p.row = appendEvent(p.row[:0], native.MsgPack, grant(c, t, 0))
		p.broadcast(t, c)
	}
}

// broadcast queues p.row at every client of t. Gws copies it into its frame at
// the first one; the row may change as soon as this returns.
func (p *gwsPeer) broadcast(t *topic, c codec.Channel) {
	b := gws.NewBroadcaster(gws.OpcodeBinary, p.row)
	for s := range t.sessions[c] {
		_ = b.Broadcast(s.conn) // who is gone is taken out by OnClose
	}
	_ = b.Close()
}
