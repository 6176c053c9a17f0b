package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"tickgate/gateway/shard"
)

// registerStats exports what the shards count. The ledger's counters are those
// of all sessions, live and closed.
func (s *Server) registerStats(reg prometheus.Registerer) error {
	for _, m := range []struct {
		name, help string
		gauge      bool
		of         func(*shard.Stats) float64
	}{
		{"subscriptions", "Subscriptions of all clients.", true, func(st *shard.Stats) float64 { return float64(st.Subscriptions) }},
		{"owing", "Clients whose sockets take nothing now.", true, func(st *shard.Stats) float64 { return float64(st.Owing) }},
		{"frames_total", "Frames handed to sockets.", false, func(st *shard.Stats) float64 { return float64(st.Frames) }},
		{"frame_bytes_total", "Payload bytes of those frames.", false, func(st *shard.Stats) float64 { return float64(st.Bytes) }},
		{"events_lost_total", "Answers to clients that did not read them.", false, func(st *shard.Stats) float64 { return float64(st.EventsLost) }},
		{"ticks_delivered_total", "Ticks carried by a frame that the kernel took whole.", false, func(st *shard.Stats) float64 { return float64(st.Ledger.Delivered) }},
		{"ticks_merged_total", "Ticks for which a later value stood.", false, func(st *shard.Stats) float64 { return float64(st.Ledger.Merged) }},
		{"ticks_filtered_total", "Ticks that clients' filters left out.", false, func(st *shard.Stats) float64 { return float64(st.Ledger.Filtered) }},
		{"ticks_dropped_total", "Ticks that left the ring, or were pending when a client went.", false, func(st *shard.Stats) float64 { return float64(st.Ledger.Dropped) }},
		{"ticks_pending", "Ticks that were offered to clients and are none of the others yet. Below 0 the ledger is wrong.", true, func(st *shard.Stats) float64 { return float64(int64(st.Ledger.Pending)) }},
		{"snapshots_total", "Snapshots sent.", false, func(st *shard.Stats) float64 { return float64(st.Ledger.Snapshots) }},
	} {
		f := func() float64 { st := s.Stats(); return m.of(&st) }
		var c prometheus.Collector
		if m.gauge {
			c = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "tickgate", Subsystem: "gateway", Name: m.name, Help: m.help}, f)
		} else {
			c = prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "tickgate", Subsystem: "gateway", Name: m.name, Help: m.help}, f)
		}
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// Stats sums what the shards have counted.
func (s *Server) Stats() shard.Stats {
	var sum shard.Stats
	for _, sh := range s.shards {
		st := sh.Stats()
		sum.Sessions += st.Sessions
		sum.Subscriptions += st.Subscriptions
		sum.Owing += st.Owing
		sum.Frames += st.Frames
		sum.Bytes += st.Bytes
		sum.Rows += st.Rows
		sum.Events += st.Events
		sum.EventsLost += st.EventsLost
		sum.Ledger.Add(st.Ledger)
	}
	return sum
}
