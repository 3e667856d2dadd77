package lease

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/store"
)

func TestAcquire_HeldErrorNamesHolderAndTimes(t *testing.T) {
	w := newWorld(t)
	w.acquire(w.locks("a"), "run-1")
	w.advance(time.Minute)
	_, err := w.locks("b").Acquire(t.Context(), key, "run-2")
	w.held(err, "run-1")
	want := `PlayerGameSummaryProcessor_2026-02-03 is locked by execution "run-1" on "a" since 2026-02-04T11:05:00Z, until 2026-02-04T11:15:00Z unless it is renewed`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	other := Key{Class: key.Class, Period: "2026-02-02"}
	if _, err := w.locks("b").Acquire(t.Context(), other, "run-2"); err != nil {
		t.Errorf("another period: %v", err)
	}
}

// An execution is no licence: its first try may still be at work.
func TestAcquire_SecondTryOfExecutionIsRefused(t *testing.T) {
	w := newWorld(t)
	l := w.locks("a")
	w.acquire(l, "run-1")
	_, err := l.Acquire(t.Context(), key, "run-1")
	w.held(err, "run-1")
}

func TestAcquire_WritesDocumentOfOtherLanguages(t *testing.T) {
	w := newWorld(t)
	w.acquire(w.locks("worker-1"), "run-1")
	want := map[string]any{
		"acquired_at": start, "execution_id": "run-1", "instance": "worker-1", "processor": "PlayerGameSummaryProcessor",
		"owner": "run-1", "nonce": "n1", "lease_ms": int64(600_000), "since": start,
	}
	if diff := cmp.Diff(want, w.doc(locksCollection).Data); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"nonces": []any{"n1"}, "expires_at": nil}, w.doc(tokensCollection).Data); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
}

func TestF27_ARunLongerThanItsLeaseKeepsTheLockByRenewal(t *testing.T) {
	w := newWorld(t)
	got := w.acquire(w.locks("a"), "run-1")
	for range 12 { // an hour
		w.advance(5 * time.Minute)
		w.check("renew", got.Renew(t.Context()), nil)
		_, err := w.locks("b").Acquire(t.Context(), key, "run-2")
		w.held(err, "run-1")
	}
	if s, _ := parse(w.doc(locksCollection)); s.Since != start || s.Renewed != start.Add(time.Hour) {
		t.Errorf("since %v, renewed %v", s.Since, s.Renewed)
	}
	w.check("release", got.Release(t.Context()), nil)
	if w.holder() != "" {
		t.Error("still there")
	}
}

func TestF27_ReleaseNeverDeletesAnothersLock(t *testing.T) {
	for name, taken := range map[string]func(w *world){
		"after_it_expired":     func(w *world) { w.advance(Max + time.Second) },
		"after_it_was_deleted": func(w *world) { w.apply(store.DeleteIf(w.doc(locksCollection).Ref, w.doc(locksCollection).Version)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			got := w.acquire(w.locks("a"), "run-1")
			taken(w)
			second := w.acquire(w.locks("b"), "run-2")
			w.check("release", got.Release(t.Context()), ErrLost)
			if w.holder() != "run-2" {
				t.Errorf("held by %q", w.holder())
			}
			w.check("the other's", second.Renew(t.Context()), nil)
		})
	}
}

func TestF27_TheSameExecutionAgainIsAnother(t *testing.T) {
	w := newWorld(t)
	first := w.acquire(w.locks("a"), "run-1")
	w.advance(Max + time.Second)
	second := w.acquire(w.locks("b"), "run-1")
	w.check("release", first.Release(t.Context()), ErrLost)
	w.check("the second's", second.Renew(t.Context()), nil)
}

func errIf(is bool, err error) error {
	if is {
		return err
	}
	return nil
}

