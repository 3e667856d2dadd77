package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/store/sqlite"
)

func TestSweep_FindsRemovesAndRestoresRows(t *testing.T) {
	w := atWarehouse(t)
	if w.Host == "" {
		t.Skip("what is removed is removed from an emulator")
	}
	if err := w.Sample().CreateFurther(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "store.db")
	st, err := sqlite.Open(file, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	st.Close()
	t.Setenv("PHASEGATE_STORE", "sqlite:"+file)
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1") // no request goes there
	prefix := "t" + strings.TrimPrefix(w.Suffix(), "_") + "-"
	t.Setenv("PHASEGATE_PREFIX", prefix)
	t.Setenv("PHASEGATE_TABLES", "write")
	client, err := w.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Dataset(app.Config{Prefix: prefix}.Archive()).Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	w.Exec(`INSERT INTO nba_analytics.upcoming_team_game_context (game_date, team_abbr, processed_at) VALUES
		(DATE '2026-02-03', 'ATL', TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'ATL', TIMESTAMP '2026-02-04 11:00:18'),
		(DATE '2026-02-03', 'BOS', TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'CHI', TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'DEN', TIMESTAMP '2026-02-04 11:00:00')`)
	table := w.Rename("nba_analytics.upcoming_team_game_context")
	rows := func(n int64) {
		t.Helper()
		if got := w.Count("nba_analytics.upcoming_team_game_context"); got != n {
			t.Errorf("%d rows, want %d", got, n)
		}
	}
	night := []string{"--table", "upcoming_team_game_context", "--from", "2026-02-03", "--to", "2026-02-03"}
	sweep := func(more ...string) []string { return append(append([]string{"sweep"}, night...), more...) }

	want(t, 1, []string{"found  info  2026-02-03  " + table + "  1 of 5 rows too many\n", "written 2026-02-04 06:00:00 EST to 2026-02-04 06:00:18 EST",
		"1 key has more than one row, and the rows of a key differ", "game_date=2026-02-03, team_abbr=ATL: 2 rows",
		"\n2026-02-03 to 2026-02-03: 1 duplicate, 0 removed, 1 left, 0 unknown; ",
		"to remove them: phasectl sweep 2026-02-03 --table upcoming_team_game_context --fix\n"}, sweep()...)
	rows(5)
	want(t, 0, []string{"nothing was removed in the last 30 days"}, "sweep", "list")
	_, stdout, _ := command(t, sweep("--fix")...)
	id := regexp.MustCompile(`phasectl sweep undo (\S+)`).FindStringSubmatch(stdout)
	if !strings.Contains(stdout, "removed  info") || len(id) != 2 {
		t.Fatalf("%s", stdout)
	}
	rows(4)
	want(t, 0, []string{"applied  2026-02-03  " + table + "  1 row\n  by ", "phasectl sweep undo " + id[1]}, "sweep", "list")
	want(t, 0, []string{id[1] + ": 1 row is back in " + table + " for 2026-02-03\n"}, "sweep", "undo", id[1], "--reason", "the wrong one stayed")
	rows(5)
	want(t, 0, []string{id[1] + ": was undone before\n"}, "sweep", "undo", id[1])
	code, stdout, _ := command(t, sweep("--fix", "--json")...)
	m := object(t, stdout)
	part := m["tables"].([]any)[0].(map[string]any)
	if code != 0 || m["schema"] != 1.0 || m["sweep_id"] == "" || part["table"] != table || part["period"] != "2026-02-03" || part["duplicates"] != 1.0 || part["removed"] != 1.0 || part["state"] != "removed" || part["bytes"] == nil {
		t.Errorf("%d %s", code, stdout)
	}
	want(t, 0, []string{"clean      " + table}, sweep()...)
	rows(4)
	// undo also takes the id of a whole sweep.
	want(t, 0, []string{"row is back"}, "sweep", "undo", m["sweep_id"].(string))
	rows(5)

	// In shadow nothing is removed, and nothing put back.
	t.Setenv("PHASEGATE_SHADOW", "true")
	for _, line := range [][]string{sweep("--fix"), {"sweep", "undo", id[1]}} {
		if code, _, stderr := command(t, line...); code != 64 || !strings.Contains(stderr, "a shadow removes no rows") {
			t.Errorf("%v: %d %s", line, code, stderr)
		}
	}
	t.Setenv("PHASEGATE_SHADOW", "false")
	// The same holds if another environment writes the tables.
	t.Setenv("PHASEGATE_TABLES", "read")
	for _, line := range [][]string{sweep("--fix"), {"sweep", "undo", id[1]}} {
		if code, _, stderr := command(t, line...); code != 64 || !strings.Contains(stderr, "PHASEGATE_TABLES: an environment that only reads") {
			t.Errorf("%v: %d %s", line, code, stderr)
		}
	}
	t.Setenv("PHASEGATE_TABLES", "write")
	rows(5)

	// undo restores the other parts of a sweep if one part is refused.
	w.Exec(`INSERT INTO nba_analytics.upcoming_team_game_context (game_date, team_abbr, processed_at) SELECT DATE '2026-02-02', team_abbr, processed_at
		FROM nba_analytics.upcoming_team_game_context WHERE game_date = DATE '2026-02-03'`)
	_, stdout, _ = command(t, "sweep", "--table", "upcoming_team_game_context", "--from", "2026-02-02", "--to", "2026-02-03", "--fix", "--json")
	several := object(t, stdout)["sweep_id"].(string)
	w.Exec("UPDATE nba_analytics.upcoming_team_game_context SET processed_at = TIMESTAMP '2026-02-04 12:00:00' WHERE game_date = DATE '2026-02-02' AND team_abbr = 'ATL'")
	if code, _, stderr := command(t, "sweep", "undo", several); code != 1 || !strings.Contains(stderr, "were rewritten since") {
		t.Errorf("one is refused: %d %s", code, stderr)
	}
	rows(9)

	want(t, 64, []string{"--table"}, "sweep", "--table", "roster_history")
	if code, _, stderr := command(t, "sweep", "undo", "20260204t155000-none"); code != 1 || !strings.Contains(stderr, "no such sweep") {
		t.Errorf("%d %s", code, stderr)
	}
	w.Exec("DROP TABLE nba_analytics.upcoming_team_game_context")
	if code, stdout, _ := command(t, sweep()...); code != 2 || !strings.Contains(stdout, "unknown") {
		t.Errorf("%d %s", code, stdout)
	}
	t.Setenv("BIGQUERY_EMULATOR_HOST", "")
	if code, _, stderr := command(t, sweep()...); code != 2 || !strings.Contains(stderr, "no BigQuery is configured") {
		t.Errorf("%d %s", code, stderr)
	}
}

func TestSweep_SaysPlainlyWhetherRowsOfAKeyDiffer(t *testing.T) {
	for _, c := range []struct {
		keys, identical int64
		want            string
	}{
		{1, 0, "1 key has more than one row, and the rows of a key differ"},
		{1, 1, "1 key has more than one row, and the rows of a key are identical"},
		{8, 0, "8 keys have more than one row, and the rows of a key differ"},
		{8, 8, "8 keys have more than one row, and the rows of a key are identical"},
		{8, 3, "8 keys have more than one row. The rows are identical for 3 of these keys, and differ for 5"},
	} {
		if got := keysText(c.keys, c.identical); got != c.want {
			t.Errorf("%d of %d: %q, want %q", c.identical, c.keys, got, c.want)
		}
	}
}
