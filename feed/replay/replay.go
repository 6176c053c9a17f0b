// Package replay puts recorded venue messages into a raw topic, byte for byte,
// at the pace at which they were recorded, faster, or as fast as Kafka takes
// them.
//
// It knows files, lines and times; what a message means is its venue's
// business, but for the venue symbol that keys it. A replay is one goroutine,
// which calls the sink and tells of its progress. A record's timestamp is when
// it was replayed; the recorder's time stands in the header [HeaderRecorded].
package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"time"

	"tickgate/codec"
	"tickgate/feed"
	"tickgate/feed/venue"
)

// Sink takes raw messages, and is done with their bytes when Write returns.
// broker.Writer fulfils it.
type Sink interface {
	Write(ctx context.Context, entries []feed.Entry) error
}

// HeaderRecorded is the record header that carries the recorder's time, as
// decimal Unix nanoseconds: a record's own timestamp is when it was replayed.
const HeaderRecorded = "recorded"

// OnBadLine is what to do with a line that cannot be used.
type OnBadLine uint8

// Stop at the first bad line, or skip and count them.
const (
	Stop OnBadLine = iota
	Skip
)

// ParseOnBadLine reads "stop" or "skip".
func ParseOnBadLine(s string) (OnBadLine, error) {
	switch s {
	case "stop":
		return Stop, nil
	case "skip":
		return Skip, nil
	}
	return Stop, fmt.Errorf("%q: want stop or skip", s)
}

// Speed is how many times faster than recorded; the zero Speed is as fast as
// possible.
type Speed struct{ num, den uint64 }

// Bounds of a speed: beyond them a pace means nothing.
var (
	speedMin = codec.MustDecimal("0.000001")
	speedMax = codec.MustDecimal("1000000")
)

// ParseSpeed reads "max" or how many times, exactly: "1", "10", "0.5".
func ParseSpeed(s string) (Speed, error) {
	if s == "max" {
		return Speed{}, nil
	}
	d, err := codec.ParseDecimal([]byte(s))
	if err != nil {
		return Speed{}, fmt.Errorf("%q: %w; want max, or a number such as 1, 10 or 0.5", s, err)
	}
	if d.Cmp(speedMin) < 0 || d.Cmp(speedMax) > 0 {
		return Speed{}, fmt.Errorf("%q: want max, or %v to %v", s, speedMin, speedMax)
	}
	v := Speed{uint64(d.Coef()), 1}
	for range d.Scale() {
		v.den *= 10
	}
	return v, nil
}

// Max tells that there is no pace.
func (s Speed) Max() bool { return s.num == 0 }

// due is how long after the first message one is due that was recorded so many
// nanoseconds later; what no Duration can hold is for ever.
func (s Speed) due(after int64) time.Duration {
	hi, lo := bits.Mul64(uint64(max(0, after)), s.den)
	if hi >= s.num {
		return math.MaxInt64
	}
	due, _ := bits.Div64(hi, lo, s.num)
	return time.Duration(min(due, math.MaxInt64))
}

// Position is a line of a file.
type Position struct {
	File string
	Line int64 // from 1; 0 is before the first
}

// Options configure a replay. A zero field means its default.
type Options struct {
	// Files are read together, in the order of their times. Lines of a file
	// stay in their order whatever their times; one without times is sent
	// before those that have some, and as fast as possible.
	Files []string
	// From goes on with an earlier replay: see Progress.Positions. Files that it
	// does not name are replayed from their beginning.
	From []Position

	Venue      venue.Venue
	KafkaTopic string // defaults to raw.<venue>
	Format     string // "raw", "rec", "ndjson"; "": found out from each file's first lines
	Speed      Speed
	OnBadLine  OnBadLine
	Sink       Sink

	// Progress, if set, is called now and then, and at the end.
	Progress func(Progress)
}

func (o Options) withDefaults() Options {
	o.KafkaTopic = cmp.Or(o.KafkaTopic, "raw."+o.Venue.Name)
	return o
}

