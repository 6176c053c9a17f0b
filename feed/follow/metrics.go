package follow

import "github.com/prometheus/client_golang/prometheus"

// metrics are what a follower counts, whether or not they are exported.
type metrics struct {
	records, repeats, bad prometheus.Counter
	topics                prometheus.Gauge
	age                   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		records: prometheus.NewCounter(prometheus.CounterOpts{Name: "tickgate_follow_records_total", Help: "Records of per-symbol topics published to the board."}),
		repeats: prometheus.NewCounter(prometheus.CounterOpts{Name: "tickgate_follow_repeats_total", Help: "Records left out because a newer or equal one had been published."}),
		bad:     prometheus.NewCounter(prometheus.CounterOpts{Name: "tickgate_follow_bad_records_total", Help: "Records that could not be decoded or stood in the wrong topic."}),
		topics:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "tickgate_follow_topics", Help: "Per-symbol Kafka topics followed."}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tickgate_follow_age_seconds",
			Help:    "From a raw message's Kafka timestamp to its record reaching the board.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}),
	}
	if reg != nil {
		reg.MustRegister(m.records, m.repeats, m.bad, m.topics, m.age)
	}
	return m
}
