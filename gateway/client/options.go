package client

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
)

// Options configure a [Client]. A zero field means its default.
type Options struct {
	// URL is the gateway's WebSocket, "ws://127.0.0.1:8080/v1/ws". Required.
	URL string

	// Subprotocol is the spelling: tickgate.v1.msgpack or tickgate.v1.json.
	//
	// Defaults to tickgate.v1.msgpack.
	Subprotocol string

	// TLS is for a wss URL. Defaults to the system's roots.
	TLS *tls.Config

	// Header is sent with the handshake, such as Authorization.
	Header http.Header

	// Logger is told of connections made and lost. Defaults to none.
	Logger *slog.Logger

	// AckEvery is how often the frames read are acknowledged, if there were
	// any, so that a gateway knows what lies unread in our buffers. Negative:
	// never. The protocol wants it every 250 ms; timers are late.
	//
	// Defaults to 200ms; at most 250ms.
	AckEvery time.Duration

	// RetryFirst makes Run try again if the first connection fails. Otherwise
	// only one that has worked is made anew.
	RetryFirst bool

	// BackoffMin and BackoffMax bound the wait before another try. It doubles
	// from one to the other, each time by chance between half and all of it.
	//
	// Default to 250ms and 15s; at least 10ms.
	BackoffMin, BackoffMax time.Duration

	// DialTimeout bounds a connection's making: TCP, TLS and HTTP together.
	//
	// Defaults to 10s.
	DialTimeout time.Duration

	// SilenceMax is how long a gateway may say nothing, not even a pong, before
	// its connection is given up. It is pinged after a third of that.
	//
	// Defaults to 30s; at least 100ms.
	SilenceMax time.Duration
}

const (
	ackEveryMax   = 250 * time.Millisecond
	backoffFloor  = 10 * time.Millisecond
	silenceFloor  = 100 * time.Millisecond
	retryAfterMax = time.Minute // a Retry-After beyond it is shortened
	writeTimeout  = 10 * time.Second
	closeTimeout  = time.Second // for the close frame

	// handshakeBytesMax bounds what a peer may answer before it is a gateway.
	handshakeBytesMax = 64 << 10
)

func (o Options) withDefaults() Options {
	o.Subprotocol = cmp.Or(o.Subprotocol, native.SubprotocolMsgPack)
	o.AckEvery = cmp.Or(o.AckEvery, 200*time.Millisecond)
	o.BackoffMin = cmp.Or(o.BackoffMin, 250*time.Millisecond)
	o.BackoffMax = cmp.Or(o.BackoffMax, max(o.BackoffMin, 15*time.Second))
	o.DialTimeout = cmp.Or(o.DialTimeout, 10*time.Second)
	o.SilenceMax = cmp.Or(o.SilenceMax, 30*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if u, err := url.Parse(o.URL); err != nil {
		fault("URL: %w", err)
	} else if (u.Scheme != "ws" && u.Scheme != "wss") || u.Host == "" {
		fault("URL %q: want ws://HOST:PORT/v1/ws or wss://...", o.URL)
	}
	if _, ok := spellingOf(o.Subprotocol); !ok {
		fault("Subprotocol %q: want %s or %s", o.Subprotocol, native.SubprotocolMsgPack, native.SubprotocolJSON)
	}
	if o.AckEvery > ackEveryMax {
		fault("AckEvery %v: want at most %v", o.AckEvery, ackEveryMax)
	}
	if o.BackoffMin < backoffFloor || o.BackoffMax < o.BackoffMin {
		fault("BackoffMin %v, BackoffMax %v: want at least %v, the second not below the first", o.BackoffMin, o.BackoffMax, backoffFloor)
	}
	if o.DialTimeout < 0 {
		fault("DialTimeout %v: want more than 0", o.DialTimeout)
	}
	if o.SilenceMax < silenceFloor {
		fault("SilenceMax %v: want at least %v", o.SilenceMax, silenceFloor)
	}
	return errors.Join(faults...)
}

func spellingOf(subprotocol string) (native.Spelling, bool) {
	for _, s := range []native.Spelling{native.MsgPack, native.JSON} {
		if s.Subprotocol() == subprotocol {
			return s, true
		}
	}
	return nil, false
}

// Subscription is what to follow.
type Subscription struct {
	Channel codec.Channel
	Symbols []string // names, patterns ("BTC-*"), "*"
	Every   time.Duration
	View    codec.View // 0: the channel's default

	MinSize    codec.Decimal // of trades
	Deadband   codec.Decimal
	SilenceMax time.Duration
}

func (s *Subscription) validate() error {
	if _, ok := codec.ParseChannel(s.Channel.String()); !ok {
		return fmt.Errorf("subscription's channel %d: want ticker, quotes or trades", s.Channel)
	}
	if len(s.Symbols) == 0 {
		return errors.New("subscription without symbols")
	}
	for _, name := range s.Symbols {
		plain := name
		if n := len(name); n > 1 && name[n-1] == '*' {
			plain = name[:n-1]
		}
		if name != "*" && !codec.ValidSymbol(plain) {
			return fmt.Errorf("symbol %q: want A to Z, 0 to 9, '.', '_' and '-', at most %d of them; a pattern ends in '*'", name, codec.SymbolBytesMax)
		}
	}
	return nil
}

// matches tells whether a name of s stands for the symbol.
func (s *Subscription) matches(symbol string) bool {
	for _, name := range s.Symbols {
		if matches(name, symbol) {
			return true
		}
	}
	return false
}

func matches(name, symbol string) bool {
	if n := len(name); n > 0 && name[n-1] == '*' {
		return len(symbol) >= n-1 && symbol[:n-1] == name[:n-1]
	}
	return name == symbol
}
