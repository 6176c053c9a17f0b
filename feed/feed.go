package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tickgate/codec"
	"tickgate/feed/venue"
)

// The Kafka topics that a feed writes.
const (
	TickTopicPrefix = "ticks."     // and the symbol
	DeadTopic       = "ticks-dead" // what could not be used, and why
	HeartbeatTopic  = "ticks-feed" // twice a second, of each raw partition
)

// Bounds of a feed.
const (
	// heartbeatPeriod lets a gateway miss two heartbeats within the 1.5 s
	// after which it calls a source stale.
	heartbeatPeriod = 500 * time.Millisecond
	// commitPeriod is how old the committed raw offset may be: what is read
	// again after a crash, and left out again.
	commitPeriod = 200 * time.Millisecond
	// ticksMax bounds the ticks of one append; the poll's bytes bound them
	// too, but a hostile message could hold many.
	ticksMax = 64 << 10
	// restampMax is how often a symbol whose write failed is fenced, read back
	// and written again before it is parked.
	restampMax = 3
	// parkTime is how long a parked symbol's ticks go to the dead letters
	// before it is tried again.
	parkTime = 30 * time.Second
	// claimPeriod is how often a symbol that is somebody else's is told of.
	claimPeriod = time.Minute
	// deadBytesMax bounds the original in a dead letter, below what a broker
	// takes by default.
	deadBytesMax = 512 << 10
	// finishTime bounds what an owner still does when it is to stop.
	finishTime = 2 * time.Second
)

// RawTopic is a Kafka topic of raw messages and the venue whose they are.
type RawTopic struct {
	KafkaTopic string
	Venue      venue.Venue
}

// Options configure a [Feed]. A zero field means its default.
type Options struct {
	Log       Log
	RawTopics []RawTopic

	// Template names symbols by "{symbol}" and "{venue}".
	//
	// Defaults to "{symbol}" with one raw topic, "{symbol}.{venue}" with more.
	Template string

	// SymbolsMax bounds the symbols that are ever made, and SymbolsPerMinute
	// the new ones: what a broken producer can create.
	//
	// Default to 10000 and 200.
	SymbolsMax, SymbolsPerMinute int

	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: counted, not exported
}

func (o Options) withDefaults() Options {
	if o.Template == "" {
		o.Template = "{symbol}"
		if len(o.RawTopics) > 1 {
			o.Template = "{symbol}.{venue}"
		}
	}
	o.SymbolsMax = cmp.Or(o.SymbolsMax, 10_000)
	o.SymbolsPerMinute = cmp.Or(o.SymbolsPerMinute, 200)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	var faults []error
	if o.Log == nil {
		faults = append(faults, errors.New("Log: missing"))
	}
	if len(o.RawTopics) == 0 {
		faults = append(faults, errors.New("RawTopics: want at least one"))
	}
	seen := map[string]bool{}
	for _, r := range o.RawTopics {
		if err := CheckKafkaTopic(r.KafkaTopic); err != nil {
			faults = append(faults, fmt.Errorf("RawTopics: %w", err))
		}
		if r.Venue.Normalize == nil {
			faults = append(faults, fmt.Errorf("RawTopics %q: want a venue", r.KafkaTopic))
		}
		if seen[r.KafkaTopic] {
			faults = append(faults, fmt.Errorf("RawTopics %q: named twice", r.KafkaTopic))
		}
		seen[r.KafkaTopic] = true
	}
	if !strings.Contains(o.Template, "{symbol}") {
		faults = append(faults, fmt.Errorf("Template %q: want {symbol} in it", o.Template))
	}
	if name := fill(o.Template, "A", "B"); !codec.ValidSymbol(name) {
		faults = append(faults, fmt.Errorf("Template %q: would name a symbol %q: want [A-Z0-9._-]{1,32}; {symbol} and {venue} are filled in", o.Template, name))
	}
	if o.SymbolsMax < 1 {
		faults = append(faults, fmt.Errorf("SymbolsMax %d: want at least 1", o.SymbolsMax))
	}
	if o.SymbolsPerMinute < 1 {
		faults = append(faults, fmt.Errorf("SymbolsPerMinute %d: want at least 1", o.SymbolsPerMinute))
	}
	return errors.Join(faults...)
}

// Feed reads raw topics and writes per-symbol ones.
type Feed struct {
	opts    Options
	raw     map[string]RawTopic
	metrics metrics

	mu     sync.Mutex
	claims map[string]claim // by symbol: whose it is in this process
	window time.Time        // of new symbols
	fresh  int              // made in the window
}

// claim is who may write a symbol.
type claim struct{ rawTopic, venueSymbol string }

// New checks the options; it does nothing yet.
func New(opts Options) (*Feed, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	f := &Feed{opts: opts, raw: map[string]RawTopic{}, claims: map[string]claim{}, metrics: newMetrics(opts.Registerer)}
	for _, r := range opts.RawTopics {
		f.raw[r.KafkaTopic] = r
	}
	return f, nil
}

// Run feeds until ctx is done. Faults of Kafka are told and tried again.
func (f *Feed) Run(ctx context.Context) error {
	topics := make([]string, len(f.opts.RawTopics))
	for i, r := range f.opts.RawTopics {
		topics[i] = r.KafkaTopic
	}
	return f.opts.Log.Consume(ctx, topics, func(ctx context.Context, p Partition) error {
		o := newOwner(f, p)
		f.metrics.partitions.Inc()
		defer f.metrics.partitions.Dec()
		return o.run(ctx)
	})
}

// fill applies the template: upper case, and / and : become -.
func fill(template, symbol, venueName string) string {
	name := strings.NewReplacer("{symbol}", symbol, "{venue}", venueName).Replace(template)
	return strings.NewReplacer("/", "-", ":", "-").Replace(strings.ToUpper(name))
}

// symbolName is what a venue's symbol is called here.
func (f *Feed) symbolName(venueName string, venueSymbol []byte) (string, error) {
	name := fill(f.opts.Template, string(venueSymbol), venueName)
	if !codec.ValidSymbol(name) {
		return "", fmt.Errorf("venue symbol %q would be called %q: want [A-Z0-9._-]{1,32}; change the symbol template", venueSymbol, name)
	}
	return name, nil
}

var (
	errTooManySymbols = errors.New("more symbols than symbols.max")
	errTooManyNew     = errors.New("more new symbols a minute than a producer in order makes")
)

// admit claims a symbol for a venue symbol of a raw topic in this process.
func (f *Feed) admit(symbol string, c claim, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := strings.ReplaceAll(symbol, ".", "_") // Kafka takes . and _ in names for the same
	if have, ok := f.claims[key]; ok {
		if have != c {
			return claimError(symbol, have)
		}
		return nil
	}
	if len(f.claims) >= f.opts.SymbolsMax {
		return fmt.Errorf("%w (%d)", errTooManySymbols, f.opts.SymbolsMax)
	}
	if now.Sub(f.window) >= time.Minute {
		f.window, f.fresh = now, 0
	}
	if f.fresh >= f.opts.SymbolsPerMinute {
		return fmt.Errorf("%w (%d)", errTooManyNew, f.opts.SymbolsPerMinute)
	}
	f.fresh++
	f.claims[key] = c
	f.metrics.symbols.Inc()
	return nil
}

// errClaimed says that a symbol is another venue symbol's.
var errClaimed = errors.New("symbol is taken")

func claimError(symbol string, owner claim) error {
	return fmt.Errorf("%w: %s is %q of raw topic %s; tell them apart by the symbol template, as {symbol}.{venue}", errClaimed, symbol, owner.venueSymbol, owner.rawTopic)
}
