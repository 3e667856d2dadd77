package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestReconcile_CorrectStateHasNoFindings(t *testing.T) {
	s := newScene(t)
	s.good("2026-02-02")
	s.good(night)
	s.expected["2026-02-01"], s.expected["2026-02-04"] = 0, 7
	r := s.run("2026-02-01", "2026-02-05", "")
	if len(r.Findings)+len(r.Unknown) != 0 || r.pct() != 100 || r.Tables != 10 {
		t.Errorf("%s, unknown %q, accuracy %v of %d", types(r), r.Unknown, r.pct(), r.Tables)
	}
}

func TestReconcile_RepairHandOverIsMarked(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.run(night, night, "ada@host")
	want := []string{}
	for _, name := range slices.Sorted(maps.Keys(rowsOf)) {
		want = append(want, fmt.Sprintf("%s %s reconciliation", night, name))
	}
	got := slices.DeleteFunc(s.received(), func(r string) bool { return !strings.HasPrefix(r, string(night)) })
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	doc := s.Doc(t, "phase3_completion", string(night))
	if fix, _ := doc.Data["_reconciliation_fix"].(string); fix != morning.Format(time.RFC3339) || doc.Data["_triggered"] != true || doc.Data["_completed_count"] != int64(5) {
		t.Errorf("%v", doc.Data)
	}
	n := 0
	for doc, err := range s.Store.Scan(t.Context(), "audit", "!", "~") {
		detail, _ := doc.Data["detail"].(string)
		reason, _ := doc.Data["reason"].(string)
		if n++; err != nil || doc.Data["action"] != "repair" || doc.Data["actor"] != "ada@host" || !strings.Contains(reason, "missing_completion of nba_analytics.player_game_summary") ||
			!strings.Contains(detail, "overnight overdue (deadline 2026-02-04 10:00 EST passed: 0 of 5 complete") || !strings.Contains(detail, "recorded: player_game_summary, 348 rows of 2026-02-04T11:03:00Z; ") {
			t.Errorf("%v, %v", doc.Data, err)
		}
	}
	if n != 1 {
		t.Errorf("%d audit records", n)
	}
}

