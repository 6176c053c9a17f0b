package main

import (
	"testing"

	"tickgate/codec"
)

// What went wrong and came right again is told, once each; what was never wrong
// is not.
func TestNotices(t *testing.T) {
	wrong := notices{}
	for i, tt := range []struct {
		symbol string
		state  codec.TopicState
		want   string
	}{
		{"A", codec.StateLive, ""},
		{"A", codec.StateStale, "A is stale: why"},
		{"B", codec.StateQuiet, ""},
		{"A", codec.StateQuiet, "A is quiet again"},
		{"A", codec.StateLive, ""},
		{"B", codec.StateGap, "B is gap: why"},
		{"B", codec.StateLive, "B is live again"},
	} {
		e := codec.Event{Type: codec.EventState, Symbol: tt.symbol, State: tt.state, Why: "why"}
		if got := wrong.of(&e); got != tt.want {
			t.Errorf("%d: %q, want %q", i, got, tt.want)
		}
	}
}
