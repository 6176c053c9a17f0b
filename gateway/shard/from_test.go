package shard

import (
	"fmt"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
)

// ask subscribes to A from a place.
func (x *bench) ask(se *Session, channel codec.Channel, epoch int64, seq uint64) {
	x.t.Helper()
	c := &codec.Command{Op: codec.OpSubscribe, Ref: 7, Channel: channel}
	c.Symbols.Append(codec.SymbolItem{Name: []byte("A"), HasFrom: true, Epoch: epoch, Seq: seq})
	x.do(se, c)
}

// rows spells what a client got of its symbol: s5 a snapshot, 6 a tick, and the
// words for what was told.
func rows(list []native.Update) (all []string) {
	for _, u := range list {
		switch u.Type {
		case codec.EventSnapshot:
			all = append(all, fmt.Sprintf("s%d", u.Seq))
		case codec.EventTrade, codec.EventTicker:
			all = append(all, fmt.Sprint(u.Seq))
		case codec.EventReset:
			all = append(all, "reset")
		case codec.EventBehind:
			all = append(all, "behind")
		case codec.EventDrop:
			all = append(all, fmt.Sprintf("drop%d", u.Event.Count))
		case codec.EventState:
			if u.Event.State == codec.StateGap {
				all = append(all, "gap")
			}
		}
	}
	return all
}

// TestResumeBeforeTheTopicIsThere: a node that has just started knows no topic
// yet. Who goes on there gets the same as from one that has been up for long.
func TestResumeBeforeTheTopicIsThere(t *testing.T) {
	for _, channel := range []codec.Channel{codec.ChannelTrades, codec.ChannelTicker} {
		for name, tt := range map[string]struct {
			epoch        int64
			seq          uint64
			trades, tick string
		}{
			"where it stands":    {1, 30, "[31]", "[31]"},
			"a little behind":    {1, 27, "[28 29 30 31]", "[s30 31]"},
			"a later epoch":      {7, 27, "[behind s30 31]", "[behind s30 31]"},
			"ahead of this node": {1, 99, "[behind s30 31]", "[behind s30 31]"},
		} {
			for _, declared := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v %s declared=%v", channel, name, declared), func(t *testing.T) {
					x := newBench(t)
					if declared {
						x.board.Declare("A", true)
					}
					conn := &fakeConn{room: -1}
					se := x.attach(conn)
					x.ask(se, channel, tt.epoch, tt.seq)
					x.board.Declare("A", true)
					for range 30 {
						x.trade("A")
					}
					x.board.Loaded("A")
					await(t, "its place to be looked up", func() (found bool) {
						err := x.shard.do(t.Context(), func() { found = se.n == 1 && se.late == nil })
						return err == nil && found
					})
					x.settled()
					x.trade("A")
					await(t, "the newest", func() bool {
						r := rows(conn.updates(t))
						return len(r) > 0 && r[len(r)-1] == "31"
					})
					want := map[codec.Channel]string{codec.ChannelTrades: tt.trades, codec.ChannelTicker: tt.tick}[channel]
					if got := fmt.Sprint(rows(conn.updates(t))); got != want {
						t.Errorf("got %s, want %s", got, want)
					}
				})
			}
		}
	}
}

// TestWaitingIsToldToWhoAsks: whoever names a symbol that has not ticked is told to
// wait, each time, and the grant is of the command whose terms it has.
func TestWaitingIsToldToWhoAsks(t *testing.T) {
	for _, declared := range []bool{false, true} {
		t.Run(fmt.Sprintf("declared=%v", declared), func(t *testing.T) {
			x := newBench(t)
			if declared {
				x.board.Declare("A", true)
				x.board.Loaded("A")
				x.met()
			}
			conn := &fakeConn{room: -1}
			se := x.attach(conn)
			for ref := range uint64(2) {
				c := &codec.Command{Op: codec.OpSubscribe, Ref: ref + 1, Channel: codec.ChannelTicker, Every: time.Duration(ref) * 10 * time.Millisecond}
				c.Symbols.Append(codec.SymbolItem{Name: []byte("A")})
				x.do(se, c)
			}
			x.trade("A")
			await(t, "the tick", func() bool { return count(conn.updates(t), codec.EventTicker) == 1 })
			var got []string
			for _, u := range conn.updates(t) {
				switch u.Type {
				case codec.EventWaiting:
					got = append(got, fmt.Sprint("waiting ", u.Event.Ref))
				case codec.EventGranted:
					got = append(got, fmt.Sprintf("granted %d every %v", u.Event.Ref, u.Event.Every))
				}
			}
			if want := "[waiting 1 waiting 2 granted 2 every 10ms]"; fmt.Sprint(got) != want {
				t.Errorf("got %v, want %s", got, want)
			}
		})
	}
}

