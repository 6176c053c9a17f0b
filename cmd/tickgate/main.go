// Command tickgate is the live price ticker gateway: raw venue ticks in Kafka
// in, the prices that trading UIs ask for out.
//
//	tickgate dev      everything in one process, with a market that plays
//	tickgate feed     raw messages -> per-symbol Kafka topics
//	tickgate serve    per-symbol Kafka topics -> WebSocket clients
//	tickgate replay   tick files -> a raw Kafka topic
//	tickgate tail     watch symbols in the terminal
//
// This package wires the house together and holds no logic of its own: feed
// and gateway do not know each other, and only config.go reads flags,
// environment and files.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
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

// errUsage marks what the caller typed wrongly: exit 2, not 1.
var errUsage = errors.New("usage")

// run is main without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "tickgate: %v\nRun 'tickgate --help' or 'tickgate COMMAND --help'.\n", err)
		return 2
	}
	fmt.Fprintf(stderr, "tickgate: %v\n", err)
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "tickgate",
		Short:         "The live price ticker gateway: Kafka in, WebSocket out",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newDev(), newFeed(), newServe(), newReplay(), newTail(), newVersion())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w", errUsage, err)
	})
	return root
}

// noArgs is cobra's check as a fault of usage.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return fmt.Errorf("%w: unknown command %q", errUsage, args[0])
	}
	return fmt.Errorf("%w: %s takes flags only, not %q", errUsage, cmd.CommandPath(), args[0])
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print what this binary was built from",
		Args:  noArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "tickgate", version()) },
	}
}

// version is the module's version or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value[:min(12, len(s.Value))]
		}
	}
	return v + " " + info.GoVersion
}
