package reconcile_test

import (
	"context"
	"errors"
	"iter"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/reconcile"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// beforeMidnight is 23:59 local time of 2026-02-09. The window of a request of that day begins
// with 2026-02-03, the window of a request of the next day with 2026-02-04.
var beforeMidnight = time.Date(2026, 2, 10, 4, 59, 0, 0, time.UTC)

// nightly handles a request that was published at a time.
func nightly(w *apptest.World, published time.Time) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	body := wire.Envelope{MessageID: "job-1", PublishTime: published, Data: []byte(`{"job":"nightly"}`)}.Push()
	h := reconcile.New(func(context.Context) (*app.App, error) { return w.App, nil })
	h.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(string(body))))
	return rec
}

func TestNightly_TakesTheLockOfTheDayOfItsRequest(t *testing.T) {
	for day, code := range map[pipeline.Period]int{"2026-02-09": 429, "2026-02-10": 204} {
		w := apptest.New(t, beforeMidnight.Add(2*time.Minute))
		if _, err := w.Locks.Acquire(t.Context(), lease.Key{Class: "PhasegateNightly", Period: day}, "message-other"); err != nil {
			t.Fatal(err)
		}
		if rec := nightly(w, beforeMidnight); rec.Code != code {
			t.Errorf("another worker has the lock of %s: %d %s, want %d", day, rec.Code, rec.Body, code)
		}
		if n := len(w.Logs.Lines("event", "report")); (n > 0) != (code == 204) {
			t.Errorf("another worker has the lock of %s: %d reports", day, n)
		}
	}
}

func TestNightly_ReconcilesTheWeekBeforeItsRequest(t *testing.T) {
	w := apptest.New(t, now)
	recorded(t, w)
	w.SetNow(beforeMidnight.Add(2 * time.Minute))
	if rec := nightly(w, beforeMidnight); rec.Code != 204 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	ofThe3rd := func(line map[string]any) bool { return line["period"] == "2026-02-03" }
	if findings := w.Logs.Lines("event", "finding"); !slices.ContainsFunc(findings, ofThe3rd) {
		t.Errorf("the first night of the window has no finding: %v", findings)
	}
}

// The check of the first hand-over takes longer than the lock lasts.
func TestNightly_StopsWhenItsLockIsLost(t *testing.T) {
	w := apptest.New(t, now)
	recorded(t, w)
	w.SetNow(now.Add(5 * time.Hour))
	asked := w.Now()
	w.Engine.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		w.SetNow(asked.Add(lease.Max + time.Minute))
		return cycle.Readiness{Outcome: cycle.Passed}
	}
	if rec := nightly(w, asked); rec.Code != 503 {
		t.Errorf("%d %s, want 503", rec.Code, rec.Body)
	}
	if n := len(w.PubSub.Messages()); n != 0 {
		t.Errorf("%d messages published without the lock", n)
	}
	if w.Doc(t, "function_status", "reconcile").Exists {
		t.Error("a nightly job that was stopped left a heartbeat")
	}
}

// withoutLocks is a store whose lock documents cannot be read.
type withoutLocks struct{ store.Store }

func (s withoutLocks) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	if collection == "processing_locks" {
		return func(yield func(store.Doc, error) bool) { yield(store.Doc{}, errors.New("permission denied")) }
	}
	return s.Store.Scan(ctx, collection, from, to)
}

func TestRelay_LeavesNoHeartbeatWhenLocksAreUnreadable(t *testing.T) {
	w := apptest.New(t, now)
	recorded(t, w)
	w.Locks.Store = withoutLocks{w.Locks.Store}
	if rec := job(w, `{"job":"relay"}`); rec.Code != 503 || !strings.Contains(rec.Body.String(), "permission denied") {
		t.Errorf("%d %s, want 503", rec.Code, rec.Body)
	}
	if w.Doc(t, "function_status", "reconcile").Exists || len(w.Logs.Lines("event", "heartbeat")) != 0 {
		t.Error("a relay that could not read the locks left a heartbeat")
	}
	if n := len(w.PubSub.Messages()); n != 5 {
		t.Errorf("%d messages published, want 5", n)
	}
}
