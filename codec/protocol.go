package codec

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Channel is what of a topic a subscription carries.
type Channel uint8

// The channels.
const (
	ChannelTicker Channel = 1 // the whole state, newest only
	ChannelQuotes Channel = 2 // best bid and ask, newest only
	ChannelTrades Channel = 3 // every trade, correction and cancel
)

func (c Channel) String() string {
	switch c {
	case ChannelTicker:
		return "ticker"
	case ChannelQuotes:
		return "quotes"
	case ChannelTrades:
		return "trades"
	}
	return fmt.Sprintf("channel(%d)", uint8(c))
}

// ParseChannel is the inverse of [Channel.String].
func ParseChannel(s string) (Channel, bool) {
	for _, c := range []Channel{ChannelTicker, ChannelQuotes, ChannelTrades} {
		if c.String() == s {
			return c, true
		}
	}
	return 0, false
}

// View is which groups of fields a row carries. A view is part of the
// spelling: clients with the same dialect and view share bytes.
type View uint8

// The groups, in the order in which a row carries them.
const (
	ViewLast   View = 1 << iota // price, size, side (of the trade itself on trades)
	ViewQuote                   // bid, bid size, ask, ask size (as they were, on trades)
	ViewTotals                  // volume, notional, trades
	ViewDay                     // open, high, low, previous close, and the totals at the day's start

	ViewAll = ViewLast | ViewQuote | ViewTotals | ViewDay
)

// DefaultView is the view of a subscription that names none. Trades carry no
// day group whatever was asked: it is the ticker's.
func DefaultView(c Channel) View {
	switch c {
	case ChannelQuotes:
		return ViewQuote
	case ChannelTrades:
		return ViewLast | ViewTotals
	}
	return ViewAll
}

// Op is what a command asks for.
type Op uint8

// The commands.
const (
	OpSubscribe Op = 1 + iota
	OpUnsubscribe
	OpSet    // the whole desired state of a channel
	OpAuth   // a token
	OpAck    // frames up to Frame have been read
	OpLedger // tell the counts
	OpPing   // answer with pong
)

