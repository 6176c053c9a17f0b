// Package replay puts recorded venue messages into a raw topic, byte for byte,
// at the pace at which they were recorded, faster, or as fast as Kafka takes
// them.
//
// It knows files, lines and times; what a message means is its venue's
// business, but for the venue symbol that keys it. A replay is one goroutine.
package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"tickgate/feed"
	"tickgate/feed/venue"
)

// Sink takes raw messages. broker.Writer fulfils it.
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
type Speed struct{ num, den int64 }

// speedMax bounds a speed, so that times never overflow.
const speedMax = 1_000_000

// ParseSpeed reads "max" or a positive number of times: "1", "10", "0.5".
func ParseSpeed(s string) (Speed, error) {
	if s == "max" {
		return Speed{}, nil
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok || len(s) > 16 || strings.ContainsAny(s, "/eExX_") {
		return Speed{}, fmt.Errorf("%q: want max, or a number such as 1, 10 or 0.5", s)
	}
	if r.Sign() <= 0 || r.Cmp(big.NewRat(speedMax, 1)) > 0 || r.Cmp(big.NewRat(1, speedMax)) < 0 {
		return Speed{}, fmt.Errorf("%q: want more than 0 and at most %d", s, speedMax)
	}
	return Speed{r.Num().Int64(), r.Denom().Int64()}, nil
}

// Max tells that there is no pace.
func (s Speed) Max() bool { return s.num == 0 }

// due is how long after the first message one recorded so much later is due.
func (s Speed) due(after int64) time.Duration {
	sec, ns := after/1e9, after%1e9 // apart, so that a year times 1e6 fits
	return time.Duration(sec*s.den/s.num)*time.Second + time.Duration((sec*s.den%s.num)*1e9/s.num+ns*s.den/s.num)
}

// Options configure a replay. A zero field means its default.
type Options struct {
	Files      []string
	Venue      venue.Venue
	KafkaTopic string // defaults to raw.<venue>
	Format     string // "raw", "rec", "ndjson"; "": found out from each file's first lines
	Speed      Speed
	OnBadLine  OnBadLine
	Sink       Sink

	// Progress, if set, is called now and then, and at the end.
	Progress func(Progress)
}

// Progress is how far a replay has come.
type Progress struct {
	Bytes, BytesTotal int64 // of the files as they lie on disk
	Messages          int64
	BadLines          int64
	FirstBad          error // the first of them
	Recorded          time.Time
	Done              bool
}

// Bounds of a replay.
const (
	batchMessagesMax = 5000
	batchBytesMax    = 1 << 20
	progressPeriod   = 200 * time.Millisecond
	lastWriteTime    = 30 * time.Second // of what was read before an interrupt
)

// Run replays until the files end or ctx is done, which is no error: what it
// returns tells how far it has come.
func Run(ctx context.Context, o Options) (Progress, error) {
	o.KafkaTopic = cmp.Or(o.KafkaTopic, "raw."+o.Venue.Name)
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
	if len(o.Files) == 0 {
		faults = append(faults, errors.New("no file to replay"))
	}
	if err := errors.Join(faults...); err != nil {
		return r.progress, err
	}
	err := r.run(ctx)
	if ctx.Err() != nil {
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

	entries []feed.Entry
	arena   []byte
}

func (r *run) close() {
	for _, f := range r.files {
		f.close()
	}
}

func (r *run) run(ctx context.Context) error {
	r.began = time.Now()
	live := slices.Clone(r.files)
	for i := 0; i < len(live); {
		ok, err := r.advance(live[i])
		if err != nil {
			return errors.Join(r.flush(ctx), err)
		}
		if !ok {
			live = slices.Delete(live, i, i+1)
			continue
		}
		i++
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
		ok, err := r.advance(f)
		if err != nil { // what was read before it is sent all the same
			return errors.Join(r.flush(ctx), err)
		}
		if !ok {
			live = slices.Delete(live, next, next+1)
		}
		if ctx.Err() != nil {
			break
		}
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWriteTime)
	defer cancel()
	return r.flush(late)
}

// advance reads a file's next good line; ok is false at its end.
func (r *run) advance(f *file) (ok bool, err error) {
	for {
		ok, err := f.next()
		var bad *LineError
		if !errors.As(err, &bad) {
			return ok, err
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
// rather than let it wait too.
func (r *run) pace(ctx context.Context, f *file) error {
	if r.opts.Speed.Max() || f.at == 0 {
		return ctx.Err()
	}
	if !r.hasFirst {
		r.first, r.hasFirst = f.at, true
	}
	due := r.opts.Speed.due(max(0, f.at-r.first))
	wait := due - time.Since(r.began)
	if wait <= 0 {
		return nil
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		tell := time.NewTimer(progressPeriod)
		select {
		case <-ctx.Done():
			tell.Stop()
			return ctx.Err()
		case <-timer.C:
			tell.Stop()
			return nil
		case <-tell.C:
			r.tell(false)
		}
	}
}

// add puts a file's line into the batch.
func (r *run) add(f *file) {
	from := len(r.arena)
	r.arena = append(r.arena, f.msg...)
	e := feed.Entry{KafkaTopic: r.opts.KafkaTopic, Value: r.arena[from:len(r.arena):len(r.arena)]}
	if key, ok := r.opts.Venue.Symbol(e.Value); ok {
		e.Key = key
	}
	if f.at != 0 {
		e.Headers = []feed.Header{{Key: HeaderRecorded, Value: strconv.AppendInt(nil, f.at, 10)}}
		r.progress.Recorded = time.Unix(0, f.at)
	}
	r.entries = append(r.entries, e)
}

// flush writes the batch.
func (r *run) flush(ctx context.Context) error {
	if len(r.entries) > 0 {
		now := time.Now().UnixNano()
		for i := range r.entries {
			r.entries[i].Time = now
		}
		if err := r.opts.Sink.Write(ctx, r.entries); err != nil {
			return fmt.Errorf("writing to Kafka topic %s after %d messages: %w", r.opts.KafkaTopic, r.progress.Messages, err)
		}
		r.progress.Messages += int64(len(r.entries))
		r.entries, r.arena = r.entries[:0], nil // the arena may be in a writer's hands
	}
	r.tell(false)
	return nil
}

func (r *run) tell(done bool) {
	r.progress.Done = done
	r.progress.Bytes = 0
	for _, f := range r.files {
		r.progress.Bytes += f.read.Load()
	}
	if r.opts.Progress == nil || !done && time.Since(r.toldAt) < progressPeriod {
		return
	}
	r.toldAt = time.Now()
	r.opts.Progress(r.progress)
}
