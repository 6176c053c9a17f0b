package broker

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	produced, produceRetries, fetched, fetchFaults prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tickgate_kafka_" + name, Help: help})
	}
	m := metrics{
		produced:       counter("produced_records_total", "Records that brokers have acknowledged."),
		produceRetries: counter("produce_retries_total", "Rounds of producing in which no batch came through."),
		fetched:        counter("fetched_records_total", "Records fetched."),
		fetchFaults:    counter("fetch_faults_total", "Fetches that failed and were tried again."),
	}
	if reg != nil {
		reg.MustRegister(m.produced, m.produceRetries, m.fetched, m.fetchFaults)
	}
	return m
}
