package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Target is a gateway to measure: what to start, and how clients speak to it.
type Target struct {
	Name string
	// Has are the features that scenarios may need.
	Has []string
	// Start starts it. Inlet is where it takes ticks, if it was asked to.
	Start func(ctx context.Context, o *StartOptions) (*Instance, error)
}

// Lacks are the features that the scenario needs and the target has not.
func (t *Target) Lacks(s *Scenario) []string {
	return slices.DeleteFunc(s.Features(), func(f string) bool { return slices.Contains(t.Has, f) })
}

// Supports says what of the scenario the target lacks, as [ErrUnsupported].
func (t *Target) Supports(s *Scenario) error {
	if lacks := t.Lacks(s); len(lacks) > 0 {
		return fmt.Errorf("%w: %s has no %s, which the scenario %s needs", ErrUnsupported, t.Name, strings.Join(lacks, ", "), s.Name)
	}
	return nil
}

// StartOptions are what a target is started with.
type StartOptions struct {
	Scenario *Scenario
	Dir      string // for sockets and files, removed afterwards
	Cores    []int  // of the gateway
	// Of the other processes, if it has them.
	BrokerCores, FeedCores []int

	Kafka bool // take ticks from Kafka, not from an inlet
}

// Instance is a running target.
type Instance struct {
	Endpoint Endpoint
	Inlet    string // path of its Unix socket; "" with Kafka
	Brokers  string // of Kafka; "" with an inlet
	RawTopic string
	Admin    string // base URL of its metrics and profiles; may be ""

	processes []*Process
}

// Close ends the processes, the last one first.
func (in *Instance) Close() error {
	var errs []error
	for i := len(in.processes) - 1; i >= 0; i-- {
		errs = append(errs, in.processes[i].stop())
	}
	return errors.Join(errs...)
}

// usage reads what each process has used.
func (in *Instance) usage() (map[string]Usage, error) {
	all := map[string]Usage{}
	for _, p := range in.processes {
		u, err := usageOf(p.cmd.Process.Pid)
		if err != nil {
			return nil, fmt.Errorf("%s ended: %w\n%s", p.name, err, p.tail())
		}
		all[p.name] = u
	}
	return all, nil
}

// Add makes a process part of the instance.
func (in *Instance) Add(p *Process) { in.processes = append(in.processes, p) }

// GatewayProcess is what a target calls the process that clients are at.
const GatewayProcess = "gateway"

// Process is a child that says on its standard output when it is ready.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu  sync.Mutex
	out []byte // the end of what it wrote
	err error
}

// Bounds of a child.
const (
	startTime = 30 * time.Second // until it is ready: kfake, consumer groups
	stopTime  = 5 * time.Second  // from SIGTERM to SIGKILL
	outBytes  = 8 << 10          // kept of its output
)

