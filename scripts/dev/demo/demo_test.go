package demo

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/sqlite"
)

func TestDemo_WithWarehouseBlocksAndReleasesCycle(t *testing.T) {
	program := emulatortest.BigQuery(t)
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "store.db")
	env, result, err := Run(t.Context(), &out, View{Verbose: true}, local.Options{
		Config: app.Config{Project: "demo", Claim: time.Minute, Lease: lease.Max}, BigQuery: program, Logs: io.Discard,
		Stores: func(now func() time.Time) app.Stores {
			return func(context.Context, app.Config) (store.Store, error) { return sqlite.Open(file, now) }
		},
	})
	if env != nil {
		t.Cleanup(func() {
			if err := env.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	if !result.OK() || result.Published != 23 || result.Runs != 23 {
		t.Errorf("%+v", result)
	}
	_, blocked, _ := strings.Cut(out.String(), "2026-02-05 overnight: blocked — readiness fail: minutes_coverage_pct is 71.43, blocks when < 80\n")
	if !strings.Contains(blocked, "2026-02-05 overnight: published — 5 of 5 complete") || !strings.Contains(blocked, "all_complete, batch 1, data verified → player_daily_cache: success, 348 rows\n") {
		t.Errorf("%s", out.String())
	}
	if mended := "same_day, reconciliation, batch 1, data verified → player_composite_factors: success, 150 rows\n"; !strings.Contains(out.String(), mended) ||
		!strings.Contains(out.String(), "1 finding, tracking accuracy 100.0 % (") {
		t.Errorf("%s", out.String())
	}
	// The incident without the runner, what a sweep does about it, and the incident with it.
	_, incident, _ := strings.Cut(out.String(), " rows in 10 tables, 72 duplicates\n")
	var counts []string
	for _, c := range regexp.MustCompile(`, (\d+) duplicates\n|\d (removed)\n|   (undo) `).FindAllStringSubmatch(incident, -1) {
		counts = append(counts, c[1]+c[2]+c[3])
	}
	if got := strings.Join(counts, " "); got != "removed 0 undo 72 removed 0 0" {
		t.Errorf("after the incident: %s", got)
	}
	// The notifications, and the night's report.
	rest := out.String()
	for _, line := range []string{
		"tell *critical* 2026-02-03 overnight waits for player_game_summary, which failed\n", "tell *warning* a message for transition was put in quarantine: game_date: ",
		"tell *resolved* 2026-02-03 overnight is handed over\n", "tell *warning* 2026-02-04 overnight was handed over without team_defense_game_summary\n",
		"tell *critical* 2026-02-05 same_day is overdue: its deadline has passed, or it is too old to be handed over automatically\n", "tell *warning* 2026-02-05 overnight is blocked: its data is not ready\n",
		"tell *warning* late_upstream is failing\n", "tell 2026-02-06 failing: ",
		"ok       tracking_accuracy    phase3_to_phase4: 100.0 % (", "ok       hand_overs           2026-02-06 tomorrow: overdue: deadline 2026-02-05 21:00 EST passed", "ok       duplicates           none",
		"failing  late_upstream        nbac_gamebook ran first at 14:45 EST, expected by 08:00 EST\n", "ok       configuration        health tells Slack, by webhook\n",
	} {
		_, after, found := strings.Cut(rest, "   "+line)
		if !found {
			t.Errorf("no %q after what came before it in\n%s", line, rest)
			continue
		}
		rest = after
	}
	if !strings.Contains(incident, "the second: PlayerGameSummaryProcessor_2026-02-03 is locked") || !strings.Contains(incident, " rows in 10 tables, 0 duplicates\n") {
		t.Errorf("%s", out.String())
	}
	t.Run("every command of the runbook runs", func(t *testing.T) { everyCommandOfTheRunbookRuns(t, newPhasectl(t, env, "sqlite:"+file)) })
}

// The retail story needs no warehouse: an hour that comes twice on the clock, a chain of two
// transitions, a crash, a straggler, a second run, a hold.
func TestDemo_HourlyPipelineHandsOverAllPhases(t *testing.T) {
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "store.db")
	env, result, err := Run(t.Context(), &out, View{Verbose: true}, local.Options{
		Config: app.Config{Project: "demo", PipelineFile: "retail.yaml", Claim: time.Minute, Lease: lease.Max}, Logs: io.Discard,
		Stores: func(now func() time.Time) app.Stores {
			return func(context.Context, app.Config) (store.Store, error) { return sqlite.Open(file, now) }
		},
	})
	if env != nil {
		t.Cleanup(func() {
			if err := env.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	if !result.OK() || result.Published != 24+12+23+12+1+2+24+12 || result.Copies != 24 {
		t.Errorf("%+v", result)
	}
	rest := out.String()
	for _, line := range []string{
		"2026-10-25T00 enrich_to_aggregate hourly: waiting — 24 of 24 complete, not handed over before 2026-10-25 02:05 CET\n",
		"2026-10-25T00 aggregate_to_forecast hourly: published — 12 of 12 complete\n",
		"tell *warning* 2026-10-25T01 hourly of enrich_to_aggregate was handed over without footfall_west\n",
		"out  footfall_west  hourly, late_completion, batch 2\n",
		"out  sales_north  hourly, second_run, batch 3\n", "out  region_totals_north  hourly, second_run, batch 2\n",
		"2026-10-25T02 enrich_to_aggregate hourly: overdue — deadline 2026-10-25 04:50 CET passed",
		"tell *resolved* 2026-10-25T02 hourly of enrich_to_aggregate is handed over\n",
	} {
		_, after, found := strings.Cut(rest, line)
		if !found {
			t.Errorf("no %q after what came before it in\n%s", line, out.String())
			break
		}
		rest = after
	}
}

// The output fits on one screen: a crash between publishing and recording, five triggers, and the
// resumed hand-over. The demo plays and counts the rest of the night, and does not print it.
func TestDemo_PrintsTheScenesOfTheCrash(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		want []string
		most int // lines

	}{
		"nba": {"", []string{"You will see five processors complete a night", "Legend: in, run: ", "!!  the process dies: Pub/Sub has accepted its 5 triggers, and no id is recorded",
			"out  upcoming_", "=    2026-02-03 overnight: publishing — 5 of 5 complete", "out  5 copies, each with the trigger_id of its original: the next phase drops them",
			"out  a service that ignores trigger_id, behind phasectl guard: 10 deliveries so far, 5 runs", "=    2026-02-03 overnight: published — 5 of 5 complete"}, 28},
		"retail": {"retail.yaml", []string{"You will see 24 processors", "!!  the process dies: Pub/Sub has accepted its 24 triggers, and no id is recorded",
			"enrich_to_aggregate hourly: publishing — 24 of 24 complete", "copies with the same trigger_ids", "enrich_to_aggregate hourly: published — 24 of 24 complete"}, 28},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			var doing []string
			view := View{Progress: func(s string) { doing = append(doing, s) }}
			file := filepath.Join(t.TempDir(), "store.db")
			env, result, err := Run(t.Context(), &out, view, local.Options{
				Config: app.Config{Project: "demo", PipelineFile: tc.file, Claim: time.Minute, Lease: lease.Max}, Logs: io.Discard,
				Stores: func(now func() time.Time) app.Stores {
					return func(context.Context, app.Config) (store.Store, error) { return sqlite.Open(file, now) }
				},
			})
			if env != nil {
				t.Cleanup(func() {
					if err := env.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			if err != nil || !result.OK() || result.Published < 17 {
				t.Fatalf("%+v, %v", result, err)
			}
			rest := out.String()
			for _, part := range tc.want {
				_, after, found := strings.Cut(rest, part)
				if !found {
					t.Fatalf("no %q after what came before it in\n%s", part, out.String())
				}
				rest = after
			}
			if n := strings.Count(out.String(), "\n"); n > tc.most {
				t.Errorf("%d lines:\n%s", n, out.String())
			}
			if len(doing) < 10 || doing[0] != "starting Pub/Sub and the functions" || doing[len(doing)-1] != "" {
				t.Errorf("progress: %q", doing)
			}
		})
	}
}
