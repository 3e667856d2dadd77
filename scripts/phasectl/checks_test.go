package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/warehouse/sample"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// atWarehouse points commands at a warehouse of their own.
func atWarehouse(t *testing.T, days ...sample.Day) *warehousetest.World {
	t.Helper()
	w := warehousetest.NBA(t, days...)
	t.Setenv("BIGQUERY_EMULATOR_HOST", w.Host)
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte(w.Definition()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIPELINE_FILE", file)
	t.Setenv("GOOGLE_CLOUD_PROJECT", w.Project)
	return w
}

var sampleNight = sample.Day{Date: "2026-02-03", Games: 10, Players: 35, Minutes: 30, Context: 30}

func TestChecksVerify_FindsChecksThatCannotRun(t *testing.T) {
	w := atWarehouse(t, sampleNight)
	code, stdout, stderr := command(t, "checks", "verify")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "ok     minutes_coverage_pct\n") || !strings.Contains(stdout, "ok     all of overnight\n    at most ") ||
		!strings.Contains(stdout, "ok     table nba_analytics") {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
	w.Exec("DROP TABLE nba_analytics.upcoming_team_game_context", "CREATE TABLE nba_analytics.upcoming_team_game_context (game_date DATE)")
	code, stdout, stderr = command(t, "checks", "verify")
	if code != 1 || !strings.Contains(stderr, "verifications failed") || strings.Count(stdout, "bad ") != 4 ||
		!strings.Contains(stdout, "bad    null_pct.upcoming_team_game_context.opponent_team_abbr\n") {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
	code, stdout, _ = command(t, "checks", "verify", "--json")
	var answer struct {
		Schema int
		Checks []struct{ Name, Problem string }
	}
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil || code != 1 || answer.Schema != 1 || len(answer.Checks) != 39 {
		t.Errorf("%d, %v: %d checks\n%s", code, err, len(answer.Checks), stdout)
	}
}

// The emulator refuses to dry-run three of the four statements that write a table. The double answers as
// BigQuery does, with the bytes that each statement reads.
func TestChecksVerify_DryRunsEveryStatementThatWrites(t *testing.T) {
	w := atWarehouse(t, sampleNight)
	players := w.Rename("nba_analytics.player_game_summary")
	writes := func() (problem, warning string) {
		t.Helper()
		_, stdout, stderr := command(t, "checks", "verify", "--json")
		var answer struct {
			Checks []struct{ Name, Problem, Warning string }
		}
		if err := json.Unmarshal([]byte(stdout), &answer); err != nil {
			t.Fatalf("%v: %s%s", err, stdout, stderr)
		}
		for _, c := range answer.Checks {
			if c.Name == "writes into "+players {
				return c.Problem, c.Warning
			}
		}
		t.Fatalf("no check of writes into %s: %s", players, stdout)
		return "", ""
	}
	if problem, warning := writes(); problem != "" || warning != "the BigQuery emulator cannot dry-run merge, merge by key, removal" {
		t.Errorf("on the emulator: problem %q, warning %q", problem, warning)
	}
	p := w.Platform()
	t.Setenv("BIGQUERY_EMULATOR_HOST", p.URL("ada"))
	p.Tables[players] = warehousetest.Table{Partition: "game_date", Bytes: 3000 << 20, Days: 300}
	if problem, warning := writes(); problem != "" || warning != "" {
		t.Errorf("partitioned: problem %q, warning %q", problem, warning)
	}
	p.Tables[players] = warehousetest.Table{Bytes: 3000 << 20}
	const whole = "the table is not partitioned by game_date, so each write reads all of it, 3145728000 bytes: partition it by that column"
	if problem, warning := writes(); problem != "" || warning != whole {
		t.Errorf("without partitions: problem %q, warning %q", problem, warning)
	}
	p.Tables[players] = warehousetest.Table{Partition: "processed_at", RequireFilter: true}
	if _, stdout, _ := command(t, "checks", "verify"); !strings.Contains(stdout, "it requires a filter by processed_at, which is not its date column game_date") {
		t.Errorf("no problem for a table that requires another filter: %s", stdout)
	}
}

// checks verify only warns of a table that a processor in Go cannot write, because another program may
// fill it.
func TestChecksVerify_WarnsOfTablesThatTakeNoRows(t *testing.T) {
	w := atWarehouse(t, sampleNight)
	w.Exec("CREATE TABLE nba_analytics.players (game_date DATE, player_lookup STRING, processed_at TIMESTAMP)", "DROP TABLE nba_analytics.upcoming_player_game_context",
		"CREATE VIEW nba_analytics.upcoming_player_game_context AS SELECT * FROM nba_analytics.players")
	_, stdout, _ := command(t, "checks", "verify")
	table := w.Rename("nba_analytics.upcoming_player_game_context")
	for _, want := range []string{
		"warn   table " + table + "\n    the table does not take the rows: " + table + " is of type VIEW: name a table of type TABLE instead\n",
		"ok     table " + w.Rename("nba_analytics.player_game_summary") + "\n",
		" does not exist\n", // those of phase 4
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%s\nwithout %s", stdout, want)
		}
	}
}

// The emulator cannot dry-run a MERGE of a query, and says so.
func TestChecksVerify_VerifiesWritesUnlessTheTablesAreOnlyRead(t *testing.T) {
	w := atWarehouse(t, sampleNight)
	code, stdout, stderr := command(t, "checks", "verify")
	want := "\n    the BigQuery emulator cannot dry-run merge, merge by key, removal\n"
	if code != 0 || strings.Count(stdout, "warn   writes into ") != 5 || !strings.Contains(stdout, "warn   writes into "+w.Rename("nba_analytics.player_game_summary")+want) ||
		!strings.Contains(stdout, "warn   archive copy\n    dataset phasegate_sweep_archive does not exist, so it is not verified: make deploy creates the dataset\n") {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
	t.Setenv("PHASEGATE_TABLES", "read")
	code, stdout, stderr = command(t, "checks", "verify")
	if code != 0 || strings.Contains(stdout, "writes into") || !strings.Contains(stdout, "warn   writes\n    not verified: this environment only reads the tables (PHASEGATE_TABLES=read)\n") {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
}

func TestChecksRun_ShowsValuesAndBounds(t *testing.T) {
	w := atWarehouse(t, sampleNight)
	code, stdout, stderr := command(t, "checks", "run", "--date", "2026-02-03", "--mode", "overnight")
	if code != 0 || stderr != "" || !strings.Contains(stdout, " environment this machine\n2026-02-03 overnight: pass\n") ||
		!strings.Contains(stdout, "  warn    minutes_coverage_pct 85.71428571428571 (warns < 90, blocks < 80)\n") ||
		!strings.Contains(stdout, "  expected of the period: 10\n") {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
	code, stdout, _ = command(t, "checks", "run", "--date", "2026-02-04", "--mode", "same_day", "--json")
	m := object(t, stdout)
	if code != 1 || m["schema"] != 1.0 || m["outcome"] != "fail" || m["expected"] != 0.0 || m["mode"] != "same_day" {
		t.Errorf("%d %v", code, m)
	}
	w.Exec("DELETE FROM nba_raw.v_nbac_schedule_latest WHERE TRUE")
	code, stdout, _ = command(t, "checks", "run", "--date", "2026-02-03", "--mode", "overnight", "--json")
	if m := object(t, stdout); code != 2 || m["outcome"] != "unknown" || m["expected"] != nil || m["expected_problem"] == "" {
		t.Errorf("%d %v", code, m)
	}
}

func TestChecks_RefuseInvalidFlagsAndMissingWarehouse(t *testing.T) {
	t.Setenv("GOOGLE_CLOUD_PROJECT", "p")
	for name, tc := range map[string]struct {
		env  [2]string
		args []string
		code int
		part string
	}{
		"date":       {args: []string{"run", "--date", "tomorrow", "--mode", "overnight"}, code: 64, part: `PERIOD: "tomorrow"`},
		"mode":       {args: []string{"run", "--date", "2026-02-03", "--mode", "weekly"}, code: 64, part: `MODE: "weekly": phase3_to_phase4 has tomorrow, same_day, overnight`},
		"transition": {args: []string{"run", "--date", "2026-02-03", "--mode", "overnight", "--transition", "x"}, code: 64, part: `--transition: "x"`},
		"local":      {env: [2]string{"PHASEGATE_STORE", "sqlite:x.db"}, args: []string{"verify"}, code: 2, part: "BIGQUERY_EMULATOR_HOST is not set"},
		"emulator":   {env: [2]string{"FIRESTORE_EMULATOR_HOST", "127.0.0.1:1"}, args: []string{"run", "--date", "2026-02-03", "--mode", "overnight"}, code: 2, part: "BIGQUERY_EMULATOR_HOST is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.env[0] != "" {
				t.Setenv(tc.env[0], tc.env[1])
			}
			if code, _, stderr := command(t, append([]string{"checks"}, tc.args...)...); code != tc.code || !strings.Contains(stderr, tc.part) {
				t.Errorf("%d %q", code, stderr)
			}
		})
	}
}
