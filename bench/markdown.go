package bench

import (
	"fmt"
	"io"
	"strings"
)

// markdownColumns are the figures by which targets are compared, by their
// metric.
var markdownColumns = []struct{ head, metric string }{
	{"age p50, ms", "age p50"},
	{"age p99, ms", "age p99"},
	{"delivered, ticks/s", "delivered"},
	{"CPU, µs a frame", "CPU per frame"},
	{"ticks a CPU second, M", "ticks per CPU second"},
	{"bytes a tick", "bytes per tick"},
}

// WriteMarkdown writes a table for each scenario, a row a target: medians, and
// the least and the most behind them.
func WriteMarkdown(w io.Writer, results []*Result) error {
	var b strings.Builder
	for _, s := range sectionsOf(results) {
		fmt.Fprintf(&b, "### %s\n\n%s\n", inMarkdown(s.Name), inMarkdown(s.About))
		if f := s.Fairness(); f != "" {
			fmt.Fprintf(&b, "%s\n", inMarkdown(f))
		}
		b.WriteString("Medians (least to most).\n\n| target |")
		for _, c := range markdownColumns {
			fmt.Fprintf(&b, " %s |", c.head)
		}
		b.WriteString(" runs |\n| --- |" + strings.Repeat(" --- |", len(markdownColumns)+1) + "\n")
		for _, r := range s.Results {
			fmt.Fprintf(&b, "| %s |", inMarkdown(r.Target))
			for _, c := range markdownColumns {
				fmt.Fprintf(&b, " %s |", cellOf(r, values(r, c.metric)))
			}
			fmt.Fprintf(&b, " %s |\n", runsOf(r))
		}
		b.WriteString("\n")
		var told []string
		for _, r := range s.Results {
			line := fmt.Sprintf("`%s`, commit %s, on %s, %d cores, Linux %s, %s", r.Command, r.Commit, r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go)
			if n := len(told); n == 0 || told[n-1] != line {
				told = append(told, line)
			}
		}
		fmt.Fprintf(&b, "%s\n\n", strings.Join(told, "\n\n"))
	}
	_, err := io.WriteString(w, strings.TrimSuffix(b.String(), "\n"))
	return err
}

// runsOf says how many runs count, and what was wrong with the others.
func runsOf(r *Result) string {
	if r.Unsupported != "" {
		return "0"
	}
	text := fmt.Sprint(len(r.Valid()))
	if bad := len(r.Runs) - len(r.Valid()); bad > 0 {
		text += fmt.Sprintf(" (%d more invalid)", bad)
	}
	if n := r.Faults(); n > 0 {
		text += fmt.Sprintf(", **%d violations**", n)
	}
	return text
}

// inMarkdown has text be only text, also in a table.
func inMarkdown(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "_", `\_`, "\n", " ").Replace(s)
}
