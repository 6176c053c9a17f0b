// Package socket is one client connection, bytes only: it takes whole frames,
// never blocks, and says when the client takes no more.
//
// It knows TCP, TLS and WebSocket framing, and is the only importer of gws; it
// knows nothing of ticks, symbols, dialects or subscriptions.
//
// A connection begins as an ordinary one with deadlines (TLS handshake, HTTP,
// the 101 answer) and is switched when it has been upgraded. From then on a
// write hands bytes to the kernel, keeps what the kernel did not take as the
// remainder, which is bounded, and returns; there is no deadline on the data
// path and nothing of gws is written. gws does the handshake and puts inbound
// messages together, behind a guard that has checked every frame header, since
// gws allocates by the length that a header claims and does not show fragments.
//
// A shard calls [Socket.Ready], [Socket.WriteFrame], [Socket.Flush] and
// [Socket.Tick]; anybody may call [Socket.Close]. No goroutine is parked for a
// socket: those of [Upgrader.Run] read for all, one goes to see out each that
// closes. Three short locks are taken in this order: the socket's (whole frames,
// the close state), then, within crypto/tls if there is TLS, the wire's (the
// remainder), then the readers' (who has something to read). None is ever held
// across anything that waits.
package socket

// HeaderRoom is the room for a server frame's header before the payload: a
// frame of at most 64 KiB needs no more.
const HeaderRoom = 4

// FrameMax bounds the payload of a frame: what a slow client may be in the
// middle of, and so what is kept for it, is one frame.
const FrameMax = 16 << 10