func TestReconcile_FindsQuarantineDeadLettersAndLeakedLocks(t *testing.T) {
	s := newScene(t)
	s.first()
	if _, err := s.Store.Apply(t.Context(), store.Create(store.Ref{Collection: "quarantine", ID: "m1"}, store.F("TODAY", "reason")),
		store.Create(store.Ref{Collection: "quarantine", ID: "m2"}, store.F(store.ServerTime, "replayed_at"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-02"}, "run-1"); err != nil {
		t.Fatal(err)
	}
	s.SetNow(s.Now().Add(31 * time.Minute))
	s.expected[night] = 0
	s.rec.GivenUp = func(context.Context) (int, error) { return 3, nil }
	r := s.run(night, night, "")
	if got := types(r); got != "dead_letter_waiting, leaked_lock, quarantine_waiting" || r.Left() != 3 || len(r.Unknown) != 0 {
		t.Errorf("%s, %q", got, r.Unknown)
	}
	for _, f := range r.Findings {
		if f.Type == QuarantineWaiting && f.Evidence["messages"] != 1 || f.Type == LeakedLock && f.Period != "2026-02-02" {
			t.Errorf("%+v", f)
		}
	}
	// Of several transitions only the first reports it.
	other := *s.tr
	other.ID = "another"
	one := *s.Pipeline
	one.Transitions = []*pipeline.Transition{&other, s.tr}
	s.rec.Pipeline = &one
	if r := s.run(night, night, ""); len(r.Findings)+len(r.Unknown) != 0 {
		t.Errorf("reported twice: %s, %q", types(r), r.Unknown)
	}
	s.rec.Pipeline = s.Pipeline
	s.rec.GivenUp = func(context.Context) (int, error) { return 0, errors.New("may not pull") }
	if r := s.run(night, night, ""); len(r.Unknown) != 1 || !strings.Contains(r.Unknown[0], "may not pull") {
		t.Errorf("%q", r.Unknown)
	}
}

// F21: the repair set the flag and sent nothing.
func TestF21_ARepairThatCannotPublishHasNotRepaired(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.reports(night, "player_game_summary")
	before := len(s.PubSub.Messages())
	back := s.brokerAway()
	r := s.run(night, night, "ada@host")
	if r.Findings[0].Type != MissingCompletion || r.Findings[0].Status != Failed || r.Left() == 0 {
		t.Errorf("%s: %+v", types(r), r.Findings[0])
	}
	if doc := s.Doc(t, "phase3_completion", string(night)); doc.Data["_triggered"] == true {
		t.Errorf("%v", doc.Data)
	}
	back()
	s.SetNow(s.Now().Add(time.Hour))
	r = s.run(night, night, "ada@host")
	if len(s.PubSub.Messages())-before != 5 || r.Left() != 0 {
		t.Errorf("%d messages, %s", len(s.PubSub.Messages())-before, types(r))
	}
}

// Repairs before an interrupt are reported as repaired, and the next run repairs the rest.
func TestReconcile_InterruptedRepairsAreReportedAndFinishedByTheNextRun(t *testing.T) {
	s := newScene(t)
	s.first()
	nights := []pipeline.Period{"2026-02-01", "2026-02-02", night}
	for _, p := range nights {
		s.data(p)
		s.reports(p, "player_game_summary")
	}
	before := len(s.PubSub.Messages())
	ctx, interrupt := context.WithCancel(t.Context())
	working := s.Engine.Publish
	s.Engine.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
		out := working(ctx, topic, msgs)
		if len(s.PubSub.Messages())-before == 10 { // the second night is handed over
			interrupt()
		}
		return out
	}
	r, err := s.rec.Run(ctx, s.tr, nights[0], night, "ada@host")
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "repairing from 2026-02-03 on") {
		t.Errorf("%v", err)
	}
	got := map[pipeline.Period]Status{}
	for _, f := range r.Findings {
		got[f.Period] = f.Status // of the second night the interrupt has cut off the end
	}
	if got["2026-02-01"] != Repaired || got["2026-02-02"] == Repaired || got[night] != Open {
		t.Errorf("%v", got)
	}
	s.SetNow(s.Now().Add(time.Hour))
	if r := s.run(nights[0], night, "ada@host"); r.Left() != 0 {
		t.Errorf("%s: %+v", types(r), r.Findings)
	}
	if n := len(s.PubSub.Messages()) - before; n != 15 {
		t.Errorf("%d messages, want 15: %q", n, s.received())
	}
}

// F23: a backfilled date is complete and not triggered, by its policy.
func TestF23_WhatIsTooOldIsPutOnRecordAndNotHandedOver(t *testing.T) {
	s := newScene(t)
	s.good("2026-01-10")
	const old = pipeline.Period("2026-01-25")
	s.data(old)
	before := len(s.PubSub.Messages())
	r := s.run(old, old, "ada@host")
	if r.Left() != 0 || len(s.PubSub.Messages()) != before {
		t.Errorf("%s, %d messages", types(r), len(s.PubSub.Messages())-before)
	}
	again := s.run(old, old, "ada@host")
	if types(again) != "untriggered" || again.Findings[0].Status != Skipped || again.Left() != 0 || again.pct() != 100 {
		t.Errorf("%s, %+v", types(again), again.Findings)
	}
}

// On the day of adoption, what others have handed over is not sent again.
func TestReconcile_HandOverCoveredByNextPhaseIsNotRepeated(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.phase4(night, wrote(night).Add(20*time.Minute))
	before := len(s.PubSub.Messages())
	r := s.run(night, night, "ada@host")
	for _, f := range r.Findings {
		if f.Type != MissingCompletion || f.Status != Skipped {
			t.Errorf("%+v", f)
		}
	}
	if len(r.Findings) != 5 || r.Left() != 0 || len(s.PubSub.Messages()) != before {
		t.Errorf("%s, %d messages", types(r), len(s.PubSub.Messages())-before)
	}
	empty := newScene(t)
	empty.data(night)
	if r := empty.run("2026-02-01", night, "ada@host"); len(r.Findings) != 0 || len(empty.PubSub.Messages()) != 0 {
		t.Errorf("nothing is recorded, but found: %s", types(r))
	}
}

