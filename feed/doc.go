// Package feed turns raw venue messages into the records of per-symbol topics:
// it reads, normalizes, claims, stamps, publishes and commits.
//
// It knows ticks, symbols and what it needs of a log ([Log]); it knows nothing
// of the gateway, of sockets or of clients. Kafka itself is feed/broker's.
//
// A raw partition has one owner, a goroutine that holds the state of its
// symbols and takes no lock. The broker fences older owners: an owner's first
// append to a symbol's topic is a fence, and only what it then reads back is
// the symbol's state.
package feed
