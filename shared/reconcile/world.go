package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// world is everything that is compared.
type world struct {
	transition  *pipeline.Transition
	upstream    []pipeline.Processor // of the phase that hands over, as far as the transition expects them
	downstream  []pipeline.Processor
	periods     []cycle.PeriodState // oldest first
	since       pipeline.Period     // the first period that is ours; "" when nothing was ever recorded
	tables      map[string]warehouse.Contents
	expected    map[pipeline.Period]int64
	locks       []lease.State
	lockTime    time.Time // of the server's clock, of the look at them
	first       bool      // what belongs to no transition is reported with the pipeline's first
	waiting     int       // in quarantine
	givenUp     int       // dead letters
	managed     cycle.Managed
	renamed     []cycle.Renaming
	namesUnread bool          // whether a transition was renamed is not known
	ahead       []cycle.Doubt // reports about periods that are not expected yet
	problems    []string      // sources that could not be read
}

// read reads every source once. Only the documents are indispensable.
func (r *Reconciler) read(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period) (*world, error) {
	w := &world{transition: t, first: t.ID == r.Pipeline.Transitions[0].ID}
	for phase, p := range r.Pipeline.Processors() {
		switch {
		case phase.Name == t.UpstreamPhase && t.Expects(p.Name):
			w.upstream = append(w.upstream, p)
		case phase.Name == t.DownstreamPhase:
			w.downstream = append(w.downstream, p)
		}
	}
	var err, unread, expectedErr error
	var reads, queries sync.WaitGroup
	defer reads.Wait()
	if r.GivenUp != nil && w.first {
		reads.Go(func() { w.givenUp, unread = r.GivenUp(ctx) }) // which takes its seconds to find nothing
	}
	if w.managed, err = r.Engine.Managed(ctx, t); err != nil {
		return nil, err
	}
	w.since = w.managed.Since
	if w.periods, err = r.Engine.PeriodStates(ctx, t, from, to); err != nil {
		return nil, err
	}
	if w.renamed, err = r.Engine.RenamedTransitions(ctx, r.Pipeline, map[string][]cycle.PeriodState{t.ID: w.periods}); err != nil {
		w.problems, w.namesUnread = append(w.problems, fmt.Sprintf("%s: whether it was renamed: %v", t.ID, err)), true
	}
	var broken []error
	if w.ahead, broken, err = r.Engine.Ahead(ctx, t); err != nil {
		broken = []error{fmt.Errorf("%s: reports about later periods: %w", t.ID, err)}
	}
	for _, err := range broken {
		w.problems = append(w.problems, err.Error())
	}
	w.renamed = append(w.renamed, cycle.RenamedOf(t, w.periods)...)
	if r.Planned != nil {
		w.periods = slices.DeleteFunc(w.periods, func(b cycle.PeriodState) bool { return r.Planned(b.Period) })
	}
	// Each query has the whole time that the caller gives: a slow one does not take it from the others.
	// They come after the documents, so that rows of a report that was read are there.
	var downstream map[string]warehouse.Contents
	var panics [3]error
	for i, query := range []func(){
		func() { w.tables = r.Contents(ctx, w.upstream, from, to) },
		func() { downstream = r.Contents(ctx, w.downstream, from, to) },
		func() { w.expected, expectedErr = r.Expected(ctx, t, from, to) },
	} {
		queries.Go(func() {
			defer func() { // it would end the process, and the work for every other transition
				if p := recover(); p != nil {
					panics[i] = fmt.Errorf("a query of %s: panic: %v\n%s", t.ID, p, debug.Stack())
				}
			}()
			query()
		})
	}
	queries.Wait()
	if err := errors.Join(panics[:]...); err != nil {
		return nil, err
	}
	maps.Copy(w.tables, downstream)
	for _, p := range append(w.upstream, w.downstream...) {
		if c := w.tables[p.Table]; c.Problem != "" {
			w.problems = append(w.problems, p.Table+": "+c.Problem)
		}
	}
	if expectedErr != nil {
		w.problems = append(w.problems, expectedErr.Error())
	}
	if w.locks, w.lockTime, err = r.Locks.List(ctx); err != nil {
		return nil, fmt.Errorf("read the locks: %w", err) // of the same store as the documents
	}
	if w.first {
		if w.waiting, err = r.Waiting(ctx); err != nil {
			return nil, fmt.Errorf("read the quarantine: %w", err)
		}
	}
	if reads.Wait(); unread != nil {
		w.problems = append(w.problems, "dead letters: "+unread.Error())
	}
	return w, nil
}

// slice is what a table holds of a period; false: it is not known.
func (w *world) slice(p pipeline.Processor, period pipeline.Period) (warehouse.Slice, bool) {
	c := w.tables[p.Table]
	return c.Slices[period], c.Problem == ""
}

// locked reports whether a run of a processor is at work on a period.
func (w *world) locked(p pipeline.Processor, period pipeline.Period) bool {
	for _, l := range w.locks {
		if l.Key == (lease.Key{Class: p.Class, Period: period}).String() && !l.Expired(w.lockTime) {
			return true
		}
	}
	return false
}

// newestNext is when the next phase has written about a period last, as far as its tables
// can be read, zero when it has not; known: they all can. empty are those without a row.
func (w *world) newestNext(period pipeline.Period) (newest time.Time, empty []string, known bool) {
	known = len(w.downstream) > 0
	for _, p := range w.downstream {
		s, ok := w.slice(p, period)
		known = known && ok
		if ok && s.Rows == 0 {
			empty = append(empty, p.Table)
		}
		if s.Newest.After(newest) {
			newest = s.Newest
		}
	}
	return newest, empty, known
}
