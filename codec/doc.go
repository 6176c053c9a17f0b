// Package codec holds the words that every other package speaks: decimals,
// totals, ticks, the state of a symbol, and what a client and a gateway may
// say to each other.
//
// It knows numbers and bytes; it knows nothing of Kafka, sockets, boards or
// time. Its sub-packages spell those words: record as the value of a Kafka
// record, native as the frames of tickgate's own WebSocket protocol.
//
// Values are plain structs without locks: whoever holds one owns it.
package codec
