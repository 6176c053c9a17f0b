package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge"

	"tickgate/codec"
	"tickgate/codec/native"
)

// centrifugePeer is a centrifuge node without history and presence. Its channels
// are "trades:SYMBOL" and "ticker:SYMBOL"; a publication's data is one frame of
// tickgate's protocol in JSON, with one row.
//
// A subscribe is answered with a frame of granted and snapshot as its data. A
// subscribe whose own data is {"ref":N} is answered with ref N in them, and a
// snapshot_end behind them: so a client that subscribes to many knows the end.
type centrifugePeer struct {
	market *market
	listen string
	log    *slog.Logger
	node   *centrifuge.Node
}

const (
	// centrifugeQueueBytesMax is what may wait for one client before it is
	// disconnected: 16 times the default, which a snapshot of a market fills.
	centrifugeQueueBytesMax = 16 << 20
	// centrifugeChannelsMax is more than the symbols of any scenario.
	centrifugeChannelsMax = 20_000
	// centrifugeWriteTimeout is how long a client may take nothing, as long as
	// tickgate bears it; the default is a second.
	centrifugeWriteTimeout = 30 * time.Second
	// centrifugeMessageBytesMax lets a thousand subscribes come in one message.
	centrifugeMessageBytesMax = 1 << 20
)

func newCentrifuge(m *market, o options, log *slog.Logger) (*centrifugePeer, error) {
	m.name = func(c codec.Channel, symbol string) string { return c.String() + ":" + symbol }
	node, err := centrifuge.New(centrifuge.Config{
		ClientChannelLimit: centrifugeChannelsMax,
		ClientQueueMaxSize: centrifugeQueueBytesMax,
		LogLevel:           centrifuge.LogLevelError,
		LogHandler: func(e centrifuge.LogEntry) {
			log.Error(e.Message, "fields", e.Fields)
		},
	})
	if err != nil {
		return nil, err
	}
	p := &centrifugePeer{market: m, listen: o.listen, log: log, node: node}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		reply := centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: rand.Text()}}
		if o.batch > 0 {
			reply.WriteDelay = o.batch
			reply.WriteWithTimer = true   // no goroutine a client that only waits
			reply.MaxMessagesInFrame = -1 // the default, 16 a delay, would be a limit of the rate
		}
		return reply, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(p.subscribe)
	})
	return p, nil
}

func (p *centrifugePeer) run(ctx context.Context, ready func(net.Addr)) error {
	if err := p.node.Run(); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(p.node, centrifuge.WebsocketConfig{
		MessageSizeLimit: centrifugeMessageBytesMax,
		WriteTimeout:     centrifugeWriteTimeout,
	}))
	return serveHTTP(ctx, p.listen, mux, ready, func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		if err := p.node.Shutdown(ctx); err != nil {
			p.log.Info("clients were not told of the end", "err", err)
		}
	})
}

// subscribe answers a client. The topic stays locked until the client is in the
// node's table, which done does before it returns: behind the snapshot there is
// no gap.
func (p *centrifugePeer) subscribe(e centrifuge.SubscribeEvent, done centrifuge.SubscribeCallback) {
	channel, symbol, _ := strings.Cut(e.Channel, ":")
	c, ok := codec.ParseChannel(channel)
	if !ok || !served(c) || !codec.ValidSymbol(symbol) {
		done(centrifuge.SubscribeReply{}, centrifuge.ErrorUnknownChannel)
		return
	}
	var asked struct {
		Ref *uint64 `json:"ref"`
	}
	if len(e.Data) > 0 && json.Unmarshal(e.Data, &asked) != nil {
		done(centrifuge.SubscribeReply{}, centrifuge.ErrorBadRequest)
		return
	}
	t := p.market.topic(symbol)
	if t == nil {
		done(centrifuge.SubscribeReply{}, centrifuge.ErrorLimitExceeded)
		return
	}
	ref := uint64(0)
	if asked.Ref != nil {
		ref = *asked.Ref
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	data := appendGrant(nil, native.JSON, c, t, ref, asked.Ref != nil)
	done(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{Data: data}}, nil)
}

func (p *centrifugePeer) publish(t *topic, r *tick, first bool) {
	for _, c := range channels {
		if !first && !tells(c, r) || p.node.Hub().NumSubscribers(t.names[c]) == 0 {
			continue
		}
		if first { // who waits for it
			p.send(t.names[c], appendEvent(nil, native.JSON, grant(c, t, 0)))
		}
		if tells(c, r) {
			p.send(t.names[c], appendTick(make([]byte, 0, 512), native.JSON, c, t, r))
		}
	}
}

// send publishes data, which is the node's from then on.
func (p *centrifugePeer) send(channel string, data []byte) {
	if _, err := p.node.Publish(channel, data); err != nil {
		p.log.Error("publish", "channel", channel, "err", err)
	}
}
