package policy

import (
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// Repeats reports whether a successful run adds nothing to the newest recorded run of its processor.
// Without it every cycle of the period is decided as with it, and every message has the same data.
// A run that names entities, or does not say which have changed, never repeats another.
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
