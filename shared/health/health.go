// Package health says whether everything is as it should be: of the data, of the
// hand-overs, of the functions themselves.
//
// # Checks
//
// A check is ok, failing or unknown. Unknown is what could not be read or cannot be judged,
// and it is not ok: a check that passes because it could not look is how monitors stay
// green for weeks. What is quiet for a reason (no games, not yet expected) is ok and says
// why.
//
// # Who is told
//
// The hourly job logs each check, which alerts read; tells people what has changed, and once
// a day how everything is ([Report.Notices], [Report.Digest]); and keeps the report for the
// status page ([ReadPage]), which reads it and the books and asks nobody else.
//
// # Cost
//
// Every source is read once, all of them at the same time, in a constant number of calls
// however many periods there are. Of the store 11: the books (5, or 4 where managed_since is
// given), the locks (2, and 1 for when one was taken last), quarantine, heartbeats and the
// last report (1 each); each further transition has books and locks of its own. The tables
// are 2 queries a transition and its schedule 1; upstream runs and run history are 1 query
// each, dead letters and services 1 call each. Each has its limit, and together they have
// [Limit].
package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/platform"
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
	Evidence []string  `json:"evidence"` // in words, one line at least
	Since    time.Time `json:"since"`    // from when on it has been in this state, as far as known; UTC
	Action   string    `json:"action"`   // the command that helps; "" when nothing is to be done
}

// Report is the answer to all of them.
type Report struct {
	Schema  int       `json:"schema"`
	At      time.Time `json:"at"` // UTC
	Overall State     `json:"overall"`
	Checks  []Check   `json:"checks"`

	seen   map[string]time.Time
	forgot bool // what was before could not be read
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

// Limit is how long all checks may take together.
const Limit = 10 * time.Second

// Days is the window that is looked at, today included.
const Days = 7

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
	Services func(ctx context.Context) (map[string]platform.Service, error)
	Now      func() time.Time
	Prefix   string // of topics and services
	// Patience is what one source gets of [Limit].
	Patience time.Duration
	Day      pipeline.Period // a day, whose upstream runs are looked at, as of its end; "": today
	Books    string          // what the names of collections of the books begin with
	Log      *slog.Logger
}

// New returns the checker of an application.
func New(a *app.App) *Checker {
	c := &Checker{Pipeline: a.Pipeline, Store: a.Store, Locks: a.Locks, Reconcile: reconcile.New(a), Now: a.Now,
		Patience: 8 * time.Second, Prefix: a.Config.Prefix, Books: a.Config.Books(), Log: a.Log}
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
	c.Services = func(ctx context.Context) (map[string]platform.Service, error) { return Services(ctx, a) }
	c.Dead = func(ctx context.Context) (map[string]int64, error) { return DeadLetters(ctx, a) }
	if a.Config.PubSubHost != "" {
		c.Dead = func(context.Context) (map[string]int64, error) { return nil, errNotCounted }
	}
	return c
}

// facts are what is known at a moment. What could not be read is an error in its place.
type facts struct {
	pipeline *pipeline.Pipeline
	now      time.Time       // of this machine's clock
	today    pipeline.Period // a day, whatever the calendar's periods are
	day      pipeline.Period // another, whose upstream runs are looked at
	dayAt    time.Time       // as of when

	compared    map[string]reconcile.Report // by transition
	comparedErr map[string]error
	functions   map[string]status // by function
	statusErr   error
	seen        map[string]time.Time    // when each code that runs was seen first
	before      map[string]recollection // of the last look
	beforeErr   error
	firstRuns   []warehouse.FirstRun
	firstErr    error
	runs        []warehouse.ProcessorRun
	runsErr     error
	lockedAt    time.Time // when a lock was taken last, as far back as is looked; zero: not at all
	lockedErr   error
	dead        map[string]int64 // messages by dead-letter subscription
	deadNames   []string         // of all of them
	deadErr     error
	services    map[string]platform.Service
	ownServices []string // names of those behind the functions
	servicesErr error
}

