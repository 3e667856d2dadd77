package cycle

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/telemetry"
)

// A hand-over needs a check that passed, or no check at all. After any other outcome, or
// none, nothing is sent, the status shows the reason, and the check is repeated.
func TestF16_OnlyAPassPassesAndTheRestIsSeen(t *testing.T) {
	for name, tc := range map[string]struct {
		says   Readiness
		state  string
		reason string
		fresh  bool
	}{
		"pass":        {Readiness{Outcome: Passed}, "published", "5 of 5 complete", true},
		"not_checked": {Readiness{Outcome: NotChecked}, "published", "5 of 5 complete", false},
		"fail":        {Readiness{Outcome: Failed, Reasons: []string{"no rows in player_game_summary"}}, "blocked", "readiness fail: no rows in player_game_summary", true},
		"unknown":     {Readiness{Outcome: Unknown, Reasons: []string{"query failed: no such column"}}, "blocked", "readiness unknown: query failed: no such column", true},
		"nothing":     {Readiness{}, "blocked", "readiness ", true},
		"another":     {Readiness{Outcome: "ok"}, "blocked", "readiness ok", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			says := tc.says
			w.engine.Check = func(context.Context, Key, string, []string) Readiness { return says }
			w.ready()
			w.converge("2026-02-03")
			st := w.statuses()["overnight"]
			if st.State != tc.state || st.Reason != tc.reason {
				t.Errorf("%s: %q", st.State, st.Reason)
			}
			if tc.state == "blocked" {
				d := w.doc("phase_triggers", overnightOne).Data
				if len(w.broker.got) != 0 || d["attempts"] != int64(1) || len(w.events(telemetry.CycleBlocked)) != 1 || !st.NextCheck.After(w.clock.now()) {
					t.Errorf("%d messages, %v attempts, %d lines, next check %s", len(w.broker.got), d["attempts"], len(w.events(telemetry.CycleBlocked)), st.NextCheck)
				}
				if p := w.projection(); p["_triggered"] != false || p["_trigger_pending"] != true {
					t.Errorf("projection %v", p)
				}
				says = Readiness{Outcome: Passed}
				w.pass(10 * time.Minute)
				w.converge("2026-02-03")
			}
			if len(w.broker.got) != 5 {
				t.Fatalf("%d messages", len(w.broker.got))
			}
			for _, tr := range w.broker.got {
				if tr.FreshnessChecked != tc.fresh {
					t.Errorf("%s says that the data was checked: %t", tr.SourceTable, tr.FreshnessChecked)
				}
			}
		})
	}
}

// A check that panics ends its process, and does not count as passed.
func TestF16_ACheckThatCrashesNeverPasses(t *testing.T) {
	w := newWorld(t, "memory")
	healthy := w.engine.Check
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { panic("nil map") }
	w.ready()
	for range 5 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the check did not crash")
				}
			}()
			_, _ = w.engine.Converge(context.Background(), w.key("2026-02-03"), "m")
		}()
		if st := w.statuses()["overnight"]; st.State != "checking" || len(w.broker.got) != 0 {
			t.Fatalf("%s with %d messages", st.State, len(w.broker.got))
		}
		w.pass(2 * time.Minute)
	}
	w.engine.Check = healthy
	w.converge("2026-02-03")
	if len(w.broker.got) != 5 {
		t.Errorf("%d messages", len(w.broker.got))
	}
}

// Each check is counted once, however many processes evaluate at the same time. A check
// whose outcome is unknown is repeated until it is known; it never counts as "nothing to
// do".
func TestF45_EachAttemptIsCountedOnceAndUnknownIsNotNothing(t *testing.T) {
	w := newWorld(t, "memory")
	var asked atomic.Int64
	var known atomic.Bool
	check := func(context.Context, Key, string, []string) Readiness {
		asked.Add(1)
		if known.Load() {
			return Readiness{Outcome: Passed}
		}
		return Readiness{Outcome: Unknown, Reasons: []string{"the schedule cannot be read"}}
	}
	w.engine.Check = check
	w.ready()
	w.converge("2026-02-03")
	for attempts := int64(1); attempts <= 40; attempts++ {
		d := w.doc("phase_triggers", overnightOne).Data
		if d["attempts"] != attempts || asked.Load() != attempts || d["state"] != "blocked" || len(w.broker.got) != 0 {
			t.Fatalf("after %d checks: %v attempts, %v, %d messages", asked.Load(), d["attempts"], d["state"], len(w.broker.got))
		}
		w.clock.set(d["next_attempt"].(time.Time))
		known.Store(attempts == 40)
		var wg sync.WaitGroup
		for range 8 {
			e := w.newEngine()
			e.Check = check
			wg.Go(func() {
				if _, err := e.Converge(context.Background(), w.key("2026-02-03"), ""); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if got := sorted(w.broker.tables()); !slices.Equal(got, five) {
		t.Errorf("handed over %v", got)
	}
}
