package pipeline

import (
	"os"
	"strings"
	"testing"
)

const zone = "'America/New_York'"

func TestStatement_IsRefusedWithoutABareConditionOnThePartitionColumn(t *testing.T) {
	v := &validator{tables: map[string]Processor{
		"d.scores": {Table: "d.scores", DateColumn: "day", Partition: PartitionByDate},
		"d.strict": {Table: "d.strict", DateColumn: "day", Partition: PartitionByDateFilter},
		"d.small":  {Table: "d.small", DateColumn: "day", Partition: PartitionNone},
	}}
	const range1 = " AND at >= TIMESTAMP_SUB(TIMESTAMP(@first), INTERVAL 1 DAY) AND at < TIMESTAMP_ADD(TIMESTAMP(@last), INTERVAL 2 DAY)"
	for sql, want := range map[string]string{
		// Tables of processors: their partition column is known.
		"SELECT COUNT(*) FROM d.scores WHERE day = @period":                                             "",
		"SELECT COUNT(*) FROM `d.scores` AS s WHERE (s.`day` IN (@period)) AND x":                       "",
		"SELECT COUNT(*) FROM `p`.`d`.`scores` WHERE @period = day":                                     "",
		"SELECT COUNT(*) FROM d.scores WHERE DATE_SUB(@period, INTERVAL 1 DAY) <= day":                  "",
		"SELECT COUNT(*) FROM d.scores WHERE day BETWEEN DATE_SUB(@period, INTERVAL 1 DAY) AND @period": "",
		"SELECT COUNT(*) FROM d.scores WHERE day >= CURRENT_DATE()":                                     "",
		"SELECT COUNT(*) FROM d.scores WHERE day = DATE '2026-02-03'":                                   "",
		"select count(*) from d.scores where Day = @period":                                             "",
		"SELECT COUNT(*) FROM d.small":                                                                  "",
		"SELECT COUNT(*) FROM other.scores":                                                             "",
		"SELECT 1 -- FROM d.scores":                                                                     "",
		"SELECT COUNT(*) FROM d.scores":                                                                 "reads d.scores without",
		"SELECT COUNT(*) FROM x JOIN d.strict USING (day)":                                              "reads d.strict without",
		"SELECT COUNT(*) FROM x JOIN `d`.`strict` AS s ON s.day = x.day":                                "reads d.strict without",
		"SELECT COUNTIF(day = @period) FROM d.scores":                                                   "reads d.scores without",
		"SELECT COUNT(*) FROM d.scores WHERE day = (SELECT MAX(day) FROM x)":                            "reads d.scores without",
		"SELECT COUNT(*) FROM d.scores WHERE day IN (SELECT day FROM x WHERE y = @period)":              "reads d.scores without",
		"SELECT COUNT(*) FROM d.scores WHERE FORMAT_DATE('%F', day) = '2026-02-03'":                     "reads d.scores without",
		"SELECT COUNT(*) FROM d.scores WHERE x OR day = @period":                                        "reads d.scores without",
		"SELECT COUNT(*) FROM d.scores /* WHERE day = @period */ WHERE name = 'day = @period'":          "reads d.scores without",
		// Other tables: a condition on the period shows the column.
		"SELECT x FROM log WHERE DATE(at, " + zone + ") BETWEEN @first AND @last":                        "a condition wraps at in DATE",
		"SELECT x FROM log AS l WHERE x AND @period = DATE(l.at, " + zone + ")":                          "a condition wraps at in DATE",
		"SELECT x FROM log WHERE (DATE(TIMESTAMP(`at`)) = @period)":                                      "a condition wraps at in DATE",
		"SELECT x FROM log WHERE CAST(at AS DATE) >= @first":                                             "a condition wraps at in CAST",
		"SELECT x FROM log WHERE DATE(at, " + zone + ") BETWEEN @first AND @last" + range1:               "",
		"SELECT x FROM log WHERE DATE(at) BETWEEN @first AND @last AND DATE(created) >= @first" + range1: "a condition wraps created in DATE",
		"SELECT COUNTIF(DATE(at) = @period) FROM log":                                                    "",
		"SELECT x FROM log WHERE at >= TIMESTAMP(@first) GROUP BY x HAVING MAX(at) < @last":              "",
		"SELECT x FROM log WHERE LOWER(name) = 'x'":                                                      "",
	} {
		v.problems = nil
		fine := v.prunes("x", sql)
		got := ""
		for _, p := range v.problems {
			got += p.Error()
		}
		if fine != (want == "") || want == "" && got != "" || !strings.HasPrefix(got, "x: "+want) && want != "" {
			t.Errorf("%s\n\tgot  %q\n\twant %q", sql, got, want)
		}
	}
}

// Every statement of a file is checked, and the error names its place and the fix.
func TestParse_ChecksThePartitionColumnOfEveryStatement(t *testing.T) {
	const wrapped = "a condition wraps triggered_at in DATE, so BigQuery reads the whole table if triggered_at is its partition column. Add a wider range of the bare column, such as triggered_at >= "
	for name, tc := range map[string]struct{ from, to, want string }{
		"upstream":  {"        AND triggered_at >= TIMESTAMP_SUB(TIMESTAMP(@first), INTERVAL 1 DAY) AND triggered_at < TIMESTAMP_ADD(TIMESTAMP(@last), INTERVAL 2 DAY)\n", "", "health.upstream.sql: " + wrapped},
		"runs":      {"      AND started_at >= TIMESTAMP_SUB(TIMESTAMP(@first), INTERVAL 1 DAY) AND started_at < TIMESTAMP_ADD(TIMESTAMP(@last), INTERVAL 2 DAY)\n", "", "health.runs: a condition wraps started_at in DATE"},
		"check":     {firstCheck, "sql: SELECT COUNT(*) FROM {table}", at + ".before_hand_over[0].sql: reads nba_analytics.player_game_summary without a condition on its partition column game_date itself"},
		"alone":     {"FROM nba_analytics.player_game_summary WHERE game_date = @period\n            )", "FROM nba_analytics.player_game_summary)", at + ".before_hand_over[1].sql: reads nba_analytics.player_game_summary without"},
		"table":     {"SELECT game_date, home_team_tricode, away_team_tricode, COALESCE(game_status_text, '') AS status\n            FROM nba_raw.v_nbac_schedule_latest", "SELECT *\n            FROM nba_analytics.player_game_summary", ""},
		"expected":  {"expected: SELECT games FROM expectation", "expected: SELECT COUNT(*) FROM nba_predictions.ml_feature_store_v2", ""},
		"by_period": {"        GROUP BY day\n", "          AND DATE(created_at) >= @first\n        GROUP BY day\n", at + ".expected_by_period: a condition wraps created_at in DATE"},
	} {
		t.Run(name, func(t *testing.T) {
			definition, _ := change(t, tc.from, tc.to)
			_, err := Parse([]byte(definition))
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantProblem(t, err, tc.want)
		})
	}
}

func TestParse_AcceptsTheStatementsOfThePipelinesOfThisProject(t *testing.T) {
	retail, err := os.ReadFile("../../scripts/dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{"nba": Default(), "retail": retail} {
		if _, err := Parse(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
