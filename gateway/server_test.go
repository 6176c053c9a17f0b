package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lxzan/gws"
	"go.uber.org/goleak"

	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/codec/record"
	"tickgate/gateway/board"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16") // these tests wait more than they compute
	goleak.VerifyTestMain(m)
}

// running is a server of a test.
type running struct {
	*Server
	t     testing.TB
	board *board.Board
	stop  context.CancelFunc
	ended chan error
	seqs  map[string]uint64
}

func run(t testing.TB, o Options) *running {
	t.Helper()
	b, err := board.New(board.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Board = b
	o.Listen = "127.0.0.1:0"
	if o.Admin == "" {
		o.Admin = AdminOff
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Server: s, t: t, board: b, stop: cancel, ended: make(chan error, 1), seqs: map[string]uint64{}}
	go func() { r.ended <- s.Run(ctx) }()
	t.Cleanup(func() { r.wait(15 * time.Second) })
	return r
}

// wait stops the server and waits for its end.
func (r *running) wait(most time.Duration) {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("Run: %v", err)
		}
		r.ended <- nil // for the next wait
	case <-time.After(most):
		r.t.Errorf("Run has not returned %v after its context was done", most)
	}
}

// trade publishes the next trade of a symbol.
func (r *running) trade(symbol string, price int64) {
	r.seqs[symbol]++
	seq, now := r.seqs[symbol], time.Now().UnixNano()
	p, err := codec.NewDecimal(price, 2)
	if err != nil {
		r.t.Fatal(err)
	}
	size, _ := codec.NewDecimal(1, 0)
	trade := codec.Trade{No: seq, Seq: seq, Price: p, Size: size, Flags: codec.TradeOrdinary, EventTime: now, IngestTime: now}
	total, _ := codec.NewTotal(int64(seq), 0)
	r.board.Publish(&record.Record{
		Kind: codec.KindTrade, Symbol: symbol, Venue: "test", IngestTime: now, EventTime: now,
		Source: codec.Source{Epoch: 1, Offset: int64(seq)}, Trade: trade,
		State: codec.State{Epoch: 1, Seq: seq, TradeNo: seq, Volume: total, Trades: seq, Last: trade,
			Day: codec.Day{Open: p, High: p, Low: p}},
	})
	r.board.Loaded(symbol)
}

// client is a WebSocket client that parses what protocol v1's JSON says.
type client struct {
	gws.BuiltinEventHandler
	t      testing.TB
	conn   *gws.Conn
	events chan map[string]any
	closed chan error
}

func (c *client) OnPing(conn *gws.Conn, b []byte) { _ = conn.WritePong(b) }
func (c *client) OnClose(_ *gws.Conn, err error)  { c.closed <- err; close(c.events) }
func (c *client) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	var f struct {
		Frame  uint64
		Sent   uint64
		Events []map[string]any
	}
	if err := json.Unmarshal(m.Bytes(), &f); err != nil {
		c.t.Errorf("frame %q: %v", m.Bytes(), err)
	}
	for _, e := range f.Events {
		c.events <- e
	}
}

func (r *running) dial(subprotocols ...string) *client {
	r.t.Helper()
	c := &client{t: r.t, events: make(chan map[string]any, 10_000), closed: make(chan error, 1)}
	o := &gws.ClientOption{Addr: "ws://" + r.Addr().String() + "/v1/ws"}
	if len(subprotocols) > 0 {
		o.RequestHeader = http.Header{"Sec-Websocket-Protocol": {strings.Join(subprotocols, ", ")}}
	}
	conn, _, err := gws.NewClient(c, o)
	if err != nil {
		r.t.Fatal(err)
	}
	c.conn = conn
	ended := make(chan struct{})
	go func() { defer close(ended); conn.ReadLoop() }()
	r.t.Cleanup(func() { _ = conn.NetConn().Close(); <-ended })
	return c
}

