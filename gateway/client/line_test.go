package client_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
	"tickgate/gateway/client"
)

func sample() client.Update {
	return client.Update{
		Update: native.Update{
			Type: codec.EventTicker, Channel: codec.ChannelTicker, View: codec.ViewAll, ID: 7, Epoch: 1, Seq: 48213,
			IngestTime: 1_000_000_000, EventTime: 999_000_000,
			Price: codec.MustDecimal("61500.12"), Size: codec.MustDecimal("0.00100000"), Side: codec.SideBuy,
			Bid: codec.MustDecimal("61500.11"), Ask: codec.MustDecimal("61500.12"),
			Volume: codec.TotalOf(codec.MustDecimal("212.03315")), Trades: 9757,
			Day: codec.Day{Open: codec.MustDecimal("61000.00"), BaseVolume: codec.TotalOf(codec.MustDecimal("200"))},
		},
		Symbol: "BTCUSDT", ReceiveTime: 1_000_812_345, Merged: 3, Last: codec.MustDecimal("61500.12"),
	}
}

// TestLine: the keys that others count on, digits as the venue wrote them, null
// where nothing is known.
func TestLine(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(u *client.Update)
		want   string
	}{
		"ticker": {func(*client.Update) {},
			`{"symbol":"BTCUSDT","channel":"ticker","epoch":1,"seq":48213,"last":"61500.12","bid":"61500.11","ask":"61500.12","volume":"212.03315","trades":9757,"age_us":812,"event_age_us":1812,"merged":3,"dropped":0}` + "\n"},
		"nothing known": {func(u *client.Update) {
			*u = client.Update{Update: native.Update{Type: codec.EventTicker, Channel: codec.ChannelTicker, View: codec.ViewLast}, Symbol: "X"}
		},
			`{"symbol":"X","channel":"ticker","epoch":0,"seq":0,"last":null,"bid":null,"ask":null,"volume":null,"trades":null,"age_us":null,"event_age_us":null,"merged":0,"dropped":0}` + "\n"},
		"lost total, clock ahead": {func(u *client.Update) {
			u.Volume = codec.LostTotal()
			u.ReceiveTime = 999_999_000
		},
			`{"symbol":"BTCUSDT","channel":"ticker","epoch":1,"seq":48213,"last":"61500.12","bid":"61500.11","ask":"61500.12","volume":null,"trades":9757,"age_us":-1,"event_age_us":999,"merged":3,"dropped":0}` + "\n"},
		"trade": {func(u *client.Update) {
			u.Type, u.Channel, u.Kind, u.Merged, u.Dropped = codec.EventTrade, codec.ChannelTrades, codec.KindTrade, 0, 4
		},
			`{"symbol":"BTCUSDT","channel":"trades","epoch":1,"seq":48213,"last":"61500.12","bid":"61500.11","ask":"61500.12","volume":"212.03315","trades":9757,"age_us":812,"event_age_us":1812,"merged":0,"dropped":4,"kind":"trade","price":"61500.12","size":"0.00100000","side":"buy"}` + "\n"},
		"snapshot of trades": {func(u *client.Update) { u.Type, u.Channel = codec.EventSnapshot, codec.ChannelTrades }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := sample()
			tt.change(&u)
			got := client.AppendLine(nil, &u)
			if string(got) != tt.want {
				t.Errorf("AppendLine:\n got %s\nwant %s", got, tt.want)
			}
			if len(got) > 0 && !json.Valid(got) {
				t.Errorf("no JSON: %s", got)
			}
		})
	}
	u := sample()
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { client.AppendLine(buf, &u) }); n != 0 {
		t.Errorf("a line: %v allocations", n)
	}
}

// screen is a terminal that a table was drawn on; it understands what a table
// writes.
type screen struct {
	lines  []string
	row    int
	writes int
}

func (s *screen) Write(b []byte) (int, error) {
	s.writes++
	text := string(b)
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text, "AKJ")
			n := 0
			for _, c := range text[2:end] {
				n = n*10 + int(c-'0')
			}
			switch text[end] {
			case 'A':
				s.row -= n
			case 'J':
				s.lines = s.lines[:s.row]
			}
			text = text[end+1:]
		case text[0] == '\r':
			text = text[1:]
		case text[0] == '\n':
			s.row++
			text = text[1:]
		default:
			end := strings.IndexAny(text, "\x1b\r\n")
			for len(s.lines) <= s.row {
				s.lines = append(s.lines, "")
			}
			s.lines[s.row] = text[:end]
			text = text[end:]
		}
	}
	return len(b), nil
}

