package reconcile

import (
	"context"
	"testing"

	"github.com/phasegate/phasegate/shared/store"
)

func TestReconcile_FindsAPeriodThatIsFull(t *testing.T) {
	s := newScene(t)
	s.first()
	s.good(night)
	overflow := store.Ref{Collection: "phase_periods", ID: s.tr.ID + "_" + string(night) + "~overflow"}
	if _, err := s.Store.Apply(context.Background(), store.Merge(overflow, store.F(map[string]any{}, "runs", "player_game_summary"))); err != nil {
		t.Fatal(err)
	}
	if got := types(s.run(night, night, "")); got != "period_full" {
		t.Errorf("found %q", got)
	}
}
