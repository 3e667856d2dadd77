package transition_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
)

// At 01:00 in New York its local time, read as UTC, is the evening before.
func TestTransition_WarnsOfALocalTimeThatIsReadAsUTC(t *testing.T) {
	w := apptest.New(t, now)
	c := completed(five[0])
	c["timestamp"] = now.Add(-5*time.Hour - time.Minute).Format("2006-01-02T15:04:05")
	if rec := deliver(handler(w), "/", "1", c); rec.Code != 204 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	lines := w.Logs.Lines("event", "completion_local_time")
	if len(lines) != 1 || lines[0]["severity"] != "WARNING" || lines[0]["processor"] != "player_game_summary" || lines[0]["period"] != "2026-02-03" {
		t.Errorf("%v", lines)
	}
	cycles, err := w.Engine.Status(t.Context(), cycle.Key{Transition: w.Pipeline.Transitions[0], Period: "2026-02-03"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, st := range cycles {
		if len(st.LocalTimes) > 0 {
			got[st.Mode] = st.LocalTimes
		}
	}
	if diff := cmp.Diff(map[string][]string{"overnight": {"player_game_summary"}}, got); diff != "" {
		t.Errorf("local times by mode (-want +got):\n%s", diff)
	}
	sound := completed(five[1])
	if rec := deliver(handler(w), "/", "2", sound); rec.Code != 204 || len(w.Logs.Lines("event", "completion_local_time")) != 1 {
		t.Errorf("%d; a time with its offset is warned of", rec.Code)
	}
}
