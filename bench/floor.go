package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tickgate/codec"
	"tickgate/codec/native"
)

// The floor is what the kernel alone asks for: a bare program that writes the
// messages of one run again, to as many connections, of the same lengths, in
// the same order and at the same times, with write(2) and nothing else.

// tracer notes the messages that a loop's clients get, up to a bound.
type tracer struct {
	chunks [][]traceRow // so that growing copies nothing, which would be our lag
	left   int
	cut    uint64 // messages beyond the bound
}

const (
	// traceRowsMax bounds the trace of a run: 64 MB.
	traceRowsMax = 4 << 20
	traceChunk   = 64 << 10
)

// traceRow is one message: when it came, whose it was, and how long with its
// header.
type traceRow struct {
	At     int64
	Client int32
	Size   int32
}

func (t *tracer) add(c *client, size int) {
	if t.left == 0 {
		t.cut++
		return
	}
	t.left--
	last := len(t.chunks) - 1
	if last < 0 || len(t.chunks[last]) == traceChunk {
		t.chunks = append(t.chunks, make([]traceRow, 0, min(traceChunk, t.left+1)))
		last++
	}
	t.chunks[last] = append(t.chunks[last], traceRow{c.loop.now, int32(c.no), int32(size)})
}

// floor replays the run's trace and puts the ratio into the result.
func (r *runner) floor(ctx context.Context, dir string) error {
	var rows []traceRow
	var cut uint64
	for _, l := range r.swarm.loops { // which have ended
		if l.traced != nil {
			rows = slices.Concat(append([][]traceRow{rows}, l.traced.chunks...)...)
			cut += l.traced.cut
			l.traced = nil
		}
	}
	if len(rows) == 0 {
		return errors.New("no message was traced")
	}
	slices.SortStableFunc(rows, func(a, b traceRow) int { return cmp.Compare(a.At, b.At) })
	path := filepath.Join(dir, "trace")
	if err := writeTrace(path, rows); err != nil {
		return err
	}
	r.status("the floor", 0)
	clients := len(r.swarm.clients)
	argv := append(slices.Clone(r.o.Floor), path, strconv.Itoa(clients))
	p, got, err := StartProcess(ctx, "floor", r.o.ServerCores, argv, nil, `^listening (\S+)`)
	if err != nil {
		return err
	}
	defer func() { _ = p.stop() }()
	addr, err := netip.ParseAddrPort(got[0])
	if err != nil {
		return err
	}
	s, err := newSwarm(Endpoint{Addr: addr, Speak: func(string) Speaker { return deafSpeaker{} }}, nil, r.o.Loops)
	if err != nil {
		return err
	}
	defer s.stop()
	group := &Group{Does: Does{Kind: "stalls"}} // its end is no fault
	for no := range clients {
		c := &client{no: no, group: group, speaker: deafSpeaker{}, loop: s.loops[no%len(s.loops)]}
		s.clients = append(s.clients, c)
		c.path = "/" + strconv.Itoa(no)
		c.loop.post(c.connect)
		if no%inFlight == inFlight-1 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	last := time.Unix(0, rows[len(rows)-1].At).Sub(time.Unix(0, rows[0].At))
	select {
	case <-p.done:
	case <-time.After(last + startTime):
		return fmt.Errorf("not done within %v\n%s", last+startTime, p.tail())
	case <-ctx.Done():
		return ctx.Err()
	}
	out := p.tail()
	var told struct {
		Frames uint64 `json:"frames"`
		CPU    int64  `json:"cpu_ns"`
	}
	if err := json.Unmarshal([]byte(out[strings.LastIndexByte(out, '\n')+1:]), &told); err != nil || told.Frames == 0 {
		return fmt.Errorf("no figures: %s", out)
	}
	f := &Floor{Frames: told.Frames, Cut: cut, CPUPerFrame: short(float64(told.CPU)/1000/float64(told.Frames), digits)}
	if r.result.Messages > 0 {
		f.Ratio = short(float64(r.result.CPU().Microseconds())/float64(r.result.Messages)/f.CPUPerFrame, digits)
	}
	r.result.Floor = f
	return nil
}

func writeTrace(path string, rows []traceRow) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range rows {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], uint64(rows[i].At))
		binary.LittleEndian.PutUint32(b[8:], uint32(rows[i].Client))
		binary.LittleEndian.PutUint32(b[12:], uint32(rows[i].Size))
		_, _ = w.Write(b[:]) // Flush tells
	}
	return errors.Join(w.Flush(), f.Close())
}

