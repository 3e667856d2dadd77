// Package health evaluates checks of the data, of the hand-overs and of the functions.
//
// # States of a check
//
//	ok       no problem was found, or a quiet source has a reason (no games, not due yet)
//	failing  a problem was found
//	unknown  a source could not be read or judged; unknown is not ok, because a monitor that
//	         passes without reading stays green for weeks
//
// # Report
//
// The hourly job logs each check, which alerts read. It sends notifications of changes and a
// daily digest ([Report.Notifications], [Report.Digest]), and keeps the report. The status page
// (shared/statuspage) reads the report and the documents, and no other source.
//
// # Guarantees
//
// The checks read their sources at the same time, in a constant number of calls for any number
// of periods, but one more for every [store.ScanPage] documents of a kind. The store gets 15. The state of the periods takes 4, and the start of management 1,
// with 1 more until a relay has recorded it. Transitions with another name take 2, reports about
// later periods 1, the locks 2 and the newest lock 1. Quarantine, heartbeats and the last report
// take 1 each, and the open receipts of guards 1, or 2 if there are any. Each further transition adds its periods, names and locks. The warehouse gets 2
// queries for the tables of a transition and 1 for its schedule, 1 for upstream runs and 1 for
// the run history. Services take 1 call. Dead letters take 1, and 1 for each subscription without a
// time series.
//
// # Failures
//
// The store gets [limit]. Every other source gets less, so that a source that hangs makes only its
// own checks unknown. A query whose time runs out is cancelled.
package health

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/deployed"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// State of a check, or of all of them.
type State string

// The states.
const (
	OK      State = "ok"
	Failing State = "failing"
	Unknown State = "unknown"
)

// Check is the answer to one question.
type Check struct {
	ID       string    `json:"id"` // one of the constants of this package
	State    State     `json:"state"`
	Evidence []string  `json:"evidence"`         // in words, one line at least
	Since    time.Time `json:"since"`            // from when on it has been in this state, as far as known; UTC
	Action   string    `json:"action"`           // the command that helps; "" when nothing is to be done
	Cycles   []Cycle   `json:"cycles,omitempty"` // that the evidence names first
}

// Cycle is a cycle that a check is about.
type Cycle struct {
	Name string `json:"name"`
	Path string `json:"path"` // of its page, from the status page
}

// Report is the answer to all of them.
type Report struct {
	Schema  int       `json:"schema"`
	At      time.Time `json:"at"` // UTC
	Overall State     `json:"overall"`
	Checks  []Check   `json:"checks"`
	// Tracking and DuplicateRows are the numbers behind two of the checks; nil where they are not known.
	Tracking      *Tracking `json:"tracking,omitempty"`
	DuplicateRows *int64    `json:"duplicate_rows,omitempty"` // rows too many in the tables of the last days

	seen, scheduled map[string]time.Time

	forgot bool // what was before could not be read
}

// Tracking is the completion tracking compared with the tables: see [reconcile.Report.Accuracy].
type Tracking struct {
	Tables int `json:"tables"` // with rows, each counted once a period
	Shown  int `json:"shown"`  // of them, shown as complete
}

// Count returns how many checks are in a state.
func (r Report) Count(s State) (n int) {
	for _, c := range r.Checks {
		if c.State == s {
			n++
		}
	}
	return n
}

// limit is how long all checks may take together, and patience what their sources get of it. A
// query over all tables of a phase takes BigQuery 1 to 4 s. The function ends a job after 60 s.
const (
	limit    = 30 * time.Second
	patience = 25 * time.Second
)

// days is the evaluated window, today included.
const days = 7

