package statuspage

import (
	"fmt"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// maxHours is how many days of a pipeline by the hour are shown by the hour.
const maxHours = 14

// history is the cells of a transition: weeks of days, or days of hours.
type history struct {
	Title   string
	Problem string
	Weeks   []week
	Strips  []strip
}

// week has a column a day, and a row a mode.
type week struct {
	Caption string
	Days    []day
	Rows    []weekRow
}

type day struct {
	Name, Number string
	Today        bool
}

type weekRow struct {
	Mode  string
	Cells []cell
}

// strip has a row a day in UTC, and a column an hour.
type strip struct {
	Caption string
	Hours   []string
	Rows    []stripRow
}

type stripRow struct {
	Day   string
	Today bool
	Cells []cell
}

// cell is a cycle, or a day of them. Without a link there is none.
type cell struct {
	Tone, Symbol, Label, Link string
	Loud                      bool
}

func newCell(c *shown, clk clock) cell {
	l := lookOf(c.kind)
	return cell{Tone: l.Tone, Symbol: l.Symbol, Label: c.label(clk), Link: c.link(), Loud: l.loud}
}

// histories returns the cells of a transition that match the query.
func histories(s *state, t *transition, q query, clk clock) []history {
	h := history{}
	if len(s.transitions) > 1 {
		h.Title = t.ID
	}
	if t.err != nil {
		h.Problem = t.err.Error()
		return []history{h}
	}
	if len(t.cycles) == 0 {
		return nil
	}
	hourly := clk.cal.Hourly()
	if hourly && s.days <= maxHours {
		for _, m := range t.Modes {
			h.Strips = append(h.Strips, newStrip(t, m, q, clk))
		}
		return []history{h}
	}
	by := map[string]map[pipeline.Period][]*shown{} // by mode and day
	for _, c := range t.cycles {
		day := c.period
		if hourly {
			day = clk.cal.Day(c.period)
		}
		if by[c.mode.Name] == nil {
			by[c.mode.Name] = map[pipeline.Period][]*shown{}
		}
		if q.matches(c) {
			by[c.mode.Name][day] = append(by[c.mode.Name][day], c)
		}
	}
	daily := clk.cal.Daily()
	first, last := t.cycles[0].period, t.cycles[len(t.cycles)-1].period
	if hourly {
		first, last = clk.cal.Day(first), clk.cal.Day(last)
	}
	monday := func(p pipeline.Period) pipeline.Period {
		return daily.Add(p, -((int(date(p).Weekday()) + 6) % 7))
	}
	for start := monday(first); start <= last; start = daily.Add(start, 7) {
		end := daily.Add(start, 6)
		w := week{Caption: date(start).Format("Jan 2") + " – " + date(end).Format("Jan 2")}
		for i := range 7 {
			p := daily.Add(start, i)
			w.Days = append(w.Days, day{date(p).Format("Mon")[:2], date(p).Format("2"), p == daily.At(clk.now)})
		}
		for _, m := range t.Modes {
			row := weekRow{Mode: m.Name}
			for i := range 7 {
				row.Cells = append(row.Cells, ofDay(by[m.Name][daily.Add(start, i)], daily.Add(start, i), hourly, clk))
			}
			w.Rows = append(w.Rows, row)
		}
		h.Weeks = append(h.Weeks, w)
	}
	return []history{h}
}

// date is a day for its names.
func date(p pipeline.Period) time.Time {
	t, _ := time.Parse(time.DateOnly, string(p)) // a calendar made it
	return t
}

// ofDay is the cell of a day: its cycle, or the worst of its hours with the number of each kind.
func ofDay(cycles []*shown, p pipeline.Period, hourly bool, clk clock) cell {
	if len(cycles) == 0 {
		return cell{}
	}
	worst := cycles[0]
	n := map[kind]int{}
	for _, c := range cycles {
		n[c.kind]++
		if rank(c.kind) < rank(worst.kind) {
			worst = c
		}
	}
	out := newCell(worst, clk)
	if hourly {
		var parts []string
		for _, l := range looks {
			if n[l.Kind] > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n[l.Kind], l.Word))
			}
		}
		out.Label = worst.of.Called(p, worst.mode.Name) + ": " + strings.Join(parts, ", ")
	}
	return out
}

func newStrip(t *transition, m pipeline.Mode, q query, clk clock) strip {
	out := strip{Caption: m.Name + ", hours in UTC"}
	for h := range 24 {
		out.Hours = append(out.Hours, fmt.Sprintf("%02d", h))
	}
	today := string(clk.cal.At(clk.now))[:10]
	at := map[string]int{}
	for _, c := range t.cycles {
		if c.mode.Name != m.Name {
			continue
		}
		day := string(c.period)[:10]
		i, known := at[day]
		if !known {
			i = len(out.Rows)
			at[day] = i
			out.Rows = append(out.Rows, stripRow{Day: date(pipeline.Period(day)).Format("Mon 2"), Today: day == today, Cells: make([]cell, 24)})
		}
		if q.matches(c) {
			out.Rows[i].Cells[clk.cal.Start(c.period).UTC().Hour()] = newCell(c, clk)
		}
	}
	return out
}
