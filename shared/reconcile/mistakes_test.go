package reconcile

// Mistakes that a look or a repair could make on a usual day, each once made.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestReconcile_HandOverWithoutReadyDataIsNotRepaired(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	for name, n := range rowsOf {
		s.report(night, name, n)
	}
	s.Engine.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		return cycle.Readiness{Outcome: cycle.Failed, Reasons: []string{"game_coverage_pct is 20"}}
	}
	before := len(s.PubSub.Messages())
	r := s.run(night, night, "ada@host")
	for _, f := range r.Findings {
		if f.Type == Untriggered && f.Status == Repaired {
			t.Errorf("untriggered is said to be repaired, %d messages were sent, %d left", len(s.PubSub.Messages())-before, r.Left())
		}
	}
	s.SetNow(s.Now().Add(24 * time.Hour))
	again := s.run(night, night, "")
	if types(again) != "untriggered" || again.Left() != 1 {
		t.Errorf("a day later nothing was handed over, and found is: %q, %+v", types(again), again)
	}
}

func TestReconcile_UnreadableNextPhasePreventsHandOver(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.phase4(night, wrote(night).Add(20*time.Minute)) // others have handed over
	s.tables["nba_predictions.ml_feature_store_v2"] = warehouse.Contents{Problem: "too many bytes"}
	before := len(s.PubSub.Messages())
	r := s.run(night, night, "ada@host")
	if n := len(s.PubSub.Messages()) - before; n != 0 {
		t.Errorf("%d messages were sent again; unknown %q", n, r.Unknown)
	}
}

