package socket

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/lxzan/gws"

	"tickgate/codec"
)

// burstSeconds of a rate may come at once: a client that connects subscribes
// to all it wants.
const burstSeconds = 5

// Off, in an [Options] field that says so, is no limit.
const Off = -1

// Options configure sockets. A zero field means its default.
type Options struct {
	// StallMax is how long a client may take nothing before it is closed.
	// Until then it is sent nothing and owed no pong.
	//
	// Defaults to 30s; must be within [1s, 10m].
	StallMax time.Duration

	// DeadMax is how long sent bytes may stay unacknowledged, with no sign of
	// the peer's TCP, before the connection counts as dead.
	//
	// Defaults to 15s; must be within [1s, 10m].
	DeadMax time.Duration

	// MessageBytesMax bounds a message, over all of its fragments.
	//
	// Defaults to [codec.CommandBytesMax], and must not exceed it.
	MessageBytesMax int

	// MessageTimeMax is how long a message may be on its way from its first
	// byte to its last.
	//
	// Defaults to 5s; must be within [100ms, 1m].
	MessageTimeMax time.Duration

	// What a client may send in a second, and at once five times that: frames
	// (control frames count, pongs that we asked for do not), bytes on the
	// wire, and reads, which cost us even if they bring one byte.
	//
	// Default to 200, 256 KiB and 2,000; Off is no limit.
	MessagesPerSecond int
	BytesPerSecond    int
	ReadsPerSecond    int

	// HandshakeTimeout bounds the writing of the answer to an upgrade.
	//
	// Defaults to 5s.
	HandshakeTimeout time.Duration
}

func (o Options) withDefaults() Options {
	o.StallMax = cmp.Or(o.StallMax, 30*time.Second)
	o.DeadMax = cmp.Or(o.DeadMax, deadMax)
	o.MessageBytesMax = cmp.Or(o.MessageBytesMax, codec.CommandBytesMax)
	o.MessageTimeMax = cmp.Or(o.MessageTimeMax, 5*time.Second)
	o.MessagesPerSecond = cmp.Or(o.MessagesPerSecond, 200)
	o.BytesPerSecond = cmp.Or(o.BytesPerSecond, 256<<10)
	o.ReadsPerSecond = cmp.Or(o.ReadsPerSecond, 2000)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 5*time.Second)
	return o
}

func (o Options) validate() error {
	var errs []error
	within := func(name string, v, low, high time.Duration) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("%s %v: want %v to %v", name, v, low, high))
		}
	}
	within("StallMax", o.StallMax, time.Second, 10*time.Minute)
	within("DeadMax", o.DeadMax, time.Second, 10*time.Minute)
	within("MessageTimeMax", o.MessageTimeMax, 100*time.Millisecond, time.Minute)
	within("HandshakeTimeout", o.HandshakeTimeout, 100*time.Millisecond, time.Minute)
	if o.MessageBytesMax < controlBytesMax || o.MessageBytesMax > codec.CommandBytesMax {
		errs = append(errs, fmt.Errorf("MessageBytesMax %d: want %d to %d",
			o.MessageBytesMax, controlBytesMax, codec.CommandBytesMax))
	}
	return errors.Join(errs...)
}

// Upgrader turns HTTP requests into sockets. It is safe for concurrent use.
type Upgrader struct {
	options   Options
	protocols map[string]*gws.Upgrader // by subprotocol; "" for none
	readers   *readers
}

// NewUpgrader makes an upgrader for clients that speak one of the subprotocols
// or offer none.
func NewUpgrader(o Options, subprotocols ...string) (*Upgrader, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	u := &Upgrader{options: o, protocols: map[string]*gws.Upgrader{}}
	option := func(subprotocols ...string) *gws.ServerOption {
		return &gws.ServerOption{
			ReadMaxPayloadSize: o.MessageBytesMax,
			CheckUtf8Enabled:   true,
			HandshakeTimeout:   o.HandshakeTimeout,
			NewSession:         func() gws.SessionStorage { return nil }, // a map that nobody uses
			SubProtocols:       subprotocols,
		}
	}
	u.protocols[""] = gws.NewUpgrader(events{}, option())
	for _, p := range subprotocols {
		u.protocols[p] = gws.NewUpgrader(events{}, option(p))
	}
	var err error
	if u.readers, err = newReaders(option()); err != nil {
		return nil, err
	}
	return u, nil
}

// Run reads for all sockets until ctx is done, when all of them must have ended:
// without it they are written to, and never read. Every goroutine that it starts
// has ended when it returns.
func (u *Upgrader) Run(ctx context.Context) { u.readers.run(ctx) }

