// Command peers is what others would build with a well-known library: servers
// of market data that are fed by the generator that feeds tickgate, and read by
// the clients that read tickgate, so that a benchmark compares like with like.
//
//	peers gws        --listen 127.0.0.1:0 --inlet unix:PATH
//	peers centrifuge --listen 127.0.0.1:0 --inlet unix:PATH [--batch 10ms]
//	peers nats       --listen 127.0.0.1:0 --inlet unix:PATH [--ticker]
//
// Each spells its rows with tickgate's own codec: what differs is only how they
// come to the clients. They are for a benchmark on one machine, and check no
// one's right to anything.
//
// It is a module of its own, so that tickgate does not depend on what it is
// compared with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// A peer is one of the servers.
type peer interface {
	publisher
	// run serves clients until ctx is done. It calls ready once they can
	// connect, and publish may be called from then on.
	run(ctx context.Context, ready func(net.Addr)) error
}

// options are what the command line says.
type options struct {
	listen string
	inlet  string
	batch  time.Duration // centrifuge
	ticker bool          // nats
}

const (
	// stopTime is how long clients are told of the end. A benchmark does not
	// wait for more.
	stopTime = time.Second
	// exitTime is when the process ends whatever is still open.
	exitTime = 1800 * time.Millisecond

	batchMax = time.Second

	usage = "usage: peers gws|centrifuge|nats --listen HOST:PORT --inlet unix:PATH [--batch 10ms] [--ticker]"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, func() {
		time.Sleep(exitTime)
		os.Exit(0)
	})
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(ctx, os.Args[1:], os.Stdout, log); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "peers:", err)
		}
		os.Exit(2)
	}
}

// run is the command: it serves until ctx is done.
func run(ctx context.Context, args []string, stdout io.Writer, log *slog.Logger) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	o, err := parse(args[0], args[1:])
	if err != nil {
		return err
	}
	m := newMarket()
	var p peer
	switch args[0] {
	case "gws":
		p = newGWS(m, o, log)
	case "centrifuge":
		p, err = newCentrifuge(m, o, log)
	case "nats":
		p, err = newNATS(m, o, log)
	default:
		err = fmt.Errorf("no peer is called %q; %s", args[0], usage)
	}
	if err != nil {
		return err
	}
	in, err := listenInlet(o.inlet, log)
	if err != nil {
		return err
	}
	defer in.close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var fed sync.WaitGroup
	err = p.run(ctx, func(a net.Addr) {
		fmt.Fprintf(stdout, "listening %s\n", a)
		fed.Go(func() { cancel(in.run(ctx, func(r *tick) { m.publish(p, r) })) })
	})
	cancel(nil)
	fed.Wait()
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// parse reads the flags of the peer called name.
func parse(name string, args []string) (o options, err error) {
	f := flag.NewFlagSet("peers "+name, flag.ContinueOnError)
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "address for WebSocket clients")
	f.StringVar(&o.inlet, "inlet", "", "unix:PATH of the socket that takes records")
	if name == "centrifuge" {
		f.DurationVar(&o.batch, "batch", 0, "gather a client's messages for so long; 0: do not")
	}
	if name == "nats" {
		f.BoolVar(&o.ticker, "ticker", false, "publish ticker rows besides trades")
	}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag; %s", f.Arg(0), usage)
	}
	if o.batch < 0 || o.batch > batchMax {
		return o, fmt.Errorf("--batch %v: want 0 to %v", o.batch, batchMax)
	}
	return o, nil
}

// serveHTTP serves h until ctx is done, and then calls stop, which ends the
// connections that h has taken over.
func serveHTTP(ctx context.Context, listen string, h http.Handler, ready func(net.Addr), stop func()) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	ready(l.Addr())
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	_ = s.Close()
	stop()
	return err
}
