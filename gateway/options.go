package gateway

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/gateway/board"
	"tickgate/gateway/page"
)

// Options configure a [Server]. A zero field means its default.
type Options struct {
	// Board is what the server serves. Required.
	Board *board.Board

	// Listen is the address of the page and the WebSocket; port 0 takes any.
	// Listener, if set, is used instead, and must be TCP.
	//
	// Defaults to 127.0.0.1:8080.
	Listen   string
	Listener net.Listener

	// Admin is the address of /metrics, /healthz and /readyz: nothing a client
	// should reach. "off" is none.
	//
	// Defaults to 127.0.0.1:8081.
	Admin string

	// TLS serves Listen over TLS; see [socket.TLSConfig] and
	// [socket.LoadCertificates]. Nil is plain.
	TLS *tls.Config

	// Shards is how many goroutines share the sessions.
	//
	// Defaults to GOMAXPROCS.
	Shards int

	// Dialects are the protocols by subprotocol. A client that offers none gets
	// the first text one.
	//
	// Defaults to protocol v1 in MessagePack and JSON.
	Dialects []codec.Dialect

	// Limits bound what clients may cost.
	Limits Limits

	// StallMax is how long a client may take nothing before it is closed.
	//
	// Defaults to 30s; must be within [1s, 10m].
	StallMax time.Duration

	// DrainWindow is the time over which clients are sent away once Run's
	// context is done, so that they do not all reconnect in the same second. 0
	// sends them away at once.
	DrainWindow time.Duration

	// Page is served at "/".
	//
	// Defaults to the built-in page.
	Page http.Handler

	// Pprof serves /debug/pprof on Admin.
	Pprof bool

	// Node and Version are told to clients.
	//
	// Default to the host's name and "dev".
	Node, Version string

	// Log gets what an operator should know.
	//
	// Defaults to nothing.
	Log *slog.Logger

	// Registerer gets the metrics, Gatherer is what /metrics shows.
	//
	// Default to a registry of the server's own.
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer
}

// AdminOff, as Options.Admin, is no admin listener.
const AdminOff = "off"

// drainWindowMax bounds Options.DrainWindow: whoever stops us will not wait
// for longer.
const drainWindowMax = 10 * time.Minute

func (o Options) withDefaults() Options {
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:8080")
	o.Admin = cmp.Or(o.Admin, "127.0.0.1:8081")
	o.Shards = cmp.Or(o.Shards, runtime.GOMAXPROCS(0))
	o.StallMax = cmp.Or(o.StallMax, 30*time.Second)
	o.Version = cmp.Or(o.Version, "dev")
	if o.Node == "" {
		if o.Node, _ = os.Hostname(); o.Node == "" {
			o.Node = "gateway"
		}
	}
	if o.Dialects == nil {
		o.Dialects = []codec.Dialect{native.MsgPack, native.JSON}
	}
	if o.Page == nil {
		o.Page = page.Handler()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		r := prometheus.NewRegistry()
		o.Registerer = r
		if o.Gatherer == nil {
			o.Gatherer = r
		}
	}
	if o.Gatherer == nil {
		o.Gatherer = prometheus.DefaultGatherer
	}
	o.Limits = o.Limits.withDefaults()
	return o
}

// validate tells all faults but those of sockets and shards, which tell their
// own.
func (o Options) validate() error {
	var errs []error
	if o.Board == nil {
		errs = append(errs, errors.New("Board is nil"))
	}
	if o.Shards < 1 || o.Shards > 64 {
		errs = append(errs, fmt.Errorf("Shards %d: want 1 to 64", o.Shards))
	}
	if o.DrainWindow < 0 || o.DrainWindow > drainWindowMax {
		errs = append(errs, fmt.Errorf("DrainWindow %v: want 0 to %v", o.DrainWindow, drainWindowMax))
	}
	if o.textDialect() == nil {
		errs = append(errs, errors.New("Dialects has no text dialect, which clients that offer no subprotocol get"))
	}
	return errors.Join(append(errs, o.Limits.validate())...)
}

func (o Options) textDialect() codec.Dialect {
	for _, d := range o.Dialects {
		if d.Text() {
			return d
		}
	}
	return nil
}

// A ListenError is an address that could not be bound. [errors.Is] with
// [syscall.EADDRINUSE] tells a taken port.
type ListenError struct {
	Option string // "Listen" or "Admin"
	Addr   string
	Err    error
}

func (e *ListenError) Error() string {
	return fmt.Sprintf("gateway: cannot listen on %s (%s): %v", e.Addr, e.Option, e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }
