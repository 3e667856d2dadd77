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
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// What passes by itself is delivered again; what another try does not change is not.
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
			t.Errorf("%s: %d tables are told to be unreadable", name, unknown)
		}
	}
}
