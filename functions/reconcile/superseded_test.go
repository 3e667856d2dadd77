package reconcile_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/reconcile"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestReconcile_AnOldPeriodicJobIsAcknowledgedWithoutARun(t *testing.T) {
	for name, tc := range map[string]struct {
		age        time.Duration
		superseded bool
	}{
		"relay":   {5 * time.Minute, true},
		"nightly": {24 * time.Hour, true},
		"verify":  {30 * 24 * time.Hour, false}, // no schedule sends another one
	} {
		w := apptest.New(t, now)
		recorded(t, w)
		h := reconcile.New(func(context.Context) (*app.App, error) { return w.App, nil })
		rec := httptest.NewRecorder()
		body := wire.Envelope{MessageID: "job-1", PublishTime: now.Add(-tc.age), Data: []byte(`{"job":"` + name + `"}`)}.Push()
		h.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(string(body))))
		if rec.Code != 204 {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
		if n := len(w.Logs.Lines("event", "job_superseded")); (n == 1) != tc.superseded {
			t.Errorf("%s: %d lines", name, n)
		}
		if n := len(w.PubSub.Messages()); n != 0 || w.Doc(t, "function_status", "reconcile").Exists {
			t.Errorf("%s: %d messages published, or a heartbeat", name, n)
		}
	}
}
