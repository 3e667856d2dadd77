package health

import (
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// A hand-over of a later mode does not make up for a cycle that a person keeps on hold: the
// hold is named until it ends.
func TestHandOvers_LaterModeDoesNotHideHold(t *testing.T) {
	f := sound(t)
	f.compare(func(r *reconcile.Report) {
		r.Books = append(r.Books, cycle.Books{Key: cycle.Key{Transition: f.pipeline.Transitions[0], Period: night}, Cycles: []cycle.Status{
			{Period: string(night), Mode: "same_day", State: "on_hold", Reason: "deadline 13:00 passed", Hold: &cycle.Hold{Until: morning.Add(time.Hour), Actor: "ada", Reason: "box scores"}},
			{Period: string(night), Mode: "overnight", State: "published", Batches: []cycle.BatchStatus{{State: cycle.StatePublished}}}}})
	})
	got := judged(f)[HandOvers]
	if all := strings.Join(got.Evidence, "\n"); !strings.HasPrefix(all, "2026-02-03 same_day is on hold until 2026-02-04 13:20: box scores (ada)") || strings.Contains(all, "was handed over since") {
		t.Errorf("%s: %s", got.State, all)
	}
}

// The history has a row when a run begins and another when it ends: one run does not
// overlap itself.
func TestLockingActive_RunDoesNotOverlapItself(t *testing.T) {
	f := sound(t)
	f.runs = []warehouse.ProcessorRun{
		{Processor: "player_game_summary", Period: night, ID: "run-1", Began: at(today, 6, 0), Ended: at(today, 6, 20)},
		{Processor: "player_game_summary", Period: night, ID: "run-1", Began: at(today, 6, 1), Ended: at(today, 6, 20)},
	}
	f.lockedAt = at(today, 6, 0)
	if got := judged(f)[LockingActive]; got.State != OK {
		t.Errorf("%s: %s", got.State, got.Evidence)
	}
	f.runs[1].ID = "run-2"
	if got := judged(f)[LockingActive]; got.State != Failing || !strings.Contains(got.Evidence[0], "run-1") || !strings.Contains(got.Evidence[0], "run-2") {
		t.Errorf("two runs: %s: %s", got.State, got.Evidence)
	}
}

// A report whose time is in the future was written under a wrong clock: nobody knows when
// health was evaluated last.
func TestLast_ReportFromTheFutureIsUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		ahead   time.Duration
		unknown bool
	}{
		"within_the_clocks_skew": {clockSkew, false},
		"beyond_it":              {clockSkew + time.Second, true},
		"by_a_year":              {365 * 24 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, checker := checker(t)
			r := Report{Schema: 1, At: morning.Add(c.ahead), Overall: OK, Checks: []Check{{ID: Locks, State: OK, Evidence: []string{"none"}}}}
			if err := checker.Remember(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			last, err := checker.Last(t.Context())
			if err != nil || (last.Overall == Unknown) != c.unknown || (last.Checks[0].ID == ReportAge) != c.unknown {
				t.Fatalf("%+v, %v", last, err)
			}
			if want := "the last report is of " + r.At.Format(time.RFC3339) + ", which is in the future: compare the clocks"; c.unknown &&
				(last.Checks[0].Evidence[0] != want || !last.Checks[0].Since.Equal(morning)) {
				t.Errorf("%+v", last.Checks[0])
			}
		})
	}
}
