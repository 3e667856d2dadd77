package reconcile

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// Where another environment writes the tables, or in shadow, a requested sweep would do nothing.
func TestSweep_IsOrderedOnlyWhereTheTablesAreWritten(t *testing.T) {
	for _, c := range []struct {
		name    string
		set     func(*app.Config)
		problem string
		orders  int
	}{
		{"writes", func(*app.Config) {}, "", 1},
		{"shadow", func(c *app.Config) { c.Shadow = "shadow_" }, "a shadow requests no sweep", 0},
		{"only reads", func(c *app.Config) { c.ReadOnly = true }, "an environment that only reads the tables requests no sweep", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			c.set(&s.App.Config)
			err := New(s.App).Sweep(t.Context(), table("player_game_summary"), night)
			if problem := fmt.Sprint(err); err != nil && problem != c.problem || err == nil && c.problem != "" {
				t.Errorf("%v, want %q", err, c.problem)
			}
			if got := len(s.PubSub.Messages()); got != c.orders {
				t.Errorf("%d orders, want %d", got, c.orders)
			}
		})
	}
}

// The sweep removes duplicates. A run without repairs requests no sweep. A repair requests one
// a table and period, and reports a request that failed.
func TestF31_DuplicatesAreHandedToTheSweep(t *testing.T) {
	s := newScene(t)
	s.good(night)
	s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 420, Surplus: 72, Oldest: wrote(night), Newest: wrote(night)})
	s.run(night, night, "")
	if len(s.asked) != 0 {
		t.Errorf("a run without repairs requests %v", s.asked)
	}
	f := s.run(night, night, "ada@host").Findings[0]
	if !slices.Equal(s.asked, []string{"nba_analytics.player_game_summary 2026-02-03"}) || f.Evidence["handed_to_the_sweep"] != true || f.Status != Open {
		t.Errorf("%v, %+v", s.asked, f)
	}
	s.unheard = errors.New("the broker is away")
	if f := s.run(night, night, "ada@host").Findings[0]; f.Evidence["handed_to_the_sweep"] != false || f.Evidence["problem"] != "the broker is away" {
		t.Errorf("%+v", f)
	}
}

// A shadow publishes nothing, no job for the sweep either.
func TestReconcile_ShadowRequestsNoSweep(t *testing.T) {
	s := newScene(t)
	r := New(s.App.Shadowed())
	if err := r.Sweep(t.Context(), table("player_game_summary"), night); err == nil || len(s.PubSub.Messages()) != 0 {
		t.Errorf("%v, %d messages", err, len(s.PubSub.Messages()))
	}
}
