// Package sweep finds duplicate rows, and removes all but the surviving row of each key, so
// that the removal can be undone.
//
// # Steps of a removal
//
// A removal is about one period of one table, under the locks of all its processors:
//
//  1. lock      and revoke the outstanding tokens of earlier holders
//  2. resume    earlier, unfinished removals of this period
//  3. survey    read the duplicate rows, choose the surviving ones, check the limits
//  4. planned   record sweeps/{id} with the fingerprints of the rows before and after
//  5. archive   copy all rows of these keys into a table of this removal, for 30 days
//  6. archived  record that
//  7. remove    replace the rows of these keys by one statement, which changes nothing if the
//     rows differ from the plan
//  8. applied   record that
//
// # States of a removal
//
//	planned ──> archived ──> applied ──> undoing ──> undone
//	   └───────────┴──> abandoned
//
// # Guarantees
//
//   - [dedup.Rule] alone chooses the surviving row, as before a write. The last row of a key
//     is never removed, and no row of another key is changed.
//   - A removal has happened or has not, also if the process died: the next sweep compares
//     the fingerprints and records the result.
//   - An undo restores exactly the same rows, or refuses if the rows have changed since.
//   - A writer without a lock loses no rows: a removal that meets its rows changes nothing.
//   - A sweep removes rows of its own periods only. In others it completes unfinished removals.
package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// Guard rails: what is more than that is no accident of two runs, and wants a person.
const (
	maxSurplusPct = 25     // of the period's rows
	maxSurplus    = 10_000 // rows
)

// Severity says how bad so many rows too many are: "" for none, info up to 5, warning up
// to 20, critical beyond.
func Severity(surplus int64) string {
	switch {
	case surplus == 0:
		return ""
	case surplus <= 5:
		return "info"
	case surplus <= 20:
		return "warning"
	}
	return "critical"
}

// State says what has become of one period of one table.
type State string

// The states.
const (
	Clean   State = "clean"   // no duplicates; for a table as a whole
	Found   State = "found"   // there are, and it was not asked to remove them
	Removed State = "removed" // there were
	Refused State = "refused" // a guard rail: a person has to look
	Busy    State = "busy"    // a processor is at work: later
	Changed State = "changed" // its rows changed meanwhile, and nothing was removed
	Resumed State = "resumed" // not of the order's periods: an unfinished removal has ended, nothing else was done
	Unknown State = "unknown" // it could not be read, or how it ended
)

// Part is one period of one table, or, without a period, a table as a whole.
type Part struct {
	ID         string          `json:"id,omitempty"` // of its removal, by which it is undone
	Table      string          `json:"table"`
	Period     pipeline.Period `json:"period"`
	Rows       int64           `json:"rows"`
	Duplicates int64           `json:"duplicates"` // rows too many
	Keys       int64           `json:"keys"`       // that have several rows
	Identical  *int64          `json:"identical"`  // keys whose rows differ in nothing; null: not compared
	Removed    int64           `json:"removed"`
	State      State           `json:"state"`
	Severity   string          `json:"severity"`
	Oldest     *time.Time      `json:"oldest"` // of the rows of these keys, by order_by, UTC
	Newest     *time.Time      `json:"newest"`
	Bytes      int64           `json:"bytes"` // that were read to find out
	Problem    string          `json:"problem,omitempty"`

	Examples []dedup.Example `json:"-"`
	again    bool            // what failed may not fail the next time
}

// Again reports whether the order has to be carried out again soon because of this part.
func (p *Part) Again() bool { return p.again }

func (p *Part) is(s State, format string, args ...any) {
	p.State, p.Problem = s, fmt.Sprintf(format, args...)
}

// Report is what a sweep found and did.
type Report struct {
	Schema  int     `json:"schema"`
	SweepID string  `json:"sweep_id"`
	Tables  []*Part `json:"tables"`
}

// Left counts the rows too many that are left.
func (r Report) Left() (n int64) {
	for _, p := range r.Tables {
		n += p.Duplicates - p.Removed
	}
	return n
}

// Open counts the parts that an operator has to handle. A later sweep ends the
// unfinished removals of other periods that are busy.
func (r Report) Open() (n int) {
	for _, p := range r.Tables {
		if p.State != Clean && p.State != Removed && p.State != Resumed && (p.State != Busy || p.again) {
			n++
		}
	}
	return n
}

// Unknown counts what could not be read or came to no known end.
func (r Report) Unknown() (n int) {
	for _, p := range r.Tables {
		if p.State == Unknown {
			n++
		}
	}
	return n
}

// Sweeper is safe for concurrent use.
type Sweeper struct {
	Pipeline  *pipeline.Pipeline
	Store     store.Store
	Locks     *lease.Locks
	Warehouse *warehouse.Warehouse
	Now       func() time.Time
	NewID     func() string // unique; letters and digits
	Prefix    string        // of collections
	Archive   string        // dataset for removed rows, in the tables' location
	Shadow    bool          // nothing is removed, and nothing put back
	ReadOnly  bool          // the same: another environment writes these tables
	Log       *slog.Logger
}

