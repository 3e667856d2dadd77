package processor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
	"github.com/phasegate/phasegate/shared/wire"
)

var denied = &warehousetest.Refusal{Code: http.StatusForbidden, Reason: "accessDenied", Message: "Access Denied"}

// notAgain is work that must not be done.
func notAgain(t *testing.T) Work {
	return func(context.Context, Run) (Output, error) {
		t.Error("the work is done again")
		return Output{}, nil
	}
}

// A token stays listed until nothing can be written under it. If it were settled before its
// fence and the fence then failed, no later run would fence it.
func TestTokens_StayListedUntilTheyAreFenced(t *testing.T) {
	w := newWorld(t)
	zombie := w.machine()
	zombie.dies = 1 // right after it has the lock
	if _, err := zombie.run(night, Request{}, making(10, 3)); err == nil {
		t.Fatal("a dead process has answered")
	}
	w.advance(lease.Max + time.Second)
	m := w.machine()
	m.runner.Warehouse = w.Through(func(_ *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
		if bytes.Contains(body, []byte("SELECT 1")) { // the fence's job
			return denied
		}
		forward()
		return nil
	})
	if out, err := m.run(night, Request{}, notAgain(t)); err == nil {
		t.Errorf("the fence failed, and the run went on: %+v", out)
	}
	if n := w.outstanding(night); n != 1 {
		t.Errorf("%d tokens are listed, want the dead process's", n)
	}
	m = w.machine()
	if out, err := m.run(night, Request{}, making(11, 3)); err != nil || out.Status != wire.StatusSuccess || w.outstanding(night) != 0 {
		t.Errorf("%+v, %v, %d tokens are left", out, err, w.outstanding(night))
	}
	// Before the work by the check, which the fence follows, and before the write.
	reads := slices.DeleteFunc(m.faults.Gets(), func(path string) bool { return !strings.HasSuffix(path, "/tables/player_game_summary") })
	if len(reads) != 2 {
		t.Errorf("the table's metadata were read %d times", len(reads))
	}
}

// Tries on a broken table must not leave a token each: each token costs a job to fence, and
// the list has a limit.
func TestTokens_OfRunsThatHaveBegunNoWriteAreNotListed(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		answer error
		work   Work
	}{
		"the_table_is_denied": {denied, notAgain(t)},
		"the_work_fails":      {nil, func(context.Context, Run) (Output, error) { return Output{}, errors.New("the source is away") }},
	} {
		m := w.machine()
		m.faults.Get = func(_ int, path string) error { return c.answer }
		if out, err := m.run(night, Request{}, c.work); err == nil || w.outstanding(night) != 0 {
			t.Errorf("%s: %+v, %d tokens are left", name, out, w.outstanding(night))
		}
	}
}

func TestTokens_StayListedAfterAWriteThatFailed(t *testing.T) {
	w := newWorld(t)
	m := w.machine()
	m.faults.Get = func(_ int, path string) error {
		if jobs := m.faults.Jobs(); len(jobs) > 0 && strings.HasSuffix(path, "/"+jobs[0]) {
			return denied
		}
		return nil
	}
	if out, err := m.run(night, Request{}, making(10, 3)); err == nil || out.Category != FailedWarehouse {
		t.Errorf("%+v, %v", out, err)
	}
	if n := w.outstanding(night); n != 1 {
		t.Errorf("%d tokens are listed, want that of the write whose end is not known", n)
	}
	if out, err := w.machine().run(night, Request{}, making(11, 3)); err != nil || w.outstanding(night) != 0 {
		t.Errorf("%+v, %v, %d tokens are left", out, err, w.outstanding(night))
	}
	w.want(night, "3 3 11 11")
}

