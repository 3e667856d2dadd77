package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The values of the contract: what is asked of which mode, and where it warns and blocks.
func TestDefault_Checks(t *testing.T) {
	tr := nbaPipeline(t).Transitions[0]
	if c := tr.Checks; c.Timeout != 30*time.Second || c.MaxBytesBilled != 1e9 || c.Expected == "" {
		t.Errorf("timeout %s, %d bytes, expected %q", c.Timeout, c.MaxBytesBilled, c.Expected)
	}
	upcoming := []string{
		"row_count.upcoming_player_game_context < 1", "row_count.upcoming_team_game_context < 1",
		"context_rows_pct.upcoming_player_game_context < 80 < 50", "team_rows_pct.upcoming_team_game_context < 80 < 50",
		"null_pct.upcoming_player_game_context.team_abbr >= 5 >= 50", "null_pct.upcoming_player_game_context.opponent_team_abbr >= 5 >= 50",
		"null_pct.upcoming_team_game_context.opponent_team_abbr >= 5 >= 50",
	}
	for mode, want := range map[string][]string{
		"tomorrow": upcoming,
		"same_day": upcoming,
		"overnight": append([]string{
			"row_count.player_game_summary < 1", "row_count.team_defense_game_summary < 1", "row_count.team_offense_game_summary < 1",
			"game_coverage_pct < 80", "minutes_coverage_pct < 90 < 80",
			"player_rows_pct.player_game_summary < 80 < 50",
			"team_rows_pct.team_defense_game_summary < 80 < 50", "team_rows_pct.team_offense_game_summary < 80 < 50",
			"null_pct.player_game_summary.team_abbr >= 5 >= 50", "null_pct.player_game_summary.points >= 5 >= 50",
			"null_pct.team_defense_game_summary.points_allowed >= 5 >= 50", "null_pct.team_offense_game_summary.points_scored >= 5 >= 50",
		}, upcoming...),
		"weekly": nil,
	} {
		m, _ := tr.Mode(mode)
		var got []string
		for _, c := range tr.Checks.For(mode, slices.Concat(m.Critical, m.Optional)) {
			got = append(got, strings.Join(strings.Fields(c.Name+" "+c.Warn.String()+" "+c.Block.String()), " "))
			if c.Unknown != UnknownBlocks {
				t.Errorf("%s: unknown means %s", c.Name, c.Unknown)
			}
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", mode, diff)
		}
	}
	if got := tr.Checks.For("overnight", []string{"upcoming_team_game_context"}); len(got) != 3 {
		t.Errorf("a hand-over of one table alone is asked %d checks", len(got))
	}
}

func TestCheck_QuotesNamesOfEachTable(t *testing.T) {
	c := Check{Name: "n", SQL: "SELECT {column} FROM {table} WHERE {date_column} = @period AND {column} > 0", Processors: []string{"p", "q"}}
	of := []Processor{
		{Name: "p", Table: "d.select", DateColumn: "from", Filled: []string{"order", "by"}},
		{Name: "q", Table: "d.q", DateColumn: "day"},
		{Name: "r", Table: "d.r", DateColumn: "day", Filled: []string{"x"}},
	}
	var got []string
	for _, c := range c.each(of, true) {
		got = append(got, fmt.Sprint(c.Name, " ", c.Processors, " ", c.SQL))
	}
	want := []string{
		"n.p.order [p] SELECT `order` FROM `d.select` WHERE `from` = @period AND `order` > 0",
		"n.p.by [p] SELECT `by` FROM `d.select` WHERE `from` = @period AND `by` > 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := c.each(of, false); len(got) != 2 || got[1].Name != "n.q" {
		t.Errorf("%+v", got)
	}
}

const (
	coverage   = "        - name: game_coverage_pct\n"
	firstCheck = "sql: SELECT COUNT(*) FROM {table} WHERE {date_column} = @period"
	at         = "transitions[0].checks"
)

