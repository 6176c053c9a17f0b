package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
)

// Change is how a metric of one result differs from that of another.
type Change struct {
	Metric
	Before, After float64 // medians
	RunsBefore    int
	RunsAfter     int
	// Low and High bound the change of the median, as a share of Before, with
	// 95 % confidence.
	Low, High float64
	Verdict   Verdict
}

// Verdict is what a change amounts to.
type Verdict string

// The verdicts.
const (
	Same    Verdict = "same"   // the interval holds no change
	Gain    Verdict = "better" // all of it is on that side
	Loss    Verdict = "worse"
	Other   Verdict = "other"        // all of it is on one side, and neither is judged
	Unknown Verdict = "too few runs" // or no share of nothing can be told
)

const (
	// runsMin is how many valid runs a verdict takes: fewer have no spread.
	runsMin = 4

	// resamples of the bootstrap; more change the interval's second digit.
	resamples = 10_000
)

// ErrScenarios says that two results are of different scenarios.
var ErrScenarios = errors.New("these are results of different scenarios")

// Compare tells what changed between two results of one scenario; across takes
// those of two, of which one is the other with something added.
func Compare(before, after *Result, across bool) ([]Change, error) {
	if !across && before.Scenario.Name != after.Scenario.Name {
		return nil, fmt.Errorf("%w: %s and %s", ErrScenarios, before.Scenario.Name, after.Scenario.Name)
	}
	for _, r := range []*Result{before, after} {
		if r.Unsupported != "" {
			return nil, fmt.Errorf("%s on %s: %s", r.Scenario.Name, r.Target, r.Unsupported)
		}
	}
	if len(before.Valid()) == 0 || len(after.Valid()) == 0 {
		return nil, errors.New("a result has no valid run: tickbench itself was too slow; give it more cores or a smaller load")
	}
	var list []Change
	for _, m := range before.Valid()[0].Metrics() {
		a, b := values(before, m.Name), values(after, m.Name)
		if len(b) == 0 {
			continue
		}
		c := Change{Metric: m, Before: median(a), After: median(b), RunsBefore: len(a), RunsAfter: len(b), Verdict: Unknown}
		switch {
		case len(a) < runsMin || len(b) < runsMin:
		case c.Before == 0 && c.After == 0:
			c.Verdict = Same
		case c.Before != 0:
			c.Low, c.High = interval(a, b)
			switch {
			case c.Low <= 0 && c.High >= 0:
				c.Verdict = Same
			case m.Better == Either:
				c.Verdict = Other
			case (c.Low > 0) == (m.Better == Higher):
				c.Verdict = Gain
			default:
				c.Verdict = Loss
			}
		case m.Better == Lower && least(b) > 0: // from none, in the median, to some in every run
			c.Verdict = Loss
		}
		list = append(list, c)
	}
	return list, nil
}

func least(v []float64) float64 {
	low := v[0]
	for _, x := range v {
		low = min(low, x)
	}
	return low
}

func values(r *Result, name string) (list []float64) {
	for _, run := range r.Valid() {
		for _, m := range run.Metrics() {
			if m.Name == name {
				list = append(list, m.Value)
			}
		}
	}
	return list
}

// interval is a percentile bootstrap of the change between two medians.
func interval(a, b []float64) (low, high float64) {
	rng := rand.New(rand.NewPCG(1, 2)) // the same files give the same verdict
	draw := func(from, to []float64) float64 {
		for i := range to {
			to[i] = from[rng.IntN(len(from))]
		}
		return median(to)
	}
	x, y := make([]float64, len(a)), make([]float64, len(b))
	changes := make([]float64, 0, resamples)
	for range resamples {
		if before := draw(a, x); before != 0 {
			changes = append(changes, draw(b, y)/before-1)
		}
	}
	if len(changes) == 0 {
		return 0, 0
	}
	sort.Float64s(changes)
	return changes[len(changes)*25/1000], changes[len(changes)*975/1000]
}
