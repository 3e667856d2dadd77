package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/telemetry"
)

var (
	start = time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC)
	key   = Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-03"}
)

var errAway = errors.New("the store is away")

// world is a store with a clock of its own, and what goes wrong on the way to it.
type world struct {
	t     *testing.T
	mem   *memory.Store
	clock func() time.Time // of every process

	mu    sync.Mutex
	now   time.Time // the server's clock
	fault func(op string) fault
	ids   int
}

// fault is what becomes of one call.
type fault int

const (
	healthy fault = iota
	refused       // no effect, an error
	lost          // its effect, an error
	retried       // its effect, then the driver's own second try is answered
)

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: start}
	w.clock, w.mem = w.time, memory.New(w.time)
	return w
}

func (w *world) time() time.Time         { w.mu.Lock(); defer w.mu.Unlock(); return w.now }
func (w *world) advance(d time.Duration) { w.mu.Lock(); defer w.mu.Unlock(); w.now = w.now.Add(d) }

// locks are those of one process, whose clock is the server's.
func (w *world) locks(instance string) *Locks { return w.locksAt(instance, w.clock, io.Discard) }

func (w *world) locksAt(instance string, now func() time.Time, logs io.Writer) *Locks {
	log, err := telemetry.New(logs, "debug")
	if err != nil {
		w.t.Fatal(err)
	}
	id := func() string { w.mu.Lock(); defer w.mu.Unlock(); w.ids++; return fmt.Sprintf("n%d", w.ids) }
	return New(Config{Store: faulty{w}, Now: now, NewID: id, Lease: Max, Instance: instance, Log: log})
}

func (w *world) acquire(l *Locks, execution string) *Lease {
	w.t.Helper()
	got, err := l.Acquire(w.t.Context(), key, execution)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

func (w *world) apply(ws ...store.Write) {
	w.t.Helper()
	if _, err := w.mem.Apply(w.t.Context(), ws...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) doc(collection string) store.Doc {
	w.t.Helper()
	snap, err := w.mem.Get(context.Background(), store.Ref{Collection: collection, ID: key.String()})
	if err != nil {
		w.t.Fatal(err)
	}
	return snap.Docs[0]
}

// holder is the execution in the lock's document, "" when there is none.
func (w *world) holder() string {
	w.t.Helper()
	s, _ := parse(w.doc(locksCollection))
	return s.Execution
}

func (w *world) check(what string, err error, want error) {
	w.t.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		w.t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// held checks that an error says who has the lock.
func (w *world) held(err error, execution string) {
	w.t.Helper()
	if h := (*HeldError)(nil); !errors.As(err, &h) || h.State.Execution != execution {
		w.t.Errorf("%v, want it to be held by %s", err, execution)
	}
}

func (w *world) next(op string) fault {
	w.mu.Lock()
	f := w.fault
	w.mu.Unlock()
	if f == nil {
		return healthy
	}
	return f(op)
}

// harm sets what goes wrong from now on.
func (w *world) harm(f func(op string) fault) { w.mu.Lock(); defer w.mu.Unlock(); w.fault = f }

// once makes the next call of an operation go wrong.
func (w *world) once(op string, f fault) { w.times(1, op, f) }

func (w *world) times(n int, op string, f fault) {
	w.harm(func(got string) fault {
		if got != op || n == 0 {
			return healthy
		}
		n--
		return f
	})
}

type faulty struct{ w *world }

func (f faulty) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	if f.w.next("get") != healthy {
		return store.Snapshot{}, errAway
	}
	return f.w.mem.Get(ctx, refs...)
}

func (f faulty) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	switch f.w.next("apply") {
	case refused:
		return nil, errAway
	case lost:
		_, _ = f.w.mem.Apply(ctx, ws...)
		return nil, errAway
	case retried:
		_, _ = f.w.mem.Apply(ctx, ws...)
	}
	return f.w.mem.Apply(ctx, ws...)
}

func (f faulty) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return f.w.mem.Scan(ctx, collection, from, to)
}
