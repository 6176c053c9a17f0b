package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"tickgate/codec"
	"tickgate/codec/native"
)

// session is one connection. The goroutine of Run reads; one other writes.
type session struct {
	gws.BuiltinEventHandler
	client  *Client
	handler *Handler
	began   time.Time

	// Owned by the reading goroutine.
	topics  map[topicID]*topic
	update  Update
	frameNo uint64
	heard   bool  // a frame of a gateway came
	leaving bool  // because the gateway asked us to
	stop    error // what the handler returned
	fault   error // why we give this connection up

	// Shared.
	conn    *gws.Conn
	read    atomic.Uint64 // frames read and handled
	heardAt atomic.Int64  // since began
	leaveAt atomic.Int64  // since began; 0: stay
	closing atomic.Bool   // we have said goodbye

	// Guarded by mu.
	mu    sync.Mutex
	ended map[uint64]*codec.SymbolList // by ref: unsubscribes that are not answered
}

// run connects, reads until the end, and says why it ended.
func (s *session) run(ctx context.Context) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	s.conn, s.began = conn, time.Now()
	s.client.options.Logger.Info("gateway connected", "url", s.client.options.URL, "subprotocol", conn.SubProtocol())
	if s.handler.Connected != nil {
		s.handler.Connected()
	}
	commands := s.resume()
	ctx, cancel := context.WithCancel(ctx)
	var writer sync.WaitGroup
	writer.Go(func() { s.write(ctx, commands) })
	conn.ReadLoop()
	cancel()
	writer.Wait()
	return s.fault
}

// close says goodbye. What still comes is read, and not heard, until the gateway
// says it too: gws's own way closes at once, and then the goodbye may be lost in
// the reset that unread bytes cause.
func (s *session) close(code uint16, reason string) {
	if s.closing.Swap(true) {
		return
	}
	s.conn.NetConn().SetDeadline(time.Now().Add(closeTimeout))
	s.conn.WriteMessage(gws.OpcodeCloseConnection, append(binary.BigEndian.AppendUint16(nil, code), reason...))
}

// write sends commands and acknowledgements until ctx is done.
func (s *session) write(ctx context.Context, commands []codec.Command) {
	o := &s.client.options
	tick := time.NewTicker(max(o.AckEvery, min(ackEveryMax, o.SilenceMax/4)))
	if o.AckEvery > 0 {
		tick.Reset(min(o.AckEvery, o.SilenceMax/4))
	}
	defer tick.Stop()
	var acked, ref uint64
	var pingedAt time.Duration
	var buf []byte
	send := func(c *codec.Command) {
		buf = s.client.spelling.AppendCommand(buf[:0], c)
		s.send(buf)
	}
	tell := func(commands []codec.Command) {
		for i := range commands {
			ref++
			commands[i].Ref = ref
			if commands[i].Op == codec.OpUnsubscribe {
				s.mu.Lock()
				s.ended[ref] = &commands[i].Symbols
				s.mu.Unlock()
			}
			send(&commands[i])
		}
	}
	tell(commands)
	for {
		select {
		case <-ctx.Done():
			s.close(codec.CloseNormal.Code(), "")
			return
		case <-s.client.wake:
			s.client.mu.Lock()
			changes := s.client.pending
			s.client.pending = nil
			s.client.mu.Unlock()
			for i := range changes {
				tell(changes[i].commands(nil))
			}
		case <-tick.C:
		}
		if s.closing.Load() {
			continue
		}
		if read := s.read.Load(); read != acked && o.AckEvery > 0 {
			acked = read
			send(&codec.Command{Op: codec.OpAck, Frame: read})
		}
		now := time.Since(s.began)
		if at := s.leaveAt.Load(); at != 0 && now >= time.Duration(at) {
			s.close(codec.CloseNormal.Code(), "")
		}
		switch silent := now - time.Duration(s.heardAt.Load()); {
		case silent >= o.SilenceMax:
			s.conn.NetConn().Close()
		case silent >= o.SilenceMax/3 && now-pingedAt >= o.SilenceMax/3:
			pingedAt = now
			s.conn.NetConn().SetWriteDeadline(time.Now().Add(writeTimeout))
			s.conn.WritePing(nil)
		}
	}
}

// send writes a message. A fault closes the connection, which the reader sees.
func (s *session) send(b []byte) {
	opcode := gws.OpcodeBinary
	if s.client.spelling.Text() {
		opcode = gws.OpcodeText
	}
	s.conn.NetConn().SetWriteDeadline(time.Now().Add(writeTimeout))
	s.conn.WriteMessage(opcode, b)
}

