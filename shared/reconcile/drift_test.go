package reconcile

// Looks that must not take what is in progress, or entered by a person, for a fault.

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestReconcile_ReportedFreshRowsAreNotUnknown(t *testing.T) {
	s := newScene(t)
	s.good(night)
	const today = "2026-02-04"
	s.expected[today] = 7
	at := s.Now().Add(-10 * time.Minute)
	for _, name := range []string{"upcoming_player_game_context", "upcoming_team_game_context"} {
		n := rowsOf[name]
		s.slice(table(name), today, warehouse.Slice{Rows: n, Oldest: at, Newest: at})
		c := wire.Completion{Processor: name, Reported: name, Period: today, Status: wire.StatusSuccess, EventTime: at.Add(10 * time.Second), ExecutionID: "r" + name, CorrelationID: "c", RecordCount: &n}
		if err := s.Engine.Record(t.Context(), cycle.Key{Transition: s.tr, Period: today}, c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Engine.Converge(t.Context(), cycle.Key{Transition: s.tr, Period: today}, ""); err != nil {
		t.Fatal(err)
	}
	s.phase4(today, s.Now().Add(time.Minute))
	r := s.run(night, today, "")
	if len(r.Findings)+len(r.Unknown) != 0 {
		t.Errorf("%s; unknown %q", types(r), r.Unknown)
	}
}

func TestReconcile_HandOverInProgressIsNoDrift(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	var r Report
	s.Engine.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		if len(r.Findings) == 0 {
			r = s.run(night, night, "nightly") // while a live hand-over asks BigQuery
		}
		return cycle.Readiness{Outcome: cycle.Passed}
	}
	s.reports(night)
	for _, f := range r.Findings {
		t.Errorf("%s %s %s", f.Type, f.Severity, f.Status)
	}
	if fix := s.Doc(t, "phase3_completion", string(night)).Data["_reconciliation_fix"]; fix != nil {
		t.Errorf("marked as repaired for good: %v", fix)
	}
}

func TestReconcile_RowsBeingReplacedAreNoPhantom(t *testing.T) {
	s := newScene(t)
	s.good(night)
	s.slice(table("player_game_summary"), night, warehouse.Slice{})
	if _, err := s.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: night}, "run-2"); err != nil {
		t.Fatal(err)
	}
	if r := s.run(night, night, ""); types(r) != "" {
		t.Errorf("%s while a run is at work, unknown %q", types(r), r.Unknown)
	}
}

func TestReconcile_FlagNextToFailedRunsIsDrift(t *testing.T) {
	s := newScene(t)
	s.first()
	s.expected[night] = 0
	c := wire.Completion{Processor: "player_game_summary", Reported: "player_game_summary", Period: night, Status: wire.StatusFailed,
		EventTime: wrote(night), ExecutionID: "run-1", CorrelationID: "c"}
	if err := s.Engine.Record(t.Context(), s.key(), c); err != nil {
		t.Fatal(err)
	}
	s.edit(night, store.F(true, "_triggered"), store.F(5, "_completed_count"))
	if r := s.run(night, night, ""); types(r) != "count_drift, flag_drift" {
		t.Errorf("_triggered and 5 of 5 by hand, only a failed run recorded: nothing found")
	}
}

func TestReconcile_ManuallyEnteredProcessorIsDrift(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.reports(night, "team_offense_game_summary")
	s.slice(table("team_offense_game_summary"), night, warehouse.Slice{})
	s.edit(night, store.F(map[string]any{"completed_at": morning, "status": "success"}, "team_offense_game_summary"))
	if r := s.run(night, night, ""); !strings.Contains(types(r), "count_drift") {
		t.Errorf("the document shows a processor that never ran: nothing found")
	}
}

func TestReconcile_ShadowHasNoDocument(t *testing.T) {
	s := newScene(t)
	s.Engine.Shadow = true
	s.good(night)
	if r := s.run(night, night, ""); types(r) != "" || r.Tables != 0 {
		t.Errorf("in shadow nothing is projected: %s, %s", types(r), r.AccuracyText())
	}
}

