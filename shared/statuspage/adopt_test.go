package statuspage

import (
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/wire"
)

// The first completion of a new deployment comes in the evening: no window of that day that had passed
// is overdue, whichever mode the completion counts for.
func TestOverview_FirstCompletionInTheEveningMakesNothingOverdue(t *testing.T) {
	for name, status := range map[string]wire.Status{"success": wire.StatusSuccess, "failed": wire.StatusFailed} {
		w := apptest.New(t, morning.Add(9*time.Hour)) // 21:20
		record(t, w, "2026-02-04", status, "player_game_summary")
		for _, relay := range []bool{false, true} {
			if relay {
				if err := w.Engine.Relay(t.Context(), w.Pipeline.Transitions[0], "", nil); err != nil {
					t.Fatal(err)
				}
			}
			for _, item := range view(t, w, "").Todo {
				if item.Look.Word == "overdue" {
					t.Errorf("%s, relay %v: %s: %s", name, relay, item.Name, item.Why)
				}
			}
		}
	}
}
