package replay

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"tickgate/feed"
	"tickgate/feed/sharedtest"
	"tickgate/feed/venue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// log is a sink in memory. It keeps nothing of what is only lent.
type log struct {
	entries []feed.Entry
	writes  []int // entries of each write
	at      []time.Time
	before  func(writes int) error // called before each write, if set
}

func (l *log) Write(ctx context.Context, entries []feed.Entry) error {
	if l.before != nil {
		if err := l.before(len(l.writes)); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, e := range entries {
		e.Key, e.Value = bytes.Clone(e.Key), bytes.Clone(e.Value)
		e.Headers = slices.Clone(e.Headers)
		for i := range e.Headers {
			e.Headers[i].Value = bytes.Clone(e.Headers[i].Value)
		}
		l.entries = append(l.entries, e)
		l.at = append(l.at, time.Now())
	}
	l.writes = append(l.writes, len(entries))
	return nil
}

func (l *log) text() string {
	var b strings.Builder
	for _, e := range l.entries {
		b.Write(e.Value)
		b.WriteByte('\n')
	}
	return b.String()
}

// write puts a file into a folder of the test.
func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func gzipped(t *testing.T, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstded(t *testing.T, s string) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll([]byte(s), nil)
}

func speed(t *testing.T, s string) Speed {
	t.Helper()
	v, err := ParseSpeed(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const (
	rawLines = `1700000000000000000 {"e":"x","s":"AAA","n":1}
1700000001000000000 {"e":"x","s":"BBB","n":2}

1700000001500000000 {"n":3}
`
	recLines = `1700000000.25: {"e":"x","s":"CCC","n":11}
1700000001.2500001: [12]
`
	ndLines = `{"e":"x","s":"DDD","n":21}
{"n":22}
`
)

func TestFormats(t *testing.T) {
	raw := []string{`AAA@1700000000000000000 {"e":"x","s":"AAA","n":1}`, `BBB@1700000001000000000 {"e":"x","s":"BBB","n":2}`, `@1700000001500000000 {"n":3}`}
	for name, tt := range map[string]struct {
		content []byte
		format  string
		want    []string // key, recorded time and message
	}{
		"raw":                  {content: []byte(rawLines), want: raw},
		"raw, told":            {content: []byte(rawLines), format: "raw", want: raw},
		"raw in gzip":          {content: gzipped(t, rawLines), want: raw},
		"raw in two gzips":     {content: append(gzipped(t, rawLines[:60]), gzipped(t, rawLines[60:])...), want: raw},
		"raw in zstd":          {content: zstded(t, rawLines), want: raw},
		"no newline at last":   {content: []byte(strings.TrimSpace(rawLines)), want: raw},
		"from Windows":         {content: []byte("\ufeff" + strings.ReplaceAll(rawLines, "\n", "\r\n")), want: raw},
		"rec":                  {content: []byte(recLines), want: []string{`CCC@1700000000250000000 {"e":"x","s":"CCC","n":11}`, `@1700000001250000100 [12]`}},
		"ndjson":               {content: []byte(ndLines), want: []string{`DDD@ {"e":"x","s":"DDD","n":21}`, `@ {"n":22}`}},
		"ndjson behind spaces": {content: []byte("\n\n  " + ndLines), want: []string{`DDD@ {"e":"x","s":"DDD","n":21}`, `@ {"n":22}`}},
	} {
		t.Run(name, func(t *testing.T) {
			var l log
			p, err := Run(t.Context(), Options{Files: []string{write(t, "ticks", tt.content)}, Venue: venue.Binance, Format: tt.format, Sink: &l})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range l.entries {
				recorded := ""
				if len(e.Headers) == 1 && e.Headers[0].Key == HeaderRecorded {
					recorded = string(e.Headers[0].Value)
				}
				if e.KafkaTopic != "raw.binance" || e.Time == 0 {
					t.Errorf("entry for Kafka topic %q at %d", e.KafkaTopic, e.Time)
				}
				got = append(got, fmt.Sprintf("%s@%s %s", e.Key, recorded, e.Value))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%q\nwant\n%q", got, tt.want)
			}
			if p.Messages != int64(len(tt.want)) || p.Bytes != p.BytesTotal || p.Bytes != int64(len(tt.content)) || !p.Done || p.BadLines != 0 {
				t.Errorf("progress %+v", p)
			}
		})
	}
}

func TestBadFiles(t *testing.T) {
	long := `1700000000000000000 {"n":"` + strings.Repeat("x", lineBytesMax) + `"}`
	whole := gzipped(t, strings.Repeat(rawLines, 5000))
	damaged := bytes.Clone(whole)
	damaged[len(damaged)-8] ^= 0xff // the checksum
	wholeZ := zstded(t, strings.Repeat(rawLines, 5000))
	for name, tt := range map[string]struct {
		content []byte
		format  string
		want    string // in the error, behind the path
		skipped int64  // bad lines with Skip; -1: it is an error still
		left    int64  // messages with Skip; -1: some
	}{
		"empty":                     {content: nil, want: "is empty", skipped: -1},
		"only spaces":               {content: []byte(" \n\n"), want: "is empty", skipped: -1},
		"a table":                   {content: []byte("time,price\n1,2\n"), want: `is no tick file that we know: it begins with "time,price`, skipped: -1},
		"a table of numbers":        {content: []byte("1700000000000000000,1.5,2\n"), want: "is no tick file that we know", skipped: -1},
		"an empty gzip":             {content: gzipped(t, ""), want: "is empty", skipped: -1},
		"gzip in name only":         {content: []byte("\x1f\x8bnot really"), want: "begins like gzip but is none", skipped: -1},
		"gzip cut off":              {content: whole[:len(whole)/2], want: "is cut off behind line ", skipped: -1, left: -1},
		"gzip cut off at once":      {content: whole[:12], want: "is cut off behind line 0: ", skipped: -1},
		"gzip damaged":              {content: damaged, want: "is damaged", skipped: -1, left: -1},
		"gzip with more behind":     {content: append(gzipped(t, rawLines), "something else behind it"...), want: "is damaged", skipped: -1, left: 3},
		"zstd cut off":              {content: wholeZ[:len(wholeZ)/2], want: "is cut off behind line ", skipped: -1},
		"another format than told":  {content: []byte(rawLines), format: "rec", want: `, line 1: want "<Unix s>: <message>"`, skipped: 3},
		"first line bad":            {content: []byte("# captured by hand\n" + rawLines), want: ", line 1: time \"#\": is no time", skipped: 1, left: 3},
		"no message":                {content: []byte(rawLines + "1700000002000000000\n"), want: `, line 5: want "<Unix ns> <message>"`, skipped: 1, left: 3},
		"message cut off":           {content: []byte(rawLines + "1700000002000000000 {\"n\":\n"), want: ", line 5: its message is no JSON object or array", skipped: 1, left: 3},
		"message that is a number":  {content: []byte(rawLines + "1700000002000000000 17\n"), want: ", line 5: its message is no JSON object or array", skipped: 1, left: 3},
		"time that is none":         {content: []byte(rawLines + "17000x0002000000000 {}\n"), want: `, line 5: time "17000x0002000000000": is no time`, skipped: 1, left: 3},
		"time of zero":              {content: []byte(rawLines + "0 {}\n"), want: `, line 5: time "0": is no time`, skipped: 1, left: 3},
		"time beyond 2262":          {content: []byte(rawLines + "9999999999999999999 {}\n"), want: ", line 5: time ", skipped: 1, left: 3},
		"rec time beyond 2262":      {content: []byte(recLines + "9999999999.5: {}\n"), want: ", line 3: time ", skipped: 1, left: 2},
		"rec time too exact":        {content: []byte(recLines + "1700000000.1234567891: {}\n"), want: ", line 3: time ", skipped: 1, left: 2},
		"line too long":             {content: []byte(long + "\n" + rawLines), want: fmt.Sprintf(", line 1: longer than %d bytes", lineBytesMax), skipped: 1, left: 3},
		"line too long, at the end": {content: []byte(rawLines + long), want: fmt.Sprintf(", line 5: longer than %d bytes", lineBytesMax), skipped: 1, left: 3},
		"nested without end":        {content: []byte(rawLines + "1700000002000000000 " + strings.Repeat("[", 20000) + "\n"), want: ", line 5: its message is no JSON", skipped: 1, left: 3},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "ticks", tt.content)
			opts := Options{Files: []string{path}, Venue: venue.Binance, Format: tt.format, Sink: &log{}}
			if _, err := Run(t.Context(), opts); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("with stop: error %v, want %s and %q", err, path, tt.want)
			}
			var l log
			opts.Sink, opts.OnBadLine = &l, Skip
			p, err := Run(t.Context(), opts)
			if (err != nil) != (tt.skipped < 0) {
				t.Errorf("with skip: error %v", err)
			}
			if tt.skipped >= 0 && (p.BadLines != tt.skipped || !strings.Contains(p.FirstBad.Error(), tt.want)) {
				t.Errorf("with skip: %d bad lines, the first %v; want %d, %q", p.BadLines, p.FirstBad, tt.skipped, tt.want)
			}
			if p.Messages != int64(len(l.entries)) || tt.left >= 0 && p.Messages != tt.left || tt.left < 0 && p.Messages == 0 {
				t.Errorf("with skip: %d messages told, %d written, want %d", p.Messages, len(l.entries), tt.left)
			}
		})
	}
	t.Run("not there", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "nothing")
		if _, err := Run(t.Context(), Options{Files: []string{path}, Venue: venue.Binance, Sink: &log{}}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a folder", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := Run(t.Context(), Options{Files: []string{dir}, Venue: venue.Binance, Sink: &log{}}); err == nil || !strings.Contains(err.Error(), dir+": is a directory") {
			t.Errorf("error %v", err)
		}
	})
}

