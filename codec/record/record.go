// Package record spells the value of a Kafka record of a symbol's topic: a
// versioned MessagePack array that any MessagePack library reads.
//
// It knows the bytes; it knows nothing of Kafka or of who writes. Records are
// untrusted: [Decode] bounds everything, allocates nothing, and old versions
// stay readable for ever (golden files of each in testdata).
package record

import "tickgate/codec"

// Record is one event of a symbol and the symbol's whole state after it.
//
// A fence has no State: only Kind, Symbol, Venue, IngestTime, Source and Claim.
type Record struct {
	Kind       codec.Kind
	Symbol     string // ours
	Venue      string
	IngestTime int64 // Unix ns: the raw record's timestamp
	EventTime  int64 // Unix ns of this event; 0: the venue said none
	Source     codec.Source

	// Trade is this event's trade (as corrected, as cancelled); for a quote
	// or a status it is empty. If the trade moved last, it equals State.Last.
	Trade codec.Trade
	// Ref is the trade that a correction or a cancel means: its id, price, size.
	Ref codec.Trade

	State codec.State // after this event

	Claim Claim // KindFence
	Gap   Gap   // KindGap
}

// Claim says which raw partition, and which of its venue symbols, a fence took
// the symbol for.
type Claim struct {
	RawTopic    string
	VenueSymbol string
}

// Gap says which raw offsets were lost: From included, To not.
type Gap struct {
	From, To int64
}