func TestSummary_HoldBeforeDeadlineIsNotLate(t *testing.T) {
	s := newScene(t)
	s.good(night)
	const tomorrow = "2026-02-05"
	if _, err := s.Engine.Hold(t.Context(), cycle.Key{Transition: s.tr, Period: tomorrow}, "overnight", time.Hour, "ada", "wait"); err != nil {
		t.Fatal(err)
	}
	sum, err := s.rec.Summarise(t.Context(), s.tr, tomorrow, tomorrow)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Cycles != 0 || sum.OnTimePct != nil {
		t.Errorf("a cycle two days ahead of its deadline counts as missed: %+v", sum)
	}
}

func TestReconcile_RunWithoutCountOnDayWithoutGamesIsNoPhantom(t *testing.T) {
	s := newScene(t)
	s.first()
	s.expected[night] = 0
	c := wire.Completion{Processor: "player_game_summary", Reported: "player_game_summary", Period: night, Status: wire.StatusSuccess,
		EventTime: wrote(night), ExecutionID: "run-1", CorrelationID: "c"}
	if err := s.Engine.Record(t.Context(), s.key(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err != nil {
		t.Fatal(err)
	}
	if r := s.run(night, night, ""); r.Left() != 0 {
		t.Errorf("no games, no rows: %s", types(r))
	}
}

func TestReconcile_PendingHandOverIsNoFinding(t *testing.T) {
	s := newScene(t)
	at := time.Date(2026, 2, 4, 4, 30, 0, 0, time.UTC) // 23:30 local
	s.SetNow(at.Add(time.Minute))
	s.first()
	s.expected[night] = 10
	s.allAt(at)
	s.phase4(night, at.Add(10*time.Minute))
	s.SetNow(time.Date(2026, 2, 4, 10, 1, 0, 0, time.UTC)) // 05:01: the relay is every five minutes
	if r := s.run(night, night, ""); types(r) != "" {
		t.Errorf("%s %s %s", types(r), r.Findings[0].Severity, r.Findings[0].Repair)
	}
}

func TestReconcile_FindsEmptyTableOfNextPhase(t *testing.T) {
	s := newScene(t)
	s.good(night)
	s.slice("nba_precompute.player_composite_factors", night, warehouse.Slice{})
	s.slice("nba_predictions.ml_feature_store_v2", night, warehouse.Slice{})
	s.SetNow(s.Now().Add(5 * time.Hour))
	if r := s.run(night, night, ""); types(r) != "next_phase_missing" || r.Left() != 1 {
		t.Errorf("two tables of the next phase are empty: %q", types(r))
	}
}

func TestReconcile_RecentlyBlockedCycleIsNoFinding(t *testing.T) {
	s := newScene(t)
	at := time.Date(2026, 2, 4, 14, 57, 0, 0, time.UTC) // three minutes before the deadline
	s.SetNow(at.Add(time.Minute))
	s.first()
	s.expected[night] = 10
	s.Engine.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		return cycle.Readiness{Outcome: cycle.Failed, Reasons: []string{"game_coverage_pct is 20"}}
	}
	s.allAt(at)
	s.SetNow(at.Add(8 * time.Minute))
	if r := s.run(night, night, ""); len(r.Findings)+len(r.Unknown) != 0 {
		t.Errorf("%s, %q", types(r), r.Unknown)
	}
	s.SetNow(at.Add(20 * time.Minute))
	if r := s.run(night, night, ""); types(r) != "untriggered" {
		t.Errorf("%s, %q", types(r), r.Unknown)
	}
}

// allAt writes and reports all of the night at one time, and converges.
func (s *scene) allAt(at time.Time) {
	s.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(rowsOf)) {
		n := rowsOf[name]
		s.slice(table(name), night, warehouse.Slice{Rows: n, Oldest: at, Newest: at})
		c := wire.Completion{Processor: name, Reported: name, Period: night, Status: wire.StatusSuccess, EventTime: at.Add(time.Second), ExecutionID: "r" + name, CorrelationID: "c", RecordCount: &n}
		if err := s.Engine.Record(s.t.Context(), s.key(), c); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, err := s.Engine.Converge(s.t.Context(), s.key(), ""); err != nil {
		s.t.Fatal(err)
	}
}
