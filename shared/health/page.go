package health

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/sweep"
)

// How many days the page shows: by default, and at most.
const (
	PageDays    = 14
	MaxPageDays = 90

	hourlyPageDays = 2
)

// Page is what the status page shows: texts alone, times in the pipeline's zone. What could
// not be read is a Problem in its place.
type Page struct {
	Pipeline, Project, Zone string
	Shadow                  bool
	At                      string // when it was made
	Days                    int
	Overall                 State
	Headline                string
	Evaluated               string // when health has looked last
	Checks                  []Check
	Problem                 string // why no report can be read
	Grids                   []Grid
	Locks                   Listing
	Sweeps                  Listing
	Jobs                    Listing
	Version, Source         string
}

// Grid are the cycles of a transition, a row a period, the newest first.
type Grid struct {
	ID      string
	Modes   []string
	Adopted string // since when its cycles are judged; "" where nothing is recorded
	Rows    []GridRow
	Problem string
}

// GridRow is a period.
type GridRow struct {
	Period, Weekday string
	Cells           []Cell
	Problem         string
	Planned         string // maintenance
}

// Cell is a cycle.
type Cell struct {
	Mode       string
	State      string // its word; "" without records
	Tone       string // good, fair, bad or calm: how it is coloured, besides its word
	Count      string // "4 of 5"
	Reason     string
	Next       string
	Hold       string
	Processors []CellProcessor
	Batches    []CellBatch
}

// CellProcessor is what is known of one that a cycle waits for.
type CellProcessor struct{ Name, State string }

// CellBatch is a hand-over.
type CellBatch struct {
	N                    int
	ID, Cause, State, At string
	Latency              string // from when it was due to the broker's last answer
	Actor                string
	Messages             []CellMessage
}

// CellMessage is a trigger, with the broker's id.
type CellMessage struct{ Table, ID string }

// Listing is a table of the page: a title, names of columns, rows.
type Listing struct {
	Empty   string // what an empty one means
	Rows    []ListingRow
	Problem string
}

// ListingRow is a row, with how it is coloured, and a command that helps.
type ListingRow struct {
	Tone    string
	Cells   []string
	Command string
}

// mostRows bounds the rows of one listing: a page stays readable, however many there are.
const mostRows = 100

// bound keeps the first rows, bad ones first, and says how many more the command shows.
func (l *Listing) bound(command string) {
	more := len(l.Rows) - mostRows
	if more <= 0 {
		return
	}
	slices.SortStableFunc(l.Rows, func(a, b ListingRow) int {
		switch {
		case a.Tone == "bad" && b.Tone != "bad":
			return -1
		case b.Tone == "bad" && a.Tone != "bad":
			return 1
		}
		return 0
	})
	cells := make([]string, len(l.Rows[0].Cells))
	cells[1] = fmt.Sprintf("and %d more", more)
	l.Rows = append(l.Rows[:mostRows], ListingRow{Tone: "calm", Cells: cells, Command: command})
}

// DefaultPageDays is the number of days that the page shows by default.
func DefaultPageDays(cal pipeline.Calendar) int {
	if cal.Hourly() {
		return hourlyPageDays
	}
	return PageDays
}

// ReadPage reads what the page shows of the last days. It reads all sources at the same time, in a
// constant number of calls of the store for any number of days, and without the warehouse.
func ReadPage(ctx context.Context, a *app.App, days int) Page {
	ctx, cancel := context.WithTimeoutCause(ctx, pageLimit, fmt.Errorf("no answer within %s", pageLimit))
	defer cancel()
	c, zone, now := New(a), a.Pipeline.Calendar.Zone(), a.Now()
	p := Page{Pipeline: a.Config.Prefix + a.Pipeline.Name, Project: a.Config.Project, Zone: zone.String(), Shadow: a.Config.Shadow != "",
		At: c.local(now), Days: days, Version: app.Version, Source: app.SourceHash, Grids: make([]Grid, len(a.Pipeline.Transitions))}
	var wg sync.WaitGroup
	for i, t := range a.Pipeline.Transitions {
		wg.Go(func() { p.Grids[i] = c.grid(ctx, t, days) })
	}
	wg.Go(func() { p.Locks = c.locks(ctx) })
	wg.Go(func() { p.Sweeps = c.sweeps(ctx, a) })
	wg.Go(func() { p.Jobs = c.jobs(ctx) })
	wg.Go(func() { p.report(ctx, c, now) })
	wg.Wait()
	return p
}

