package warehouse_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

const (
	night = pipeline.Period("2026-02-03")
	pgs   = "player_game_summary"
	upg   = "upcoming_player_game_context"
	utg   = "upcoming_team_game_context"
)

// good is a complete night.
var good = func() sample.Day {
	d := warehousetest.Complete
	d.Date = night
	return d
}()

func TestCheck_CompleteDataPasses(t *testing.T) {
	w, night := warehousetest.Shared(t)
	tr := w.Transition()
	r := w.Check(t.Context(), tr, night, "overnight", tr.Order)
	if r.Outcome != policy.Passed || !r.Verified() || len(r.Reasons) > 0 || r.MinutesCoverage == nil || *r.MinutesCoverage != 100 {
		t.Errorf("%+v", r)
	}
	if len(r.Checks) != 19 {
		t.Errorf("%d checks were asked, want 19", len(r.Checks))
	}
	for _, c := range r.Checks {
		if c.State != "pass" || c.Value == nil || c.Warn+c.Block == "" {
			t.Errorf("%+v", c)
		}
	}
}

const someTeams = "LAL BOS DEN GSW PHX MIL NYK PHI MIA CHI DAL SAC HOU ORL IND CLE ATL TOR MIN OKC"

// of names the teams of the first n games.
func of(n int) string {
	return " IN ('" + strings.Join(strings.Split(someTeams, " ")[:2*n], "', '") + "')"
}

// Each case changes the rows of a good night, and names the result of one check and of the whole.
// Every night is a date of its own.
func TestCheck_EachCheckPassesWarnsAndFails(t *testing.T) {
	const players, offense = "nba_analytics.player_game_summary", "nba_analytics.team_offense_game_summary"
	for _, tc := range []struct {
		sql     string // on the rows of the night
		check   string
		state   string
		outcome policy.Outcome
		reason  string // "" means none
	}{
		{"DELETE FROM " + offense, "row_count.team_offense_game_summary", "fail", policy.Failed, "row_count.team_offense_game_summary is 0, blocks when < 1"},
		{"DELETE FROM " + players + " WHERE team_abbr" + of(2), "game_coverage_pct", "pass", policy.Passed, ""},
		{"DELETE FROM " + players + " WHERE team_abbr" + of(3), "game_coverage_pct", "fail", policy.Failed, "game_coverage_pct is 70, blocks when < 80"},
		{"UPDATE " + players + " SET minutes_played = NULL WHERE team_abbr" + of(1), "minutes_coverage_pct", "pass", policy.Passed, ""},
		{"UPDATE " + players + " SET minutes_played = NULL WHERE team_abbr" + of(2), "minutes_coverage_pct", "warn", policy.Passed, "minutes_coverage_pct is 80, warns when < 90"},
		{"UPDATE " + players + " SET minutes_played = NULL WHERE team_abbr" + of(3), "minutes_coverage_pct", "fail", policy.Failed, "minutes_coverage_pct is 70, blocks when < 80"},
		{"DELETE FROM " + players + " WHERE MOD(points, 4) = 0", "player_rows_pct." + pgs, "warn", policy.Passed, "player_rows_pct.player_game_summary is 74.29, warns when < 80"},
		{"DELETE FROM " + players + " WHERE MOD(points, 3) > 0", "player_rows_pct." + pgs, "fail", policy.Failed, "player_rows_pct.player_game_summary is 34.29, blocks when < 50"},
		{"DELETE FROM nba_analytics.upcoming_player_game_context WHERE team_abbr" + of(6), "context_rows_pct." + upg, "fail", policy.Failed, "context_rows_pct.upcoming_player_game_context is 40, blocks when < 50"},
		{"DELETE FROM nba_analytics.upcoming_team_game_context WHERE team_abbr" + of(3), "team_rows_pct." + utg, "warn", policy.Passed, "team_rows_pct.upcoming_team_game_context is 70, warns when < 80"},
		{"UPDATE " + offense + " SET points_scored = NULL WHERE team_abbr" + of(1), "null_pct.team_offense_game_summary.points_scored", "warn", policy.Passed, "null_pct.team_offense_game_summary.points_scored is 10, warns when >= 5"},
		{"UPDATE " + offense + " SET points_scored = NULL WHERE team_abbr" + of(5), "null_pct.team_offense_game_summary.points_scored", "fail", policy.Failed, "null_pct.team_offense_game_summary.points_scored is 50, blocks when >= 50"},
	} {
		t.Run(tc.check+"_"+tc.state, func(t *testing.T) {
			w, night := warehousetest.Shared(t)
			tr := w.Transition()
			sql, where, some := strings.Cut(tc.sql, " WHERE ")
			if some {
				where = " AND " + where
			}
			w.Exec(sql + " WHERE game_date = '" + string(night) + "'" + where)
			r := w.Check(t.Context(), tr, night, "overnight", tr.Order)
			i := slices.IndexFunc(r.Checks, func(c policy.CheckResult) bool { return c.Name == tc.check })
			if i < 0 || r.Checks[i].State != tc.state || r.Outcome != tc.outcome || r.Verified() != (tc.outcome == policy.Passed) {
				t.Errorf("outcome %s, want %s with %s %s; %+v", r.Outcome, tc.outcome, tc.check, tc.state, r.Checks)
			}
			if tc.reason != "" != slices.Contains(r.Reasons, tc.reason) || tc.reason == "" && len(r.Reasons) > 0 {
				t.Errorf("reasons %q, want %q", r.Reasons, tc.reason)
			}
		})
	}
}

