package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tickgate/bench"
)

// binaryDir is where tickgateBinary built; TestMain removes it.
var binaryDir string

// tickgateBinary builds the gateway once for all tests.
var tickgateBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tickbench-test-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "tickgate")
	cmd := exec.Command("go", "build", "-o", path, "tickgate/cmd/tickgate")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &exec.Error{Name: string(out), Err: err}
	}
	return path, nil
})

// tickbench runs this program as a process, on whatever cores there are.
func tickbench(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	if args[0] == "run" {
		binary, err := tickgateBinary()
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--tickgate", binary, "--server-cores", "any", "--client-cores", "any")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "TICKBENCH_TEST_PROCESS=1")
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

const smallLoad = `
name: small
about: A load for a test.
market: {symbols: 5, rate: 500, quotes: 0.5}
clients:
  - {count: 10, channel: trades, watch: {kind: all}}
  - {count: 5, channel: ticker, encoding: json, every: 50ms, watch: {kind: random, count: 3}}
  - {count: 5, channel: quotes, watch: {kind: same, count: 2}, does: {kind: reconnects, per_second: 5}}
  - {count: 3, channel: ticker, watch: {kind: same, count: 2}, does: {kind: resubscribes, per_second: 20}}
warm: 200ms
measure: 1s
`

func scenarioFile(t *testing.T, edit ...string) string {
	path := filepath.Join(t.TempDir(), "small.yaml")
	if err := os.WriteFile(path, []byte(strings.NewReplacer(edit...).Replace(smallLoad)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRun: a load in each of the ways in which ticks come in and clients
// connect; all checks hold. An invalid run (this machine is busy) is none that
// failed.
func TestRun(t *testing.T) {
	core := strconv.Itoa(bench.Cores()[0])
	for name, tt := range map[string]struct {
		edit []string
		args []string
	}{
		"inlet":         {nil, []string{"--floor"}},
		"the whole way": {nil, []string{"--inlet", "kafka", "--broker-cores", core, "--feed-cores", core}},
		"TLS":           {[]string{"warm:", "tls: true\nwarm:"}, nil},
		"memory": {[]string{"  - {count: 5, channel: ticker, encoding: json, every: 50ms, watch: {kind: random, count: 3}}\n", "",
			"  - {count: 5, channel: quotes, watch: {kind: same, count: 2}, does: {kind: reconnects, per_second: 5}}\n", "",
			"  - {count: 3, channel: ticker, watch: {kind: same, count: 2}, does: {kind: resubscribes, per_second: 20}}\n", "steps: [5, 10]\n"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "out.json")
			out, code := tickbench(t, append([]string{"run", scenarioFile(t, tt.edit...), "--out", file}, tt.args...)...)
			if code != 0 && code != exitInvalid {
				t.Fatalf("exit %d\n%s", code, out)
			}
			r, err := bench.ReadResult(file)
			if err != nil {
				t.Fatal(err)
			}
			run := r.Runs[0]
			if name == "memory" {
				if m := run.Memory; m == nil || len(m.RSS) != 2 || m.RSS[1] == 0 {
					t.Errorf("memory %+v", m)
				}
				return
			}
			if run.Delivered == 0 || run.Age.Count == 0 || run.Checks.Finals == 0 || run.Checks.Ledgers != 23 || run.Processes["gateway"].RSS == 0 {
				t.Errorf("delivered %d, %d ages, %d finals, %d ledgers, %+v", run.Delivered, run.Age.Count, run.Checks.Finals, run.Checks.Ledgers, run.Processes)
			}
			if name == "inlet" && (run.Floor == nil || run.Floor.Frames == 0) {
				t.Errorf("floor %+v", run.Floor)
			}
			if name == "the whole way" && (run.Processes["feed"].RSS == 0 || run.Processes["broker"].RSS == 0) {
				t.Errorf("processes %+v; want broker and feed", run.Processes)
			}
		})
	}
}

// TestOutIsCheckedFirst: who cannot be written to is told before a run.
func TestOutIsCheckedFirst(t *testing.T) {
	t.Parallel()
	load := scenarioFile(t)
	for _, out := range []string{filepath.Join(t.TempDir(), "none", "r.json"), load} {
		said, code := tickbench(t, "run", load, "--out", out)
		if code != exitUsage || !strings.Contains(said, "--out") || strings.Contains(said, "1 of 1") {
			t.Errorf("--out %s: exit %d, want %d before a run\n%s", out, code, exitUsage, said)
		}
	}
}

// TestScenarios: a load is printed as it can be run.
func TestScenarios(t *testing.T) {
	if out, code := tickbench(t, "scenarios"); code != 0 || !strings.Contains(out, "stalled ") || !strings.Contains(out, "needs: batching") {
		t.Errorf("exit %d\n%s", code, out)
	}
	out, code := tickbench(t, "scenarios", "watchlists")
	if s, err := bench.ParseScenario([]byte(out)); code != 0 || err != nil || s.Name != "watchlists" {
		t.Errorf("exit %d, %v\n%s", code, err, out)
	}
}

// TestFigures: two results are compared and drawn.
func TestFigures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary, err := tickgateBinary()
	if err != nil {
		t.Fatal(err)
	}
	short := []string{"measure: 1s", "measure: 300ms", "warm: 200ms", "warm: 50ms"}
	out, code := tickbench(t, "run", scenarioFile(t, short...), scenarioFile(t, append(short, "name: small", "name: other")...),
		"--target", "old="+binary, "--target", "new="+binary, "--target", "gws", "--peers", "/bin/true", "--repeats", "2", "--out", dir)
	if code != 0 && code != exitInvalid || strings.Count(out, "medians") != 2 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	// In turn: whatever this machine does meanwhile meets all of them.
	at := 0
	for _, want := range []string{"small on old, 1 of 2", "small on new, 1", "other on old, 1", "other on new, 1", "small on old, 2 of 2", "small on new, 2", "other on old, 2", "other on new, 2"} {
		n := strings.Index(out[at:], want)
		if n < 0 {
			t.Fatalf("no %q behind the one before\n%s", want, out)
		}
		at += n
	}
	file := filepath.Join(dir, "small-old.json")
	if out, code := tickbench(t, "compare", file, filepath.Join(dir, "small-new.json")); code != 0 && !strings.Contains(out, "no valid run") {
		t.Errorf("compare: exit %d\n%s", code, out)
	}
	other := filepath.Join(dir, "other-new.json")
	if out, code := tickbench(t, "compare", file, other); code != exitUsage || !strings.Contains(out, "--across") {
		t.Errorf("compare of two scenarios: exit %d; want usage\n%s", code, out)
	}
	if out, code := tickbench(t, "compare", "--across", file, other); code != 0 && !strings.Contains(out, "no valid run") {
		t.Errorf("compare across: exit %d\n%s", code, out)
	}
	html := filepath.Join(dir, "r.html")
	if out, code := tickbench(t, "report", file, "--out", html); code != 0 {
		t.Errorf("report: exit %d\n%s", code, out)
	}
	lacking := filepath.Join(dir, "small-gws.json")
	if out, code := tickbench(t, "report", "--markdown", file, lacking); code != 0 || !strings.Contains(out, "| old | ") || !strings.Contains(out, "| gws | unsupported |") || !strings.Contains(out, "cannot conflate") {
		t.Errorf("report: exit %d\n%s", code, out)
	}
	if out, code := tickbench(t, "compare", file, lacking); code != 1 || !strings.Contains(out, "gws has no") {
		t.Errorf("compare: exit %d\n%s", code, out)
	}
	if b, err := os.ReadFile(html); err != nil || !bytes.Contains(b, []byte("<svg")) {
		t.Errorf("the report has no plot: %v", err)
	}
}

// TestCompareExit: what is worse beyond the noise fails when asked to, and only
// then; so does a result with violations.
func TestCompareExit(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, age float64, violations uint64) string {
		r := &bench.Result{Version: bench.ResultVersion, Scenario: &bench.Scenario{Name: "x", About: "y"}, Target: name}
		for i := range 7 {
			run := &bench.Run{Seconds: 1, Delivered: 1000, Messages: 1000, Bytes: 5, Age: bench.Spread{Count: 1, P50: age + 0.01*float64(i), P99: 10}}
			if violations > 0 {
				run.Checks.Counts = map[string]uint64{bench.CheckGap: violations}
			}
			r.Runs = append(r.Runs, run)
		}
		path := filepath.Join(dir, name+".json")
		if err := r.Write(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fast, slow, liar := write("fast", 1, 0), write("slow", 2, 0), write("liar", 1, 3)
	const flag = "--fail-on-regression"
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"worse":           {[]string{fast, slow, flag}, 1, "a regression: 1 figures are worse"},
		"worse, not told": {[]string{fast, slow}, 0, "worse"},
		"better":          {[]string{slow, fast, flag}, 0, "better"},
		"same":            {[]string{fast, fast, flag}, 0, "same"},
		"violations":      {[]string{fast, liar, flag}, 1, "21 violations"},
		"violations told": {[]string{fast, liar}, 0, "21 violations"},
	} {
		if out, code := tickbench(t, append([]string{"compare"}, tt.args...)...); code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit %d, want %d and %q\n%s", name, code, tt.code, tt.want, out)
		}
	}
}

// TestInvalidExit: a tickbench that is held up while it measures says that its
// figures tell nothing, and exits 4.
func TestInvalidExit(t *testing.T) {
	t.Parallel()
	binary, err := tickgateBinary()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "out.json")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "run", scenarioFile(t), "--tickgate", binary, "--server-cores", "any", "--client-cores", "any", "--out", file)
	cmd.Env = append(os.Environ(), "TICKBENCH_TEST_PROCESS=1")
	var stdout, out bytes.Buffer
	cmd.Stdout = &stdout
	progress, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(progress)
	for lines.Scan() {
		fmt.Fprintln(&out, lines.Text())
		if strings.TrimSpace(lines.Text()) == "measuring" {
			_ = cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(400 * time.Millisecond)
			_ = cmd.Process.Signal(syscall.SIGCONT)
		}
	}
	_ = cmd.Wait()
	out.Write(stdout.Bytes())
	if code := cmd.ProcessState.ExitCode(); code != exitInvalid || !strings.Contains(out.String(), "tickbench was the bottleneck") {
		t.Fatalf("exit %d, want %d\n%s", code, exitInvalid, out.String())
	}
	if r, err := bench.ReadResult(file); err != nil || len(r.Valid()) != 0 || r.Runs[0].Lag.Max < 100 || r.Runs[0].Age.Max < 100 {
		t.Errorf("%+v, %v; want an invalid run whose late ticks are old", r, err)
	}
}