func TestReconcile_UnsettledOrAmbiguousRowsAreUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(s *scene)
		says string
	}{
		"fresh rows": {func(s *scene) {
			at := s.Now().Add(-29 * time.Minute)
			s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 10, Oldest: at, Newest: at})
		}, "in flight, its newest row"},
		"a run at work": {func(s *scene) {
			if _, err := s.Locks.Acquire(context.Background(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: night}, "run-1"); err != nil {
				s.t.Fatal(err)
			}
		}, "has the lock"},
		"rows of no mode": {func(s *scene) {
			at := time.Date(2026, 2, 3, 15, 0, 0, 0, time.UTC) // on the day itself
			s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 10, Oldest: at, Newest: at})
		}, "belong to no mode"},
		"rows of two modes": {func(s *scene) {
			s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 10, Oldest: time.Date(2026, 2, 3, 15, 0, 0, 0, time.UTC), Newest: wrote(night)})
		}, "belong to no mode"},
		"rows without a time": {func(s *scene) { s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 10}) }, "no row has the time"},
		"a table is away": {func(s *scene) {
			s.tables[table("player_game_summary")] = warehouse.Contents{Problem: "table not found"}
		}, "table not found"},
		"the schedule is away": {func(s *scene) { s.away, s.expected = errors.New("schedule away"), nil }, "schedule away"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.first()
			s.data(night)
			s.reports(night, "player_game_summary")
			if name == "the schedule is away" {
				s.report(night, "player_game_summary", 348)
				if _, err := s.Engine.Converge(context.Background(), cycle.Key{Transition: s.tr, Period: night}, ""); err != nil {
					t.Fatal(err)
				}
			}
			before := len(s.PubSub.Messages())
			c.do(s)
			r := s.run(night, night, "ada@host")
			if len(r.Findings) != 0 || len(r.Unknown) != 1 || !strings.Contains(r.Unknown[0], c.says) || len(s.PubSub.Messages()) != before {
				t.Errorf("%s, unknown %q, %d messages", types(r), r.Unknown, len(s.PubSub.Messages())-before)
			}
		})
	}
}

// F22: dates without a document were skipped, and keys that are no processors counted.
func TestF22_ADateWithoutADocumentIsAFinding(t *testing.T) {
	s := newScene(t)
	s.first()
	s.expected["2026-02-01"], s.expected["2026-02-02"] = 4, 0
	s.data(night)
	s.edit(night, store.F(map[string]any{"completed_at": morning}, "defense_zone_analytics"), store.F(map[string]any{"completed_at": morning}, "player_game_summary"), store.F(2, "_completed_count"))
	s.phase4(night, wrote(night).Add(-time.Hour))
	r := s.run("2026-02-01", night, "")
	if got := of(r, "2026-02-01"); got != "missing_period" || of(r, "2026-02-02") != "" {
		t.Errorf("%s", types(r))
	}
	if got := of(r, night); !strings.HasPrefix(got, "count_drift, missing_completion") || r.Left() != 7 || r.Shown != 1 || r.Tables != 5 {
		t.Errorf("%s, %d left, %d of %d shown", got, r.Left(), r.Shown, r.Tables)
	}
}

// F43: a clean-up job reported thousands of runs as failed that had succeeded.
func TestF43_FalseFailuresAfterASuccessChangeNothing(t *testing.T) {
	s := newScene(t)
	s.good(night)
	before := s.Doc(t, "phase3_completion", string(night))
	for i := range 500 {
		c := wire.Completion{Processor: "player_game_summary", Reported: "player_game_summary", Period: night, Status: wire.StatusFailed, EventTime: s.Now().Add(time.Duration(i) * time.Millisecond),
			ExecutionID: "run-player_game_summary", CorrelationID: "clean-up", ErrorMessage: "timed out"}
		if err := s.Engine.Record(t.Context(), cycle.Key{Transition: s.tr, Period: night}, c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Engine.Converge(t.Context(), cycle.Key{Transition: s.tr, Period: night}, ""); err != nil {
		t.Fatal(err)
	}
	r := s.run(night, night, "ada@host")
	if len(r.Findings)+len(r.Unknown) != 0 || r.pct() != 100 || len(s.PubSub.Messages()) != 5 {
		t.Errorf("%s, %q, %v, %d messages", types(r), r.Unknown, r.pct(), len(s.PubSub.Messages()))
	}
	if after := s.Doc(t, "phase3_completion", string(night)); after.Version != before.Version {
		t.Errorf("%v", after.Data)
	}
}
