package bench

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"image/color"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

//go:embed report.html
var reportHTML string

// inks tell targets apart, also for those who see no red or no green (Okabe and
// Ito, https://jfly.uni-koeln.de/color/).
var inks = []color.Color{
	color.RGBA{0x00, 0x72, 0xb2, 0xff}, color.RGBA{0xd5, 0x5e, 0x00, 0xff}, color.RGBA{0x00, 0x9e, 0x73, 0xff},
	color.RGBA{0xcc, 0x79, 0xa7, 0xff}, color.RGBA{0xe6, 0x9f, 0x00, 0xff}, color.RGBA{0x56, 0xb4, 0xe9, 0xff},
}

// reportScenario is a section: the results of one scenario.
type reportScenario struct {
	*Scenario
	Results []*Result
	Names   []string
	Rows    []reportRow // by which results are compared
	Details []reportRow
	Plots   []template.HTML
}

type reportRow struct {
	Name, Unit string
	Cells      []string
}

// WriteHTML writes a report of results: a table and plots for each scenario. The
// file needs nothing beside it, and no network.
func WriteHTML(w io.Writer, results []*Result) error {
	sections := sectionsOf(results)
	for _, s := range sections {
		s.fill()
		if err := s.draw(); err != nil {
			return err
		}
	}
	t, err := template.New("report").Funcs(template.FuncMap{"runs": func(r *Result) string {
		text := "1 run"
		if r.Unsupported != "" {
			return r.Unsupported
		}
		if len(r.Runs) != 1 {
			text = fmt.Sprintf("%d runs", len(r.Runs))
		}
		if bad := len(r.Runs) - len(r.Valid()); bad > 0 {
			text += fmt.Sprintf(", %d of them invalid", bad)
		}
		return text
	}, "first": func(r *Result) []Violation {
		for _, run := range r.Runs {
			if v := run.Checks.Violations; len(v) > 0 {
				return v[:min(len(v), 10)]
			}
		}
		return nil
	}}).Parse(reportHTML)
	if err != nil {
		return err
	}
	return t.Execute(w, sections)
}

// sectionsOf puts results of one scenario together, in the order given.
func sectionsOf(results []*Result) (sections []*reportScenario) {
	for _, r := range results {
		var sec *reportScenario
		for _, s := range sections {
			if s.Name == r.Scenario.Name {
				sec = s
			}
		}
		if sec == nil {
			sec = &reportScenario{Scenario: r.Scenario}
			sections = append(sections, sec)
		}
		sec.Results = append(sec.Results, r)
		sec.Names = append(sec.Names, r.Target)
	}
	return sections
}

// Fairness says at equal what the targets are compared, and which of them are
// sent more because they cannot leave anything out; "" if there is one target.
func (s *reportScenario) Fairness() string {
	if len(s.Results) < 2 {
		return ""
	}
	text := ""
	if s.Equal != "" {
		text = "Compared at equal " + strings.TrimSuffix(s.Equal, ".") + "."
	}
	var cannot []string
	for _, r := range s.Results {
		if !r.Conflates() {
			cannot = append(cannot, r.Target)
		}
	}
	switch len(cannot) {
	case 0:
	case 1:
		text += " " + cannot[0] + " cannot conflate: it sends every tick to everybody who asked for its symbol."
	default:
		last := len(cannot) - 1
		text += " " + strings.Join(cannot[:last], ", ") + " and " + cannot[last] + " cannot conflate: they send every tick to everybody who asked for its symbol."
	}
	return strings.TrimSpace(text)
}

