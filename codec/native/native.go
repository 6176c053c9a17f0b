package native

import (
	"fmt"

	"tickgate/codec"
)

// A Spelling is one of the two ways in which protocol v1 is written: the
// gateway's side (a [codec.Dialect]) and the client's side of it.
type Spelling interface {
	codec.Dialect

	// AppendCommand spells a command, as a client sends it. Fields that the
	// command's op does not use are left out; durations are cut to
	// milliseconds.
	AppendCommand(dst []byte, c *codec.Command) []byte
	// OpenFrame begins to read a frame that a gateway sent, which must stay
	// unchanged until its last row is read.
	OpenFrame(frame []byte) (Frame, error)
}

// The two spellings.
var (
	MsgPack Spelling = msgPack{}
	JSON    Spelling = jsonText{}
)

// The subprotocols' names in a WebSocket handshake.
const (
	SubprotocolMsgPack = "tickgate.v1.msgpack"
	SubprotocolJSON    = "tickgate.v1.json"
)

// Codes of a [codec.Error] and of error and refused rows. The package
// documentation says what each means and what to do.
const (
	CodeBadFrame     = "bad-frame"
	CodeTooBig       = "too-big"
	CodeDuplicateKey = "duplicate-key"
	CodeUnknownOp    = "unknown-op"
	CodeMissingKey   = "missing-key"
	CodeBadValue     = "bad-value"
	CodeBadSymbol    = "bad-symbol"
	CodeTooMany      = "too-many"
)

// Bounds of a command besides [codec.CommandBytesMax].
const (
	// SymbolsMax bounds the symbols of one command, so that a frame costs a
	// gateway little before it is refused; more come in more commands.
	SymbolsMax = 1000
	// FromMax bounds those that come with epoch and seq, which cost more.
	FromMax = 400
	// keysMax bounds the keys of a command's map: more than the protocol has,
	// so that clients may send keys of later versions.
	keysMax = 24
	// unknownKeysMax bounds how many of them may be unknown: each is kept, to
	// find it twice.
	unknownKeysMax = 8
	// keyBytesMax bounds a key; the longest known one has 8.
	keyBytesMax = 32
	// skipBytesMax and skipDepthMax bound all values of unknown keys together; a
	// list or a map in them costs as much as so many bytes.
	skipBytesMax  = 1 << 10
	skipDepthMax  = 8
	skipOpenBytes = 16
	// spaceBytesMax bounds what JSON allows between values: enough to write
	// SymbolsMax symbols one a line.
	spaceBytesMax = 16 << 10
	// escapesMax bounds the escapes of JSON in a command: no symbol needs one,
	// and a library that writes them does so here and there in a token.
	escapesMax = 128
	// symbolEscapesMax bounds those in the list of symbols, which costs most.
	symbolEscapesMax = 8
	// durationMillisMax bounds every and silence: an hour is as good as never.
	durationMillisMax = 3_600_000
)

// Bounds of what a gateway sends.
const (
	// FrameBytesMax bounds a frame that a client reads. Gateways keep to 16 KiB.
	FrameBytesMax = 64 << 10
	// RowBytesMax bounds every row, so that one always fits a frame.
	RowBytesMax = 8 << 10
	// textBytesMax bounds each text of a row (code, what, where, ...), which
	// may grow sixfold by escapes: four of them are within RowBytesMax.
	textBytesMax = 256
)

// safeInteger is the largest integer that every decoder reads exactly as a
// number: JavaScript's 2^53 - 1. Beyond it integers are decimal strings.
const safeInteger = 1<<53 - 1

var viewNames = [...]struct {
	view codec.View
	name string
}{
	{codec.ViewLast, "last"},
	{codec.ViewQuote, "quote"},
	{codec.ViewTotals, "totals"},
	{codec.ViewDay, "day"},
}

// viewOf is the view of that name, 0 if there is none.
func viewOf(name []byte) codec.View {
	for _, v := range viewNames {
		if v.name == string(name) {
			return v.view
		}
	}
	if string(name) == "all" {
		return codec.ViewAll
	}
	return 0
}

// rowView is what of v a row of the channel can carry.
func rowView(c codec.Channel, v codec.View) codec.View {
	if c == codec.ChannelTrades {
		v &^= codec.ViewDay
	}
	return v & codec.ViewAll
}

// typeWords are the events' names in JSON, by number.
var typeWords = [...]string{
	codec.EventTicker:       "ticker",
	codec.EventQuote:        "quote",
	codec.EventTrade:        "trade",
	codec.EventSnapshot:     "snapshot",
	codec.EventSnapshotEnd:  "snapshot_end",
	codec.EventWelcome:      "welcome",
	codec.EventGranted:      "granted",
	codec.EventWaiting:      "waiting",
	codec.EventRefused:      "refused",
	codec.EventUnsubscribed: "unsubscribed",
	codec.EventDrop:         "drop",
	codec.EventState:        "state",
	codec.EventReset:        "reset",
	codec.EventBehind:       "behind",
	codec.EventLedger:       "ledger",
	codec.EventGoaway:       "goaway",
	codec.EventError:        "error",
	codec.EventPong:         "pong",
}

// typeOf is the inverse of typeWords, 0 for a word of a later version.
func typeOf(word []byte) codec.EventType {
	if len(word) == 0 {
		return 0
	}
	for t, w := range typeWords {
		if w == string(word) {
			return codec.EventType(t)
		}
	}
	return 0
}

// rowTimes are the times of a state's row: those of the newest quote for
// quotes, of the last trade for trades, of the newer of the two for ticker.
func rowTimes(c codec.Channel, s *codec.State) (ingest, event int64) {
	if c == codec.ChannelQuotes || c == codec.ChannelTicker && s.Quote.Seq > s.Last.Seq {
		return s.Quote.IngestTime, s.Quote.EventTime
	}
	return s.Last.IngestTime, s.Last.EventTime
}

// rowNo is the number that a snapshot counts on from; the ticker has none.
func rowNo(c codec.Channel, s *codec.State) uint64 {
	switch c {
	case codec.ChannelQuotes:
		return s.QuoteNo
	case codec.ChannelTrades:
		return s.TradeNo
	}
	return 0
}

// stateType is the type of a row that tells a state.
func stateType(c codec.Channel) codec.EventType {
	switch c {
	case codec.ChannelTicker:
		return codec.EventTicker
	case codec.ChannelQuotes:
		return codec.EventQuote
	}
	panic(fmt.Sprintf("native: a state is a row of ticker or quotes, not of %v", c))
}

// cut shortens a text to textBytesMax, at the start of a rune.
func cut(s string) string {
	if len(s) <= textBytesMax {
		return s
	}
	n := textBytesMax
	for n > textBytesMax-4 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
