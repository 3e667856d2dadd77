package reconcile

import (
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestReconcile_NamesLocalTimestampsUntilTheProcessorSendsUTC(t *testing.T) {
	s := newScene(t)
	s.first()
	s.good(night)
	run := func(execution string, after time.Duration, local bool) {
		t.Helper()
		count := rowsOf["player_game_summary"]
		c := wire.Completion{Processor: "player_game_summary", Reported: "player_game_summary", Period: night, Status: wire.StatusFailed,
			EventTime: wrote(night).Add(after), ExecutionID: execution, CorrelationID: execution, RecordCount: &count, LocalTime: local}
		if err := s.Engine.Record(t.Context(), cycle.Key{Transition: s.tr, Period: night}, c); err != nil {
			t.Fatal(err)
		}
	}
	found := func() (out []*Finding) {
		for _, f := range s.run(night, night, "").Findings {
			if f.Type == LocalTimestamp {
				out = append(out, f)
			}
		}
		return out
	}
	if got := found(); len(got) != 0 {
		t.Errorf("a good night: %+v", got[0])
	}
	run("local", time.Minute, true)
	if got := found(); len(got) != 1 || got[0].Severity != Warning || got[0].Status != Open || got[0].Table != table("player_game_summary") ||
		got[0].Mode != "overnight" || got[0].Evidence["time_zone"] != "America/New_York" {
		t.Errorf("%+v", got)
	}
	run("utc", 2*time.Minute, false)
	if got := found(); len(got) != 0 {
		t.Errorf("after a report in UTC: %+v", got[0])
	}
}
