package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/codec/record"
)

// start runs a peer and returns where clients connect, and the inlet's path.
func start(t *testing.T, args ...string) (addr, inlet string) {
	t.Helper()
	inlet = filepath.Join(t.TempDir(), "inlet")
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	go func() {
		err := run(ctx, append(args, "--listen", "127.0.0.1:0", "--inlet", "unix:"+inlet), w, log)
		w.CloseWithError(io.EOF)
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(2 * time.Second):
			t.Error("it did not end within 2 s")
		}
		if _, err := os.Lstat(inlet); err == nil {
			t.Error("the inlet's socket is left")
		}
	})
	line, err := bufio.NewReader(r).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if !ok {
		t.Fatalf("said %q, %v; want listening ADDR", line, err)
	}
	if info, err := os.Stat(inlet); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("inlet: %v, %v; want mode 0600", info.Mode(), err)
	}
	return addr, inlet
}

// feeder is a connection to an inlet, and what was told of each symbol.
type feeder struct {
	t      *testing.T
	conn   net.Conn
	states map[string]*codec.State
}

func feed(t *testing.T, inlet string) *feeder {
	t.Helper()
	c, err := net.Dial("unix", inlet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &feeder{t, c, map[string]*codec.State{}}
}

// tick feeds the next trade or quote of a symbol.
func (f *feeder) tick(symbol string, kind codec.Kind) {
	f.t.Helper()
	s := f.states[symbol]
	if s == nil {
		s = &codec.State{Epoch: 7}
		f.states[symbol] = s
	}
	s.Seq++
	r := record.Record{Kind: kind, Symbol: symbol, Venue: "bench", IngestTime: 1, EventTime: 1, Source: codec.Source{Epoch: 7, Offset: int64(s.Seq)}}
	if kind == codec.KindQuote {
		s.QuoteNo++
		s.Quote = codec.Quote{No: s.QuoteNo, Seq: s.Seq, Bid: codec.MustDecimal("10.4"), BidSize: codec.MustDecimal("3"), EventTime: 1, IngestTime: time.Now().UnixNano()}
	} else {
		s.TradeNo++
		s.Trades++
		s.Last = codec.Trade{No: s.TradeNo, Seq: s.Seq, Price: codec.MustDecimal("10.5"), Size: codec.MustDecimal("2"), Flags: codec.TradeOrdinary, EventTime: 1, IngestTime: time.Now().UnixNano()}
		s.Volume = s.Volume.AddDecimal(s.Last.Size)
		r.Trade = s.Last
	}
	r.State = *s
	b := record.Append(make([]byte, 4), &r)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if _, err := f.conn.Write(b); err != nil {
		f.t.Fatal(err)
	}
}

// rows reads a frame into lines, one a row, without what differs from run to
// run. Ids stand for symbols once they are granted.
func rows(t *testing.T, sp native.Spelling, frame []byte, began time.Time) (lines []string) {
	t.Helper()
	f, err := sp.OpenFrame(frame)
	if err != nil {
		t.Fatalf("frame %q: %v", frame, err)
	}
	if f.No != frameNo || f.SentTime < began.UnixNano()-int64(time.Microsecond) || f.SentTime > time.Now().UnixNano() {
		t.Errorf("frame %d sent %d; want %d, now", f.No, f.SentTime, frameNo)
	}
	var u native.Update
	for f.Next(&u) {
		switch u.Type {
		case codec.EventTicker, codec.EventTrade, codec.EventSnapshot:
			if u.IngestTime < began.UnixNano()-int64(time.Microsecond) || u.IngestTime > f.SentTime {
				t.Errorf("ingest %d, sent %d: want between the test's begin and sent", u.IngestTime, f.SentTime)
			}
			lines = append(lines, fmt.Sprintf("%v %d seq %d no %d price %v bid %v trades %d", u.Type, u.ID, u.Seq, u.No, u.Price, u.Bid, u.Trades))
		case codec.EventGranted, codec.EventWaiting:
			lines = append(lines, fmt.Sprintf("%v %v %s id %d epoch %d seq %d view %d ref %d", u.Type, u.Event.Channel, u.Event.Symbol, u.Event.ID, u.Event.Epoch, u.Event.Seq, u.Event.View, u.Event.Ref))
		case codec.EventError:
			lines = append(lines, fmt.Sprintf("%v %s ref %d", u.Type, u.Event.Code, u.Event.Ref))
		default:
			lines = append(lines, fmt.Sprintf("%v ref %d count %d", u.Type, u.Event.Ref, u.Event.Count))
		}
	}
	if err := f.Err(); err != nil {
		t.Fatalf("frame %q: %v", frame, err)
	}
	return lines
}

// command spells a command.
func command(op codec.Op, ref uint64, c codec.Channel, symbols ...string) []byte {
	cmd := codec.Command{Op: op, Ref: ref, Channel: c}
	for _, s := range symbols {
		cmd.Symbols.Append(codec.SymbolItem{Name: []byte(s)})
	}
	return native.MsgPack.AppendCommand(nil, &cmd)
}

// socket is a WebSocket client.
type socket struct {
	t     *testing.T
	ctx   context.Context
	conn  *websocket.Conn
	kind  websocket.MessageType
	lines []string // read and not yet taken
	frame func(msg []byte) []string
}

func dial(t *testing.T, url string, kind websocket.MessageType, subprotocols ...string) *socket {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	t.Cleanup(cancel)
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: subprotocols})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(1 << 20)
	t.Cleanup(func() { c.CloseNow() })
	return &socket{t: t, ctx: ctx, conn: c, kind: kind}
}

