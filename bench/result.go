package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// ResultVersion is that of the JSON below.
const ResultVersion = 1

// Result is one scenario on one target, some times over.
type Result struct {
	Version  int       `json:"version"`
	Scenario *Scenario `json:"scenario"`
	Target   string    `json:"target"`
	// Features are what the target has of what scenarios need.
	Features []string `json:"features,omitempty"`
	// Unsupported says what the target lacks for the scenario: there are no runs.
	Unsupported string    `json:"unsupported,omitempty"`
	Commit      string    `json:"commit,omitempty"`
	Command     string    `json:"command"`
	Started     time.Time `json:"started"`
	Machine     Machine   `json:"machine"`
	Runs        []*Run    `json:"runs"`
}

// Run is one run. Times are milliseconds, rates are of seconds.
type Run struct {
	// Invalid says why this run tells nothing: this program was too slow.
	Invalid string `json:"invalid,omitempty"`

	Clients       int     `json:"clients"`
	Subscriptions int     `json:"subscriptions"`
	Seconds       float64 `json:"seconds"` // measured

	Made   uint64  `json:"made"`    // ticks, while measuring
	Lag    Spread  `json:"lag_ms"`  // of the schedule, the sink's waiting apart
	Waited float64 `json:"sink_ms"` // that the sink waited, in all

	Age     Spread `json:"age_ms"`         // received - due, of every delivered tick
	Ingest  Spread `json:"age_ingest_ms"`  // taken by the gateway - due
	Gateway Spread `json:"age_gateway_ms"` // sent - taken
	Wire    Spread `json:"age_wire_ms"`    // received - sent
	// Negative counts ages below zero: a clock problem.
	Negative uint64 `json:"negative_ages,omitempty"`
	// Clamped counts times beyond what the histograms hold, two minutes: they
	// are in there as two minutes.
	Clamped uint64 `json:"clamped,omitempty"`

	Delivered uint64 `json:"delivered"`
	Merged    uint64 `json:"merged"`
	Dropped   uint64 `json:"dropped"`
	Snapshots uint64 `json:"snapshots"`
	Frames    uint64 `json:"frames"`
	Messages  uint64 `json:"messages"` // of the WebSocket
	Bytes     uint64 `json:"bytes"`

	Processes map[string]Usage `json:"processes"` // while measuring; of the target
	Self      Usage            `json:"self"`      // this program, while measuring
	Batch     Spread           `json:"batch_ms"`  // one look of an event loop
	Wait      Spread           `json:"wait_ms"`   // of each socket that was ready for its event loop, at most

	Connect *Connect `json:"connect,omitempty"`
	Memory  *Memory  `json:"memory,omitempty"`
	Stall   *Stall   `json:"stall,omitempty"`
	Sleep   *Sleep   `json:"sleep,omitempty"`
	Peak    *Peak    `json:"overload,omitempty"`
	Floor   *Floor   `json:"floor,omitempty"`

	Timeline []Second `json:"timeline"`

	Checks Checks `json:"checks"`
}

const (
	// lagMax is the lateness of our own schedule, or of an event loop, beyond
	// which a run tells more of this program than of the target.
	lagMax = 5.0 // ms

	// waitMost is the share of the age that may be waiting for an event loop:
	// frames that a gateway sends at once are read one after the other, and of
	// an age of 250 ms that is nothing.
	waitMost = 0.1

	// oddMax is the share of ages that may be out of what can be measured.
	oddMax = 0.001
)

// invalid says why a run tells nothing; "" if it does tell something.
func (r *Run) invalid() string {
	var why []string
	if r.Lag.P99 > lagMax {
		why = append(why, fmt.Sprintf("its ticks were late by %.1f ms (p99), of which the target made it wait none", r.Lag.P99))
	}
	if r.Batch.P99 > lagMax {
		why = append(why, fmt.Sprintf("one look of its event loop took %.1f ms (p99)", r.Batch.P99))
	}
	if r.Wait.P99 > max(lagMax, waitMost*r.Age.P99) {
		why = append(why, fmt.Sprintf("a socket that was ready waited %.1f ms (p99) for its event loop", r.Wait.P99))
	}
	if len(why) > 0 {
		why = []string{"tickbench was the bottleneck: " + strings.Join(why, "; ")}
	}
	few := oddMax * float64(max(r.Age.Count, 1))
	if float64(r.Clamped) > few {
		why = append(why, fmt.Sprintf("%d times were longer than can be measured", r.Clamped))
	}
	if float64(r.Negative) > few {
		why = append(why, fmt.Sprintf("%d ages were below zero: the clock was set", r.Negative))
	}
	return strings.Join(why, "; ")
}

