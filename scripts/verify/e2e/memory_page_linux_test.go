package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/sqlite"
	"github.com/phasegate/phasegate/shared/wire"
)

// Three months of 300 processors by the hour, all handed over: pages of different windows at once,
// none of which can join the read of another. The Firestore emulator cannot read that in a request's time,
// so the store is SQLite.
func TestMemory_StatusPageByTheHourFitsIntoItsInstance(t *testing.T) {
	needEmulators(t)
	i := deployed(t, "health")
	folder := t.TempDir()
	definition, file := filepath.Join(folder, "wide.yaml"), filepath.Join(folder, "store.db")
	if err := os.WriteFile(definition, hourly(wide(300)), 0o600); err != nil {
		t.Fatal(err)
	}
	handOver(t, definition, file, 90*24)
	p := launch(t, []string{"GOOGLE_CLOUD_PROJECT=e2e", "PHASEGATE_STORE=sqlite:" + file, "PIPELINE_FILE=" + definition, "GOMEMLIMIT=" + i.limit, "LOG_LEVEL=error", "BIGQUERY_EMULATOR_HOST="})
	for range 5 { // each read goes on where the last one had no time left
		if page := look(t, p, "?days=90")[0]; !bytes.Contains(page, []byte("the state cannot be read")) {
			break
		}
	}
	began := time.Now()
	for _, page := range look(t, p, "?days=90", "?days=89", "?days=88", "?days=87") { // as many as the platform sends at once
		if bytes.Contains(page, []byte("the state cannot be read")) || !bytes.Contains(page, []byte("are settled")) {
			t.Errorf("%s", page)
		}
	}
	t.Logf("4 pages in %s", time.Since(began).Round(time.Millisecond))
	i.fits(t, p)
}

// handOver makes a store in which all processors have completed each of the last periods, and each is
// handed over: one by the engine, and the others as its copies.
func handOver(t *testing.T, definition, file string, periods int) {
	t.Helper()
	clock := time.Now().UTC().Add(-time.Duration(periods+2) * time.Hour)
	now := func() time.Time { return clock }
	c := app.Config{Project: "e2e", PipelineFile: definition, Store: "sqlite", Claim: time.Minute, Lease: lease.Max, Local: true, PubSubHost: "127.0.0.1:1"}
	a, err := app.Open(t.Context(), c, func(context.Context, app.Config) (store.Store, error) { return sqlite.Open(file, now) }, now, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	config := a.Engine.Config
	config.Publish = func(_ context.Context, _ string, msgs []wire.Outgoing) []cycle.Published {
		out := make([]cycle.Published, len(msgs))
		for i := range out {
			out[i].ID = "1284000"
		}
		return out
	}
	config.Expected, config.Check = nil, func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		return cycle.Readiness{Outcome: cycle.NotChecked}
	}
	a.Engine = cycle.New(config)
	cal, tr, rows := a.Pipeline.Calendar, a.Pipeline.Transitions[0], int64(100)
	key := cycle.Key{Transition: tr, Period: cal.Add(cal.At(clock), -1)}
	for _, name := range tr.Order {
		c := wire.Completion{Processor: name, Reported: name, Period: key.Period, Status: wire.StatusSuccess, EventTime: clock, ExecutionID: name + string(key.Period), CorrelationID: "c", RecordCount: &rows}
		if err := a.Engine.Record(t.Context(), key, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Engine.Relay(t.Context(), tr, "", nil); err != nil { // which also records the first period
		t.Fatal(err)
	}
	if st, err := a.Engine.Status(t.Context(), key); err != nil || st[0].State != string(cycle.StatePublished) {
		t.Fatalf("%+v, %v", st, err)
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for n := 2; n <= periods; n++ {
		if _, err := db.ExecContext(t.Context(), `INSERT INTO documents (collection, id, version, data)
			SELECT collection, replace(id, ?1, ?2), version, replace(replace(data, ?3, ?4), ?1, ?2) FROM documents
			WHERE collection = 'phase_periods' AND id = ?5 OR collection = 'phase_triggers' AND id = ?5 || '_overnight~1'`,
			string(key.Period), string(cal.Add(key.Period, n)), string(cal.Add(key.Period, 1)), string(cal.Add(key.Period, n+1)), tr.StoredID()+"_"+string(key.Period)); err != nil {
			t.Fatal(err)
		}
	}
}