// ErrShadow says that nothing is changed in shadow.
var ErrShadow = errors.New("a shadow removes no rows and puts none back")

// ErrReadOnly says that another environment writes the tables.
var ErrReadOnly = errors.New("an environment that only reads the tables (PHASEGATE_TABLES=read) removes no rows and puts none back")

// Refuses returns why nothing is removed and nothing put back here, nil where it is.
func (s *Sweeper) Refuses() error {
	switch {
	case s.Shadow:
		return ErrShadow
	case s.ReadOnly:
		return ErrReadOnly
	}
	return nil
}

// ErrNoTable says that the pipeline has no such table.
var ErrNoTable = errors.New("is neither a table nor a processor of the pipeline")

// errNoWarehouse says that there is nothing to sweep here.
var errNoWarehouse = errors.New("no BigQuery is configured")

// New returns the sweeper of an application.
func New(a *app.App) (*Sweeper, error) {
	if a.Warehouse == nil {
		return nil, errNoWarehouse
	}
	return &Sweeper{Pipeline: a.Pipeline, Store: a.Store, Locks: a.Locks, Warehouse: a.Warehouse, Now: a.Now, NewID: newID,
		Prefix: a.Config.Prefix, Archive: a.Config.Archive(), Shadow: a.Config.Shadow != "", ReadOnly: a.Config.ReadOnly, Log: a.Log}, nil
}

// Order is what a sweep is asked to do.
type Order struct {
	Table    string // dataset.table or a processor's name; "" for all
	From, To pipeline.Period
	// Fix says whether duplicates of a table shall be removed; nil: of none.
	Fix func(pipeline.Processor) bool
	// Force passes the guard rail of how many rows may go, and no other.
	Force  bool
	Actor  string
	Reason string
}

// Run looks for duplicates, table by table, and removes them where it is asked to. What
// goes wrong with one table stops no other, and is part of the report. An error means that
// the order cannot be carried out at all.
func (s *Sweeper) Run(ctx context.Context, o Order) (Report, error) {
	tables, err := s.tables(o.Table)
	if err != nil {
		return Report{}, err
	}
	if err := s.Refuses(); o.Fix != nil && err != nil {
		return Report{}, err
	}
	earlier := map[place][]string{}
	if o.Fix != nil {
		if earlier, err = s.unfinished(ctx); err != nil {
			return Report{}, err
		}
	}
	r := Report{Schema: 1, SweepID: s.newSweep(), Tables: []*Part{}}
	scans := make([]scan, len(tables))
	warehouse.SideBySide(len(tables), func(i int) {
		scans[i].found, scans[i].bytes, scans[i].err = s.Warehouse.Duplicates(ctx, s.Pipeline.Calendar, tables[i], o.From, o.To)
	})
	for i, p := range tables {
		r.Tables = append(r.Tables, s.table(ctx, o, r.SweepID, p, scans[i], earlier)...)
	}
	return r, nil
}

type scan struct {
	found []warehouse.Duplicates
	bytes int64
	err   error
}

// Knows reports whether a name is that of a table, dataset.table, or of a processor.
func (s *Sweeper) Knows(table string) bool {
	_, err := s.tables(table)
	return err == nil
}