func TestOptions(t *testing.T) {
	_, err := Run(t.Context(), Options{Format: "csv", From: []Position{{"x", 3}}})
	for _, want := range []string{"Files:", "From: line 3", "Venue:", `Format "csv"`, "Sink:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not tell of %s", err, want)
		}
	}
	if _, err := Run(t.Context(), Options{Files: []string{"a", "a"}, Venue: venue.Binance, Sink: &log{}}); err == nil || !strings.Contains(err.Error(), "named twice") {
		t.Errorf("error %v, want that a file is named twice", err)
	}
}

func TestFilesAreMerged(t *testing.T) {
	back := "1700000001100000000 {\"n\":31}\n1700000000000000001 {\"n\":32}\n"
	files := []string{write(t, "raw", []byte(rawLines)), write(t, "rec.gz", gzipped(t, recLines)), write(t, "nd", []byte(ndLines)), write(t, "back", []byte(back))}
	var l log
	p, err := Run(t.Context(), Options{Files: files, Venue: venue.Binance, Sink: &l, KafkaTopic: "other"})
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, e := range l.entries {
		n := struct{ N int }{}
		if json.Unmarshal(e.Value, &n) != nil {
			n.N = 12 // the array
		}
		got = append(got, n.N)
		if e.KafkaTopic != "other" {
			t.Errorf("Kafka topic %q", e.KafkaTopic)
		}
	}
	// Without times first; then by time, but a file's own order stays: 32 is earlier than 31.
	if want := []int{21, 22, 1, 11, 2, 31, 32, 12, 3}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	if want := []Position{{files[0], 4}, {files[1], 2}, {files[2], 2}, {files[3], 2}}; !slices.Equal(p.Positions, want) {
		t.Errorf("positions %v, want %v", p.Positions, want)
	}
}

