package reconcile_test

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/reconcile"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

var now = time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC)

func job(w *apptest.World, data string) *httptest.ResponseRecorder {
	h := reconcile.New(func(context.Context) (*app.App, error) { return w.App, nil })
	rec := httptest.NewRecorder()
	body := wire.Envelope{MessageID: "job-1", PublishTime: w.Now(), Data: []byte(data)}.Push()
	h.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(string(body))))
	return rec
}

// recorded records a complete night, and leaves it as a process would that died right after
// its last record.
func recorded(t *testing.T, w *apptest.World) {
	t.Helper()
	tr := w.Pipeline.Transitions[0]
	for _, name := range tr.Order {
		c := wire.Completion{Processor: name, Reported: name, Period: "2026-02-03", Status: wire.StatusSuccess,
			EventTime: now.Add(-time.Minute), ExecutionID: name, CorrelationID: name}
		if err := w.Engine.Record(context.Background(), cycle.Key{Transition: tr, Period: c.Period}, c); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRelay_FinishesIncompleteWork(t *testing.T) {
	w := apptest.New(t, now)
	recorded(t, w)
	for range 2 { // the second finds nothing to do
		if rec := job(w, `{"job":"relay"}`); rec.Code != 204 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	}
	if n := len(w.PubSub.Messages()); n != 5 {
		t.Errorf("%d messages published, want 5", n)
	}
}

func TestRelay_EvaluatesOnlyLastSevenPeriods(t *testing.T) {
	for days, want := range map[int]int{7: 5, 8: 0} {
		w := apptest.New(t, now)
		recorded(t, w)
		w.SetNow(time.Date(2026, 2, 3+days, 12, 0, 0, 0, time.UTC))
		if rec := job(w, `{"job":"relay"}`); rec.Code != 204 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		if n := len(w.PubSub.Messages()); n != want {
			t.Errorf("%d days after: %d messages, want %d", days, n, want)
		}
	}
}

func TestReconcile_UnknownJobIsQuarantined(t *testing.T) {
	for _, data := range []string{`{"job":"dance"}`, `{"job":"sweep"}`, `{}`, `[]`, `relay`, `{"job":"relay","speed":9}`, `{"job":"relay","date":"2026-02-03"}`, `{"job":"relay","table":"x"}`} {
		w := apptest.New(t, now)
		if rec := job(w, data); rec.Code != 202 || !w.Doc(t, "quarantine", "job-1").Exists {
			t.Errorf("%s: %d %s", data, rec.Code, rec.Body)
		}
	}
}

func TestRelay_ReportsFailedReads(t *testing.T) {
	w := apptest.New(t, now)
	w.SetDown(true)
	if rec := job(w, `{"job":"relay"}`); rec.Code != 503 {
		t.Errorf("%d, want 503", rec.Code)
	}
	w.SetDown(false)
	if w.Doc(t, "function_status", "reconcile").Exists || len(w.Logs.Lines("event", "heartbeat")) != 0 {
		t.Error("a relay that failed left a heartbeat")
	}
}

// The nightly job repairs, says what it found, and leaves its heartbeat last; and two of
// them do not run at once.
func TestNightly_RepairsAndReports(t *testing.T) {
	w := apptest.New(t, now)
	recorded(t, w) // and no process has evaluated it
	w.SetNow(now.Add(5 * time.Hour))
	held, err := w.Locks.Acquire(t.Context(), lease.Key{Class: "PhasegateNightly", Period: "2026-02-04"}, "message-other")
	if err != nil {
		t.Fatal(err)
	}
	if rec := job(w, `{"job":"nightly"}`); rec.Code != 429 || len(w.PubSub.Messages()) != 0 {
		t.Errorf("while another job has the lock: %d, %d messages", rec.Code, len(w.PubSub.Messages()))
	}
	if n := len(w.Logs.Lines("severity", "ERROR")); n != 0 {
		t.Errorf("a lock of another job is no error, but %d errors were logged", n)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if rec := job(w, `{"job":"nightly"}`); rec.Code != 204 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	}
	if n := len(w.PubSub.Messages()); n != 5 {
		t.Errorf("%d messages published, want 5", n)
	}
	if n := len(w.Logs.Lines("event", "repaired")); n != 3 { // untriggered, and what the document says
		t.Errorf("%d repairs", n)
	}
	reports := w.Logs.Lines("event", "report")
	if len(reports) != 2 || reports[0]["findings"] != 0.0 || reports[0]["unknown"] == 0.0 { // no BigQuery is configured
		t.Errorf("%v", reports)
	}
	if beats := w.Logs.Lines("event", "heartbeat"); len(beats) != 2 || beats[1]["job"] != "nightly" {
		t.Errorf("%v", beats)
	}
	if nonces, _ := w.Doc(t, "lock_tokens", "PhasegateNightly_2026-02-04").Data["nonces"].([]any); len(nonces) != 0 {
		t.Errorf("tokens %v", nonces)
	}
}

func TestNightly_ReportsFailedReads(t *testing.T) {
	w := apptest.New(t, now)
	w.SetDown(true)
	if rec := job(w, `{"job":"nightly"}`); rec.Code != 503 {
		t.Errorf("%d", rec.Code)
	}
	w.SetDown(false)
	if w.Doc(t, "function_status", "reconcile").Exists {
		t.Error("it left a heartbeat")
	}
}

func TestF29_TheRelayNamesLocksThatWereNotReleased(t *testing.T) {
	w := apptest.New(t, now)
	for _, period := range []pipeline.Period{"2026-02-02", "2026-02-03"} {
		got, err := w.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: period}, "run-1")
		if err != nil {
			t.Fatal(err)
		}
		if period == "2026-02-03" {
			if err := got.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{30 * time.Minute, 0}, {30*time.Minute + time.Second, 1}} {
		w.SetNow(now.Add(c.after))
		if rec := job(w, `{"job":"relay"}`); rec.Code != 204 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		lines := w.Logs.Lines("type", "leaked_lock")
		if len(lines) != c.want {
			t.Fatalf("after %v: %v", c.after, lines)
		}
		for _, l := range lines {
			if l["event"] != "finding" || l["lock"] != "PlayerGameSummaryProcessor_2026-02-02" || l["period"] != "2026-02-02" || l["execution_id"] != "run-1" {
				t.Errorf("%v", l)
			}
		}
	}
}

// denying is a BigQuery server that denies every query.
func denying(t *testing.T) (host string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"error":{"code":403,"message":"Access Denied","errors":[{"reason":"accessDenied","message":"Access Denied"}]}}`))
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// A check that cannot run leaves no heartbeat, and is not retried.
func TestVerify_LeavesHeartbeatOnlyIfEveryCheckRuns(t *testing.T) {
	for name, tc := range map[string]struct {
		edit  func(w *apptest.World)
		beats bool
	}{
		"no_right":     {func(w *apptest.World) { w.App.Warehouse = warehouse.New("test", denying(t)) }, false},
		"no_warehouse": {func(w *apptest.World) { w.App.Warehouse = nil }, false},
		"no_checks": {func(w *apptest.World) {
			w.App.Warehouse = nil
			w.Pipeline.Transitions[0].Checks = nil
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := apptest.New(t, now)
			tc.edit(w)
			if rec := job(w, `{"job":"verify"}`); rec.Code != 204 {
				t.Fatalf("%d %s", rec.Code, rec.Body)
			}
			beats, _ := w.Doc(t, "function_status", "reconcile").Data["heartbeats"].(map[string]any)
			if (beats["verify"] != nil) != tc.beats || (len(w.Logs.Lines("event", "check_unknown")) == 0) != tc.beats {
				t.Errorf("heartbeats %v, %d lines", beats, len(w.Logs.Lines("event", "check_unknown")))
			}
		})
	}
}

func TestRelay_WritesHeartbeatLast(t *testing.T) {
	w := apptest.New(t, now)
	recorded(t, w)
	if rec := job(w, `{"job":"relay"}`); rec.Code != 204 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	doc := w.Doc(t, "function_status", "reconcile")
	beats, _ := doc.Data["heartbeats"].(map[string]any)
	if at, _ := beats["relay"].(time.Time); at.Before(now) || doc.Data["source_hash"] != app.SourceHash || doc.Data["version"] != app.Version {
		t.Errorf("%v", doc.Data)
	}
	lines := w.Logs.Lines("function", "reconcile")
	if last := lines[len(lines)-1]; last["event"] != "heartbeat" || last["job"] != "relay" {
		t.Errorf("the last line is %v", last)
	}
}

func TestRelay_ShadowHeartbeatStaysInShadowState(t *testing.T) {
	w := apptest.New(t, now)
	h := reconcile.New(func(context.Context) (*app.App, error) { return w.App, nil })
	rec := httptest.NewRecorder()
	body := wire.Envelope{MessageID: "job-1", PublishTime: w.Now(), Data: []byte(`{"job":"relay"}`)}.Push()
	h.ServeHTTP(rec, httptest.NewRequest("POST", "/?shadow=1", strings.NewReader(string(body))))
	if rec.Code != 204 || !w.Doc(t, "shadow_function_status", "reconcile").Exists || w.Doc(t, "function_status", "reconcile").Exists {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if n := len(w.Logs.Lines("event", "heartbeat")); n != 0 {
		t.Errorf("%d lines that are taken for the relay's heartbeat", n)
	}
}

// lockReads counts the documents of locks and tokens that are read.
type lockReads struct {
	store.Store
	documents *atomic.Int64
}

func (r lockReads) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		for doc, err := range r.Store.Scan(ctx, collection, from, to) {
			if r.documents.Add(1); !yield(doc, err) {
				return
			}
		}
	}
}

// 3,000 runs die, each with a lock of its own, and none is repeated.
func TestRelay_BoundsLeakedLocks(t *testing.T) {
	const died = 3000
	w := apptest.New(t, now)
	for n := range died {
		if _, err := w.Locks.Acquire(t.Context(), lease.Key{Class: fmt.Sprint("P", n), Period: "2026-02-03"}, "run"); err != nil {
			t.Fatal(err)
		}
		w.SetNow(w.Now().Add(time.Millisecond))
	}
	w.SetNow(w.Now().Add(time.Hour))
	if _, err := w.Locks.Acquire(t.Context(), lease.Key{Class: "AtWork", Period: "2026-02-03"}, "run"); err != nil {
		t.Fatal(err)
	}
	documents := &atomic.Int64{}
	w.Locks.Store = lockReads{w.Locks.Store, documents}
	w.Config.Shadow = "shadow_"
	for _, want := range []int64{died + 1, died + 1, lease.MostLeaked + 1} {
		documents.Store(0)
		if rec := job(w, `{"job":"relay"}`); rec.Code != 204 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		if got := documents.Load(); got != want {
			t.Errorf("a relay reads %d documents of locks, want %d", got, want)
		}
		w.Config.Shadow = "" // which deletes nothing
	}
	for _, id := range []string{"AtWork_2026-02-03", fmt.Sprintf("P%d_2026-02-03", died-1)} {
		if !w.Doc(t, "processing_locks", id).Exists {
			t.Errorf("%s is gone", id)
		}
	}
	if id := "P0_2026-02-03"; w.Doc(t, "processing_locks", id).Exists || !w.Doc(t, "lock_tokens", id).Exists {
		t.Error("want the oldest lock deleted and its token outstanding")
	}
}
