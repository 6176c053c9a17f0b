package follow

import (
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
)

// How fresh is fresh. Together with the 100 ms between two looks, a client is
// told of a dead feed within 2 s of its last heartbeat.
const (
	// heartbeatMax is three heartbeats of a feed, which writes one each 0.5 s.
	heartbeatMax = 1500 * time.Millisecond
	// lagMax is how old the raw message a feed is at may be while newer ones wait.
	lagMax = 2 * time.Second
	// quietAfter is how long a symbol may be without a tick and still be live.
	quietAfter = 5 * time.Second
	// gapTold is how long a gap stays the topic's state: longer than any
	// client's cadence. The totals never tell of it again.
	gapTold = 5 * time.Second
	// judgePeriod is the time between two looks at all topics.
	judgePeriod = 100 * time.Millisecond
)

// source is what the heartbeats of one raw partition tell. Times are ours, by
// the monotonic clock: the clocks of a feed and a gateway need not agree.
type source struct {
	beatAt     time.Time     // when the last heartbeat came; zero: none yet
	wordAt     time.Time     // when the venue was last heard, as the heartbeats tell
	lastWord   int64         // raw timestamp of the venue's last message
	silenceMax time.Duration // of the venue; 0: it may be silent for ever
	behind     bool          // raw messages wait, and the one it is at is old
	started    time.Time     // when we began to listen for it
}

// topic is what a follower knows of one symbol.
type topic struct {
	symbol string // fixed; "": a Kafka topic that is no symbol's, left alone

	rec record.Record // the goroutine's that hands records over

	// Guarded by Follower.mu.
	loaded  bool      // its newest record has come, or it is known to have none
	tickAt  time.Time // when its last record came; zero: never
	gapAt   time.Time // when a gap was told; zero: never
	status  codec.VenueStatus
	source  sourceID
	told    codec.TopicState // what the board was told last
	toldWhy string
}

// judge says what state a topic is in, and why if that is no matter of course.
func judge(now time.Time, t *topic, s *source) (codec.TopicState, string) {
	switch {
	case !t.loaded:
		return codec.StateLoading, ""
	case s == nil: // it never traded: no feed is known to hold it
		return codec.StateQuiet, ""
	case s.beatAt.IsZero():
		if now.Sub(s.started) <= heartbeatMax {
			return codec.StateLoading, ""
		}
		return codec.StateStale, "no heartbeat from its feed"
	case now.Sub(s.beatAt) > heartbeatMax:
		return codec.StateStale, "no heartbeat from its feed"
	case s.behind:
		return codec.StateStale, "its feed lags behind the venue"
	case t.status == codec.VenueStatusHalted:
		return codec.StateHalted, "the venue halted trading"
	case t.status == codec.VenueStatusClosed:
		return codec.StateClosed, "the venue is closed"
	case s.silenceMax > 0 && now.Sub(s.wordAt) > s.silenceMax:
		return codec.StateStale, "no word from the venue"
	case !t.gapAt.IsZero() && now.Sub(t.gapAt) <= gapTold:
		return codec.StateGap, "raw messages were lost before they were read"
	case now.Sub(t.tickAt) > quietAfter:
		return codec.StateQuiet, ""
	}
	return codec.StateLive, ""
}

// beat takes a heartbeat that came now.
func (s *source) beat(now time.Time, hb *record.Heartbeat) {
	switch {
	case s.beatAt.IsZero(): // the feed's own clock says how long it has been
		s.wordAt = now.Add(-max(0, time.Duration(hb.Time-hb.LastTime)))
	case hb.LastTime != s.lastWord:
		s.wordAt = now
	}
	s.beatAt = now
	s.lastWord = hb.LastTime
	s.behind = hb.Position < hb.End && hb.Time-hb.LastTime > int64(lagMax)
}
