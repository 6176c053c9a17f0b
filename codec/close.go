package codec

// CloseReason is why a connection ended: the metric label, the log field, the
// text of the close frame and, through [CloseReason.Code], its code.
type CloseReason string

// The reasons. Of our own codes, 41xx are worth another try and 42xx are not;
// [CloseReason.Retryable] tells it of all.
const (
	CloseNormal       CloseReason = "normal"       // the client closed
	CloseDraining     CloseReason = "draining"     // this node is leaving; reconnect elsewhere
	CloseOverload     CloseReason = "overload"     // this node is full; come back later
	CloseStalled      CloseReason = "stalled"      // took nothing for too long
	CloseDead         CloseReason = "dead"         // nothing heard at TCP level
	CloseProtocol     CloseReason = "protocol"     // broke the WebSocket protocol
	CloseTooBig       CloseReason = "too-big"      // a message beyond its bound
	CloseTooFast      CloseReason = "too-fast"     // more messages or bytes than allowed
	CloseBadCommand   CloseReason = "bad-command"  // too many frames that are no command
	CloseSlowMessage  CloseReason = "slow-message" // a message not complete in time
	CloseUnauthorized CloseReason = "unauthorized" // no valid token
	CloseExpired      CloseReason = "expired"      // the token's time is over
	CloseInternal     CloseReason = "internal"     // our fault
	CloseGone         CloseReason = "gone"         // the peer vanished (no close frame)
)

// Code is the WebSocket close code of r.
func (r CloseReason) Code() uint16 {
	switch r {
	case CloseNormal, CloseGone:
		return 1000
	case CloseDraining:
		return 1012
	case CloseOverload:
		return 1013
	case CloseProtocol:
		return 1002
	case CloseTooBig:
		return 1009
	case CloseInternal:
		return 1011
	case CloseStalled:
		return 4100
	case CloseDead:
		return 4101
	case CloseExpired:
		return 4102
	case CloseTooFast:
		return 4200
	case CloseBadCommand:
		return 4201
	case CloseSlowMessage:
		return 4202
	case CloseUnauthorized:
		return 4203
	}
	return 1011
}

// Retryable tells whether the same client may succeed by connecting again.
func (r CloseReason) Retryable() bool {
	switch r {
	case CloseProtocol, CloseTooBig, CloseTooFast, CloseBadCommand, CloseSlowMessage, CloseUnauthorized:
		return false
	}
	return true
}
