package health

import (
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/reconcile"
)

// StuckAfter is how long a hand-over may be under way before it is reported: the relay
// runs every few minutes.
const StuckAfter = 15 * time.Minute

func handOvers(f *facts) Check {
	v := verdict{whenUnknown: "phasectl status"}
	// A person has decided on a hold and knows: it is said, and nothing alerts.
	onHold := func(what string, h *cycle.Hold, command string) {
		if said := fmt.Sprintf("%s is on hold until %s: %s (%s); to end it: %s", what, f.local(h.Until), h.Reason, h.Actor, command); !slices.Contains(v.notes, said) {
			v.notes = append(v.notes, said)
		}
	}
	f.recorded(&v, func(t *pipeline.Transition, r reconcile.Report) {
		managed := r.Managed
		managed.Since = r.Since
		for _, b := range r.Periods {
			if b.Period < r.Since {
				continue
			}
			if b.Problem != nil {
				v.notKnown("%s: %v", b.Period, b.Problem)
				continue
			}
			for i, st := range b.Cycles {
				if managed.Excuses(t, st) {
					continue
				}
				if st.Hold != nil && st.Hold.Whole {
					onHold(t.ID, st.Hold, "phasectl release --reason '…'"+t.Option())
				}
				if st.State == string(cycle.StateOnHold) {
					if !st.Hold.Whole {
						onHold(t.Called(b.Period, st.Mode), st.Hold, fmt.Sprintf("phasectl release %s %s --reason '…'%s", st.Period, st.Mode, t.Option()))
					}
					continue
				}
				why := unfinished(f, t, b.Period, st)
				switch later := HandedOverSince(b.Cycles[i+1:]); {
				case why == "" && later == "":
					m, _ := t.Mode(st.Mode)
					// Slack has it at once. Before the deadline nothing is late: it is evidence, and the check is ok.
					if failed := st.FailedCritical(m); len(failed) > 0 {
						v.notes = append(v.notes, fmt.Sprintf("%s waits for %s, which failed; to see why: phasectl explain %s %s%s", t.Called(b.Period, st.Mode), policy.Listed(failed), st.Period, st.Mode, t.Option()))
					}
				case why == "":
				case later != "": // a later mode has made up for it
					v.ok("%s: %s; %s was handed over since", t.Called(b.Period, st.Mode), why, later)
				default:
					v.item(fmt.Sprintf("phasectl explain %s %s%s", st.Period, st.Mode, t.Option()), "%s: %s", t.Called(b.Period, st.Mode), why)
					v.cycles = append(v.cycles, Cycle{t.Called(b.Period, st.Mode), t.CyclePath(b.Period, st.Mode)})
				}
			}
		}
	})
	every := "every"
	if len(v.notes) > 0 {
		v.fine, every = append(slices.Clone(v.notes), v.fine...), "every other"
	}
	v.ok(every+" cycle of the last %d days is handed over, or is not due yet", days)
	return v.check()
}

// HandedOverSince returns the first of a period's later modes that has a hand-over, "" when
// none has: it made up for what an earlier one has missed.
func HandedOverSince(later []cycle.Status) string {
	for _, st := range later {
		for _, b := range st.Batches {
			if b.State == cycle.StatePublished {
				return st.Mode
			}
		}
	}
	return ""
}

// degradedFor is how long a hand-over without all processors is reported.
const degradedFor = 24 * time.Hour

// degraded reports whether what a mode is without has missed its time, not long ago.
func degraded(f *facts, t *pipeline.Transition, p pipeline.Period, mode string) bool {
	m, ok := t.Mode(mode)
	if !ok || m.Complete != pipeline.CompleteAll {
		return false
	}
	deadline := m.Due(f.pipeline.Calendar, p)
	return f.now.After(deadline) && f.now.Sub(deadline) < degradedFor
}

// unfinished says what keeps a cycle beyond its time; "" when nothing does.
func unfinished(f *facts, t *pipeline.Transition, p pipeline.Period, st cycle.Status) string {
	for _, b := range st.Batches {
		if b.State != cycle.StatePublished && !b.DueAt.IsZero() && f.now.Sub(b.DueAt) > StuckAfter {
			return fmt.Sprintf("%s since %s: %s", b.State, f.local(b.DueAt), st.Reason)
		}
	}
	switch {
	case st.State == string(policy.Overdue):
		return st.State + ": " + st.Reason
	case st.State == string(cycle.StateBlocked) && !st.Since.IsZero() && f.now.Sub(st.Since) > StuckAfter:
		return fmt.Sprintf("blocked since %s: %s", f.local(st.Since), st.Reason)
	case st.Due && !st.Since.IsZero() && f.now.Sub(st.Since) > StuckAfter:
		return fmt.Sprintf("due since %s, and it was not handed over", f.local(st.Since))
	case st.State == string(cycle.StatePublished) && len(st.Missing) > 0 && degraded(f, t, p, st.Mode):
		return "handed over without " + policy.Listed(st.Missing)
	}
	return ""
}

func (f *facts) local(t time.Time) string {
	return f.pipeline.Calendar.Local(t)
}
