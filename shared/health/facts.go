package health

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/deployed"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// facts are what is known at a moment. What could not be read is an error in its place.
type facts struct {
	pipeline *pipeline.Pipeline
	now      time.Time       // of this machine's clock
	today    pipeline.Period // a day, also if the periods are hours
	day      pipeline.Period // another, whose upstream runs are checked
	dayAt    time.Time       // as of when

	compared        map[string]reconcile.Report // by transition
	comparedErr     map[string]error
	functions       map[string]status // by function
	statusErr       error
	seen            map[string]time.Time    // when each code that runs was seen first
	scheduled       map[string]time.Time    // when each schedule was seen first
	firstEvaluation bool                    // nothing was kept about schedules before
	before          map[string]recollection // of the last look
	beforeErr       error
	firstRuns       []warehouse.FirstRun
	firstErr        error
	runs            []warehouse.ProcessorRun
	runsErr         error
	lockedAt        time.Time // when a lock was taken last, as far back as is looked; zero: not at all
	lockedErr       error
	dead            map[string]int64 // messages by dead-letter subscription
	deadNames       []string         // of all of them
	deadErr         error
	receipts        receipt.Open
	receiptsErr     error
	services        map[string]deployed.Service
	ownServices     []string // names of those behind the functions
	servicesErr     error
}

// status is function_status/{function}.
type status struct {
	heartbeats map[string]time.Time // by job
	source     string
	definition string // hash of the pipeline file
	hasChannel bool
	channel    string               // in words; "" where it has not said
	schedules  map[string]time.Time // of health: when each was first seen
}

// read reads every source, side by side.
func (c *Checker) read(ctx context.Context) *facts {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
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
	patient, end := context.WithTimeoutCause(ctx, c.Patience, fmt.Errorf("no answer within %s", c.Patience))
	defer end()
	rec := c.patient(patient)
	for _, t := range c.Pipeline.Transitions {
		wg.Go(func() {
			from, to := t.Window(now, days)
			r, err := rec.Run(ctx, t, from, to, "")
			mu.Lock()
			defer mu.Unlock()
			f.compared[t.ID], f.comparedErr[t.ID] = r, err
		})
	}
	wg.Go(func() { f.dead, f.deadErr = c.Dead(patient) })
	wg.Go(func() { f.services, f.servicesErr = c.Services(patient) })
	wg.Go(func() { f.functions, f.statusErr = c.functions(ctx) })
	wg.Go(func() { f.receipts, f.receiptsErr = c.OpenReceipts(ctx) })
	var known firsts
	wg.Go(func() { f.before, known, f.beforeErr = c.remembered(ctx) })
	h := c.Pipeline.Health
	cal := c.Pipeline.Calendar.Daily()
	if h.Upstream != nil {
		wg.Go(func() { f.firstRuns, f.firstErr = c.FirstRuns(patient, cal.Add(f.day, -usualDays), f.day) })
	}
	if h.Runs != "" {
		wg.Go(func() {
			f.runs, f.runsErr = c.Runs(patient, cal.Add(f.today, -days), f.today)
			f.lockedAt, f.lockedErr = c.locked(ctx, f.lockedRuns())
		})
	}
	wg.Wait()
	f.seen = seen(f.functions, known.codes)
	f.firstEvaluation = known.schedules == nil
	f.scheduled = scheduled(f.pipeline, f.functions, known.schedules, f.now)
	f.statusErr = errors.Join(f.statusErr, f.beforeErr)
	return f
}

// planned returns the periods without notifications.
func (f *facts) planned() (out []string) {
	for _, m := range f.pipeline.Health.Maintenance {
		if first, last := f.window(); f.pipeline.Calendar.Day(m.To) >= first && f.pipeline.Calendar.Day(m.From) <= last {
			out = append(out, m.String())
		}
	}
	return out
}

// patient is the reconciler whose queries end with a context: an answer that is missing must not
// keep the documents from being judged.
func (c *Checker) patient(ctx context.Context) *reconcile.Reconciler {
	r := *c.Reconcile
	r.Planned = func(p pipeline.Period) bool {
		_, planned := c.Pipeline.Health.Planned(p)
		return planned
	}
	contents, expected := r.Contents, r.Expected
	r.Contents = func(_ context.Context, processors []pipeline.Processor, from, to pipeline.Period) map[string]warehouse.Contents {
		return contents(ctx, processors, from, to)
	}
	r.Expected = func(_ context.Context, t *pipeline.Transition, from, to pipeline.Period) (map[pipeline.Period]int64, error) {
		return expected(ctx, t, from, to)
	}
	return &r
}

// functions reads what each function has left behind.
func (c *Checker) functions(ctx context.Context) (map[string]status, error) {
	var refs []store.Ref
	for _, name := range c.watched() {
		refs = append(refs, store.Ref{Collection: c.StatePrefix + app.StatusCollection, ID: name})
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
		s.schedules = times(doc.Data["schedules"])
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

// window returns the first and the last checked day: from a week back to
// tomorrow.
func (f *facts) window() (first, last pipeline.Period) {
	cal := f.pipeline.Calendar.Daily()
	return cal.Add(f.today, -days), cal.Add(f.today, 1)
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
