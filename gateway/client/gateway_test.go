package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lxzan/gws"
	"go.uber.org/goleak"

	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/gateway/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wait bounds every wait of these tests: long enough for a slow machine.
const wait = 10 * time.Second

// gateway is a small one: a real WebSocket whose frames a test writes.
type gateway struct {
	t      *testing.T
	url    string
	server *httptest.Server
	peers  chan *peer // connections, as they come

	mu      sync.Mutex
	conns   []net.Conn
	running sync.WaitGroup // reading loops
}

// peer is one connection of the gateway.
type peer struct {
	gws.BuiltinEventHandler
	t        *testing.T
	spelling native.Spelling
	conn     *gws.Conn
	frameNo  uint64
	commands chan codec.Command // without acks
	acks     chan uint64
	closed   chan error
}

func newGateway(t *testing.T, secure bool) *gateway {
	g := &gateway{t: t, peers: make(chan *peer, 16)}
	g.server = httptest.NewUnstartedServer(http.HandlerFunc(g.upgrade))
	scheme := "ws://"
	if secure {
		g.server.StartTLS()
		scheme = "wss://"
	} else {
		g.server.Start()
	}
	g.url = scheme + g.server.Listener.Addr().String() + "/v1/ws"
	t.Cleanup(func() {
		g.mu.Lock()
		for _, c := range g.conns {
			c.Close()
		}
		g.mu.Unlock()
		g.running.Wait()
		g.server.Close()
	})
	return g
}

func (g *gateway) upgrade(w http.ResponseWriter, r *http.Request) {
	p := &peer{t: g.t, commands: make(chan codec.Command, 64), acks: make(chan uint64, 64), closed: make(chan error, 1)}
	conn, err := gws.NewUpgrader(p, &gws.ServerOption{
		SubProtocols: []string{native.SubprotocolMsgPack, native.SubprotocolJSON},
	}).Upgrade(w, r)
	if err != nil {
		return
	}
	p.conn, p.spelling = conn, native.MsgPack
	if conn.SubProtocol() == native.SubprotocolJSON {
		p.spelling = native.JSON
	}
	g.mu.Lock()
	g.conns = append(g.conns, conn.NetConn())
	g.mu.Unlock()
	g.running.Go(conn.ReadLoop)
	g.peers <- p
}

// next is the next connection.
func (g *gateway) next() *peer {
	g.t.Helper()
	return receive(g.t, g.peers, "a connection")
}

func receive[T any](t *testing.T, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(wait):
		t.Fatalf("waited %v for %s", wait, what)
	}
	return v
}

func (p *peer) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	var c codec.Command
	if err := p.spelling.DecodeCommand(m.Bytes(), &c); err != nil {
		p.t.Errorf("client sent %q: %v", m.Bytes(), err)
		return
	}
	if c.Op == codec.OpAck {
		select {
		case p.acks <- c.Frame:
		default:
		}
		return
	}
	p.commands <- c
}

func (p *peer) OnPing(c *gws.Conn, payload []byte) { c.WritePong(payload) }

func (p *peer) OnClose(_ *gws.Conn, err error) { p.closed <- err }

// command is the next command, which must have this op.
func (p *peer) command(op codec.Op) codec.Command {
	p.t.Helper()
	c := receive(p.t, p.commands, op.String())
	if c.Op != op {
		p.t.Fatalf("client sent %v, want %v", c.Op, op)
	}
	return c
}

// rows are spelled when they are sent.
type rows func(s native.Spelling, dst []byte) ([]byte, int)

// send sends a frame of rows.
func (p *peer) send(all ...rows) {
	p.t.Helper()
	p.frameNo++
	b := p.spelling.BeginFrame(nil, p.frameNo, time.Now().UnixNano())
	total := 0
	for _, r := range all {
		var n int
		b, n = r(p.spelling, b)
		total += n
	}
	p.raw(p.spelling.EndFrame(b, 0, total))
}

func (p *peer) raw(b []byte) {
	p.t.Helper()
	opcode := gws.OpcodeBinary
	if p.spelling.Text() {
		opcode = gws.OpcodeText
	}
	if err := p.conn.WriteMessage(opcode, b); err != nil && !errors.Is(err, gws.ErrConnClosed) {
		p.t.Errorf("write to client: %v", err)
	}
}

func event(e codec.Event) rows {
	return func(s native.Spelling, dst []byte) ([]byte, int) { return s.AppendEvent(dst, &e), 1 }
}

func granted(c codec.Channel, id uint32, symbol string) rows {
	return event(codec.Event{Type: codec.EventGranted, Channel: c, ID: id, Symbol: symbol, View: codec.ViewAll})
}