func (s *socket) write(b []byte) {
	s.t.Helper()
	if err := s.conn.Write(s.ctx, s.kind, b); err != nil {
		s.t.Fatal(err)
	}
}

// want reads lines until there are as many as are wanted, and compares.
func (s *socket) want(lines ...string) {
	s.t.Helper()
	for len(s.lines) < len(lines) {
		kind, b, err := s.conn.Read(s.ctx)
		if err != nil {
			s.t.Fatalf("%v; got %q, want %q", err, s.lines, lines)
		}
		if kind != s.kind {
			s.t.Errorf("a %v message; want %v", kind, s.kind)
		}
		s.lines = append(s.lines, s.frame(b)...)
	}
	got := s.lines[:len(lines)]
	s.lines = s.lines[len(lines):]
	if !slices.Equal(got, lines) {
		s.t.Fatalf("got\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(lines, "\n "))
	}
}

var (
	granted   = fmt.Sprint(codec.EventGranted)
	waiting   = fmt.Sprint(codec.EventWaiting)
	snapshot  = fmt.Sprint(codec.EventSnapshot)
	end       = fmt.Sprint(codec.EventSnapshotEnd)
	ticker    = fmt.Sprint(codec.EventTicker)
	trade     = fmt.Sprint(codec.EventTrade)
	welcome   = fmt.Sprint(codec.EventWelcome)
	fault     = fmt.Sprint(codec.EventError)
	pong      = fmt.Sprint(codec.EventPong)
	unsubscrd = fmt.Sprint(codec.EventUnsubscribed)
)

func dialGWS(t *testing.T, addr string, began time.Time) *socket {
	t.Helper()
	s := dial(t, "ws://"+addr+"/v1/ws", websocket.MessageBinary, native.SubprotocolMsgPack)
	s.frame = func(b []byte) []string { return rows(t, native.MsgPack, b, began) }
	s.want(welcome + " ref 0 count 0")
	return s
}

func TestGWS(t *testing.T) {
	began := time.Now()
	addr, inlet := start(t, "gws")
	s, all := dialGWS(t, addr, began), dialGWS(t, addr, began)

	// Before there is a symbol.
	s.write(command(codec.OpSubscribe, 1, codec.ChannelTrades, "AAA"))
	s.want(waiting+" trades AAA id 0 epoch 0 seq 0 view 0 ref 1", end+" ref 1 count 0")
	all.write(command(codec.OpSubscribe, 2, codec.ChannelTicker, "*"))
	all.want(waiting+" ticker AAA id 0 epoch 0 seq 0 view 0 ref 2", end+" ref 2 count 0")

	f := feed(t, inlet)
	f.tick("AAA", codec.KindTrade)
	f.tick("AAA", codec.KindQuote)
	f.tick("B.B", codec.KindTrade)
	s.want(granted+" trades AAA id 0 epoch 7 seq 1 view 5 ref 0", trade+" 0 seq 1 no 1 price 10.5 bid  trades 1")
	all.want(granted+" ticker AAA id 0 epoch 7 seq 1 view 15 ref 0", ticker+" 0 seq 1 no 0 price 10.5 bid  trades 1",
		ticker+" 0 seq 2 no 0 price 10.5 bid 10.4 trades 1",
		granted+" ticker B.B id 1 epoch 7 seq 1 view 15 ref 0", ticker+" 1 seq 1 no 0 price 10.5 bid  trades 1")

	// With a snapshot, and what follows it.
	s.write(command(codec.OpSubscribe, 3, codec.ChannelTrades, "B.B"))
	s.want(granted+" trades B.B id 1 epoch 7 seq 1 view 5 ref 3", snapshot+" 1 seq 1 no 1 price 10.5 bid  trades 1", end+" ref 3 count 0")
	f.tick("B.B", codec.KindTrade)
	s.want(trade + " 1 seq 2 no 2 price 10.5 bid  trades 2")
	all.want(ticker + " 1 seq 2 no 0 price 10.5 bid  trades 2")

	for name, tt := range map[string]struct {
		command []byte
		want    string
	}{
		"ping":    {command(codec.OpPing, 4, 0), pong + " ref 4 count 0"},
		"ledger":  {command(codec.OpLedger, 5, 0), fault + " not-supported ref 5"},
		"pattern": {command(codec.OpSubscribe, 6, codec.ChannelTrades, "B*"), fault + " not-supported ref 6"},
		"quotes":  {command(codec.OpSubscribe, 7, codec.ChannelQuotes, "AAA"), fault + " not-supported ref 7"},
		"garbage": {[]byte{0xc1}, fault + " bad-frame ref 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s.write(tt.command)
			s.want(tt.want)
		})
	}

	s.write(command(codec.OpUnsubscribe, 8, codec.ChannelTrades, "B.B", "NONE"))
	s.want(unsubscrd + " ref 8 count 1")
	all.write(command(codec.OpUnsubscribe, 9, codec.ChannelTicker, "*"))
	all.want(unsubscrd + " ref 9 count 2")
	f.tick("B.B", codec.KindTrade) // nobody's
	f.tick("CCC", codec.KindTrade) // nobody's
	f.tick("AAA", codec.KindTrade)
	s.want(trade + " 0 seq 3 no 2 price 10.5 bid  trades 2")
	all.write(command(codec.OpPing, 10, 0))
	all.want(pong + " ref 10 count 0")
}

