package sweep_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/functions/sweep"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// After a transient error the message is redelivered. After an error that a retry does not change it is not.
func TestSweep_IsRetriedOnlyForWhatPassesByItself(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		status int
		code   int
		told   bool // as tables that cannot be swept
	}{
		"too many statements at once": {`{"error":{"code":400,"message":"Could not serialize access to table t due to concurrent update","errors":[{"reason":"invalidQuery"}]}}`, 400, 503, false},
		"no right to read":            {`{"error":{"code":403,"message":"Access Denied","errors":[{"reason":"accessDenied","message":"Access Denied"}]}}`, 403, 204, true},
	} {
		w := apptest.New(t, now)
		bigQuery := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(tc.status)
			_, _ = rw.Write([]byte(tc.answer))
		}))
		t.Cleanup(bigQuery.Close)
		w.App.Warehouse = warehouse.New("test", bigQuery.Listener.Addr().String())
		h := sweep.New(func(context.Context) (*app.App, error) { return w.App, nil })
		rec := httptest.NewRecorder()
		body := wire.Envelope{MessageID: "job-1", PublishTime: now, Data: []byte(`{"job":"sweep"}`)}.Push()
		h.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(string(body))))
		if rec.Code != tc.code || len(w.Logs.Lines("event", "heartbeat")) != 0 {
			t.Errorf("%s: answered %d, want %d: %s", name, rec.Code, tc.code, rec.Body)
		}
		if unknown := len(w.Logs.Lines("event", "check_unknown")); (unknown > 0) != tc.told {
			t.Errorf("%s: %d tables are logged as check_unknown", name, unknown)
		}
	}
}

// The order is about one date. An unfinished removal of another date waits for the processor
// that is at work there; the order does not.
func TestSweep_IsAcknowledgedAlthoughAnotherPeriodIsBusy(t *testing.T) {
	w := newWorld(t, "")
	w.doubled(marked, "2026-02-03")
	none := map[string]any{"rows": int64(0), "a": int64(0), "b": int64(0)}
	table := w.tables.Rename("nba_analytics.upcoming_team_game_context")
	if _, err := w.Store.Apply(t.Context(), store.Create(store.Ref{Collection: w.Config.Prefix + "sweeps", ID: "20260120t000000-a~b"}, store.F(table, "table"), store.F("2026-01-20", "period"),
		store.F("planned", "state"), store.F("a", "actor"), store.F("r", "reason"), store.F(int64(1), "keys"), store.F(int64(1), "surplus"),
		store.F(none, "before"), store.F(none, "after"), store.F("q.t", "archive"), store.F(store.ServerTime, "planned_at"))); err != nil {
		t.Fatal(err)
	}
	_, p, _ := w.Pipeline.Processor("upcoming_team_game_context")
	if _, err := w.Locks.Acquire(t.Context(), lease.Key{Class: p.Class, Period: "2026-01-20"}, "run-1"); err != nil {
		t.Fatal(err)
	}
	if code := w.job(`{"job":"sweep","table":"upcoming_team_game_context","date":"2026-02-03"}`); code != 204 {
		t.Errorf("answered %d", code)
	}
	w.want(4, 0)
}
