package socket

import (
	"errors"
	"io"
	"net"
	"time"

	"tickgate/codec"
)

// errRefused ends gws's reading; why stands in guard.reason.
var errRefused = errors.New("socket: refused what the client sent")

// guard stands between a socket and gws. It passes on messages that are whole,
// whose frames the scanner allowed and that came within the limits. gws would
// allocate all that a header claims, for as long as the client cares to wait; and
// a desk that has begun a message could read for nobody else.
type guard struct {
	in net.Conn // the wire, or TLS over it
	s  *Socket

	// Owned by whoever holds Socket.reading.
	early   []byte // came behind the request, before the answer to it
	scan    scanner
	frames  bucket
	reason  codec.CloseReason // why reading was refused
	gwsCode uint16            // of the close frame that gws wanted to send

	// Bytes on their way to gws that were gathered here: those below ready may
	// be shown. Empty but for messages that came in pieces.
	held      []byte
	heldShown int
	heldReady int
}

// heldSpare is how much may be held besides a message's most: headers, and control
// frames between its fragments. It is half of that.
func (g *guard) heldSpare() int { return g.scan.messageMax / 2 }

// Read passes on what may be passed on; p must have room for a header.
func (g *guard) Read(p []byte) (int, error) {
	if len(p) < 2*headerBytesMax {
		return 0, io.ErrShortBuffer
	}
	for {
		if g.heldShown < g.heldReady {
			n := copy(p, g.held[g.heldShown:g.heldReady])
			if g.heldShown += n; g.heldShown == len(g.held) {
				g.held, g.heldShown, g.heldReady = nil, 0, 0
			}
			return n, nil
		}
		if g.reason != "" {
			return 0, errRefused
		}
		if g.heldShown > 0 { // the rest of held is a message that is not whole
			g.held = append(g.held[:0], g.held[g.heldShown:]...)
			g.heldShown, g.heldReady = 0, 0
		}
		// A header that came in part is kept back; room for it stays before
		// what is read now, so that bytes only ever move towards the front.
		in := p[headerBytesMax:]
		n, err := g.fill(in)
		if g.s.closing() {
			return 0, errRefused
		}
		out := g.pass(p[:0], in[:n])
		if len(out) > 0 {
			return len(out), nil // an error comes again, or is in g.reason
		}
		if err != nil && g.heldShown == g.heldReady {
			return 0, err
		}
	}
}

// between tells that all that has been passed on is whole messages.
func (g *guard) between() bool { return g.heldShown == g.heldReady }

func (g *guard) fill(b []byte) (int, error) {
	if len(g.early) > 0 {
		n := copy(b, g.early)
		if g.early = g.early[n:]; len(g.early) == 0 {
			g.early = nil
		}
		return n, nil
	}
	return g.in.Read(b)
}

// pass appends to dst what of b gws may see, and holds what it may see later.
func (g *guard) pass(dst, b []byte) []byte {
	now := monotonic()
	begun := g.scan.resting()
	whole := 0 // of dst: the messages that are
	for len(b) > 0 {
		if g.scan.left == 0 {
			n, complete, reason := g.scan.takeHeader(b)
			b = b[n:]
			if complete && reason == "" && !g.frames.take(now, 1) {
				reason = codec.CloseTooFast
			}
			if reason != "" {
				g.reason = reason
				return dst[:whole]
			}
			if !complete {
				break
			}
			dst = g.emit(dst, g.scan.header[:g.scan.headerHave])
		}
		n := min(len(b), g.scan.left)
		dst = g.emit(dst, b[:n])
		b = b[n:]
		if g.scan.left -= n; g.scan.left == 0 {
			g.scan.endFrame()
			begun = begun || !g.scan.inMessage
			if g.scan.resting() {
				whole, g.heldReady = len(dst), len(g.held)
			}
		}
	}
	if len(dst) > whole {
		g.held = append(g.held, dst[whole:]...)
	}
	if len(g.held)-g.heldReady > g.scan.messageMax+g.heldSpare() {
		g.reason = codec.CloseTooBig
	}
	switch {
	case g.scan.resting():
		g.s.messageBegan.Store(0)
	case begun:
		g.s.messageBegan.Store(int64(now))
	}
	return dst[:whole]
}

// emit appends b to what is held, if anything is, else to dst.
func (g *guard) emit(dst, b []byte) []byte {
	if len(g.held) == 0 {
		return append(dst, b...)
	}
	g.held = append(g.held, b...)
	return dst
}

// started is the zero of monotonic.
var started = time.Now()

// monotonic is the time since the process began to use sockets.
func monotonic() time.Duration { return time.Since(started) }

// bucket is a rate limit with a burst: the time at which it would be full
// again if all that was taken had been taken at the rate.
type bucket struct {
	each  time.Duration // that one unit takes at the rate; 0: no limit
	burst time.Duration // how far ahead of the rate is allowed
	full  time.Duration
}

// newBucket allows perSecond and a burst of burst units; 0 is no limit.
func newBucket(perSecond, burst int) bucket {
	if perSecond <= 0 {
		return bucket{}
	}
	each := time.Second / time.Duration(perSecond)
	return bucket{each: each, burst: each * time.Duration(burst)}
}

// take takes n units, and tells whether that was within the limit.
func (b *bucket) take(now time.Duration, n int) bool {
	if b.each == 0 {
		return true
	}
	b.full = max(b.full, now) + b.each*time.Duration(n)
	return b.full-now <= b.burst
}

// giveBack returns n units.
func (b *bucket) giveBack(n int) { b.full -= b.each * time.Duration(n) }
