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
	// in work: what a client may cost that asks and does not read.
	waitingBytesMax = 32 << 10

	// commandBytes is what a command costs besides its frame.
	commandBytes = 256

	// waitingTimeMax is how long reading may stop when they are too many. The
	// client's pongs stand behind its commands: without them the snapshot that
	// is in work may not go on, so the wait must end.
	waitingTimeMax = 5 * time.Second
)

// session is one client, from its upgrade to its end. The shard's half of it
// is shard.Session.
type session struct {
	server  *Server
	socket  *socket.Socket
	dialect codec.Dialect
	shard   *shard.Session

	// Owned by the reader: frames that were no command, in the minute that
	// began at badSince.
	bad      int
	badSince time.Time

	// The courier takes commands to the shard, one at a time. It is not the
	// reader, which must read pongs and acknowledgements on while a long
	// snapshot goes out, and it lives only while a command is in work.
	courier sync.WaitGroup
	freed   chan struct{} // a command was taken to the shard; one signal is kept

	mu           sync.Mutex
	working      bool // the courier lives
	waiting      []command
	waitingBytes int
}

type command struct {
	codec.Command
	bytes int
}

// serve runs a session to its end.
func (s *Server) serve(so *socket.Socket, d codec.Dialect) {
	m, name := s.metrics, d.Subprotocol()
	m.opened.WithLabelValues(name).Inc()
	m.sessions.WithLabelValues(name).Inc()
	began := time.Now()

	se := &session{server: s, socket: so, dialect: d, freed: make(chan struct{}, 1)}
	sh := s.shards[s.next.Add(1)%uint64(len(s.shards))]
	var err error
	if se.shard, err = sh.Attach(so, d, shard.SessionOptions{SymbolsMax: max(0, s.options.Limits.Symbols)}); err != nil {
		s.options.Log.Warn("no shard takes a client", "client", so.RemoteAddr(), "err", err)
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
	ctx, cancel := context.WithCancel(context.Background())
	reason := so.Serve(func(text bool, b []byte) codec.CloseReason { return se.take(ctx, text, b) })
	cancel()
	se.courier.Wait()
	if se.shard != nil {
		se.shard.Detach(reason)
	}
	s.mu.Lock()
	delete(s.sessions, se)
	s.mu.Unlock()

	m.sessions.WithLabelValues(name).Dec()
	m.closed.WithLabelValues(string(reason)).Inc()
	st := so.Stats()
	s.options.Log.Debug("client ended", "client", so.RemoteAddr(), "reason", reason, "after", time.Since(began),
		"frames", st.Frames, "bytes", st.Bytes, "unread", st.Unread)
}

// close begins to close the session; its reader ends it.
func (se *session) close(reason codec.CloseReason) { se.socket.Close(reason) }

// take takes one message of the client.
func (se *session) take(ctx context.Context, text bool, b []byte) codec.CloseReason {
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
	return se.enqueue(ctx, command{c, len(b) + commandBytes})
}

// enqueue gives a command to the courier, and waits while too many wait.
func (se *session) enqueue(ctx context.Context, c command) codec.CloseReason {
	var late <-chan time.Time
	for {
		se.mu.Lock()
		if len(se.waiting) == 0 || se.waitingBytes+c.bytes <= waitingBytesMax {
			se.waiting = append(se.waiting, c)
			se.waitingBytes += c.bytes
			if !se.working {
				se.working = true
				se.courier.Go(func() { se.carry(ctx) })
			}
			se.mu.Unlock()
			return ""
		}
		se.mu.Unlock()
		if late == nil {
			timer := time.NewTimer(waitingTimeMax)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-se.freed:
		case <-late:
			return codec.CloseTooFast
		case <-se.socket.Done():
			return ""
		}
	}
}

// carry is the courier.
func (se *session) carry(ctx context.Context) {
	for {
		se.mu.Lock()
		if len(se.waiting) == 0 {
			se.waiting, se.working = nil, false
			se.mu.Unlock()
			return
		}
		c := se.waiting[0]
		se.waiting[0] = command{}
		se.waiting = se.waiting[1:]
		se.waitingBytes -= c.bytes
		se.mu.Unlock()
		select {
		case se.freed <- struct{}{}:
		default:
		}
		if err := se.shard.Do(ctx, &c.Command); err != nil {
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
