package reconcile

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// A night past trigger_within waits for a person, in each state in which it was left. A repair
// corrects its recorded state, publishes its frozen batches, and begins no hand-over.
func TestRepair_HandsNothingOverOfAnOldPeriod(t *testing.T) {
	const old = pipeline.Period("2026-01-28")
	optional := "team_offense_game_summary"
	for name, tc := range map[string]struct {
		left  func(s *scene, converge func()) // how the night was left
		found string                          // what is found, besides what is wrong with the record
		state string
	}{
		"its_data_was_not_ready": {func(_ *scene, converge func()) { converge() }, "untriggered", "overdue"},
		"nobody_evaluated_it":    {func(*scene, func()) {}, "untriggered", "waiting"},
		"its_grace_has_ended": {func(s *scene, converge func()) {
			s.SetNow(wrote(old).Add(time.Minute))
			converge()
			s.SetNow(morning)
		}, "untriggered", "grace"},
	} {
		for what, wrong := range map[string]func(s *scene){
			"a_counter":    func(s *scene) { s.edit(old, store.F(7, "_completed_count")) },
			"a_completion": func(*scene) {},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				s := newScene(t)
				s.good("2026-01-20")
				s.data(old)
				key := cycle.Key{Transition: s.tr, Period: old}
				s.Engine.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness {
					return cycle.Readiness{Outcome: cycle.Failed, Reasons: []string{"game_coverage_pct is 20"}}
				}
				missing := what == "a_completion" || tc.state == "grace"
				for name, n := range rowsOf {
					if !missing || name != optional {
						s.report(old, name, n)
					}
				}
				tc.left(s, func() {
					for range 2 {
						if _, err := s.Engine.Converge(t.Context(), key, ""); err != nil {
							t.Fatal(err)
						}
						if tc.state == "overdue" && missing { // until its grace has ended
							s.SetNow(s.Now().Add(31 * time.Minute))
						}
					}
				})
				wrong(s)
				s.Engine.Check = cycle.Unchecked // the data is ready by now
				s.SetNow(s.Now().Add(2 * time.Hour))
				before := len(s.PubSub.Messages())
				r := s.run(old, old, "ada@host")
				if n := len(s.PubSub.Messages()) - before; n != 0 {
					t.Errorf("%d messages: %q", n, s.received())
				}
				if r.Left() != 1 || !strings.Contains(types(r), tc.found) {
					t.Errorf("found %s, %d left", types(r), r.Left())
				}
				for _, f := range r.Findings {
					switch {
					case f.Type == Untriggered && (f.Status != Open || !strings.Contains(f.Repair, "phasectl trigger")):
						t.Errorf("%s is %s: %s", f.Type, f.Status, f.Repair)
					case f.Type != Untriggered && f.Status != Repaired:
						t.Errorf("%s is %s: %v", f.Type, f.Status, f.Evidence)
					}
				}
				if got := s.Doc(t, "phase3_completion", string(old)).Data; got["_completed_count"] != int64(5) || got["_triggered"] != false {
					t.Errorf("shown are %v, triggered %v", got["_completed_count"], got["_triggered"])
				}
				if again := s.run(old, old, "ada@host"); types(again) != tc.found || len(s.PubSub.Messages()) != before {
					t.Errorf("afterwards found is %s, %d messages", types(again), len(s.PubSub.Messages())-before)
				}
			})
		}
	}
}

// A period that was computed again weeks later is handed over by an operator alone. After that
// nothing is left to find.
func TestReconcile_FindsNothingOfAnOldCycleThatAnOperatorTriggered(t *testing.T) {
	const old = pipeline.Period("2026-01-25")
	s := newScene(t)
	s.good("2026-01-20")
	s.data(old)
	key := cycle.Key{Transition: s.tr, Period: old}
	for name, n := range rowsOf {
		c := wire.Completion{Processor: name, Reported: name, Period: old, Status: wire.StatusSuccess, EventTime: s.Now(), ExecutionID: "again-" + name, CorrelationID: "c", RecordCount: &n}
		if err := s.Engine.Record(t.Context(), key, c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Engine.Converge(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	if r := s.run(old, old, ""); !strings.Contains(types(r), Untriggered) {
		t.Fatalf("before the trigger: %s", types(r))
	}
	mode, _ := s.tr.Mode("overnight")
	if _, err := s.Engine.Trigger(t.Context(), key, mode, cycle.Request{Actor: "ada@host", Reason: "computed again"}); err != nil {
		t.Fatal(err)
	}
	s.phase4(old, s.Now().Add(time.Minute))
	if r := s.run(old, old, ""); types(r) != "" {
		t.Errorf("after the trigger: %s", types(r))
	}
}