// fill makes the table: a row a metric, a column a target; medians, and the
// least and the most behind them.
func (s *reportScenario) fill() {
	seen := map[string]bool{}
	for _, r := range s.Results {
		for _, run := range r.Runs {
			for _, m := range run.Metrics() {
				if seen[m.Name] {
					continue
				}
				seen[m.Name] = true
				row := reportRow{Name: m.Name, Unit: m.Unit}
				for _, of := range s.Results {
					row.Cells = append(row.Cells, cellOf(of, values(of, m.Name)))
				}
				s.Rows = append(s.Rows, row)
			}
		}
	}
	type detail struct {
		name, unit string
		of         func(r *Run) float64
	}
	var details []detail
	for _, part := range []struct {
		name string
		of   func(r *Run) *Spread
	}{
		{"age", func(r *Run) *Spread { return &r.Age }},
		{"ingest, of it", func(r *Run) *Spread { return &r.Ingest }},
		{"gateway, of it", func(r *Run) *Spread { return &r.Gateway }},
		{"wire, of it", func(r *Run) *Spread { return &r.Wire }},
	} {
		for _, q := range []struct {
			name string
			of   func(d *Spread) float64
		}{
			{"p50", func(d *Spread) float64 { return d.P50 }}, {"p90", func(d *Spread) float64 { return d.P90 }}, {"p99", func(d *Spread) float64 { return d.P99 }},
			{"p99.9", func(d *Spread) float64 { return d.P999 }}, {"max", func(d *Spread) float64 { return d.Max }},
		} {
			name := part.name + " " + q.name
			if !seen[name] {
				details = append(details, detail{name, "ms", func(r *Run) float64 { return q.of(part.of(r)) }})
			}
		}
	}
	processes := map[string]bool{}
	for _, r := range s.Results {
		for _, run := range r.Runs {
			for name := range run.Processes {
				processes[name] = true
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(processes)) {
		per := func(f func(u Usage) float64) func(r *Run) float64 {
			return func(r *Run) float64 { return f(r.Processes[p]) / max(r.Seconds, 1e-9) }
		}
		if p != GatewayProcess { // whose are among the metrics
			details = append(details, detail{p + " CPU", "cores", per(func(u Usage) float64 { return u.CPU.Seconds() })},
				detail{p + " RSS at end", "MB", func(r *Run) float64 { return float64(r.Processes[p].RSS) / 1e6 }})
		}
		details = append(details, detail{p + " context switches", "1/s", per(func(u Usage) float64 { return float64(u.Voluntary + u.Involuntary) })})
	}
	for _, d := range details {
		row := reportRow{Name: d.name, Unit: d.unit}
		for _, r := range s.Results {
			var v []float64
			for _, run := range r.Valid() {
				if run.Age.Count > 0 || run.Seconds > 0 {
					v = append(v, d.of(run))
				}
			}
			row.Cells = append(row.Cells, cellOf(r, v))
		}
		s.Details = append(s.Details, row)
	}
	// What it cost us, and whether that was in the way.
	for _, own := range []detail{
		{"tickbench's own CPU", "cores", func(r *Run) float64 { return r.Self.CPU.Seconds() / max(r.Seconds, 1e-9) }},
		{"lag behind the schedule, p99", "ms", func(r *Run) float64 { return r.Lag.P99 }},
		{"a look of the event loop, p99", "ms", func(r *Run) float64 { return r.Batch.P99 }},
		{"a ready socket's wait for it, p99", "ms", func(r *Run) float64 { return r.Wait.P99 }},
		{"times beyond the histograms", "", func(r *Run) float64 { return float64(r.Clamped + r.Negative) }},
	} {
		row := reportRow{Name: own.name, Unit: own.unit}
		for _, r := range s.Results {
			var v []float64
			for _, run := range r.Runs { // invalid ones too: here it is told why
				v = append(v, own.of(run))
			}
			row.Cells = append(row.Cells, cellOf(r, v))
		}
		s.Details = append(s.Details, row)
	}
}

func cellOf(r *Result, v []float64) string {
	if r.Unsupported != "" {
		return "unsupported"
	}
	return cell(v)
}

func cell(v []float64) string {
	if len(v) == 0 {
		return "–"
	}
	text := figure(median(v))
	if len(v) > 1 {
		low, high := v[0], v[0]
		for _, x := range v {
			low, high = min(low, x), max(high, x)
		}
		text += " (" + figure(low) + " to " + figure(high) + ")"
	}
	return text
}

// figure writes three digits of a number.
func figure(v float64) string {
	if v == 0 {
		return "0"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	return strconv.FormatFloat(v, 'f', min(digits, 4), 64)
}

// draw makes the plots, of the last valid run of each target.
func (s *reportScenario) draw() error {
	type line struct {
		name string
		xys  plotter.XYs
		dash bool
		ink  int
	}
	picture := func(title, x, y string, logs bool, lines []line) error {
		p := plot.New()
		p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
		p.Legend.Top, p.Legend.Left = true, true
		p.Add(plotter.NewGrid())
		if logs {
			p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		} else {
			p.Y.Min = 0
		}
		drawn := 0
		low, high := math.Inf(1), math.Inf(-1)
		for _, l := range lines {
			if len(l.xys) == 0 {
				continue
			}
			drawn++
			for _, xy := range l.xys {
				low, high = min(low, xy.Y), max(high, xy.Y)
			}
			made, err := plotter.NewLine(l.xys)
			if err != nil {
				return err
			}
			made.Color = inks[l.ink%len(inks)]
			made.Width = vg.Points(1.5)
			if l.dash {
				made.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
			}
			p.Add(made)
			p.Legend.Add(l.name, made)
		}
		if drawn == 0 {
			return nil
		}
		if logs { // whole decades, so that there are numbers at the axis
			p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
			if p.Y.Min == p.Y.Max {
				p.Y.Max *= 10
			}
		} else {
			p.Y.Max = max(1.1*high, p.Y.Max)
		}
		c := vgsvg.New(16*vg.Centimeter, 9*vg.Centimeter)
		p.Draw(draw.New(c))
		var b bytes.Buffer
		if _, err := c.WriteTo(&b); err != nil {
			return err
		}
		svg := b.String() // without the XML head, which HTML does not want
		s.Plots = append(s.Plots, template.HTML(svg[strings.Index(svg, "<svg"):]))
		return nil
	}
	var ages, overTime, delivered, cpu, memory []line
	for i, r := range s.Results {
		valid := r.Valid()
		if len(valid) == 0 {
			continue
		}
		run := valid[len(valid)-1]
		var age, p50, p99, flow, lost, cores, rss plotter.XYs
		for _, st := range run.Age.Steps {
			// Nines as they are spoken of: 0 is 0 %, 1 is 90 %, 2 is 99 %.
			if st[0] > 0 && st[1] < 100 {
				age = append(age, plotter.XY{X: -math.Log10(1 - st[1]/100), Y: st[0]})
			}
		}
		for _, sec := range run.Timeline {
			if sec.AgeP50 > 0 {
				p50 = append(p50, plotter.XY{X: sec.At, Y: sec.AgeP50})
			}
			if sec.AgeP99 > 0 {
				p99 = append(p99, plotter.XY{X: sec.At, Y: sec.AgeP99})
			}
			flow = append(flow, plotter.XY{X: sec.At, Y: float64(sec.Delivered)})
			lost = append(lost, plotter.XY{X: sec.At, Y: float64(sec.Merged + sec.Dropped)})
			cores = append(cores, plotter.XY{X: sec.At, Y: sec.CPU})
			rss = append(rss, plotter.XY{X: sec.At, Y: float64(sec.RSS) / 1e6})
		}
		ages = append(ages, line{r.Target, age, false, i})
		overTime = append(overTime, line{r.Target + " p50", p50, true, i}, line{r.Target + " p99", p99, false, i})
		delivered = append(delivered, line{r.Target + " delivered", flow, false, i}, line{r.Target + " merged and dropped", lost, true, i})
		cpu = append(cpu, line{r.Target, cores, false, i})
		memory = append(memory, line{r.Target, rss, false, i})
	}
	for _, one := range []struct {
		title, x, y string
		logs        bool
		lines       []line
	}{
		{"Age at the client", "nines (1 is 90 %, 2 is 99 %)", "ms", true, ages},
		{"Age over time", "s", "ms", true, overTime},
		{"Ticks a second", "s", "ticks", false, delivered},
		{"CPU of the target", "s", "cores", false, cpu},
		{"Memory of the target", "s", "MB", false, memory},
	} {
		if err := picture(one.title, one.x, one.y, one.logs, one.lines); err != nil {
			return fmt.Errorf("plot %q: %w", one.title, err)
		}
	}
	return nil
}
