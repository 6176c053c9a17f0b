package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tickgate/bench"
)

// runSettings say what is run, on what, and where the figures go.
type runSettings struct {
	targets     []string
	repeats     int
	inlet       string
	brokers     string
	serverCores string
	brokerCores string
	feedCores   string
	clientCores string
	loops       int
	tickgate    string
	peers       string
	file        string
	out         string
	seed        uint64
	floor       bool
	gatewayArgs []string
	quiet       bool
}

func newRun() *cobra.Command {
	var s runSettings
	cmd := &cobra.Command{
		Use:   "run SCENARIO...",
		Short: "Run loads and check what clients are sent",
		Long: `Runs loads: each is one that comes with tickbench (tickbench scenarios), or a YAML file.

The gateway is started on --server-cores, the clients are on --client-cores. With
--inlet kafka so are a broker and a feed, on --broker-cores and --feed-cores. Several loads and targets are run in turn, as often as --repeats
says (A, B, A, B, ...): whatever else the machine does meets all of them. Results
are written after each run.

Targets: tickgate               this project's gateway
         NAME=PATH              another build of it
         gws, centrifuge, centrifuge-batched, nats   the peers of bench/peers

Exit codes: 0 all is well, 1 something failed or a check found a violation,
2 usage, 3 the target lacks what the load needs, 4 tickbench itself was too slow.`,
		Example: `  tickbench run fan-out
  tickbench run cycle --floor --repeats 5 --out cycle.json
  tickbench run conflated --target tickgate --target old=/tmp/tickgate --repeats 5 --out change
  tickbench run calm stalled --repeats 7 --out stalled
  tickbench run watchlists --inlet kafka`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%w: run needs a SCENARIO; see 'tickbench scenarios'", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd, args) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&s.targets, "target", []string{"tickgate"}, "`TARGET` to measure; may be given several times")
	f.IntVar(&s.repeats, "repeats", 1, "how many times each load is run on each target, in turn")
	f.StringVar(&s.inlet, "inlet", "unix", "how ticks come in: unix, past Kafka, or kafka, the whole way")
	f.StringVar(&s.brokers, "brokers", "", "a Kafka that runs already, for --inlet kafka; one is started by default")
	f.StringVar(&s.serverCores, "server-cores", defaultCores(0), "cores of the gateway, such as 0 or 0,2; any leaves it to the kernel")
	f.StringVar(&s.brokerCores, "broker-cores", "", "cores of a Kafka that is started; those of --server-cores by default")
	f.StringVar(&s.feedCores, "feed-cores", "", "cores of the feed; those of --server-cores by default")
	f.StringVar(&s.clientCores, "client-cores", defaultCores(1), "cores of the clients")
	f.IntVar(&s.loops, "loops", 1, "event loops that the clients share")
	f.StringVar(&s.tickgate, "tickgate", "", "`PATH` of tickgate; beside this program, or built, by default")
	f.StringVar(&s.peers, "peers", "", "`PATH` of the peers' program; built from bench/peers by default")
	f.StringVar(&s.file, "file", "", "tick `FILE` to replay, for the scenario replay")
	f.StringVar(&s.out, "out", "", "`FILE.json` to write the result to, or a folder for those of several loads or targets")
	f.Uint64Var(&s.seed, "seed", 1, "decides who watches what, and all prices")
	f.BoolVar(&s.floor, "floor", false, "measure the same messages written by a bare program too")
	f.StringSliceVar(&s.gatewayArgs, "gateway-arg", nil, "an `ARGUMENT` more for tickgate serve")
	f.BoolVar(&s.quiet, "quiet", false, "no progress")
	return cmd
}

// defaultCores gives the target the first core and the clients the second, if
// there are two.
func defaultCores(which int) string {
	cores := bench.Cores()
	if len(cores) < 2 {
		return anyCore
	}
	return strconv.Itoa(cores[which])
}

const anyCore = "any"

// cores reads --server-cores and those like it.
func cores(flag, text string) (list []int, err error) {
	if text == anyCore {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || n >= 1024 {
			return nil, fmt.Errorf("%w: --%s %q: want numbers of cores, or %s", errUsage, flag, text, anyCore)
		}
		if !slices.Contains(bench.Cores(), n) {
			return nil, fmt.Errorf("%w: --%s %q: this process may not run on core %d", errUsage, flag, text, n)
		}
		list = append(list, n)
	}
	return list, nil
}

func (s *runSettings) run(cmd *cobra.Command, names []string) error {
	var scenarios []*bench.Scenario
	for _, name := range names {
		scenario, err := bench.FindScenario(name)
		if err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		if scenario.Market.File == "-" {
			if s.file == "" {
				return fmt.Errorf("%w: the scenario %s replays a file: name it with --file", errUsage, scenario.Name)
			}
			scenario.Market.File = s.file
		}
		for _, other := range scenarios {
			if other.Name == scenario.Name {
				return fmt.Errorf("%w: two loads are called %s: give one another name", errUsage, scenario.Name)
			}
		}
		scenarios = append(scenarios, scenario)
	}
	switch {
	case s.inlet != "unix" && s.inlet != "kafka":
		return fmt.Errorf("%w: --inlet %q: want unix or kafka", errUsage, s.inlet)
	case s.repeats < 1 || s.repeats > 1000:
		return fmt.Errorf("%w: --repeats %d: want 1 to 1000", errUsage, s.repeats)
	case s.loops < 1 || s.loops > 64:
		return fmt.Errorf("%w: --loops %d: want 1 to 64", errUsage, s.loops)
	case len(s.targets) == 0:
		return fmt.Errorf("%w: --target is empty", errUsage)
	case filepath.Ext(s.out) == ".json" && len(scenarios)*len(s.targets) > 1:
		return fmt.Errorf("%w: --out %q: want a folder for the results of several loads or targets", errUsage, s.out)
	}
	if err := s.checkOut(); err != nil {
		return fmt.Errorf("%w: --out %q: %w", errUsage, s.out, err)
	}
	server, err := cores("server-cores", s.serverCores)
	if err != nil {
		return err
	}
	clients, err := cores("client-cores", s.clientCores)
	if err != nil {
		return err
	}
	broker, err := cores("broker-cores", cmp.Or(s.brokerCores, s.serverCores))
	if err != nil {
		return err
	}
	feed, err := cores("feed-cores", cmp.Or(s.feedCores, s.serverCores))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tickbench-bin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var targets []*bench.Target
	for _, t := range s.targets {
		target, err := s.target(cmd.Context(), t, dir)
		if err != nil {
			return err
		}
		for _, other := range targets {
			if other.Name == target.Name {
				return fmt.Errorf("%w: two targets are called %s: name them apart, as in a=PATH and b=PATH", errUsage, target.Name)
			}
		}
		targets = append(targets, target)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	progress := newProgress(cmd.ErrOrStderr(), s.quiet)
	o := bench.Options{
		ServerCores: server, BrokerCores: broker, FeedCores: feed, ClientCores: clients, Loops: s.loops, Seed: s.seed,
		Kafka: s.inlet == "kafka", KafkaSink: kafkaSink, Progress: progress.update,
		Replay: s.replayer(dir),
	}
	if s.floor {
		o.Floor = []string{self, "floor"}
	}
	runtime.GOMAXPROCS(max(4, s.loops+3)) // loops, the schedule and the rest may share a core, not a Go processor
	debug.SetGCPercent(400)
	return s.measure(cmd, scenarios, targets, o, progress)
}

// cell is a scenario on a target, and what its runs were.
type cell struct {
	scenario *bench.Scenario
	target   *bench.Target
	result   *bench.Result
	over     bool // it cannot be run, or no more
}

// measure runs all scenarios on all targets in turn, as often as is asked for:
// whatever else the machine does meets all of them. What was measured is written
// after each run, so that what ends early is not for nothing.
func (s *runSettings) measure(cmd *cobra.Command, scenarios []*bench.Scenario, targets []*bench.Target, o bench.Options, progress *progress) (failed error) {
	out := cmd.OutOrStdout()
	fail := func(err error) { // a fault outweighs what is missing, and that a busy machine
		if failed == nil || errors.Is(failed, errInvalid) || errors.Is(failed, bench.ErrUnsupported) && !errors.Is(err, errInvalid) {
			failed = err
		}
	}
	var cells []*cell
	for _, scenario := range scenarios {
		able := 0
		var lacking error
		for _, t := range targets {
			c := &cell{scenario: scenario, target: t, result: &bench.Result{Version: bench.ResultVersion, Scenario: scenario, Target: t.Name, Features: t.Has, Commit: commit(),
				Command: "tickbench " + strings.Join(os.Args[1:], " "), Started: time.Now().UTC().Truncate(time.Second), Machine: bench.ThisMachine()}}
			cells = append(cells, c)
			if err := t.Supports(scenario); err != nil {
				fmt.Fprintf(out, "%s on %s: %v\n", scenario.Name, t.Name, err)
				c.over, lacking = true, err
				c.result.Unsupported = err.Error()
				if err := s.write(c.result); err != nil { // so that a report can say so
					return err
				}
				continue
			}
			able++
		}
		if able == 0 {
			fail(lacking)
		}
	}
	for rep := range s.repeats {
		for _, c := range cells {
			if c.over {
				continue
			}
			what := c.scenario.Name + " on " + c.target.Name
			progress.begin(fmt.Sprintf("%s, %d of %d", what, rep+1, s.repeats))
			r, err := bench.Do(cmd.Context(), c.scenario, c.target, o)
			progress.end()
			if cmd.Context().Err() != nil {
				return errors.New("interrupted: the run under way counts for nothing; those before it are written if --out says where")
			}
			if err != nil {
				c.over = true
				fmt.Fprintf(out, "%s: %v\n", what, err)
				fail(fmt.Errorf("%s: %w", what, err))
				continue
			}
			c.result.Runs = append(c.result.Runs, r)
			printRun(out, what, r)
			var found uint64
			for _, n := range r.Checks.Counts {
				found += n
			}
			switch {
			case found > 0:
				fail(fmt.Errorf("%s: %d violations", what, found))
			case r.Invalid != "":
				fail(fmt.Errorf("%s: %w: %s", what, errInvalid, r.Invalid))
			}
			if err := s.write(c.result); err != nil {
				return err
			}
		}
	}
	for _, scenario := range scenarios {
		var results []*bench.Result
		for _, c := range cells {
			if c.scenario == scenario && len(c.result.Runs) > 0 {
				results = append(results, c.result)
			}
		}
		if len(results) > 1 || len(results) == 1 && s.repeats > 1 {
			fmt.Fprintln(out, scenario.Name)
			printMedians(out, results)
		}
	}
	for _, c := range cells {
		if s.out != "" && (len(c.result.Runs) > 0 || c.result.Unsupported != "") {
			fmt.Fprintln(out, "wrote", s.path(c.result))
		}
	}
	return failed
}

// path is where a result is written.
func (s *runSettings) path(r *bench.Result) string {
	if filepath.Ext(s.out) == ".json" {
		return s.out
	}
	return filepath.Join(s.out, r.Scenario.Name+"-"+r.Target+".json")
}

// checkOut tells before anything is measured that results have no place.
func (s *runSettings) checkOut() error {
	if s.out == "" {
		return nil
	}
	dir := s.out
	if filepath.Ext(s.out) == ".json" {
		dir = filepath.Dir(s.out)
		if _, err := os.Stat(dir); err != nil {
			return err
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	probe, err := os.CreateTemp(dir, ".tickbench-")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

func (s *runSettings) write(r *bench.Result) error {
	if s.out == "" {
		return nil
	}
	if filepath.Ext(s.out) != ".json" {
		if err := os.MkdirAll(s.out, 0o755); err != nil {
			return err
		}
	}
	return r.Write(s.path(r))
}

// target makes a target of what --target says.
func (s *runSettings) target(ctx context.Context, text, dir string) (*bench.Target, error) {
	name, path, other := strings.Cut(text, "=")
	if p, ok := bench.Peers[text]; ok {
		binary := s.peers
		if binary == "" {
			binary = filepath.Join(dir, "peers")
			if _, err := os.Stat(binary); err != nil {
				root, err := moduleRoot()
				if err != nil {
					return nil, fmt.Errorf("--target %s: %w; give the peers' program with --peers", text, err)
				}
				if err := build(ctx, filepath.Join(root, "bench", "peers"), binary, "."); err != nil {
					return nil, err
				}
			}
		}
		return p(binary), nil
	}
	_, isPeer := bench.Peers[name]
	if !other && name != "tickgate" || !bench.IsName(name) || isPeer {
		return nil, fmt.Errorf("%w: --target %q: want tickgate, gws, centrifuge, centrifuge-batched or nats, or NAME=PATH with another NAME of a-z, 0-9, - and _", errUsage, text)
	}
	if !other {
		var err error
		if path, err = s.binary(ctx, dir); err != nil {
			return nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return bench.Tickgate(bench.TickgateOptions{Name: name, Binary: path, Brokers: s.brokers, Broker: []string{self, "broker"},
		Certificate: certificate, Args: s.gatewayArgs}), nil
}

// binary finds tickgate, or builds it.
func (s *runSettings) binary(ctx context.Context, dir string) (string, error) {
	if s.tickgate != "" {
		return s.tickgate, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "tickgate")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	binary := filepath.Join(dir, "tickgate")
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("tickgate is not beside this program, and %w; give it with --tickgate", err)
	}
	s.tickgate = binary
	return binary, build(ctx, root, binary, "./cmd/tickgate")
}

// moduleRoot is the checkout that we are in.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module tickgate\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("this is not a checkout of tickgate to build it from")
		}
		dir = up
	}
}

func build(ctx context.Context, dir, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s in %s: %w\n%s", pkg, dir, err, b)
	}
	return nil
}

// commit is what this program was built from, or what is checked out.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		revision, dirty := "", ""
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "+"
			}
		}
		if revision != "" {
			return revision[:min(12, len(revision))] + dirty
		}
	}
	root, err := moduleRoot()
	if err != nil {
		return ""
	}
	b, err := exec.Command("git", "-C", root, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// certificate makes one for loopback that lasts a day.
func certificate(dir string) (certFile, keyFile string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tickbench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return "", "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return certFile, keyFile, err
}

// replayer plays a scenario's file with tickgate replay.
func (s *runSettings) replayer(dir string) func(context.Context, string, string, *bench.Market) error {
	return func(ctx context.Context, brokers, rawTopic string, m *bench.Market) error {
		binary, err := s.binary(ctx, dir)
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, binary, "replay", "--brokers", brokers, "--topic", rawTopic, "--venue", m.Venue, "--speed", strconv.FormatFloat(m.Speed, 'f', -1, 64), m.File)
		b, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("replaying %s: %w\n%s", m.File, err, b)
		}
		return nil
	}
}