func TestF28_AStoreErrorWhileAcquiringIsNoLockAndNoEnd(t *testing.T) {
	for _, op := range []string{"get", "apply"} {
		w := newWorld(t)
		l := w.locks("a")
		w.once(op, refused)
		got, err := l.Acquire(t.Context(), key, "run-1")
		w.check(op, err, errAway)
		if got != nil {
			t.Errorf("%s: a lease in spite of %v", op, err)
		}
		w.acquire(l, "run-1") // again, later
	}
}

func TestF29_ALockThatIsNeverReleasedEndsByItself(t *testing.T) {
	w := newWorld(t)
	dead := w.acquire(w.locks("a"), "run-1")
	w.advance(Max)
	_, err := w.locks("b").Acquire(t.Context(), key, "run-2")
	w.held(err, "run-1") // until its very end
	w.advance(time.Microsecond)
	next := w.acquire(w.locks("b"), "run-2")
	if next.Token().At <= dead.Token().At {
		t.Errorf("token %v after %v", next.Token(), dead.Token())
	}
	if diff := cmp.Diff([]string{"n1"}, next.Outstanding()); diff != "" {
		t.Errorf("outstanding tokens of the dead holder (-want +got):\n%s", diff)
	}
	w.check("the dead one", dead.Check(), ErrLost)
	w.check("the dead one renews", dead.Renew(t.Context()), ErrLost)
}

// If Acquire does not get the lock, it returns an error and no lease.
func TestF30_WithoutTheLockThereIsNoLease(t *testing.T) {
	damage := map[string]func(w *world){
		"held":               func(*world) {},
		"unreadable":         func(w *world) { w.times(100, "get", refused) },
		"tokens_are_no_list": func(w *world) { w.apply(store.Merge(w.doc(tokensCollection).Ref, store.F("n1", "nonces"))) },
		"a_token_is_nothing": func(w *world) { w.apply(store.Merge(w.doc(tokensCollection).Ref, store.F([]any{""}, "nonces"))) },
		"nobody_asks_for_it": func(w *world) {},
	}
	for name, harm := range damage {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if name == "held" {
				w.acquire(w.locks("a"), "run-1")
			}
			harm(w)
			execution := "run-2"
			if name == "nobody_asks_for_it" {
				execution = ""
			}
			got, err := w.locks("b").Acquire(t.Context(), key, execution)
			if err == nil || got != nil {
				t.Errorf("lease %v, error %v", got, err)
			}
		})
	}
}

func TestAcquire_RecognisesOwnWriteAfterLostResponse(t *testing.T) {
	for _, f := range []fault{lost, retried} {
		t.Run(fmt.Sprint(f), func(t *testing.T) {
			w := newWorld(t)
			l := w.locks("a")
			w.once("apply", f)
			got := w.acquire(l, "run-1")
			if got.Token().At != w.doc(locksCollection).Version || w.holder() != "run-1" {
				t.Errorf("token %v of %v", got.Token(), w.doc(locksCollection))
			}
			w.advance(time.Minute)
			w.once("apply", f)
			err := got.Renew(t.Context())
			w.check("renew", err, errIf(f == lost, errAway))
			w.check("renew again", got.Renew(t.Context()), nil)
			w.once("apply", f)
			w.check("release", got.Release(t.Context()), errIf(f == retried, ErrLost)) // the driver's own first delete looks like the delete of another process
			if w.holder() != "" {
				t.Errorf("held by %q", w.holder())
			}
			w.check("release again", got.Release(t.Context()), errIf(f == retried, ErrLost))
		})
	}
}

// The driver's second try finds the document of its first try, and cannot read it.
func TestAcquire_UnreadableOwnWriteIsNotHeldByOther(t *testing.T) {
	w := newWorld(t)
	written := false
	w.harm(func(op string) fault {
		switch {
		case op == "apply":
			written = true
			return retried
		case written:
			return refused
		}
		return healthy
	})
	_, err := w.locks("a").Acquire(t.Context(), key, "run-1")
	w.check("acquire", err, errAway)
}

