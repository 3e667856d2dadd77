package sweep_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/sweep"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// Every run fails here, because its caller has gone.
func TestSweep_AnOldPeriodicJobIsAcknowledgedAndOneThatWasAskedForIsNot(t *testing.T) {
	for name, tc := range map[string]struct {
		data       string
		age        time.Duration
		again      time.Duration // since an earlier attempt
		code       int
		superseded int
	}{
		"everything, new":         {`{"job":"sweep"}`, 0, 0, 503, 0},
		"everything, after a day": {`{"job":"sweep"}`, 24 * time.Hour, 0, 204, 1},
		"one date, after a day":   {`{"job":"sweep","date":"2026-02-03"}`, 24 * time.Hour, 0, 503, 0},
		"one table, after a day":  {`{"job":"sweep","table":"player_game_summary"}`, 24 * time.Hour, 0, 503, 0},
		"everything, late":        {`{"job":"sweep"}`, 5 * time.Hour, 0, 503, 0},
		"everything, for an hour": {`{"job":"sweep"}`, time.Hour, time.Hour, 204, 1},
	} {
		w := apptest.New(t, now)
		w.App.Warehouse = warehouse.New("test", "127.0.0.1:1")
		h := sweep.New(func(context.Context) (*app.App, error) { return w.App, nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		body := wire.Envelope{MessageID: "job-1", PublishTime: now.Add(-tc.age), Data: []byte(tc.data)}.Push()
		attempt := func() *httptest.ResponseRecorder {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequestWithContext(ctx, "POST", "/", strings.NewReader(string(body))))
			return rec
		}
		if tc.again > 0 {
			w.SetNow(now.Add(-tc.again))
			if rec := attempt(); rec.Code != 503 {
				t.Errorf("%s: at first %d %s", name, rec.Code, rec.Body)
			}
			w.SetNow(now)
		}
		rec := attempt()
		if rec.Code != tc.code || len(w.Logs.Lines("event", "job_superseded")) != tc.superseded || len(w.Logs.Lines("event", "heartbeat")) != 0 {
			t.Errorf("%s: %d %s, %v", name, rec.Code, rec.Body, w.Logs.Lines("event", "job_superseded"))
		}
	}
}
