package reconcile

import (
	"slices"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// Another orchestrator has shown a processor as complete that has no recorded run. A repair
// corrects the count and leaves the map. The map that stays is no failed repair.
func TestRepair_LeavesWhatOthersHaveShownAndSaysSo(t *testing.T) {
	for name, tc := range map[string]struct {
		found    string
		severity Severity
	}{
		"team_offense_game_summary": {"count_drift team_offense_game_summary", Warning},
		"roster_history":            {"count_drift roster_history", Info}, // which no mode expects
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.SetNow(wrote(night).Add(1))
			s.first()
			s.data(night)
			s.reports(night, "team_offense_game_summary")
			s.slice(table("team_offense_game_summary"), night, warehouse.Slice{})
			s.SetNow(morning)
			s.edit(night, store.F(map[string]any{"completed_at": morning, "status": "success"}, name), store.F(5, "_completed_count"))
			for i, want := range []string{"count_drift, " + tc.found, tc.found} {
				r := s.run(night, night, "ada@host")
				var drift []string
				for _, f := range r.Findings {
					if f.Type != CountDrift {
						continue
					}
					drift = append(drift, strings.TrimSpace(f.Type+" "+strings.TrimPrefix(f.Table, "nba_analytics.")))
					switch {
					case f.Table == "" && f.Status != Repaired:
						t.Errorf("the count is %s: %v", f.Status, f.Evidence)
					case f.Table != "" && (f.Status != Open || f.Severity != tc.severity || !strings.Contains(f.Repair, "another program or an earlier definition wrote it")):
						t.Errorf("%s %s: %s", f.Status, f.Severity, f.Repair)
					}
				}
				if got := strings.Join(slices.Sorted(slices.Values(drift)), ", "); got != want {
					t.Errorf("run %d: %q, want %q", i+1, got, want)
				}
			}
			got := s.Doc(t, "phase3_completion", string(night)).Data
			if _, there := got[name].(map[string]any); !there || got["_completed_count"] != int64(4) {
				t.Errorf("afterwards shown: %v, _completed_count %v", got[name], got["_completed_count"])
			}
		})
	}
}