// F16: a check that cannot run is unknown, by its name. F17: so is one whose columns
// were renamed, and it hides no other check's answer.
func TestF17_ChangedTablesMakeTheirChecksUnknownAndNoOthers(t *testing.T) {
	w := warehousetest.NBA(t, good)
	w.Exec("DROP TABLE nba_analytics.team_offense_game_summary",
		"DROP TABLE nba_analytics.upcoming_team_game_context",
		"CREATE TABLE nba_analytics.upcoming_team_game_context (day DATE, team_abbr STRING, opponent_team_abbr STRING)",
		"CREATE TABLE nba_analytics.other AS SELECT * EXCEPT (minutes_played, points), minutes_played AS minutes, points AS score FROM nba_analytics.player_game_summary",
		"DROP TABLE nba_analytics.player_game_summary",
		"CREATE TABLE nba_analytics.player_game_summary AS SELECT * FROM nba_analytics.other")
	tr := w.Transition()
	r := w.Check(t.Context(), tr, night, "overnight", tr.Order)
	want := map[string]string{
		"row_count.team_offense_game_summary":              "Table not found",
		"team_rows_pct.team_offense_game_summary":          "Table not found",
		"null_pct.team_offense_game_summary.points_scored": "Table not found",

		"row_count.upcoming_team_game_context":                   "Unrecognized name: game_date",
		"team_rows_pct.upcoming_team_game_context":               "Unrecognized name: game_date",
		"null_pct.upcoming_team_game_context.opponent_team_abbr": "Unrecognized name: game_date",

		"minutes_coverage_pct":                "Unrecognized name: minutes_played",
		"null_pct.player_game_summary.points": "Unrecognized name: points",
	}
	for _, c := range r.Checks {
		problem, bad := want[c.Name]
		if bad != (c.State == "unknown") || bad != (c.Value == nil) || !strings.Contains(c.Problem, problem) {
			t.Errorf("%+v, want problem %q", c, problem)
		}
	}
	if r.Outcome != policy.Unknown || r.Verified() || len(r.Checks) != 19 || r.MinutesCoverage != nil {
		t.Errorf("%s of %d checks, minutes %v", r.Outcome, len(r.Checks), r.MinutesCoverage)
	}
	found := map[string]bool{}
	for _, v := range w.Verify(t.Context(), tr, night) {
		if v.Problem != "" && !strings.HasPrefix(v.Name, "all of") {
			found[v.Name] = !v.Unknown
		}
	}
	for name := range want {
		if !found[name] {
			t.Errorf("verify does not find %s", name)
		}
	}
	if len(found) != len(want) {
		t.Errorf("verify finds %v", found)
	}
}

func TestCheck_ChangedScheduleSchemaIsUnknown(t *testing.T) {
	w := warehousetest.NBA(t, good)
	tr := w.Transition()
	for _, sql := range []string{
		"DELETE FROM nba_raw.v_nbac_schedule_latest WHERE TRUE",
		"DROP TABLE nba_raw.v_nbac_schedule_latest",
		"CREATE TABLE nba_raw.v_nbac_schedule_latest (game_date DATE, home STRING, away STRING)",
	} {
		w.Exec(sql)
		r := w.Check(t.Context(), tr, night, "overnight", []string{pgs})
		var unknown []string
		for _, c := range r.Unknown() {
			unknown = append(unknown, c.Name)
		}
		if want := []string{"game_coverage_pct", "player_rows_pct." + pgs}; r.Outcome != policy.Unknown || !slices.Equal(unknown, want) {
			t.Errorf("%s: %s, unknown %q, want %q", sql, r.Outcome, unknown, want)
		}
		if n, err := w.Expected(t.Context(), tr, "2026-02-04"); err == nil {
			t.Errorf("%s: %d games expected of a date without any", sql, n)
		}
	}
}