// Many who come and go while ticks are told: no gap behind a snapshot.
func TestGWSSnapshotsHaveNoGap(t *testing.T) {
	began := time.Now()
	addr, inlet := start(t, "gws")
	f := feed(t, inlet)
	f.tick("AAA", codec.KindTrade)
	stop := make(chan struct{})
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for {
			select {
			case <-stop:
				return
			default:
				f.tick("AAA", codec.KindTrade)
			}
		}
	}()
	for range 20 {
		s := dialGWS(t, addr, began)
		s.write(command(codec.OpSubscribe, 1, codec.ChannelTrades, "AAA"))
		var seq uint64
		for n := 0; n < 100; {
			_, b, err := s.conn.Read(s.ctx)
			if err != nil {
				t.Fatal(err)
			}
			frame, _ := native.MsgPack.OpenFrame(b)
			var u native.Update
			for frame.Next(&u) {
				switch {
				case u.Type == codec.EventTrade && u.Seq != seq+1:
					t.Fatalf("trade %d after %d", u.Seq, seq)
				case u.Type == codec.EventTrade || u.Type == codec.EventSnapshot:
					seq = u.Seq
					n++
				}
			}
		}
		s.conn.CloseNow()
	}
	close(stop)
	<-fed
}

func TestCentrifuge(t *testing.T) {
	for name, args := range map[string][]string{
		"each at once": {"centrifuge"},
		"batched":      {"centrifuge", "--batch", "10ms"},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			addr, inlet := start(t, args...)
			s := dial(t, "ws://"+addr+"/connection/websocket", websocket.MessageText)
			s.frame = func(msg []byte) (lines []string) {
				for line := range bytes.Lines(msg) {
					t.Logf("< %s", bytes.TrimSpace(line))
					var m struct {
						ID        int
						Connect   *struct{ Ping int }
						Subscribe *struct{ Data json.RawMessage }
						Error     *struct{ Code int }
						Push      struct {
							Channel string
							Pub     struct{ Data json.RawMessage }
						}
					}
					if err := json.Unmarshal(line, &m); err != nil {
						t.Fatalf("%s: %v", line, err)
					}
					switch {
					case m.Error != nil:
						lines = append(lines, fmt.Sprintf("error %d id %d", m.Error.Code, m.ID))
					case m.Connect != nil:
						lines = append(lines, fmt.Sprintf("connected id %d ping %d", m.ID, m.Connect.Ping))
					case m.Subscribe != nil:
						lines = append(lines, fmt.Sprintf("subscribed id %d", m.ID))
						lines = append(lines, rows(t, native.JSON, m.Subscribe.Data, began)...)
					case m.Push.Channel != "":
						for _, row := range rows(t, native.JSON, m.Push.Pub.Data, began) {
							lines = append(lines, m.Push.Channel+" "+row)
						}
					}
				}
				return lines
			}
			f := feed(t, inlet)
			f.tick("AAA", codec.KindTrade)
			s.write([]byte(`{"id":1,"connect":{}}`))
			s.want("connected id 1 ping 25")
			// The symbol may come at any time until then: wait for it.
			for seen := false; !seen; {
				s.write([]byte(`{"id":2,"subscribe":{"channel":"trades:AAA"}}`))
				s.want("subscribed id 2")
				for len(s.lines) == 0 {
					_, b, err := s.conn.Read(s.ctx)
					if err != nil {
						t.Fatal(err)
					}
					s.lines = append(s.lines, s.frame(b)...)
				}
				if seen = strings.HasPrefix(s.lines[0], granted); !seen {
					s.want(waiting + " trades AAA id 0 epoch 0 seq 0 view 0 ref 0")
					s.want("trades:AAA "+granted+" trades AAA id 0 epoch 7 seq 1 view 5 ref 0", "trades:AAA "+trade+" 0 seq 1 no 1 price 10.5 bid  trades 1")
					s.write([]byte(`{"id":3,"unsubscribe":{"channel":"trades:AAA"}}`))
				}
			}
			s.want(granted+" trades AAA id 0 epoch 7 seq 1 view 5 ref 0", snapshot+" 0 seq 1 no 1 price 10.5 bid  trades 1")
			s.write([]byte(`{"id":4,"subscribe":{"channel":"ticker:AAA","data":{"ref":9}}}` + "\n" +
				`{"id":5,"subscribe":{"channel":"ticker:AAA"}}` + "\n" + `{"id":6,"subscribe":{"channel":"quotes:AAA"}}`))
			s.want("subscribed id 4", granted+" ticker AAA id 0 epoch 7 seq 1 view 15 ref 9", snapshot+" 0 seq 1 no 0 price 10.5 bid  trades 1", end+" ref 9 count 0",
				"error 105 id 5", "error 102 id 6")
			f.tick("AAA", codec.KindQuote)
			f.tick("AAA", codec.KindTrade)
			s.want("ticker:AAA "+ticker+" 0 seq 2 no 0 price 10.5 bid 10.4 trades 1",
				"ticker:AAA "+ticker+" 0 seq 3 no 0 price 10.5 bid 10.4 trades 2",
				"trades:AAA "+trade+" 0 seq 3 no 2 price 10.5 bid  trades 2")
		})
	}
}

