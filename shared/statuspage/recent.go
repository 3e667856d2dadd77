package statuspage

import (
	"fmt"
	"slices"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

// recentRow is a period in the table of the newest cycles.
type recentRow struct {
	Period, Day string
	Cells       []*recentCell // by column; nil: none
}

// recentCell is a cycle in that table.
type recentCell struct {
	Of         string // its column
	Look       look
	Link, Name string
	Count      string
	Pips       []pip
	Lines      []string
}

// pip is a processor of a cycle.
type pip struct{ Tone, Symbol, Name string }

// mostPips is how many processors a cell shows one by one.
const mostPips = 12

// recent fills the table: the newest periods, or with a filter all cycles that match.
func (o *overview) recent(s *state, q query, clk clock) {
	type column struct{ transition, mode string }
	var columns []column
	cells := map[string]map[column]*recentCell{}
	for _, t := range s.transitions {
		for _, m := range t.Modes {
			columns = append(columns, column{t.ID, m.Name})
			name := m.Name
			if len(s.transitions) > 1 {
				name = t.ID + " " + m.Name
			}
			o.Columns = append(o.Columns, name)
		}
		for _, c := range t.cycles {
			if !q.matches(c) {
				continue
			}
			if cells[c.Period] == nil {
				cells[c.Period] = map[column]*recentCell{}
			}
			cells[c.Period][column{t.ID, c.mode.Name}] = newRecentCell(c, q, clk)
		}
	}
	var periods []string
	for p := range cells {
		periods = append(periods, p)
	}
	slices.Sort(periods)
	slices.Reverse(periods)
	most := recentDays
	if clk.cal.Hourly() {
		most = recentHours
	}
	if q.Filters() {
		most = mostRows
	}
	if len(periods) > most {
		if q.Filters() {
			o.RowsMore = len(periods) - most
		}
		periods = periods[:most]
	}
	format := "Mon Jan 2"
	if clk.cal.Hourly() {
		format = "Mon 15:04 MST"
	}
	for _, p := range periods {
		row := recentRow{Period: p, Day: clk.in(clk.cal.Start(pipeline.Period(p))).Format(format)}
		for i, col := range columns {
			cell := cells[p][col]
			if cell != nil {
				cell.Of = o.Columns[i]
			}
			row.Cells = append(row.Cells, cell)
		}
		o.Rows = append(o.Rows, row)
	}
}

func newRecentCell(c *shown, q query, clk clock) *recentCell {
	out := &recentCell{Look: lookOf(c.kind), Link: c.link(), Name: c.name()}
	if c.kind == kindUnknown {
		out.Lines = []string{c.problem}
		return out
	}
	out.Count = fmt.Sprintf("%d of %d", len(c.Satisfied), c.size())
	for _, name := range c.of.Order {
		if c.size() > mostPips || !c.mode.Names(name) {
			continue
		}
		p := pip{"calm", "ring", name + " missing"}
		switch {
		case slices.Contains(c.Satisfied, name):
			p = pip{"good", "dot", name + " complete"}
		case slices.Contains(c.Failed, name):
			p = pip{"bad", "fail", name + " failed"}
		}
		out.Pips = append(out.Pips, p)
	}
	switch {
	case c.State == string(cycle.StateOnHold):
		out.Lines = append(out.Lines, fmt.Sprintf("until %s, by %s", clk.short(c.Hold.Until), c.Hold.Actor))
	case c.kind == kindMadeUp:
		out.Lines = append(out.Lines, c.made+" was handed over since")
	case lookOf(c.kind).loud && !c.since().IsZero():
		out.Lines = append(out.Lines, "since "+clk.short(c.since()))
	case c.State == string(policy.Waiting) && !c.NextCheck.IsZero() && c.NextCheck.After(clk.now):
		due := c.mode.Due(c.of.Calendar(), c.period)
		if c.mode.Deadline == nil || !due.Equal(c.NextCheck) {
			out.Lines = append(out.Lines, "next check "+clk.short(c.NextCheck))
		}
		if c.mode.Deadline != nil && clk.now.Before(due) {
			out.Lines = append(out.Lines, "deadline "+clk.short(due))
		}
	}
	published := 0
	var line string
	for _, b := range c.Batches {
		if b.PublishedAt.IsZero() {
			continue
		}
		if published++; published == 1 {
			line = clk.short(b.PublishedAt)
			if !b.DueAt.IsZero() {
				line += ", " + span(b.PublishedAt.Sub(b.DueAt)) + " after it was ready"
			}
		}
	}
	if published > 1 {
		line = fmt.Sprintf("%d hand-overs, the first at %s", published, line)
	}
	if line != "" {
		out.Lines = append(out.Lines, line)
	}
	if len(c.Failed) > 0 {
		out.Lines = append(out.Lines, "failed: "+few(c.Failed))
	}
	if c.kind == kindWithoutAll {
		out.Lines = append(out.Lines, "without "+few(c.Missing))
	}
	if q.Processor != "" {
		state := "missing"
		switch {
		case slices.Contains(c.Satisfied, q.Processor):
			state = "complete"
		case slices.Contains(c.Failed, q.Processor):
			state = "failed"
		}
		out.Lines = append(out.Lines, q.Processor+": "+state)
	}
	return out
}
