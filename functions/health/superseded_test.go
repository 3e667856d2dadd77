package health_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/health"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	checks "github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestHealth_AnOldJobIsAcknowledgedWithoutARunButADrillIsNot(t *testing.T) {
	w := apptest.New(t, now)
	for data, superseded := range map[string]bool{
		`{"job":"health"}`: true,
		`{"job":"health","date":"` + string(checks.DrillPeriod(w.Pipeline.Calendar)) + `"}`: false,
	} {
		w := apptest.New(t, now)
		h := health.New(func(context.Context) (*app.App, error) { return w.App, nil })
		rec := httptest.NewRecorder()
		body := wire.Envelope{MessageID: "job-1", PublishTime: now.Add(-time.Hour), Data: []byte(data)}.Push()
		h.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(string(body))))
		heartbeats, _ := w.Doc(t, "function_status", "health").Data["heartbeats"].(map[string]any)
		if (rec.Code == 204 && len(w.Logs.Lines("event", "job_superseded")) == 1) != superseded || heartbeats["health"] != nil {
			t.Errorf("%s: %d %s, heartbeats %v", data, rec.Code, rec.Body, heartbeats)
		}
	}
}