// A renewal whose answer was lost may have been written long ago: only a confirmed one
// extends the safe time.
func TestRenew_SafeTimeCountsFromConfirmedAttempt(t *testing.T) {
	w := newWorld(t)
	got := w.acquire(w.locks("a"), "run-1")
	w.advance(4 * time.Minute)
	w.once("apply", lost)
	w.check("renew", got.Renew(t.Context()), errAway)
	w.advance(5*time.Minute - time.Second) // a second before the safe time ends
	first := true
	w.harm(func(op string) fault { // what is met is our own write, and no other succeeds
		if op == "apply" && !first {
			return refused
		}
		first = first && op != "apply"
		return healthy
	})
	w.check("renew", got.Renew(t.Context()), errAway)
	w.check("check", got.Check(), nil)
	w.advance(time.Second)
	w.check("check", got.Check(), ErrLost)
}

func TestAcquire_SlowAcquisitionIsConfirmedFirst(t *testing.T) {
	w := newWorld(t)
	l := w.locks("a")
	slow := func(got string) fault { // the answer to the write comes after most of the lease
		if got == "apply" {
			w.mu.Lock()
			w.now, w.fault = w.now.Add(9*time.Minute+30*time.Second), nil
			w.mu.Unlock()
		}
		return healthy
	}
	w.harm(slow)
	got := w.acquire(l, "run-1")
	w.check("check", got.Check(), nil)
	if s, _ := parse(w.doc(locksCollection)); s.Renewed.Before(w.time()) {
		t.Errorf("renewed %v at %v", s.Renewed, w.time())
	}
}

func TestAcquire_CancelledCallerGetsNoLock(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.harm(func(got string) fault {
		if got == "apply" {
			cancel()
			return lost
		}
		return healthy
	})
	if got, err := w.locks("a").Acquire(ctx, key, "run-1"); err == nil {
		t.Errorf("%v", got)
	}
	w.harm(nil)
	w.acquire(w.locks("b"), "run-2") // without waiting
}

func TestToken_OrderSurvivesReleaseDeleteAndHolder(t *testing.T) {
	w := newWorld(t) // its clock stands
	var last store.Version
	for i := range 20 {
		got := w.acquire(w.locks(fmt.Sprint(i%3)), fmt.Sprintf("run-%d", i))
		if got.Token().At <= last {
			t.Fatalf("token %d after %d", got.Token().At, last)
		}
		last = got.Token().At
		if n := len(got.Outstanding()); n != i {
			t.Fatalf("%d outstanding of %d", n, i)
		}
		switch i % 3 {
		case 0:
			w.check("release", got.Release(t.Context()), nil)
		case 1:
			w.apply(store.DeleteIf(w.doc(locksCollection).Ref, w.doc(locksCollection).Version))
		case 2:
			w.advance(Max + time.Millisecond)
		}
	}
}

func TestLock_TransitionsAreLogged(t *testing.T) {
	w := newWorld(t)
	var logs bytes.Buffer
	l := w.locksAt("a", w.time, &logs)
	got := w.acquire(l, "run-1")
	w.check("renew", got.Renew(t.Context()), nil)
	_, err := l.Acquire(t.Context(), key, "run-2")
	w.held(err, "run-1")
	w.advance(Max)
	w.check("check", got.Check(), ErrLost)
	for range 2 {
		w.check("renew", got.Renew(t.Context()), ErrLost)
	}
	for _, event := range []string{"lock_acquired", "lock_renewed", "lock_held", "lock_lost"} {
		n := bytes.Count(logs.Bytes(), fmt.Appendf(nil, `"event":"%s","collection":"processing_locks","lock":"PlayerGameSummaryProcessor_2026-02-03","processor":"PlayerGameSummaryProcessor","period":"2026-02-03","execution_id":"run-`, event))
		if n != 1 {
			t.Errorf("%d lines of %s:\n%s", n, event, logs.String())
		}
	}
}
