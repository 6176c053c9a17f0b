package gateway

import (
	"context"
	"errors"
	"sync"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/gateway/shard"
	"tickgate/gateway/socket"
)

const (
	// waitingBytesMax bounds the commands of a session that wait for the one
	// in work: what a client may cost that asks and does not read. Beyond it no
	// more is read from the client, besides what has been read.
	waitingBytesMax = 32 << 10

	// commandBytes is what a command costs besides its frame.
	commandBytes = 256

	// waitingTimeMax is how long reading may stop when they are too many. The
	// client's pongs stand behind its commands: without them the snapshot that
	// is in work may not go on, so the wait must end.
	waitingTimeMax = 5 * time.Second
)

// session is one client, from its upgrade to its end. The shard's half of it
// is shard.Session. No goroutine is parked for it while it says nothing.
type session struct {
	server  *Server
	socket  *socket.Socket
	dialect codec.Dialect
	shard   *shard.Session
	began   time.Time
	done    func() // of the limiter

	// Owned by who reads: frames that were no command, in the minute that
	// began at badSince.
	bad      int
	badSince time.Time

	mu      sync.Mutex
	courier *courier // nil while no command is in work
	ended   bool     // no courier begins
}

// courier takes commands to the shard, one at a time. It is not who reads, who
// must read pongs and acknowledgements on while a long snapshot goes out.
type courier struct {
	ctx    context.Context // of the session's end
	cancel context.CancelFunc
	gone   chan struct{} // closed when it has ended

	// Guarded by session.mu.
	waiting []command
	bytes   int
	late    *time.Timer // while reading stops for them
}

type command struct {
	codec.Command
	bytes int
}

// serve begins a session; done is called at its end.
func (s *Server) serve(so *socket.Socket, d codec.Dialect, done func()) {
	m, name := s.metrics, d.Subprotocol()
	m.opened.WithLabelValues(name).Inc()
	m.sessions.WithLabelValues(name).Inc()

	se := &session{server: s, socket: so, dialect: d, began: time.Now(), done: done}
	sh := s.shards[s.next.Add(1)%uint64(len(s.shards))]
	var err error
	if se.shard, err = sh.Attach(so, d, shard.SessionOptions{SymbolsMax: max(0, s.options.Limits.Symbols)}); err != nil {
		s.options.Log.Warn("no shard takes a client", "client", so.RemoteAddr(), "error", err)
		so.Close(codec.CloseOverload)
	} else {
		se.shard.Tell(codec.Event{Type: codec.EventWelcome, Node: s.options.Node, Version: s.options.Version})
		s.mu.Lock()
		s.sessions[se] = struct{}{}
		late := s.ended
		s.mu.Unlock()
		if late { // the server began to end after this client had been let in
			so.Close(codec.CloseDraining)
		}
	}
	so.Serve(se.take, se.again, se.end)
}

// again is called when the client has read what it was sent.
func (se *session) again() {
	if se.shard != nil {
		se.shard.Retry()
	}
}

// end is called when the connection has ended.
func (se *session) end(reason codec.CloseReason) {
	s, so := se.server, se.socket
	se.mu.Lock()
	se.ended = true
	c := se.courier
	se.mu.Unlock()
	if c != nil {
		c.cancel()
		<-c.gone
	}
	if se.shard != nil {
		se.shard.Detach(reason)
	}
	s.mu.Lock()
	delete(s.sessions, se)
	s.mu.Unlock()

	m := s.metrics
	m.sessions.WithLabelValues(se.dialect.Subprotocol()).Dec()
	m.closed.WithLabelValues(string(reason)).Inc()
	st := so.Stats()
	s.options.Log.Debug("client ended", "client", so.RemoteAddr(), "reason", reason, "after", time.Since(se.began),
		"frames", st.Frames, "bytes", st.Bytes, "unread", st.Unread)
	se.done()
}

// close begins to close the session; end follows.
func (se *session) close(reason codec.CloseReason) { se.socket.Close(reason) }

// take takes one message of the client.
func (se *session) take(text bool, b []byte) codec.CloseReason {
	m := se.server.metrics
	var c codec.Command
	err := se.decode(text, b, &c)
	if err != nil {
		var no *codec.Error
		if !errors.As(err, &no) {
			no = &codec.Error{Code: native.CodeBadFrame, What: err.Error()}
		}
		m.badCommands.WithLabelValues(no.Code).Inc()
		if se.countBad() {
			return codec.CloseBadCommand
		}
		se.shard.Tell(codec.Event{Type: codec.EventError, Ref: c.Ref, Code: no.Code, Why: no.What, Where: no.Where, Want: no.Want})
		return ""
	}
	m.commands.WithLabelValues(c.Op.String()).Inc()
	if c.Op == codec.OpAck {
		se.socket.Acked(c.Frame)
		return ""
	}
	se.enqueue(command{c, len(b) + commandBytes})
	return ""
}

// enqueue gives a command to the courier, and has reading stop while too many
// wait.
func (se *session) enqueue(cmd command) {
	se.mu.Lock()
	defer se.mu.Unlock()
	if se.ended {
		return
	}
	c := se.courier
	if c == nil {
		c = &courier{gone: make(chan struct{})}
		c.ctx, c.cancel = context.WithCancel(context.Background())
		se.courier = c
		go se.carry(c) // end waits for it
	}
	c.waiting = append(c.waiting, cmd)
	c.bytes += cmd.bytes
	if c.bytes > waitingBytesMax && c.late == nil && len(c.waiting) > 1 {
		se.socket.Pause()
		c.late = time.AfterFunc(waitingTimeMax, func() { se.socket.Close(codec.CloseTooFast) })
	}
}

// carry is the courier.
func (se *session) carry(c *courier) {
	defer close(c.gone)
	defer c.cancel()
	for {
		se.mu.Lock()
		if c.late != nil && c.bytes <= waitingBytesMax {
			c.late.Stop()
			c.late = nil
			se.socket.Resume()
		}
		if len(c.waiting) == 0 {
			se.courier = nil
			se.mu.Unlock()
			return
		}
		cmd := c.waiting[0]
		c.waiting[0] = command{}
		c.waiting = c.waiting[1:]
		c.bytes -= cmd.bytes
		se.mu.Unlock()
		if err := se.shard.Do(c.ctx, &cmd.Command); err != nil {
			se.socket.Close(codec.CloseInternal) // the shard has ended, or this session has
		}
	}
}

func (se *session) decode(text bool, b []byte, c *codec.Command) error {
	if text != se.dialect.Text() {
		kind := map[bool]string{true: "text", false: "binary"}
		return &codec.Error{Code: native.CodeBadFrame, What: "a " + kind[text] + " frame",
			Want: kind[!text] + " frames, as " + se.dialect.Subprotocol() + " has them"}
	}
	return se.dialect.DecodeCommand(b, c)
}

// countBad counts a frame that was no command, and tells whether it was one
// too many.
func (se *session) countBad() bool {
	if now := time.Now(); now.Sub(se.badSince) > time.Minute {
		se.bad, se.badSince = 0, now
	}
	se.bad++
	most := se.server.options.Limits.BadCommands
	return most != Off && se.bad > most
}