func TestPace(t *testing.T) {
	content := "1700000000000000000 {\"n\":1}\n1700000001000000000 {\"n\":2}\n1700000001000000000 {\"n\":3}\n" +
		"1700000000500000000 {\"n\":4}\n1700000003000000000 {\"n\":5}\n"
	for name, tt := range map[string]struct {
		speed string
		slow  time.Duration // each write takes so long
		want  []time.Duration
		end   time.Duration
	}{
		"as recorded":             {speed: "1", want: []time.Duration{0, 1e9, 1e9, 1e9, 3e9}, end: 3e9},
		"ten times":               {speed: "10", want: []time.Duration{0, 1e8, 1e8, 1e8, 3e8}, end: 3e8},
		"half":                    {speed: "0.5", want: []time.Duration{0, 2e9, 2e9, 2e9, 6e9}, end: 6e9},
		"max":                     {speed: "max", want: []time.Duration{0, 0, 0, 0, 0}},
		"late ones are not lost":  {speed: "1", slow: 1500 * time.Millisecond, want: []time.Duration{1.5e9, 3e9, 3e9, 3e9, 4.5e9}, end: 4.5e9},
		"what is late catches up": {speed: "1", slow: 4 * time.Second, want: []time.Duration{4e9, 8e9, 8e9, 8e9, 8e9}, end: 8e9},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "ticks", []byte(content))
			synctest.Test(t, func(t *testing.T) {
				l := log{before: func(int) error { time.Sleep(tt.slow); return nil }}
				began, told := time.Now(), 0
				p, err := Run(t.Context(), Options{Files: []string{path}, Venue: venue.Binance, Speed: speed(t, tt.speed), Sink: &l, Progress: func(Progress) { told++ }})
				if err != nil || p.Messages != 5 {
					t.Fatalf("%d messages, error %v", p.Messages, err)
				}
				var got []time.Duration
				for i := range l.at {
					got = append(got, l.at[i].Sub(began))
				}
				if !slices.Equal(got, tt.want) || time.Since(began) != tt.end {
					t.Errorf("sent at %v, ended at %v; want %v, %v", got, time.Since(began), tt.want, tt.end)
				}
				if !p.Recorded.Equal(time.Unix(1700000003, 0)) {
					t.Errorf("recorded %v", p.Recorded)
				}
				if told == 0 || tt.slow == 0 && told > int(tt.end/progressPeriod)+3 {
					t.Errorf("told %d times in %v", told, tt.end)
				}
			})
		})
	}
}

