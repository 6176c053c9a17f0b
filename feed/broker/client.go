// Package broker is Kafka: the only importer of kafka-go. It fulfils [feed.Log]
// on a cluster, follows per-symbol topics for a gateway, and writes for replay
// and market.
//
// It knows brokers, topics, partitions and bytes; it knows nothing of ticks.
//
// kafka-go gives the consumer group, the protocol's types and authentication.
// Fetching and producing are ours, a connection per broker instead of one per
// partition, because its Reader and Writer do not scale to a topic per symbol.
// Types here are safe for concurrent use unless they say otherwise.
package broker

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"tickgate/feed"
)

// SASL is how we prove who we are to brokers.
type SASL struct {
	Mechanism      string // "plain", "scram-sha-256" or "scram-sha-512"; "": none
	User, Password string
}

// Options configure a [Client]. A zero field means its default.
type Options struct {
	// Brokers are where to begin, host:port. At least one.
	Brokers []string

	// ClientID is how the brokers' logs and quotas call us.
	//
	// Defaults to "tickgate".
	ClientID string

	TLS  *tls.Config // nil: plain
	SASL SASL

	// Timeout bounds dialling, and each request beside what it waits for.
	//
	// Defaults to 10s; must be within [1s, 5m].
	Timeout time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	o.ClientID = cmp.Or(o.ClientID, "tickgate")
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	var faults []error
	if len(o.Brokers) == 0 {
		faults = append(faults, errors.New("Brokers: want at least one host:port"))
	}
	for _, b := range o.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			faults = append(faults, fmt.Errorf("Brokers %q: want host:port: %w", b, err))
		}
	}
	if o.Timeout < time.Second || o.Timeout > 5*time.Minute {
		faults = append(faults, fmt.Errorf("Timeout %v: want 1s to 5m", o.Timeout))
	}
	return errors.Join(faults...)
}

// Client reaches one cluster.
type Client struct {
	opts      Options
	mechanism sasl.Mechanism
	metrics   metrics

	mu      sync.Mutex
	control *conn // for metadata; nil if none is open
	addrs   map[int32]string
	leaders map[topicPartition]int32
}

type topicPartition struct {
	topic     string
	partition int32
}

func (tp topicPartition) String() string { return fmt.Sprintf("%s/%d", tp.topic, tp.partition) }

// New checks the options; it opens no connection.
func New(opts Options) (*Client, error) {
	opts = opts.withDefaults()
	c := &Client{opts: opts, metrics: newMetrics(opts.Registerer), addrs: map[int32]string{}, leaders: map[topicPartition]int32{}}
	err := opts.validate()
	switch m := opts.SASL; strings.ToLower(m.Mechanism) {
	case "":
	case "plain":
		c.mechanism = plain.Mechanism{Username: m.User, Password: m.Password}
	case "scram-sha-256", "scram-sha-512":
		algorithm := scram.SHA256
		if strings.HasSuffix(m.Mechanism, "512") {
			algorithm = scram.SHA512
		}
		mech, fault := scram.Mechanism(algorithm, m.User, m.Password)
		c.mechanism, err = mech, errors.Join(err, fault)
	default:
		err = errors.Join(err, fmt.Errorf("SASL mechanism %q: want plain, scram-sha-256 or scram-sha-512", m.Mechanism))
	}
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	return c, nil
}

// Close closes the client's own connection; writers and tailers have theirs.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.control != nil {
		c.control.Close()
		c.control = nil
	}
}

// conn is a connection to one broker, used by one goroutine at a time.
type conn struct {
	*protocol.Conn
	timeout  time.Duration
	clientID string
	nextID   int32
	in       []byte
	out      []byte
}