func (o Options) validate() error {
	var faults []error
	if len(o.Files) == 0 {
		faults = append(faults, errors.New("Files: no file to replay"))
	}
	for i, path := range o.Files {
		if slices.Contains(o.Files[:i], path) {
			faults = append(faults, fmt.Errorf("Files: %s is named twice", path))
		}
	}
	for _, p := range o.From {
		if !slices.Contains(o.Files, p.File) || p.Line < 0 {
			faults = append(faults, fmt.Errorf("From: line %d of %q: want a line of one of the files", p.Line, p.File))
		}
	}
	if o.Venue.Symbol == nil {
		faults = append(faults, errors.New("Venue: missing"))
	}
	if err := feed.CheckKafkaTopic(o.KafkaTopic); err != nil {
		faults = append(faults, fmt.Errorf("KafkaTopic: %w", err))
	}
	switch o.Format {
	case "", "raw", "rec", "ndjson":
	default:
		faults = append(faults, fmt.Errorf("Format %q: want raw, rec or ndjson", o.Format))
	}
	if o.Sink == nil {
		faults = append(faults, errors.New("Sink: missing"))
	}
	return errors.Join(faults...)
}

// Progress is how far a replay has come.
type Progress struct {
	Bytes, BytesTotal int64 // of the files as they lie on disk
	Messages          int64 // that the sink has taken
	BadLines          int64
	FirstBad          error // the first of them
	Recorded          time.Time
	// Positions are, of each file, the line of the last message that the sink
	// has taken: give them as Options.From to go on behind them.
	Positions []Position
	Done      bool // no more will come
}

// Bounds of a replay.
const (
	batchMessagesMax = 5000
	batchBytesMax    = 1 << 20
	progressPeriod   = 200 * time.Millisecond
	// finishTime is how long a write may go on after an interrupt, so that the
	// positions say what Kafka really has.
	finishTime = 2 * time.Second
)

// Run replays until the files end or ctx is done, which is no error: what it
// returns tells how far it has come.
func Run(ctx context.Context, o Options) (Progress, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return Progress{}, fmt.Errorf("replay: %w", err)
	}
	r := &run{opts: o}
	defer r.close()
	var faults []error
	for _, path := range o.Files {
		f, err := open(path, o.Format)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		r.files = append(r.files, f)
		r.progress.BytesTotal += f.size
	}
	if err := errors.Join(faults...); err != nil {
		return r.progress, err
	}
	err := r.run(ctx)
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Canceled)) {
		err = nil
	}
	r.tell(true)
	return r.progress, err
}

type run struct {
	opts     Options
	files    []*file
	progress Progress
	toldAt   time.Time

	began    time.Time
	first    int64 // recorded time of the first message that has one
	hasFirst bool

	// The batch. A sink is done with it when Write returns.
	entries []feed.Entry
	headers []feed.Header
	arena   []byte
}

func (r *run) close() {
	for _, f := range r.files {
		f.close()
	}
}

