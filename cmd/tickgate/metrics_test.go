package main

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tickgate/codec"
	"tickgate/gateway/board"
)

// All states are exported from the start, with how many topics are in each.
func TestTopicsByState(t *testing.T) {
	b, err := board.New(board.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, symbol := range []string{"A", "B", "C"} {
		b.Declare(symbol, true)
	}
	b.SetState("A", codec.StateStale, 1, "no heartbeat from its feed")
	reg := prometheus.NewRegistry()
	registerBoard(reg, b)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "tickgate_board_topics_by_state" {
			for _, m := range f.GetMetric() {
				got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	if len(got) != 8 || got["loading"] != 2 || got["stale"] != 1 || got["live"] != 0 {
		t.Errorf("topics by state %v; want 2 loading, 1 stale and 0 of six others", got)
	}
}