func (c *Client) dial(ctx context.Context, addr string) (_ *conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", addr, err)
	}
	if cfg := c.opts.TLS; cfg != nil {
		if cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName, _, _ = net.SplitHostPort(addr)
		}
		raw = tls.Client(raw, cfg)
	}
	k := &conn{Conn: protocol.NewConn(raw, c.opts.ClientID), timeout: c.opts.Timeout, clientID: c.opts.ClientID}
	defer func() {
		if err != nil {
			k.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { k.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	k.SetDeadline(time.Now().Add(c.opts.Timeout))
	res, err := k.RoundTrip(new(apiversions.Request))
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: it closed the connection; does it want TLS or SASL?", err)
		}
		return nil, fmt.Errorf("broker %s: %w", addr, err)
	}
	versions := make(map[protocol.ApiKey]int16)
	for _, v := range res.(*apiversions.Response).ApiKeys {
		key := protocol.ApiKey(v.ApiKey)
		versions[key] = key.SelectVersion(v.MinVersion, v.MaxVersion)
		for own, version := range ownVersions {
			if key == own && (v.MinVersion > version || v.MaxVersion < version) {
				return nil, fmt.Errorf("broker %s: speaks %s %d to %d, we speak %d: want Apache Kafka 2.8 or newer", addr, key, v.MinVersion, v.MaxVersion, version)
			}
		}
	}
	k.SetVersions(versions)
	if c.mechanism != nil {
		if err := authenticate(ctx, k, addr, c.mechanism); err != nil {
			return nil, fmt.Errorf("broker %s: SASL as %q: %w", addr, c.opts.SASL.User, err)
		}
	}
	return k, nil
}

// ownVersions are of the requests that we spell ourselves.
var ownVersions = map[protocol.ApiKey]int16{protocol.Produce: 8, protocol.Fetch: 11, protocol.Metadata: 10}

func authenticate(ctx context.Context, k *conn, addr string, m sasl.Mechanism) error {
	host, _, _ := net.SplitHostPort(addr)
	res, err := k.RoundTrip(&saslhandshake.Request{Mechanism: m.Name()})
	if err != nil {
		return err
	}
	if code := res.(*saslhandshake.Response).ErrorCode; code != 0 {
		return fmt.Errorf("mechanism %s: %w", m.Name(), kafka.Error(code))
	}
	session, state, err := m.Start(sasl.WithMetadata(ctx, &sasl.Metadata{Host: host}))
	if err != nil {
		return err
	}
	for done := false; !done; {
		res, err := k.RoundTrip(&saslauthenticate.Request{AuthBytes: state})
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: wrong user or password?", err)
		}
		if err != nil {
			return err
		}
		answer := res.(*saslauthenticate.Response)
		if answer.ErrorCode != 0 {
			return fmt.Errorf("%w: %s", kafka.Error(answer.ErrorCode), answer.ErrorMessage)
		}
		if done, state, err = session.Next(ctx, answer.AuthBytes); err != nil {
			return err
		}
	}
	return nil
}

// ask makes a request of one of kafka-go's types.
func (k *conn) ask(ctx context.Context, req protocol.Message) (protocol.Message, error) {
	stop := k.arm(ctx, 0)
	defer stop()
	res, err := k.RoundTrip(req)
	return res, k.named(err)
}

// named says whose fault it was: a broker that dies is an EOF, which tells
// nobody anything.
func (k *conn) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("broker %s: %w", k.RemoteAddr(), err)
}

// arm bounds the next exchange in time: our timeout after wait, or ctx.
func (k *conn) arm(ctx context.Context, wait time.Duration) (stop func() bool) {
	k.SetDeadline(time.Now().Add(wait + k.timeout))
	return context.AfterFunc(ctx, func() { k.SetDeadline(time.Unix(1, 0)) })
}

// begin begins a request that we spell ourselves.
func (k *conn) begin(key protocol.ApiKey) []byte {
	k.nextID++
	version := ownVersions[key]
	b := append(k.out[:0], 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(k.nextID))
	return appendText(b, k.clientID)
}

// exchange sends what begin began and returns the answer after its correlation
// id, valid until the next exchange.
func (k *conn) exchange(ctx context.Context, b []byte, wait time.Duration) ([]byte, error) {
	k.out = b
	stop := k.arm(ctx, wait)
	defer stop()
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if _, err := k.Write(b); err != nil {
		return nil, k.named(err)
	}
	var head [8]byte
	if _, err := io.ReadFull(k, head[:]); err != nil {
		return nil, k.named(err)
	}
	n := int(int32(binary.BigEndian.Uint32(head[:]))) - 4
	if n < 0 || n > responseBytesMax {
		return nil, fmt.Errorf("kafka: an answer of %d bytes", n)
	}
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != k.nextID {
		return nil, fmt.Errorf("kafka: answer to request %d, want %d", got, k.nextID)
	}
	if cap(k.in) < n || cap(k.in) > 4<<20 && n < cap(k.in)/16 {
		k.in = make([]byte, n+n/4)
	}
	in := k.in[:n]
	_, err := io.ReadFull(k, in)
	return in, k.named(err)
}