func TestCheck_NamesEachProblem(t *testing.T) {
	for name, tc := range map[string]struct{ from, to, want string }{
		"unknown_field":     {`block: "< 1"`, `severity: block`, "line {line}: field severity not found"},
		"timeout":           {"timeout: 30s", "timeout: soon", at + `.timeout: "soon" is no positive duration`},
		"timeout_long":      {"timeout: 30s", "timeout: 51s", at + ".timeout: 51s is more than 50s"},
		"bytes":             {"max_bytes_billed: 1000000000", "max_bytes_billed: 0", at + ".max_bytes_billed: must be positive, is 0"},
		"dataset":           {"datasets: [nba_raw, nba_analytics]", "datasets: [nba_raw, nba_analytics, \"a`b\"]", at + ".datasets[2]: \"a`b\" is no dataset"},
		"dataset_twice":     {"datasets: [nba_raw, nba_analytics]", "datasets: [nba_raw, nba_analytics, nba_raw]", at + `.datasets[2]: dataset "nba_raw" is declared twice`},
		"dataset_missing":   {"datasets: [nba_raw, nba_analytics]", "datasets: [nba_raw]", at + `.datasets: "nba_analytics", that of player_game_summary, is missing`},
		"table_name":        {"- name: schedule", "- name: sched`ule", at + ".tables[0].name: \"sched`ule\" is no safe name"},
		"table_twice":       {"- name: games", "- name: schedule", at + `.tables[1].name: table "schedule" is declared twice`},
		"table_parameter":   {"WHERE game_date = @period AND", "WHERE game_date = @perod AND", at + `.tables[1].sql: unknown parameter "@perod"`},
		"table_placeholder": {"FROM nba_raw.v_nbac_schedule_latest", "FROM {table}", at + `.tables[0].sql: unknown placeholder "{table}"`},
		"expected":          {"expected: SELECT games FROM expectation", "expected: SELECT 1; SELECT 2", at + ".expected: holds a semicolon"},
		"none":              {coverage, "      no_checks:\n" + coverage, "line {line}: field no_checks not found"},
		"check_name":        {"- name: row_count", "- name: Row count", at + `.before_hand_over[0].name: "Row count" is no safe name`},
		"check_twice":       {"- name: game_coverage_pct", "- name: row_count", at + `.before_hand_over[1].name: check "row_count" is declared twice`},
		"no_sql":            {firstCheck, `sql: " "`, at + ".before_hand_over[0].sql: is required"},
		"two_statements":    {firstCheck, "sql: SELECT 1; DROP TABLE nba_analytics.player_game_summary", at + ".before_hand_over[0].sql: holds a semicolon"},
		"parameter":         {firstCheck, "sql: SELECT @date", at + `.before_hand_over[0].sql: unknown parameter "@date"`},
		"system_variable":   {firstCheck, "sql: SELECT @@project_id", at + `.before_hand_over[0].sql: unknown parameter "@@project_id"`},
		"placeholder":       {firstCheck, "sql: SELECT COUNT(*) FROM {tabel}", at + `.before_hand_over[0].sql: unknown placeholder "{tabel}"`},
		"mode":              {"modes: [overnight]\n          processors", "modes: [overnite]\n          processors", at + `.before_hand_over[1].modes[0]: unknown mode "overnite"`},
		"mode_twice":        {"modes: [overnight]\n          processors", "modes: [overnight, overnight]\n          processors", at + `.before_hand_over[1].modes[1]: mode "overnight" is declared twice`},
		"processor":         {coverage + "          modes: [overnight]\n          processors: [player_game_summary]", coverage + "          processors: [player_daily_cache]", at + `.before_hand_over[1].processors[0]: "player_daily_cache" is expected by no mode`},
		"no_bound":          {`          block: "< 1"` + "\n", "", at + ".before_hand_over[0]: neither warn nor block"},
		"bound":             {`block: "< 1"`, `block: "1"`, at + `.before_hand_over[0].block: "1" is no bound`},
		"bound_nan":         {`block: "< 1"`, `block: "< NaN"`, at + `.before_hand_over[0].block: "< NaN" is no bound`},
		"bound_operator":    {`block: "< 1"`, `block: "<> 1"`, at + `.before_hand_over[0].block: "<> 1" is no bound`},
		"bound_injection":   {`block: "< 1"`, `warn: "< 1 OR 1=1"`, at + `.before_hand_over[0].warn: "< 1 OR 1=1" is no bound`},
		"unknown":           {`block: "< 1"`, "block: \"< 1\"\n          unknown: pass", at + `.before_hand_over[0].unknown: "pass" is not one of block, warn`},
		"filled_column":     {"filled: [points_allowed]", "filled: [\"points` IS NULL OR `x\"]", "phases[0].processors[1].filled[0]: \"points` IS NULL OR `x\" is no column name"},
		"filled_twice":      {"filled: [points_allowed]", "filled: [a, a]", `phases[0].processors[1].filled[1]: column "a" is declared twice`},
	} {
		t.Run(name, func(t *testing.T) {
			definition, line := change(t, tc.from, tc.to)
			_, err := Parse([]byte(definition))
			wantProblem(t, err, atLine(tc.want, line))
		})
	}
}

func TestCheck_IgnoresParametersInLiteralsAndComments(t *testing.T) {
	definition, _ := change(t, firstCheck, "sql: |\n            SELECT COUNT(*) /* @b; {x} */ FROM {table} -- it's @c;\n"+
		"            WHERE name NOT IN ('a@b;', \"it's {y}\", '''@d ' {z}''', r'\\d', '@e') AND {date_column} = @period # @f")
	p, err := Parse([]byte(definition))
	if err != nil {
		t.Fatal(err)
	}
	if c := p.Transitions[0].Checks.All[0]; !strings.Contains(c.SQL, "'a@b;', \"it's {y}\"") {
		t.Errorf("%s", c.SQL)
	}
}

func TestParse_AcceptsPipelineWithoutChecks(t *testing.T) {
	before, rest, _ := strings.Cut(string(Default()), "    checks:\n")
	_, after, _ := strings.Cut(rest, "\n# Jobs")
	p, err := Parse([]byte(before + "\n# Jobs" + after))
	if err != nil || p.Transitions[0].Checks != nil {
		t.Errorf("%v", err)
	}
}

func TestBound_CrossesAtItsLimit(t *testing.T) {
	for _, tc := range []struct {
		bound         string
		below, at, up bool // crossed by 79, 80 and 81
	}{
		{"< 80", true, false, false}, {"<= 80", true, true, false}, {"> 80", false, false, true}, {">= 80.0", false, true, true},
	} {
		v := &validator{}
		b := v.bound("x", tc.bound)
		if len(v.problems) > 0 || b.Crossed(79) != tc.below || b.Crossed(80) != tc.at || b.Crossed(81) != tc.up {
			t.Errorf("%s: %v %v %v %v", tc.bound, b.Crossed(79), b.Crossed(80), b.Crossed(81), v.problems)
		}
		if want := strings.TrimSuffix(tc.bound, ".0"); b.String() != want {
			t.Errorf("%q is written %q", tc.bound, b.String())
		}
	}
	if none := (*Bound)(nil); none.Crossed(0) || none.String() != "" {
		t.Error("no bound is crossed")
	}
}