func TestNATS(t *testing.T) {
	began := time.Now()
	addr, inlet := start(t, "nats", "--ticker")
	c, err := nats.Connect("ws://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	messages := make(chan *nats.Msg, 100)
	want := func(lines ...string) {
		t.Helper()
		var got []string
		for len(got) < len(lines) {
			select {
			case m := <-messages:
				for _, row := range rows(t, native.MsgPack, m.Data, began) {
					got = append(got, strings.Split(m.Subject, ".")[0]+" "+row)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("got %q, want %q", got, lines)
			}
		}
		if !slices.Equal(got, lines) {
			t.Fatalf("got\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(lines, "\n "))
		}
	}
	inbox := nats.NewInbox()
	for _, subject := range []string{inbox, "trades.*", "ticker.B_B"} {
		if _, err := c.ChanSubscribe(subject, messages); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	f := feed(t, inlet)
	f.tick("AAA", codec.KindTrade)
	f.tick("B.B", codec.KindTrade)
	f.tick("B.B", codec.KindQuote)
	want("trades "+granted+" trades AAA id 0 epoch 7 seq 1 view 5 ref 0",
		"trades "+trade+" 0 seq 1 no 1 price 10.5 bid  trades 1",
		"ticker "+granted+" ticker B.B id 1 epoch 7 seq 1 view 15 ref 0",
		"ticker "+ticker+" 1 seq 1 no 0 price 10.5 bid  trades 1",
		"trades "+granted+" trades B.B id 1 epoch 7 seq 1 view 5 ref 0",
		"trades "+trade+" 1 seq 1 no 1 price 10.5 bid  trades 1",
		"ticker "+ticker+" 1 seq 2 no 0 price 10.5 bid 10.4 trades 1")

	request := func(b []byte) {
		t.Helper()
		if err := c.PublishRequest(natsSnapshotSubject, inbox, b); err != nil {
			t.Fatal(err)
		}
	}
	request(command(codec.OpSubscribe, 3, codec.ChannelTrades, "*"))
	want("_INBOX "+granted+" trades AAA id 0 epoch 7 seq 1 view 5 ref 3",
		"_INBOX "+snapshot+" 0 seq 1 no 1 price 10.5 bid  trades 1",
		"_INBOX "+granted+" trades B.B id 1 epoch 7 seq 2 view 5 ref 3",
		"_INBOX "+snapshot+" 1 seq 2 no 1 price 10.5 bid  trades 1",
		"_INBOX "+end+" ref 3 count 0")
	request(command(codec.OpSubscribe, 4, codec.ChannelTicker, "NEW"))
	want("_INBOX "+waiting+" ticker NEW id 0 epoch 0 seq 0 view 0 ref 4", "_INBOX "+end+" ref 4 count 0")
	request(command(codec.OpPing, 5, 0))
	want("_INBOX " + fault + " not-supported ref 5")
}

// The bytes of NATS over WebSocket, for clients that have no NATS library.
func TestNATSBytes(t *testing.T) {
	addr, inlet := start(t, "nats")
	s := dial(t, "ws://"+addr+"/", websocket.MessageBinary)
	var stream []byte
	await := func(what string) {
		t.Helper()
		for !bytes.Contains(stream, []byte(what)) {
			_, b, err := s.conn.Read(s.ctx)
			if err != nil {
				t.Fatalf("%v; got %q, want %q", err, stream, what)
			}
			t.Logf("< %q", b)
			stream = append(stream, b...)
		}
	}
	await("INFO {")
	s.write([]byte(`CONNECT {"verbose":false,"pedantic":false,"headers":false,"no_responders":false}` + "\r\n"))
	ask := command(codec.OpSubscribe, 1, codec.ChannelTrades, "AAA")
	s.write(fmt.Appendf(nil, "SUB trades.AAA trades.AAA\r\nSUB _INBOX.x _INBOX.x\r\nPUB snapshot _INBOX.x %d\r\n%s\r\nPING\r\n", len(ask), ask))
	await("MSG _INBOX.x _INBOX.x ")
	feed(t, inlet).tick("AAA", codec.KindTrade)
	await("MSG trades.AAA trades.AAA ")
	s.write([]byte("UNSUB trades.AAA\r\nPING\r\n"))
}

func TestInletPassesOver(t *testing.T) {
	fence := record.Append(make([]byte, 4), &record.Record{Kind: codec.KindFence, Symbol: "AAA", Venue: "bench"})
	binary.BigEndian.PutUint32(fence, uint32(len(fence)-4))
	for name, tt := range map[string]struct {
		bytes  []byte
		passed uint64
		fails  bool
	}{
		"a fence":          {bytes: fence, passed: 1},
		"no record":        {bytes: []byte{0, 0, 0, 1, 0xc0}, passed: 1},
		"length zero":      {bytes: make([]byte, 8), fails: true},
		"length too large": {bytes: []byte{0xff, 0xff, 0xff, 0xff}, fails: true},
		"cut off":          {bytes: fence[:9], fails: true},
		"nothing":          {},
	} {
		t.Run(name, func(t *testing.T) {
			taken, passed, err := take(bytes.NewReader(tt.bytes), func(*tick) { t.Error("a tick") })
			if taken != 0 || passed != tt.passed || (err != nil) != tt.fails {
				t.Errorf("take = %d, %d, %v; want 0, %d, fails %v", taken, passed, err, tt.passed, tt.fails)
			}
		})
	}
}

func TestBadCommandLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"none":            {},
		"no such peer":    {"kafka", "--inlet", "unix:x"},
		"no inlet":        {"gws"},
		"inlet is a file": {"gws", "--inlet", "unix:" + file},
		"not its flag":    {"gws", "--inlet", "unix:x", "--ticker"},
		"too slow":        {"centrifuge", "--inlet", "unix:x", "--batch", "1m"},
		"bad address":     {"nats", "--inlet", "unix:x", "--listen", "nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), args, io.Discard, slog.New(slog.DiscardHandler)); err == nil {
				t.Error("accepted")
			}
		})
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
