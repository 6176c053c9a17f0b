// Package native spells tickgate's own WebSocket protocol, version 1, in two
// ways: [MsgPack] (subprotocol tickgate.v1.msgpack, binary messages) and [JSON]
// (tickgate.v1.json, text messages). They say the same.
//
// It knows bytes; it knows nothing of sockets, sessions or boards. It stands on
// both sides: a gateway spells rows and decodes commands, a client spells
// commands and reads frames. Neither trusts the other.
//
// Both spellings are stateless and safe for concurrent use; a [Frame] belongs to
// one goroutine.
//
// # Frames
//
// A gateway sends frames, each a number that counts from 1, a send time and any
// number of rows. A row is a tick, a snapshot or an event. It carries nothing of
// a session, so its bytes are shared by all clients with the same spelling and
// view.
//
//	MessagePack  [frame, sent, row, row, ...]
//	JSON         {"frame":1,"sent":1723075200000000,"events":[row, row, ...]}
//
// Times are Unix microseconds. The age of a tick is the time of receipt minus
// its ingest time; a negative age is a clock that is wrong.
//
// Integers are below 2^53, so that every language reads them as they are; what
// is larger is the string of its decimal digits. There is no float anywhere.
// Prices and sizes are the venue's digits: in JSON a string ("101.50"), in
// MessagePack two elements, coefficient and scale (10150, 2). A price that is
// not there is null (nil, 0), which is not zero. Totals (volume, notional) run
// since the symbol's first tick and are written likewise; null (nil, 0) means
// that a total has outgrown 128 bits and is lost.
//
// Clients must pass over keys, row types and elements at a row's end that they
// do not know: that is how version 1 grows.
//
// # Rows
//
// In JSON a row is an object whose key type has the word in the first column; in
// MessagePack an array that begins with the number.
//
//	ticker        1  id, view, seq, ingest, lag, groups
//	quote         2  id, view, seq, no, ingest, lag, groups
//	trade         3  id, view, seq, no, kind, ingest, lag, groups
//	snapshot      4  id, view, channel, epoch, seq, no, ingest, lag, groups
//	snapshot_end  5  ref, channel
//	welcome       8  node, version
//	granted       9  ref, channel, id, symbol, every, view, epoch, seq
//	waiting      10  ref, channel, symbol
//	refused      11  ref, channel, symbol, code, what, where, want
//	unsubscribed 12  ref, channel, count
//	drop         13  channel, id, symbol, count
//	state        14  channel, id, symbol, state, since, why
//	reset        15  channel, id, symbol, epoch
//	behind       16  ref, channel, id, symbol, epoch, seq
//	ledger       17  ref, offered, delivered, merged, filtered, dropped, pending, snapshots
//	goaway       18  window, why
//	error        19  ref, code, what, where, want
//	pong         20  ref
//
// Rows 1 to 4 name their topic by id alone in MessagePack: granted has told
// which symbol it is, the same for as long as the node runs. JSON says symbol
// besides. In JSON lag is spelled as event, the venue's own time; in MessagePack
// it is ingest minus event, which is shorter, and nil if the venue said none.
//
// View is the sum of the groups that follow, in this order:
//
//	1 last    price, size, side                                    (5 elements)
//	2 quote   bid, bid_size, ask, ask_size                         (8 elements)
//	4 totals  volume, notional, trades                             (5 elements)
//	8 day     open, high, low, prev_close, base_volume,
//	          base_notional, base_trades, day, range_unsure        (15 elements)
//
// JSON tells the groups by their keys; the price of the last group is price in
// trades and last elsewhere. In a trade row that group is the trade itself, and
// the others are as they were when it came. Day volume is volume minus
// base_volume; day is the number of days since 1970-01-01, null before the
// first trade; range_unsure says that a cancelled trade may have made the high
// or the low.
//
// Seq counts the symbol's ticks of all kinds within its epoch; no counts its
// quotes in channel quotes, and its trades, corrections and cancels in channel
// trades. How many ticks an update stands for is therefore the difference of
// two numbers, and is not sent: in ticker that of seq, in quotes that of no. In
// trades no rises by one; where it does not, a drop row before has told the
// difference.
//
// The numbers of MessagePack: channel 1 ticker, 2 quotes, 3 trades, 0 all; kind
// 1 trade, 3 correction, 4 cancel; side 1 buy, 2 sell, 0 unknown; state 1
// loading, 2 live, 3 quiet, 4 stale, 5 gap, 6 halted, 7 closed, 8 replay. Every
// and window are milliseconds.
//
// # Commands
//
// A client sends commands: a map with these keys, the same in both spellings.
//
//	op           the command's name                                       all
//	ref          a number of the client's, which answers repeat           all
//	channel      "ticker", "quotes" or "trades"         subscribe, unsubscribe, set
//	symbols      names, "BTC-*", "*"                    subscribe, unsubscribe, set
//	every        at most one update in so many ms       subscribe, set
//	view         list of groups                         subscribe, set
//	min_size     trades below it are filtered           subscribe, set
//	deadband     moves below it are filtered,           subscribe, set
//	silence      but never for longer than so many ms   subscribe, set
//	more         true: another part of this set follows set
//	token        a token                                auth
//	frame        number of the last frame read          ack
//
// The ops ledger and ping have no more than ref. To go on where it was, a client
// names a symbol with the epoch and the seq it has seen: ["BTCUSDT", 1, 2] or
// {"symbol":"BTCUSDT","epoch":1,"seq":2}; either form in either spelling. A set
// is the whole desired state of its channel: what it does not name is
// unsubscribed. Null is as good as absent. Filters are decimals in strings.
//
// A client need not ack. One that has once done so must do it every 250 ms of
// traffic, and is then sent no more than it reads.
//
// # Error codes
//
// A frame that cannot be used is answered by an error row with what was wrong,
// where, and what would be right; nothing of it was done.
//
//	bad-frame      not one value of this spelling: syntax, type, end too early,
//	               bytes behind the end, nested too deep
//	too-big        longer than 64 KiB (subscribe, set) or 4 KiB (the others), more
//	               than 1 KiB under unknown keys (where a list or a map counts
//	               as 16 bytes), in JSON more than 16 KiB of space, 128 escapes, or
//	               8 of them in symbols, which need none
//	duplicate-key  a key stands twice
//	unknown-op     there is no such op
//	missing-key    the op needs a key that is not there
//	bad-value      a value out of its bounds, or a key that the op does not have
//	bad-symbol     no legal symbol or pattern
//	too-many       more symbols than one command may have (1000, of which 400 with
//	               epoch and seq), or more keys
//
// What is legal and yet cannot be is refused symbol by symbol, by a refused row,
// or by an error row, with these:
//
//	too-many-symbols  this session follows as many symbols as it may
//	too-many-terms    this session's subscriptions have as many different terms
//	                  (channel, every, view, filters) as they may: 64
//	no-auth           this gateway asks for no token
//	not-supported     the command says something that this gateway does not do yet
//
// # Close codes
//
// [codec.CloseReason] lists the reasons for which a gateway closes, with their
// codes. Of 4100 to 4199 and of 1000, 1011, 1012 and 1013 another try may help;
// of 4200 to 4299, 1002 and 1009 it does not.
package native
