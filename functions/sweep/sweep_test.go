package sweep_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/sweep"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
	"github.com/phasegate/phasegate/shared/wire"
)

var now = time.Date(2026, 2, 4, 15, 50, 0, 0, time.UTC)

// world is an application on an emulator's tables, all ten of them.
type world struct {
	*app.App
	tables *warehousetest.World
	logs   *apptest.Logs
	t      *testing.T
}

func newWorld(t *testing.T, shadow string) *world {
	t.Helper()
	w := &world{tables: warehousetest.NBA(t), logs: &apptest.Logs{}, t: t}
	if w.tables.Host == "" {
		t.Skip("what is removed is removed from an emulator")
	}
	if err := w.tables.Sample().CreateFurther(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte(w.tables.Definition()), 0o600); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return now }
	c := app.Config{Project: w.tables.Project, PipelineFile: file, Store: "memory", Claim: time.Minute, Lease: lease.Max, Local: true,
		PubSubHost: "127.0.0.1:1", BigQueryHost: w.tables.Host, Shadow: shadow, Prefix: "t" + strings.TrimPrefix(w.tables.Suffix(), "_") + "-"}
	var err error
	w.App, err = app.Open(t.Context(), c, func(context.Context, app.Config) (store.Store, error) { return memory.New(clock), nil }, clock, w.logs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.App.Close() })
	client, err := w.Warehouse.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Dataset(w.Config.Archive()).Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return w
}

// doubled puts five teams into a table for a date, one of them twice.
func (w *world) doubled(table, date string) {
	var rows []string
	for _, team := range []string{"ATL", "BOS", "CHI", "DAL", "DAL"} {
		rows = append(rows, fmt.Sprintf("(DATE '%s', '%s', TIMESTAMP '2026-02-04 11:03:12')", date, team))
	}
	w.tables.Exec("INSERT INTO " + table + " VALUES " + strings.Join(rows, ", "))
}

func (w *world) job(data string) int {
	w.t.Helper()
	h := sweep.New(func(context.Context) (*app.App, error) { return w.App, nil })
	rec := httptest.NewRecorder()
	body := wire.Envelope{MessageID: "job-1", PublishTime: now, Data: []byte(data)}.Push()
	h.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(string(body))))
	return rec.Code
}

const (
	marked   = "nba_analytics.upcoming_team_game_context (game_date, team_abbr, processed_at)"
	unmarked = "nba_precompute.team_defense_zone_analysis (analysis_date, team_abbr, processed_at)"
)

func (w *world) want(marked, unmarked int64) {
	w.t.Helper()
	if a, b := w.tables.Count("nba_analytics.upcoming_team_game_context"), w.tables.Count("nba_precompute.team_defense_zone_analysis"); a != marked || b != unmarked {
		w.t.Errorf("%d and %d rows, want %d and %d", a, b, marked, unmarked)
	}
}

func (w *world) heartbeats() int { return len(w.logs.Lines("event", "heartbeat")) }

func TestSweep_RemovesDuplicatesOnlyWherePermitted(t *testing.T) {
	w := newWorld(t, "")
	w.doubled(marked, "2026-02-03")
	w.doubled(unmarked, "2026-02-03")
	w.doubled(marked, "2026-01-28") // eight days ago
	if code := w.job(`{"job":"sweep"}`); code != 204 {
		t.Fatalf("%d", code)
	}
	w.want(9, 5)
	found := w.logs.Lines("event", "duplicates_found")
	if len(found) != 2 || found[0]["state"] != "removed" || found[0]["left"] != 0.0 || found[1]["state"] != "found" || found[1]["duplicates"] != 1.0 || found[1]["left"] != 1.0 {
		t.Errorf("%v", found)
	}
	if w.heartbeats() != 1 {
		t.Errorf("%d heartbeats", w.heartbeats())
	}
	// A job about one table and date, as reconciliation and processors send it.
	if code := w.job(`{"job":"sweep","table":"` + w.tables.Rename("nba_analytics.upcoming_team_game_context") + `","date":"2026-01-28"}`); code != 204 {
		t.Errorf("%d", code)
	}
	w.want(8, 5)
	if w.heartbeats() != 1 {
		t.Errorf("a sweep of one table is not the nightly one: %d heartbeats", w.heartbeats())
	}
}

