package reconcile

import (
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
)

func TestSummary_CountsOutcomes(t *testing.T) {
	s := newScene(t)
	cal := s.tr.Calendar()
	at := func(p pipeline.Period, hour int) {
		s.SetNow(cal.Instant(p, pipeline.Offset{Periods: 1, Minute: hour * 60}))
	}
	at("2026-02-01", 7)
	s.good("2026-02-01") // due at 06:03:10, handed over at 07:00
	at("2026-02-02", 11)
	s.good("2026-02-02") // after its deadline
	at(night, 7)
	s.data(night)
	s.reports(night, "player_game_summary")
	s.run(night, night, "ada@host") // repaired, on time
	s.phase4(night, s.Now().Add(time.Minute))
	m, _ := s.tr.Mode("overnight")
	if _, err := s.Engine.Trigger(t.Context(), cycle.Key{Transition: s.tr, Period: night}, m, cycle.Request{Actor: "ada@host", Reason: "again"}); err != nil {
		t.Fatal(err)
	}
	s.phase4(night, s.Now().Add(time.Minute))
	at("2026-02-04", 6)
	s.data("2026-02-04")
	s.reports("2026-02-04", "team_defense_game_summary") // enough, after 30 minutes of grace
	s.SetNow(s.Now().Add(31 * time.Minute))
	if _, err := s.Engine.Converge(t.Context(), cycle.Key{Transition: s.tr, Period: "2026-02-04"}, ""); err != nil {
		t.Fatal(err)
	}
	s.SetNow(s.Now().Add(time.Hour))
	got, err := s.rec.Summarise(t.Context(), s.tr, "2026-02-01", "2026-02-04")
	if err != nil {
		t.Fatal(err)
	}
	// 20 tables with rows, one of which has not reported.
	if got.HandedOver != 4 || got.OnTime != 3 || got.Degraded != 1 || got.Repaired != 1 || got.Operator != 1 || got.Latency.Count != 3 {
		t.Errorf("%+v", got)
	}
	if got.Latency.P50 != 57*60-10 || got.Latency.Max != 5*3600-3*60-10 {
		t.Errorf("%+v", got.Latency)
	}
	if got.Accuracy == nil || *got.Accuracy != 95 || len(got.Unknown) != 0 {
		t.Errorf("accuracy %v, unknown %q", got.Accuracy, got.Unknown)
	}
	empty, err := s.rec.Summarise(t.Context(), s.tr, "2025-02-01", "2025-02-04")
	if err != nil || empty.Cycles != 0 || empty.OnTimePct != nil || empty.Latency != (Latency{}) {
		t.Errorf("%+v, %v", empty, err)
	}
}

func TestSummary_PercentilesUseNearestRank(t *testing.T) {
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(100-i)*time.Second)
	}
	if got := latency(all); got != (Latency{Count: 100, P50: 50, P95: 95, P99: 99, Max: 100}) {
		t.Errorf("%+v", got)
	}
	if got := latency(all[:1]); got != (Latency{Count: 1, P50: 1, P95: 1, P99: 1, Max: 1}) {
		t.Errorf("%+v", got) // sorted in place: the least
	}
}

// A share of no tables and no cycles is none.
func TestReport_ShareOfNothingIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		report Report
		text   string
		known  bool
	}{
		"no_tables":          {Report{}, "none (no table has rows that must be shown as complete)", false},
		"no_tables_and_away": {Report{Unknown: []string{"it is away"}}, "unknown", false},
		"all":                {Report{Tables: 4, Shown: 4}, "100.0 % (4 of 4 tables with rows are shown as complete)", true},
		"half":               {Report{Tables: 4, Shown: 2}, "50.0 % (2 of 4 tables with rows are shown as complete)", true},
	} {
		if _, known := c.report.Accuracy(); known != c.known || c.report.AccuracyText() != c.text {
			t.Errorf("%s: %v, %q", name, known, c.report.AccuracyText())
		}
	}
}
