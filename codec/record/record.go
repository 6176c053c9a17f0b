// Package record spells the value of a Kafka record of a symbol's topic: a
// versioned MessagePack array that any MessagePack library reads.
//
// It knows the bytes; it knows nothing of Kafka or of who writes. Records are
// untrusted: [Decode] bounds everything, allocates nothing, and old versions
// stay readable for ever (golden records of each in testdata).
//
// # Version 1
//
// A record is an array of nine elements. Readers pass over elements that later
// writers of the same version add at an array's end. Times are Unix
// nanoseconds, nil where there is none; they are beyond 2^53, so JavaScript
// needs BigInt to read them exactly.
//
//	0 version   1
//	1 kind      1 trade, 2 quote, 3 correction, 4 cancel, 5 status, 16 fence, 17 gap, 18 moved
//	2 symbol    ours, [A-Z0-9._-]{1,32}
//	3 venue     whose message it was
//	4 ingest    time: the raw record's timestamp
//	5 event     time by the venue
//	6 source    [epoch, raw topic id (16 bytes) or nil, raw partition, raw offset,
//	            index in the raw message, producer era]
//	7 event     what happened:
//	              trade       nil if it is the state's last trade, else [trade]
//	              correction  [trade as it should have been, trade meant]
//	              cancel      [trade as told, trade meant]
//	              gap         [first raw offset lost, first one not lost]
//	              fence       [raw topic, venue symbol]: the claim of its owner
//	              others      nil
//	8 state     the symbol's whole state after this record; nil in a fence:
//	            [epoch, seq, trades told, quotes told, volume, notional, trades,
//	             day or nil, last trade or nil, last quote or nil,
//	             status (0 unknown, 1 trading, 2 halted, 3 closed),
//	             highest ordered trade id or nil]
//
//	decimal     [coefficient, scale], nil if absent: [10150, 2] is 101.50
//	total       likewise, without zeros behind the point; the coefficient is a
//	            string of digits beyond 64 bits; nil if the sum outgrew 128 bits
//	trade       [no, seq, price, size, side (1 buy, 2 sell), flags (1 moves last,
//	            2 moves range, 4 counts volume), id or nil, event, ingest]
//	quote       [no, seq, bid, bid size, ask, ask size, event, ingest]
//	day         [days since 1970-01-01, range unsure, open, high, low, previous
//	            close, volume, notional and trades when the day began]
//
// Volume, notional and trades run since the symbol's first tick and are never
// reset: what was traded between two records is the difference. A reader that
// finds a record not newer than the last by (epoch, offset, index) leaves it
// out: it was written by an owner that has been replaced.
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
