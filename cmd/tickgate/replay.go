package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tickgate/feed"
	"tickgate/feed/broker"
	"tickgate/feed/replay"
	"tickgate/feed/venue"
)

// replaySettings say what is replayed and how fast; dev --file has them too.
type replaySettings struct {
	venue     string
	format    string
	speed     string
	onBadLine string
}

func (s *replaySettings) options(kafkaTopic string) (replay.Options, error) {
	v, err := lookupVenue(s.venue)
	if err != nil {
		return replay.Options{}, err
	}
	speed, err := replay.ParseSpeed(s.speed)
	if err != nil {
		return replay.Options{}, fmt.Errorf("%w: --speed: %w", errUsage, err)
	}
	onBad, err := replay.ParseOnBadLine(s.onBadLine)
	if err != nil {
		return replay.Options{}, fmt.Errorf("%w: --on-bad-line: %w", errUsage, err)
	}
	if kafkaTopic == "" {
		kafkaTopic = rawTopic(v.Name)
	}
	if err := feed.CheckKafkaTopic(kafkaTopic); err != nil {
		return replay.Options{}, fmt.Errorf("%w: --topic: %w", errUsage, err)
	}
	return replay.Options{Venue: v, KafkaTopic: kafkaTopic, Format: s.format, Speed: speed, OnBadLine: onBad}, nil
}

func lookupVenue(name string) (venue.Venue, error) {
	v, ok := venue.Lookup(name)
	if !ok {
		var names []string
		for _, v := range venue.All() {
			names = append(names, v.Name)
		}
		return v, fmt.Errorf("%w: --venue %q: want one of %s", errUsage, name, strings.Join(names, ", "))
	}
	return v, nil
}

func rawTopic(venueName string) string { return "raw." + venueName }

func newReplay() *cobra.Command {
	var c common
	var k kafkaSettings
	var s replaySettings
	var kafkaTopic string
	var from []string
	cmd := &cobra.Command{
		Use:   "replay FILE...",
		Short: "Put tick files into a raw Kafka topic",
		Long: `Puts recorded venue messages into a raw Kafka topic, byte for byte, keyed by
venue symbol, at the pace at which they were recorded, faster, or as fast as
Kafka takes them. Files may be gzip or zstd; several are merged by their times.

Formats: raw     "<Unix ns> <message>" a line
         rec     "<Unix s.frac>: <message>" a line
         ndjson  a message a line, without times`,
		Example: `  tickgate replay --venue binance --speed 10 spot_btcusdt.raw.gz
  tickgate replay --venue coinbase --speed max --on-bad-line skip capture.rec.gz`,
		Args: atLeastOne("FILE"),
		RunE: func(cmd *cobra.Command, files []string) error {
			log, err := c.load(cmd)
			if err != nil {
				return err
			}
			opts, err := s.options(kafkaTopic)
			if err != nil {
				return err
			}
			if opts.From, err = positions(from); err != nil {
				return err
			}
			client, err := k.client(log, nil)
			if err != nil {
				return err
			}
			defer client.Close()
			if err := client.Wait(cmd.Context()); err != nil {
				return nil // interrupted
			}
			if err := client.CreateTopics(cmd.Context(), []broker.TopicSpec{{Name: opts.KafkaTopic, Partitions: 1}}); err != nil {
				if cmd.Context().Err() != nil {
					return nil // interrupted
				}
				return fmt.Errorf("raw topic %s: %w", opts.KafkaTopic, err)
			}
			writer := client.NewWriter(broker.WriterOptions{})
			defer writer.Close()
			opts.Files, opts.Sink = files, writer
			return runReplay(cmd, opts)
		},
	}
	f := cmd.Flags()
	c.flags(f)
	k.flags(f)
	f.StringVar(&s.venue, "venue", "binance", "whose messages these are: "+venueNames())
	f.StringVar(&kafkaTopic, "topic", "", "raw Kafka topic to write to; raw.<venue> by default")
	f.StringVar(&s.format, "format", "", "raw, rec or ndjson; found out from the first line by default")
	f.StringVar(&s.speed, "speed", "1", "1 is the recorded pace, 10 ten times that, max as fast as Kafka takes it")
	f.StringVar(&s.onBadLine, "on-bad-line", "stop", "stop, or skip it and count it")
	f.StringSliceVar(&from, "from", nil, "go on behind `FILE:LINE`, as an interrupted replay tells")
	return cmd
}

// positions reads --from.
func positions(from []string) ([]replay.Position, error) {
	var list []replay.Position
	for _, text := range from {
		i := strings.LastIndexByte(text, ':')
		line, err := strconv.ParseInt(text[i+1:], 10, 64)
		if i < 1 || err != nil || line < 0 {
			return nil, fmt.Errorf("%w: --from %q: want FILE:LINE", errUsage, text)
		}
		list = append(list, replay.Position{File: text[:i], Line: line})
	}
	return list, nil
}

// goOn is how to go on with a replay that was interrupted.
func goOn(p replay.Progress) string {
	var texts []string
	for _, at := range p.Positions {
		texts = append(texts, fmt.Sprintf("%s:%d", at.File, at.Line))
	}
	return "--from " + strings.Join(texts, ",")
}

func venueNames() string {
	var names []string
	for _, v := range venue.All() {
		names = append(names, v.Name)
	}
	return strings.Join(names, ", ")
}

// atLeastOne is cobra's check with an error that says what is missing.
func atLeastOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%w: %s needs at least one %s", errUsage, cmd.CommandPath(), what)
		}
		return nil
	}
}
