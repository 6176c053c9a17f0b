package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"tickgate/codec"
)

// metrics are what a server counts of its clients; shards count what is sent.
type metrics struct {
	sessions    *prometheus.GaugeVec   // subprotocol
	opened      *prometheus.CounterVec // subprotocol
	closed      *prometheus.CounterVec // reason
	refused     *prometheus.CounterVec // limit
	requests    *prometheus.CounterVec // code: HTTP answers that were no upgrade
	commands    *prometheus.CounterVec // op
	badCommands *prometheus.CounterVec // code
	draining    prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tickgate", Subsystem: "gateway", Name: name, Help: help}, labels)
	}
	m := &metrics{
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tickgate", Subsystem: "gateway",
			Name: "sessions", Help: "Clients connected now."}, []string{"subprotocol"}),
		opened:      counter("sessions_opened_total", "Clients that were upgraded.", "subprotocol"),
		closed:      counter("sessions_closed_total", "Clients that ended, by reason.", "reason"),
		refused:     counter("refused_total", "Connections and upgrades refused, by limit.", "limit"),
		requests:    counter("bad_upgrades_total", "Requests for the WebSocket that were none, by HTTP status.", "code"),
		commands:    counter("commands_total", "Commands taken, by op.", "op"),
		badCommands: counter("bad_commands_total", "Frames that were no command, by error code.", "code"),
		draining: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "tickgate", Subsystem: "gateway",
			Name: "draining", Help: "1 while this node sends its clients away."}),
	}
	for _, c := range []prometheus.Collector{m.sessions, m.opened, m.closed, m.refused, m.requests, m.commands, m.badCommands, m.draining} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	for _, limit := range []string{limitPending, limitConnections, limitAddress, limitRate, limitDraining} {
		m.refused.WithLabelValues(limit) // so that an alert sees 0 and not nothing
	}
	for _, reason := range []codec.CloseReason{codec.CloseNormal, codec.CloseStalled, codec.CloseDead, codec.CloseGone} {
		m.closed.WithLabelValues(string(reason))
	}
	return m, nil
}
