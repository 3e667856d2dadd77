package lease

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// python uses a lock as processors in other languages do. They know four fields and the times
// of their own clock. In a transaction they take over a lock that was acquired more than 10
// minutes ago. At their end they delete the lock of any holder and any version. They never
// take a lock that does not say when it was acquired.
type python struct {
	w         *world
	execution string
	merges    bool // leaves fields that it does not know
}

func (p python) acquire() bool {
	ctx := context.Background()
	for {
		doc := p.w.doc(locksCollection)
		if at, ok := doc.Data["acquired_at"].(time.Time); doc.Exists && (!ok || p.w.clock().Sub(at) <= 10*time.Minute) {
			return false
		}
		fields := []store.Field{store.F(p.w.clock(), "acquired_at"), store.F(p.execution, "execution_id"),
			store.F("worker-7", "instance"), store.F(key.Class, "processor")}
		var ws []store.Write
		switch {
		case !doc.Exists:
			ws = append(ws, store.Create(doc.Ref, fields...))
		case p.merges:
			ws = append(ws, store.MergeIf(doc.Ref, doc.Version, fields...))
		default: // the store has no overwrite: delete and create
			if _, err := p.w.mem.Apply(ctx, store.DeleteIf(doc.Ref, doc.Version)); err != nil {
				continue
			}
			ws = append(ws, store.Create(doc.Ref, fields...))
		}
		_, err := p.w.mem.Apply(ctx, ws...)
		if err == nil {
			return true
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
			p.w.t.Fatal(err)
		}
	}
}

func (p python) release() {
	for { // the store has no blind delete
		doc := p.w.doc(locksCollection)
		if !doc.Exists {
			return
		}
		if _, err := p.w.mem.Apply(context.Background(), store.DeleteIf(doc.Ref, doc.Version)); err != nil && !errors.Is(err, store.ErrConflict) {
			p.w.t.Fatal(err)
		}
	}
}

func TestPython_DoesNotTakeRenewedLock(t *testing.T) {
	w := newWorld(t)
	got := w.acquire(w.locks("a"), "run-1")
	p := python{w: w, execution: "python-1"}
	for range 12 {
		w.advance(5 * time.Minute)
		w.check("renew", got.Renew(t.Context()), nil)
		if p.acquire() {
			t.Fatal("taken over")
		}
	}
}

func TestPython_TakeOverLosesLock(t *testing.T) {
	for _, merges := range []bool{true, false} {
		w := newWorld(t)
		got := w.acquire(w.locks("a"), "run-1")
		w.advance(10*time.Minute + time.Second)
		if !(python{w, "python-1", merges}).acquire() {
			t.Fatal("a stale lock is not taken over")
		}
		w.check("renew", got.Renew(t.Context()), ErrLost)
		w.check("release", got.Release(t.Context()), ErrLost)
		if w.holder() != "python-1" {
			t.Errorf("held by %q", w.holder())
		}
		// Python does not renew its lock: the lock gets twice the time.
		w.advance(20 * time.Minute)
		_, err := w.locks("b").Acquire(t.Context(), key, "run-2")
		w.held(err, "python-1")
		w.advance(time.Second)
		w.acquire(w.locks("b"), "run-2")
		if w.holder() != "run-2" || len(w.doc(tokensCollection).Data["nonces"].([]any)) != 2 {
			t.Errorf("%v", w.doc(locksCollection))
		}
	}
}

// On release, Python deletes the lock of any holder. The holder detects that at its next
// renewal, and at the latest before its work counts as done.
func TestPython_DeleteLosesLock(t *testing.T) {
	w := newWorld(t)
	p := python{w: w, execution: "python-1"}
	if !p.acquire() {
		t.Fatal("a free lock is not taken")
	}
	w.advance(20*time.Minute + time.Second)
	got := w.acquire(w.locks("a"), "run-1")
	p.release()
	next := w.acquire(w.locks("b"), "run-2") // nothing can stop it; it knows the token to fence
	if len(next.Outstanding()) != 1 || next.Outstanding()[0] != got.Token().Nonce {
		t.Errorf("outstanding %v, want that of %v", next.Outstanding(), got.Token())
	}
	w.check("renew", got.Renew(t.Context()), ErrLost)

	p.release()
	w.check("release", next.Release(t.Context()), ErrLost)
}

