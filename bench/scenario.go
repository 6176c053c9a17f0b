package bench

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"tickgate/codec"
)

// Bounds of a scenario: what one machine can hold.
const (
	clientsMax     = 18_000 // file descriptors, of which most machines give 20,000
	symbolsMax     = 10_000
	rateMax        = 1_000_000
	secondsMax     = 600
	exponentMax    = 4
	perSecondMax   = 100_000 // what groups do, and connecting
	nameMax        = 40
	textMax        = 400
	scenarioBytes  = 64 << 10
	subscribeChunk = 400 // names in a command: far below what a gateway reads
)

// Scenario is a load, as data. Its YAML names are the fields' tags;
// scenarios/README.md says of each its unit, default and bounds.
type Scenario struct {
	Name  string `yaml:"name" json:"name"`
	About string `yaml:"about" json:"about"`
	// Equal says at equal what targets are compared here, for reports.
	Equal string `yaml:"equal" json:"equal,omitempty"`

	Market  Market  `yaml:"market" json:"market"`
	Clients []Group `yaml:"clients" json:"clients"`

	// ConnectPerSecond paces the connecting; 0 connects as fast as it goes.
	ConnectPerSecond int `yaml:"connect_per_second" json:"connect_per_second"`
	// Steps measures memory at each of these numbers of clients, of the one
	// group there is, instead of measuring for a time.
	Steps []int `yaml:"steps" json:"steps,omitempty"`
	TLS   bool  `yaml:"tls" json:"tls,omitempty"`

	Warm    Duration `yaml:"warm" json:"warm"`
	Measure Duration `yaml:"measure" json:"measure"`

	// Overload finds the highest rate at which the gateway keeps up, then asks
	// for this factor of it during Measure, then for half of it.
	Overload float64 `yaml:"overload" json:"overload,omitempty"`
	// OverloadLook is how long each rate is looked at to find that one.
	OverloadLook Duration `yaml:"overload_look" json:"overload_look,omitempty"`

	// StallMax is told to the gateway, 0 for its default.
	StallMax Duration `yaml:"stall_max" json:"stall_max,omitempty"`
}

// Market is what ticks.
type Market struct {
	Symbols int `yaml:"symbols" json:"symbols"`
	// Rate is ticks a second, of all symbols together.
	Rate int `yaml:"rate" json:"rate"`
	// Quotes is the share of ticks that are quotes; the others are trades.
	Quotes float64 `yaml:"quotes" json:"quotes"`
	// Exponent spreads the ticks over the symbols: the k-th has k^-Exponent of
	// the first one's; 0 gives all the same.
	Exponent float64 `yaml:"exponent" json:"exponent"`
	// Burst multiplies the rate for a while.
	Burst *Burst `yaml:"burst" json:"burst,omitempty"`
	// File is replayed instead: raw messages of a venue, through Kafka.
	File  string `yaml:"file" json:"file,omitempty"`
	Venue string `yaml:"venue" json:"venue,omitempty"`
	// Speed is how many times the recorded pace; 1 by default.
	Speed float64 `yaml:"speed" json:"speed,omitempty"`
}

// Burst is a market open.
type Burst struct {
	At     Duration `yaml:"at" json:"at"` // since measuring began
	For    Duration `yaml:"for" json:"for"`
	Factor float64  `yaml:"factor" json:"factor"`
}

// Group is clients that behave alike.
type Group struct {
	Count   int    `yaml:"count" json:"count"`
	Channel string `yaml:"channel" json:"channel"`
	// Every is the period in which a symbol is updated at most once; 0 asks for
	// each update.
	Every    Duration `yaml:"every" json:"every"`
	Encoding string   `yaml:"encoding" json:"encoding"` // msgpack (default), json
	View     []string `yaml:"view" json:"view,omitempty"`
	Watch    Watch    `yaml:"watch" json:"watch"`
	Does     Does     `yaml:"does" json:"does"`
}

// Watch is which symbols a client asks for: "all" sends the pattern *, "same"
// the first Count symbols, "random" as many different ones, "zipf" as many with
// the k-th as likely as k^-Exponent.
type Watch struct {
	Kind     string  `yaml:"kind" json:"kind"`
	Count    int     `yaml:"count" json:"count,omitempty"`
	Exponent float64 `yaml:"exponent" json:"exponent,omitempty"`
}

// Does is how a client reads: "reads" as fast as it can; "stalls" stops for
// good, and is sent nothing more when the warm-up begins; "drips" reads a second
// in each six; "slow" reads BytesPerSecond; "sleeps" stops For, once, when
// measuring begins, and reads on; "reconnects" and "resubscribes" do so
// PerSecond, in all.
type Does struct {
	Kind           string   `yaml:"kind" json:"kind"`
	BytesPerSecond int      `yaml:"bytes_per_second" json:"bytes_per_second,omitempty"`
	PerSecond      float64  `yaml:"per_second" json:"per_second,omitempty"`
	For            Duration `yaml:"for" json:"for,omitempty"`
}

