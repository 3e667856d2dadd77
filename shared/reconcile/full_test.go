package reconcile

import (
	"fmt"
	"testing"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/message"
)

func TestReconcile_FindsAPeriodThatIsFull(t *testing.T) {
	s := newScene(t)
	s.first()
	s.good(night)
	key := cycle.Key{Transition: s.tr, Period: night}
	for i := range 60 {
		c := message.Completion{Processor: "player_game_summary", Reported: "player_game_summary", Period: night, Status: message.StatusFailed,
			EventTime: s.Now(), ExecutionID: fmt.Sprint("failed-", i), CorrelationID: "c"}
		if err := s.Engine.Record(t.Context(), key, c); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Engine.Converge(t.Context(), key, ""); err != nil {
			t.Fatal(err)
		}
	}
	if got := types(s.run(night, night, "")); got != "period_full" {
		t.Errorf("found %q", got)
	}
}
