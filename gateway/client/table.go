package client

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"tickgate/codec"
)

// drawEvery is how often a table is drawn at most: faster than that nobody
// reads, and a terminal costs more than the market.
const drawEvery = 100 * time.Millisecond

// columnsDefault and rowsDefault are for a terminal that does not tell its size.
const (
	columnsDefault = 100
	rowsDefault    = 24
)

// TableOptions configure a [Table].
type TableOptions struct {
	Out io.Writer // a terminal
	// Size tells the terminal's columns and rows, 0 if it cannot. Defaults to
	// 100 columns and 24 rows.
	Size func() (columns, rows int)
}

// Table shows symbols as a live table on a terminal: Update and Event, of a
// [Handler], may be called while Run draws.
type Table struct {
	options TableOptions

	// Guarded by mu.
	mu     sync.Mutex
	rows   map[string]*tableRow
	status string // a line below the table
	dirty  bool

	// Owned by Run.
	drawn int // lines of the last drawing
}

// tableRow is what a symbol's line shows.
type tableRow struct {
	symbol   string
	last     codec.Decimal
	base     codec.Decimal // what change is since
	bid, ask codec.Decimal
	volume   codec.Total
	hasTotal bool
	age      time.Duration
	hasAge   bool
	merged   uint64
	dropped  uint64
	state    codec.TopicState
}

// NewTable returns an empty table.
func NewTable(o TableOptions) *Table {
	return &Table{options: o, rows: make(map[string]*tableRow), dirty: true}
}

func (t *Table) rowLocked(symbol string) *tableRow {
	r := t.rows[symbol]
	if r == nil {
		r = &tableRow{symbol: symbol}
		t.rows[symbol] = r
	}
	t.dirty = true
	return r
}

// Update takes what the table shows of u. Its values replace those before, but
// merged and dropped, which add up.
func (t *Table) Update(u *Update) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rowLocked(u.Symbol)
	if u.Last.IsSet() {
		r.last = u.Last
	}
	if u.View&codec.ViewQuote != 0 {
		r.bid, r.ask = u.Bid, u.Ask
	}
	if u.View&codec.ViewTotals != 0 {
		r.volume, r.hasTotal = u.Volume, true
	}
	if d := &u.Day; u.View&codec.ViewDay != 0 && d.Open.IsSet() {
		r.base = d.Open
		if d.PrevClose.IsSet() {
			r.base = d.PrevClose
		}
		r.volume = u.Volume.Sub(d.BaseVolume)
	}
	r.age, r.hasAge = u.Age()
	r.merged += u.Merged
	r.dropped += u.Dropped
}

// Event takes a symbol's state, and what is refused or waited for.
func (t *Table) Event(e *codec.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e.Type {
	case codec.EventState:
		if r := t.rows[e.Symbol]; r != nil {
			r.state, t.dirty = e.State, true
		}
	case codec.EventGranted, codec.EventWaiting:
		if codec.ValidSymbol(e.Symbol) { // it has a line before its first tick
			t.rowLocked(e.Symbol)
		}
	case codec.EventRefused, codec.EventError:
		t.statusLocked(strings.TrimSpace(e.Symbol + " refused: " + e.Why))
	case codec.EventGoaway:
		t.statusLocked("gateway is leaving: " + e.Why)
	}
}

// Status shows a line below the table, such as why there is no connection.
func (t *Table) Status(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.statusLocked(s)
}

func (t *Table) statusLocked(s string) { t.status, t.dirty = clean(s), true }

// clean takes what a terminal would obey out of a text that came from outside.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// Run draws until ctx is done, at most ten times a second and only what has
// changed, and leaves the last drawing on the screen.
func (t *Table) Run(ctx context.Context) error {
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	for {
		if err := t.draw(); err != nil {
			return fmt.Errorf("draw the table: %w", err)
		}
		select {
		case <-ctx.Done():
			return t.draw()
		case <-tick.C:
		}
	}
}

// draw writes the table over the one before, in one write.
func (t *Table) draw() error {
	columns, height := 0, 0
	if t.options.Size != nil {
		columns, height = t.options.Size()
	}
	if columns <= 0 {
		columns = columnsDefault
	}
	if height <= 0 {
		height = rowsDefault
	}
	t.mu.Lock()
	if !t.dirty {
		t.mu.Unlock()
		return nil
	}
	t.dirty = false
	lines := t.linesLocked(columns, height)
	t.mu.Unlock()

	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", t.drawn) // up to its first line
	}
	b.WriteString("\r")
	for _, l := range lines {
		b.WriteString(l)
		b.WriteString("\x1b[K\r\n") // clear what was longer
	}
	b.WriteString("\x1b[J") // and what was below
	t.drawn = len(lines)
	_, err := io.WriteString(t.options.Out, b.String())
	return err
}

// linesLocked lays the table out within so many columns and lines, one of which
// is left to the cursor.
func (t *Table) linesLocked(columns, height int) []string {
	cells := [][]string{{"SYMBOL", "LAST", "CHANGE", "BID", "ASK", "VOLUME", "AGE", "MERGED", "STATE"}}
	symbols := make([]string, 0, len(t.rows))
	for s := range t.rows {
		symbols = append(symbols, s)
	}
	slices.Sort(symbols)
	below := 1 // the cursor's
	if t.status != "" {
		below++
	}
	hidden := 0
	if room := max(1, height-1-below); len(symbols) > room {
		hidden = len(symbols) - max(0, room-1)
		symbols = symbols[:len(symbols)-hidden]
	}
	for _, s := range symbols {
		cells = append(cells, t.rows[s].cells())
	}
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var lines []string
	for _, row := range cells {
		var b strings.Builder
		for i, c := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i == 0 || i == len(row)-1 { // words to the left, numbers to the right
				b.WriteString(c + pad)
			} else {
				b.WriteString(pad + c)
			}
		}
		lines = append(lines, strings.TrimRight(fit(b.String(), columns), " "))
	}
	if hidden > 0 {
		lines = append(lines, fit(fmt.Sprintf("and %d more", hidden), columns))
	}
	if t.status != "" {
		lines = append(lines, fit(t.status, columns))
	}
	return lines
}

// fit cuts a line to the screen's width: one that wraps could not be drawn over.
func fit(line string, columns int) string {
	n := 0
	for i := range line {
		if n++; n > columns {
			return line[:i]
		}
	}
	return line
}

func (r *tableRow) cells() []string {
	change := ""
	if r.last.IsSet() && r.base.IsSet() {
		d := codec.TotalOf(r.last).Sub(codec.TotalOf(r.base))
		if change = d.String(); d.Sign() > 0 {
			change = "+" + change
		}
	}
	volume, age, merged, state := "", "", "", ""
	if r.hasTotal {
		volume = r.volume.String()
	}
	if r.hasAge {
		age = shortAge(r.age)
	}
	if r.merged > 0 {
		merged = fmt.Sprint(r.merged)
	}
	if r.state != 0 {
		state = r.state.String()
	}
	if r.dropped > 0 {
		state = strings.TrimSpace(fmt.Sprintf("%s %d dropped", state, r.dropped))
	}
	return []string{r.symbol, r.last.String(), change, r.bid.String(), r.ask.String(), volume, age, merged, state}
}

// shortAge is an age in three or four digits; a negative one says that a clock
// is wrong.
func shortAge(d time.Duration) string {
	switch a := d.Abs(); {
	case a < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case a < 10*time.Millisecond:
		return fmt.Sprintf("%d.%dms", d.Milliseconds(), (a%time.Millisecond)/(100*time.Microsecond))
	case a < 10*time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return d.Truncate(time.Second).String()
}