// TestBadInput: what is typed wrongly is told so, and how it is right.
func TestBadInput(t *testing.T) {
	notResult := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(notResult, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no scenario":      {[]string{"run"}, exitUsage, "needs a SCENARIO"},
		"unknown scenario": {[]string{"run", "no-such"}, exitUsage, "there are batches"},
		"no such file":     {[]string{"run", "./no-such.yaml"}, exitUsage, "no such file"},
		"unknown inlet":    {[]string{"run", "fan-out", "--inlet", "ftp"}, exitUsage, "unix or kafka"},
		"no such core":     {[]string{"run", "fan-out", "--feed-cores", "1023"}, exitUsage, "core 1023"},
		"a core's name":    {[]string{"run", "fan-out", "--broker-cores", "first"}, exitUsage, "--broker-cores"},
		"unknown target":   {[]string{"run", "fan-out", "--target", "nginx"}, exitUsage, "want tickgate"},
		"no repeats":       {[]string{"run", "fan-out", "--repeats", "0"}, exitUsage, "--repeats 0"},
		"two of a name":    {[]string{"run", "fan-out", "fan-out"}, exitUsage, "two loads are called fan-out"},
		"twice a target":   {[]string{"run", "fan-out", "--target", "tickgate", "--target", "tickgate"}, exitUsage, "two targets are called tickgate"},
		"a target's path":  {[]string{"run", "fan-out", "--target", "../x=/bin/true"}, exitUsage, "NAME of a-z"},
		"another's name":   {[]string{"run", "fan-out", "--target", "gws=/bin/true"}, exitUsage, "another NAME"},
		"print what":       {[]string{"scenarios", "no-such"}, exitUsage, "there are batches"},
		"print two":        {[]string{"scenarios", "fan-out", "open"}, exitUsage, "one NAME"},
		"replay what":      {[]string{"run", "replay"}, exitUsage, "--file"},
		"one file for two": {[]string{"run", "fan-out", "open", "--out", "x.json"}, exitUsage, "want a folder"},
		"unsupported":      {[]string{"run", "conflated", "--target", "gws", "--peers", "/bin/true"}, exitUnsupported, "gws has no batching"},
		"no such binary":   {[]string{"run", "fan-out", "--target", "old=/no/such/binary"}, 1, "no such file"},
		"not a gateway":    {[]string{"run", "fan-out", "--target", "old=/bin/true"}, 1, "ended before it was ready"},
		"compare one":      {[]string{"compare", "a.json"}, exitUsage, "two result files"},
		"compare nothing":  {[]string{"compare", "/no/a.json", "/no/b.json"}, exitUsage, "no such file"},
		"no result":        {[]string{"report", notResult}, exitUsage, "no result of tickbench"},
		"unknown flag":     {[]string{"run", "fan-out", "--fast"}, exitUsage, "unknown flag"},
		"unknown command":  {[]string{"dance"}, exitUsage, "unknown command"},
	} {
		out, code := tickbench(t, tt.args...)
		if code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit %d, want %d\n%s", name, code, tt.code, out)
		}
		if strings.Contains(out, "goroutine ") {
			t.Errorf("%s: a stack trace\n%s", name, out)
		}
	}
}