// TopicInfo is a Kafka topic as the cluster tells it.
type TopicInfo struct {
	Name       string
	ID         [16]byte
	Partitions int
}

// clusterInfo is one metadata answer.
type clusterInfo struct {
	controller int32
	topics     []topicInfo
}

type topicInfo struct {
	TopicInfo
	err     kafka.Error
	leaders map[int32]int32 // by partition; -1: none
}

// metadata asks for some topics, or for all if names is nil, and remembers
// brokers and leaders. Version 10 is the first to tell topic ids.
func (c *Client) metadata(ctx context.Context, names []string) (*clusterInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.control == nil {
		k, err := c.dialAnyLocked(ctx)
		if err != nil {
			return nil, err
		}
		c.control = k
	}
	b := append(c.control.begin(protocol.Metadata), 0) // no tags in the header
	if names == nil {
		b = append(b, 0)
	} else {
		b = binary.AppendUvarint(b, uint64(len(names))+1)
		for _, name := range names {
			b = append(b, make([]byte, 16)...)
			b = appendCompactText(b, name)
			b = append(b, 0)
		}
	}
	b = append(b, 0, 0, 0, 0) // create none, authorizations of neither, no tags
	answer, err := c.control.exchange(ctx, b, 0)
	if err == nil {
		var info *clusterInfo
		if info, err = c.learnLocked(answer); err == nil {
			return info, nil
		}
	}
	c.control.Close()
	c.control = nil
	return nil, err
}

