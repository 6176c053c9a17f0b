package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
)

// Update is a tick or a snapshot of one symbol on one channel.
type Update struct {
	native.Update // Epoch is set in every update

	Symbol      string
	ReceiveTime int64 // Unix ns

	// Merged is how many ticks of the channel, since the update before, this
	// one stands for besides its own; 0 for the first one of a symbol.
	Merged uint64
	// Dropped is how many trades were lost since the update before.
	Dropped uint64
	// Last is the symbol's last price: that of the update, or the newest known
	// if it has none.
	Last codec.Decimal
}

// Snapshot tells a state that a subscription begins with from a tick.
func (u *Update) Snapshot() bool { return u.Type == codec.EventSnapshot }

// Age is receive time minus ingest time; ok is false if there is none. A
// negative age is a clock that is wrong.
func (u *Update) Age() (age time.Duration, ok bool) {
	return time.Duration(u.ReceiveTime - u.IngestTime), u.IngestTime != 0
}

// EventAge is receive time minus the venue's time; ok is false if it said none.
func (u *Update) EventAge() (age time.Duration, ok bool) {
	return time.Duration(u.ReceiveTime - u.EventTime), u.EventTime != 0
}

// Handler is what a client tells. Its functions are called one at a time from
// the goroutine of [Client.Run]; what they are given is theirs until they
// return. While one runs nothing is read, which is how a gateway learns that
// this client is slow.
type Handler struct {
	// Update is called for each tick and snapshot. An error ends Run, which
	// returns it. Required.
	Update func(*Update) error
	// Event is called for everything else that a gateway says, if set.
	Event func(*codec.Event)
	// Violation is called when the gateway breaks a promise, if set; otherwise
	// it is logged.
	Violation func(*Violation)
	// Connected and Disconnected are called, if set, as connections come and
	// go; the second with why, and only if another will be tried.
	Connected    func()
	Disconnected func(error)
}

// A Violation is a promise of the protocol that the gateway broke.
type Violation struct {
	Symbol  string // may be empty
	Channel codec.Channel
	What    string
}

func (v *Violation) Error() string {
	if v.Symbol == "" {
		return "gateway broke the protocol: " + v.What
	}
	return fmt.Sprintf("gateway broke the protocol: %s on %v: %s", v.Symbol, v.Channel, v.What)
}

// Client follows symbols. Its zero value is of no use: call [New].
type Client struct {
	options  Options
	spelling native.Spelling

	// Owned by Run.
	topics  map[topicKey]*topic // what is known of each symbol, kept across connections
	running bool

	// Guarded by mu.
	mu            sync.Mutex
	subscriptions []Subscription // what is desired
	pending       []change       // what the gateway has not been told
	wake          chan struct{}  // has one item if pending may have any
}

// change is a command to send.
type change struct {
	op           codec.Op
	subscription Subscription
}

// New returns a client that is not connected yet.
func New(o Options) (*Client, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("client options: %w", err)
	}
	spelling, _ := spellingOf(o.Subprotocol)
	return &Client{
		options:  o,
		spelling: spelling,
		topics:   make(map[topicKey]*topic),
		wake:     make(chan struct{}, 1),
	}, nil
}

// Subscribe adds to what is followed, now and after every reconnect. A symbol
// named before on the same channel is followed as the new subscription says.
func (c *Client) Subscribe(s Subscription) error {
	if err := s.validate(); err != nil {
		return err
	}
	s.Symbols = slices.Clone(s.Symbols)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked(s.Channel, s.Symbols)
	c.subscriptions = append(c.subscriptions, s)
	c.changeLocked(change{codec.OpSubscribe, s})
	return nil
}

// Unsubscribe takes names and patterns back, written as they were subscribed.
func (c *Client) Unsubscribe(ch codec.Channel, symbols ...string) error {
	s := Subscription{Channel: ch, Symbols: slices.Clone(symbols)}
	if err := s.validate(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked(ch, symbols)
	c.changeLocked(change{codec.OpUnsubscribe, s})
	return nil
}

// forgetLocked removes names from what is desired.
func (c *Client) forgetLocked(ch codec.Channel, names []string) {
	gone := make(map[string]bool, len(names))
	for _, n := range names {
		gone[n] = true
	}
	c.subscriptions = slices.DeleteFunc(c.subscriptions, func(s Subscription) bool { return s.Channel == ch && len(s.Symbols) == 0 })
	for i := range c.subscriptions {
		if s := &c.subscriptions[i]; s.Channel == ch {
			s.Symbols = slices.DeleteFunc(slices.Clone(s.Symbols), func(n string) bool { return gone[n] })
		}
	}
	c.subscriptions = slices.DeleteFunc(c.subscriptions, func(s Subscription) bool { return len(s.Symbols) == 0 })
}

func (c *Client) changeLocked(ch change) {
	c.pending = append(c.pending, ch)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// desires tells whether a subscription stands for the symbol, and whether one
// that does so filters.
func (c *Client) desires(ch codec.Channel, symbol string) (ok, filtered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.subscriptions {
		if s := &c.subscriptions[i]; s.Channel == ch && s.matches(symbol) {
			ok = true
			filtered = filtered || s.MinSize.IsSet()
		}
	}
	return ok, filtered
}

// Run follows until ctx is done, and returns nil then. It connects, and
// connects again when a connection is lost, going on where each symbol was. It
// returns an error if the first connection fails (see Options.RetryFirst), if
// the gateway says that trying again is of no use, or if the handler wants to
// end.
func (c *Client) Run(ctx context.Context, h Handler) error {
	if h.Update == nil {
		return errors.New("client: a handler without Update")
	}
	if c.running {
		return errors.New("client: Run was called before")
	}
	c.running = true
	backoff := c.options.BackoffMin
	first := true
	for {
		s := &session{client: c, handler: &h, topics: make(map[topicID]*topic), ended: make(map[uint64]*codec.SymbolList)}
		err := s.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if s.stop != nil {
			return s.stop
		}
		if s.heard {
			first, backoff = false, c.options.BackoffMin
		}
		if first && !c.options.RetryFirst || !retryable(err) {
			return err
		}
		wait := backoff/2 + rand.N(backoff/2+1)
		if at := retryAfter(err); at > wait {
			wait = min(at, retryAfterMax)
		}
		c.options.Logger.Warn("gateway lost, trying again", "url", c.options.URL, "error", err, "wait", wait)
		if h.Disconnected != nil {
			h.Disconnected(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		backoff = min(2*backoff, c.options.BackoffMax)
	}
}
