package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"tickgate/bench"
)

func newCompare() *cobra.Command {
	var fail, across bool
	cmd := &cobra.Command{
		Use:   "compare BEFORE.json AFTER.json",
		Short: "Say what changed beyond the noise",
		Long: `Compares two results of one scenario: medians, and the interval in which the
change of the median lies with 95 % confidence (bootstrap over the runs). What
holds 0 is noise. Best are results of runs in turn:

  tickbench run cycle --target old=OLD --target new=NEW --repeats 7 --out c
  tickbench compare c/cycle-old.json c/cycle-new.json

With --across the results may be of two scenarios: what do stalled clients cost?

  tickbench run calm stalled --repeats 7 --out s
  tickbench compare --across s/calm-tickgate.json s/stalled-tickgate.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%w: compare needs two result files", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			before, err := bench.ReadResult(args[0])
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			after, err := bench.ReadResult(args[1])
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			changes, err := bench.Compare(before, after, across)
			if errors.Is(err, bench.ErrScenarios) {
				return fmt.Errorf("%w: %w; --across compares them all the same", errUsage, err)
			}
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			scenario := before.Scenario.Name
			if after.Scenario.Name != scenario {
				scenario += " to " + after.Scenario.Name
			}
			fmt.Fprintf(w, "%s\tbefore (%s %s, %d runs)\tafter (%s %s, %d runs)\tchange\t95 %% confident\t\n", scenario,
				before.Target, before.Commit, len(before.Valid()), after.Target, after.Commit, len(after.Valid()))
			worse := 0
			for _, c := range changes {
				span, change := "", ""
				if c.Before != 0 {
					change = fmt.Sprintf("%+.1f %%", 100*(c.After/c.Before-1))
					if c.Verdict != bench.Unknown {
						span = fmt.Sprintf("%+.1f to %+.1f %%", 100*c.Low, 100*c.High)
					}
				}
				fmt.Fprintf(w, "%s, %s\t%s\t%s\t%s\t%s\t%s\n", c.Name, c.Unit, number(c.Before), number(c.After), change, span, c.Verdict)
				if c.Verdict == bench.Loss {
					worse++
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if before.Machine != after.Machine {
				fmt.Fprintln(out, "the machines differ: this compares them too")
			}
			broken := uint64(0)
			for _, r := range []*bench.Result{before, after} {
				if n := r.Faults(); n > 0 {
					broken += n
					fmt.Fprintf(out, "%s on %s: %d violations: its figures are those of a gateway that does not keep its promises\n", r.Scenario.Name, r.Target, n)
				}
			}
			switch {
			case fail && worse > 0:
				return fmt.Errorf("a regression: %d figures are worse", worse)
			case fail && broken > 0:
				return fmt.Errorf("%d violations", broken)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&across, "across", false, "compare results of two scenarios, of which one is the other with something added")
	cmd.Flags().BoolVar(&fail, "fail-on-regression", false, "exit 1 if a figure is worse, or a check had found a violation")
	return cmd
}
