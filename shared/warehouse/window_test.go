package warehouse_test

import (
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

func upstream(t *testing.T, w *warehousetest.World) (*pipeline.Transition, []pipeline.Processor) {
	t.Helper()
	p, err := pipeline.Parse([]byte(w.Definition()))
	if err != nil {
		t.Fatal(err)
	}
	return p.Transitions[0], p.Phases[0].Processors
}

func TestContents_CountsRowsOfEachTableAndPeriod(t *testing.T) {
	w := warehousetest.NBA(t, sample.Day{Date: "2026-02-02", Games: 4, Players: 35, Minutes: 35, Context: 30})
	tr, processors := upstream(t, w)
	w.Exec(`INSERT INTO nba_analytics.team_offense_game_summary (game_date, team_abbr, processed_at) VALUES
		(DATE '2026-02-04', 'LAL', TIMESTAMP '2026-02-05 11:03:12.123456'), (DATE '2026-02-04', 'LAL', TIMESTAMP '2026-02-05 11:03:30'),
		(DATE '2026-02-04', 'BOS', NULL), (DATE '2026-02-05', 'BOS', NULL), (DATE '2026-02-06', 'BOS', NULL)`)
	got := w.Contents(t.Context(), tr.Calendar(), processors, "2026-02-02", "2026-02-05")
	offense := got[w.Rename("nba_analytics.team_offense_game_summary")]
	want := warehouse.Slice{Rows: 3, Surplus: 1, Oldest: time.Date(2026, 2, 5, 11, 3, 12, 123456000, time.UTC), Newest: time.Date(2026, 2, 5, 11, 3, 30, 0, time.UTC)}
	if s := offense.Slices["2026-02-04"]; s != want || offense.Problem != "" || len(offense.Slices) != 3 {
		t.Errorf("%+v", offense)
	}
	if s := offense.Slices["2026-02-05"]; s != (warehouse.Slice{Rows: 1}) {
		t.Errorf("without a time: %+v", s)
	}
	players := got[w.Rename("nba_analytics.player_game_summary")]
	if s := players.Slices["2026-02-02"]; s.Rows != 140 || s.Surplus != 0 || s.Newest.IsZero() || len(players.Slices) != 1 {
		t.Errorf("%+v", players)
	}

	// A table that is gone is not known, and hides no other.
	w.Exec("DROP TABLE nba_analytics.team_defense_game_summary")
	got = w.Contents(t.Context(), tr.Calendar(), processors, "2026-02-02", "2026-02-05")
	if gone := got[w.Rename("nba_analytics.team_defense_game_summary")]; gone.Problem == "" || gone.Slices != nil {
		t.Errorf("%+v", gone)
	}
	if s := got[w.Rename("nba_analytics.team_offense_game_summary")].Slices["2026-02-04"]; s != want {
		t.Errorf("%+v", s)
	}
}

// Reconciliation and the engine expect the same of a period.
func TestExpectedByPeriod_AgreesWithExpected(t *testing.T) {
	w := warehousetest.NBA(t, sample.Day{Date: "2026-02-02", Games: 4}, sample.Day{Date: "2026-02-03", Games: 10})
	tr, _ := upstream(t, w)
	w.Exec("UPDATE nba_raw.v_nbac_schedule_latest SET game_status_text = 'Postponed' WHERE game_date = DATE '2026-02-03' AND home_team_tricode = 'LAL'",
		"INSERT INTO nba_raw.v_nbac_schedule_latest (game_date, home_team_tricode, away_team_tricode) VALUES (DATE '2026-02-02', 'BOS', 'LAL')")
	got, err := w.ExpectedByPeriod(t.Context(), tr, "2026-02-01", "2026-02-04")
	if err != nil || len(got) != 4 {
		t.Fatalf("%v, %v", got, err)
	}
	for period, n := range map[pipeline.Period]int64{"2026-02-01": 0, "2026-02-02": 4, "2026-02-03": 9, "2026-02-04": 0} {
		one, err := w.Expected(t.Context(), tr, period)
		if err != nil || one != n || got[period] != n {
			t.Errorf("%s: %d in the window, %d alone, %v; want %d", period, got[period], one, err, n)
		}
	}
	// A schedule without a game for months says nothing.
	if got, err := w.ExpectedByPeriod(t.Context(), tr, "2027-07-01", "2027-07-03"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	w.Exec("DROP TABLE nba_raw.v_nbac_schedule_latest")
	if got, err := w.ExpectedByPeriod(t.Context(), tr, "2026-02-01", "2026-02-04"); err == nil || !strings.Contains(err.Error(), "v_nbac_schedule_latest") {
		t.Errorf("%v, %v", got, err)
	}
}