// TestGoesOn: an interrupt ends a replay, and another goes on where it stood, so
// that each message is there once.
func TestGoesOn(t *testing.T) {
	var lines strings.Builder
	for i := range 3 * batchMessagesMax {
		fmt.Fprintf(&lines, "%d {\"s\":\"A\",\"n\":%d}\n", 1700000000000000000+int64(i/7), i)
		if i%1000 == 0 {
			lines.WriteString("\nbad\n")
		}
	}
	a := write(t, "a", []byte(lines.String()))
	b := write(t, "b.gz", gzipped(t, lines.String()))
	for name, paced := range map[string]bool{"at most speed": false, "while it waits": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var whole, l log
				opts := Options{Files: []string{a, b}, Venue: venue.Binance, OnBadLine: Skip, Sink: &whole}
				if _, err := Run(t.Context(), opts); err != nil {
					t.Fatal(err)
				}
				opts.Sink = &l
				if paced {
					opts.Speed = speed(t, "0.000001")
				}
				parts := 0
				for done := false; !done; parts++ {
					ctx, cancel := context.WithCancel(t.Context())
					if first := len(l.writes); paced {
						time.AfterFunc(time.Duration(1+parts)*20600*time.Microsecond, cancel)
					} else {
						l.before = func(writes int) error {
							if writes == first+1 {
								cancel() // in the midst of a write, which is finished
							}
							return nil
						}
					}
					p, err := Run(ctx, opts)
					cancel()
					if err != nil {
						t.Fatalf("part %d: %v", parts, err)
					}
					opts.From = p.Positions
					done = len(l.entries) >= len(whole.entries)
					if parts > 300 {
						t.Fatalf("%d messages after %d parts", len(l.entries), parts)
					}
				}
				if l.text() != whole.text() || parts < 3 {
					t.Errorf("%d messages in %d parts differ from %d in one", len(l.entries), parts, len(whole.entries))
				}
			})
		})
	}
	t.Run("in a shorter file", func(t *testing.T) {
		path := write(t, "short", []byte(rawLines))
		_, err := Run(t.Context(), Options{Files: []string{path}, From: []Position{{path, 9}}, Venue: venue.Binance, Sink: &log{}})
		if err == nil || !strings.Contains(err.Error(), "has 4 lines") {
			t.Errorf("error %v", err)
		}
	})
}

// TestSinkHangs: an interrupt does not wait for a write that never ends.
func TestSinkHangs(t *testing.T) {
	path := write(t, "ticks", []byte(rawLines))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		began := time.Now()
		time.AfterFunc(time.Second, cancel)
		p, err := Run(ctx, Options{Files: []string{path}, Venue: venue.Binance, Sink: hanging{}})
		if err != nil || p.Messages != 0 || time.Since(began) != time.Second+finishTime {
			t.Errorf("%d messages, error %v after %v", p.Messages, err, time.Since(began))
		}
	})
}

type hanging struct{}

func (hanging) Write(ctx context.Context, _ []feed.Entry) error { <-ctx.Done(); return ctx.Err() }

func TestSinkFails(t *testing.T) {
	path, no := write(t, "ticks", []byte(rawLines)), errors.New("no room")
	_, err := Run(t.Context(), Options{Files: []string{path}, Venue: venue.Binance, Sink: &log{before: func(int) error { return no }}})
	if !errors.Is(err, no) || !strings.Contains(err.Error(), "raw.binance") {
		t.Errorf("error %v", err)
	}
}

