package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tickgate/feed/embedded"
	"tickgate/feed/sharedtest"
)

// TestMain lets this test binary be tickgate itself: the processes of the
// tests are this binary again, so that the race detector sees them too.
func TestMain(m *testing.M) {
	if os.Getenv("TICKGATE_TEST_PROCESS") == "1" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// process is a tickgate that a test started.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is read

	mu    sync.Mutex
	lines []string // of stdout
	log   bytes.Buffer
	err   error
}

// start runs tickgate with args until the test ends, if not earlier.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "TICKGATE_TEST_PROCESS=1")
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	readers.Go(func() {
		in := bufio.NewScanner(stdout)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			p.mu.Lock()
			p.lines = append(p.lines, in.Text())
			p.mu.Unlock()
		}
	})
	readers.Go(func() { io.Copy(lockedWriter{p}, stderr) })
	go func() {
		readers.Wait()
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			out := p.stdout()
			t.Logf("%s\nlast of stdout (%d lines):\n%s\nstderr:\n%s", strings.Join(args, " "), len(out),
				strings.Join(out[max(0, len(out)-10):], "\n"), tailOf(p.stderr(), 4000))
		}
	})
	return p
}

func tailOf(s string, n int) string { return s[max(0, len(s)-n):] }

type lockedWriter struct{ p *process }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.p.log.Write(b)
}

func (p *process) stdout() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[:len(p.lines):len(p.lines)]
}

func (p *process) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// await waits until the process has said something that matches, on either
// stream, and returns the submatches.
func (p *process) await(within time.Duration, pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.Now().Add(within)
	for {
		if m := re.FindStringSubmatch(strings.Join(p.stdout(), "\n") + "\n" + p.stderr()); m != nil {
			return m
		}
		select {
		case <-p.done:
			if m := re.FindStringSubmatch(strings.Join(p.stdout(), "\n") + "\n" + p.stderr()); m != nil {
				return m
			}
			p.t.Fatalf("%v ended (%v) before it said %q", p.cmd.Args[1:], p.err, pattern)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%v did not say %q within %v", p.cmd.Args[1:], pattern, within)
		}
	}
}

// wait waits for the process to end by itself and returns its exit code.
func (p *process) wait(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("%v still runs after %v", p.cmd.Args[1:], within)
	}
	return p.cmd.ProcessState.ExitCode()
}

// interrupt is Ctrl-C: it must end the process within 5 s, exit 0.
func (p *process) interrupt() {
	p.t.Helper()
	p.cmd.Process.Signal(os.Interrupt)
	if code := p.wait(10 * time.Second); code != 0 {
		p.t.Errorf("%v: exit %d after an interrupt, want 0", p.cmd.Args[1:], code)
	}
}

// kill is SIGKILL.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// startKafka returns the address of a broker of this test's own: the embedded
// one, or with TICKGATE_REAL_KAFKA=1 an Apache Kafka.
func startKafka(t *testing.T) string {
	t.Helper()
	if os.Getenv("TICKGATE_REAL_KAFKA") != "1" {
		b, err := embedded.Start(embedded.Options{Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		return b.Addr()
	}
	up := sharedtest.Path(t, "kafka", "up")
	port := freePort(t)
	env := append(os.Environ(), fmt.Sprintf("KAFKA_PORT=%d", port), fmt.Sprintf("KAFKA_CPORT=%d", freePort(t)), "KAFKA_STATE="+t.TempDir())
	cmd := exec.Command(up)
	cmd.Env, cmd.Stderr = env, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", up, err)
	}
	t.Cleanup(func() {
		down := exec.Command(filepath.Join(filepath.Dir(up), "down"), "--wipe")
		down.Env = env
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", down.Args, err, out)
		}
	})
	return strings.TrimSpace(string(out))
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// occupied returns a port that is taken until the test ends.
func occupied(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func get(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, res.Status, err)
	}
	return string(body)
}