// Spread is a distribution.
type Spread struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
	// Steps are (value, percent at or below) pairs for a plot.
	Steps [][2]float64 `json:"steps,omitempty"`
}

const (
	stepNines  = 6
	stepsANine = 12
)

// short drops what is beyond some significant digits: results are files in a
// repository.
func short(v float64, digits int) float64 {
	s, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', digits, 64), 64)
	if err != nil {
		return v // not a number
	}
	return s
}

// digits are as many as a figure of a result has.
const digits = 5

func spreadOf(h *hdrhistogram.Histogram, steps bool) Spread {
	ms := func(v int64) float64 { return float64(v) / 1000 }
	s := Spread{Count: h.TotalCount(), P50: ms(h.ValueAtQuantile(50)), P90: ms(h.ValueAtQuantile(90)),
		P99: ms(h.ValueAtQuantile(99)), P999: ms(h.ValueAtQuantile(99.9)), Max: ms(h.Max())}
	if steps {
		// As close as a plot of nines shows, up to the last that is more than one
		// value's.
		for i := 0; i <= stepNines*stepsANine; i++ {
			above := math.Pow(10, -float64(i)/stepsANine)
			if above*float64(s.Count) < 1 {
				break
			}
			q := short(100*(1-above), 8)
			s.Steps = append(s.Steps, [2]float64{ms(h.ValueAtQuantile(q)), q})
		}
	}
	return s
}

// Second is a second of a run.
type Second struct {
	At        float64 `json:"at"` // since measuring began
	Made      uint64  `json:"made"`
	Delivered uint64  `json:"delivered"`
	Merged    uint64  `json:"merged"`
	Dropped   uint64  `json:"dropped"`
	AgeP50    float64 `json:"age_p50_ms"`
	AgeP99    float64 `json:"age_p99_ms"`
	CPU       float64 `json:"cpu"` // of the target, in cores
	RSS       int64   `json:"rss_bytes"`
}

// Connect is how clients came in.
type Connect struct {
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
	Settle    Spread  `json:"settle_ms"` // from connecting to the last snapshot
	Refused   int64   `json:"refused"`   // and tried again
	CPU       float64 `json:"cpu_seconds"`
}

// Memory is what clients cost that are only there.
type Memory struct {
	Clients        []int   `json:"clients"`
	RSS            []int64 `json:"rss_bytes"`
	BytesPerClient float64 `json:"bytes_per_client"` // slope from the first to the last
}

// Stall is how clients that read nothing came to be sent nothing.
type Stall struct {
	Clients   int     `json:"clients"`
	Seconds   float64 `json:"seconds"`      // until nothing more came to any of them
	Settled   bool    `json:"settled"`      // or they were still being sent to when waiting ended
	UnreadP50 int64   `json:"unread_bytes"` // in the kernel of their side, then
}

// Sleep is how soon clients that slept were current.
type Sleep struct {
	Clients    int     `json:"clients"`
	BytesP50   uint64  `json:"bytes_p50"` // read until what came was sent after it woke
	BytesMax   uint64  `json:"bytes_max"`
	WaitMaxMs  float64 `json:"wait_max_ms"`
	NotCurrent int     `json:"not_current"`
}

// Peak is what overload found.
type Peak struct {
	Rate       float64 `json:"rate"`        // ticks a second that were served in time
	Asked      float64 `json:"asked"`       // then
	RecoverMs  float64 `json:"recover_ms"`  // until the age was as before
	RecoverAge float64 `json:"recover_age"` // p99 in ms, afterwards
}

// Floor is the same messages written by a bare program.
type Floor struct {
	CPUPerFrame float64 `json:"cpu_us_per_frame"`
	Frames      uint64  `json:"frames"`
	Cut         uint64  `json:"cut,omitempty"` // frames at the run's end that its trace had no room for
	Ratio       float64 `json:"ratio"`         // the target's CPU per message over it
}

// Checks are what was looked at while measuring, and what was found.
type Checks struct {
	Finals     int               `json:"finals"`  // subscriptions whose final state was compared
	Ledgers    int               `json:"ledgers"` // sessions whose counts were compared
	Counts     map[string]uint64 `json:"violations,omitempty"`
	Violations []Violation       `json:"first_violations,omitempty"`
}

// Metric is one number of a run.
type Metric struct {
	Name   string
	Unit   string
	Better Better
	Value  float64
}

// Better is which way a metric is better.
type Better int8

// The ways.
const (
	Lower  Better = iota - 1
	Either        // more and less are told, and neither is judged
	Higher
)

