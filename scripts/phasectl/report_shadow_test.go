package main

import (
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// other is the previous orchestrator. It counts names, and writes its triggers into the document of
// the date. One document covers three cycles.
type other struct{ *app.App }

func (o other) triggered(t *testing.T, period, mode, reason string, at time.Time) {
	t.Helper()
	fields := []store.Field{store.F(true, "_triggered"), store.F(at, "_triggered_at"), store.F(reason, "_trigger_reason")}
	if mode != "" {
		fields = append(fields, store.F(mode, "_mode"))
	}
	if _, err := o.Store.Apply(t.Context(), store.Merge(store.Ref{Collection: "phase3_completion", ID: period}, fields...)); err != nil {
		t.Fatal(err)
	}
}

// A shadow runs next to another orchestrator and changes none of its documents. The report lists
// where they differ. It exits with 1 if the other has handed over a cycle that the shadow has not.
func TestReportShadow_ComparesWithOtherOrchestrator(t *testing.T) {
	s := running(t)
	old, shadow := other{s.App}, s.App.Shadowed()
	tr := s.App.Pipeline.Transitions[0]
	complete := func(period pipeline.Period, local string, names ...string) {
		t.Helper()
		at, err := time.ParseInLocation("2006-01-02 15:04", local, tr.Calendar().Zone())
		if err != nil {
			t.Fatal(err)
		}
		s.Clock.AdvanceTo(at)
		key := cycle.Key{Transition: tr, Period: period}
		for _, name := range names {
			c := wire.Completion{Processor: name, Reported: name, Period: period, Status: wire.StatusSuccess, EventTime: at, ExecutionID: name, CorrelationID: "x"}
			if err := shadow.Engine.Record(t.Context(), key, c); err != nil {
				t.Fatal(err)
			}
			if _, err := shadow.Engine.Converge(t.Context(), key, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := func(local string) time.Time {
		got, err := time.ParseInLocation("2006-01-02 15:04", local, tr.Calendar().Zone())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	order := tr.Order
	complete("2026-02-03", "2026-02-04 06:10", order...)
	old.triggered(t, "2026-02-03", "overnight", "all_complete", at("2026-02-04 06:15"))
	complete("2026-02-04", "2026-02-04 10:40", "upcoming_player_game_context") // the other's document says overnight
	complete("2026-02-04", "2026-02-05 06:10", order...)
	old.triggered(t, "2026-02-04", "overnight", "all_complete", at("2026-02-05 06:08"))
	complete("2026-02-05", "2026-02-06 06:10", order...)                    // the other has not triggered
	complete("2026-02-06", "2026-02-07 06:10", "team_offense_game_summary") // the shadow's cycle is not complete
	old.triggered(t, "2026-02-06", "overnight", "all_complete", at("2026-02-07 06:20"))
	old.triggered(t, "2026-02-07", "", "all_complete", at("2026-02-08 06:20")) // no completion of it is recorded
	window := []string{"report", "--shadow", "--from", "2026-02-03", "--to", "2026-02-08"}
	want(t, 1, []string{
		"2026-02-03  overnight  2026-02-04 06:10:00 EST  2026-02-04 06:15:00 EST  alike: ours 5m0s earlier; 5 of 5 complete",
		"2026-02-04  same_day   2026-02-04 10:40:00 EST  —                 other_mode: ", "2026-02-04  overnight  2026-02-05 06:10:00 EST  2026-02-05 06:08:00 EST  alike: ours 2m0s later; ",
		"2026-02-05  overnight  2026-02-06 06:10:00 EST  —                 only_ours: 5 of 5 complete",
		"2026-02-06  overnight  —                 2026-02-07 06:20:00 EST  only_theirs: overdue: deadline 2026-02-07 10:00 EST passed", "2026-02-07  overnight  —                 2026-02-08 06:20:00 EST  only_theirs: overdue: deadline 2026-02-08 10:00 EST passed",
		"\n2 alike, 1 only ours, 2 only theirs, 1 that the other does not tell, 0 unknown\n", "the other has handed over 2 cycles that the shadow would not have",
	}, window...)
	code, stdout, _ := command(t, append(window, "--json")...)
	cycles := object(t, stdout)["cycles"].([]any)
	first := cycles[0].(map[string]any)
	if code != 1 || len(cycles) != 6 || first["verdict"] != string(reconcile.Alike) || first["ours"] == nil || first["theirs"] != "2026-02-04T11:15:00Z" {
		t.Errorf("%d %s", code, stdout)
	}
	want(t, 0, []string{"\n1 alike, 0 only ours, 0 only theirs"}, "report", "--shadow", "--from", "2026-02-03", "--to", "2026-02-03")
	// A deployment that runs only in shadow uses the same documents.
	t.Setenv("PHASEGATE_SHADOW", "true")
	want(t, 1, []string{"\n2 alike, 1 only ours, 2 only theirs"}, window...)
	// A trigger without a mode belongs to the cycle that was due at its time. An earlier hand-over
	// of the shadow does not match it.
	complete("2026-02-09", "2026-02-09 10:40", "upcoming_player_game_context")
	old.triggered(t, "2026-02-09", "", "all_complete", at("2026-02-10 06:15"))
	want(t, 1, []string{"2026-02-09  same_day   2026-02-09 10:40:00 EST  —                 other_mode: ", "2026-02-09  overnight  —                 2026-02-10 06:15:00 EST  only_theirs: "},
		"report", "--shadow", "--from", "2026-02-09", "--to", "2026-02-09")
	// A trigger whose time cannot be read still counts as a hand-over.
	complete("2026-02-10", "2026-02-11 06:10", order...)
	if _, err := s.App.Store.Apply(t.Context(), store.Merge(store.Ref{Collection: "phase3_completion", ID: "2026-02-10"}, store.F(true, "_triggered"), store.F("2026-02-11T06:12:00", "_triggered_at"))); err != nil {
		t.Fatal(err)
	}
	want(t, 0, []string{"2026-02-10  overnight  2026-02-11 06:10:00 EST  —       alike: 5 of 5 complete"}, "report", "--shadow", "--from", "2026-02-10", "--to", "2026-02-10")
	// The shadow has not written to the other's documents.
	doc, err := s.App.Store.Get(t.Context(), store.Ref{Collection: "phase3_completion", ID: "2026-02-05"})
	if err != nil || doc.Docs[0].Exists {
		t.Errorf("%+v %v", doc, err)
	}
}
