// Command tickbench measures a gateway with thousands of clients, and checks
// that it keeps its promises meanwhile.
//
//	tickbench run SCENARIO        one load, or several times over, on one target or several
//	tickbench scenarios           the loads that come with it
//	tickbench compare A B         what changed beyond the noise
//	tickbench report RESULT...    plots, in one HTML file that needs no network
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
		Use:   "scenarios",
		Short: "List the loads that come with tickbench",
		Long:  "Lists the loads that come with tickbench. A load is a YAML file; bench/scenarios holds these, to begin one's own with.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := bench.Scenarios()
			if err != nil {
				return err
			}
			for _, s := range all {
				fmt.Fprintf(cmd.OutOrStdout(), "%-14s %s\n", s.Name, s.About)
				if need := s.Features(); len(need) > 0 {
					fmt.Fprintf(cmd.OutOrStdout(), "%-14s needs: %s\n", "", strings.Join(need, ", "))
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
