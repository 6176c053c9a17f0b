package inlet_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
	"tickgate/gateway/board"
	"tickgate/gateway/inlet"
)

func trade(symbol string, seq uint64) []byte {
	t := codec.Trade{No: seq, Seq: seq, Price: codec.MustDecimal("10.5"), Size: codec.MustDecimal("1"), Flags: codec.TradeOrdinary, EventTime: 1}
	r := record.Record{Kind: codec.KindTrade, Symbol: symbol, Venue: "bench", Source: codec.Source{Epoch: 1, Offset: int64(seq)}, Trade: t,
		State: codec.State{Epoch: 1, Seq: seq, TradeNo: seq, Last: t, Trades: seq}}
	b := record.Append(make([]byte, 4), &r)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// start runs an inlet and returns its board and path.
func start(t *testing.T) (*board.Board, string) {
	t.Helper()
	b, err := board.New(board.Options{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "inlet")
	in, err := inlet.Listen(inlet.Scheme+path, b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b, path
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func view(b *board.Board, symbol string) (v board.View) {
	if t := b.Lookup(symbol); t != nil {
		t.Read(&v)
	}
	return v
}

func TestInletPublishes(t *testing.T) {
	b, path := start(t)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v; want 0600", info.Mode(), err)
	}
	c := dial(t, path)
	began := time.Now().UnixNano()
	write(t, c, append(trade("AAA", 1), trade("BBB", 1)...))
	second := trade("AAA", 2)
	write(t, c, second[:7]) // in two pieces
	write(t, c, second[7:])
	eventually(t, "AAA at seq 2", func() bool { return view(b, "AAA").State.Seq == 2 })
	v := view(b, "AAA")
	if !v.Loaded || v.Standing.State != codec.StateLive {
		t.Errorf("loaded %v, state %v; want live", v.Loaded, v.Standing.State)
	}
	if at := v.State.Last.IngestTime; at < began || at > time.Now().UnixNano() {
		t.Errorf("ingest time %d is not of now", at)
	}
	c.Close()
	eventually(t, "AAA stale", func() bool { return view(b, "AAA").Standing.State == codec.StateStale })
	write(t, dial(t, path), trade("AAA", 3)) // the next one
	eventually(t, "AAA at seq 3", func() bool { return view(b, "AAA").State.Seq == 3 })
}

func TestInletHostileBytes(t *testing.T) {
	b, path := start(t)
	for name, bytes := range map[string][]byte{
		"length zero":      {0, 0, 0, 0},
		"length too large": {0xff, 0xff, 0xff, 0xff},
		"cut off":          trade("AAA", 1)[:20],
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, path)
			write(t, c, bytes)
			if err := c.(*net.UnixConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := c.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
				t.Errorf("the connection did not end: %v", err)
			}
		})
	}
	c := dial(t, path)
	write(t, c, []byte{0, 0, 0, 3, 1, 2, 3}) // no record: passed over
	write(t, c, trade("AAA", 7))
	eventually(t, "the record behind a bad one", func() bool { return view(b, "AAA").State.Seq == 7 })
}

func TestListenRefuses(t *testing.T) {
	b, err := board.New(board.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, taken := start(t)
	for address, want := range map[string]string{
		"/tmp/x":             "want unix:PATH",
		"unix:":              "want unix:PATH",
		"unix:" + file:       "is no socket",
		"unix:" + taken:      "another process listens",
		"unix:/no/such/dir/": "no such file",
	} {
		if _, err := inlet.Listen(address, b, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", address, err, want)
		}
	}
	// A socket that a dead process left is replaced.
	left := filepath.Join(dir, "left")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := inlet.Listen("unix:"+left, b, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}