func (r *run) run(ctx context.Context) error {
	r.began = time.Now()
	var live []*file
	for _, f := range r.files {
		ok, err := r.begin(ctx, f)
		if err != nil {
			return err
		}
		if ok {
			live = append(live, f)
		}
	}
	for len(live) > 0 {
		next := 0
		for i, f := range live {
			if f.at < live[next].at {
				next = i
			}
		}
		f := live[next]
		if err := r.pace(ctx, f); err != nil {
			return err
		}
		r.add(f)
		if len(r.entries) >= batchMessagesMax || len(r.arena) >= batchBytesMax {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
		ok, err := r.advance(ctx, f)
		if err != nil { // what was read before it is sent all the same
			return errors.Join(r.flush(ctx), err)
		}
		if !ok {
			live = slices.Delete(live, next, next+1)
		}
	}
	return r.flush(ctx)
}

// begin reads a file's first message behind where it is to begin.
func (r *run) begin(ctx context.Context, f *file) (ok bool, err error) {
	for _, p := range r.opts.From {
		if p.File == f.path {
			f.taken = max(f.taken, p.Line)
		}
	}
	if err := f.pass(ctx, f.taken); err != nil {
		return false, err
	}
	return r.advance(ctx, f)
}

// advance reads a file's next good line; ok is false at its end.
func (r *run) advance(ctx context.Context, f *file) (ok bool, err error) {
	for {
		ok, err := f.next(ctx)
		if err == nil {
			return ok, nil
		}
		var bad *LineError
		if !errors.As(err, &bad) {
			return false, err
		}
		if r.opts.OnBadLine == Stop {
			return false, fmt.Errorf("%w; mend it, or give --on-bad-line skip", err)
		}
		r.progress.BadLines++
		if r.progress.FirstBad == nil {
			r.progress.FirstBad = bad
		}
	}
}

// pace waits until the file's line is due, and sends what came before it
// rather than let it wait too. A line that is late is due at once.
func (r *run) pace(ctx context.Context, f *file) error {
	if r.opts.Speed.Max() || f.at == 0 {
		return ctx.Err()
	}
	if !r.hasFirst {
		r.first, r.hasFirst = f.at, true
	}
	due := r.opts.Speed.due(f.at - r.first)
	if due-time.Since(r.began) <= 0 {
		return ctx.Err()
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	for {
		wait := due - time.Since(r.began)
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(min(wait, progressPeriod))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
			r.tell(false)
		}
	}
}

// add puts a file's line into the batch.
func (r *run) add(f *file) {
	e := feed.Entry{KafkaTopic: r.opts.KafkaTopic, Value: r.keep(f.msg)}
	if key, ok := r.opts.Venue.Symbol(e.Value); ok {
		e.Key = key
	}
	if f.at != 0 {
		var text [20]byte
		n := len(r.headers)
		r.headers = append(r.headers, feed.Header{Key: HeaderRecorded, Value: r.keep(strconv.AppendInt(text[:0], f.at, 10))})
		e.Headers = r.headers[n : n+1 : n+1]
		r.progress.Recorded = time.Unix(0, f.at)
	}
	r.entries = append(r.entries, e)
	f.added = f.line
}

// keep copies b into the arena. One that has grown leaves what it held where it was.
func (r *run) keep(b []byte) []byte {
	from := len(r.arena)
	r.arena = append(r.arena, b...)
	return r.arena[from:len(r.arena):len(r.arena)]
}

// flush writes the batch.
func (r *run) flush(ctx context.Context) error {
	if len(r.entries) == 0 {
		r.tell(false)
		return nil
	}
	now := time.Now().UnixNano()
	for i := range r.entries {
		r.entries[i].Time = now
	}
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(finishTime, cancel) })()
	if err := r.opts.Sink.Write(late, r.entries); err != nil {
		return fmt.Errorf("writing to Kafka topic %s after %d messages: %w", r.opts.KafkaTopic, r.progress.Messages, err)
	}
	r.progress.Messages += int64(len(r.entries))
	for _, f := range r.files {
		f.taken = max(f.taken, f.added)
	}
	clear(r.headers)
	r.entries, r.headers, r.arena = r.entries[:0], r.headers[:0], r.arena[:0]
	r.tell(false)
	return nil
}

func (r *run) tell(done bool) {
	if !done && (r.opts.Progress == nil || time.Since(r.toldAt) < progressPeriod) {
		return
	}
	r.toldAt = time.Now()
	r.progress.Done = done
	r.progress.Bytes = 0
	r.progress.Positions = make([]Position, len(r.files))
	for i, f := range r.files {
		r.progress.Bytes += f.read
		r.progress.Positions[i] = Position{f.path, f.taken}
	}
	if r.opts.Progress != nil {
		r.opts.Progress(r.progress)
	}
}