func (c *client) send(format string, args ...any) {
	if err := c.conn.WriteString(fmt.Sprintf(format, args...)); err != nil {
		c.t.Errorf("send: %v", err)
	}
}

// next is the next event of a type; others in between are skipped.
func (c *client) next(types ...string) map[string]any {
	c.t.Helper()
	late := time.After(10 * time.Second)
	var seen []any
	for {
		select {
		case e, ok := <-c.events:
			if !ok {
				c.t.Fatalf("the connection ended; want %v, seen %v", types, seen)
			}
			for _, want := range types {
				if e["type"] == want {
					return e
				}
			}
			seen = append(seen, e["type"])
		case <-late:
			c.t.Fatalf("no %v in 10s, seen %v", types, seen)
		}
	}
}

func (c *client) wantClose(code uint16) {
	c.t.Helper()
	select {
	case err := <-c.closed:
		var ce *gws.CloseError
		if code == 1000 && err != nil && err.Error() == "gws: close normal" {
			return // its word for 1000
		}
		if !errors.As(err, &ce) || ce.Code != code {
			c.t.Errorf("closed: %v, want code %d", err, code)
		}
	case <-time.After(10 * time.Second):
		c.t.Errorf("not closed in 10s, want code %d", code)
	}
}

// A client is welcomed, gets what it subscribed to, and then what changes.
func TestPricesFlow(t *testing.T) {
	t.Parallel()
	r := run(t, Options{Node: "n1", Version: "v9"})
	r.trade("BTC-USD", 100_00)
	c := r.dial() // no subprotocol: JSON
	first := <-c.events
	if first["type"] != "welcome" || first["node"] != "n1" || first["version"] != "v9" {
		t.Errorf("first event %v, want the welcome", first)
	}
	c.send(`{"op":"subscribe","ref":7,"channel":"ticker","symbols":["BTC-USD"]}`)
	if g := c.next("granted"); g["symbol"] != "BTC-USD" || g["ref"] != 7.0 {
		t.Errorf("granted %v", g)
	}
	if s := c.next("snapshot"); s["last"] != "100.00" || s["seq"] != 1.0 {
		t.Errorf("snapshot %v", s)
	}
	c.next("snapshot_end")
	for price := int64(101_00); price < 110_00; price += 1_00 {
		r.trade("BTC-USD", price)
		if u := c.next("ticker"); u["last"] != fmt.Sprintf("%d.00", price/100) {
			t.Errorf("ticker %v, want last %d", u, price/100)
		}
	}
	c.send(`{"op":"ping","ref":8}`)
	if p := c.next("pong"); p["ref"] != 8.0 {
		t.Errorf("pong %v", p)
	}
	_ = c.conn.WriteClose(1000, nil)
}

func TestMsgPack(t *testing.T) {
	t.Parallel()
	r := run(t, Options{})
	conn, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: unknown.v9\r\nSec-WebSocket-Protocol: tickgate.v1.msgpack, tickgate.v1.json\r\n\r\n")
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Protocol") != native.SubprotocolMsgPack {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	var h [2]byte
	if _, err := io.ReadFull(br, h[:]); err != nil || h[0] != 0x82 || h[1] > 125 {
		t.Fatalf("first frame % x, %v", h, err)
	}
	b := make([]byte, h[1])
	if _, err := io.ReadFull(br, b); err != nil {
		t.Fatal(err)
	}
	if _, err := native.MsgPack.OpenFrame(b); err != nil {
		t.Errorf("first frame: %v", err)
	}
}

