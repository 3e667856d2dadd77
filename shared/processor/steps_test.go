package processor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

var denied = &warehousetest.Refusal{Code: http.StatusForbidden, Reason: "accessDenied", Message: "Access Denied"}

// notAgain is the work of a run that must not come to it.
func notAgain(t *testing.T) Work {
	return func(context.Context, Run) (Output, error) {
		t.Error("the work is done again")
		return Output{}, nil
	}
}

// A token is on the list until nothing can be written under it: what is settled before its
// fence, and then is not fenced, nobody fences.
func TestTokens_StayListedUntilTheyAreFenced(t *testing.T) {
	w := newWorld(t)
	zombie := w.machine()
	zombie.dies = 1 // right after it has the lock
	if _, err := zombie.run(night, Request{}, making(10, 3)); err == nil {
		t.Fatal("a dead process has answered")
	}
	w.advance(lease.Max + time.Second)
	m, looks := w.machine(), 0
	m.faults.Get = func(_ int, path string) error {
		if strings.HasSuffix(path, "/tables/player_game_summary") {
			if looks++; looks == 2 { // the fence's; the first one is the check of the table
				return denied
			}
		}
		return nil
	}
	if out, err := m.run(night, Request{}, notAgain(t)); err == nil {
		t.Errorf("without a fence: %+v", out)
	}
	if n := w.outstanding(night); n != 1 {
		t.Errorf("%d tokens are listed, want the dead process's", n)
	}
	if out, err := w.machine().run(night, Request{}, making(11, 3)); err != nil || out.Status != message.StatusSuccess || w.outstanding(night) != 0 {
		t.Errorf("%+v, %v, %d tokens are left", out, err, w.outstanding(night))
	}
}

// A table that is broken for long must not leave a token at each try: each costs a job to
// fence, and in the end the list is full.
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

// Between the look at what was served and the lock another run can serve the request.
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
	var full books
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
	if _, err := w.mem.Apply(t.Context(), store.Create(ref, store.F(string(text), "books"))); err != nil {
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

// Whether a run began after a request was sent is told by the server's clock, which both
// are measured by, and not by the clock of the machine that ran.
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

// From the write on the caller is not needed: its rows stand in the table.
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
