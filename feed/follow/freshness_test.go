package follow

import (
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/record"
	"tickgate/feed/broker"
	"tickgate/feed/venue"
)

func TestJudge(t *testing.T) {
	now := time.Unix(1000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	alive := func() *source {
		return &source{beatAt: ago(time.Second), wordAt: ago(time.Second), silenceMax: time.Minute}
	}
	trading := func() *topic { return &topic{symbol: "A", loaded: true, tickAt: ago(time.Second)} }

	for name, tt := range map[string]struct {
		change func(*topic, *source)
		none   bool // no source is known
		want   codec.TopicState
		why    string
	}{
		"ticks come":                {want: codec.StateLive},
		"nothing happens":           {change: func(t *topic, _ *source) { t.tickAt = ago(quietAfter + 1) }, want: codec.StateQuiet},
		"its newest has not come":   {change: func(t *topic, _ *source) { t.loaded = false }, want: codec.StateLoading},
		"it never traded":           {none: true, want: codec.StateQuiet},
		"no heartbeat for long":     {change: func(_ *topic, s *source) { s.beatAt = ago(heartbeatMax + 1) }, want: codec.StateStale, why: "no heartbeat from its feed"},
		"no heartbeat yet":          {change: func(_ *topic, s *source) { s.beatAt, s.started = time.Time{}, ago(time.Second) }, want: codec.StateLoading},
		"no heartbeat ever":         {change: func(_ *topic, s *source) { s.beatAt, s.started = time.Time{}, ago(time.Minute) }, want: codec.StateStale, why: "no heartbeat from its feed"},
		"the feed lags":             {change: func(_ *topic, s *source) { s.behind = true }, want: codec.StateStale, why: "its feed lags behind the venue"},
		"the venue is silent":       {change: func(_ *topic, s *source) { s.wordAt = ago(time.Hour) }, want: codec.StateStale, why: "no word from the venue"},
		"the venue may be silent":   {change: func(_ *topic, s *source) { s.wordAt, s.silenceMax = ago(time.Hour), 0 }, want: codec.StateLive},
		"halted":                    {change: func(t *topic, _ *source) { t.status = codec.VenueStatusHalted }, want: codec.StateHalted, why: "the venue halted trading"},
		"closed":                    {change: func(t *topic, _ *source) { t.status = codec.VenueStatusClosed }, want: codec.StateClosed, why: "the venue is closed"},
		"a gap just now":            {change: func(t *topic, _ *source) { t.gapAt = ago(time.Second) }, want: codec.StateGap, why: "raw messages were lost before they were read"},
		"a gap that has been told":  {change: func(t *topic, _ *source) { t.gapAt = ago(gapTold + 1) }, want: codec.StateLive},
		"dead is worse than halted": {change: func(t *topic, s *source) { t.status, s.beatAt = codec.VenueStatusHalted, ago(time.Hour) }, want: codec.StateStale, why: "no heartbeat from its feed"},
	} {
		t.Run(name, func(t *testing.T) {
			tp, src := trading(), alive()
			if tt.change != nil {
				tt.change(tp, src)
			}
			if tt.none {
				src = nil
			}
			if state, why := judge(now, tp, src); state != tt.want || why != tt.why {
				t.Errorf("%v, %q; want %v, %q", state, why, tt.want, tt.why)
			}
		})
	}
}

func TestBeat(t *testing.T) {
	s := &source{silenceMax: time.Minute}
	now := time.Unix(1000, 0)
	clock := now.Add(time.Hour).UnixNano() // the feed's clock is an hour ahead of ours
	hb := record.Heartbeat{Position: 10, End: 10, LastTime: clock - int64(5*time.Second), Time: clock}
	s.beat(now, &hb)
	if got := now.Sub(s.wordAt); got != 5*time.Second {
		t.Errorf("at first the venue was silent for %v by the feed's clock, want 5s", got)
	}
	hb.Time += int64(time.Second)
	s.beat(now.Add(time.Second), &hb)
	if got := now.Add(time.Second).Sub(s.wordAt); got != 6*time.Second {
		t.Errorf("a heartbeat without a word makes it %v, want 6s", got)
	}
	hb.LastTime++
	s.beat(now.Add(2*time.Second), &hb)
	if got := now.Add(2 * time.Second).Sub(s.wordAt); got != 0 {
		t.Errorf("a word makes it %v, want 0", got)
	}
	if s.behind {
		t.Error("a feed that has read all is behind")
	}
	hb.End, hb.LastTime = 500, hb.Time-int64(lagMax)-1
	s.beat(now.Add(3*time.Second), &hb)
	if !s.behind {
		t.Error("a feed whose last message is old while others wait is not behind")
	}
}

// TestSilentVenueIsStale: the venue's bound on silence counts whichever comes
// first, a symbol's ticks or the heartbeats of its feed.
func TestSilentVenueIsStale(t *testing.T) {
	v, _ := venue.Lookup("binance")
	for _, tickFirst := range []bool{false, true} {
		board := &fakeBoard{seqs: map[string][]uint64{}, states: map[string][]string{}, loaded: map[string]bool{}, begins: map[string]bool{}}
		f, err := New(Options{Client: new(broker.Client), Board: board})
		if err != nil {
			t.Fatal(err)
		}
		tp := &topic{symbol: "A", told: codec.StateLoading}
		f.topics["ticks.A"] = tp
		now := time.Now()
		beat := func() {
			hb := record.Heartbeat{Venue: "binance", Position: 9, End: 9, LastTime: 1, Time: 1}
			f.beats([]broker.Record{{Value: record.AppendHeartbeat(nil, &hb)}})
		}
		if !tickFirst {
			beat()
		}
		f.handle("ticks.A", 0, []broker.Record{{Value: record.Append(nil, &record.Record{Kind: codec.KindQuote, Symbol: "A", Venue: "binance",
			Source: codec.Source{Epoch: 1, Offset: 1}, State: codec.State{Epoch: 1, Seq: 1}})}}, 1)
		f.judgeOnce(now)
		beat()
		src := f.sources[tp.source]
		later := now.Add(v.MaxSilence + time.Minute)
		src.beatAt = later
		f.judgeOnce(later)
		if state, _ := board.last("A"); state != "stale: no word from the venue" {
			t.Errorf("tick first %v: %s after a venue was silent for longer than %v", tickFirst, state, v.MaxSilence)
		}
	}
}
