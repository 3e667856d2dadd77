package reconcile

import (
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/policy"
)

// handedOver reports whether the next phase has run for a period after a time. Then it needs no
// further trigger. A hand-over of ours in between explains such a run: then it proves nothing about
// the rest. known is false where the next phase's tables could not be read.
func (c *comparison) handedOver(b *cycle.PeriodState, since time.Time) (yes, known bool) {
	next, _, known := c.newestNext(b.Period)
	if !next.After(since) {
		return false, known
	}
	for _, st := range b.Cycles {
		for _, batch := range st.Batches {
			// Its messages may have been sent long before their ids were written down.
			if batch.PublishedAt.After(since) && batch.FrozenAt.Before(next.Add(policy.ReportsWithin)) {
				return false, true
			}
		}
	}
	return true, true
}

// handOvers finds what was not handed over.
func (c *comparison) handOvers(b *cycle.PeriodState, all sum, counting map[string]map[string]policy.Run) {
	for _, st := range b.Cycles {
		if st.Closed != nil && st.State != string(cycle.StatePublishing) {
			continue // a person has decided that nothing is to be handed over
		}
		since := all.newest // of what is to be handed over
		for _, r := range counting[st.Mode] {
			if r.EventTime.After(since) {
				since = r.EventTime
			}
		}
		due, promised, blocked := since, false, false
		if st.Since.After(due) {
			due = st.Since
		}
		for _, batch := range st.Batches {
			blocked = blocked || batch.State == cycle.StateBlocked
			if batch.State == cycle.StatePublishing {
				due, promised = batch.DueAt, true
			}
		}
		m, _ := c.transition.Mode(st.Mode)
		yes, _ := c.handedOver(b, since)
		f := &Finding{Type: Untriggered, Period: b.Period, Mode: st.Mode, Severity: Info, Status: Skipped,
			Evidence: map[string]any{"reason": st.Reason, "state": st.State, "satisfied": policy.Capped(st.Satisfied)}, Repair: "none: the next phase has run since"}
		trigger := fmt.Sprintf("phasectl trigger %s %s%s --reason '…'", b.Period, st.Mode, c.transition.Option())
		switch {
		case st.TooLate && yes:
			c.add(f)
		case st.TooLate:
			f.Repair = "too old for an automatic hand-over: " + trigger
			c.add(f)
		case blocked && st.Hold == nil && !st.Live && b.At.After(c.deadline(b, m)) && b.At.Sub(due) >= relayed:
			f.Severity, f.Status, f.Repair = Critical, Open, fmt.Sprintf("its data is not ready: phasectl checks run %s %s%s", b.Period, st.Mode, c.transition.Option())
			if b.Old() {
				f.Repair += "; when it is, " + trigger
			}
			c.add(f)
		case !st.Due && !(b.Old() && st.State == string(policy.Waiting) && st.NextCheck.Equal(b.At)), // its grace has never begun, and a repair begins none
			b.At.Sub(due) < relayed:
		case promised:
			f.Type, f.Severity, f.Status, f.Repair = Unpublished, Critical, Open, "publish the messages without an id"
			c.mend(f)
		case yes:
			c.add(f)
		case b.Old():
			f.Severity, f.Status, f.Repair = Warning, Open, "too old for an automatic hand-over: "+trigger
			c.add(f)
		default:
			f.Severity, f.Status, f.Repair = Critical, Open, "hand the cycle over, as the policy allows"
			c.mend(f)
		}
	}
}

// nextPhase finds what was handed over and has had no effect.
func (c *comparison) nextPhase(b *cycle.PeriodState) {
	var published time.Time
	mode := ""
	for _, st := range b.Cycles { // in the order in which a period lives through them
		for _, batch := range st.Batches {
			if batch.PublishedAt.After(published) {
				published, mode = batch.PublishedAt, st.Mode
			}
		}
	}
	next, empty, known := c.newestNext(b.Period)
	if published.IsZero() || b.At.Sub(published) <= nextPhaseWithin {
		return
	}
	f := &Finding{Type: NextPhaseMissing, Period: b.Period, Mode: mode, Severity: Critical,
		Evidence: map[string]any{"published_at": published, "newest": next, "empty": policy.Capped(empty)},
		Repair:   fmt.Sprintf("check the next phase; then phasectl trigger %s %s%s --reason '…'", b.Period, mode, c.transition.Option())}
	modes := c.transition.Modes
	switch {
	case known && next.Before(published.Add(-policy.ReportsWithin)):
		c.add(f)
	case len(empty) > 0 && mode == modes[len(modes)-1].Name: // before that not all of it has been set off
		f.Severity = Warning
		c.add(f)
	}
}