// status is function_status/{function}.
type status struct {
	heartbeats map[string]time.Time // by job
	source     string
	definition string // hash of the pipeline file
	hasChannel bool
	channel    string // in words; "" where it has not said
}

// Run looks at everything and answers every check. It changes nothing. Times that a check
// has been in its state for are those that [Checker.Remember] has noted.
func (c *Checker) Run(ctx context.Context) Report {
	f := c.read(ctx)
	r := Report{Schema: 1, At: f.now.UTC(), Overall: OK, seen: f.seen, forgot: f.beforeErr != nil}
	for _, check := range checks {
		got := check.judge(f)
		got.ID = check.id
		if slices.Contains(ofPeriods, check.id) {
			got.Evidence = append(got.Evidence, f.planned()...)
		}
		r.Checks = append(r.Checks, got)
		switch {
		case got.State == Failing:
			r.Overall = Failing
		case got.State == Unknown && r.Overall == OK:
			r.Overall = Unknown
		}
	}
	for i, check := range r.Checks {
		r.Checks[i].Since = r.At
		another := check.ID == LateUpstream && f.day != f.today // of which nothing is remembered
		if m, ok := f.before[check.ID]; ok && m.state == check.State && !another {
			r.Checks[i].Since = m.since
		}
	}
	return r
}

// read reads every source, side by side.
func (c *Checker) read(ctx context.Context) *facts {
	ctx, cancel := context.WithTimeoutCause(ctx, Limit, fmt.Errorf("no answer within %s", Limit))
	defer cancel()
	now := c.Now()
	f := &facts{pipeline: c.Pipeline, now: now, today: c.Pipeline.Calendar.Daily().At(now), compared: map[string]reconcile.Report{}, comparedErr: map[string]error{},
		deadNames: deadLetters(c.Pipeline, c.Prefix), ownServices: c.ownServices()}
	f.day, f.dayAt = f.today, now
	if c.Day != "" && c.Day != f.today {
		f.day, f.dayAt = c.Day, c.Pipeline.Calendar.Daily().End(c.Day)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // of the maps by transition
	rec := c.patient()
	for _, t := range c.Pipeline.Transitions {
		wg.Go(func() {
			from, to := t.Window(now, Days)
			r, err := rec.Run(ctx, t, from, to, "")
			mu.Lock()
			defer mu.Unlock()
			f.compared[t.ID], f.comparedErr[t.ID] = r, err
		})
	}
	wg.Go(func() {
		ctx, cancel := c.patience(ctx)
		defer cancel()
		f.dead, f.deadErr = c.Dead(ctx)
	})
	wg.Go(func() {
		ctx, cancel := c.patience(ctx)
		defer cancel()
		f.services, f.servicesErr = c.Services(ctx)
	})
	wg.Go(func() { f.functions, f.statusErr = c.functions(ctx) })
	var codes map[string]time.Time
	wg.Go(func() { f.before, codes, f.beforeErr = c.remembered(ctx) })
	h := c.Pipeline.Health
	cal := c.Pipeline.Calendar.Daily()
	if h.Upstream != nil {
		wg.Go(func() {
			ctx, cancel := c.patience(ctx)
			defer cancel()
			f.firstRuns, f.firstErr = c.FirstRuns(ctx, cal.Add(f.day, -usualDays), f.day)
		})
	}
	if h.Runs != "" {
		wg.Go(func() {
			ctx, cancel := c.patience(ctx)
			defer cancel()
			f.runs, f.runsErr = c.Runs(ctx, cal.Add(f.today, -Days), f.today)
			f.lockedAt, f.lockedErr = c.locked(ctx, f.lockedRuns())
		})
	}
	wg.Wait()
	f.seen = seen(f.functions, codes)
	f.statusErr = errors.Join(f.statusErr, f.beforeErr)
	return f
}

// patience bounds what one source gets.
func (c *Checker) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.Patience, fmt.Errorf("no answer within %s", c.Patience))
}

