package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestRun_NamesReportsThatAreMostLikelyMistakes(t *testing.T) {
	s := newScene(t)
	s.first()
	s.good(night)
	at := s.Now()
	report := func(name, processor string, p pipeline.Period, at time.Time) {
		t.Helper()
		c := wire.Completion{Processor: processor, Reported: name, Period: p, Status: wire.StatusSuccess, EventTime: at, ExecutionID: name, CorrelationID: "c"}
		if err := s.Engine.Record(t.Context(), cycle.Key{Transition: s.tr, Period: p}, c); err != nil {
			t.Fatal(err)
		}
	}
	report("team_ofense_game_summary", "", night, at)
	report("RosterHistoryProcessor", "", night, at)
	report("player_game_summary", "player_game_summary", "2062-02-03", at)
	r := s.run(night, night, "")
	want := map[pipeline.Period]string{night: "did you mean team_offense_game_summary?", "2062-02-03": "did you mean 2026-02-03?"}
	for _, f := range r.Findings {
		if f.Type != DoubtfulReport || f.Severity != Warning || want[f.Period] == "" || !strings.Contains(f.Repair, want[f.Period]) {
			t.Errorf("%+v", f)
		}
		delete(want, f.Period)
	}
	if len(want) != 0 {
		t.Errorf("not found: %v", want)
	}
	s.SetNow(at.Add(time.Minute))
	report("team_offense_game_summary", "team_offense_game_summary", night, s.Now())
	for _, f := range s.run(night, night, "").Findings {
		if f.Type == DoubtfulReport && f.Period == night {
			t.Errorf("after the right report: %+v", f)
		}
	}
}