// market is a state of so many ticks, each a trade at 100.00 plus a cent for
// each, of size 0.5.
func market(epoch int64, n uint64) *codec.State {
	price, err := codec.NewDecimal(10000+int64(n), 2)
	if err != nil {
		panic(err)
	}
	size := codec.MustDecimal("0.5")
	s := &codec.State{
		Epoch: epoch, Seq: n, TradeNo: n, QuoteNo: n, Trades: n,
		Last: codec.Trade{
			No: n, Seq: n, Price: price, Size: size, Side: codec.SideBuy,
			IngestTime: time.Now().UnixNano(), EventTime: time.Now().Add(-time.Second).UnixNano(),
		},
		Quote: codec.Quote{No: n, Seq: n, Bid: price, Ask: price, IngestTime: time.Now().UnixNano()},
		Day:   codec.Day{Open: codec.MustDecimal("100.00"), High: price, Low: price, PrevClose: codec.MustDecimal("99.50"), BaseVolume: codec.TotalOf(codec.MustDecimal("1"))},
	}
	for range n {
		s.Volume = s.Volume.AddDecimal(size)
	}
	return s
}

func snapshot(c codec.Channel, id uint32, s *codec.State) rows {
	return func(sp native.Spelling, dst []byte) ([]byte, int) {
		return sp.AppendSnapshot(dst, c, codec.ViewAll, id, "BTCUSDT", s), 1
	}
}

// tick is a row of the channel after so many ticks.
func tick(c codec.Channel, id uint32, n uint64) rows {
	return func(sp native.Spelling, dst []byte) ([]byte, int) {
		s := market(1, n)
		if c == codec.ChannelTrades {
			return tradeOf(codec.ViewAll, id, n)(sp, dst)
		}
		return sp.AppendState(dst, c, codec.ViewAll, id, "BTCUSDT", s), 1
	}
}

// tradeOf is the row of the n-th trade.
func tradeOf(v codec.View, id uint32, n uint64) rows {
	return func(sp native.Spelling, dst []byte) ([]byte, int) {
		s := market(1, n)
		return sp.AppendTrade(dst, v, id, "BTCUSDT", &codec.TradeEntry{
			Kind: codec.KindTrade, Trade: s.Last, Quote: s.Quote, Volume: s.Volume, Trades: s.Trades,
		}), 1
	}
}

// run is a client that runs, and what it has told.
type run struct {
	t          *testing.T
	client     *client.Client
	updates    chan client.Update
	events     chan codec.Event
	violations chan string
	lost       chan error
	stop       context.CancelFunc
	done       chan error
}

// start runs a client whose subscriptions have been made.
func start(t *testing.T, c *client.Client) *run {
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{
		t: t, client: c, stop: cancel,
		updates: make(chan client.Update, 1024), events: make(chan codec.Event, 1024),
		violations: make(chan string, 1024), lost: make(chan error, 1024), done: make(chan error, 1),
	}
	go func() {
		r.done <- c.Run(ctx, client.Handler{
			Update: func(u *client.Update) error { r.updates <- *u; return nil },
			Event: func(e *codec.Event) {
				select {
				case r.events <- *e:
				default: // a test that wants events reads them
				}
			},
			Violation:    func(v *client.Violation) { r.violations <- v.Error() },
			Disconnected: func(err error) { r.lost <- err },
		})
		close(r.done)
	}()
	t.Cleanup(func() {
		cancel()
		if err := receive(t, r.done, "the end of Run"); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// update is the next one; no violation may have come before it.
func (r *run) update() client.Update {
	r.t.Helper()
	u := receive(r.t, r.updates, "an update")
	select {
	case v := <-r.violations:
		r.t.Errorf("violation: %s", v)
	default:
	}
	return u
}

// violation is the next one, which must speak of these words.
func (r *run) violation(words string) {
	r.t.Helper()
	if v := receive(r.t, r.violations, "a violation"); !strings.Contains(v, words) {
		r.t.Errorf("violation %q, want one of %q", v, words)
	}
}

func newClient(t *testing.T, o client.Options, subscriptions ...client.Subscription) *client.Client {
	t.Helper()
	if o.BackoffMin == 0 {
		o.BackoffMin, o.BackoffMax = 10*time.Millisecond, 20*time.Millisecond
	}
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range subscriptions {
		if err := c.Subscribe(s); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// items are a command's symbols, with where to go on.
func items(c *codec.Command) (all []codec.SymbolItem) {
	for it := range c.Symbols.All() {
		all = append(all, it)
	}
	return all
}
