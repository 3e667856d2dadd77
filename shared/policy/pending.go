package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// Pending returns the counting runs that a further hand-over has to take. These are all uncovered
// runs of each processor that was never handed over, or that ran again with a difference that its
// consumers must see. covered holds the keys of the runs in earlier batches of the cycle. late
// tells whether one of the processors was never handed over before.
//
// Runs that came too late after the period's end to trigger anything are not pending. Neither are
// runs of a processor that the mode did not expect when the cycle's first hand-over was frozen.
//
// What a processor has run again is pending once Mode.SecondRunsEvery has passed since it
// was last handed over again; until then it is [Collected].
func Pending(in Input, covered map[string]bool) (runs []Run, late bool) {
	runs, _, late = pending(in, covered)
	return runs, late
}

// Collected returns the runs that are still collected for a further hand-over, and when
// the first of them becomes pending; the zero time when there is none.
func Collected(in Input, covered map[string]bool) (runs []Run, until time.Time) {
	_, runs, _ = pending(in, covered)
	for _, r := range runs {
		if due := in.DueAgain(r.Processor); until.IsZero() || due.Before(until) {
			until = due
		}
	}
	return runs, until
}

// DueAgain returns from when on a processor that was handed over again may be once more.
// Before the cycle has begun there is no further hand-over to keep apart.
func (in Input) DueAgain(processor string) time.Time {
	last := in.Again[processor]
	if in.Began == nil || last.IsZero() {
		return time.Time{}
	}
	return last.Add(in.Mode.SecondRunsEvery)
}

func pending(in Input, covered map[string]bool) (runs, collected []Run, late bool) {
	limit := lastInTime(in)
	type group struct{ covered, open []Run }
	groups := map[string]*group{}
	for _, r := range Counting(in) {
		g := groups[r.Processor]
		if g == nil {
			g = &group{}
			groups[r.Processor] = g
		}
		switch {
		case covered[r.Key]:
			g.covered = append(g.covered, r)
		case r.inTime(limit):
			g.open = append(g.open, r)
		}
	}
	expected := pipeline.SetOf(in.Began)
	for _, name := range in.Transition.Order {
		g := groups[name]
		switch {
		case g == nil || len(g.open) == 0:
		case in.Began != nil && !expected[name]:
		case len(g.covered) == 0:
			runs, late = append(runs, g.open...), true
		case in.Mode.SecondRuns != pipeline.SecondRunsResend || !slices.ContainsFunc(g.open, changed(g.covered)):
		case in.Now.Before(in.DueAgain(name)):
			collected = append(collected, g.open...)
		default:
			runs = append(runs, g.open...)
		}
	}
	return runs, collected, late
}

// ReportsWithin is how long after its last row a run reports, and by how much a row's
// clock may be off.
const ReportsWithin = 5 * time.Minute

// changed tells whether a run brings consumers something that the covered runs did
// not. Whole-table runs repeat often; only another count, or named entities, do.
func changed(covered []Run) func(Run) bool {
	newest := covered[len(covered)-1]
	return func(r Run) bool {
		// The report of a run whose rows were found and handed over, whole, before it came.
		if slices.ContainsFunc(covered, func(c Run) bool {
			return c.Found && !r.EventTime.Before(c.EventTime) && r.EventTime.Sub(c.EventTime) <= ReportsWithin
		}) {
			return false
		}
		if equal(r.RecordCount, newest.RecordCount) && len(r.Entities) == 0 && !r.Truncated {
			return false // most are: the covered runs need not be searched for them
		}
		return !slices.ContainsFunc(covered, func(c Run) bool { return sameReport(c, r) })
	}
}

// sameReport: one execution reported the same thing in two messages.
func sameReport(a, b Run) bool {
	return a.ExecutionID == b.ExecutionID && a.Status == b.Status && equal(a.RecordCount, b.RecordCount) &&
		slices.Equal(a.Entities, b.Entities) && a.Truncated == b.Truncated
}

func equal(a, b *int64) bool { return a == b || a != nil && b != nil && *a == *b }

// Older orders runs by event time; equal times by key, so that the order is total.
func Older(a, b Run) int {
	if c := a.EventTime.Compare(b.EventTime); c != 0 {
		return c
	}
	return strings.Compare(a.Key, b.Key)
}