func TestCheck_CompleteDataStaysWithinByteLimit(t *testing.T) {
	w, night := warehousetest.Shared(t)
	before := w.Count("nba_analytics.player_game_summary")
	vs := w.Verify(t.Context(), w.Transition(), night)
	var names []string
	for _, v := range vs {
		names = append(names, v.Name)
		if v.Problem != "" || v.Unknown {
			t.Errorf("%+v", v)
		}
	}
	if len(vs) != 1+19+3 || !slices.Contains(names, "all of overnight") || names[0] != "expected" {
		t.Errorf("%d statements verified: %q", len(vs), names)
	}
	tr := w.Transition()
	tr.Checks.MaxBytesBilled = 1 // which no pipeline file may ask for
	vs = w.Verify(t.Context(), tr, night)
	if last := vs[len(vs)-1]; !strings.Contains(last.Problem, "max_bytes_billed is 1") {
		t.Errorf("%+v", last)
	}
	for sql, want := range map[string]string{
		"SELECT 'x'":                 "ABS",
		"SELECT @period":             "ABS",
		"SELECT TRUE":                "ABS",
		"SELECT 1, 2":                "Scalar subquery",
		"SELECT 1) AS c0, (SELECT 2": "ABS",
		"DELETE FROM {table} WHERE {date_column} = @period":                   "Syntax error",
		"SELECT COUNT(*) FROM {table} WHERE {date_column} = @period -- x":     "",
		"SELECT COUNT(*) FROM {table} WHERE {date_column} = @period /* x":     "comment",
		"SELECT MAX(processed_at) FROM {table} WHERE {date_column} = @period": "ABS",
	} {
		tr := w.Transition("sql: SELECT COUNT(*) FROM {table} WHERE {date_column} = @period", "sql: |\n            "+sql)
		tr.Checks.All, tr.Checks.Expected = tr.Checks.All[:1], ""
		for _, v := range w.Verify(t.Context(), tr, night) {
			if strings.HasPrefix(v.Name, "row_count") && (want == "" != (v.Problem == "") || !strings.Contains(v.Problem, want)) {
				t.Errorf("%s: %+v, want %q", sql, v, want)
			}
		}
	}
	if n := w.Count("nba_analytics.player_game_summary"); n != before {
		t.Errorf("%d rows are left of %d", n, before)
	}
}

func TestCheck_KeywordNamesAreQuoted(t *testing.T) {
	w, _ := warehousetest.Shared(t)
	w.Exec("CREATE TABLE nba_analytics.`select` (`from` DATE, `order` INT64, k STRING, processed_at TIMESTAMP)",
		"INSERT INTO nba_analytics.`select` (`from`, `order`, k) VALUES ('2026-02-03', NULL, 'a'), ('2026-02-03', 1, 'b'), ('2026-02-04', NULL, 'c')")
	tr := w.Transition("table: nba_analytics.upcoming_team_game_context\n        date_column: game_date", "table: nba_analytics.select\n        date_column: from",
		"filled: [opponent_team_abbr]", "filled: [order]")
	r := w.Check(t.Context(), tr, night, "same_day", []string{utg})
	got := map[string]float64{}
	for _, c := range r.Checks {
		if c.Value != nil {
			got[c.Name] = *c.Value
		}
	}
	if got["row_count."+utg] != 2 || got["null_pct."+utg+".order"] != 50 {
		t.Errorf("%v of %+v", got, r)
	}
}

