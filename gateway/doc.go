// Package gateway is the server that clients connect to: it listens, upgrades,
// limits, hands each client to a shard, reads what it asks for, and drains.
//
// It knows HTTP, sessions and limits; it knows nothing of Kafka or the feed.
// Somebody else publishes to the [board.Board] it is given; losing that source
// makes topics stale, not the gateway unready.
//
// [New] binds the addresses and [Server.Run] blocks until the server has
// drained. Run owns every goroutine: one for each listener and each shard, the
// few that read for all clients, and one for each client whose command is in work
// or that is being seen out; all have ended when it returns. What a client is
// sent is its shard's business alone; who reads only decodes commands.
package gateway