func TestRecorded(t *testing.T) {
	path := sharedtest.Path(t, "data", "ticks", "binance", "spot_btcusdt_20240808.raw.gz")
	var l log
	p, err := Run(t.Context(), Options{Files: []string{path}, Venue: venue.Binance, Sink: &l})
	if err != nil {
		t.Fatal(err)
	}
	keyed := 0
	for _, e := range l.entries {
		if string(e.Key) == "BTCUSDT" {
			keyed++
		} else if e.Key != nil {
			t.Fatalf("key %q: %s", e.Key, e.Value)
		}
	}
	if p.Messages != 41249 || len(l.entries) != 41249 || keyed != 41248 || p.Positions[0].Line != 41249 || p.Bytes != p.BytesTotal {
		t.Errorf("%d messages, %d keyed, progress %+v", len(l.entries), keyed, p)
	}
	for i, n := range l.writes {
		if n > batchMessagesMax {
			t.Errorf("write %d has %d messages", i, n)
		}
	}
}

func TestParse(t *testing.T) {
	for in, ok := range map[string]bool{"max": true, "1": true, "10": true, "0.5": true, "1.23456789012345": true, "0.000001": true, "1000000": true,
		"": false, "0": false, "0.0": false, "-1": false, "x": false, "1x": false, "1p3": false, "0b11": false, "1/3": false, "inf": false,
		"0.0000001": false, "1000001": false, "1.0000000000000000001": false} {
		if _, err := ParseSpeed(in); (err == nil) != ok {
			t.Errorf("ParseSpeed(%q): %v", in, err)
		}
	}
	for in, want := range map[string]OnBadLine{"skip": Skip, "stop": Stop} {
		if got, err := ParseOnBadLine(in); got != want || err != nil {
			t.Errorf("ParseOnBadLine(%q) = %v, %v", in, got, err)
		}
	}
	if _, err := ParseOnBadLine("ignore"); err == nil {
		t.Error(`ParseOnBadLine("ignore") has no complaint`)
	}
}

// FuzzDue: what is due is exactly the recorded time divided by the speed.
func FuzzDue(f *testing.F) {
	f.Add("1.23456789012345", int64(1e9))
	f.Add("0.000001", int64(365*24*3600*1e9))
	f.Add("1000000", int64(1<<63-1))
	f.Fuzz(func(t *testing.T, text string, after int64) {
		s, err := ParseSpeed(text)
		if err != nil || s.Max() || after < 0 {
			return
		}
		times, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("speed %q is no number", text)
		}
		exact := times.Quo(new(big.Rat).SetInt64(after), times)
		want := new(big.Int).Quo(exact.Num(), exact.Denom())
		if !want.IsInt64() {
			want.SetInt64(1<<63 - 1)
		}
		if got := s.due(after); int64(got) != want.Int64() {
			t.Errorf("at speed %s, %d ns are %d, want %v", text, after, got, want)
		}
	})
}

// FuzzLine: a line that we take has a time that can be, and a message that is
// JSON and stands in the line as it is.
func FuzzLine(f *testing.F) {
	for _, s := range []string{rawLines, recLines, ndLines, "1700000000.1: {}", "1: []", "0 {}", "99999999999999999999 {}"} {
		for line := range strings.Lines(s) {
			f.Add([]byte(line))
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, format := range []string{"raw", "rec", "ndjson"} {
			file := file{format: format}
			if file.split(line) != nil {
				continue
			}
			if (file.at <= 0) != (format == "ndjson") || !json.Valid(file.msg) || !bytes.Contains(line, file.msg) {
				t.Errorf("%s: %q is taken for time %d, message %q", format, line, file.at, file.msg)
			}
		}
	})
}

func BenchmarkRun(b *testing.B) {
	path := sharedtest.Path(b, "data", "ticks", "binance", "spot_btcusdt_20240808.raw.gz")
	b.ReportAllocs()
	messages := int64(0)
	for b.Loop() {
		p, err := Run(b.Context(), Options{Files: []string{path}, Venue: venue.Binance, Sink: nowhere{}})
		if err != nil {
			b.Fatal(err)
		}
		messages += p.Messages
	}
	b.ReportMetric(float64(messages)/b.Elapsed().Seconds(), "messages/s")
}

type nowhere struct{}

func (nowhere) Write(context.Context, []feed.Entry) error { return nil }
