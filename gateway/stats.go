package gateway

import "tickgate/gateway/shard"

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
		sum.Ledger.Delivered += st.Ledger.Delivered
		sum.Ledger.Merged += st.Ledger.Merged
		sum.Ledger.Filtered += st.Ledger.Filtered
		sum.Ledger.Dropped += st.Ledger.Dropped
		sum.Ledger.Snapshots += st.Ledger.Snapshots
	}
	return sum
}