// report takes over the last report: what is wrong comes first.
func (p *Page) report(ctx context.Context, c *Checker, now time.Time) {
	r, err := c.Last(ctx)
	if err != nil {
		p.Overall, p.Headline, p.Problem = Unknown, "Unknown: the last report cannot be read", err.Error()
		return
	}
	for _, s := range []State{Failing, Unknown, OK} {
		for _, check := range r.Checks {
			if check.State == s {
				check.Since = check.Since.In(c.Pipeline.Calendar.Zone())
				p.Checks = append(p.Checks, check)
			}
		}
	}
	p.Overall = r.Overall
	switch failing, unknown := r.Count(Failing), r.Count(Unknown); {
	case failing > 0 && unknown > 0:
		p.Headline = fmt.Sprintf("%d of %d checks failing, %d unknown", failing, len(r.Checks), unknown)
	case failing > 0:
		p.Headline = fmt.Sprintf("%d of %d checks failing", failing, len(r.Checks))
	case unknown > 0:
		p.Headline = fmt.Sprintf("Nothing is failing, and %d of %d checks are unknown", unknown, len(r.Checks))
	default:
		p.Headline = fmt.Sprintf("All %d checks are ok", len(r.Checks))
	}
	if !r.At.IsZero() {
		p.Evaluated = fmt.Sprintf("%s, %d minutes ago", c.local(r.At), int(now.Sub(r.At).Minutes()))
	}
}

func (c *Checker) grid(ctx context.Context, t *pipeline.Transition, days int) Grid {
	g := Grid{ID: t.ID}
	for _, m := range t.Modes {
		g.Modes = append(g.Modes, m.Name)
	}
	from, to := t.Window(c.Now(), days)
	periods, err := c.Reconcile.Engine.PeriodStates(ctx, t, from, to)
	if err != nil {
		g.Problem = err.Error()
		return g
	}
	managed, err := c.Reconcile.Engine.Managed(ctx, t)
	if err != nil {
		g.Problem = err.Error()
		return g
	}
	g.Adopted = managed.Words(t)
	for _, b := range periods {
		g.Rows = append(g.Rows, c.row(t, b, managed.Since != "" && b.Period >= managed.Since))
	}
	slices.Reverse(g.Rows)
	return g
}

func (c *Checker) row(t *pipeline.Transition, b cycle.PeriodState, managed bool) GridRow {
	cal, format := c.Pipeline.Calendar, "Mon"
	if cal.Hourly() {
		format = "Mon 15:04"
	}
	row := GridRow{Period: string(b.Period), Weekday: cal.Start(b.Period).In(cal.Zone()).Format(format)}
	if m, ok := c.Pipeline.Health.Planned(b.Period); ok {
		row.Planned = "planned maintenance: " + m.Reason
	}
	if b.Problem != nil {
		row.Problem = b.Problem.Error()
		return row
	}
	for _, st := range b.Cycles {
		if _, known := t.Mode(st.Mode); !known {
			continue // of an earlier definition: phasectl status shows it
		}
		if !st.Shown(managed) {
			row.Cells = append(row.Cells, Cell{Mode: st.Mode})
			continue
		}
		row.Cells = append(row.Cells, c.cell(st))
	}
	return row
}

