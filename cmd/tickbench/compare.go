package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"tickgate/bench"
)

func newCompare() *cobra.Command {
	var fail bool
	cmd := &cobra.Command{
		Use:   "compare BEFORE.json AFTER.json",
		Short: "Say what changed beyond the noise",
		Long: `Compares two results of one scenario: medians, and the interval in which the
change of the median lies with 95 % confidence (bootstrap over the runs). What
holds 0 is noise. Best are results of runs in turn:

  tickbench run cycle --target old=OLD --target new=NEW --repeats 7 --out c
  tickbench compare c/cycle-old.json c/cycle-new.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%w: compare needs two result files", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			before, err := bench.ReadResult(args[0])
			if err != nil {
				return err
			}
			after, err := bench.ReadResult(args[1])
			if err != nil {
				return err
			}
			changes, err := bench.Compare(before, after)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "%s\tbefore (%s %s)\tafter (%s %s)\tchange\t95 %% confident\t\n", before.Scenario.Name, before.Target, before.Commit, after.Target, after.Commit)
			worse := 0
			for _, c := range changes {
				span := ""
				if c.Verdict != bench.Unknown {
					span = fmt.Sprintf("%+.1f to %+.1f %%", 100*c.Low, 100*c.High)
				}
				change := ""
				if c.Before != 0 {
					change = fmt.Sprintf("%+.1f %%", 100*(c.After/c.Before-1))
				}
				fmt.Fprintf(w, "%s, %s\t%s\t%s\t%s\t%s\t%s\n", c.Name, c.Unit, number(c.Before), number(c.After), change, span, c.Verdict)
				if c.Verdict == bench.Worse {
					worse++
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if before.Machine != after.Machine {
				fmt.Fprintln(cmd.OutOrStdout(), "the machines differ: this compares them too")
			}
			if fail && worse > 0 {
				return errors.New("a regression")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&fail, "fail-on-regression", false, "exit 1 if something is worse")
	return cmd
}