func readTrace(path string) ([]traceRow, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b)%16 != 0 {
		return nil, fmt.Errorf("%s is no trace", path)
	}
	rows := make([]traceRow, len(b)/16)
	for i := range rows {
		e := b[16*i:]
		rows[i] = traceRow{int64(binary.LittleEndian.Uint64(e)), int32(binary.LittleEndian.Uint32(e[8:])), int32(binary.LittleEndian.Uint32(e[12:]))}
		if rows[i].Size < 2 || rows[i].Size > messageMax || rows[i].Client < 0 {
			return nil, fmt.Errorf("%s: row %d: a message of %d bytes for client %d", path, i, rows[i].Size, rows[i].Client)
		}
	}
	return rows, nil
}

// ServeFloor is the bare program: it listens, says where, takes as many clients
// as it is told, writes the trace to them and says what that cost.
func ServeFloor(out io.Writer, tracePath string, clients int) error {
	rows, err := readTrace(tracePath)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return fmt.Errorf("%s: an empty trace", tracePath)
	}
	for i := range rows {
		if int(rows[i].Client) >= clients {
			return fmt.Errorf("%s: row %d: client %d of %d", tracePath, i, rows[i].Client, clients)
		}
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintln(out, "listening", l.Addr())
	files := make([]*os.File, clients)
	fds := make([]int, clients)
	for range clients {
		no, f, err := takeClient(l)
		if err != nil {
			return err
		}
		if no < 0 || no >= clients || files[no] != nil {
			return fmt.Errorf("client %d of %d", no, clients)
		}
		files[no], fds[no] = f, int(f.Fd()) // Fd has it block: a slow reader must not lose a byte
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	longest := int32(0)
	for _, row := range rows {
		longest = max(longest, row.Size)
	}
	buf := make([]byte, longest)
	runtime.GC()
	runtime.LockOSThread()
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		return err
	}
	began, first := time.Now(), rows[0].At
	for i := range rows {
		row := &rows[i]
		if i > 0 && row.At != rows[i-1].At {
			if wait := time.Duration(row.At-first) - time.Since(began); wait > floorNap {
				ts := unix.NsecToTimespec(int64(wait))
				_ = unix.Nanosleep(&ts, nil)
			}
		}
		b := frameOf(buf, int(row.Size))
		for len(b) > 0 {
			n, err := unix.Write(fds[row.Client], b)
			if err != nil {
				return fmt.Errorf("client %d: %w", row.Client, err)
			}
			b = b[n:]
		}
	}
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		return err
	}
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	fmt.Fprintf(out, `{"frames":%d,"cpu_ns":%d}`+"\n", len(rows), cpu)
	return nil
}

// floorNap is the least wait worth a sleep: a gateway's wake-ups are no closer.
const floorNap = 50 * time.Microsecond

// takeClient accepts a client and answers its handshake; its path is its number.
func takeClient(l net.Listener) (no int, f *os.File, err error) {
	c, err := l.Accept()
	if err != nil {
		return 0, nil, err
	}
	defer c.Close() // the file is a copy
	_ = c.SetDeadline(time.Now().Add(handshakeTime))
	request := make([]byte, 0, 1<<10)
	for !strings.Contains(string(request), "\r\n\r\n") {
		if len(request) == cap(request) {
			return 0, nil, errors.New("a request too long")
		}
		n, err := c.Read(request[len(request):cap(request)])
		if err != nil {
			return 0, nil, err
		}
		request = request[:len(request)+n]
	}
	if _, err = fmt.Sscanf(string(request), "GET /%d HTTP/1.1", &no); err != nil {
		return 0, nil, err
	}
	if _, err = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"); err != nil {
		return 0, nil, err
	}
	_ = c.SetDeadline(time.Time{})
	f, err = c.(*net.TCPConn).File()
	return no, f, err
}

// frameOf makes a binary frame of size bytes, header and all, in buf.
func frameOf(buf []byte, size int) []byte {
	b := buf[:size]
	b[0] = 0x82
	switch payload := size - 2; {
	case payload < 126:
		b[1] = byte(payload)
	case size-4 < 1<<16:
		b[1] = 126
		binary.BigEndian.PutUint16(b[2:], uint16(size-4))
	default:
		b[1] = 127
		binary.BigEndian.PutUint64(b[2:], uint64(size-10))
	}
	return b
}

// deafSpeaker reads messages and looks at nothing.
type deafSpeaker struct{}

func (deafSpeaker) Subprotocol() string                                      { return "" }
func (deafSpeaker) Hello() []byte                                            { return nil }
func (deafSpeaker) Command([]byte, *codec.Command) []byte                    { return nil }
func (deafSpeaker) Text() bool                                               { return false }
func (deafSpeaker) Spelling() native.Spelling                                { return native.MsgPack }
func (deafSpeaker) Read(*[]byte, []byte, func([]byte) error) ([]byte, error) { return nil, nil }
