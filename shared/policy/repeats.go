package policy

import (
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// Repeats reports whether a successful run says nothing that the newest run of its
// processor on record does not say: no cycle of the period would be decided otherwise, and
// no message would carry other data, without it. One that names entities, or does not say
// which have changed, never does.
func Repeats(t *pipeline.Transition, p pipeline.Period, newest, r Run) bool {
	limit := lastInTime(Input{Transition: t, Period: p})
	if r.Processor != newest.Processor || r.Status != newest.Status || !Whole(*r.Completion) || !Whole(*newest.Completion) ||
		!equal(r.RecordCount, newest.RecordCount) || r.inTime(limit) != newest.inTime(limit) {
		return false
	}
	modeAt := t.ModesOf(p)
	if r.EventTime.Before(newest.EventTime) || modeAt(r.EventTime) != modeAt(newest.EventTime) {
		return false
	}
	for _, m := range t.Modes {
		if counts := counter(t, m, p); counts(r) != counts(newest) {
			return false
		}
	}
	return true
}

// Whole reports whether a completion could repeat another.
func Whole(c wire.Completion) bool {
	return c.Processor != "" && c.Status.Counts() && !c.Incremental && len(c.Entities) == 0 && !c.Truncated && !c.Found && !c.FoundLate
}
