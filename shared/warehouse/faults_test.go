package warehouse_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// atMost bounds a call whose library tries again for as long as it is let.
func atMost(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// only is a right that must not ask for another token.
func (b *books) only() warehouse.Right {
	right := b.right()
	right.Next = func(context.Context) (string, error) {
		b.t.Error("a new token was asked for, although the job of the present one may have written")
		return "", errors.New("no next token")
	}
	return right
}

// nonce is the token of a right.
func nonce(right warehouse.Right) string {
	return strings.TrimPrefix(right.JobID, warehouse.JobID(lockOf, ""))
}

// Each GET of a write fails in turn, in three ways. The next try under the same token finds
// the write, which has happened once. No failed GET is a permanent refusal.
func TestWrite_HappensOnceIfAnyGetFails(t *testing.T) {
	b := newBooks(t, scores, "")
	whole := &warehousetest.Faults{}
	if _, err := b.Faulty(whole).Write(atMost(t), b.only(), b.target, rowsOf(score("a", 10, first))); err != nil {
		t.Fatal(err)
	}
	gets := whole.Gets()
	if len(gets) != 6 { // the table; the ends of the load by one, and of the query by two; the count and its row
		t.Fatalf("%q", gets)
	}
	for kind, fault := range map[string]error{
		"403": &warehousetest.Refusal{Code: http.StatusForbidden, Reason: "accessDenied", Message: "Access Denied"},
		"503": &warehousetest.Refusal{Code: http.StatusServiceUnavailable, Reason: "backendError", Message: "try again"},
		"cut": warehousetest.ErrCut,
	} {
		for i := range gets {
			t.Run(fmt.Sprintf("%s_%d", kind, i), func(t *testing.T) {
				right := b.only()
				f := &warehousetest.Faults{Get: func(n int, _ string) error {
					if n == i {
						return fault
					}
					return nil
				}}
				_, err := b.Faulty(f).Write(atMost(t), right, b.target, rowsOf(score("a", i, first), score("b", i, first)))
				if errors.Is(err, warehouse.ErrTarget) || errors.Is(err, warehouse.ErrFenced) {
					t.Errorf("GET %s: %v", gets[i], err)
				}
				got, err := b.Write(atMost(t), right, b.target, rowsOf(score("a", i, first), score("b", i, first)))
				if err != nil || got.JobID != right.JobID || got.Doubled != 0 {
					t.Errorf("GET %s: then %+v, %v", gets[i], got, err)
				}
				b.want(fmt.Sprintf("a=%d b=%[1]d", i))
			})
		}
	}
}

// A job whose end is unknown may still write, so no other job is tried in its place.
func TestWrite_IsNotTriedAgainWhenItsEndIsUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		held   bool // its state says RUNNING, and waiting for it fails
		answer error
	}{
		"cut":         {false, warehousetest.ErrCut},
		"denied":      {false, &warehousetest.Refusal{Code: http.StatusForbidden, Reason: "accessDenied", Message: "Access Denied"}},
		"it_runs_yet": {true, warehousetest.ErrCut},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBooks(t, scores, "")
			right := b.only()
			f := &warehousetest.Faults{Get: func(_ int, path string) error {
				if strings.HasSuffix(path, "/"+right.JobID) && (!c.held || strings.Contains(path, "/queries/")) {
					return c.answer
				}
				return nil
			}}
			if c.held {
				f.Held = make(chan struct{})
			}
			_, err := b.Faulty(f).Write(atMost(t), right, b.target, rowsOf(score("a", 10, first)))
			if err == nil || len(f.Jobs()) != 1 {
				t.Errorf("%d jobs: %v", len(f.Jobs()), err)
			}
			if c.held {
				if err := b.Faulty(f).Fence(atMost(t), b.target.Processor.Table, lockOf, nonce(right)); err == nil {
					t.Error("a job that still runs counts as fenced")
				}
				return
			}
			if err := b.fence(right); err != nil {
				t.Error(err)
			}
			b.want("a=10")
		})
	}
}