// progress is a line that says what goes on.
type progress struct {
	out   io.Writer
	live  bool
	what  string
	phase string
	drawn time.Time
}

func newProgress(out io.Writer, quiet bool) *progress {
	f, ok := out.(*os.File)
	p := &progress{out: out, live: ok && term.IsTerminal(int(f.Fd())) && !quiet}
	if quiet {
		p.out = io.Discard
	}
	return p
}

func (p *progress) begin(what string) {
	p.what, p.phase = what, ""
	if !p.live {
		fmt.Fprintln(p.out, what)
	}
}

const drawPeriod = 100 * time.Millisecond

func (p *progress) update(s bench.Status) {
	if !p.live {
		if s.Phase != p.phase {
			fmt.Fprintln(p.out, " ", s.Phase)
		}
		p.phase = s.Phase
		return
	}
	if time.Since(p.drawn) < drawPeriod && s.Phase == p.phase {
		return
	}
	p.phase, p.drawn = s.Phase, time.Now()
	line := fmt.Sprintf("%s: %s %s %3.0f %%", p.what, s.Phase, bar(s.Done), 100*s.Done)
	if s.Clients > 0 {
		line += fmt.Sprintf(", %s clients", group(uint64(s.Clients)))
	}
	if s.Delivered > 0 {
		line += fmt.Sprintf(", %s ticks/s, age p99 %.1f ms, %.2f cores", group(uint64(s.Delivered)), s.AgeP99, s.CPU)
	}
	if s.Faults > 0 {
		line += fmt.Sprintf(", %d VIOLATIONS", s.Faults)
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", line)
}

func (p *progress) end() {
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func bar(done float64) string {
	const width = 20
	n := min(width, max(0, int(done*width)))
	return "[" + strings.Repeat("=", n) + strings.Repeat(" ", width-n) + "]"
}
