package lease

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/store"
)

var byAda = audit.Record{Action: "lock_release", Actor: "ada@host", Reason: "its machine is gone"}

func (w *world) records() []store.Doc {
	var out []store.Doc
	for doc, err := range w.mem.Scan(w.t.Context(), "audit", "!", "~") {
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, doc)
	}
	return out
}

func TestBreak_RevokesLockAndRecordsIt(t *testing.T) {
	for _, f := range []fault{healthy, retried, lost} {
		w := newWorld(t)
		l := w.locks("a")
		got := w.acquire(l, "run-1")
		w.once("apply", f)
		s, err := l.Break(t.Context(), key.String(), byAda)
		if err != nil || s.Execution != "run-1" {
			t.Fatalf("%v, %v", s, err)
		}
		if w.holder() != "" || len(w.doc(tokensCollection).Data["nonces"].([]any)) != 1 {
			t.Errorf("lock %v, tokens %v", w.doc(locksCollection), w.doc(tokensCollection))
		}
		rs := w.records()
		if len(rs) != 1 || rs[0].Data["actor"] != "ada@host" || !strings.Contains(rs[0].Data["detail"].(string), `from execution "run-1" on "a"`) {
			t.Errorf("%v", rs)
		}
		w.check("the holder", got.Renew(t.Context()), ErrLost)
	}
}

func TestBreak_MissingLockLeavesNoRecord(t *testing.T) {
	w := newWorld(t)
	_, err := w.locks("a").Break(t.Context(), key.String(), byAda)
	w.check("break", err, ErrNotLocked)
	if rs := w.records(); len(rs) != 0 {
		t.Errorf("%v", rs)
	}
}

// A renewal in between does not prevent that Break revokes the lock.
func TestBreak_RevokesLockDespiteRenewal(t *testing.T) {
	w := newWorld(t)
	l := w.locks("a")
	got := w.acquire(l, "run-1")
	first := true
	w.harm(func(op string) fault {
		if op == "apply" && first {
			first = false
			w.check("renew", got.Renew(t.Context()), nil)
		}
		return healthy
	})
	if _, err := l.Break(t.Context(), key.String(), byAda); err != nil {
		t.Fatal(err)
	}
	if w.holder() != "" || len(w.records()) != 1 {
		t.Errorf("held by %q, records %v", w.holder(), w.records())
	}
}

// A run that took the lock meanwhile is not the holder that the operator saw.
func TestBreak_KeepsLockOfNewHolder(t *testing.T) {
	w := newWorld(t)
	l := w.locks("a")
	got := w.acquire(l, "run-1")
	first := true
	w.harm(func(op string) fault {
		if op == "apply" && first {
			first = false
			w.check("release", got.Release(t.Context()), nil)
			w.acquire(w.locks("b"), "run-2")
		}
		return healthy
	})
	_, err := l.Break(t.Context(), key.String(), byAda)
	if err == nil || !strings.Contains(err.Error(), `execution "run-1" has released it meanwhile, and "run-2" on "b" has it now`) {
		t.Errorf("%v", err)
	}
	if w.holder() != "run-2" || len(w.records()) != 0 {
		t.Errorf("held by %q, records %v", w.holder(), w.records())
	}
	w.once("apply", refused)
	_, err = l.Break(t.Context(), key.String(), byAda)
	w.check("a store that is away", err, errAway)
}

func TestF29_LeakedLocksAreListed(t *testing.T) {
	w := newWorld(t)
	l := w.locks("a")
	w.acquire(l, "run-1")
	w.apply(store.Create(store.Ref{Collection: locksCollection, ID: "OldProcessor_2026-02-03"}, store.F("python-1", "execution_id")))
	for _, c := range []struct {
		after                           time.Duration
		expired, foreign, leaked, since bool
	}{{after: 10 * time.Minute}, {after: time.Second, expired: true}, {after: 20*time.Minute - time.Second, expired: true, foreign: true},
		{after: time.Second, expired: true, foreign: true, leaked: true}} {
		w.advance(c.after)
		states, at, err := l.List(t.Context())
		if err != nil || len(states) != 2 {
			t.Fatalf("%v, %v", states, err)
		}
		old, ours := states[0], states[1]
		if ours.Expired(at) != c.expired || old.Expired(at) != c.foreign || ours.Leaked(at) != c.leaked || old.Leaked(at) != c.leaked {
			t.Errorf("at %v: ours expired %v leaked %v, the other's expired %v leaked %v", at, ours.Expired(at), ours.Leaked(at), old.Expired(at), old.Leaked(at))
		}
	}
	w.once("get", refused)
	if _, _, err := l.List(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("unreadable: %v", err)
	}
}

// counting counts calls and the documents that they read.
type counting struct {
	store.Store
	calls, documents int
}

func (c *counting) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	c.calls, c.documents = c.calls+1, c.documents+len(refs)
	return c.Store.Get(ctx, refs...)
}

func (c *counting) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	c.calls++
	return func(yield func(store.Doc, error) bool) {
		for doc, err := range c.Store.Scan(ctx, collection, from, to) {
			if c.documents++; !yield(doc, err) {
				return
			}
		}
	}
}

// A released lock leaves no document: a list reads only the locks that are held.
func TestList_CostsTheLocksThatAreHeld(t *testing.T) {
	w := newWorld(t)
	l := w.locks("a")
	for n := range 2000 {
		got, err := l.Acquire(t.Context(), Key{Class: fmt.Sprint("P", n%100), Period: "2026-02-03"}, fmt.Sprint("run-", n))
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.advance(time.Second)
	}
	w.acquire(l, "run-1")
	c := &counting{Store: w.mem}
	counted := *l
	counted.Store = c
	states, _, err := counted.List(t.Context())
	if err != nil || len(states) != 1 || c.calls != 2 || c.documents != 2 {
		t.Errorf("%d locks, %d calls, %d documents, %v", len(states), c.calls, c.documents, err)
	}
}

// Trim keeps a lock that a run has taken since the list was read. The next Trim deletes the
// other locks of that commit.
func TestTrim_KeepsALockThatWasTakenSince(t *testing.T) {
	w := newWorld(t)
	l := w.locks("a")
	for n := range MostLeaked + 2 {
		if _, err := l.Acquire(t.Context(), Key{Class: fmt.Sprint("P", n), Period: "2026-02-03"}, "dead"); err != nil {
			t.Fatal(err)
		}
		w.advance(time.Millisecond)
	}
	w.advance(time.Hour)
	states, at, err := l.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	taken, err := l.Acquire(t.Context(), Key{Class: "P0", Period: "2026-02-03"}, "next")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := l.Trim(t.Context(), states, at); n != 0 || err != nil {
		t.Errorf("%d deleted, %v", n, err)
	}
	w.check("the new holder", taken.Renew(t.Context()), nil)
	if states, at, err = l.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.once("apply", lost)
	_, err = l.Trim(t.Context(), states, at)
	w.check("a lost answer", err, errAway)
	if n, err := l.Trim(t.Context(), states, at); n != 0 || err != nil { // it was deleted
		t.Errorf("%d deleted, %v", n, err)
	}
	if states, _, err = l.List(t.Context()); err != nil || len(states) != MostLeaked+1 {
		t.Errorf("%d locks, %v", len(states), err)
	}
}
