// Package gateway is the server that clients connect to: it listens, upgrades,
// limits, hands each client to a shard, reads what it asks for, and drains.
//
// It knows HTTP, sessions and limits; it knows nothing of Kafka or the feed.
// Somebody else publishes to the [board.Board] it is given; losing that source
// makes topics stale, not the gateway unready.
//
// [New] binds the addresses and [Server.Run] blocks until the server has
// drained. Run owns every goroutine: one for each listener, one for each shard
// and one reader for each client, and all have ended when it returns. What a
// client is sent is its shard's business alone; a reader only decodes commands
// and waits for the shard to take them.
package gateway
