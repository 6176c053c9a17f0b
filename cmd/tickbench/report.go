package main

import (
	"cmp"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"tickgate/bench"
)

func newReport() *cobra.Command {
	var out string
	var markdown bool
	cmd := &cobra.Command{
		Use:   "report RESULT.json...",
		Short: "Draw results into one HTML file that needs no network, or write tables",
		Long: `Writes an HTML file with tables and plots of results, a section a load, that needs
no network; with --markdown a table a load, a row a target, to the standard output
or to --out.`,
		Example: `  tickbench report results/*.json --out report.html
  tickbench report --markdown bench/results/peers/*.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%w: report needs at least one result file", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var results []*bench.Result
			for _, path := range args {
				r, err := bench.ReadResult(path)
				if err != nil {
					return fmt.Errorf("%w: %w", errUsage, err)
				}
				results = append(results, r)
			}
			write := bench.WriteHTML
			if markdown {
				write = bench.WriteMarkdown
				if out == "" {
					return write(cmd.OutOrStdout(), results)
				}
			}
			out := cmp.Or(out, "report.html")
			f, err := os.Create(out)
			if err != nil {
				return err
			}
			err = write(f, results)
			if e := f.Close(); err == nil {
				err = e
			}
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "wrote", out)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`FILE` to write; report.html, or the standard output, by default")
	cmd.Flags().BoolVar(&markdown, "markdown", false, "tables in Markdown, without plots")
	return cmd
}