// Kinds that a scenario may name.
var (
	watchKinds = []string{"all", "same", "random", "zipf"}
	doesKinds  = []string{"reads", "stalls", "drips", "slow", "sleeps", "reconnects", "resubscribes"}
)

// Duration is written as Go writes it: 10ms, 2s.
type Duration time.Duration

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(b []byte) error {
	if string(b) == "0" {
		*d = 0
		return nil
	}
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MarshalText writes a duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

//go:embed scenarios/*.yaml
var builtin embed.FS

// Scenarios are those that come with the program, by name.
func Scenarios() ([]*Scenario, error) {
	files, err := fs.Glob(builtin, "scenarios/*.yaml")
	if err != nil {
		return nil, err
	}
	var all []*Scenario
	for _, f := range files {
		b, err := builtin.ReadFile(f)
		if err != nil {
			return nil, err
		}
		s, err := ParseScenario(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		if s.Name != strings.TrimSuffix(path.Base(f), ".yaml") {
			return nil, fmt.Errorf("%s: its name is %q", f, s.Name)
		}
		all = append(all, s)
	}
	return all, nil
}

// ScenarioYAML is the file of a scenario that comes with the program.
func ScenarioYAML(name string) ([]byte, error) {
	if b, err := builtin.ReadFile("scenarios/" + name + ".yaml"); err == nil {
		return b, nil
	}
	_, err := findBuiltin(name)
	return nil, err
}

// FindScenario reads a YAML file, or finds one that comes with the program.
func FindScenario(name string) (*Scenario, error) {
	if strings.ContainsAny(name, "./\\") {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b := make([]byte, scenarioBytes+1)
		n, err := readFull(f, b)
		if err != nil {
			return nil, err
		}
		s, err := ParseScenario(b[:n])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return s, nil
	}
	return findBuiltin(name)
}

func findBuiltin(name string) (*Scenario, error) {
	all, err := Scenarios()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range all {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return nil, fmt.Errorf("there is no scenario %q; there are %s, or give a YAML file", name, strings.Join(names, ", "))
}

// ParseScenario reads a scenario; all its faults are told together.
func ParseScenario(b []byte) (*Scenario, error) {
	if len(b) > scenarioBytes {
		return nil, fmt.Errorf("a scenario of more than %d bytes", scenarioBytes)
	}
	var s Scenario
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil {
		return nil, err
	}
	for i := range s.Clients {
		g := &s.Clients[i]
		if g.Encoding == "" {
			g.Encoding = "msgpack"
		}
		if g.Does.Kind == "" {
			g.Does.Kind = "reads"
		}
		if g.Channel == "" {
			g.Channel = "trades"
		}
	}
	if s.Market.Venue == "" {
		s.Market.Venue = "binance"
	}
	if s.Market.Speed == 0 {
		s.Market.Speed = 1
	}
	if s.OverloadLook == 0 {
		s.OverloadLook = Duration(1500 * time.Millisecond)
	}
	return &s, s.validate()
}

func (s *Scenario) validate() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	within := func(what string, v, least, most int) {
		if v < least || v > most {
			bad("%s: %d; want %d to %d", what, v, least, most)
		}
	}
	share := func(what string, v, least, most float64) { // not a number is within nothing
		if !(v >= least && v <= most) {
			bad("%s: %v; want %v to %v", what, v, least, most)
		}
	}
	lasts := func(what string, v Duration, least, most time.Duration) {
		if d := time.Duration(v); d < least || d > most {
			bad("%s: %v; want %v to %v", what, v, least, most)
		}
	}
	const longest = secondsMax * time.Second
	if !IsName(s.Name) {
		bad("name: %q; want 1 to %d of a-z, 0-9, '-' and '_'", s.Name, nameMax)
	}
	if s.About == "" || len(s.About) > textMax || len(s.Equal) > textMax {
		bad("about, equal: want an about, and at most %d bytes of each", textMax)
	}
	m := &s.Market
	if m.File == "" {
		within("market.symbols", m.Symbols, 1, symbolsMax)
		within("market.rate", m.Rate, 0, rateMax)
	}
	share("market.quotes", m.Quotes, 0, 1)
	share("market.exponent", m.Exponent, 0, exponentMax)
	share("market.speed", m.Speed, 0.01, 10_000)
	if b := m.Burst; b != nil {
		lasts("market.burst.at", b.At, 0, longest)
		lasts("market.burst.for", b.For, time.Millisecond, longest)
		share("market.burst.factor", b.Factor, 1, 1000)
		if float64(m.Rate)*b.Factor > rateMax {
			bad("market.burst.factor: %v times %d ticks/s; want at most %d", b.Factor, m.Rate, rateMax)
		}
	}
	within("connect_per_second", s.ConnectPerSecond, 0, perSecondMax)
	lasts("stall_max", s.StallMax, 0, 10*time.Minute)
	if s.Overload != 0 {
		share("overload", s.Overload, 1, 100)
		if m.File != "" || m.Rate == 0 || m.Burst != nil {
			bad("overload: want a market.rate to begin at, and neither file nor burst")
		}
	}
	lasts("overload_look", s.OverloadLook, 10*time.Millisecond, 10*time.Second)
	lasts("warm", s.Warm, 0, longest)
	lasts("measure", s.Measure, time.Millisecond, longest)
	total := 0
	for i := range s.Clients {
		g := &s.Clients[i]
		at := fmt.Sprintf("clients[%d]", i)
		within(at+".count", g.Count, 1, clientsMax)
		if total += g.Count; total > clientsMax { // and cannot overflow
			total = clientsMax + 1
		}
		if _, ok := codec.ParseChannel(g.Channel); !ok {
			bad("%s.channel: %q; want ticker, quotes or trades", at, g.Channel)
		}
		lasts(at+".every", g.Every, 0, time.Minute)
		if g.Encoding != "msgpack" && g.Encoding != "json" {
			bad("%s.encoding: %q; want msgpack or json", at, g.Encoding)
		}
		for _, v := range g.View {
			if viewOf(v) == 0 {
				bad("%s.view: %q; want last, quote, totals, day", at, v)
			}
		}
		switch g.Watch.Kind {
		case "all":
		case "same", "random", "zipf":
			if m.File != "" {
				bad("%s.watch.kind: %q; want all where a file is replayed: its symbols are not known", at, g.Watch.Kind)
				break
			}
			within(at+".watch.count", g.Watch.Count, 1, m.Symbols)
		default:
			bad("%s.watch.kind: %q; want %s", at, g.Watch.Kind, strings.Join(watchKinds, ", "))
		}
		share(at+".watch.exponent", g.Watch.Exponent, 0, exponentMax)
		switch g.Does.Kind {
		case "reads", "stalls", "drips":
		case "slow":
			within(at+".does.bytes_per_second", g.Does.BytesPerSecond, 1, 1<<30)
		case "sleeps":
			lasts(at+".does.for", g.Does.For, time.Millisecond, longest)
		case "reconnects", "resubscribes":
			share(at+".does.per_second", g.Does.PerSecond, 0.001, perSecondMax)
		default:
			bad("%s.does.kind: %q; want %s", at, g.Does.Kind, strings.Join(doesKinds, ", "))
		}
	}
	within("clients, all together", total, 1, clientsMax)
	if len(s.Steps) > 0 {
		if len(s.Clients) != 1 || len(s.Steps) < 2 || !slices.IsSorted(s.Steps) || s.Steps[0] < 1 {
			bad("steps: want at least two numbers that grow, and one group of clients")
		} else if s.Steps[len(s.Steps)-1] != s.Clients[0].Count {
			bad("steps: want the last one to be the group's count")
		}
	}
	return errors.Join(faults...)
}

// IsName tells whether a scenario or a target may be called so: results are files
// of that name.
func IsName(s string) bool {
	if s == "" || len(s) > nameMax {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// Features are what a target must have for the scenario.
func (s *Scenario) Features() []string {
	need := map[string]bool{}
	for i := range s.Clients {
		g := &s.Clients[i]
		switch {
		case g.Every > 0 && g.Channel == "trades": // nothing is lost: updates go together
			need["batching"] = true
		case g.Every > 0:
			need["conflation"] = true
		}
		if g.Encoding == "json" {
			need["json"] = true
		}
		if g.Does.Kind == "reconnects" {
			need["resume"] = true
		}
		if g.Watch.Kind == "all" {
			need["patterns"] = true
		}
		if len(g.View) > 0 {
			need["views"] = true
		}
		if g.Channel == "quotes" {
			need["quotes"] = true
		}
	}
	if s.TLS {
		need["tls"] = true
	}
	if s.Market.File != "" {
		need["kafka"] = true
	}
	var list []string
	for f := range need {
		list = append(list, f)
	}
	slices.Sort(list)
	return list
}

func viewOf(name string) codec.View {
	switch name {
	case "last":
		return codec.ViewLast
	case "quote":
		return codec.ViewQuote
	case "totals":
		return codec.ViewTotals
	case "day":
		return codec.ViewDay
	}
	return 0
}

func (g *Group) view() (v codec.View) {
	for _, name := range g.View {
		v |= viewOf(name)
	}
	return v
}

func (g *Group) channel() codec.Channel {
	c, _ := codec.ParseChannel(g.Channel)
	return c
}
