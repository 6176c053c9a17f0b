package bench

import (
	"net/netip"

	"tickgate/codec"
	"tickgate/codec/native"
)

// Endpoint is where clients connect, and what can be asked for there.
type Endpoint struct {
	Addr netip.AddrPort
	Path string
	TLS  bool

	// Speak is the protocol for an encoding.
	Speak func(encoding string) Speaker

	// Conflates tells that `every` is served; a target that cannot is asked
	// for every update.
	Conflates bool
	// Ledger tells that the target tells its counts.
	Ledger bool
	// Numbered tells that a client's frames are numbered from 1.
	Numbered bool
	// Early tells that ticks may come before what says which symbol they are
	// of: those are passed over.
	Early bool
}

// Speaker is a target's protocol as a client speaks it. It holds no state.
type Speaker interface {
	// Subprotocol is asked for in the handshake; "" is none.
	Subprotocol() string
	// Hello is what a client says first; nil is nothing.
	Hello() []byte
	// Command spells a subscribe, unsubscribe or ledger; nil if the target has
	// none. There may be several lines in one message.
	Command(dst []byte, c *codec.Command) []byte
	// Text tells whether messages are text.
	Text() bool
	// Read reads a message and calls rows with each frame of tickgate's
	// spelling in it. What is left over of an unfinished one is kept in rest.
	// answer, if any, is to be sent.
	Read(rest *[]byte, msg []byte, rows func(frame []byte) error) (answer []byte, err error)
	// Spelling is how those frames are spelled.
	Spelling() native.Spelling
}

// Native is tickgate's own protocol.
func Native(encoding string) Speaker {
	if encoding == "json" {
		return speaker{native.JSON}
	}
	return speaker{native.MsgPack}
}

type speaker struct{ spelling native.Spelling }

func (s speaker) Subprotocol() string       { return s.spelling.Subprotocol() }
func (s speaker) Hello() []byte             { return nil }
func (s speaker) Text() bool                { return s.spelling.Text() }
func (s speaker) Spelling() native.Spelling { return s.spelling }

func (s speaker) Command(dst []byte, c *codec.Command) []byte {
	return s.spelling.AppendCommand(dst, c)
}

func (s speaker) Read(_ *[]byte, msg []byte, rows func([]byte) error) ([]byte, error) {
	return nil, rows(msg)
}