// A RequestError is why a request cannot be upgraded, as an HTTP answer.
type RequestError struct {
	Status int
	Header http.Header // to be set; may be nil
	Text   string      // what is wrong and what would be right
}

func (e *RequestError) Error() string { return e.Text }

// Subprotocol checks that r asks for a WebSocket and picks the first
// subprotocol of the client's list that u knows; "" if it offers none. An
// error is a [*RequestError].
func (u *Upgrader) Subprotocol(r *http.Request) (string, error) {
	upgrade := http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}}
	switch {
	case r.Method != http.MethodGet:
		return "", &RequestError{http.StatusMethodNotAllowed, http.Header{"Allow": {http.MethodGet}},
			"a WebSocket begins with GET"}
	case !r.ProtoAtLeast(1, 1):
		return "", &RequestError{http.StatusHTTPVersionNotSupported, nil, "a WebSocket needs HTTP/1.1"}
	case !hasToken(r.Header, "Upgrade", "websocket") || !hasToken(r.Header, "Connection", "upgrade"):
		return "", &RequestError{http.StatusUpgradeRequired, upgrade,
			"this is a WebSocket: send Upgrade: websocket and Connection: Upgrade"}
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		upgrade.Set("Sec-WebSocket-Version", "13")
		return "", &RequestError{http.StatusUpgradeRequired, upgrade, "Sec-WebSocket-Version must be 13"}
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return "", &RequestError{http.StatusBadRequest, nil, "a WebSocket request has no body"}
	}
	if key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key")); err != nil || len(key) != 16 {
		return "", &RequestError{http.StatusBadRequest, nil, "Sec-WebSocket-Key must be 16 bytes in base64"}
	}
	offered := false
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p == "" {
				continue
			}
			if offered = true; u.protocols[p] != nil {
				return p, nil
			}
		}
	}
	if offered {
		known := make([]string, 0, len(u.protocols))
		for p := range u.protocols {
			if p != "" {
				known = append(known, p)
			}
		}
		return "", &RequestError{http.StatusBadRequest, nil,
			"none of the offered subprotocols is spoken here; want one of " + strings.Join(sorted(known), ", ") + ", or none"}
	}
	return "", nil
}

func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// Upgrade answers r, which Subprotocol has passed with that answer, and takes
// the connection over; from then on w is of no use. The connection must come
// from a [Listener]. The socket must be served.
func (u *Upgrader) Upgrade(w http.ResponseWriter, r *http.Request, subprotocol string, text bool) (*Socket, error) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return nil, fmt.Errorf("socket: %T cannot be hijacked", w)
	}
	conn, buffered, err := hijacker.Hijack()
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	s, err := u.take(conn, buffered.Reader, r, subprotocol, text)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

func (u *Upgrader) take(conn net.Conn, buffered *bufio.Reader, r *http.Request, subprotocol string, text bool) (*Socket, error) {
	s := &Socket{options: &u.options, readers: u.readers, out: conn, opcode: opBinary}
	if text {
		s.opcode = opText
	}
	switch c := conn.(type) {
	case *wire:
		s.wire = c
	case *tls.Conn:
		s.tls = c
		s.wire, _ = c.NetConn().(*wire)
	}
	if s.wire == nil {
		return nil, fmt.Errorf("socket: %T does not come from a socket.Listener", conn)
	}
	s.remote, _ = netip.ParseAddrPort(conn.RemoteAddr().String())
	s.guard = guard{
		in: conn, s: s,
		scan:   scanner{messageMax: u.options.MessageBytesMax},
		frames: newBucket(u.options.MessagesPerSecond, u.options.MessagesPerSecond*burstSeconds),
	}
	if n := buffered.Buffered(); n > 0 {
		early, _ := buffered.Peek(n) // has them
		s.guard.early = append([]byte(nil), early...)
	}
	// gws looks at the first line of each header only.
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	if subprotocol != "" {
		r.Header.Set("Sec-WebSocket-Protocol", subprotocol)
	}
	// What gws makes of it is not kept: a desk reads.
	if _, err := u.protocols[subprotocol].UpgradeFromConn(conn, bufio.NewReaderSize(conn, 16), r); err != nil {
		return nil, fmt.Errorf("socket: upgrade: %w", err)
	}
	s.wire.socket = s
	if err := s.wire.nonblocking(&u.options, s.tls != nil); err != nil {
		return nil, err
	}
	s.wire.release()
	return s, nil
}