// drawn is what the screen shows when the table has ended.
func drawn(t *testing.T, columns, rows int, fill ...func(*client.Table)) *screen {
	t.Helper()
	s := &screen{}
	table := client.NewTable(client.TableOptions{Out: s, Size: func() (int, int) { return columns, rows }})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, f := range fill {
		f(table)
		if err := table.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestTable(t *testing.T) {
	first := func(table *client.Table) {
		u := sample()
		table.Update(&u)
		eth := client.Update{Symbol: "ETHUSDT", Update: native.Update{Type: codec.EventQuote, Channel: codec.ChannelQuotes, View: codec.ViewQuote, Bid: codec.MustDecimal("3000.1")}}
		table.Update(&eth)
		table.Event(&codec.Event{Type: codec.EventWaiting, Symbol: "NEW"})
		table.Event(&codec.Event{Type: codec.EventState, Symbol: "ETHUSDT", State: codec.StateStale})
		table.Event(&codec.Event{Type: codec.EventRefused, Symbol: "\x1b[2J", Why: "no symbol"})
	}
	second := func(table *client.Table) {
		u := sample()
		u.Last, u.Merged, u.Dropped = codec.MustDecimal("60999.9"), 4, 2
		u.Day.PrevClose = codec.MustDecimal("61000.5")
		table.Update(&u)
		table.Status("")
	}
	for name, tt := range map[string]struct {
		columns, rows int
		fill          []func(*client.Table)
		want          []string
	}{
		"first": {100, 24, []func(*client.Table){first}, []string{
			"SYMBOL       LAST   CHANGE       BID       ASK    VOLUME    AGE  MERGED  STATE",
			"BTCUSDT  61500.12  +500.12  61500.11  61500.12  12.03315  812µs       3",
			"ETHUSDT                       3000.1                                     stale",
			"NEW",
			"?[2J refused: no symbol",
		}},
		"drawn over": {100, 24, []func(*client.Table){first, second}, []string{
			"SYMBOL      LAST  CHANGE       BID       ASK    VOLUME    AGE  MERGED  STATE",
			"BTCUSDT  60999.9    -0.6  61500.11  61500.12  12.03315  812µs       7  2 dropped",
			"ETHUSDT                     3000.1                                     stale",
			"NEW",
		}},
		"small screen": {16, 5, []func(*client.Table){first, second}, []string{
			"SYMBOL      LAST",
			"BTCUSDT  60999.9",
			"ETHUSDT",
			"NEW",
		}},
		"smaller": {16, 4, []func(*client.Table){first, second}, []string{
			"SYMBOL      LAST",
			"BTCUSDT  60999.9",
			"and 2 more",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := drawn(t, tt.columns, tt.rows, tt.fill...)
			if got, want := strings.Join(s.lines, "\n"), strings.Join(tt.want, "\n"); got != want {
				t.Errorf("the screen shows\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestTableDrawsSeldom: at most ten times a second, however much comes, and
// not at all if nothing does.
func TestTableDrawsSeldom(t *testing.T) {
	synctestTable(t, func(table *client.Table, s *screen) {
		u := sample()
		for range 10_000 {
			table.Update(&u)
			time.Sleep(100 * time.Microsecond)
		}
		synctest.Wait()
		if s.writes < 9 || s.writes > 12 {
			t.Errorf("drawn %d times in a second, want about 10", s.writes)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		before := s.writes
		time.Sleep(time.Minute)
		synctest.Wait()
		if s.writes != before {
			t.Errorf("drawn %d times while nothing came", s.writes-before)
		}
	})
}

// synctestTable runs a table in a bubble of its own time.
func synctestTable(t *testing.T, f func(*client.Table, *screen)) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{}
		table := client.NewTable(client.TableOptions{Out: s})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- table.Run(ctx) }()
		f(table, s)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
