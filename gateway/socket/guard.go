package socket

import (
	"errors"
	"io"
	"net"
	"time"

	"tickgate/codec"
)

const (
	// heldFrameMin is the payload from which on a frame is gathered here and
	// shown to gws when it is whole: gws would allocate all that its header
	// claims, for as long as the client cares to wait. Only a long subscribe
	// or set is that long.
	heldFrameMin = codec.SmallCommandBytesMax

	// readBufferBytes is what gws reads with. Commands are short.
	readBufferBytes = 512
)

// errRefused ends gws's reading; why stands in guard.reason.
var errRefused = errors.New("socket: refused what the client sent")

// guard is the connection that gws sees. Reading passes on frames that the
// scanner allowed and that came within the limits; what gws writes, which is
// only ever its own close frame, is noted and goes nowhere.
type guard struct {
	net.Conn // the wire, or TLS over it
	s        *Socket

	// Owned by the goroutine that reads.
	early   []byte // came behind the request, before the answer to it
	scan    scanner
	frames  bucket
	reason  codec.CloseReason // why reading was refused
	gwsCode uint16            // of the close frame that gws wanted to send

	// Bytes on their way to gws that were gathered here: those below ready may
	// be shown. Empty but for long frames.
	held      []byte
	heldShown int
	heldReady int
	gathering bool
}

// Read passes on what may be passed on; p must have room for a header.
func (g *guard) Read(p []byte) (int, error) {
	if g.s.upgrading {
		return g.Conn.Read(p)
	}
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
		if g.heldShown > 0 { // the rest of held is a frame that is not whole
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

func (g *guard) fill(b []byte) (int, error) {
	if len(g.early) > 0 {
		n := copy(b, g.early)
		if g.early = g.early[n:]; len(g.early) == 0 {
			g.early = nil
		}
		return n, nil
	}
	return g.Conn.Read(b)
}

// pass appends to dst what of b gws may see.
func (g *guard) pass(dst, b []byte) []byte {
	now := monotonic()
	begun := g.scan.resting()
	for len(b) > 0 {
		if g.scan.left == 0 {
			n, whole, reason := g.scan.takeHeader(b)
			b = b[n:]
			if whole && reason == "" && !g.frames.take(now, 1) {
				reason = codec.CloseTooFast
			}
			if reason != "" {
				g.reason = reason
				return dst
			}
			if !whole {
				break
			}
			if g.scan.left > heldFrameMin {
				g.gathering = true
			}
			dst = g.emit(dst, g.scan.header[:g.scan.headerHave])
		}
		n := min(len(b), g.scan.left)
		dst = g.emit(dst, b[:n])
		b = b[n:]
		if g.scan.left -= n; g.scan.left == 0 {
			g.gathering = false
			g.heldReady = len(g.held)
			g.scan.endFrame()
			begun = begun || !g.scan.inMessage
		}
	}
	switch {
	case g.scan.resting():
		g.s.messageBegan.Store(0)
	case begun:
		g.s.messageBegan.Store(int64(now))
	}
	return dst
}

// emit appends b to what is being gathered, if anything is, else to dst.
func (g *guard) emit(dst, b []byte) []byte {
	if !g.gathering && len(g.held) == 0 {
		return append(dst, b...)
	}
	g.held = append(g.held, b...)
	if !g.gathering {
		g.heldReady = len(g.held)
	}
	return dst
}

// Write answers the upgrade; later it only notes what gws wants to close with.
func (g *guard) Write(b []byte) (int, error) {
	if g.s.upgrading {
		return g.Conn.Write(b)
	}
	if len(b) >= 4 && b[0]&0x0f == opClose {
		g.gwsCode = uint16(b[2])<<8 | uint16(b[3])
	}
	return len(b), nil
}

// Close is the socket's business.
func (g *guard) Close() error { return nil }

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
