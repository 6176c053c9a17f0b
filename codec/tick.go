package codec

import "fmt"

// Kind is what a tick, or a record of a symbol's topic, tells.
type Kind uint8

// The kinds of ticks, then those that only the feed writes.
const (
	KindTrade      Kind = 1 // a trade happened
	KindQuote      Kind = 2 // best bid and ask now are
	KindCorrection Kind = 3 // an earlier trade was otherwise
	KindCancel     Kind = 4 // an earlier trade never was
	KindStatus     Kind = 5 // the venue halts, resumes, closes

	KindFence Kind = 16 // an owner took the symbol: its claim, no state
	KindGap   Kind = 17 // raw messages were lost before they could be read
	KindMoved Kind = 18 // the symbol's raw partition is another one now
)

func (k Kind) String() string {
	switch k {
	case KindTrade:
		return "trade"
	case KindQuote:
		return "quote"
	case KindCorrection:
		return "correction"
	case KindCancel:
		return "cancel"
	case KindStatus:
		return "status"
	case KindFence:
		return "fence"
	case KindGap:
		return "gap"
	case KindMoved:
		return "moved"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Side is who took: the aggressor of a trade.
type Side uint8

// The sides.
const (
	SideUnknown Side = 0
	SideBuy     Side = 1
	SideSell    Side = 2
)

func (s Side) String() string {
	switch s {
	case SideBuy:
		return "buy"
	case SideSell:
		return "sell"
	}
	return ""
}

// TradeFlags say what a trade may change; a venue file knows which of its
// trades are odd. An ordinary trade has all three.
type TradeFlags uint8

// The flags of a trade.
const (
	TradeMovesLast    TradeFlags = 1 << iota // it is the last price now
	TradeMovesRange                          // it moves open, high and low
	TradeCountsVolume                        // it counts in volume, notional and trades

	TradeOrdinary = TradeMovesLast | TradeMovesRange | TradeCountsVolume
)

// VenueStatus is what a venue says of trading in a symbol.
type VenueStatus uint8

// What a venue may say.
const (
	VenueStatusUnknown VenueStatus = 0
	VenueStatusTrading VenueStatus = 1
	VenueStatusHalted  VenueStatus = 2
	VenueStatusClosed  VenueStatus = 3
)

// Tick is one price event as one venue message tells it, and no more than it
// tells. Which fields count depends on Kind. Byte slices alias the message.
type Tick struct {
	Kind        Kind
	VenueSymbol []byte // theirs, as written
	EventTime   int64  // Unix ns by the venue's clock; 0: the venue says none

	// KindTrade, KindCorrection (as it should have been), KindCancel.
	Price, Size Decimal
	Side        Side
	Flags       TradeFlags
	ID          uint64 // the venue's ordered trade id; counts if HasID
	HasID       bool

	// KindCorrection, KindCancel: the trade meant.
	RefID              uint64
	RefPrice, RefSize  Decimal
	RefEventTime       int64
	RefCountedInVolume bool

	// KindQuote. An absent side is one that the venue says nobody quotes,
	// unless Partial: then it is one that the message does not speak of.
	Bid, BidSize, Ask, AskSize Decimal
	Partial                    bool

	// KindStatus.
	Status VenueStatus
}

// Trade is a trade as the state keeps it.
type Trade struct {
	No          uint64 // of this symbol's trades, from 1; 0: none yet
	Seq         uint64 // of the record that told it
	Price, Size Decimal
	Side        Side
	Flags       TradeFlags
	ID          uint64 // the venue's; counts if HasID
	HasID       bool
	EventTime   int64 // Unix ns; 0: the venue said none
	IngestTime  int64 // Unix ns of the raw record
}

// Quote is a best bid and ask as the state keeps it.
type Quote struct {
	No                         uint64 // of this symbol's quotes, from 1; 0: none yet
	Seq                        uint64
	Bid, BidSize, Ask, AskSize Decimal
	EventTime, IngestTime      int64
}

// Day is a trading day of a symbol, opened by its first trade.
type Day struct {
	Number          int32 // days since 1970-01-01 in the venue's calendar; counts if Open is set
	RangeUnsure     bool  // a cancel may have taken back the high or the low
	Open, High, Low Decimal
	PrevClose       Decimal // last price of the day before; absent on the first

	// The totals when the day began: day volume is State.Volume - BaseVolume.
	BaseVolume, BaseNotional Total
	BaseTrades               uint64
}

// State is all that is known of a symbol after one record. It travels in every
// record, so that the newest record is enough.
type State struct {
	// Epoch is the numbering; Seq counts the symbol's ticks within it, from 1.
	// TradeNo counts trades, corrections and cancels, QuoteNo counts quotes.
	Epoch   int64
	Seq     uint64
	TradeNo uint64
	QuoteNo uint64

	// Totals since the symbol's first tick. They are never reset, and shrink
	// only by a correction or a cancel.
	Volume, Notional Total
	Trades           uint64

	Day    Day
	Last   Trade
	Quote  Quote
	Status VenueStatus

	// HighID is the highest ordered trade id seen: below it are repeats.
	HighID    uint64
	HasHighID bool
}

// Source is where in the raw topics a record comes from. Within an epoch a
// record is newer if its (Offset, Index) is higher.
type Source struct {
	Epoch       int64
	RawTopicID  [16]byte // Kafka's; zero if unknown
	Partition   int32
	Offset      int64
	Index       int32 // of the tick within its raw message
	ProducerEra int16 // producer epoch of the owner that wrote it
}

// Newer tells whether s comes after t.
func (s Source) Newer(t Source) bool {
	if s.Epoch != t.Epoch {
		return s.Epoch > t.Epoch
	}
	if s.Offset != t.Offset {
		return s.Offset > t.Offset
	}
	return s.Index > t.Index
}

// SymbolBytesMax bounds our symbols: they stand in Kafka topic names, frames
// and screens.
const SymbolBytesMax = 32

// ValidSymbol tells whether s is a symbol: [A-Z0-9._-]{1,32}.
func ValidSymbol[S ~string | ~[]byte](s S) bool {
	if len(s) == 0 || len(s) > SymbolBytesMax {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