// Another run can serve the request after it was checked and before the lock is acquired.
func TestRequest_ServedBeforeTheLockIsTakenIsDoneOnce(t *testing.T) {
	w := newWorld(t)
	slow := w.machine()
	slow.pauseAt = "acquire"
	type end struct {
		out Outcome
		err error
	}
	ended := make(chan end, 1)
	req := Request{TriggerID: "t/1"}
	go func() {
		out, err := slow.run(night, req, notAgain(t))
		ended <- end{out, err}
	}()
	<-slow.paused
	done, err := w.machine().run(night, req, making(10, 3))
	if err != nil {
		t.Fatal(err)
	}
	close(slow.resume)
	if got := <-ended; got.err != nil || !got.out.Served || got.out.Execution != done.Execution || w.statuses(night) != "success" {
		t.Errorf("%+v, %v, published %s", got.out, got.err, w.statuses(night))
	}
}

func TestRecord_KeepsTheNewestServedRequest(t *testing.T) {
	w := newWorld(t)
	var full history
	for i := range keptServed {
		full.Served = append(full.Served, served{TriggerID: fmt.Sprint("old/", i), Execution: "old"})
	}
	for range keptSuccesses {
		full.Successes = append(full.Successes, success{Execution: "old", Began: start.Add(-time.Hour)})
	}
	text, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	ref := store.Ref{Collection: collection, ID: "PlayerGameSummaryProcessor_" + string(night)}
	if _, err := w.mem.Apply(t.Context(), store.Create(ref, store.F(string(text), "history"))); err != nil {
		t.Fatal(err)
	}
	req := Request{TriggerID: "t/1"}
	if _, err := w.machine().run(night, req, making(10, 3)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"t/1", fmt.Sprint("old/", keptServed-1)} {
		if out, err := w.machine().run(night, Request{TriggerID: id}, notAgain(t)); err != nil || !out.Served {
			t.Errorf("%s: %+v, %v", id, out, err)
		}
	}
	if b, _ := w.stored(); len(b.Served) != keptServed || len(b.Successes) != keptSuccesses || b.Successes[keptSuccesses-1].Execution == "old" {
		t.Errorf("%d served, %d successes are kept", len(b.Served), len(b.Successes))
	}
}

// The server's clock says whether a run began after a request was sent. The clock of the
// machine that ran can be wrong.
func TestRequest_IsCoveredByTheServersClock(t *testing.T) {
	w := newWorld(t)
	m := w.machine()
	m.clock = func() time.Time { return w.time().Add(time.Hour) }
	if _, err := m.run(night, Request{}, making(10, 3)); err != nil {
		t.Fatal(err)
	}
	other := w.machine()
	if _, err := other.runner.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: night}, "another"); err != nil {
		t.Fatal(err)
	}
	out, err := other.run(night, Request{Published: start.Add(10 * time.Minute)}, notAgain(t))
	if held := (*lease.HeldError)(nil); !errors.As(err, &held) {
		t.Errorf("sent ten minutes after the run began: %+v, %v", out, err)
	}
	if out, err := other.run(night, Request{Published: start.Add(-time.Minute)}, notAgain(t)); err != nil || !out.Covered {
		t.Errorf("sent before it: %+v, %v", out, err)
	}
}

// After the write the run is recorded and published, even if its caller has left.
func TestRun_IsRecordedAlthoughItsCallerHasLeft(t *testing.T) {
	w := newWorld(t)
	m := w.machine()
	m.pauseAt = "record"
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	ended := make(chan error, 1)
	go func() {
		_, err := m.runner.Run(ctx, name, night, Request{TriggerID: "t/1"}, making(10, 3))
		ended <- err
	}()
	<-m.paused
	leave()
	close(m.resume)
	if err := <-ended; err != nil || w.statuses(night) != "success" {
		t.Errorf("%v, published %q", err, w.statuses(night))
	}
	if out, err := w.machine().run(night, Request{TriggerID: "t/1"}, notAgain(t)); err != nil || !out.Served {
		t.Errorf("%+v, %v", out, err)
	}
	w.want(night, "3 3 10 10")
}
