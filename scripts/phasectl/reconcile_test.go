package main

import (
	"strings"
	"testing"
)

func TestReconcile_ExitStatusReflectsFindings(t *testing.T) {
	running(t)
	// Without a warehouse the result is unknown, never ok.
	code, stdout, _ := command(t, "reconcile", "--json")
	if report := object(t, stdout); code != 2 || report["schema"] != 1.0 || len(report["unknown"].([]any)) == 0 || report["findings"] == nil {
		t.Errorf("%d %s", code, stdout)
	}
	if code, stdout, _ := command(t, "report", "--days", "7"); code != 2 || !strings.Contains(stdout, "  tracking accuracy  unknown\n") || !strings.Contains(stdout, "  on time            none (0)\n") {
		t.Errorf("%d %s", code, stdout)
	}
	if code, stdout, _ := command(t, "report", "--json"); code != 2 || len(object(t, stdout)["transitions"].([]any)) != 1 {
		t.Errorf("%d %s", code, stdout)
	}
	if code, stdout, _ := command(t, "reconcile"); code != 2 || !strings.Contains(stdout, "unknown  nba_analytics.player_game_summary: no BigQuery is configured\n") ||
		!strings.Contains(stdout, "tracking accuracy unknown\n") {
		t.Errorf("%d %s", code, stdout)
	}
}
