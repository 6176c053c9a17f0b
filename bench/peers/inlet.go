package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
)

// tick is a record of kind trade or quote, with the time at which it was read
// as its ingest time. It is valid until the next one is read.
type tick = record.Record

// inlet is the Unix socket that takes ticks. Its stream is that of package
// tickgate/gateway/inlet: records, each behind its length as four bytes,
// big-endian.
type inlet struct {
	log      *slog.Logger
	path     string
	listener *net.UnixListener
}

const (
	inletScheme         = "unix:"
	inletRecordBytesMax = 4 << 10
	inletReadBuffer     = 256 << 10
)

// listenInlet makes the socket, for its owner alone. A socket that a dead
// process left there is replaced; anything else is not.
func listenInlet(address string, log *slog.Logger) (*inlet, error) {
	path, ok := strings.CutPrefix(address, inletScheme)
	if !ok || path == "" {
		return nil, fmt.Errorf("--inlet %q: want unix:PATH", address)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("--inlet: %s is there and is no socket: give another path", path)
		}
		if c, err := net.Dial("unix", path); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("--inlet: another process listens on %s: give another path", path)
		}
	}
	// It is made under a name that nobody else can reach before its mode is set.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".in")
	if err != nil {
		return nil, fmt.Errorf("--inlet: %w", err)
	}
	defer os.RemoveAll(dir)
	hidden := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("--inlet: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(hidden, 0o600); err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("--inlet: %w", err)
	}
	return &inlet{log, path, l}, nil
}

// close takes the socket away.
func (in *inlet) close() {
	_ = in.listener.Close()
	_ = os.Remove(in.path)
}

// run takes connections, one at a time, until ctx is done, and calls publish
// with each tick.
func (in *inlet) run(ctx context.Context, publish func(*tick)) error {
	var mu sync.Mutex
	var open net.Conn
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		_ = in.listener.Close()
		if open != nil {
			_ = open.Close()
		}
	})
	defer stop()
	for {
		c, err := in.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("inlet: %w", err)
		}
		mu.Lock()
		open = c
		if ctx.Err() != nil { // it was done before open was set
			_ = c.Close()
		}
		mu.Unlock()
		taken, passed, err := take(c, publish)
		_ = c.Close()
		if ctx.Err() == nil {
			in.log.Info("inlet closed", "records", taken, "passed", passed, "err", err)
		}
	}
}

// take reads one connection to its end. What is no trade and no quote, or no
// record, is counted and passed over; behind a bad length nothing can be found.
func take(c io.Reader, publish func(*tick)) (taken, passed uint64, err error) {
	r := bufio.NewReaderSize(c, inletReadBuffer)
	var rec tick
	var now int64
	for {
		if r.Buffered() < 4 { // one look at the clock a read, as tickgate does
			now = 0
		}
		head, err := r.Peek(4)
		if err != nil {
			if errors.Is(err, io.EOF) && len(head) == 0 {
				err = nil
			}
			return taken, passed, err
		}
		size := int(binary.BigEndian.Uint32(head))
		if size == 0 || size > inletRecordBytesMax {
			return taken, passed, fmt.Errorf("a record of %d bytes; want 1 to %d", size, inletRecordBytesMax)
		}
		_, _ = r.Discard(4)
		if r.Buffered() < size {
			now = 0
		}
		b, err := r.Peek(size)
		if err != nil {
			return taken, passed, io.ErrUnexpectedEOF
		}
		if now == 0 {
			now = time.Now().UnixNano()
		}
		err = record.Decode(b, &rec)
		_, _ = r.Discard(size)
		if err != nil || rec.Kind != codec.KindTrade && rec.Kind != codec.KindQuote {
			passed++
			continue
		}
		rec.IngestTime = now
		if rec.Kind == codec.KindQuote {
			rec.State.Quote.IngestTime = now
		} else {
			rec.Trade.IngestTime = now
			if rec.State.Last.No == rec.Trade.No {
				rec.State.Last.IngestTime = now
			}
		}
		taken++
		publish(&rec)
	}
}
