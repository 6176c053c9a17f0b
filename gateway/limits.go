package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tickgate/codec"
)

// Off, in a field of [Limits], is no limit.
const Off = -1

const (
	// descriptorsKept of the process's file descriptors are not for clients:
	// listeners, brokers, files, and connections that are not upgraded yet.
	descriptorsKept = 1024

	// pendingMax bounds connections that are not upgraded: in a handshake,
	// asking for the page, or up to no good.
	pendingMax = descriptorsKept / 2

	// pendingPerAddress bounds those of one address beside its sessions.
	pendingPerAddress = 64

	// rateBurst is how many seconds' worth of upgrades may come at once.
	rateBurst = 2

	// retryFull and retryRate are told to refused clients as Retry-After: a
	// full node stays full for a while, a busy one does not.
	retryFull = 15 * time.Second
	retryRate = 2 * time.Second
)

// Limits bound what clients may cost. A zero field means its default, [Off]
// means no limit. Every connection and upgrade that is refused is counted in
// tickgate_gateway_refused_total{limit}, every client that is closed in
// tickgate_gateway_sessions_closed_total{reason}; a symbol that is refused is
// told to its client alone.
type Limits struct {
	// Connections bounds the sessions of this node: each costs memory, a file
	// descriptor and a share of every flush. Beyond it upgrades get 503.
	//
	// Defaults to 16,384, or to what the file descriptors allow.
	Connections int

	// ConnectionsPerAddress bounds the sessions of one IPv4 address or IPv6
	// /64: one client must not take everybody's place. Beyond it upgrades get
	// 429. Loopback is not counted unless CountLoopback is set: behind a proxy
	// on this host, or under a load generator, all clients have that address.
	//
	// Defaults to 512.
	ConnectionsPerAddress int
	CountLoopback         bool

	// UpgradesPerSecond bounds how fast clients come in, with a burst of twice
	// that: a storm of handshakes must not starve those inside. Beyond it
	// upgrades get 503.
	//
	// Defaults to 2,000.
	UpgradesPerSecond int

	// MessagesPerSecond, BytesPerSecond and ReadsPerSecond bound what one
	// client sends, control frames included, with a burst of five seconds'
	// worth. Beyond them it is closed as too-fast.
	//
	// Default to 200, 256 KiB and 2,000.
	MessagesPerSecond, BytesPerSecond, ReadsPerSecond int

	// MessageBytes bounds one message. A longer one closes as too-big.
	//
	// Defaults to 64 KiB, which is also the most.
	MessageBytes int

	// MessageTime is how long a message may be under way. A slower one closes
	// as slow-message.
	//
	// Defaults to 5s.
	MessageTime time.Duration

	// HandshakeTime bounds TLS and HTTP, each, before the upgrade: who opens a
	// connection and says nothing costs a file descriptor.
	//
	// Defaults to 5s.
	HandshakeTime time.Duration

	// Symbols bounds the subscriptions of one session. More are refused, each
	// by name.
	//
	// Defaults to 10,000.
	Symbols int

	// BadCommands bounds the frames that are no command, in a minute. Beyond it
	// the client is closed as bad-command: it will not learn.
	//
	// Defaults to 60.
	BadCommands int
}

func (l Limits) withDefaults() Limits {
	l.Connections = cmp.Or(l.Connections, defaultConnections())
	l.ConnectionsPerAddress = cmp.Or(l.ConnectionsPerAddress, 512)
	l.UpgradesPerSecond = cmp.Or(l.UpgradesPerSecond, 2000)
	l.MessagesPerSecond = cmp.Or(l.MessagesPerSecond, 200)
	l.BytesPerSecond = cmp.Or(l.BytesPerSecond, 256<<10)
	l.ReadsPerSecond = cmp.Or(l.ReadsPerSecond, 2000)
	l.MessageBytes = cmp.Or(l.MessageBytes, codec.CommandBytesMax)
	l.MessageTime = cmp.Or(l.MessageTime, 5*time.Second)
	l.HandshakeTime = cmp.Or(l.HandshakeTime, 5*time.Second)
	l.Symbols = cmp.Or(l.Symbols, 10_000)
	l.BadCommands = cmp.Or(l.BadCommands, 60)
	return l
}

// defaultConnections is what the file descriptors allow, up to 16,384.
func defaultConnections() int {
	const most = 16_384
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil || r.Cur >= most+descriptorsKept {
		return most
	}
	return max(64, int(r.Cur)-descriptorsKept)
}

