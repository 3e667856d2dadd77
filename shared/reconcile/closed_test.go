package reconcile

import (
	"context"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// A closed cycle shall never run: it is not missed, even if some of its rows or reports exist.
func TestRun_MissesNothingOfAClosedCycle(t *testing.T) {
	closeModes := func(s *scene, names ...string) {
		s.t.Helper()
		for _, name := range names {
			m, known := s.tr.Mode(name)
			if !known {
				s.t.Fatal(name)
			}
			if _, err := s.Engine.Close(s.t.Context(), s.key(), m, "ada", "never"); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	all := func(s *scene) (names []string) {
		for _, m := range s.tr.Modes {
			names = append(names, m.Name)
		}
		return names
	}
	record := func(s *scene, names ...string) {
		for _, name := range names {
			s.report(night, name, rowsOf[name])
		}
	}
	for name, tc := range map[string]struct {
		left  func(s *scene)
		close func(s *scene) []string
		open  string // findings before it is closed
		then  string
	}{
		"nothing came":           {func(s *scene) { s.expected[night] = 8 }, all, "missing_period", ""},
		"nothing came, one open": {func(s *scene) { s.expected[night] = 8 }, func(s *scene) []string { return all(s)[1:] }, "missing_period", "missing_period"},
		"a processor is absent": {func(s *scene) {
			s.expected[night] = 8
			s.data(night)
			s.slice(table("team_offense_game_summary"), night, warehouse.Slice{})
			record(s, "player_game_summary", "team_defense_game_summary", "upcoming_player_game_context", "upcoming_team_game_context")
		}, all, "missing_period team_offense_game_summary", ""},
		"it was not handed over": {func(s *scene) {
			s.data(night)
			record(s, "player_game_summary", "team_defense_game_summary", "team_offense_game_summary", "upcoming_player_game_context", "upcoming_team_game_context")
		}, all, "untriggered", ""},
		"its data was not ready": {func(s *scene) {
			s.Engine.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness {
				return cycle.Readiness{Outcome: cycle.Failed, Reasons: []string{"game_coverage_pct is 20"}}
			}
			s.data(night)
			s.reports(night)
			s.SetNow(morning.Add(2 * time.Hour))
		}, all, "untriggered", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.first()
			tc.left(s)
			find := func() (got string) {
				var r Report
				for _, f := range s.run(night, night, "").Findings {
					if f.Period == night && (f.Type == MissingPeriod || f.Type == Untriggered || f.Type == Unpublished) {
						r.Findings = append(r.Findings, f)
					}
				}
				return types(r)
			}
			if got := find(); got != tc.open {
				t.Fatalf("before it is closed: %q, want %q", got, tc.open)
			}
			closeModes(s, tc.close(s)...)
			if got := find(); got != tc.then {
				t.Errorf("closed: %q, want %q", got, tc.then)
			}
		})
	}
}

// A batch that was frozen before its cycle was closed must be published, and is missed until then.
func TestRun_MissesAFrozenHandOverOfAClosedCycle(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	back := s.brokerAway()
	for _, name := range s.tr.Order {
		s.report(night, name, rowsOf[name])
	}
	if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err == nil {
		t.Fatal("published")
	}
	m, _ := s.tr.Mode("overnight")
	if r, err := s.Engine.Close(t.Context(), s.key(), m, "ada", "never"); err != nil || len(r.Publishing) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	s.SetNow(morning.Add(relayed + time.Hour))
	if got := of(s.run(night, night, ""), night); got != "unpublished" {
		t.Errorf("%q", got)
	}
	back()
}

// Periods before the first that is ours are not judged.
func TestRun_JudgesNothingBeforeTheFirstPeriod(t *testing.T) {
	s := newScene(t)
	for _, p := range []pipeline.Period{"2026-02-01", "2026-02-02"} {
		s.expected[p] = 8
		s.data(p)
	}
	s.good(night)
	r := s.run("2026-02-01", night, "")
	if types(r) != "" || len(r.Unknown) != 0 || r.Since != night || r.Tables != 5 {
		t.Errorf("findings %q, unknown %q, since %s, %d tables", types(r), r.Unknown, r.Since, r.Tables)
	}
}