// The schedule's ids are 0022500000…, the summary's 20260203_BOS_LAL: games are matched by
// their two teams, in either order.
func TestF18_GamesAreMatchedByTeamsWhateverTheirIds(t *testing.T) {
	w, night := warehousetest.Shared(t)
	on := " WHERE game_date = '" + string(night) + "'"
	w.Exec("UPDATE nba_raw.v_nbac_schedule_latest SET home_team_tricode = away_team_tricode, away_team_tricode = home_team_tricode"+on,
		"UPDATE nba_analytics.player_game_summary SET game_id = CONCAT('0022599', SUBSTR(game_id, 10))"+on+" AND team_abbr IN ('LAL', 'BOS')")
	tr := w.Transition()
	r := w.Check(t.Context(), tr, night, "overnight", []string{pgs})
	for _, c := range r.Checks {
		if c.Name == "game_coverage_pct" && (c.State != "pass" || *c.Value != 100) {
			t.Errorf("%+v", c)
		}
	}
	if r.Outcome != policy.Passed {
		t.Errorf("%+v", r)
	}
}

func TestExpected_ExcludesPostponedAndCancelledGames(t *testing.T) {
	w, night := warehousetest.Shared(t)
	on := " WHERE game_date = '" + string(night) + "' AND "
	w.Exec("DELETE FROM nba_analytics.player_game_summary" + on + "team_abbr" + of(4))
	tr := w.Transition()
	if r := w.Check(t.Context(), tr, night, "overnight", []string{pgs}); r.Outcome != policy.Failed {
		t.Errorf("six of ten games: %s", r.Outcome)
	}
	for team, status := range map[string]string{"LAL": "PPD", "DEN": "Postponed", "PHX": "Cancelled", "NYK": "canceled"} {
		w.Exec("UPDATE nba_raw.v_nbac_schedule_latest SET game_status_text = '" + status + "'" + on + "home_team_tricode = '" + team + "'")
	}
	w.Exec("UPDATE nba_raw.v_nbac_schedule_latest SET game_status_text = NULL" + on + "home_team_tricode = 'MIA'") // it counts
	if n, err := w.Expected(t.Context(), tr, night); n != 6 || err != nil {
		t.Errorf("%d games expected, want 6: %v", n, err)
	}
	if r := w.Check(t.Context(), tr, night, "overnight", []string{pgs}); r.Outcome != policy.Passed {
		t.Errorf("%+v", r)
	}
}

func TestF57_PlayedGamesAreNoMatterOfTheSameDayCycle(t *testing.T) {
	w, night := warehousetest.Shared(t)
	w.Exec("DELETE FROM nba_analytics.player_game_summary WHERE game_date = '" + string(night) + "'") // the games are yet to be played
	tr := w.Transition()
	for mode, want := range map[string]policy.Outcome{"same_day": policy.Passed, "tomorrow": policy.Passed, "overnight": policy.Failed} {
		r := w.Check(t.Context(), tr, night, mode, tr.Order)
		played := slices.ContainsFunc(r.Checks, func(c policy.CheckResult) bool {
			return c.Name == "game_coverage_pct" || c.Name == "minutes_coverage_pct"
		})
		if played != (mode == "overnight") {
			t.Errorf("%s asks about played games: %t", mode, played)
		}
		m, _ := tr.Mode(mode)
		if mode != "overnight" {
			r = w.Check(t.Context(), tr, night, mode, slices.Concat(m.Critical, m.Optional))
		}
		if r.Outcome != want {
			t.Errorf("%s: %+v", mode, r)
		}
	}
}

func TestCheck_CoversOnlyTablesOfHandOver(t *testing.T) {
	w, night := warehousetest.Shared(t)
	tr := w.Transition("FROM nba_analytics.player_game_summary", "FROM nba_analytics.no_such_table")
	if r := w.Check(t.Context(), tr, night, "overnight", []string{utg}); r.Outcome != policy.Passed || len(r.Checks) != 3 || r.MinutesCoverage != nil {
		t.Errorf("%+v", r)
	}
}

func TestF45_AScheduleThatCannotBeReadIsNotADateWithoutGames(t *testing.T) {
	w, night := warehousetest.Shared(t)
	tr := w.Transition()
	for p, want := range map[pipeline.Period]int64{night: 10, "2025-12-24": 0, "2026-06-30": 0} {
		if n, err := w.Expected(t.Context(), tr, p); n != want || err != nil {
			t.Errorf("%s: %d, want %d: %v", p, n, want, err)
		}
	}
	if n, err := w.Expected(t.Context(), tr, "2027-02-03"); err == nil {
		t.Errorf("far from any game on the schedule: %d", n)
	}
	if n, err := warehouse.New("p", "127.0.0.1:1").Expected(canceled(t), tr, night); err == nil {
		t.Errorf("a warehouse that is down: %d", n)
	}
}