func TestSweep_ShadowRemovesNothing(t *testing.T) {
	w := newWorld(t, "shadow_")
	w.doubled(marked, "2026-02-03")
	if code := w.job(`{"job":"sweep"}`); code != 204 {
		t.Fatalf("%d", code)
	}
	w.want(5, 0)
}

func TestSweep_RemovesNothingWhereAnotherEnvironmentWrites(t *testing.T) {
	w := newWorld(t, "")
	w.App.Config.ReadOnly = true
	w.doubled(marked, "2026-02-03")
	if code := w.job(`{"job":"sweep"}`); code != 204 {
		t.Fatalf("%d", code)
	}
	w.want(5, 0)
}

func TestSweep_IsRetriedForLockButNotForMissingTable(t *testing.T) {
	w := newWorld(t, "")
	w.doubled(marked, "2026-02-03")
	held, err := w.Locks.Acquire(t.Context(), lease.Key{Class: "UpcomingTeamGameContextProcessor", Period: "2026-02-03"}, "run-1")
	if err != nil {
		t.Fatal(err)
	}
	if code := w.job(`{"job":"sweep"}`); code != 429 || w.heartbeats() != 0 || len(w.logs.Lines("severity", "ERROR")) != 0 {
		t.Errorf("%d, %d heartbeats, %v", code, w.heartbeats(), w.logs.Lines("severity", "ERROR"))
	}
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.tables.Exec("DROP TABLE nba_precompute.player_daily_cache")
	if code := w.job(`{"job":"sweep"}`); code != 204 || w.heartbeats() != 0 {
		t.Errorf("%d, %d heartbeats", code, w.heartbeats())
	}
	w.want(4, 0)
	if unknown := w.logs.Lines("event", "check_unknown"); len(unknown) != 1 || !strings.Contains(fmt.Sprint(unknown[0]["message"]), "player_daily_cache") {
		t.Errorf("%v", unknown)
	}
}

func TestSweep_InvalidJobIsQuarantined(t *testing.T) {
	for data, field := range map[string]string{
		`{"job":"relay"}`: "job", `{"job":"sweep","table":"roster_history"}`: "table", `{"job":"sweep","date":"YESTERDAY"}`: "date", `{"job":"sweep","speed":9}`: "speed",
	} {
		w := apptest.New(t, now)
		w.App.Warehouse = warehouse.New("test", "127.0.0.1:1")
		h := sweep.New(func(context.Context) (*app.App, error) { return w.App, nil })
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(string(wire.Envelope{MessageID: "job-1", PublishTime: now, Data: []byte(data)}.Push()))))
		if rec.Code != 202 || w.Doc(t, "quarantine", "job-1").Data["field"] != field {
			t.Errorf("%s: %d %s, %v", data, rec.Code, rec.Body, w.Doc(t, "quarantine", "job-1").Data["field"])
		}
	}
}

func TestSweep_WithoutWarehouseIsNotRetried(t *testing.T) {
	w := apptest.New(t, now)
	h := sweep.New(func(context.Context) (*app.App, error) { return w.App, nil })
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(string(wire.Envelope{MessageID: "job-1", PublishTime: now, Data: []byte(`{"job":"sweep"}`)}.Push()))))
	if rec.Code != 204 || len(w.Logs.Lines("event", "check_unknown")) != 1 || len(w.Logs.Lines("event", "heartbeat")) != 0 {
		t.Errorf("%d %v", rec.Code, w.Logs.Lines("severity", "ERROR"))
	}
}
