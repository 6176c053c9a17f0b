package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

const (
	// lineBytesMax bounds a line: order book snapshots have some hundreds of
	// KB, and brokers take a batch of 1 MiB by default, key and header included.
	lineBytesMax = 1<<20 - 1<<10
	// readBytes is how much is read ahead, and looked at for the format.
	readBytes = 64 << 10
	// windowBytesMax is what a zstd file may make us hold: as the zstd program
	// takes it without being told more.
	windowBytesMax = 128 << 20
)

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
	path   string
	size   int64
	format string
	packed string // "gzip", "zstd" or ""
	disk   *os.File
	unzstd *zstd.Decoder // to be closed; nil if it is none
	in     *bufio.Reader
	buf    []byte
	read   int64 // bytes of the file on disk

	// The line that was read last.
	line int64
	at   int64 // recorded, Unix ns; 0: the format has no times
	msg  []byte

	added int64 // the last line that was put into a batch
	taken int64 // the last line that the sink took
}

// counter counts what is read of a file on disk.
type counter struct{ f *file }

func (c counter) Read(b []byte) (int, error) {
	n, err := c.f.disk.Read(b)
	c.f.read += int64(n)
	return n, err
}

// open opens a plain, gzip or zstd file and finds out its format.
func open(path, format string) (_ *file, err error) {
	f := &file{path: path, format: format}
	if f.disk, err = os.Open(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	info, err := f.disk.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s: is a directory", path)
	}
	f.size = info.Size()
	if err := f.unpack(); err != nil {
		return nil, fmt.Errorf("%s: begins like %s but is none: %w; get the file again", path, f.packed, err)
	}
	if f.format == "" {
		err = f.detect()
	}
	return f, err
}

// unpack finds out by its first bytes how the file is packed.
func (f *file) unpack() error {
	plain := bufio.NewReaderSize(counter{f}, readBytes)
	f.in = plain
	magic, _ := plain.Peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		f.packed = "gzip"
		z, err := gzip.NewReader(plain)
		if err != nil {
			return err
		}
		f.in = bufio.NewReaderSize(z, readBytes)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		f.packed = "zstd"
		z, err := zstd.NewReader(plain, zstd.WithDecoderMaxWindow(windowBytesMax), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return err
		}
		f.unzstd = z
		f.in = bufio.NewReaderSize(z, readBytes)
	}
	return nil
}

func (f *file) close() {
	if f.unzstd != nil {
		f.unzstd.Close()
	}
	f.disk.Close()
}

// byteOrderMark is what some programs put before a text.
const byteOrderMark = "\ufeff"

// detect finds out the format by the first line that has one: those before it
// are bad lines.
func (f *file) detect() error {
	head, err := f.in.Peek(readBytes)
	if len(head) == 0 && err != nil && !errors.Is(err, io.EOF) {
		return f.broken(err)
	}
	head = bytes.TrimSpace(bytes.TrimPrefix(head, []byte(byteOrderMark)))
	if len(head) == 0 {
		return fmt.Errorf("%s: is empty", f.path)
	}
	for line := range bytes.Lines(head) {
		if f.format = formatOf(bytes.TrimSpace(line)); f.format != "" {
			return nil
		}
	}
	return fmt.Errorf(`%s: is no tick file that we know: it begins with %.40q; want lines of "<Unix ns> <message>" (raw), "<Unix s>: <message>" (rec) or a JSON message each (ndjson)`, f.path, head)
}

// formatOf is the format that a line is of; "" if none.
func formatOf(line []byte) string {
	stamp := len(line) - len(bytes.TrimLeft(line, "0123456789."))
	rest := line[stamp:]
	colon := bytes.HasPrefix(rest, []byte(":"))
	msg := bytes.TrimLeft(bytes.TrimPrefix(rest, []byte(":")), " ")
	if len(msg) == 0 || msg[0] != '{' && msg[0] != '[' {
		return ""
	}
	switch {
	case stamp == 0 && !colon:
		return "ndjson"
	case stamp > 0 && colon:
		return "rec"
	case stamp > 0 && rest[0] == ' ' && !bytes.Contains(line[:stamp], []byte(".")):
		return "raw"
	}
	return ""
}

// broken says that a file cannot be read on, and why.
func (f *file) broken(err error) error {
	what := "cannot be read"
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		what = "is cut off"
	case f.packed != "":
		what = "is damaged, or cannot be read,"
	}
	return fmt.Errorf("%s %s behind line %d: %w; get the file again", f.path, what, f.line, err)
}

// next reads the next line that is not empty. ok is false at the end. An error
// that is a [*LineError] is about this line only.
func (f *file) next(ctx context.Context) (ok bool, err error) {
	for {
		line, long, err := f.readLine(ctx)
		if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0 && !long) {
			switch {
			case errors.Is(err, io.EOF):
				return false, nil
			case ctx.Err() != nil:
				return false, err
			}
			return false, f.broken(err)
		}
		f.line++
		if long {
			return true, &LineError{f.path, f.line, errTooLong}
		}
		if f.line == 1 {
			line = bytes.TrimPrefix(line, []byte(byteOrderMark))
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

// pass passes over the first lines.
func (f *file) pass(ctx context.Context, lines int64) error {
	for f.line < lines {
		line, long, err := f.readLine(ctx)
		switch {
		case err == nil, errors.Is(err, io.EOF) && (len(line) > 0 || long):
			f.line++
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%s has %d lines, and the replay to go on with had come to line %d: it is another file", f.path, f.line, lines)
		case ctx.Err() != nil:
			return err
		default:
			return f.broken(err)
		}
	}
	return nil
}

// readLine reads a line of any length, but keeps no more than lineBytesMax.
func (f *file) readLine(ctx context.Context) (line []byte, long bool, err error) {
	f.buf = f.buf[:0]
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
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