// Whichever of our requests it deletes before, the lock is lost: no request makes a document
// again, and the next run is not kept out.
func TestLease_IsLostWhereverPythonDeletesItsDocument(t *testing.T) {
	renew := func(l *Lease) error { return l.Renew(context.Background()) }
	rearm := func(l *Lease) error { _, err := l.Rearm(context.Background()); return err }
	release := func(l *Lease) error { return l.Release(context.Background()) }
	for name, c := range map[string]struct {
		do     func(l *Lease) error
		before int // which of its requests
	}{
		"renew":                    {renew, 1},
		"rearm_before_it_reads":    {rearm, 1},
		"rearm_before_it_writes":   {rearm, 2},
		"release":                  {release, 1},
		"renew_before_release":     {func(l *Lease) error { return errors.Join(renew(l), release(l)) }, 2},
		"rearm_before_the_release": {func(l *Lease) error { return errors.Join(rearm(l), release(l)) }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			got := w.acquire(w.locks("a"), "run-1")
			requests := 0
			w.harm(func(string) fault {
				if requests++; requests == c.before {
					(python{w: w, execution: "python-1"}).release()
				}
				return healthy
			})
			w.check(name, c.do(got), ErrLost)
			if doc := w.doc(locksCollection); doc.Exists || requests < c.before {
				t.Errorf("after %d requests a document is there again: %v", requests, doc.Data)
			}
			w.harm(nil)
			w.acquire(w.locks("b"), "run-2")
		})
	}
}

// Python releases between our read and our write: the document that we read no longer exists.
func TestAcquire_MeetsThePythonReleaseInItsMiddle(t *testing.T) {
	w := newWorld(t)
	p := python{w: w, execution: "python-1"}
	if !p.acquire() {
		t.Fatal("a free lock is not taken")
	}
	w.advance(Foreign + time.Second)
	first := true
	w.harm(func(op string) fault {
		if op == "apply" && first {
			first = false
			p.release()
		}
		return healthy
	})
	got := w.acquire(w.locks("a"), "run-1")
	w.check("renew", got.Renew(t.Context()), nil)
	if w.holder() != "run-1" {
		t.Errorf("held by %q", w.holder())
	}
}

// Python waits for ever for a lock that does not say when it was acquired. We take it over,
// and our release frees it for both.
func TestAcquire_FreesALockWithoutATimeThatPythonNeverTakes(t *testing.T) {
	w := newWorld(t)
	w.apply(store.Create(store.Ref{Collection: locksCollection, ID: key.String()}, store.F("python-0", "execution_id")))
	p := python{w: w, execution: "python-1"}
	w.advance(Foreign)
	if p.acquire() {
		t.Error("python takes a lock that does not say when it was acquired")
	}
	if _, err := w.locks("a").Acquire(t.Context(), key, "run-1"); err == nil {
		t.Error("taken over before its time")
	}
	w.advance(time.Second)
	w.check("release", w.acquire(w.locks("a"), "run-1").Release(t.Context()), nil)
	if !p.acquire() {
		t.Error("not free")
	}
}

// Both find it stale, and one is faster.
func TestPython_StaleLockIsTakenOverOnce(t *testing.T) {
	w := newWorld(t)
	w.acquire(w.locks("a"), "run-1")
	w.advance(10*time.Minute + time.Second)
	first := true
	w.harm(func(op string) fault {
		if op == "apply" && first {
			first = false
			if !(python{w, "python-1", true}).acquire() {
				t.Error("not stale")
			}
		}
		return healthy
	})
	_, err := w.locks("b").Acquire(t.Context(), key, "run-2")
	w.held(err, "python-1")
}

func TestPython_SeesReleasedLockAsFree(t *testing.T) {
	w := newWorld(t)
	w.check("release", w.acquire(w.locks("a"), "run-1").Release(t.Context()), nil)
	if !(python{w: w, execution: "python-1"}).acquire() {
		t.Error("not free")
	}
}

// A document of unknown form is a lock of another program: we take it over only after Foreign.
func TestDocument_UnknownFormIsForeign(t *testing.T) {
	for name, fields := range map[string][]store.Field{
		"empty":              nil,
		"another_owner":      {store.F("run-1", "execution_id"), store.F("run-0", "owner"), store.F("n", "nonce"), store.F(1, "lease_ms"), store.F(start, "acquired_at"), store.F(start, "since")},
		"time_in_text":       {store.F("run-1", "execution_id"), store.F("run-1", "owner"), store.F("n", "nonce"), store.F(1, "lease_ms"), store.F("2026-02-04", "acquired_at"), store.F(start, "since")},
		"no_duration":        {store.F("run-1", "execution_id"), store.F("run-1", "owner"), store.F("n", "nonce"), store.F(start, "acquired_at"), store.F(start, "since")},
		"execution_in_parts": {store.F([]any{"run", "1"}, "execution_id"), store.F(start, "acquired_at")},
		"in_the_far_future":  {store.F("run-1", "execution_id"), store.F(start.AddDate(100, 0, 0), "acquired_at")},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.apply(store.Create(store.Ref{Collection: locksCollection, ID: key.String()}, fields...))
			w.advance(Foreign)
			if _, err := w.locks("a").Acquire(t.Context(), key, "run-2"); err == nil {
				t.Error("taken over before its time")
			}
			w.advance(time.Second)
			w.acquire(w.locks("a"), "run-2")
		})
	}
}
