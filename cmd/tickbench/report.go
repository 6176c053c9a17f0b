package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"tickgate/bench"
)

func newReport() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "report RESULT.json...",
		Short: "Draw results into one HTML file that needs no network",
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
			f, err := os.Create(out)
			if err != nil {
				return err
			}
			err = bench.WriteHTML(f, results)
			if e := f.Close(); err == nil {
				err = e
			}
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "wrote", out)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "report.html", "`FILE` to write")
	return cmd
}
