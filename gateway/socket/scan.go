package socket

import (
	"encoding/binary"

	"tickgate/codec"
)

// WebSocket opcodes.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	headerBytesMax  = 14  // two bytes, a 64-bit length, the mask
	controlBytesMax = 125 // payload of a control frame, by RFC 6455

	// fragmentsMax bounds the frames of one message: no client needs to cut
	// 64 KiB smaller than 1 KiB, and empty fragments cost us and not them.
	fragmentsMax = 64
)

// scanner follows the frames in the bytes that a client sends and refuses
// what gws would trip over: gws allocates what a header claims, panics on a
// length beyond 63 bits, and does not show fragments.
//
// It belongs to whoever holds Socket.reading.
type scanner struct {
	messageMax int // bytes of a message, over all of its fragments

	header     [headerBytesMax]byte
	headerHave int
	left       int // payload bytes of the frame at hand that are still to come

	inMessage bool // the last data frame was not the last of its message
	fragments int
	message   int // bytes of the message so far
}

// takeHeader takes header bytes from b. Once the header is whole, n bytes of b
// belong to it, whole is set, and left is the payload that follows. A reason
// means that the frame must not be read.
func (c *scanner) takeHeader(b []byte) (n int, whole bool, reason codec.CloseReason) {
	for n < len(b) {
		c.header[c.headerHave] = b[n]
		c.headerHave++
		n++
		if c.headerHave == 2 {
			if reason := c.checkStart(); reason != "" {
				return n, false, reason
			}
		}
		if c.headerHave >= 2 && c.headerHave == c.headerLen() {
			return n, true, c.begin()
		}
	}
	return n, false, ""
}

// headerLen needs the first two bytes.
func (c *scanner) headerLen() int {
	switch c.header[1] & 0x7f {
	case 126:
		return 2 + 2 + 4
	case 127:
		return 2 + 8 + 4
	}
	return 2 + 4
}

// checkStart refuses what the first two bytes already tell.
func (c *scanner) checkStart() codec.CloseReason {
	fin, reserved, op := c.header[0]&0x80 != 0, c.header[0]&0x70, c.header[0]&0x0f
	masked, code := c.header[1]&0x80 != 0, c.header[1]&0x7f
	if reserved != 0 || !masked {
		return codec.CloseProtocol
	}
	switch op {
	case opText, opBinary:
		if c.inMessage {
			return codec.CloseProtocol
		}
	case opContinuation:
		if !c.inMessage {
			return codec.CloseProtocol
		}
	case opClose, opPing, opPong:
		if !fin || code > controlBytesMax {
			return codec.CloseProtocol
		}
	default:
		return codec.CloseProtocol
	}
	return ""
}

// begin takes the frame on whose header is whole.
func (c *scanner) begin() codec.CloseReason {
	var length uint64
	switch code := c.header[1] & 0x7f; code {
	case 126:
		length = uint64(binary.BigEndian.Uint16(c.header[2:]))
	case 127:
		length = binary.BigEndian.Uint64(c.header[2:])
	default:
		length = uint64(code)
	}
	op := c.header[0] & 0x0f
	if op >= opClose {
		c.left = int(length)
		return ""
	}
	if op != opContinuation {
		c.fragments, c.message = 0, 0
	}
	c.fragments++
	if length > uint64(c.messageMax-c.message) || c.fragments > fragmentsMax {
		return codec.CloseTooBig
	}
	c.message += int(length)
	c.left = int(length)
	c.inMessage = c.header[0]&0x80 == 0
	return ""
}

// endFrame gets ready for the next header.
func (c *scanner) endFrame() { c.headerHave = 0 }

// resting tells that no frame and no message has begun.
func (c *scanner) resting() bool { return c.headerHave == 0 && !c.inMessage }