// Whatever is sent to the port is answered or closed, and the server goes on.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	r := run(t, Options{Limits: Limits{HandshakeTime: 300 * time.Millisecond}})
	upgrade := func(path string, headers ...string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
	}
	const (
		up      = "Upgrade: websocket"
		conn    = "Connection: Upgrade"
		version = "Sec-WebSocket-Version: 13"
		key     = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	)
	for name, tt := range map[string]struct {
		in     string
		status int    // 0: closed without an answer
		want   string // in the answer
	}{
		"no HTTP at all":           {"\x00\x01\x02 what?\r\n\r\n", 400, ""},
		"TLS to a plain port":      {"\x16\x03\x01\x00\x05hello\r\n\r\n", 400, ""},
		"half a request":           {"GET /v1/ws HTTP/1.1\r\nHos", 0, ""},
		"nothing":                  {"", 0, ""},
		"a header too long":        {"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", 431, ""},
		"no host":                  {"GET /v1/ws HTTP/1.1\r\n\r\n", 400, "Host"},
		"no upgrade":               {upgrade("/v1/ws"), 426, "Upgrade: websocket"},
		"another upgrade":          {upgrade("/v1/ws", "Upgrade: h2c", conn, version, key), 426, "Upgrade: websocket"},
		"no connection header":     {upgrade("/v1/ws", up, version, key), 426, "Connection: Upgrade"},
		"old version":              {upgrade("/v1/ws", up, conn, "Sec-WebSocket-Version: 8", key), 426, "13"},
		"no key":                   {upgrade("/v1/ws", up, conn, version), 400, "Sec-WebSocket-Key"},
		"a key of the wrong size":  {upgrade("/v1/ws", up, conn, version, "Sec-WebSocket-Key: YWJj"), 400, "16 bytes"},
		"unknown subprotocol":      {upgrade("/v1/ws", up, conn, version, key, "Sec-WebSocket-Protocol: graphql-ws"), 400, "tickgate.v1.json"},
		"POST":                     {"POST /v1/ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405, "GET"},
		"a body":                   {"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + key + "\r\nContent-Length: 3\r\n\r\nabc", 400, "no body"},
		"HTTP/1.0":                 {"GET /v1/ws HTTP/1.0\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 505, "HTTP/1.1"},
		"somewhere else under /v1": {upgrade("/v1/stream"), 404, "/v1/ws"},
		"a path of bytes":          {upgrade("/v1/%00%ff%0d%0aSet-Cookie:x"), 404, "/v1/ws"},
		"nothing there":            {upgrade("/etc/passwd"), 404, ""},
		"HTTP/2 without asking":    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", r.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.WriteString(c, tt.in)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				if tt.status != 0 {
					t.Fatalf("no answer: %v; want %d", err, tt.status)
				}
				return
			}
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
			if resp.StatusCode != tt.status && !(tt.status == 0 && (resp.StatusCode == 408 || resp.StatusCode == 400)) {
				t.Errorf("status %s, want %d", resp.Status, tt.status)
			}
			all := string(body) + fmt.Sprint(resp.Header)
			if !strings.Contains(all, tt.want) {
				t.Errorf("answer %q has no %q", all, tt.want)
			}
			if resp.Header.Get("Set-Cookie") != "" {
				t.Error("the path has set a header")
			}
		})
	}
}

// A frame that is no command is answered with what was wrong; too many close.
func TestBadCommands(t *testing.T) {
	t.Parallel()
	r := run(t, Options{Limits: Limits{BadCommands: 5}})
	c := r.dial(native.SubprotocolJSON)
	for _, frame := range []string{`{"op":"dance"}`, `]`, `{"op":"subscribe","channel":"ticker","symbols":[1]}`, ``} {
		c.send("%s", frame)
		if e := c.next("error"); e["code"] == "" || e["what"] == "" {
			t.Errorf("%q: %v", frame, e)
		}
	}
	_ = c.conn.WriteMessage(gws.OpcodeBinary, []byte(`{"op":"ping"}`))
	if e := c.next("error"); e["code"] != native.CodeBadFrame || !strings.Contains(e["want"].(string), "text") {
		t.Errorf("a binary frame: %v", e)
	}
	c.send("once more")
	c.wantClose(codec.CloseBadCommand.Code())
}