func (o Op) String() string {
	names := [...]string{"", "subscribe", "unsubscribe", "set", "auth", "ack", "ledger", "ping"}
	if int(o) < len(names) && o != 0 {
		return names[o]
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// Command is what a client asks. It owns its bytes: nothing aliases the frame.
type Command struct {
	Op      Op
	Ref     uint64 // the client's number for this command, echoed in answers; 0: none
	Channel Channel
	Symbols SymbolList // names, patterns ("BTC-*"), "*"
	Every   time.Duration
	View    View // 0: the channel's default
	Frame   uint64
	Token   []byte

	// Filters of a subscription.
	MinSize    Decimal       // trades below it are filtered
	Deadband   Decimal       // moves below it are filtered
	SilenceMax time.Duration // but never for longer than this

	// OpSet may come in parts: the last one has More unset.
	More bool
}

// SymbolList is a list of names and patterns in one piece of memory that is no
// larger than the frame it came from.
type SymbolList struct {
	packed []byte // per item: length, flag, name, and if set epoch and seq (8 bytes each)
	n      int
}

// SymbolItem is one name or pattern, with where to go on from if HasFrom.
type SymbolItem struct {
	Name    []byte
	HasFrom bool
	Epoch   int64
	Seq     uint64
}

// Len is the number of items.
func (l *SymbolList) Len() int { return l.n }

// Reset makes l empty and keeps its memory.
func (l *SymbolList) Reset() { l.packed, l.n = l.packed[:0], 0 }

// What an item takes in a list: a name or pattern of full length with its head,
// and epoch and seq if it has them.
const (
	SymbolItemBytesMax = symbolHeadBytes + PatternBytesMax
	SymbolFromBytes    = 16

	symbolHeadBytes = 2
)

// Grow makes room for so many more bytes, and no more.
func (l *SymbolList) Grow(bytes int) {
	if n := len(l.packed); cap(l.packed)-n < bytes {
		l.packed = append(make([]byte, 0, n+bytes), l.packed...)
	}
}

// Append adds an item; its name must be at most 255 bytes.
func (l *SymbolList) Append(it SymbolItem) {
	n, at := symbolHeadBytes+len(it.Name), len(l.packed)
	size := n
	if it.HasFrom {
		size += SymbolFromBytes
	}
	if cap(l.packed)-at < size {
		l.packed = slices.Grow(l.packed, size)
	}
	l.packed = l.packed[:at+size]
	b := l.packed[at:]
	b[1], b[0] = 0, byte(len(it.Name))
	copy(b[symbolHeadBytes:], it.Name)
	if it.HasFrom {
		b[1] = 1
		from := b[n:]
		binary.BigEndian.PutUint64(from[8:], it.Seq)
		binary.BigEndian.PutUint64(from, uint64(it.Epoch))
	}
	l.n++
}

// All yields the items in order. Names alias the list.
func (l *SymbolList) All() iter.Seq[SymbolItem] {
	return func(yield func(SymbolItem) bool) {
		for b := l.packed; len(b) > 0; {
			n := symbolHeadBytes + int(b[0])
			it := SymbolItem{Name: b[symbolHeadBytes:n], HasFrom: b[1] == 1}
			b = b[n:]
			if it.HasFrom {
				it.Epoch = int64(binary.BigEndian.Uint64(b))
				it.Seq = binary.BigEndian.Uint64(b[8:])
				b = b[SymbolFromBytes:]
			}
			if !yield(it) {
				return
			}
		}
	}
}

// TopicState is how far a topic can be trusted right now.
type TopicState uint8

// The states of a topic.
const (
	StateLoading TopicState = 1 + iota // its newest record has not come yet
	StateLive                          // caught up, and ticks come
	StateQuiet                         // caught up, the venue is alive, nothing happens
	StateStale                         // no heartbeat, lag, or no word from the venue
	StateGap                           // ticks are known to be missing
	StateHalted                        // the venue says so
	StateClosed                        // the venue or its calendar says so
	StateReplay                        // recorded ticks
)

func (s TopicState) String() string {
	names := [...]string{"", "loading", "live", "quiet", "stale", "gap", "halted", "closed", "replay"}
	if int(s) < len(names) && s != 0 {
		return names[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// EventType is what a row of a frame tells. The numbers stand in frames.
type EventType uint8

// The events. The first three carry a tick and are spelled by
// [Dialect.AppendState] and [Dialect.AppendTrade].
const (
	EventTicker      EventType = 1
	EventQuote       EventType = 2
	EventTrade       EventType = 3
	EventSnapshot    EventType = 4 // epoch and a state; what follows is newer
	EventSnapshotEnd EventType = 5 // all snapshots of the command Ref are out

	EventWelcome      EventType = 8
	EventGranted      EventType = 9  // id, cadence, view of a symbol
	EventWaiting      EventType = 10 // a legal name that has not traded; granted follows when it does
	EventRefused      EventType = 11 // why not
	EventUnsubscribed EventType = 12
	EventDrop         EventType = 13 // Count trades were lost to this subscription
	EventState        EventType = 14 // State since Since because of Why
	EventReset        EventType = 15 // numbering restarted: Epoch
	EventBehind       EventType = 16 // you have seen more than this node
	EventLedger       EventType = 17
	EventGoaway       EventType = 18 // reconnect elsewhere within Window
	EventError        EventType = 19
	EventPong         EventType = 20
)

// Event is what a gateway tells one client besides ticks. Which fields count
// depends on Type.
type Event struct {
	Type    EventType
	Ref     uint64
	Channel Channel
	ID      uint32 // of the topic, the same for all clients of a node
	Symbol  string
	Epoch   int64
	Seq     uint64
	Every   time.Duration
	View    View
	Count   uint64

	State TopicState
	Since int64 // Unix ns

	// EventError, EventRefused, EventState (Why).
	Code, Why, Where, Want string

	Ledger Ledger

	Node    string        // EventWelcome
	Version string        // EventWelcome
	Window  time.Duration // EventGoaway
}

// Ledger accounts for every tick that was offered to a subscription:
// Offered = Delivered + Merged + Filtered + Dropped + Pending. Snapshots and
// restatements are counted apart.
type Ledger struct {
	Offered, Delivered, Merged, Filtered, Dropped, Pending uint64
	Snapshots                                              uint64
}

// Add adds what m counts to l.
func (l *Ledger) Add(m Ledger) {
	l.Offered += m.Offered
	l.Delivered += m.Delivered
	l.Merged += m.Merged
	l.Filtered += m.Filtered
	l.Dropped += m.Dropped
	l.Pending += m.Pending
	l.Snapshots += m.Snapshots
}

// TradeEntry is a trade as a board's ring keeps it, with the quote and the
// totals that stood when it came.
type TradeEntry struct {
	Kind             Kind // trade, correction or cancel
	Trade            Trade
	Quote            Quote // No and times may be zero
	Volume, Notional Total
	Trades           uint64
}

// A Dialect is one wire protocol: how rows, events and commands are spelled.
// It is stateless and safe for concurrent use. No row carries anything of one
// session, so that a row is spelled once for all clients.
//
// A frame is BeginFrame, any number of rows, EndFrame.
type Dialect interface {
	// Subprotocol is the WebSocket subprotocol's name.
	Subprotocol() string
	// Text tells a text dialect from a binary one.
	Text() bool
	// FrameOverhead is at least what BeginFrame and EndFrame add, in bytes.
	FrameOverhead() int

	// BeginFrame begins frame number no, sent at Unix ns sent.
	BeginFrame(dst []byte, no uint64, sent int64) []byte
	// EndFrame ends the frame that begins at dst[start] and has so many rows.
	EndFrame(dst []byte, start, rows int) []byte

	// AppendState spells a ticker or a quotes row from a state.
	AppendState(dst []byte, c Channel, v View, id uint32, symbol string, s *State) []byte
	// AppendSnapshot spells the snapshot row that a subscription begins with.
	AppendSnapshot(dst []byte, c Channel, v View, id uint32, symbol string, s *State) []byte
	// AppendTrade spells a trades row.
	AppendTrade(dst []byte, v View, id uint32, symbol string, e *TradeEntry) []byte
	// AppendEvent spells any other event.
	AppendEvent(dst []byte, e *Event) []byte

	// DecodeCommand reads a frame that a client sent. A bad frame is an
	// [*Error] that tells the client what was wrong.
	DecodeCommand(frame []byte, c *Command) error
}

// Error is what a client is told when what it sent cannot be done: what it is
// (a code that programs compare), where it is, and what would be right.
type Error struct {
	Code  string // "bad-frame", "unknown-op", ...; documented in package native
	What  string // for people
	Where string // "symbols[3]", "byte 17"; may be empty
	Want  string // what would be right; may be empty
}

func (e *Error) Error() string {
	s := e.Code + ": " + e.What
	if e.Where != "" {
		s += " at " + e.Where
	}
	if e.Want != "" {
		s += "; want " + e.Want
	}
	return s
}

// Bounds of what clients send.
const (
	CommandBytesMax      = 64 << 10 // of a subscribe or a set; a frame longer is refused
	SmallCommandBytesMax = 4 << 10  // of any other command
	PatternBytesMax      = SymbolBytesMax + 1
)