// tables are those of an order, one processor for each.
func (s *Sweeper) tables(name string) ([]pipeline.Processor, error) {
	var out []pipeline.Processor
	var names []string
	seen := map[string]bool{}
	for _, p := range s.Pipeline.Processors() {
		names = append(names, p.Table, p.Name)
		if !seen[p.Table] && (name == "" || name == p.Table || name == p.Name) {
			out, seen[p.Table] = append(out, p), true
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%q %w%s", name, ErrNoTable, pipeline.DidYouMean(name, names))
	}
	return out, nil
}

func (s *Sweeper) table(ctx context.Context, o Order, id string, p pipeline.Processor, l scan, earlier map[place][]string) []*Part {
	whole := &Part{Table: p.Table, State: Clean, Bytes: l.bytes}
	if l.err != nil {
		whole.again = warehouse.Passing(l.err)
		whole.is(Unknown, "%v", l.err)
		return []*Part{whole}
	}
	fix := o.Fix != nil && o.Fix(p)
	var out []*Part
	if fix { // what came to no end has left nothing that could be found
		for at, ids := range earlier {
			switch {
			case at.table != p.Table:
			case at.period < o.From || at.period > o.To: // the order is not about it
				part := &Part{Table: p.Table, Period: at.period}
				r := &removal{Sweeper: s, part: part, processor: p, id: fmt.Sprintf("%s~%s_%s", id, p.Name, at.period), earlier: ids}
				r.finish(ctx)
				out = append(out, part)
			case !slices.ContainsFunc(l.found, func(d warehouse.Duplicates) bool { return d.Period == at.period && d.Stray == "" }):
				l.found = append(l.found, warehouse.Duplicates{Period: at.period})
			}
		}
		slices.SortFunc(out, func(a, b *Part) int { return cmp.Compare(a.Period, b.Period) })
		slices.SortStableFunc(l.found, func(a, b warehouse.Duplicates) int { return cmp.Compare(a.Period, b.Period) })
	}
	if len(l.found) == 0 {
		return append(out, whole)
	}
	for _, d := range l.found {
		part := &Part{Table: p.Table, Period: d.Period, Bytes: l.bytes}
		l.bytes = 0 // of the one query, once
		if d.Stray != "" {
			out = append(out, s.stray(ctx, p, part, d))
			continue
		}
		part.takes(d)
		out = append(out, part)
		r := &removal{Sweeper: s, order: o, part: part, processor: p, id: fmt.Sprintf("%s~%s_%s", id, p.Name, d.Period), earlier: earlier[place{p.Table, d.Period}]}
		if fix {
			r.run(ctx)
		} else {
			r.preview(ctx, d)
		}
		s.logPart(ctx, o, part)
	}
	return out
}

// stray names rows that belong to no period. No sweep can tell whether one of them is too many.
func (s *Sweeper) stray(ctx context.Context, p pipeline.Processor, part *Part, d warehouse.Duplicates) *Part {
	part.is(Refused, "%s to no period: %s is %s. Set it to the beginning of the period, or delete the rows", pipeline.Count(d.Rows, "row belongs", "rows belong"), p.DateColumn, d.Stray)
	s.Log.WarnContext(ctx, fmt.Sprintf("%s of %s: %s", part.Table, part.Period, part.Problem), "event", telemetry.Finding, "by", "sweep", "type", "stray_rows",
		"table", part.Table, "period", string(part.Period), "rows", d.Rows)
	return part
}

func (p *Part) takes(d warehouse.Duplicates) {
	p.Rows, p.Duplicates, p.Keys, p.Severity = d.Rows, d.Surplus, d.Keys, Severity(d.Surplus)
	instant := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	p.Oldest, p.Newest = instant(d.Oldest), instant(d.Newest)
}

// logPart logs the outcome of a part.
func (s *Sweeper) logPart(ctx context.Context, o Order, p *Part) {
	if p.State == Clean {
		return
	}
	level := slog.LevelWarn
	if p.Severity == "critical" && p.Removed < p.Duplicates {
		level = slog.LevelError
	}
	s.Log.Log(ctx, level, strings.TrimSpace(fmt.Sprintf("%s in %s of %s: %s %s", pipeline.Count(p.Duplicates, "duplicate", "duplicates"), p.Table, p.Period, p.State, p.Problem)),
		"event", telemetry.DuplicatesFound, "table", p.Table, "period", string(p.Period), "duplicates", p.Duplicates, "left", p.Duplicates-p.Removed,
		"state", string(p.State), "actor", o.Actor)
	if p.Removed > 0 {
		s.logRemoved(ctx, p.ID, p.Table, p.Period, p.Removed, o.Actor)
	}
}

func (s *Sweeper) logRemoved(ctx context.Context, id, table string, period pipeline.Period, removed int64, actor string) {
	s.Log.WarnContext(ctx, fmt.Sprintf("%s removed from %s of %s", pipeline.Count(removed, "duplicate", "duplicates"), table, period),
		"event", telemetry.DuplicatesRemoved, "table", table, "period", string(period), "removed", removed, "sweep", id, "actor", actor)
}

// refusal says why nothing may be removed; "" when it may.
func (o Order) refusal(d warehouse.Duplicates) string {
	switch {
	case d.NoKey > 0:
		return pipeline.Count(d.NoKey, "row has NULL in a key column: find out first to which key it belongs", "rows have NULL in a key column: find out first to which key they belong")
	case o.Force:
		return ""
	case d.Surplus > maxSurplus:
		return fmt.Sprintf("%d rows would be removed, more than %d: check them, then add --force", d.Surplus, maxSurplus)
	case d.Surplus*100 > maxSurplusPct*d.Rows:
		return fmt.Sprintf("%d of %s would be removed, more than %d %%: check them, then add --force", d.Surplus, pipeline.Count(d.Rows, "row", "rows"), maxSurplusPct)
	}
	return ""
}

// writers are the processors that write a table, in the order in which they are locked.
func (s *Sweeper) writers(table string) []pipeline.Processor {
	var out []pipeline.Processor
	for _, p := range s.Pipeline.Processors() {
		if p.Table == table {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b pipeline.Processor) int { return cmp.Compare(a.Class, b.Class) })
	return out
}