// resume is what a new connection has to be told: every subscription, with
// where to go on for the symbols that we know.
func (s *session) resume() (commands []codec.Command) {
	c := s.client
	c.mu.Lock()
	subscriptions := slices.Clone(c.subscriptions)
	c.pending = nil
	c.mu.Unlock()
	for _, sub := range subscriptions {
		ch := change{codec.OpSubscribe, sub}
		commands = append(commands, ch.commands(c.topics)...)
	}
	return commands
}

// commands are what tells a change, each within what a gateway takes. Topics
// are what is known, nil for nothing.
func (ch *change) commands(topics map[topicKey]*topic) []codec.Command {
	const (
		itemBytes = 4        // besides the name, in either spelling
		fromBytes = 60       // besides those
		longMax   = 48 << 10 // of codec.CommandBytesMax
		shortMax  = 3 << 10  // of codec.SmallCommandBytesMax
		itemsMax  = native.SymbolsMax
	)
	sub := &ch.subscription
	blank := codec.Command{
		Op: ch.op, Channel: sub.Channel, Every: sub.Every, View: sub.View,
		MinSize: sub.MinSize, Deadband: sub.Deadband, SilenceMax: sub.SilenceMax,
	}
	bytesMax := longMax
	if ch.op == codec.OpUnsubscribe {
		bytesMax = shortMax
	}
	var commands []codec.Command
	room, froms := 0, 0
	add := func(name string) {
		it := codec.SymbolItem{Name: []byte(name)}
		n := len(name) + itemBytes
		if t := topics[topicKey{sub.Channel, name}]; t != nil && t.known && t.seq > 0 {
			it.HasFrom, it.Epoch, it.Seq = true, t.epoch, t.seq
			n += fromBytes
		}
		if len(commands) == 0 || n > room || commands[len(commands)-1].Symbols.Len() == itemsMax || froms == native.FromMax {
			commands = append(commands, blank)
			room, froms = bytesMax, 0
		}
		room -= n
		if it.HasFrom {
			froms++
		}
		commands[len(commands)-1].Symbols.Append(it)
	}
	// The symbols that a pattern found go first, by name: a pattern has no one
	// place to go on from.
	named := make(map[string]bool, len(sub.Symbols))
	for _, name := range sub.Symbols {
		named[name] = true
	}
	for key, t := range topics {
		if key.channel == sub.Channel && t.known && t.seq > 0 && !named[key.symbol] && sub.matches(key.symbol) {
			add(key.symbol)
		}
	}
	for _, name := range sub.Symbols {
		add(name)
	}
	return commands
}

// OnPing answers at once; it comes in the order of reading, so the gateway sees
// how far we are.
func (s *session) OnPing(c *gws.Conn, payload []byte) {
	s.heardAt.Store(int64(time.Since(s.began)))
	if s.closing.Load() {
		return
	}
	c.NetConn().SetWriteDeadline(time.Now().Add(writeTimeout))
	c.WritePong(payload)
}

func (s *session) OnPong(*gws.Conn, []byte) {
	s.heardAt.Store(int64(time.Since(s.began)))
}

// OnClose finds why the connection ended, if it was not us.
func (s *session) OnClose(_ *gws.Conn, err error) {
	if s.fault != nil || s.stop != nil {
		return
	}
	var closed *gws.CloseError
	switch {
	case s.leaving:
		s.fault = fmt.Errorf("gateway at %s is leaving", s.client.options.URL)
	case errors.As(err, &closed):
		s.fault = &CloseError{Code: closed.Code, Reason: string(closed.Reason)}
	case time.Since(s.began)-time.Duration(s.heardAt.Load()) >= s.client.options.SilenceMax:
		s.fault = fmt.Errorf("gateway at %s: nothing heard for %v", s.client.options.URL, s.client.options.SilenceMax)
	default:
		s.fault = fmt.Errorf("connection to gateway at %s lost: %w", s.client.options.URL, err)
	}
}

// OnMessage reads one frame and tells the handler of its rows.
func (s *session) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	received := time.Now()
	s.heardAt.Store(int64(received.Sub(s.began)))
	if s.closing.Load() {
		return
	}
	if err := s.frame(m, received.UnixNano()); err != nil {
		s.violation("", 0, err.Error())
		s.giveUp(&BadFrameError{URL: s.client.options.URL, Err: err}, codec.CloseProtocol)
	}
}

// giveUp ends the connection because of err.
func (s *session) giveUp(err error, r codec.CloseReason) {
	s.fault = err
	s.close(r.Code(), string(r))
}

