package feed

import (
	"github.com/prometheus/client_golang/prometheus"

	"tickgate/codec"
)

// metrics are what a feed counts, whether or not they are exported.
type metrics struct {
	messages                              *prometheus.CounterVec // venue, kind
	ticks                                 [codec.KindStatus + 1]prometheus.Counter
	dead                                  *prometheus.CounterVec // reason
	lag                                   *prometheus.GaugeVec   // raw topic, partition
	repeats, again, refused, parked       prometheus.Counter
	late, ahead, epochs, lostRaw, foreign prometheus.Counter
	symbols, partitions                   prometheus.Gauge
	append                                prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) metrics {
	var all []prometheus.Collector
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "tickgate_feed_" + name, Help: help})
		all = append(all, c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "tickgate_feed_" + name, Help: help})
		all = append(all, g)
		return g
	}
	m := metrics{
		messages:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tickgate_feed_messages_total", Help: "Raw messages by what they were."}, []string{"venue", "kind"}),
		dead:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tickgate_feed_dead_letters_total", Help: "Dead letters by reason."}, []string{"reason"}),
		lag:        prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tickgate_feed_lag_messages", Help: "Raw messages that wait."}, []string{"topic", "partition"}),
		repeats:    counter("repeats_total", "Trades that the venue had told before, by their ids."),
		again:      counter("read_again_total", "Ticks read again after a take-over and left out."),
		refused:    counter("refused_ticks_total", "Ticks of symbols that could not be named or claimed."),
		parked:     counter("parked_ticks_total", "Ticks of symbols whose Kafka topic could not be written."),
		late:       counter("late_trades_total", "Trades and corrections of an earlier day."),
		ahead:      counter("future_trades_total", "Trades that opened no day because their event time is too far ahead."),
		epochs:     counter("epochs_total", "Numberings that began anew although the state was known."),
		foreign:    counter("foreign_records_total", "Bytes in per-symbol topics that were no records, met when a symbol was taken."),
		lostRaw:    counter("lost_messages_total", "Raw messages that retention deleted before they were read."),
		symbols:    gauge("symbols", "Symbols that this process has claimed."),
		partitions: gauge("partitions", "Raw partitions that this process owns."),
		append: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tickgate_feed_append_seconds", Help: "Appending a batch of records.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5, 30}}),
	}
	for _, reason := range []string{deadMalformed, deadSymbol, deadParked} {
		m.dead.WithLabelValues(reason) // so that an alert sees the first one
	}
	ticks := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tickgate_feed_ticks_total", Help: "Ticks stamped, by kind."}, []string{"kind"})
	for k := range m.ticks {
		if k > 0 {
			m.ticks[k] = ticks.WithLabelValues(codec.Kind(k).String())
		}
	}
	all = append(all, m.messages, m.dead, m.lag, m.append, ticks)
	if reg != nil {
		reg.MustRegister(all...)
	}
	return m
}