// planned says of which periods nobody is told.
func (f *facts) planned() (out []string) {
	for _, m := range f.pipeline.Health.Maintenance {
		if first, last := f.window(); f.pipeline.Calendar.Day(m.To) >= first && f.pipeline.Calendar.Day(m.From) <= last {
			out = append(out, m.String())
		}
	}
	return out
}

// patient is the reconciler with limits of time for what it asks the warehouse: an answer
// that does not come must not keep the books from being judged.
func (c *Checker) patient() *reconcile.Reconciler {
	r := *c.Reconcile
	r.Planned = func(p pipeline.Period) bool {
		_, planned := c.Pipeline.Health.Planned(p)
		return planned
	}
	contents, expected := r.Contents, r.Expected
	r.Contents = func(ctx context.Context, processors []pipeline.Processor, from, to pipeline.Period) map[string]warehouse.Contents {
		ctx, cancel := context.WithTimeout(ctx, c.Patience/4) // it is asked twice
		defer cancel()
		return contents(ctx, processors, from, to)
	}
	r.Expected = func(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period) (map[pipeline.Period]int64, error) {
		ctx, cancel := context.WithTimeout(ctx, c.Patience/4)
		defer cancel()
		return expected(ctx, t, from, to)
	}
	return &r
}

// functions reads what each function has left behind.
func (c *Checker) functions(ctx context.Context) (map[string]status, error) {
	var refs []store.Ref
	for _, name := range c.watched() {
		refs = append(refs, store.Ref{Collection: c.Books + app.StatusCollection, ID: name})
	}
	if len(refs) == 0 {
		return nil, nil
	}
	snap, err := c.Store.Get(ctx, refs...)
	if err != nil {
		return nil, fmt.Errorf("read the heartbeats: %w", err)
	}
	out := map[string]status{}
	for _, doc := range snap.Docs {
		s := status{heartbeats: map[string]time.Time{}}
		beats, _ := doc.Data["heartbeats"].(map[string]any)
		for job, at := range beats {
			s.heartbeats[job], _ = at.(time.Time)
		}
		s.source, _ = doc.Data["source_hash"].(string)
		s.definition, _ = doc.Data["definition"].(string)
		s.hasChannel, _ = doc.Data["has_channel"].(bool)
		s.channel, _ = doc.Data["channel"].(string)
		out[doc.Ref.ID] = s
	}
	return out, nil
}

// watched are the functions that leave heartbeats, in the definition's order.
func (c *Checker) watched() (out []string) {
	for _, s := range c.Pipeline.Schedules {
		if !slices.Contains(out, s.Function) {
			out = append(out, s.Function)
		}
	}
	return out
}

// window returns the first and the last day that are looked at: from a week back to
// tomorrow.
func (f *facts) window() (first, last pipeline.Period) {
	cal := f.pipeline.Calendar.Daily()
	return cal.Add(f.today, -Days), cal.Add(f.today, 1)
}

// lockedRuns are those that should have taken a lock, newest first. Backfills of other days
// tell nothing.
func (f *facts) lockedRuns() (runs []warehouse.ProcessorRun) {
	first, last := f.window()
	for _, r := range f.runs {
		day := f.pipeline.Calendar.Day(r.Period)
		if _, _, known := f.pipeline.Processor(r.Processor); known && first <= day && day <= last {
			runs = append(runs, r)
		}
	}
	slices.SortStableFunc(runs, func(a, b warehouse.ProcessorRun) int { return b.Began.Compare(a.Began) })
	return runs
}

// mostLocks bounds how many documents are read for one answer.
const mostLocks = 500

// locked returns when a lock was taken last, of those that the newest runs should have had.
func (c *Checker) locked(ctx context.Context, runs []warehouse.ProcessorRun) (time.Time, error) {
	keys := map[lease.Key]bool{}
	for _, r := range runs {
		if _, p, _ := c.Pipeline.Processor(r.Processor); len(keys) < mostLocks {
			keys[lease.Key{Class: p.Class, Period: r.Period}] = true
		}
	}
	return c.Locks.LastTaken(ctx, slices.Collect(maps.Keys(keys)))
}

