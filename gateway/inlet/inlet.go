// Package inlet lets one program on this machine publish to a board without
// Kafka, so that a benchmark can tell Kafka's cost from the gateway's.
//
// It knows a Unix socket and records; it knows nothing of Kafka or of clients.
// Who can connect can say any price: the socket is for its owner alone (mode
// 0600), and no gateway has one unless it is asked to.
//
// # The stream
//
// A sequence of records as package codec/record spells them, each behind its
// length as four bytes, big-endian. The ingest time of a record is replaced by
// the time at which it is read here. A bad record is counted and passed over; a
// bad length ends the connection, since nothing can be found behind it.
package inlet

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
	"strings"
	"sync"
	"syscall"
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
	"tickgate/gateway/board"
	"tickgate/gateway/socket"
)

const (
	// RecordBytesMax bounds one record: the longest that a feed writes has
	// some 600 bytes.
	RecordBytesMax = 4 << 10

	readBuffer = 256 << 10

	// pause is how long nothing is read after two reads in turn that each brought
	// more than one record: at thousands a second they come together, as they do
	// from Kafka, whose fetcher pauses for longer. Of fewer two may come together
	// by chance, which shall not make the next one late.
	pause = time.Millisecond

	// Scheme begins the address of an inlet, as in unix:/run/inlet.
	Scheme = "unix:"
)

// Inlet is a listening socket.
type Inlet struct {
	board    *board.Board
	log      *slog.Logger
	listener *net.UnixListener
}

// Listen makes the socket at address, which is "unix:" and a path. A socket that
// a dead process left there is replaced; anything else is not.
func Listen(address string, b *board.Board, log *slog.Logger) (*Inlet, error) {
	path, ok := strings.CutPrefix(address, Scheme)
	if !ok || path == "" {
		return nil, fmt.Errorf("inlet %q: want unix:PATH", address)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("inlet: %s is there and is no socket: give another path", path)
		}
		if c, err := net.Dial("unix", path); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("inlet: another process listens on %s: give another path", path)
		}
		_ = os.Remove(path)
	}
	l, err := listenPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("inlet: %w", err)
	}
	return &Inlet{b, log, l}, nil
}

// listenPrivate makes the socket under a name that nobody else can reach before
// its mode is set.
func listenPrivate(path string) (*net.UnixListener, error) {
	dir, err := os.MkdirTemp("", "tickgate-inlet-") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	hidden := dir + "/s"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(hidden, 0o600); err == nil {
		err = os.Rename(hidden, path)
	}
	if errors.Is(err, syscall.EXDEV) { // the path is on another file system: make it there, then close it to others
		_ = l.Close()
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return nil, err
		}
		l.SetUnlinkOnClose(false)
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// Run takes connections, one at a time, until ctx is done.
func (in *Inlet) Run(ctx context.Context) error {
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
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("inlet: %w", err)
		}
		mu.Lock()
		open = c
		gone := ctx.Err() != nil
		mu.Unlock()
		if gone {
			_ = c.Close()
			return nil
		}
		taken, bad, err := in.take(c)
		_ = c.Close()
		if ctx.Err() != nil {
			return nil
		}
		in.log.Info("inlet closed", "records", taken, "bad", bad, "error", err)
	}
}

// take publishes what comes through one connection.
func (in *Inlet) take(c net.Conn) (taken, bad uint64, err error) {
	source, err := newReader(c)
	if err != nil {
		return 0, 0, err
	}
	r := bufio.NewReaderSize(source, readBuffer)
	known := map[string]bool{}
	var rec record.Record
	var now int64
	var read uint64 // taken before the last read
	crowded := false
	for {
		if r.Buffered() < 4 { // one look at the clock a read
			several := taken-read > 1
			if now = 0; several && crowded {
				time.Sleep(pause)
			}
			read, crowded = taken, several
		}
		head, err := r.Peek(4)
		if err != nil {
			if errors.Is(err, io.EOF) && len(head) == 0 {
				err = nil
			}
			in.stale(known)
			return taken, bad, err
		}
		size := int(binary.BigEndian.Uint32(head))
		if size == 0 || size > RecordBytesMax {
			in.stale(known)
			return taken, bad, fmt.Errorf("a record of %d bytes; want 1 to %d", size, RecordBytesMax)
		}
		_, _ = r.Discard(4)
		if r.Buffered() < size {
			now = 0
		}
		b, err := r.Peek(size)
		if err != nil {
			in.stale(known)
			return taken, bad, io.ErrUnexpectedEOF
		}
		if now == 0 {
			now = time.Now().UnixNano()
		}
		err = record.Decode(b, &rec)
		_, _ = r.Discard(size)
		if err != nil || rec.Kind == codec.KindFence {
			bad++
			continue
		}
		rec.IngestTime = now
		switch rec.Kind {
		case codec.KindTrade:
			rec.Trade.IngestTime = now
			if rec.State.Last.No == rec.Trade.No {
				rec.State.Last.IngestTime = now
			}
		case codec.KindQuote:
			rec.State.Quote.IngestTime = now
		}
		taken++
		in.board.Publish(&rec)
		if !known[rec.Symbol] {
			known[strings.Clone(rec.Symbol)] = true
			in.board.Loaded(rec.Symbol)
			in.board.SetState(rec.Symbol, codec.StateLive, now, "")
		}
	}
}

// reader reads without telling the scheduler: see socket.ReadNow.
type reader struct {
	raw syscall.RawConn
	b   []byte
	n   int
	err error
	try func(fd uintptr) bool
}

func newReader(c net.Conn) (*reader, error) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &reader{raw: raw}
	r.try = func(fd uintptr) bool {
		r.n, r.err = socket.ReadNow(fd, r.b)
		return r.err != syscall.EAGAIN
	}
	return r, nil
}

func (r *reader) Read(b []byte) (int, error) {
	r.b = b
	if err := r.raw.Read(r.try); err != nil {
		return 0, err
	}
	if r.n == 0 && r.err == nil {
		return 0, io.EOF
	}
	return r.n, r.err
}

// stale says that nothing feeds the symbols any more.
func (in *Inlet) stale(known map[string]bool) {
	for symbol := range known {
		in.board.SetState(symbol, codec.StateStale, time.Now().UnixNano(), "nobody is connected to the inlet")
	}
}
