package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// written puts a changed default pipeline into a file. Texts come in pairs.
func written(t *testing.T, pairs ...string) string {
	t.Helper()
	text := string(pipeline.Default())
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q is not in the default pipeline", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPipelineCheck_SaysInWordsWhatAFileMeans(t *testing.T) {
	file := written(t, "    trigger_within: 72h\n", "")
	want(t, 0, []string{file + " is valid: pipeline nba, hash ", "  a period is a day in America/New_York, written 20",
		"transition phase3_to_phase4: from phase_3_analytics to phase_4_precompute\n",
		"    earliest  05:00 on the next day (of 20", " 05:00 E",
		"    grace     30m after the critical processors and 60 % of all are complete: then without the rest\n",
		"    deadline  10:00 on the next day (of 20", "  transitions[0].trigger_within: 72h\n", "  relay    */5 * * * * in UTC, next 20",
	}, "pipeline", "check", file)
	want(t, 0, []string{"    counts    runs that end at or after 0 minutes past the next hour", "    earliest  5 minutes past the next hour", "    deadline  15 minutes past the hour that is 2 hours later",
		"  transitions[].modes[].at_deadline: hold (2 times)\n", "  phases[].processors[].class: from the name, such as SalesNorthProcessor (40 times)\n", "warnings\n  transitions[1] has no checks"}, "pipeline", "check", "../dev/demo/retail.yaml")
}

// pipeline check needs no project, credentials or store.
func TestPipelineCheck_NamesEachProblem(t *testing.T) {
	file := written(t, "quorum_pct", "quorum_pc", "complete: all", "complete: al")
	want(t, 1, []string{file + " is not valid:\n", `: field quorum_pc not found in transitions[0].modes[2].grace; did you mean "quorum_pct"?`,
		`  transitions[0].modes[2].complete: "al" is not one of all, critical; did you mean "all"?`}, "pipeline", "check", file)
	code, stdout, _ := command(t, "pipeline", "check", file, "--json")
	m := object(t, stdout)
	if problems, _ := m["problems"].([]any); code != 1 || m["schema"] != 1.0 || m["valid"] != false || len(problems) < 2 {
		t.Errorf("%d %s", code, stdout)
	}
	code, stdout, _ = command(t, "pipeline", "check", "../../shared/pipeline/nba.yaml", "--json")
	m = object(t, stdout)
	if transitions, _ := m["transitions"].([]any); code != 0 || m["valid"] != true || len(transitions) != 1 {
		t.Errorf("%d %s", code, stdout)
	}
	if code, stdout, _ := command(t, "pipeline", "check", "--pipeline", "../../shared/pipeline/nba.yaml"); code != 0 || !strings.HasPrefix(stdout, "../../shared/pipeline/nba.yaml is valid") {
		t.Errorf("%d %s", code, stdout)
	}
	one := written(t, "quorum_pct", "quorum_pc")
	want(t, 1, []string{one + " has 1 problem\n"}, "pipeline", "check", one)
}

// The night has an overnight cycle that waits for five processors and its deadline.
func TestPipelineDiff_ShowsOpenCyclesAndTheDeployment(t *testing.T) {
	night(t)
	changed := written(t, "critical: [player_game_summary, upcoming_player_game_context]\n        optional: [team_defense_game_summary, team_offense_game_summary, upcoming_team_game_context]",
		"critical: [upcoming_player_game_context]\n        optional: [upcoming_team_game_context]",
		"        - player_game_summary\n        - team_defense_game_summary\n        - team_offense_game_summary\n", "", `deadline: "+1d 10:00"`, `deadline: "+1d 11:00"`, `cron: "30 10 * * *"`, `cron: "30 11 * * *"`,
		"processors: [player_game_summary]", "processors: [upcoming_team_game_context]", "processors: [team_defense_game_summary, team_offense_game_summary, upcoming_team_game_context]", "processors: [upcoming_team_game_context]")
	code, stdout, stderr := command(t, "pipeline", "diff", changed, "--days", "365")
	for _, part := range []string{
		"  ~ transition phase3_to_phase4 mode overnight deadline: 10:00 on the next day → 11:00 on the next day\n",
		"  ~ transition phase3_to_phase4 mode overnight critical: player_game_summary, upcoming_player_game_context → upcoming_player_game_context\n",
		"  ~ scheduler job phasegate-nightly: 30 10 * * * in America/New_York, job nightly → 30 11 * * * in America/New_York, job nightly\n",
		"  ~ function phasegate-transition: pipeline file ",
		"  2026-02-03 overnight of phase3_to_phase4\n    before  ", "\n    after   ",
	} {
		if code != 1 || !strings.Contains(stdout, part) {
			t.Errorf("%d, without %q:\n%s%s", code, part, stdout, stderr)
		}
	}
	code, stdout, _ = command(t, "pipeline", "diff", changed, "--days", "365", "--json")
	var d difference
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != 1 || object(t, stdout)["schema"] != 1.0 || len(d.Cycles) == 0 || d.Unknown != "" {
		t.Errorf("%d %v %s", code, err, stdout)
	}
}

func TestPipelineDiff_OfEqualFilesFindsNothing(t *testing.T) {
	night(t)
	same := written(t)
	want(t, 0, []string{"the files are equal: hash "}, "pipeline", "diff", same)
}

// Without a store, pipeline diff shows the rules and the deployment, and reports the open cycles as unknown.
func TestPipelineDiff_SaysWhenCyclesAreUnknown(t *testing.T) {
	t.Setenv("GOOGLE_CLOUD_PROJECT", "p")
	t.Setenv("PHASEGATE_STORE", "sqlite:"+filepath.Join(t.TempDir(), "none.db"))
	want(t, 2, []string{"  ~ transition phase3_to_phase4: from ", "open cycles\n  unknown: PHASEGATE_STORE: "}, "pipeline", "diff", written(t, "trigger_within: 72h", "trigger_within: 73h"))
	if code, _, stderr := command(t, "pipeline", "diff", written(t, "quorum_pct", "quorum_pc")); code != 64 || !strings.Contains(stderr, `did you mean "quorum_pct"?`) {
		t.Errorf("%d %s", code, stderr)
	}
}