// frame reads a frame. An error means that it cannot be read on.
func (s *session) frame(m *gws.Message, received int64) error {
	spelling := s.client.spelling
	if text := m.Opcode == gws.OpcodeText; text != spelling.Text() {
		return fmt.Errorf("a message of opcode %d in subprotocol %s", m.Opcode, spelling.Subprotocol())
	}
	f, err := spelling.OpenFrame(m.Bytes())
	if err != nil {
		return err
	}
	if s.frameNo++; f.No != s.frameNo {
		return fmt.Errorf("frame %d after frame %d", f.No, s.frameNo-1)
	}
	s.heard = true
	u := &s.update
	for f.Next(&u.Update) {
		u.ReceiveTime, u.Merged, u.Dropped = received, 0, 0
		if u.Type <= codec.EventSnapshot {
			s.tick(u)
		} else {
			s.event(&u.Event)
		}
		if s.stop != nil {
			s.close(codec.CloseNormal.Code(), "")
			return nil
		}
	}
	if err := f.Err(); err != nil {
		return err
	}
	s.read.Store(f.No)
	return nil
}

func (s *session) tick(u *Update) {
	t := s.topics[topicID{u.Channel, u.ID}]
	if t == nil {
		s.violation("", u.Channel, fmt.Sprintf("a %v row of id %d, which was not granted", u.Type, u.ID))
		return
	}
	t.take(u, func(what string) { s.violation(t.symbol, u.Channel, what) })
	s.stop = s.handler.Update(u)
}

// event follows what is no tick, and passes it on.
func (s *session) event(e *codec.Event) {
	switch e.Type {
	case codec.EventGranted:
		s.granted(e)
	case codec.EventUnsubscribed:
		s.unsubscribed(e)
	case codec.EventDrop:
		if t := s.topics[topicID{e.Channel, e.ID}]; t != nil {
			t.dropped += e.Count
		} else {
			s.violation(e.Symbol, e.Channel, "a drop of what was not granted")
		}
	case codec.EventState:
		if t := s.topics[topicID{e.Channel, e.ID}]; t != nil && e.State == codec.StateGap && t.goesOn {
			t.lost = true
		}
	case codec.EventBehind:
		if t := s.topics[topicID{e.Channel, e.ID}]; t != nil {
			t.behind = true
		}
	case codec.EventReset:
		for id, t := range s.topics {
			if id.id == e.ID && (e.Channel == 0 || id.channel == e.Channel) {
				t.reset(e.Epoch, func(what string) { s.violation(t.symbol, id.channel, what) })
			}
		}
	case codec.EventGoaway:
		// All clients of the node are told at once: each leaves at a time of
		// its own within the window.
		s.leaving = true
		s.leaveAt.Store(max(1, int64(time.Since(s.began)+rand.N(e.Window/2+1))))
	}
	if s.handler.Event != nil {
		s.handler.Event(e)
	}
}

func (s *session) granted(e *codec.Event) {
	if !codec.ValidSymbol(e.Symbol) {
		s.violation("", e.Channel, fmt.Sprintf("granted %.40q, which is no symbol", e.Symbol))
		return
	}
	_, filtered := s.client.desires(e.Channel, e.Symbol)
	key := topicKey{e.Channel, e.Symbol}
	t := s.client.topics[key]
	if t == nil {
		if len(s.client.topics) == topicsMax {
			s.violation(e.Symbol, e.Channel, fmt.Sprintf("more than %d symbols granted", topicsMax))
			return
		}
		t = &topic{symbol: e.Symbol}
		s.client.topics[key] = t
	}
	if old := s.topics[topicID{e.Channel, e.ID}]; old != nil && old != t {
		s.violation(e.Symbol, e.Channel, fmt.Sprintf("id %d was granted for %s before", e.ID, old.symbol))
	}
	t.filtered, t.goesOn = filtered, true
	t.granted(e.Epoch)
	s.topics[topicID{e.Channel, e.ID}] = t
}

// unsubscribed forgets what the gateway has stopped to send. If we want it again
// by now, it will be granted anew and begin with a snapshot.
func (s *session) unsubscribed(e *codec.Event) {
	s.mu.Lock()
	names, ok := s.ended[e.Ref]
	delete(s.ended, e.Ref)
	s.mu.Unlock()
	if !ok {
		s.violation("", e.Channel, fmt.Sprintf("unsubscribed by command %d, which was not sent", e.Ref))
		return
	}
	for id, t := range s.topics {
		if id.channel != e.Channel {
			continue
		}
		for it := range names.All() {
			if matches(string(it.Name), t.symbol) {
				delete(s.topics, id)
				delete(s.client.topics, topicKey{e.Channel, t.symbol})
				break
			}
		}
	}
}

func (s *session) violation(symbol string, ch codec.Channel, what string) {
	v := &Violation{Symbol: symbol, Channel: ch, What: what}
	if s.handler.Violation != nil {
		s.handler.Violation(v)
		return
	}
	s.client.options.Logger.Error("gateway broke the protocol", "symbol", symbol, "channel", ch, "what", what)
}
