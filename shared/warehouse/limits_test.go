package warehouse_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// front passes requests on to a host and records the queries among them; answer may answer the
// beginning of a query and its result instead.
func front(t testing.TB, host string, answer func(w http.ResponseWriter, begins bool) bool) (address string, queries func() []map[string]any) {
	t.Helper()
	var mu sync.Mutex
	var seen []map[string]any
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		begins := r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/jobs")
		if begins {
			var job struct{ Configuration map[string]any }
			if err := json.Unmarshal(body, &job); err != nil {
				t.Error(err)
			}
			mu.Lock()
			seen = append(seen, job.Configuration)
			mu.Unlock()
		}
		if (begins || strings.Contains(r.URL.Path, "/queries/")) && answer(w, begins) {
			return
		}
		passed, err := http.NewRequest(r.Method, "http://"+host+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		passed.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(passed)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(resp.StatusCode)
		if _, err := resp.Body.Read(nil); err != nil {
			t.Error(err)
		}
		var v any
		_ = json.NewDecoder(resp.Body).Decode(&v)
		_ = json.NewEncoder(w).Encode(v)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), func() []map[string]any { mu.Lock(); defer mu.Unlock(); return seen }
}

func TestCheck_CycleIsOneQueryWithLimits(t *testing.T) {
	w, night := warehousetest.Shared(t)
	if w.Host == "" {
		t.Skip("what stands between needs the emulator")
	}
	address, queries := front(t, w.Host, func(http.ResponseWriter, bool) bool { return false })
	limited := warehouse.New(w.Project, address)
	defer limited.Close()
	tr := w.Transition()
	if r := limited.Check(t.Context(), tr, night, "overnight", tr.Order); r.Outcome != policy.Passed {
		t.Fatalf("%+v", r)
	}
	qs := queries()
	if len(qs) != 1 {
		t.Fatalf("%d queries", len(qs))
	}
	query := qs[0]["query"].(map[string]any)
	if fmt.Sprint(query["maximumBytesBilled"]) != "1000000000" || fmt.Sprint(qs[0]["labels"]) != "map[phasegate:readiness]" || fmt.Sprint(qs[0]["jobTimeoutMs"]) == "<nil>" {
		t.Errorf("%v bytes, labels %v, limit %v", query["maximumBytesBilled"], qs[0]["labels"], qs[0]["jobTimeoutMs"])
	}
	if got := fmt.Sprint(query["queryParameters"]); !strings.Contains(got, string(night)) || !strings.Contains(got, "DATE") {
		t.Errorf("parameters %s", got)
	}
}

// After a transient error the checks are not queried one by one: that would be nineteen
// queries where one was too many.
func TestCheck_WarehouseErrorIsUnknown(t *testing.T) {
	fail := func(code int, reason, message string) func(http.ResponseWriter, bool) bool {
		return func(w http.ResponseWriter, _ bool) bool {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": message,
				"errors": []any{map[string]any{"reason": reason, "message": message}}}})
			return true
		}
	}
	answer := func(body string) func(http.ResponseWriter, bool) bool {
		return func(w http.ResponseWriter, begins bool) bool {
			w.Header().Set("Content-Type", "application/json")
			if begins {
				_, _ = w.Write([]byte(`{"jobReference": {"projectId": "p", "jobId": "j", "location": "US"}, "configuration": {"query": {}}, "status": {"state": "DONE"}}`))
				return true
			}
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	for name, tc := range map[string]struct {
		answer  func(http.ResponseWriter, bool) bool
		reason  string
		queries int
	}{
		"denied":         {fail(403, "accessDenied", "Access Denied: Table x"), "Access Denied: Table x", 4},
		"too_expensive":  {fail(400, "bytesBilledLimitExceeded", "Query exceeded limit for bytes billed"), "exceeded limit for bytes billed", 1},
		"quota":          {fail(403, "quotaExceeded", "Quota exceeded"), "Quota exceeded", 1},
		"no_such_thing":  {fail(501, "notImplemented", "no"), "no", 1},
		"control_codes":  {fail(400, "invalidQuery", "bad\x1b[31m\nthing "+strings.Repeat("é", 400)), "bad [31m thing éé", 4},
		"no_row":         {answer(`{"jobComplete": true, "schema": {"fields": []}}`), "without a row", 1},
		"one_number":     {answer(`{"jobComplete": true, "schema": {"fields": [{"name": "c0", "type": "INTEGER"}]}, "rows": [{"f": [{"v": "5"}]}]}`), "1 numbers for 3 statements", 1},
		"strings_and_so": {answer(`{"jobComplete": true, "schema": {"fields": [{"name": "c0", "type": "STRING"}, {"name": "c1", "type": "FLOAT"}, {"name": "c2", "type": "INTEGER"}]}, "rows": [{"f": [{"v": "5"}, {"v": "NaN"}, {"v": null}]}]}`), "string, no number", 1},
	} {
		t.Run(name, func(t *testing.T) {
			address, queries := front(t, "", tc.answer)
			w := warehouse.New("p", address)
			defer w.Close()
			r := w.Check(t.Context(), nba(t), night, "overnight", []string{utg})
			if r.Outcome != policy.Unknown || r.Verified() || len(r.Unknown()) != 3 || !strings.Contains(r.Reasons[0], tc.reason) {
				t.Errorf("%+v", r)
			}
			if n := len(queries()); n != tc.queries {
				t.Errorf("%d queries, want %d", n, tc.queries)
			}
			for _, c := range r.Checks {
				if len(c.Problem) > 310 || strings.ContainsAny(c.Problem, "\n\x1b") {
					t.Errorf("problem %q", c.Problem)
				}
			}
		})
	}
}

func nba(t *testing.T, pairs ...string) *pipeline.Transition {
	t.Helper()
	p, err := pipeline.Parse([]byte(strings.NewReplacer(pairs...).Replace(string(pipeline.Default()))))
	if err != nil {
		t.Fatal(err)
	}
	return p.Transitions[0]
}

// A warehouse that takes the connection and never answers.
func TestCheck_TimeoutIsUnknown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := warehouse.New("p", l.Addr().String())
	defer w.Close()
	hasty := nba(t)
	hasty.Checks.Timeout = 20 * time.Millisecond // less than a definition may say
	r := w.Check(t.Context(), hasty, night, "overnight", []string{utg})
	if r.Outcome != policy.Unknown || !strings.Contains(r.Reasons[0], "no answer within 20ms") {
		t.Errorf("%+v", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if r := w.Check(ctx, nba(t), night, "overnight", []string{utg}); r.Outcome != policy.Unknown {
		t.Errorf("the caller's time is over: %+v", r)
	}
	for _, v := range w.Verify(ctx, nba(t), night) {
		if v.Problem == "" || !v.Unknown {
			t.Errorf("verify: %+v", v)
		}
	}
}

func TestCheck_PipelineWithoutChecksRunsNoQuery(t *testing.T) {
	tr := nba(t)
	w := warehouse.New("p", "127.0.0.1:1")
	if r := w.Check(t.Context(), tr, night, "weekly", tr.Order); r.Outcome != policy.NotChecked || r.Verified() {
		t.Errorf("%+v", r)
	}
	tr.Checks = nil
	if r := w.Check(t.Context(), tr, night, "overnight", tr.Order); r.Outcome != policy.NotChecked || r.Verified() {
		t.Errorf("%+v", r)
	}
	if _, err := w.Expected(t.Context(), tr, night); err == nil {
		t.Error("expects something of a pipeline that does not say")
	}
	if v := w.Verify(t.Context(), tr, night); v != nil {
		t.Errorf("%+v", v)
	}
}