// A fence waits until the job of the other writer has ended.
func TestFence_WaitsForTheJobOfTheOther(t *testing.T) {
	b := newBooks(t, scores, "")
	ctx, die := context.WithCancel(t.Context())
	defer die()
	polls := 0
	f := &warehousetest.Faults{Held: make(chan struct{}), Begun: func(string) { die() }}
	f.Get = func(_ int, path string) error {
		if ctx.Err() != nil && strings.Contains(path, "/queries/") {
			if polls++; polls == 3 {
				close(f.Held)
			}
		}
		return nil
	}
	zombie := b.only()
	if _, err := b.Faulty(f).Write(ctx, zombie, b.target, rowsOf(score("a", 10, first))); err == nil {
		t.Fatal("a write that died has an answer")
	}
	if err := b.Faulty(f).Fence(atMost(t), b.target.Processor.Table, lockOf, nonce(zombie)); err != nil {
		t.Error(err)
	}
	if polls < 3 {
		t.Errorf("fenced after %d polls, while the job still ran", polls)
	}
	b.want("a=10")
}

func TestFence_FailsIfTheEndOfTheJobIsUnknown(t *testing.T) {
	b := newBooks(t, scores, "")
	zombie := b.only()
	if _, err := b.write(zombie, score("a", 10, first)); err != nil {
		t.Fatal(err)
	}
	reads := 0
	var whole atomic.Bool
	f := &warehousetest.Faults{Get: func(_ int, path string) error {
		if whole.Load() || !strings.HasSuffix(path, "/"+zombie.JobID) {
			return nil
		}
		// The first read of the job finds that its id is used; the next ones would show its end.
		if reads++; reads > 1 || strings.Contains(path, "/queries/") {
			return warehousetest.ErrCut
		}
		return nil
	}}
	w := b.Faulty(f)
	if err := w.Fence(atMost(t), b.target.Processor.Table, lockOf, nonce(zombie)); err == nil {
		t.Error("fenced, although the end of the job is unknown")
	}
	whole.Store(true)
	if err := w.Fence(atMost(t), b.target.Processor.Table, lockOf, nonce(zombie)); err != nil {
		t.Error(err)
	}
}

func TestFence_FencesEveryWriter(t *testing.T) {
	b := newBooks(t, scores, "")
	rights := []warehouse.Right{b.only(), b.only(), b.only()}
	if err := b.Fence(atMost(t), b.target.Processor.Table, lockOf, nonce(rights[0]), nonce(rights[1]), nonce(rights[2])); err != nil {
		t.Fatal(err)
	}
	for i, right := range rights {
		if _, err := b.write(right, score("a", i, first)); !errors.Is(err, warehouse.ErrFenced) {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	b.want("")
}

// A load that is reported as failed may have loaded its rows: a retry replaces them.
func TestWrite_ReplacesTheRowsOfALoadThatFailed(t *testing.T) {
	b := newBooks(t, scores, "")
	f := &warehousetest.Faults{Statement: "LOAD", Fail: []*warehousetest.Refusal{{Code: http.StatusServiceUnavailable, Reason: "backendError", Message: "try again"}}}
	got, err := b.Faulty(f).Write(atMost(t), b.only(), b.target, rowsOf(score("a", 10, first), score("b", 20, first)))
	if err != nil || got.Doubled != 0 || len(f.Jobs()) != 2 {
		t.Errorf("%d loads: %+v, %v", len(f.Jobs()), got, err)
	}
	b.want("a=10 b=20")
}

// NULL means that it is unknown how much to expect. It is not zero.
func TestExpected_TakesNULLForUnknown(t *testing.T) {
	w, night := warehousetest.Shared(t)
	tr := w.Transition()
	tr.Checks.Expected, tr.Checks.ExpectedByPeriod = "SELECT CAST(NULL AS INT64)",
		"SELECT DATE '2026-02-03', CAST(NULL AS INT64) FROM UNNEST([1]) WHERE @first <= @last UNION ALL SELECT DATE '2026-02-04', 3"
	if n, err := w.Expected(t.Context(), tr, night); err == nil {
		t.Errorf("%d are expected", n)
	}
	by, err := w.ExpectedByPeriod(t.Context(), tr, "2026-02-03", "2026-02-04")
	if _, known := by["2026-02-03"]; err != nil || known || by["2026-02-04"] != 3 {
		t.Errorf("%v, %v", by, err)
	}
}
