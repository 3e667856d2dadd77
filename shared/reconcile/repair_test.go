package reconcile

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
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
			t.Errorf("untriggered is reported as repaired, %d messages were sent, %d left", len(s.PubSub.Messages())-before, r.Left())
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
	s.slice("nba_precompute.team_defense_zone_analysis", night, warehouse.Slice{}) // it got no trigger
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
