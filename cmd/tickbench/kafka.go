package main

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"tickgate/bench"
	"tickgate/codec"
	"tickgate/feed"
	"tickgate/feed/broker"
	"tickgate/feed/embedded"
)

// rawSink writes ticks as Binance would tell them into a raw Kafka topic. Times
// are microseconds, as a stream with timeUnit=MICROSECOND has them; a quote has
// none.
type rawSink struct {
	client *broker.Client
	writer *broker.Writer
	topic  string
	list   []feed.Entry
	buf    []byte
	ends   []int
}

func kafkaSink(ctx context.Context, brokers, rawTopic string) (bench.Sink, io.Closer, error) {
	client, err := broker.New(broker.Options{Brokers: []string{brokers}, ClientID: "tickbench"})
	if err != nil {
		return nil, nil, err
	}
	if err := client.CreateTopics(ctx, []broker.TopicSpec{{Name: rawTopic, Partitions: 1}}); err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("raw topic %s: %w", rawTopic, err)
	}
	s := &rawSink{client: client, writer: client.NewWriter(broker.WriterOptions{}), topic: rawTopic}
	return s, s, nil
}

// Close ends the connections.
func (s *rawSink) Close() error {
	s.writer.Close()
	s.client.Close()
	return nil
}

// Add takes one tick.
func (s *rawSink) Add(t *bench.Tick) {
	b := s.buf
	if t.Kind == codec.KindQuote {
		q := &t.State.Quote
		b = codec.AppendUint(append(b, `{"u":`...), q.No)
		b = append(append(b, `,"s":"`...), t.Symbol...)
		b = q.Bid.AppendText(append(b, `","b":"`...))
		b = q.BidSize.AppendText(append(b, `","B":"`...))
		b = q.Ask.AppendText(append(b, `","a":"`...))
		b = q.AskSize.AppendText(append(b, `","A":"`...))
		b = append(b, `"}`...)
	} else {
		l := &t.State.Last
		b = codec.AppendUint(append(b, `{"e":"trade","E":`...), uint64(t.Due/1000))
		b = append(append(b, `,"s":"`...), t.Symbol...)
		b = codec.AppendUint(append(b, `","t":`...), l.ID)
		b = l.Price.AppendText(append(b, `,"p":"`...))
		b = l.Size.AppendText(append(b, `","q":"`...))
		b = codec.AppendUint(append(b, `","T":`...), uint64(t.Due/1000))
		if l.Side == codec.SideSell {
			b = append(b, `,"m":true,"M":true}`...)
		} else {
			b = append(b, `,"m":false,"M":true}`...)
		}
	}
	s.buf = b
	s.ends = append(s.ends, len(b))
	s.list = append(s.list, feed.Entry{KafkaTopic: s.topic, Key: []byte(t.Symbol), Time: t.Due})
}

// Flush writes what was added and waits until Kafka has it.
func (s *rawSink) Flush(ctx context.Context) error {
	from := 0
	for i, end := range s.ends {
		s.list[i].Value = s.buf[from:end]
		from = end
	}
	err := s.writer.Write(ctx, s.list)
	s.list, s.buf, s.ends = s.list[:0], s.buf[:0], s.ends[:0]
	return err
}

// newBroker is the Kafka that run starts if it is given none.
func newBroker() *cobra.Command {
	return &cobra.Command{
		Use:    "broker",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM)
			defer stop()
			b, err := embedded.Start(embedded.Options{Listen: "127.0.0.1:0"})
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "listening", b.Addr())
			<-ctx.Done()
			b.Close()
			return nil
		},
	}
}