// TestPlaceOutlivesOtherTerms: a client that waits for a symbol and names it again
// to have it on other terms goes on where it said, whether the topic was there or
// not.
func TestPlaceOutlivesOtherTerms(t *testing.T) {
	for _, declared := range []bool{false, true} {
		t.Run(fmt.Sprintf("declared=%v", declared), func(t *testing.T) {
			x := newBench(t)
			if declared {
				x.board.Declare("A", true)
			}
			conn := &fakeConn{room: -1}
			se := x.attach(conn)
			x.ask(se, codec.ChannelTrades, 1, 27)
			x.subscribe(se, codec.ChannelTrades, 10*time.Millisecond, "A")
			x.board.Declare("A", true)
			for range 30 {
				x.trade("A")
			}
			x.board.Loaded("A")
			await(t, "the newest", func() bool {
				r := rows(conn.updates(t))
				return len(r) > 0 && r[len(r)-1] == "30"
			})
			if got := fmt.Sprint(rows(conn.updates(t))); got != "[28 29 30]" {
				t.Errorf("got %s, want 28 to 30", got)
			}
		})
	}
}

// TestFromOfASilentSymbol: a topic that is loaded and has never ticked is
// followed from its first tick whatever place the client names.
func TestFromOfASilentSymbol(t *testing.T) {
	for _, channel := range []codec.Channel{codec.ChannelTrades, codec.ChannelTicker} {
		for name, seq := range map[string]uint64{"from its start": 0, "from further on": 5} {
			t.Run(fmt.Sprint(channel, " ", name), func(t *testing.T) {
				x := newBench(t)
				x.board.Declare("A", true)
				x.board.Loaded("A")
				conn := &fakeConn{room: -1}
				x.ask(x.attach(conn), channel, 1, seq)
				x.trade("A")
				await(t, "its first tick", func() bool {
					r := rows(conn.updates(t))
					return len(r) > 0 && (r[len(r)-1] == "1" || r[len(r)-1] == "s1")
				})
			})
		}
	}
}

// TestResumeFromWhatIsLost: a place that the ring no longer holds is told as a
// gap. What it holds follows, in order, and no snapshot that would be ahead of it.
func TestResumeFromWhatIsLost(t *testing.T) {
	x := newBench(t)
	x.board.Declare("A", true)
	const all = 20_000 // more than a ring holds
	for range all {
		x.trade("A")
	}
	x.board.Loaded("A")
	x.board.SetState("A", codec.StateLive, 1, "")
	conn := &fakeConn{room: -1}
	x.ask(x.attach(conn), codec.ChannelTrades, 1, 3)
	await(t, "the newest", func() bool {
		r := rows(conn.updates(t))
		return len(r) > 0 && r[len(r)-1] == fmt.Sprint(all)
	})
	got := rows(conn.updates(t))
	if got[0] != "gap" {
		t.Fatalf("first %s, want a gap", got[0])
	}
	for i, row := range got[1:] {
		if want := fmt.Sprint(all - len(got) + 2 + i); row != want {
			t.Fatalf("%s after %s, want %s", row, got[i], want)
		}
	}
	var states []codec.TopicState
	for _, u := range conn.updates(t) {
		if u.Type == codec.EventState {
			states = append(states, u.Event.State)
		}
	}
	if fmt.Sprint(states) != "[gap live]" {
		t.Errorf("states %v, want gap, then what it is", states)
	}
}
