package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"tickgate/codec"
	"tickgate/codec/native"
)

// natsPeer is a NATS server with a WebSocket listener and one publisher inside
// its process. Its subjects are trades.SYMBOL and ticker.SYMBOL, with '_' for
// '.' in a symbol; a message is one frame of tickgate's protocol in MessagePack,
// with one row.
//
// NATS keeps no state, and a publisher does not know who subscribes. So every
// trade is spelled, and ticker rows only if asked for; and who subscribes asks
// for snapshots, as is usual with NATS, by a request: subject "snapshot", a
// tickgate subscribe command in MessagePack as the payload, and a reply subject
// on which the frames come that tickgate would send.
type natsPeer struct {
	market *market
	log    *slog.Logger
	opts   *server.Options
	ticker bool
	row    []byte // of publish

	conn *nats.Conn // set by run before it is ready
}

const (
	natsSnapshotSubject = "snapshot"

	// natsPendingBytesMax is what may wait for one client before NATS
	// disconnects it as a slow consumer; four times the default.
	natsPendingBytesMax = 256 << 20
	// natsWriteDeadline is how long a client may take nothing, as long as
	// tickgate bears it; the default is 10 s.
	natsWriteDeadline = 30 * time.Second
	natsReadyTime     = 10 * time.Second
)

func newNATS(m *market, o options, log *slog.Logger) (*natsPeer, error) {
	host, portText, err := net.SplitHostPort(o.listen)
	if err != nil {
		return nil, fmt.Errorf("--listen %q: want HOST:PORT: %w", o.listen, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("--listen %q: want HOST:PORT: %w", o.listen, err)
	}
	m.name = natsSubject
	opts := &server.Options{
		DontListen:    true, // no plain clients: the publisher is in this process
		NoSigs:        true,
		NoLog:         true,
		MaxConn:       1 << 20,
		MaxPending:    natsPendingBytesMax,
		WriteDeadline: natsWriteDeadline,
		Websocket:     server.WebsocketOpts{Host: host, Port: int(port), NoTLS: true},
	}
	if port == 0 {
		opts.Websocket.Port = server.RANDOM_PORT
	}
	return &natsPeer{market: m, log: log, opts: opts, ticker: o.ticker}, nil
}

// natsSubject is where a channel of a symbol is published. A symbol is one token
// of it, in which NATS allows no dot.
func natsSubject(c codec.Channel, symbol string) string {
	return c.String() + "." + strings.ReplaceAll(symbol, ".", "_")
}

func (p *natsPeer) run(ctx context.Context, ready func(net.Addr)) error {
	s, err := server.NewServer(p.opts)
	if err != nil {
		return err
	}
	s.SetLoggerV2(natsLog{p.log}, false, false, false)
	go s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	if !s.ReadyForConnections(natsReadyTime) {
		return fmt.Errorf("NATS does not listen at %s:%d", p.opts.Websocket.Host, p.opts.Websocket.Port)
	}
	p.conn, err = nats.Connect("", nats.InProcessServer(s), nats.Name("publisher"), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { p.log.Error("publisher", "err", err) }))
	if err != nil {
		return err
	}
	defer p.conn.Close()
	if _, err := p.conn.Subscribe(natsSnapshotSubject, p.snapshot); err != nil {
		return err
	}
	if err := p.conn.Flush(); err != nil {
		return err
	}
	u, err := url.Parse(s.WebsocketURL())
	if err != nil {
		return err
	}
	addr, err := net.ResolveTCPAddr("tcp", u.Host)
	if err != nil {
		return err
	}
	ready(addr)
	<-ctx.Done()
	return nil
}

// snapshot answers a request. What it sends for a topic stands between the rows
// before and after it, since one connection publishes both.
func (p *natsPeer) snapshot(msg *nats.Msg) {
	if msg.Reply == "" {
		return
	}
	fault := func(e codec.Event) {
		e.Type = codec.EventError
		p.send(msg.Reply, appendEvent(nil, native.MsgPack, &e))
	}
	var c codec.Command
	if err := native.MsgPack.DecodeCommand(msg.Data, &c); err != nil {
		var e *codec.Error
		if !errors.As(err, &e) {
			panic(err) // a dialect returns nothing else
		}
		fault(codec.Event{Ref: c.Ref, Code: e.Code, Why: e.What, Where: e.Where, Want: e.Want})
		return
	}
	why, want := unserved(&c)
	switch {
	case c.Op != codec.OpSubscribe:
		why, want = "no op "+c.Op.String()+" here", "subscribe"
	case c.Channel == codec.ChannelTicker && !p.ticker:
		why, want = "no channel ticker here", "trades, or a server with --ticker"
	}
	if why != "" {
		fault(codec.Event{Ref: c.Ref, Code: "not-supported", Why: why, Want: want})
		return
	}
	for it := range c.Symbols.All() {
		topics := p.market.all()
		if name := string(it.Name); name != "*" {
			t := p.market.topic(name)
			if t == nil {
				p.send(msg.Reply, appendEvent(nil, native.MsgPack, &codec.Event{Type: codec.EventRefused, Ref: c.Ref, Channel: c.Channel,
					Symbol: name, Code: "too-many-symbols", Why: "this server knows as many symbols as it may"}))
				continue
			}
			topics = []*topic{t}
		}
		for _, t := range topics {
			t.mu.Lock()
			p.send(msg.Reply, appendGrant(nil, native.MsgPack, c.Channel, t, c.Ref, false))
			t.mu.Unlock()
		}
	}
	p.send(msg.Reply, appendEvent(nil, native.MsgPack, &codec.Event{Type: codec.EventSnapshotEnd, Ref: c.Ref, Channel: c.Channel}))
}

func (p *natsPeer) publish(t *topic, r *tick, first bool) {
	for _, c := range channels {
		if c == codec.ChannelTicker && !p.ticker {
			continue
		}
		if first { // who waits for it
			p.row = appendEvent(p.row[:0], native.MsgPack, grant(c, t, 0))
			p.send(t.names[c], p.row)
		}
		if tells(c, r) {
			p.row = appendTick(p.row[:0], native.MsgPack, c, t, r)
			p.send(t.names[c], p.row)
		}
	}
}

// send publishes a frame, which may change as soon as it returns.
func (p *natsPeer) send(subject string, frame []byte) {
	if err := p.conn.Publish(subject, frame); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		p.log.Error("publish", "subject", subject, "err", err)
	}
}

// natsLog takes the server's messages: slow consumers are warnings.
type natsLog struct{ log *slog.Logger }

func (l natsLog) Noticef(string, ...any)         {}
func (l natsLog) Debugf(string, ...any)          {}
func (l natsLog) Tracef(string, ...any)          {}
func (l natsLog) Warnf(format string, v ...any)  { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l natsLog) Errorf(format string, v ...any) { l.log.Error(fmt.Sprintf(format, v...)) }
func (l natsLog) Fatalf(format string, v ...any) { l.log.Error(fmt.Sprintf(format, v...)) }
