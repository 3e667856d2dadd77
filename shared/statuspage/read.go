package statuspage

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/sweep"
)

// limit is what the reads of a page get.
const limit = 10 * time.Second

// maxDays is the longest window.
const maxDays = 90

// state is what the overview shows, as of one read.
type state struct {
	at          time.Time // this machine's clock, before the read
	days        int
	transitions []*transition

	report        health.Report
	reportErr     error
	locks         []lease.State
	locksAt       time.Time // the server's clock
	locksErr      error
	removals      []sweep.Listed
	removalsErr   error
	quarantine    []delivery.Quarantined // that waits
	quarantineErr error
	receipts      receipt.Open
	receiptsErr   error
	jobs          []health.Job
	jobsErr       error
}

// transition is one with its periods.
type transition struct {
	*pipeline.Transition
	managed cycle.Managed
	cycles  []*shown // oldest period first, in the order of the modes
	err     error    // why nothing is known

	live      pipeline.Period // earlier ones are settled, and were read before
	settledAt time.Time       // when; zero: none
}

// shown is a cycle on the page.
type shown struct {
	cycle.Status
	of      *pipeline.Transition
	mode    pipeline.Mode
	period  pipeline.Period
	kind    kind
	planned string // maintenance
	judged  bool   // it counts for the share on time
	onTime  bool
	error   string       // of a missing processor, by its last report
	failed  []policy.Run // the failed reports of critical processors that it waits for
	made    string       // the later mode that was handed over in its place
	problem string       // why its period cannot be read
}

// read reads everything at the same time.
func (p *Page) readAll(ctx context.Context, a *app.App, days int) *state {
	p.one.Lock()
	defer p.one.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	s := &state{at: a.Now(), days: days, transitions: make([]*transition, len(a.Pipeline.Transitions))}
	checker := health.New(a)
	var wg sync.WaitGroup
	for i, t := range a.Pipeline.Transitions {
		wg.Go(func() { s.transitions[i] = p.readTransition(ctx, a, t, days) })
	}
	wg.Go(func() { s.report, s.reportErr = checker.Last(ctx) })
	wg.Go(func() { s.receipts, s.receiptsErr = checker.OpenReceipts(ctx) })
	wg.Go(func() { s.jobs, s.jobsErr = checker.Jobs(ctx) })
	wg.Go(func() { s.locks, s.locksAt, s.locksErr = a.Locks.List(ctx) })
	wg.Go(func() { s.removals, s.removalsErr = sweep.Removals(ctx, a) })
	wg.Go(func() {
		for q, err := range delivery.ListQuarantine(ctx, a) {
			if err != nil {
				s.quarantineErr = err
				return
			}
			if !q.Settled() {
				s.quarantine = append(s.quarantine, q)
			}
		}
	})
	wg.Wait()
	return s
}

func (p *Page) readTransition(ctx context.Context, a *app.App, t *pipeline.Transition, days int) *transition {
	out := &transition{Transition: t}
	now := a.Now()
	from, to := t.Window(now, days)
	out.managed, out.err = a.Engine.Managed(ctx, t)
	if out.err == nil { // a period at a time: 90 days by the hour are 2,160 of them
		out.cycles, out.live, out.settledAt = p.settled.upTo(t, from, to, out.managed, now)
		out.err = a.Engine.EachPeriodState(ctx, t, out.live, to, func(b cycle.PeriodState) {
			cycles := cyclesOf(a, t, out.managed, b)
			out.cycles = append(out.cycles, cycles...)
			p.settled.add(t, b.Period, out.managed, now, cycles)
		})
	}
	if out.err != nil {
		out.cycles = nil
	}
	return out
}

// cyclesOf returns the cycles of a period that are shown.
func cyclesOf(a *app.App, t *pipeline.Transition, managed cycle.Managed, p cycle.PeriodState) (out []*shown) {
	ours, planned := managed.Judges(p.Period), ""
	if m, ok := a.Pipeline.Health.Planned(p.Period); ok {
		planned = m.Reason
	}
	if p.Problem != nil {
		for _, m := range t.Modes {
			out = append(out, &shown{of: t, mode: m, period: p.Period, kind: kindUnknown, problem: p.Problem.Error(), planned: planned,
				Status: cycle.Status{Period: string(p.Period), Mode: m.Name, Transition: t.ID, Reason: p.Problem.Error()}})
		}
		return out
	}
	for i, st := range p.Cycles {
		m, known := t.Mode(st.Mode)
		if !known || !ours && !st.Recorded() || managed.Excuses(t, st) {
			continue // of an earlier definition, or no cycle of ours
		}
		st = managed.Judged(st)
		for i := range st.Batches { // the page of the cycle shows these
			st.Batches[i].Runs, st.Batches[i].Messages, st.Batches[i].Readiness = nil, nil, nil
		}
		c := &shown{Status: st, of: t, mode: m, period: p.Period, planned: planned, made: health.HandedOverSince(p.Cycles[i+1:])}
		if ours {
			c.judged, c.onTime = reconcile.Judge(t, p.At, st)
		}
		for _, run := range p.BadReports(m, st.Failed) {
			if text := cycle.ErrorOf(run); text != "" && c.error == "" {
				c.error = text
			}
		}
		if c.made == "" {
			c.failed = p.BadReports(m, st.FailedCritical(m))
		}
		c.kind = kindOf(c)
		out = append(out, c)
	}
	return out
}

// joinFor is how old a read may be that a request joins.
const joinFor = time.Second

// reads lets requests at once share a read.
type reads struct{ group singleflight.Group }

// do returns the answer of one read for a key. It outlives the request that began it: others may
// wait for it.
func (r *reads) do(ctx context.Context, key string, do func(context.Context) any) (any, error) {
	answer := r.group.DoChan(key, func() (any, error) {
		stale := time.AfterFunc(joinFor, func() { r.group.Forget(key) })
		defer stale.Stop()
		return do(context.WithoutCancel(ctx)), nil
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case got := <-answer:
		return got.Val, got.Err
	}
}
