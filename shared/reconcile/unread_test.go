package reconcile

import (
	"slices"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// Each finding follows from tables that were read. With one table unread, the rows that would
// disprove the finding may be in it.
func TestRun_ConcludesNothingFromATableThatIsUnread(t *testing.T) {
	for name, tc := range map[string]struct {
		unread string
		wrong  func(s *scene)
		finds  string // when every table can be read
	}{
		"no_table_has_a_row": {table("player_game_summary"), func(s *scene) { s.expected[night] = 10 }, "missing_period"},
		"the_next_phase_has_not_run_since": {"nba_predictions.ml_feature_store_v2", func(s *scene) {
			s.good(night)
			s.phase4(night, wrote(night))
			s.SetNow(morning.Add(3 * time.Hour))
		}, "next_phase_missing"},
		"others_set_the_flag_and_the_next_phase_has_no_row": {"nba_predictions.ml_feature_store_v2", func(s *scene) {
			s.expected[night] = 0
			s.edit(night, store.F(true, "_triggered"))
		}, "flag_drift"},
	} {
		for _, unread := range []bool{false, true} {
			s := newScene(t)
			s.first()
			tc.wrong(s)
			want := tc.finds
			if unread {
				s.tables[tc.unread] = warehouse.Contents{Problem: "the query was cancelled"}
				want = ""
			}
			if r := s.run(night, night, ""); types(r) != want || (len(r.Unknown) == 1) != unread {
				t.Errorf("%s, unread %v: found %q, want %q; unknown %q", name, unread, types(r), want, r.Unknown)
			}
		}
	}
}

// The rows of one table were written anew after the next phase had run. Another table that is
// unread does not change that: nothing has handed these rows over.
func TestRun_TakesNoEarlierRunOfTheNextPhaseForAHandOver(t *testing.T) {
	for _, unread := range []bool{false, true} {
		s := newScene(t)
		s.first()
		s.data(night)
		for name, n := range rowsOf {
			s.report(night, name, n)
		}
		again := wrote(night).Add(time.Hour)
		s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: rowsOf["player_game_summary"], Oldest: again, Newest: again})
		s.phase4(night, again.Add(-30*time.Minute))
		if unread {
			s.tables[table("team_offense_game_summary")] = warehouse.Contents{Problem: "the query was cancelled"}
		}
		open := slices.ContainsFunc(s.run(night, night, "").Findings, func(f *Finding) bool {
			return f.Type == Untriggered && f.Mode == "overnight" && f.Status == Open
		})
		if !open {
			t.Errorf("another table unread %v: the night is taken for handed over", unread)
		}
	}
}
