// Command tickbench measures a gateway with thousands of clients, and checks
// that it keeps its promises meanwhile.
//
//	tickbench run SCENARIO        one load, or several times over, on one target or several
//	tickbench scenarios [NAME]    the loads that come with it, or one as YAML
//	tickbench compare A B         what changed beyond the noise
//	tickbench report RESULT...    plots, in one HTML file that needs no network; or Markdown
//
// It starts what it measures as processes of its own, on cores of their own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"tickgate/bench"
)

// Exit codes besides 0 and 1, so that scripts can tell what happened.
const (
	exitUsage       = 2 // typed wrongly
	exitUnsupported = 3 // the target lacks what the scenario needs
	exitInvalid     = 4 // this program was too slow: the figures tell nothing
)

var (
	errUsage   = errors.New("usage")
	errInvalid = errors.New("invalid")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() { // a second signal ends the process at once
		<-ctx.Done()
		stop()
	}()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "tickbench: %v\n", err)
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, "Run 'tickbench --help' or 'tickbench COMMAND --help'.")
		return exitUsage
	case errors.Is(err, bench.ErrUnsupported):
		return exitUnsupported
	case errors.Is(err, errInvalid):
		return exitInvalid
	}
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "tickbench",
		Short:         "Measure a gateway with thousands of clients, and check what it promises",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: unknown command %q", errUsage, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newRun(), newScenarios(), newCompare(), newReport(), newFloor(), newBroker())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	return root
}

func newScenarios() *cobra.Command {
	return &cobra.Command{
		Use:   "scenarios [NAME]",
		Short: "List the loads that come with tickbench, or print one",
		Long: `Lists the loads that come with tickbench: name, what it is about, and what a
target needs for it. With a NAME it prints that load's YAML, to be saved, changed
and run; bench/scenarios/README.md says what each field means.`,
		Example: `  tickbench scenarios
  tickbench scenarios cycle > mine.yaml && tickbench run ./mine.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%w: scenarios takes one NAME", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			if len(args) == 1 {
				b, err := bench.ScenarioYAML(args[0])
				if err != nil {
					return fmt.Errorf("%w: %w", errUsage, err)
				}
				_, err = out.Write(b)
				return err
			}
			all, err := bench.Scenarios()
			if err != nil {
				return err
			}
			for _, s := range all {
				fmt.Fprintf(out, "%-14s %s\n", s.Name, s.About)
				if need := s.Features(); len(need) > 0 {
					fmt.Fprintf(out, "%-14s needs: %s\n", "", strings.Join(need, ", "))
				}
			}
			return nil
		},
	}
}

// newFloor is what run starts as the bare program.
func newFloor() *cobra.Command {
	return &cobra.Command{
		Use:    "floor TRACE CLIENTS",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var clients int
			if _, err := fmt.Sscan(args[1], &clients); err != nil || clients < 1 {
				return fmt.Errorf("%w: CLIENTS %q: want a number", errUsage, args[1])
			}
			return bench.ServeFloor(cmd.OutOrStdout(), args[0], clients)
		},
	}
}