func TestReconcile_RowsOfFailedRunAreNoSuccess(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.reports(night, "player_game_summary")
	s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 200, Oldest: wrote(night), Newest: wrote(night)})
	c := wire.Completion{Processor: "player_game_summary", Reported: "player_game_summary", Period: night, Status: wire.StatusFailed,
		EventTime: wrote(night).Add(10 * time.Second), ExecutionID: "run-1", CorrelationID: "c", ErrorMessage: "died half way"}
	if err := s.Engine.Record(t.Context(), s.key(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err != nil {
		t.Fatal(err)
	}
	before := len(s.PubSub.Messages())
	s.run(night, night, "ada@host")
	if n := len(s.PubSub.Messages()) - before; n != 0 {
		t.Errorf("the run has reported that it failed; %d messages claim that it succeeded", n)
	}
}

func TestReconcile_LostOptionalCompletionIsHandedOver(t *testing.T) {
	s := newScene(t)
	s.SetNow(wrote(night).Add(time.Minute))
	s.first()
	s.data(night)
	s.reports(night, "team_defense_game_summary") // its completion was lost
	s.SetNow(s.Now().Add(31 * time.Minute))
	if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err != nil { // the relay: grace has ended
		t.Fatal(err)
	}
	if n := len(s.PubSub.Messages()); n != 9 { // 5 of the first night, 4 of this one
		t.Fatal(n)
	}
	s.phase4(night, s.Now().Add(5*time.Minute))
	s.slice("nba_precompute.team_defense_zone_analysis", night, warehouse.Slice{}) // nobody told it
	s.SetNow(morning)
	r := s.run(night, night, "ada@host")
	told := slices.ContainsFunc(s.received(), func(m string) bool { return strings.HasPrefix(m, string(night)+" team_defense") })
	if !told {
		t.Errorf("never handed over: %s %s %s, %d left, and %s", r.Findings[0].Type, r.Findings[0].Status, r.Findings[0].Severity, r.Left(), r.AccuracyText())
	}
}

func TestReconcile_FindsMissingOvernightRows(t *testing.T) {
	s := newScene(t)
	s.expected[night] = 10
	at := time.Date(2026, 2, 3, 15, 32, 0, 0, time.UTC) // 10:32 local: same_day
	s.SetNow(at.Add(time.Minute))
	s.first()
	for _, name := range []string{"upcoming_player_game_context", "upcoming_team_game_context"} {
		n := rowsOf[name]
		s.slice(table(name), night, warehouse.Slice{Rows: n, Oldest: at, Newest: at})
		c := wire.Completion{Processor: name, Reported: name, Period: night, Status: wire.StatusSuccess, EventTime: at.Add(time.Second), ExecutionID: "r" + name, CorrelationID: "c", RecordCount: &n}
		if err := s.Engine.Record(t.Context(), s.key(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err != nil {
		t.Fatal(err)
	}
	s.phase4(night, at.Add(10*time.Minute))
	s.SetNow(morning)
	r := s.run(night, night, "")
	if types(r) != "missing_period player_game_summary, missing_period team_defense_game_summary, missing_period team_offense_game_summary" || r.Left() != 3 {
		t.Errorf("10 games, no box score at all, overnight overdue: found %q", types(r))
	}
}

func TestReconcile_IgnoresEvidenceOfEarlierMode(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	evening := wrote(night).Add(-37 * time.Hour) // 17:03 the day before
	for _, name := range []string{"upcoming_player_game_context", "upcoming_team_game_context"} {
		s.slice(table(name), night, warehouse.Slice{Rows: rowsOf[name], Oldest: evening, Newest: evening})
	}
	for name, n := range rowsOf {
		s.report(night, name, n)
	}
	for _, name := range []string{"player_game_summary", "team_defense_game_summary", "team_offense_game_summary"} {
		s.tables[table(name)] = warehouse.Contents{Problem: "away"}
	}
	s.phase4(night, evening.Add(20*time.Minute)) // for mode tomorrow
	r := s.run(night, night, "")
	for _, f := range r.Findings {
		if f.Type == Untriggered && f.Status == Skipped {
			t.Errorf("%s %s %s: %s", f.Type, f.Mode, f.Severity, f.Repair)
		}
	}
}

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
		t.Errorf("_triggered and 5 of 5 by hand, nothing but a failed run on record: nothing found")
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

func TestReconcile_LateReportOfRepairedRunChangesNothing(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.reports(night, "player_game_summary")
	s.run(night, night, "ada@host")
	sent := len(s.PubSub.Messages())
	n := rowsOf["player_game_summary"]
	c := wire.Completion{Processor: "player_game_summary", Reported: "player_game_summary", Period: night, Status: wire.StatusSuccess,
		EventTime: wrote(night).Add(10 * time.Second), ExecutionID: "run-1", CorrelationID: "c", RecordCount: &n, Incremental: true, Entities: []string{"lebronjames"}}
	if err := s.Engine.Record(t.Context(), s.key(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err != nil {
		t.Fatal(err)
	}
	if d := len(s.PubSub.Messages()) - sent; d != 0 {
		t.Errorf("%d messages for rows that were handed over whole: %v", d, s.received())
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
	for name, n := range rowsOf {
		s.slice(table(name), night, warehouse.Slice{Rows: n, Oldest: at, Newest: at})
		c := wire.Completion{Processor: name, Reported: name, Period: night, Status: wire.StatusSuccess, EventTime: at.Add(time.Second), ExecutionID: "r" + name, CorrelationID: "c", RecordCount: &n}
		if err := s.Engine.Record(t.Context(), s.key(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err != nil {
		t.Fatal(err)
	}
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

func TestReconcile_OldPeriodSendsOnlyRecordedBatches(t *testing.T) {
	s := newScene(t)
	s.good("2026-01-20")
	const old = "2026-01-28"
	s.data(old)
	back := s.brokerAway()
	at := time.Date(2026, 1, 27, 22, 3, 0, 0, time.UTC) // tomorrow
	n := int64(300)
	k := cycle.Key{Transition: s.tr, Period: old}
	c := wire.Completion{Processor: "upcoming_player_game_context", Reported: "upcoming_player_game_context", Period: old, Status: wire.StatusSuccess, EventTime: at, ExecutionID: "r", CorrelationID: "c", RecordCount: &n}
	if err := s.Engine.Record(t.Context(), k, c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Engine.Converge(t.Context(), k, ""); err == nil {
		t.Fatal("the broker is away")
	}
	for name, n := range rowsOf {
		s.report(old, name, n)
	}
	back()
	s.SetNow(s.Now().Add(time.Hour))
	before := len(s.PubSub.Messages())
	s.run(old, old, "ada@host")
	t.Log(len(s.PubSub.Messages())-before, s.received())
	if len(s.PubSub.Messages())-before > 1 {
		t.Errorf("%d messages, of which 1 was promised; the rest is older than trigger_within", len(s.PubSub.Messages())-before)
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
	for name, n := range rowsOf {
		s.slice(table(name), night, warehouse.Slice{Rows: n, Oldest: at, Newest: at})
		c := wire.Completion{Processor: name, Reported: name, Period: night, Status: wire.StatusSuccess, EventTime: at.Add(time.Second), ExecutionID: "r" + name, CorrelationID: "c", RecordCount: &n}
		if err := s.Engine.Record(t.Context(), s.key(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err != nil {
		t.Fatal(err)
	}
	s.SetNow(at.Add(8 * time.Minute))
	if r := s.run(night, night, ""); len(r.Findings)+len(r.Unknown) != 0 {
		t.Errorf("%s, %q", types(r), r.Unknown)
	}
	s.SetNow(at.Add(20 * time.Minute))
	if r := s.run(night, night, ""); types(r) != "untriggered" {
		t.Errorf("%s, %q", types(r), r.Unknown)
	}
}

// Where another environment writes the tables, or in shadow, an order would sweep nothing.
func TestSweep_IsOrderedOnlyWhereTheTablesAreWritten(t *testing.T) {
	for _, c := range []struct {
		name    string
		set     func(*app.Config)
		problem string
		orders  int
	}{
		{"writes", func(*app.Config) {}, "", 1},
		{"shadow", func(c *app.Config) { c.Shadow = "shadow_" }, "a shadow requests no sweep", 0},
		{"only reads", func(c *app.Config) { c.ReadOnly = true }, "an environment that only reads the tables requests no sweep", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			c.set(&s.App.Config)
			err := New(s.App).Sweep(t.Context(), table("player_game_summary"), night)
			if problem := fmt.Sprint(err); err != nil && problem != c.problem || err == nil && c.problem != "" {
				t.Errorf("%v, want %q", err, c.problem)
			}
			if got := len(s.PubSub.Messages()); got != c.orders {
				t.Errorf("%d orders, want %d", got, c.orders)
			}
		})
	}
}

// Duplicates are the sweep's: a look asks nobody, a repair asks once a table and period,
// and where nobody listens that is said.
func TestF31_DuplicatesAreHandedToTheSweep(t *testing.T) {
	s := newScene(t)
	s.good(night)
	s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 420, Surplus: 72, Oldest: wrote(night), Newest: wrote(night)})
	s.run(night, night, "")
	if len(s.asked) != 0 {
		t.Errorf("a look asks for %v", s.asked)
	}
	f := s.run(night, night, "ada@host").Findings[0]
	if !slices.Equal(s.asked, []string{"nba_analytics.player_game_summary 2026-02-03"}) || f.Evidence["handed_to_the_sweep"] != true || f.Status != Open {
		t.Errorf("%v, %+v", s.asked, f)
	}
	s.unheard = errors.New("the broker is away")
	if f := s.run(night, night, "ada@host").Findings[0]; f.Evidence["handed_to_the_sweep"] != false || f.Evidence["problem"] != "the broker is away" {
		t.Errorf("%+v", f)
	}
}

// A shadow publishes nothing, no job for the sweep either.
func TestReconcile_ShadowRequestsNoSweep(t *testing.T) {
	s := newScene(t)
	r := New(s.App.Shadowed())
	if err := r.Sweep(t.Context(), table("player_game_summary"), night); err == nil || len(s.PubSub.Messages()) != 0 {
		t.Errorf("%v, %d messages", err, len(s.PubSub.Messages()))
	}
}