func (c *Client) dialAnyLocked(ctx context.Context) (*conn, error) {
	addrs := slices.Clone(c.opts.Brokers)
	for _, a := range c.addrs {
		if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	var faults []error
	for _, a := range addrs {
		k, err := c.dial(ctx, a)
		if err == nil {
			return k, nil
		}
		faults = append(faults, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(faults...)
}

func (c *Client) learnLocked(answer []byte) (*clusterInfo, error) {
	d := decoder{b: answer}
	d.tags()
	d.int32() // throttle
	for n := d.uvarint() - 1; n > 0 && !d.bad; n-- {
		id, host, port := d.int32(), d.compactText(), d.int32()
		d.compactText()
		d.tags()
		c.addrs[id] = net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	d.compactText()
	info := &clusterInfo{controller: d.int32()}
	for n := d.uvarint() - 1; n > 0 && !d.bad; n-- {
		t := topicInfo{err: kafka.Error(d.int16()), leaders: map[int32]int32{}}
		t.Name = d.compactText()
		copy(t.ID[:], d.take(16))
		d.int8()
		for p := d.uvarint() - 1; p > 0 && !d.bad; p-- {
			d.int16()
			partition, leader := d.int32(), d.int32()
			d.int32()
			for range 3 {
				for r := d.uvarint() - 1; r > 0 && !d.bad; r-- {
					d.int32()
				}
			}
			d.tags()
			t.leaders[partition] = leader
		}
		d.int32()
		d.tags()
		t.Partitions = len(t.leaders)
		info.topics = append(info.topics, t)
	}
	if d.bad {
		return nil, errShort
	}
	for _, t := range info.topics {
		for p, leader := range t.leaders {
			tp := topicPartition{t.Name, p}
			if leader >= 0 && t.err == 0 {
				c.leaders[tp] = leader
			} else {
				delete(c.leaders, tp)
			}
		}
	}
	return info, nil
}

// Ping asks the cluster for nothing, to see that it answers.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.metadata(ctx, []string{})
	return err
}

// Wait returns when the cluster answers. Until then it says so, at once and
// then each minute.
func (c *Client) Wait(ctx context.Context) error {
	trouble := complaint{log: c.opts.Logger, what: "Kafka cannot be reached"}
	for {
		err := c.Ping(ctx)
		if err == nil {
			trouble.fine()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		trouble.fault(err)
		pause(ctx, time.Second)
	}
}

// Topics lists the Kafka topics whose names begin with prefix.
func (c *Client) Topics(ctx context.Context, prefix string) ([]TopicInfo, error) {
	info, err := c.metadata(ctx, nil)
	if err != nil {
		return nil, err
	}
	var list []TopicInfo
	for _, t := range info.topics {
		if t.err == 0 && strings.HasPrefix(t.Name, prefix) {
			list = append(list, t.TopicInfo)
		}
	}
	slices.SortFunc(list, func(a, b TopicInfo) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// TopicSpec is a Kafka topic to create. Zero fields are the cluster's defaults.
type TopicSpec struct {
	Name        string
	Partitions  int
	Replication int
	Configs     map[string]string
}

// topicCreateTime bounds the wait for topics to be there.
const topicCreateTime = 30 * time.Second

// CreateTopics creates those that do not exist, and returns when all have
// leaders.
func (c *Client) CreateTopics(ctx context.Context, specs []TopicSpec) error {
	if len(specs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, topicCreateTime)
	defer cancel()
	names := make([]string, len(specs))
	for i := range specs {
		names[i] = specs[i].Name
	}
	var last error
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		info, err := c.metadata(ctx, names)
		if err == nil {
			missing := slices.DeleteFunc(slices.Clone(specs), func(s TopicSpec) bool {
				return slices.ContainsFunc(info.topics, func(t topicInfo) bool {
					return t.Name == s.Name && t.err != kafka.UnknownTopicOrPartition
				})
			})
			if len(missing) > 0 {
				err = c.createTopics(ctx, info.controller, missing)
			} else {
				ready := true
				for _, t := range info.topics {
					if t.err != 0 && t.err != kafka.LeaderNotAvailable {
						return fmt.Errorf("Kafka topic %s: %w", t.Name, t.err)
					}
					for _, leader := range t.leaders {
						ready = ready && leader >= 0
					}
					ready = ready && len(t.leaders) > 0
				}
				if ready {
					return nil
				}
			}
		}
		var refused *refusedError
		if errors.As(err, &refused) {
			return err
		}
		if err != nil {
			last = err
		}
		if !pause(ctx, wait) {
			return errors.Join(ctx.Err(), last)
		}
	}
}

// refusedError is a request that the broker will never carry out.
type refusedError struct {
	what string
	err  error
}

func (e *refusedError) Error() string { return e.what + ": " + e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// Is makes every refusedError a [feed.ErrRefused].
func (e *refusedError) Is(target error) bool { return target == feed.ErrRefused }

func (c *Client) createTopics(ctx context.Context, controller int32, specs []TopicSpec) error {
	c.mu.Lock()
	addr, ok := c.addrs[controller]
	c.mu.Unlock()
	if !ok {
		return errors.New("the cluster has no controller yet")
	}
	k, err := c.dial(ctx, addr)
	if err != nil {
		return err
	}
	defer k.Close()
	req := &createtopics.Request{TimeoutMs: int32(c.opts.Timeout / time.Millisecond)}
	for _, s := range specs {
		t := createtopics.RequestTopic{Name: s.Name, NumPartitions: int32(cmp.Or(s.Partitions, 1)), ReplicationFactor: int16(cmp.Or(s.Replication, -1))}
		for name, value := range s.Configs {
			t.Configs = append(t.Configs, createtopics.RequestConfig{Name: name, Value: value})
		}
		req.Topics = append(req.Topics, t)
	}
	res, err := k.ask(ctx, req)
	if err != nil {
		return err
	}
	var faults []error
	for _, t := range res.(*createtopics.Response).Topics {
		switch code := kafka.Error(t.ErrorCode); {
		case code == 0 || code == kafka.TopicAlreadyExists:
		case code.Temporary() || code == kafka.NotController:
			return code
		default:
			err := fmt.Errorf("%w %s", code, t.ErrorMessage)
			if code == kafka.InvalidTopic && strings.Contains(t.ErrorMessage, "collides") {
				err = fmt.Errorf("%w: Kafka takes . and _ in names for the same", err)
			}
			faults = append(faults, &refusedError{"creating Kafka topic " + t.Name, err})
		}
	}
	return errors.Join(faults...)
}

// offsets asks the leaders for the first or the next offset of partitions.
func (c *Client) offsets(ctx context.Context, pool *pool, at int64, list []topicPartition) (map[topicPartition]int64, error) {
	byLeader, err := c.byLeader(ctx, list)
	if err != nil {
		return nil, err
	}
	found := make(map[topicPartition]int64, len(list))
	for leader, tps := range byLeader {
		byTopic := map[string][]listoffsets.RequestPartition{}
		for _, tp := range tps {
			byTopic[tp.topic] = append(byTopic[tp.topic], listoffsets.RequestPartition{Partition: tp.partition, CurrentLeaderEpoch: -1, Timestamp: at})
		}
		req := &listoffsets.Request{ReplicaID: -1}
		for topic, ps := range byTopic {
			req.Topics = append(req.Topics, listoffsets.RequestTopic{Topic: topic, Partitions: ps})
		}
		k, err := pool.get(ctx, leader)
		if err != nil {
			return nil, err
		}
		res, err := k.ask(ctx, req)
		if err != nil {
			pool.drop(leader)
			return nil, err
		}
		for _, t := range res.(*listoffsets.Response).Topics {
			for _, p := range t.Partitions {
				tp := topicPartition{t.Topic, p.Partition}
				if p.ErrorCode != 0 {
					c.forget(tp)
					return nil, fmt.Errorf("offsets of %v: %w", tp, kafka.Error(p.ErrorCode))
				}
				found[tp] = p.Offset
			}
		}
	}
	return found, nil
}

const (
	offsetFirst = -2
	offsetEnd   = -1
)

// Bounds are the first offset that a partition still has, and its end.
func (c *Client) Bounds(ctx context.Context, kafkaTopic string, partition int32) (first, end int64, err error) {
	reads := newPool(c)
	defer reads.close()
	return c.bounds(ctx, reads, topicPartition{kafkaTopic, partition})
}

func (c *Client) bounds(ctx context.Context, reads *pool, tp topicPartition) (first, end int64, err error) {
	firsts, err := c.offsets(ctx, reads, offsetFirst, []topicPartition{tp})
	if err != nil {
		return 0, 0, err
	}
	ends, err := c.offsets(ctx, reads, offsetEnd, []topicPartition{tp})
	return firsts[tp], ends[tp], err
}

// byLeader groups partitions by the broker that leads them.
func (c *Client) byLeader(ctx context.Context, list []topicPartition) (map[int32][]topicPartition, error) {
	for try := 0; ; try++ {
		groups := map[int32][]topicPartition{}
		unknown := map[string]bool{}
		c.mu.Lock()
		for _, tp := range list {
			if leader, ok := c.leaders[tp]; ok && c.addrs[leader] != "" {
				groups[leader] = append(groups[leader], tp)
			} else {
				unknown[tp.topic] = true
			}
		}
		c.mu.Unlock()
		if len(unknown) == 0 {
			return groups, nil
		}
		if try > 0 {
			for name := range unknown {
				return nil, fmt.Errorf("Kafka topic %s has no leader: %w", name, kafka.LeaderNotAvailable)
			}
		}
		names := make([]string, 0, len(unknown))
		for name := range unknown {
			names = append(names, name)
		}
		if _, err := c.metadata(ctx, names); err != nil {
			return nil, err
		}
	}
}

// forget makes the leader of a partition be asked for again.
func (c *Client) forget(tp topicPartition) {
	c.mu.Lock()
	delete(c.leaders, tp)
	c.mu.Unlock()
}

// pool holds one connection per broker for one goroutine.
type pool struct {
	client *Client
	conns  map[int32]*conn
}

func newPool(c *Client) *pool { return &pool{client: c, conns: map[int32]*conn{}} }

func (p *pool) get(ctx context.Context, broker int32) (*conn, error) {
	if k := p.conns[broker]; k != nil {
		return k, nil
	}
	p.client.mu.Lock()
	addr := p.client.addrs[broker]
	p.client.mu.Unlock()
	k, err := p.client.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	p.conns[broker] = k
	return k, nil
}

func (p *pool) drop(broker int32) {
	if k := p.conns[broker]; k != nil {
		k.Close()
		delete(p.conns, broker)
	}
}

func (p *pool) close() {
	for id := range p.conns {
		p.drop(id)
	}
}

// pause waits, and tells whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// complaint logs a lasting fault at once and then each minute, and its end.
type complaint struct {
	log   *slog.Logger
	what  string
	since time.Time
	told  time.Time
}

func (c *complaint) fault(err error) {
	now := time.Now()
	if c.since.IsZero() {
		c.since = now
	}
	if now.Sub(c.told) >= time.Minute {
		c.told = now
		c.log.Error(c.what+": still trying", "error", err, "for", now.Sub(c.since).Round(time.Second))
	}
}

func (c *complaint) fine() {
	if !c.since.IsZero() {
		c.log.Info(c.what+": works again", "after", time.Since(c.since).Round(time.Millisecond))
		c.since, c.told = time.Time{}, time.Time{}
	}
}
