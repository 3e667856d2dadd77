package health_test

import (
	"context"
	"encoding/json"
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

var now = time.Date(2026, 2, 4, 17, 20, 0, 0, time.UTC)

func ask(w *apptest.World, method, path, data string) *httptest.ResponseRecorder {
	h := health.New(func(context.Context) (*app.App, error) { return w.App, nil })
	rec := httptest.NewRecorder()
	body := ""
	if data != "" {
		body = string(wire.Envelope{MessageID: "job-1", PublishTime: w.Now(), Data: []byte(data)}.Push())
	}
	h.ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader(body)))
	return rec
}

func TestHealth_HourlyJobLogsReportsAndLeavesHeartbeat(t *testing.T) {
	w := apptest.New(t, now)
	if rec := ask(w, "POST", "/", `{"job":"health"}`); rec.Code != 204 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	var lines []string
	for _, l := range w.Logs.Lines("event", "finding") {
		if l["by"] == "health" {
			lines = append(lines, l["check"].(string)+" "+l["state"].(string))
		}
	}
	if len(lines) != 16 || lines[1] != "hand_overs unknown" || lines[0] != "tracking_accuracy unknown" {
		t.Errorf("%q", lines)
	}
	doc := w.Doc(t, "function_status", "health").Data
	if beats, _ := doc["heartbeats"].(map[string]any); beats["health"] == nil || doc["definition"] != w.Pipeline.Hash {
		t.Errorf("%v", doc)
	}
	rec := ask(w, "GET", "/report.json", "")
	var r checks.Report
	if err := json.Unmarshal(rec.Body.Bytes(), &r); err != nil || rec.Code != 200 || r.Schema != 1 || r.Overall != checks.Unknown || len(r.Checks) != 16 || !r.At.Equal(now) {
		t.Errorf("%d %s, %v", rec.Code, rec.Body, err)
	}
	// F39: a report that is three hours old counts as unknown.
	w.SetNow(now.Add(3 * time.Hour))
	if rec := ask(w, "GET", "/report.json", ""); rec.Code != 200 || !strings.Contains(rec.Body.String(), `{"id":"report_age","state":"unknown"`) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestHealth_NamesFunctionAndReportsStoreFailure(t *testing.T) {
	w := apptest.New(t, now)
	for _, path := range []string{"/", "/healthz"} {
		if rec := ask(w, "GET", path, ""); rec.Code != 200 || !strings.Contains(rec.Body.String(), `"name":"health"`) {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
		}
	}
	w.SetDown(true)
	if rec := ask(w, "GET", "/report.json", ""); rec.Code != 503 || !strings.Contains(rec.Body.String(), "the store is down") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := ask(w, "POST", "/", `{"job":"health"}`); rec.Code != 503 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestHealth_InvalidJobIsQuarantined(t *testing.T) {
	for data, field := range map[string]string{`{"job":"relay"}`: "job", `{"job":"health","table":"x"}`: "table", `{"job":"health","date":"2026-02-03"}`: "date"} {
		w := apptest.New(t, now)
		if rec := ask(w, "POST", "/", data); rec.Code != 202 || w.Doc(t, "quarantine", "job-1").Data["field"] != field {
			t.Errorf("%s: %d", data, rec.Code)
		}
	}
}