// StartProcess starts a program on cores and waits until its standard output
// matches all of ready, whose first groups are returned.
func StartProcess(ctx context.Context, name string, cores []int, argv []string, env []string, ready ...string) (*Process, []string, error) {
	p := &Process{name: name, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is ours to pass on
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	p.cmd.Stderr = p
	if err := pinned(cores, p.cmd.Start); err != nil {
		return nil, nil, fmt.Errorf("starting %s: %w", strings.Join(argv, " "), err)
	}
	found := make(chan []string, 1)
	go func() {
		want := make([]*regexp.Regexp, len(ready))
		for i, r := range ready {
			want[i] = regexp.MustCompile(r)
		}
		got := make([]string, len(ready))
		left := len(ready)
		in := bufio.NewScanner(stdout)
		for in.Scan() {
			_, _ = p.Write(append(in.Bytes(), '\n'))
			for i, r := range want {
				if m := r.FindStringSubmatch(in.Text()); m != nil && got[i] == "" {
					got[i] = m[1]
					if left--; left == 0 {
						found <- got
					}
				}
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if len(ready) == 0 {
		return p, nil, nil
	}
	select {
	case got := <-found:
		return p, got, nil
	case <-p.done:
		return nil, nil, fmt.Errorf("%s ended before it was ready: %v\n%s", name, p.err, p.tail())
	case <-time.After(startTime):
		_ = p.stop()
		return nil, nil, fmt.Errorf("%s was not ready within %v\n%s", name, startTime, p.tail())
	case <-ctx.Done():
		_ = p.stop()
		return nil, nil, ctx.Err()
	}
}

// Write keeps the end of what the process says.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = append(p.out, b...)
	if over := len(p.out) - outBytes; over > 0 {
		p.out = append(p.out[:0], p.out[over:]...)
	}
	return len(b), nil
}

func (p *Process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(bytes.TrimSpace(p.out))
}

// stop ends the process, with force if it takes too long.
func (p *Process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		var exit *exec.ExitError
		if errors.As(p.err, &exit) && !exit.Exited() {
			return fmt.Errorf("%s: %w\n%s", p.name, p.err, p.tail())
		}
		return nil
	case <-time.After(stopTime):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within %v of SIGTERM\n%s", p.name, stopTime, p.tail())
	}
}

// TickgateOptions say how tickgate is started.
type TickgateOptions struct {
	Name   string // of the target; "tickgate" by default
	Binary string
	Env    []string
	// Broker is the command line of a Kafka broker that prints "listening ADDR";
	// Brokers, if set, is one that runs already.
	Broker  []string
	Brokers string
	// Certificate makes a certificate and its key for TLS, in files.
	Certificate func(dir string) (cert, key string, err error)
	// Args are added to the gateway's.
	Args []string
}

// Tickgate is this project's own gateway.
func Tickgate(o TickgateOptions) *Target {
	if o.Name == "" {
		o.Name = "tickgate"
	}
	return &Target{
		Name:  o.Name,
		Has:   []string{"batching", "conflation", "json", "resume", "patterns", "views", "quotes", "tls", "kafka"},
		Start: o.start,
	}
}

func (o *TickgateOptions) start(ctx context.Context, so *StartOptions) (_ *Instance, err error) {
	in := &Instance{}
	defer func() {
		if err != nil {
			_ = in.Close()
		}
	}()
	serve := []string{o.Binary, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--pprof",
		"--clients-per-address", "-1", "--upgrades-per-second", "-1", "--symbols-per-client", "-1"}
	if so.Scenario.StallMax > 0 {
		serve = append(serve, "--stall-max", so.Scenario.StallMax.String())
	}
	if so.Scenario.TLS {
		cert, key, err := o.Certificate(so.Dir)
		if err != nil {
			return nil, err
		}
		serve = append(serve, "--tls-cert", cert, "--tls-key", key)
	}
	if so.Kafka {
		if in.Brokers = o.Brokers; in.Brokers == "" {
			p, got, err := StartProcess(ctx, "broker", so.BrokerCores, o.Broker, o.Env, `^listening (\S+)`)
			if err != nil {
				return nil, err
			}
			in.Add(p)
			in.Brokers = got[0]
		}
		in.RawTopic = fmt.Sprintf("raw.bench%d", time.Now().UnixMilli()) // what earlier runs left is not ours
		p, _, err := StartProcess(ctx, "feed", so.FeedCores, []string{o.Binary, "feed", "--brokers", in.Brokers, "--admin", "127.0.0.1:0",
			"--raw", cmp.Or(so.Scenario.Market.Venue, "binance") + "=" + in.RawTopic, "--group", in.RawTopic}, o.Env, `(?:metrics|brokers)\s+(\S+)`)
		if err != nil {
			return nil, err
		}
		in.Add(p)
		serve = append(serve, "--brokers", in.Brokers)
	} else {
		in.Inlet = filepath.Join(so.Dir, "inlet")
		serve = append(serve, "--bench-inlet", "unix:"+in.Inlet)
	}
	p, got, err := StartProcess(ctx, GatewayProcess, so.Cores, append(serve, o.Args...), o.Env, `websocket\s+wss?://([^/\s]+)/`, `metrics\s+(http://[^/\s]+)/`)
	if err != nil {
		return nil, err
	}
	in.Add(p)
	addr, err := netip.ParseAddrPort(got[0])
	if err != nil {
		return nil, err
	}
	in.Endpoint = Endpoint{Addr: addr, Path: "/v1/ws", TLS: so.Scenario.TLS, Speak: Native, Conflates: true, Ledger: true, Numbered: true}
	in.Admin = got[1]
	return in, nil
}
