package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tickgate/codec"
	"tickgate/gateway/client"
)

// tailEveryMax is the slowest cadence that a gateway grants.
const tailEveryMax = 60_000

func newTail() *cobra.Command {
	var c common
	var url, channel string
	var everyMillis int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "tail SYMBOL...",
		Short: "Watch symbols in the terminal",
		Long: `Subscribes over WebSocket in MessagePack and shows a live table, or with --json
one JSON object an update. A SYMBOL may end in * ("BTC*", "*"): quote it.

A line of --json has symbol, channel, epoch, seq, last, bid, ask, volume, trades
(running totals), age_us (receive minus ingest), event_age_us (receive minus the
venue's time), merged and dropped (since the previous line of this symbol); on
trades also kind, price, size, side. Decimals are strings, what is not known is
null.`,
		Example: `  tickgate tail BTCUSDT ETHUSDT
  tickgate tail --json --channel trades --every 0 '*'`,
		Args: atLeastOne("SYMBOL"),
		RunE: func(cmd *cobra.Command, symbols []string) error {
			log, err := c.load(cmd)
			if err != nil {
				return err
			}
			ch, ok := codec.ParseChannel(channel)
			if !ok {
				return fmt.Errorf("%w: --channel %q: want ticker, quotes or trades", errUsage, channel)
			}
			if everyMillis < 0 || everyMillis > tailEveryMax {
				return fmt.Errorf("%w: --every %d: want 0 to %d (milliseconds)", errUsage, everyMillis, tailEveryMax)
			}
			watcher, err := client.New(client.Options{URL: url, Logger: log})
			if err != nil {
				return fmt.Errorf("%w: --url: %w", errUsage, err)
			}
			if err := watcher.Subscribe(client.Subscription{
				Channel: ch, Symbols: symbols, Every: time.Duration(everyMillis) * time.Millisecond, View: client.LineView(ch),
			}); err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			if asJSON {
				return tailLines(cmd, watcher)
			}
			return tailTable(cmd, watcher)
		},
	}
	f := cmd.Flags()
	c.flags(f)
	f.StringVar(&url, "url", "ws://127.0.0.1:8080/v1/ws", "the gateway's WebSocket `URL`")
	f.StringVar(&channel, "channel", "ticker", "ticker, quotes or trades")
	f.IntVar(&everyMillis, "every", 100, "a symbol is updated at most once in each period of so many `MS`; 0: every update")
	f.BoolVar(&asJSON, "json", false, "one JSON object an update instead of the table")
	return cmd
}

// notices are what a person should know of events. They remember of which
// symbols they have told that something is wrong.
type notices map[string]bool

// of is the notice of an event, "" if it is worth none.
func (wrong notices) of(e *codec.Event) string {
	switch e.Type {
	case codec.EventWaiting:
		return e.Symbol + " has not traded; waiting for it"
	case codec.EventRefused:
		return fmt.Sprintf("%s refused: %s; want %s", e.Symbol, e.Why, e.Want)
	case codec.EventError:
		return fmt.Sprintf("gateway says %s: %s", e.Code, e.Why)
	case codec.EventReset:
		return fmt.Sprintf("%s: numbering restarted (epoch %d)", e.Symbol, e.Epoch)
	case codec.EventBehind:
		return e.Symbol + ": this node is behind what you have seen"
	case codec.EventDrop:
		return fmt.Sprintf("%s: %d trades dropped", e.Symbol, e.Count)
	case codec.EventGoaway:
		return fmt.Sprintf("the gateway leaves within %v", e.Window)
	case codec.EventState:
		switch e.State {
		case codec.StateStale, codec.StateGap, codec.StateHalted, codec.StateClosed:
			wrong[e.Symbol] = true
			return fmt.Sprintf("%s is %v: %s", e.Symbol, e.State, e.Why)
		case codec.StateLive, codec.StateQuiet:
			if wrong[e.Symbol] {
				delete(wrong, e.Symbol)
				return fmt.Sprintf("%s is %v again", e.Symbol, e.State)
			}
		}
	}
	return ""
}

// lineFlushTime bounds how long a line waits in our buffer.
const lineFlushTime = 20 * time.Millisecond

// tailLines prints a JSON object an update; notices go to stderr.
func tailLines(cmd *cobra.Command, watcher *client.Client) error {
	var mu sync.Mutex // guards out: lines come, and a timer flushes
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	flush := func() error {
		mu.Lock()
		defer mu.Unlock()
		if err := out.Flush(); err != nil {
			return errOutput{err}
		}
		return nil
	}
	say := func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), "tickgate tail:", s) }
	var buf []byte
	wrong := notices{}
	err := together(cmd.Context(), func(ctx context.Context) error {
		return watcher.Run(ctx, client.Handler{
			Update: func(u *client.Update) error {
				mu.Lock()
				defer mu.Unlock()
				buf = client.AppendLine(buf[:0], u)
				if _, err := out.Write(buf); err != nil {
					return errOutput{err}
				}
				return nil
			},
			Event: func(e *codec.Event) {
				if s := wrong.of(e); s != "" {
					say(s)
				}
			},
			Violation:    func(v *client.Violation) { say(v.Error()) },
			Disconnected: func(err error) { say(fmt.Sprintf("%v; connecting again", err)) },
		})
	}, func(ctx context.Context) error {
		tick := time.NewTicker(lineFlushTime)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				if err := flush(); err != nil {
					return err
				}
			}
		}
	})
	return tailEnd(errors.Join(flush(), err))
}

// errOutput is a write to our own output that failed: somebody closed the pipe.
type errOutput struct{ err error }

func (e errOutput) Error() string { return "output: " + e.err.Error() }
func (e errOutput) Unwrap() error { return e.err }

// tailEnd makes ends that are no faults none.
func tailEnd(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// tailTable shows a live table.
func tailTable(cmd *cobra.Command, watcher *client.Client) error {
	table := client.NewTable(client.TableOptions{
		Out: cmd.OutOrStdout(),
		Size: func() (columns, rows int) {
			columns, rows, _ = term.GetSize(int(os.Stdout.Fd()))
			return columns, rows
		},
	})
	wrong := notices{}
	return together(cmd.Context(), table.Run, func(ctx context.Context) error {
		return tailEnd(watcher.Run(ctx, client.Handler{
			Update: func(u *client.Update) error { table.Update(u); return nil },
			Event: func(e *codec.Event) {
				table.Event(e)
				if s := wrong.of(e); s != "" {
					table.Status(s)
				}
			},
			Connected:    func() { table.Status("") },
			Disconnected: func(err error) { table.Status(fmt.Sprintf("%v; connecting again", err)) },
		}))
	})
}
