package terraform

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// views are the statements of docs/how-to/adopt.md that replace the tables of the previous
// orchestrator by our events.
func views(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../../docs/how-to/adopt.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(b), "```sql\n")
	block, _, _ = strings.Cut(block, "```")
	statements := strings.Split(strings.TrimSpace(block), ";")
	if len(statements) != 4 || statements[3] != "" {
		t.Fatalf("%d statements", len(statements)-1)
	}
	return statements[:3]
}

// The views only read fields that the events have.
func TestAdoptingViews_ReadFieldsThatEventsHave(t *testing.T) {
	_, _, all := recordings(t)
	for _, statement := range views(t) {
		event := regexp.MustCompile(`jsonPayload\.event = '([a-z_]+)'`).FindStringSubmatch(statement)
		if event == nil {
			t.Fatalf("no event in %s", statement)
		}
		for _, path := range payloadField.FindAllString(statement, -1) {
			if !slices.ContainsFunc(all, func(e entry) bool { return e.JSONPayload["event"] == event[1] && e.field(path) != nil }) {
				t.Errorf("no %s has %s", event[1], path)
			}
		}
	}
}

// The views have the old rows and ours, in columns of the same types.
func TestAdoptingViews_ShowOldRowsAndOurs(t *testing.T) {
	w := warehousetest.Empty(t)
	if w.Host == "" {
		t.Skip("the datasets have fixed names: this needs the emulator")
	}
	client, err := w.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"nba_orchestration", "phasegate"} {
		if err := client.Dataset(name).Create(t.Context(), &bigquery.DatasetMetadata{}); err != nil {
			t.Fatal(err)
		}
	}
	run := func(statement string) *bigquery.RowIterator {
		t.Helper()
		rows, err := client.Query(statement).Read(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		return rows
	}
	for _, statement := range append([]string{
		`CREATE TABLE nba_orchestration.phase_completions (phase STRING, game_date DATE, processor_name STRING, status STRING, record_count INT64, execution_id STRING, completed_at TIMESTAMP)`,
		`CREATE TABLE nba_orchestration.phase_completion_status (phase STRING, game_date DATE, completed_count INT64, completed_processors ARRAY<STRING>, missing_processors ARRAY<STRING>, is_triggered BOOL,
			triggered_at TIMESTAMP, trigger_reason STRING, mode STRING)`,
		`CREATE TABLE nba_orchestration.phase_execution_log (execution_timestamp TIMESTAMP, phase_name STRING, game_date DATE, start_time TIMESTAMP, duration_seconds FLOAT64, games_processed INT64, status STRING)`,
		`CREATE TABLE phasegate.run_googleapis_com_stdout (timestamp TIMESTAMP, jsonPayload STRUCT<event STRING, transition STRING, period STRING, mode STRING, processor STRING, status STRING, execution_id STRING,
			cause STRING, seconds FLOAT64, satisfied ARRAY<STRING>, missing ARRAY<STRING>>)`,
		`INSERT nba_orchestration.phase_completions VALUES ('phase3', DATE '2026-02-01', 'player_game_summary', 'success', 280, 'old', TIMESTAMP '2026-02-02 12:00:00+00')`,
		`INSERT nba_orchestration.phase_completion_status VALUES ('phase3', DATE '2026-02-01', 1, ['player_game_summary'], ['team_offense_game_summary'], TRUE, TIMESTAMP '2026-02-02 12:00:00+00', 'timeout', 'overnight')`,
		`INSERT nba_orchestration.phase_execution_log VALUES (TIMESTAMP '2026-02-02 12:00:00+00', 'phase3_to_phase4', DATE '2026-02-01', TIMESTAMP '2026-02-02 11:59:00+00', 60.0, 1, 'partial')`,
		`INSERT phasegate.run_googleapis_com_stdout VALUES
			(TIMESTAMP '2026-02-04 12:00:00+00', ('completion_recorded', 'phase3_to_phase4', '2026-02-03', 'overnight', 'player_game_summary', 'success', 'new', NULL, NULL, [], [])),
			(TIMESTAMP '2026-02-04 12:00:01+00', ('batch_published', 'phase3_to_phase4', '2026-02-03', 'overnight', NULL, NULL, NULL, 'all_complete', 30.0, ['player_game_summary'], [])),
			(TIMESTAMP '2026-02-04 13:00:00+00', ('batch_published', 'phase3_to_phase4', '2026-02-03', 'overnight', NULL, NULL, NULL, 'second_run', 1.0, ['player_game_summary'], [])),
			(TIMESTAMP '2026-02-04 13:00:00+00', ('batch_published', 'another', '2026-02-03', 'overnight', NULL, NULL, NULL, 'second_run', 1.0, ['x'], []))`,
	}, views(t)...) {
		run(statement)
	}
	for view, want := range map[string]string{
		"v_phase_completions ORDER BY game_date":       "[phase3 2026-02-01 player_game_summary success old 2026-02-02T12:00:00Z] [phase3 2026-02-03 player_game_summary success new 2026-02-04T12:00:00Z]",
		"v_phase_completion_status ORDER BY game_date": "[phase3 2026-02-01 overnight 1 [player_game_summary] [team_offense_game_summary] true 2026-02-02T12:00:00Z timeout] [phase3 2026-02-03 overnight 1 [player_game_summary] [] true 2026-02-04T13:00:00Z second_run]",
		"v_phase_execution_log ORDER BY execution_timestamp": "[2026-02-02T12:00:00Z phase3_to_phase4 2026-02-01 2026-02-02T11:59:00Z 60 1 partial] [2026-02-04T12:00:01Z phase3_to_phase4 2026-02-03 2026-02-04T11:59:31Z 30 1 complete] " +
			"[2026-02-04T13:00:00Z phase3_to_phase4 2026-02-03 2026-02-04T12:59:59Z 1 1 complete]",
	} {
		var got []string
		for rows := run("SELECT * FROM nba_orchestration." + view); ; {
			var row []bigquery.Value
			if err := rows.Next(&row); err == iterator.Done {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", view, err)
			}
			for i, v := range row {
				if at, ok := v.(time.Time); ok {
					row[i] = at.UTC().Format(time.RFC3339)
				}
			}
			got = append(got, fmt.Sprint(row))
		}
		if all := strings.Join(got, " "); all != want {
			t.Errorf("%s:\n%s, want\n%s", view, all, want)
		}
	}
}
