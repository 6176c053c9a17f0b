package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/lxzan/gws"

	"tickgate/codec"
	"tickgate/codec/native"
)

// A RefusedError says that the gateway, or what answers at its URL, did not
// upgrade the connection.
type RefusedError struct {
	URL        string
	Status     int           // of HTTP; 101 if only the subprotocol was refused
	RetryAfter time.Duration // 0: it did not say
}

func (e *RefusedError) Error() string {
	what := fmt.Sprintf("gateway at %s answered HTTP %d %s", e.URL, e.Status, http.StatusText(e.Status))
	switch e.Status {
	case http.StatusSwitchingProtocols:
		return fmt.Sprintf("what answers at %s does not speak the subprotocol that we want: is it a tickgate, and of our version?", e.URL)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		what += ": it is full or leaving"
		if e.RetryAfter > 0 {
			what += fmt.Sprintf(", try again in %v", e.RetryAfter)
		}
	case http.StatusUnauthorized, http.StatusForbidden:
		what += ": it wants another token, or this page's origin is not allowed"
	case http.StatusNotFound:
		what += ": is its path right? A gateway's is /v1/ws"
	}
	return what
}

// A CloseError says that the gateway closed the connection, and why.
type CloseError struct {
	Code   uint16
	Reason string // a codec.CloseReason, if it is one of ours
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("gateway closed the connection with code %d", e.Code)
	}
	return fmt.Sprintf("gateway closed the connection: %s (code %d)", e.Reason, e.Code)
}

// A BadFrameError says that the gateway sent what is no frame.
type BadFrameError struct {
	URL string
	Err error
}

func (e *BadFrameError) Error() string {
	return fmt.Sprintf("frame from gateway at %s: %v", e.URL, e.Err)
}
func (e *BadFrameError) Unwrap() error { return e.Err }

// retryable tells whether another connection may fare better.
func retryable(err error) bool {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Status >= 500 || refused.Status == http.StatusTooManyRequests
	}
	var closed *CloseError
	if errors.As(err, &closed) {
		switch closed.Code {
		case codec.CloseProtocol.Code(), codec.CloseTooBig.Code():
			return false
		}
		return closed.Code < 4200 || closed.Code >= 4300
	}
	return true
}

func retryAfter(err error) time.Duration {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.RetryAfter
	}
	return 0
}

// dial makes a connection within Options.DialTimeout.
func (s *session) dial(ctx context.Context) (*gws.Conn, error) {
	o := &s.client.options
	ctx, cancel := context.WithTimeout(ctx, o.DialTimeout)
	defer cancel()
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("nothing listens at %s: is the gateway running there? (tickgate dev, or tickgate serve): %w", o.URL, err)
		}
		return nil, fmt.Errorf("connect to gateway at %s: %w", o.URL, err)
	}
	raw := conn
	stop := context.AfterFunc(ctx, func() { raw.Close() }) // gws and its deadline know no ctx
	defer stop()
	if u.Scheme == "wss" {
		config := o.TLS.Clone() // nil stays nil
		if config == nil {
			config = &tls.Config{}
		}
		if config.ServerName == "" {
			config.ServerName = u.Hostname()
		}
		t := tls.Client(conn, config)
		if err := t.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("TLS with gateway at %s: %w", o.URL, err)
		}
		conn = t
	}
	header := o.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Sec-WebSocket-Protocol", o.Subprotocol)
	bounded := &boundedConn{Conn: conn, left: handshakeBytesMax}
	ws, resp, err := gws.NewClientFromConn(s, &gws.ClientOption{
		Addr:               o.URL,
		RequestHeader:      header,
		HandshakeTimeout:   o.DialTimeout,
		ReadMaxPayloadSize: native.FrameBytesMax,
	}, bounded)
	if err == nil {
		bounded.left = -1
		if stop() {
			return ws, nil
		}
		return nil, context.Cause(ctx)
	}
	conn.Close()
	switch {
	case errors.Is(err, gws.ErrSubprotocolNegotiation):
		return nil, &RefusedError{URL: o.URL, Status: http.StatusSwitchingProtocols}
	case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		refused := &RefusedError{URL: o.URL, Status: resp.StatusCode}
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
			refused.RetryAfter = min(time.Duration(n)*time.Second, time.Hour)
		}
		return nil, refused
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("WebSocket handshake with gateway at %s: %w", o.URL, err)
}

// boundedConn bounds what is read during the handshake, which net/http does not
// for an answer's header.
type boundedConn struct {
	net.Conn
	left int // -1: no bound any more
}

func (c *boundedConn) Read(b []byte) (int, error) {
	if c.left < 0 {
		return c.Conn.Read(b)
	}
	if c.left == 0 {
		return 0, fmt.Errorf("more than %d bytes instead of a handshake: %w", handshakeBytesMax, io.ErrUnexpectedEOF)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}