// Checker is safe for concurrent use.
type Checker struct {
	Pipeline  *pipeline.Pipeline
	Store     store.Store
	Locks     *lease.Locks
	Reconcile *reconcile.Reconciler
	// FirstRuns and Runs ask the warehouse about the days from one to another; see there.
	FirstRuns func(ctx context.Context, from, to pipeline.Period) ([]warehouse.FirstRun, error)
	Runs      func(ctx context.Context, from, to pipeline.Period) ([]warehouse.ProcessorRun, error)
	// Dead counts the messages of each dead-letter subscription, by its name.
	Dead func(ctx context.Context) (map[string]int64, error)
	// Services are those of the project, by name.
	Services func(ctx context.Context) (map[string]deployed.Service, error)
	Now      func() time.Time
	Prefix   string // of topics and services
	// Patience is what sources other than the store get of [limit].
	Patience    time.Duration
	Day         pipeline.Period // a day, whose upstream runs are checked as of its end; "": today
	StatePrefix string          // of the names of collections of state
	Log         *slog.Logger
}

// New returns the checker of an application.
func New(a *app.App) *Checker {
	c := &Checker{Pipeline: a.Pipeline, Store: a.Store, Locks: a.Locks, Reconcile: reconcile.New(a), Now: a.Now,
		Patience: patience, Prefix: a.Config.Prefix, StatePrefix: a.Config.StatePrefix(), Log: a.Log}
	c.FirstRuns = func(ctx context.Context, from, to pipeline.Period) ([]warehouse.FirstRun, error) {
		if a.Warehouse == nil {
			return nil, ErrNoWarehouse
		}
		return a.Warehouse.FirstRuns(ctx, a.Pipeline, from, to)
	}
	c.Runs = func(ctx context.Context, from, to pipeline.Period) ([]warehouse.ProcessorRun, error) {
		if a.Warehouse == nil {
			return nil, ErrNoWarehouse
		}
		return a.Warehouse.ProcessorRuns(ctx, a.Pipeline, from, to)
	}
	c.Services = func(ctx context.Context) (map[string]deployed.Service, error) { return services(ctx, a) }
	c.Dead = func(ctx context.Context) (map[string]int64, error) { return DeadLetters(ctx, a) }
	if a.Config.PubSubHost != "" {
		c.Dead = func(context.Context) (map[string]int64, error) { return nil, errNotCounted }
	}
	return c
}

// How much evidence a check keeps. A report of all checks stays far below a document's 1 MiB, and a
// log line below its limit.
const (
	mostEvidence      = 100     // items
	mostEvidenceBytes = 8 << 10 // of all items
	mostItemBytes     = 1 << 10
)

// capped keeps the first items, and says how many more there are.
func capped(evidence []string) []string {
	var out []string
	size := 0
	for i, item := range evidence {
		item = pipeline.Clip(item, mostItemBytes)
		if size += len(item); i == mostEvidence || size > mostEvidenceBytes {
			return append(out, "and "+telemetry.Count(len(evidence)-i)+" more")
		}
		out = append(out, item)
	}
	return out
}

// Run looks at everything and answers every check. It changes nothing. Times that a check
// has been in its state for are those that [Checker.Remember] has noted.
func (c *Checker) Run(ctx context.Context) Report {
	f := c.read(ctx)
	r := Report{Schema: 1, At: f.now.UTC(), Overall: OK, seen: f.seen, scheduled: f.scheduled, forgot: f.beforeErr != nil}
	for _, check := range checks {
		got := check.judge(f)
		got.ID = check.id
		got.Evidence = capped(got.Evidence)
		if slices.Contains(ofPeriods, check.id) {
			got.Evidence = append(got.Evidence, capped(f.planned())...)
		}
		r.Checks = append(r.Checks, got)
		switch {
		case got.State == Failing:
			r.Overall = Failing
		case got.State == Unknown && r.Overall == OK:
			r.Overall = Unknown
		}
	}
	r.Tracking, r.DuplicateRows = f.numbers()
	for i, check := range r.Checks {
		r.Checks[i].Since = r.At
		another := check.ID == LateUpstream && f.day != f.today // of which nothing is remembered
		if m, ok := f.before[check.ID]; ok && m.state == check.State && !another {
			r.Checks[i].Since = m.since
		}
	}
	return r
}
