package cycle

import (
	"context"
	"testing"
	"time"
)

// What the simulation found; docs/robustness.md has the seeds.

// A holder whose claim has run out may only be asleep: what it decided before the hold
// must not be written after it.
func TestAHoldReachesAHolderThatSleptBeyondItsClaim(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	checks := 0
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		if checks++; checks == 1 {
			w.pass(2 * time.Minute)
			w.hold("overnight", time.Hour)
		}
		return Readiness{Outcome: Passed}
	}
	w.converge("2026-02-03")
	if st := w.statuses()["overnight"]; st.State != "held" || len(w.broker.got) != 0 {
		t.Errorf("%s (%s), %d messages", st.State, st.Reason, len(w.broker.got))
	}
	w.pass(time.Hour)
	w.relay()
	if len(w.broker.got) != 5 {
		t.Errorf("%d messages after the hold", len(w.broker.got))
	}
}