// recollection is a check's state, and since when.
type recollection struct {
	state State
	since time.Time
}

func (c *Checker) statusRef() store.Ref {
	return store.Ref{Collection: c.Books + app.StatusCollection, ID: "health"}
}

func (c *Checker) remembered(ctx context.Context) (map[string]recollection, map[string]time.Time, error) {
	snap, err := c.Store.Get(ctx, c.statusRef())
	if err != nil {
		return nil, nil, fmt.Errorf("read the last report: %w", err)
	}
	out := map[string]recollection{}
	states, _ := snap.Docs[0].Data["states"].(map[string]any)
	since, _ := snap.Docs[0].Data["since"].(map[string]any)
	for id, s := range states {
		text, _ := s.(string)
		at, _ := since[id].(time.Time)
		out[id] = recollection{State(text), at}
	}
	codes := map[string]time.Time{}
	known, _ := snap.Docs[0].Data["codes"].(map[string]any)
	for code, at := range known {
		codes[code], _ = at.(time.Time)
	}
	return out, codes, nil
}

// Remember keeps a report, for those who only want to read it, and since when its checks
// have been in their states. The hourly job does.
func (c *Checker) Remember(ctx context.Context, r Report) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keep the report: %w", err)
	}
	fields := []store.Field{store.F(string(text), "report")}
	if !r.forgot { // else since when is better known there
		codes := map[string]any{}
		for code, first := range r.seen {
			codes[code] = first
		}
		fields = append(fields, store.F(codes, "codes"))
		for _, check := range r.Checks {
			fields = append(fields, store.F(string(check.State), "states", check.ID), store.F(check.Since, "since", check.ID))
		}
	}
	if _, err := c.Store.Apply(ctx, store.Merge(c.statusRef(), fields...)); err != nil {
		return fmt.Errorf("keep the report: %w", err)
	}
	return nil
}

// Stale is how old a report may be before it says nothing any more: two of the hourly
// looks were missed.
const Stale = 2*time.Hour + 30*time.Minute

// ReportAge is the check that [Checker.Last] adds to a report that is too old.
const ReportAge = "report_age"

// Last returns the report that was kept last, in one call. One that is too old, or that
// was never made, is unknown, whatever it says.
func (c *Checker) Last(ctx context.Context) (Report, error) {
	snap, err := c.Store.Get(ctx, c.statusRef())
	if err != nil {
		return Report{}, fmt.Errorf("read the report: %w", err)
	}
	r := Report{Schema: 1, Checks: []Check{}}
	age := Check{ID: ReportAge, State: Unknown, Since: c.Now().UTC(), Action: "phasectl health", Evidence: []string{"health was never looked at"}}
	if text, ok := snap.Docs[0].Data["report"].(string); ok {
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			age.Evidence = []string{"the last report cannot be read: " + err.Error()}
			return Report{Schema: 1, Overall: Unknown, Checks: []Check{age}}, nil
		}
		age.Since, age.Evidence = r.At.Add(Stale), []string{"health was not looked at since " + r.At.Format(time.RFC3339)}
	}
	if at := c.Now().Sub(r.At); at > Stale || at < -clockSkew {
		r.Overall, r.Checks = Unknown, append([]Check{age}, r.Checks...)
	}
	return r, nil
}

// Tell logs each check: alerts read these lines.
func (c *Checker) Tell(ctx context.Context, r Report) {
	for _, check := range r.Checks {
		level := slog.LevelInfo
		if check.State != OK {
			level = slog.LevelWarn
		}
		c.Log.Log(ctx, level, fmt.Sprintf("%s is %s: %s", check.ID, check.State, check.Evidence[0]), "event", telemetry.Finding, "by", "health",
			"check", check.ID, "state", string(check.State), "since", check.Since, "evidence", check.Evidence, "action", check.Action)
	}
	c.Log.InfoContext(ctx, "health is "+string(r.Overall), "event", telemetry.Report, "overall", string(r.Overall))
}
