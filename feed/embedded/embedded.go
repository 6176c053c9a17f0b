// Package embedded is a broker that speaks the Kafka protocol within this
// process, for `tickgate dev` and for tests: nothing to install.
//
// It is kfake on loopback, with its retention set so that a market which plays
// for ever does not fill memory. It keeps nothing when it ends, has no
// replicas, and fences at once where a real broker has a window.
package embedded

import (
	"cmp"
	"fmt"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Options configure a [Broker]. A zero field means its default.
type Options struct {
	// Listen is the address of the broker; port 0 takes any.
	//
	// Defaults to 127.0.0.1:9092.
	Listen string
}

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
}

// retentionPeriod is the time between two looks for what retention may delete,
// in milliseconds: at 100,000 records/s of 150 bytes it bounds what is too much
// at 15 MB.
const retentionPeriod = 1000

// Start listens and serves. errors.Is(err, syscall.EADDRINUSE) tells a taken
// port.
func Start(opts Options) (*Broker, error) {
	address := cmp.Or(opts.Listen, "127.0.0.1:9092")
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.Ports(number),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return listener, nil }),
		kfake.BrokerConfigs(map[string]string{
			"log.cleaner.backoff.ms": strconv.Itoa(retentionPeriod),
			"log.retention.ms":       "-1", // by size only: replayed records are years old
		}),
	)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	return &Broker{cluster: cluster, addr: listener.Addr().String()}, nil
}

// Addr is where it listens, host:port.
func (b *Broker) Addr() string { return b.addr }

// Close ends the broker and its connections.
func (b *Broker) Close() { b.cluster.Close() }