func (c *Checker) cell(st cycle.Status) Cell {
	cell := Cell{Mode: st.Mode, State: st.State, Tone: "calm", Reason: st.Reason,
		Count: fmt.Sprintf("%d of %d", len(st.Satisfied), len(st.Satisfied)+len(st.Missing))}
	switch {
	case st.State == string(policy.Overdue):
		cell.Tone = "bad"
	case st.State == string(cycle.StatePublished) && len(st.Missing) == 0:
		cell.Tone = "good"
	case st.State == string(cycle.StatePublished), st.State == string(cycle.StateGrace), st.State == string(cycle.StateOnHold), len(st.Failed) > 0, st.State == string(cycle.StateBlocked):
		cell.Tone = "fair"
	}
	if !st.NextCheck.IsZero() {
		cell.Next = c.local(st.NextCheck)
	}
	if h := st.Hold; h != nil {
		cell.Hold = fmt.Sprintf("until %s, by %s: %s", c.local(h.Until), h.Actor, h.Reason)
	}
	for _, name := range st.Satisfied {
		cell.Processors = append(cell.Processors, CellProcessor{name, "complete"})
	}
	for _, name := range st.Missing {
		state := "missing"
		if slices.Contains(st.Failed, name) {
			state = "failed"
		}
		cell.Processors = append(cell.Processors, CellProcessor{name, state})
	}
	for _, name := range st.Ignored {
		cell.Processors = append(cell.Processors, CellProcessor{name, "ignored"})
	}
	for _, b := range st.Batches {
		out := CellBatch{N: b.N, ID: b.ID, Cause: b.Cause, State: string(b.State), Actor: b.Actor}
		if !b.PublishedAt.IsZero() {
			out.At = c.local(b.PublishedAt)
			if !b.DueAt.IsZero() {
				out.Latency = b.PublishedAt.Sub(b.DueAt).Round(100 * time.Millisecond).String()
			}
		}
		for table, id := range b.Messages {
			if id == "" {
				id = "no answer yet"
			}
			out.Messages = append(out.Messages, CellMessage{table, id})
		}
		slices.SortFunc(out.Messages, func(a, b CellMessage) int { return strings.Compare(a.Table, b.Table) })
		cell.Batches = append(cell.Batches, out)
	}
	return cell
}

func (c *Checker) local(t time.Time) string {
	return c.Pipeline.Calendar.Local(t)
}

func (c *Checker) locks(ctx context.Context) Listing {
	l := Listing{Empty: "No locks."}
	held, at, err := c.Locks.List(ctx)
	if err != nil {
		l.Problem = err.Error()
		return l
	}
	for _, s := range held {
		row := ListingRow{Tone: "calm", Cells: []string{s.Key, "held", c.local(s.Since), s.Execution, s.Instance}}
		switch {
		case s.Leaked(at):
			row.Tone, row.Cells[1], row.Command = "bad", "leaked", release(s)
		case s.Expired(at):
			row.Tone, row.Cells[1] = "fair", "expired"
		case s.Foreign:
			row.Cells[1] = "held by another runner"
		}
		l.Rows = append(l.Rows, row)
	}
	l.bound("phasectl locks list")
	return l
}

func release(s lease.State) string {
	return "phasectl locks release " + s.Key + " --reason '…'"
}

func (c *Checker) sweeps(ctx context.Context, a *app.App) Listing {
	l := Listing{Empty: "No duplicates were removed in the last 30 days."}
	all, err := sweep.Removals(ctx, a)
	if err != nil {
		l.Problem = err.Error()
		return l
	}
	slices.Reverse(all)
	for _, s := range all {
		row := ListingRow{Tone: "calm", Cells: []string{s.ID, s.State, s.Table, string(s.Period), fmt.Sprint(s.Removed), c.local(s.At), s.Actor}}
		if s.Undoable {
			row.Command = "phasectl sweep undo " + s.ID
		}
		if s.State == "unreadable" {
			row.Tone = "bad"
		}
		l.Rows = append(l.Rows, row)
	}
	l.bound("phasectl sweep list")
	return l
}

// jobs are the heartbeats, that of health itself included.
func (c *Checker) jobs(ctx context.Context) Listing {
	l := Listing{Empty: "The pipeline schedules no jobs."}
	functions, err := c.functions(ctx)
	if err != nil {
		l.Problem = err.Error()
		return l
	}
	now := c.Now()
	for _, s := range c.Pipeline.Schedules {
		last, due := functions[s.Function].heartbeats[s.Job], c.Pipeline.LastDue(s, now)
		row := ListingRow{Tone: "good", Cells: []string{s.Name, "in time", "", s.Function, functions[s.Function].source}}
		switch first, seen := functions["health"].schedules[scheduleKey(s)]; {
		case last.IsZero() && seen && due.Before(first):
			row.Tone, row.Cells[1], row.Cells[2] = "fair", "not due yet", "—"
		case last.IsZero():
			row.Tone, row.Cells[1], row.Cells[2] = "bad", "never", "—"
		default:
			row.Cells[2] = c.local(last)
			if last.Before(due.Add(-clockSkew)) {
				row.Tone, row.Cells[1] = "fair", "due since "+c.local(due)
			}
		}
		l.Rows = append(l.Rows, row)
	}
	return l
}
