package client_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tickgate/codec"
)

// block is the guide's first code block in a language.
func block(t *testing.T, language string) string {
	t.Helper()
	b, err := os.ReadFile("../../codec/native/GUIDE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), "```"+language+"\n")
	code, _, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatalf("the guide has no block of %s", language)
	}
	return code
}

// program is a code block that runs; lines are what it prints.
type program struct {
	t     *testing.T
	lines chan string
}

// runBlock runs a block against g until the test ends.
func runBlock(t *testing.T, g *gateway, file, code string, command ...string) *program {
	t.Helper()
	path := filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(path, []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command[0], append(command[1:], path)...)
	cmd.Env = append(os.Environ(), "TICKGATE_URL="+g.url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, lines: make(chan string, 256)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
		cmd.Wait()
	})
	return p
}

// line is the next line, which must begin so.
func (p *program) line(want string) {
	p.t.Helper()
	if got := receive(p.t, p.lines, "a line that begins with "+want); !strings.HasPrefix(got, want) {
		p.t.Errorf("the program printed %q, want %q", got, want)
	}
}

// TestGuideJavaScript: the guide's program follows, acknowledges, and goes on
// where it was.
func TestGuideJavaScript(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node: the guide's JavaScript was not run")
	}
	if exec.Command(node, "--experimental-websocket", "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)").Run() != nil {
		t.Skip("this node has no WebSocket (20.10 and later have): the guide's JavaScript was not run")
	}
	g := newGateway(t, false)
	p := runBlock(t, g, "watch.mjs", block(t, "js"), node, "--no-warnings", "--experimental-websocket")
	first := g.next()
	if c := first.command(codec.OpSubscribe); c.Channel != codec.ChannelTicker || c.Symbols.Len() != 2 {
		t.Errorf("subscribed by %+v", c)
	}
	first.send(granted(codec.ChannelTicker, 7, "BTCUSDT"), snapshot(codec.ChannelTicker, 7, market(1, 10)))
	first.send(tick(codec.ChannelTicker, 7, 14), event(codec.Event{Type: codec.EventState, Channel: codec.ChannelTicker, ID: 7, Symbol: "BTCUSDT", State: codec.StateStale, Why: "no heartbeat"}))
	p.line("BTCUSDT 100.10 volume 5")
	p.line("BTCUSDT 100.14 merged 3 age ")
	p.line("BTCUSDT is stale no heartbeat")
	for receive(t, first.acks, "an acknowledgement of frame 2") != 2 {
	}
	first.conn.WriteClose(codec.CloseDraining.Code(), []byte(codec.CloseDraining))
	p.line("closed 1012")
	second := g.next()
	c := second.command(codec.OpSubscribe)
	if it := items(&c); len(it) != 2 || !it[0].HasFrom || it[0].Epoch != 1 || it[0].Seq != 14 || it[1].HasFrom {
		t.Errorf("went on by %+v, want BTCUSDT from 1, 14", it)
	}
	second.conn.WriteClose(codec.CloseUnauthorized.Code(), []byte(codec.CloseUnauthorized))
	p.line("closed 4203 unauthorized")
}

// TestGuidePython: the guide's program reads trades in MessagePack.
func TestGuidePython(t *testing.T) {
	python := os.Getenv("TICKGATE_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.Command(python, "-c", "import msgpack, websockets.sync.client").CombinedOutput(); err != nil {
		t.Skipf("the guide's Python was not run: %s with msgpack and websockets: %v %s", python, err, out)
	}
	g := newGateway(t, false)
	p := runBlock(t, g, "trades.py", block(t, "python"), python)
	peer := g.next()
	if c := peer.command(codec.OpSubscribe); c.Channel != codec.ChannelTrades || c.View != codec.ViewLast|codec.ViewTotals {
		t.Errorf("subscribed by %+v", c)
	}
	trade := func(n uint64) rows { return tradeOf(codec.ViewLast|codec.ViewTotals, 7, n) }
	peer.send(granted(codec.ChannelTrades, 7, "BTCUSDT"), snapshot(codec.ChannelTrades, 7, market(1, 10)), trade(11))
	peer.send(event(codec.Event{Type: codec.EventDrop, Channel: codec.ChannelTrades, ID: 7, Symbol: "BTCUSDT", Count: 5}), trade(17))
	p.line("BTCUSDT trade 100.11 x 0.5 volume 5.5 age ")
	p.line("BTCUSDT trade 100.17 x 0.5 volume 8.5 age ")
	receive(t, peer.acks, "an acknowledgement")
}

// TestGuideGo: the guide's program builds and follows.
func TestGuideGo(t *testing.T) {
	g := newGateway(t, false)
	p := runBlock(t, g, "main.go", block(t, "go"), "go", "run")
	peer := g.next()
	peer.command(codec.OpSubscribe)
	peer.send(granted(codec.ChannelTicker, 7, "BTCUSDT"), snapshot(codec.ChannelTicker, 7, market(1, 10)), tick(codec.ChannelTicker, 7, 14))
	p.line("BTCUSDT 100.10 merged 0 age ")
	p.line("BTCUSDT 100.14 merged 3 age ")
	peer.conn.WriteClose(codec.CloseUnauthorized.Code(), nil) // so that it ends
}