func (l Limits) validate() error {
	var errs []error
	for name, v := range map[string]int{
		"Connections": l.Connections, "ConnectionsPerAddress": l.ConnectionsPerAddress,
		"UpgradesPerSecond": l.UpgradesPerSecond, "MessagesPerSecond": l.MessagesPerSecond,
		"BytesPerSecond": l.BytesPerSecond, "ReadsPerSecond": l.ReadsPerSecond,
		"Symbols": l.Symbols, "BadCommands": l.BadCommands,
	} {
		if v < 1 && v != Off {
			errs = append(errs, fmt.Errorf("Limits.%s %d: want at least 1, 0 for its default, or %d for none", name, v, Off))
		}
	}
	if l.HandshakeTime < 100*time.Millisecond || l.HandshakeTime > time.Minute {
		errs = append(errs, fmt.Errorf("Limits.HandshakeTime %v: want 100ms to 1m", l.HandshakeTime))
	}
	return errors.Join(errs...)
}

// The limits by which a connection or an upgrade is refused, as the metric
// names them.
const (
	limitPending     = "pending"     // connections not upgraded
	limitConnections = "connections" // sessions of this node
	limitAddress     = "address"     // sessions of one address
	limitRate        = "upgrade-rate"
	limitDraining    = "draining"
)

// limiter counts connections and sessions, and refuses.
type limiter struct {
	limits Limits
	now    func() time.Time

	pending chan struct{} // a place for each connection that is not upgraded

	mu       sync.Mutex
	sessions int
	by       map[netip.Addr]*tally
	tokens   float64 // upgrades that may come now
	filled   time.Time
}

// tally is what an address has.
type tally struct{ pending, sessions int }

func newLimiter(l Limits) *limiter {
	return &limiter{
		limits: l, now: time.Now,
		pending: make(chan struct{}, pendingMax),
		by:      map[netip.Addr]*tally{},
	}
}

// key is what counts as one address.
func key(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() && !a.IsLoopback() {
		p, err := a.Prefix(64) // a subscriber's own network
		if err == nil {
			return p.Addr()
		}
	}
	return a
}

// counted tells whether the address has a limit of its own.
func (l *limiter) counted(a netip.Addr) bool {
	return l.limits.ConnectionsPerAddress != Off && (l.limits.CountLoopback || !a.IsLoopback())
}

func (l *limiter) tallyLocked(a netip.Addr) *tally {
	c := l.by[a]
	if c == nil {
		c = &tally{}
		l.by[a] = c
	}
	return c
}

func (l *limiter) forgetLocked(a netip.Addr, c *tally) {
	if c.pending == 0 && c.sessions == 0 {
		delete(l.by, a)
	}
}

// connect admits a connection that has just been accepted; done is called once
// when it is upgraded or closed. While all places are taken it waits, and so do
// the next ones in the kernel: a storm of honest clients is served in turn, and
// who only holds a place loses it by HandshakeTime, or by the answer to what it
// asked once places are few.
func (l *limiter) connect(a netip.Addr, stop <-chan struct{}) (done func(), limit string) {
	a = key(a)
	l.mu.Lock()
	c := l.tallyLocked(a)
	if l.counted(a) && c.pending >= pendingPerAddress {
		l.mu.Unlock()
		return nil, limitPending
	}
	c.pending++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.pending--
		l.forgetLocked(a, c)
	}
	select {
	case l.pending <- struct{}{}:
	case <-stop:
		leave()
		return nil, limitDraining
	}
	return func() {
		<-l.pending
		leave()
	}, ""
}

// few tells whether half of the places are taken, of all or of the address.
func (l *limiter) few(a netip.Addr) bool {
	a = key(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.by[a]
	return len(l.pending) > pendingMax/2 || c != nil && l.counted(a) && c.pending > pendingPerAddress/2
}

// A refusal is an upgrade that a limit forbids.
type refusal struct {
	limit  string
	status int
	retry  time.Duration
	text   string
}

// upgrade admits a session; done is called when it has ended.
func (l *limiter) upgrade(a netip.Addr) (done func(), no *refusal) {
	a = key(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limits.Connections != Off && l.sessions >= l.limits.Connections {
		return nil, &refusal{limitConnections, http.StatusServiceUnavailable, retryFull, "this node is full"}
	}
	c := l.tallyLocked(a)
	defer func() { l.forgetLocked(a, c) }()
	if l.counted(a) && c.sessions >= l.limits.ConnectionsPerAddress {
		return nil, &refusal{limitAddress, http.StatusTooManyRequests, retryFull,
			fmt.Sprintf("your address has %d connections, which is all it may have", c.sessions)}
	}
	if !l.tokenLocked() {
		return nil, &refusal{limitRate, http.StatusServiceUnavailable, retryRate, "too many clients connect at once"}
	}
	l.sessions++
	c.sessions++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sessions--
		c.sessions--
		l.forgetLocked(a, c)
	}, nil
}

func (l *limiter) tokenLocked() bool {
	if l.limits.UpgradesPerSecond == Off {
		return true
	}
	rate := float64(l.limits.UpgradesPerSecond)
	now := l.now()
	if l.filled.IsZero() {
		l.tokens = rate * rateBurst
	} else {
		l.tokens = min(rate*rateBurst, l.tokens+rate*now.Sub(l.filled).Seconds())
	}
	l.filled = now
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}