// Metrics are the numbers of a run that two results are compared by.
func (r *Run) Metrics() []Metric {
	var list []Metric
	add := func(name, unit string, better Better, v float64) {
		list = append(list, Metric{name, unit, better, v})
	}
	if r.Age.Count > 0 {
		add("age p50", "ms", Lower, r.Age.P50)
		add("age p99", "ms", Lower, r.Age.P99)
	}
	if r.Seconds > 0 {
		add("delivered", "ticks/s", Higher, float64(r.Delivered)/r.Seconds)
		// How much is merged goes with how much is asked: neither is judged.
		add("merged", "ticks/s", Either, float64(r.Merged)/r.Seconds)
		add("dropped", "ticks/s", Lower, float64(r.Dropped)/r.Seconds)
		if g, ok := r.Processes[GatewayProcess]; ok {
			add("gateway CPU", "cores", Lower, g.CPU.Seconds()/r.Seconds)
			add("gateway RSS at start", "MB", Lower, float64(g.RSSFirst)/1e6)
			add("gateway RSS at end", "MB", Lower, float64(g.RSS)/1e6)
		}
	}
	cpu := r.CPU().Seconds()
	if r.Delivered > 0 && cpu > 0 {
		add("CPU per million ticks", "s", Lower, cpu/float64(r.Delivered)*1e6)
		add("ticks per CPU second", "M", Higher, float64(r.Delivered)/cpu/1e6)
		add("bytes per tick", "B", Lower, float64(r.Bytes)/float64(r.Delivered))
	}
	if r.Messages > 0 && cpu > 0 {
		add("CPU per frame", "us", Lower, cpu/float64(r.Messages)*1e6)
	}
	if r.Floor != nil {
		add("CPU over the floor", "x", Lower, r.Floor.Ratio)
	}
	if r.Memory != nil {
		add("memory per client", "B", Lower, r.Memory.BytesPerClient)
	}
	if r.Connect != nil && r.Connect.Seconds > 0 {
		add("connected", "clients/s", Higher, r.Connect.PerSecond)
		add("settled p99", "ms", Lower, r.Connect.Settle.P99)
	}
	if r.Sleep != nil {
		add("bytes until current", "B", Lower, float64(r.Sleep.BytesMax))
	}
	if r.Peak != nil {
		add("served in time", "ticks/s", Higher, r.Peak.Rate)
		add("recovered", "ms", Lower, r.Peak.RecoverMs)
	}
	return list
}

// CPU is what all of the target's processes used.
func (r *Run) CPU() (sum time.Duration) {
	for _, u := range r.Processes {
		sum += u.CPU
	}
	return sum
}

// Valid are the runs that count.
func (r *Result) Valid() []*Run {
	var list []*Run
	for _, run := range r.Runs {
		if run.Invalid == "" {
			list = append(list, run)
		}
	}
	return list
}

// Faults is how many violations its runs found.
func (r *Result) Faults() (n uint64) {
	for _, run := range r.Runs {
		for _, c := range run.Checks.Counts {
			n += c
		}
	}
	return n
}

// Conflates tells whether the target can leave out what a newer state stands for.
func (r *Result) Conflates() bool { return slices.Contains(r.Features, "conflation") }

// Median is the median of a metric over the valid runs.
func (r *Result) Median(name string) (Metric, bool) {
	var found Metric
	var values []float64
	for _, run := range r.Valid() {
		for _, m := range run.Metrics() {
			if m.Name == name {
				found = m
				values = append(values, m.Value)
			}
		}
	}
	found.Value = median(values)
	return found, len(values) > 0
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := append([]float64(nil), v...)
	sort.Float64s(s)
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// resultBytesMax bounds a result file that is read.
const resultBytesMax = 64 << 20

// ReadResult reads a result file.
func ReadResult(path string) (*Result, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > resultBytesMax {
		return nil, fmt.Errorf("%s: %d bytes; a result has at most %d", path, info.Size(), resultBytesMax)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s is no result of tickbench: %w", path, err)
	}
	if r.Version != ResultVersion || r.Scenario == nil || len(r.Runs) == 0 && r.Unsupported == "" {
		return nil, fmt.Errorf("%s is no result of tickbench, version %d", path, ResultVersion)
	}
	return &r, nil
}

// Write writes the result to a file, a line a run.
func (r *Result) Write(path string) error {
	head := *r
	head.Runs = nil
	b, err := json.Marshal(&head)
	if err != nil {
		return err
	}
	// Runs are the last field: null here.
	b = append(bytes.TrimSuffix(b, []byte("null}")), '[')
	for i, run := range r.Runs {
		line, err := json.Marshal(run)
		if err != nil {
			return err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, '\n'), line...)
	}
	// By another name first: a disk that is full must not cost the runs before.
	partial := path + ".part"
	if err := os.WriteFile(partial, append(b, "\n]}\n"...), 0o644); err != nil {
		_ = os.Remove(partial)
		return err
	}
	return os.Rename(partial, path)
}
