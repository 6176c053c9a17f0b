package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// lineBytesMax bounds a line: order book snapshots have some hundreds of KB.
const lineBytesMax = 1 << 20

// A LineError is a line that cannot be used.
type LineError struct {
	File string
	Line int64
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s, line %d: %v", e.File, e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

var (
	errTooLong = fmt.Errorf("longer than %d bytes", lineBytesMax)
	errNoJSON  = errors.New("its message is no JSON object or array")
)

// file is one tick file that is being read.
type file struct {
	path    string
	size    int64
	read    atomic.Int64 // bytes of the file on disk
	format  string
	disk    *os.File
	closers []func() error
	in      *bufio.Reader
	line    int64
	buf     []byte

	// The line that was read last.
	at  int64 // recorded, Unix ns; 0: the format has no times
	msg []byte
}

// counter counts what is read of a file on disk.
type counter struct {
	r io.Reader
	n *atomic.Int64
}

func (c counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// open opens a plain, gzip or zstd file and finds out its format.
func open(path, format string) (*file, error) {
	switch format {
	case "", "raw", "rec", "ndjson":
	default:
		return nil, fmt.Errorf("format %q: want raw, rec or ndjson", format)
	}
	disk, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f := &file{path: path, disk: disk, format: format, closers: []func() error{disk.Close}}
	info, err := disk.Stat()
	if err == nil && info.IsDir() {
		err = errors.New("is a directory")
	}
	if err != nil {
		disk.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.size = info.Size()
	plain := bufio.NewReaderSize(counter{disk, &f.read}, 64<<10)
	f.in = plain
	magic, _ := plain.Peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(plain)
		if err != nil {
			f.close()
			return nil, fmt.Errorf("%s: begins like gzip but is none: %w", path, err)
		}
		f.in = bufio.NewReaderSize(z, 64<<10)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(plain, zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			f.close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		f.closers = append(f.closers, func() error { z.Close(); return nil })
		f.in = bufio.NewReaderSize(z, 64<<10)
	}
	if f.format == "" {
		if err := f.detect(); err != nil {
			f.close()
			return nil, err
		}
	}
	return f, nil
}

func (f *file) close() {
	for _, c := range f.closers {
		c()
	}
}

// detect finds out the format from the beginning of the file.
func (f *file) detect() error {
	head, err := f.in.Peek(64)
	if len(head) == 0 {
		if err != nil && !errors.Is(err, io.EOF) {
			return f.broken(err)
		}
		return fmt.Errorf("%s: is empty", f.path)
	}
	head = bytes.TrimLeft(head, "\ufeff \t\r\n")
	digits := 0
	for digits < len(head) && (head[digits] >= '0' && head[digits] <= '9' || head[digits] == '.') {
		digits++
	}
	rest := head[digits:]
	switch {
	case digits == 0 && len(head) > 0 && (head[0] == '{' || head[0] == '['):
		f.format = "ndjson"
	case digits > 0 && bytes.HasPrefix(rest, []byte(": ")):
		f.format = "rec"
	case digits > 0 && bytes.HasPrefix(rest, []byte(" ")) && bytes.IndexByte(head[:digits], '.') < 0:
		f.format = "raw"
	default:
		return fmt.Errorf("%s: is no tick file that we know: it begins with %.40q; want lines of \"<Unix ns> <message>\" (raw), \"<Unix s>: <message>\" (rec) or a JSON message each (ndjson)", f.path, head)
	}
	return nil
}

// broken says what is wrong with a file that cannot be read on.
func (f *file) broken(err error) error {
	what := "cannot be read"
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) {
		what = "is cut off or damaged"
	}
	return fmt.Errorf("%s %s after line %d: %w", f.path, what, f.line, err)
}

// next reads the next line that is not empty. ok is false at the end. An error
// that is a [*LineError] is about this line only.
func (f *file) next() (ok bool, err error) {
	for {
		line, long, err := f.readLine()
		if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0 && !long) {
			if errors.Is(err, io.EOF) {
				return false, nil
			}
			return false, f.broken(err)
		}
		f.line++
		if long {
			return true, &LineError{f.path, f.line, errTooLong}
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if err := f.split(line); err != nil {
			return true, &LineError{f.path, f.line, err}
		}
		return true, nil
	}
}

// readLine reads a line of any length, but keeps no more than lineBytesMax.
func (f *file) readLine() (line []byte, long bool, err error) {
	f.buf = f.buf[:0]
	for {
		part, err := f.in.ReadSlice('\n')
		if len(f.buf)+len(part) <= lineBytesMax {
			f.buf = append(f.buf, part...)
		} else {
			long = true
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return f.buf, long, err
		}
	}
}

// split takes a line apart.
func (f *file) split(line []byte) error {
	f.at, f.msg = 0, line
	switch f.format {
	case "raw":
		stamp, msg, ok := bytes.Cut(line, []byte(" "))
		if !ok {
			return errors.New(`want "<Unix ns> <message>"`)
		}
		ns, err := integer(stamp)
		if err != nil {
			return fmt.Errorf("time %.30q: %w", stamp, err)
		}
		f.at, f.msg = ns, bytes.TrimSpace(msg)
	case "rec":
		stamp, msg, ok := bytes.Cut(line, []byte(": "))
		if !ok {
			return errors.New(`want "<Unix s>: <message>"`)
		}
		ns, err := seconds(stamp)
		if err != nil {
			return fmt.Errorf("time %.30q: %w", stamp, err)
		}
		f.at, f.msg = ns, bytes.TrimSpace(msg)
	}
	if len(f.msg) == 0 || f.msg[0] != '{' && f.msg[0] != '[' || !json.Valid(f.msg) {
		return errNoJSON
	}
	return nil
}

var errTime = errors.New("is no time")

// integer reads Unix nanoseconds.
func integer(b []byte) (int64, error) {
	if len(b) == 0 || len(b) > 19 {
		return 0, errTime
	}
	var v uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, errTime
		}
		v = v*10 + uint64(c-'0')
	}
	if v == 0 || v > 1<<63-1 {
		return 0, errTime
	}
	return int64(v), nil
}

// seconds reads Unix seconds with up to nine digits behind the point.
func seconds(b []byte) (int64, error) {
	whole, frac, _ := bytes.Cut(b, []byte("."))
	if len(whole) == 0 || len(whole) > 10 || len(frac) > 9 {
		return 0, errTime
	}
	digits := append([]byte(nil), whole...)
	digits = append(digits, frac...)
	for range 9 - len(frac) {
		digits = append(digits, '0')
	}
	return integer(bytes.TrimLeft(digits, "0"))
}