func TestLimitsAnswer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limits Limits
		status int
	}{
		"per address": {Limits{ConnectionsPerAddress: 1, CountLoopback: true}, 429},
		"in all":      {Limits{Connections: 1}, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, Options{Limits: tt.limits})
			c := r.dial()
			c.next("welcome")
			_, resp, err := gws.NewClient(new(gws.BuiltinEventHandler), &gws.ClientOption{Addr: "ws://" + r.Addr().String() + "/v1/ws"})
			if err == nil || resp.StatusCode != tt.status {
				t.Fatalf("second client: %v, %v; want %d", resp, err, tt.status)
			}
			if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || s < 1 {
				t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
			}
			_ = c.conn.WriteClose(1000, nil)
			c.wantClose(1000)
			for range 100 {
				if r.Sessions() == 0 {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			r.dial().next("welcome") // the place is free again
		})
	}
}

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	r := run(t, Options{Admin: "127.0.0.1:0", DrainWindow: 3 * time.Second})
	admin := "http://" + r.AdminAddr().String()
	c := r.dial()
	c.next("welcome")
	for path, want := range map[string]string{
		"/healthz": "ok",
		"/readyz":  "ready",
		"/metrics": `tickgate_gateway_sessions{subprotocol="tickgate.v1.json"} 1`,
	} {
		if status, body := get(t, admin+path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.300q, want %q", path, status, body, want)
		}
	}
	if status, _ := get(t, admin+"/debug/pprof/"); status != 404 {
		t.Errorf("/debug/pprof/: %d without Options.Pprof, want 404", status)
	}
	if status, body := get(t, "http://"+r.Addr().String()+"/"); status != 200 || !strings.Contains(body, "tickgate") {
		t.Errorf("/: %d %.100q, want the page", status, body)
	}

	// Draining: alive, not ready, and no new clients.
	r.stop()
	if e := c.next("goaway"); e["window"] != 3000.0 {
		t.Errorf("goaway %v, want a window of 3000", e)
	}
	if status, _ := get(t, admin+"/readyz"); status != 503 {
		t.Errorf("/readyz while draining: %d, want 503", status)
	}
	if status, _ := get(t, admin+"/healthz"); status != 200 {
		t.Errorf("/healthz while draining: %d, want 200", status)
	}
	_, resp, err := gws.NewClient(new(gws.BuiltinEventHandler), &gws.ClientOption{Addr: "ws://" + r.Addr().String() + "/v1/ws"})
	if err == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a new client while draining: %v, %v; want 503 with Retry-After", resp, err)
	}
	c.wantClose(codec.CloseDraining.Code())
}

// Without a window clients are told at once and the server ends, even if some
// of them take nothing.
func TestDrainAtOnce(t *testing.T) {
	t.Parallel()
	r := run(t, Options{})
	var clients []*client
	for range 50 {
		clients = append(clients, r.dial())
	}
	for _, c := range clients {
		c.next("welcome")
	}
	deaf, err := net.Dial("tcp", r.Addr().String()) // holds its connection and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	r.wait(4 * time.Second)
	for _, c := range clients {
		c.wantClose(codec.CloseDraining.Code())
	}
	if c, err := net.Dial("tcp", r.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the port is still open after Run")
	}
}

func TestTakenPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	b, err := board.New(board.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for option, o := range map[string]Options{
		"Listen": {Board: b, Listen: taken.Addr().String(), Admin: AdminOff},
		"Admin":  {Board: b, Listen: "127.0.0.1:0", Admin: taken.Addr().String()},
	} {
		_, err := New(o)
		var le *ListenError
		if !errors.Is(err, syscall.EADDRINUSE) || !errors.As(err, &le) || le.Option != option ||
			!strings.Contains(err.Error(), taken.Addr().String()) {
			t.Errorf("%s taken: %v", option, err)
		}
	}
}
