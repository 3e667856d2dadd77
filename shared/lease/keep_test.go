package lease

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

// bubble runs a test on a clock that moves only when everybody waits; the server's and
// the process's clock are the same.
func bubble(t *testing.T, test func(t *testing.T, w *world, l *Locks)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.clock, w.mem = time.Now, memory.New(time.Now)
		test(t, w, w.locksAt("a", time.Now, t.Output()))
	})
}

func TestKeep_RenewsLockUntilWorkEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, l *Locks) {
		got := w.acquire(l, "run-1")
		work, stop := got.Keep(t.Context())
		for range 100 {
			time.Sleep(3 * time.Minute)
			if err := work.Err(); err != nil {
				t.Fatal(err)
			}
			_, err := w.locks("b").Acquire(t.Context(), key, "run-2")
			w.held(err, "run-1")
		}
		stop()
		stop()
		if work.Err() == nil {
			t.Error("the work's context goes on after the work")
		}
		w.check("release", got.Release(t.Context()), nil)
	})
}

// A third of the lease: three tries, less the margin, before it is lost.
func TestKeep_RenewsAtThirdOfLease(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, l *Locks) {
		got := w.acquire(l, "run-1")
		var writes atomic.Int64
		w.harm(func(op string) fault {
			if op == "apply" {
				writes.Add(1)
			}
			return healthy
		})
		_, stop := got.Keep(t.Context())
		time.Sleep(time.Hour + time.Second)
		stop()
		if n := writes.Load(); n != 18 {
			t.Errorf("%d writes an hour, want 18", n)
		}
	})
}

func TestKeep_EndsWorkWhenSafeTimeEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, l *Locks) {
		began := time.Now()
		got := w.acquire(l, "run-1")
		w.harm(func(string) fault { return refused })
		work, stop := got.Keep(t.Context())
		defer stop()
		<-work.Done()
		if took := time.Since(began); took != 9*time.Minute {
			t.Errorf("after %v", took)
		}
		w.check("cause", context.Cause(work), ErrLost)
		w.harm(nil)
		if w.holder() != "run-1" {
			t.Error("run-1 lost the lock before its work had to end")
		}
	})
}

func TestKeep_EndsWorkWhenLockIsTaken(t *testing.T) {
	for name, take := range map[string]func(w *world){
		"deleted": func(w *world) { w.apply(store.DeleteIf(w.doc(locksCollection).Ref, w.doc(locksCollection).Version)) },
		"overwritten": func(w *world) {
			w.apply(store.Merge(w.doc(locksCollection).Ref, store.F("python-1", "execution_id"), store.F(time.Now(), "acquired_at")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world, l *Locks) {
				began := time.Now()
				got := w.acquire(l, "run-1")
				work, stop := got.Keep(t.Context())
				defer stop()
				take(w)
				<-work.Done()
				if took := time.Since(began); took > Max/3 {
					t.Errorf("after %v", took)
				}
				w.check("cause", context.Cause(work), ErrLost)
			})
		})
	}
}

// The store answers again before the safe time has ended: the work goes on.
func TestKeep_RetriesFailedRenewal(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, l *Locks) {
		got := w.acquire(l, "run-1")
		work, stop := got.Keep(t.Context())
		defer stop()
		w.harm(func(string) fault { return refused })
		time.Sleep(8 * time.Minute)
		w.harm(nil)
		time.Sleep(8 * time.Minute)
		if err := work.Err(); err != nil {
			t.Error(err, context.Cause(work))
		}
	})
}

// A run that is being stopped may still write: its lock is kept until the work has ended.
func TestKeep_CancelledCallerKeepsLockUntilWorkEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, l *Locks) {
		got := w.acquire(l, "run-1")
		ctx, cancel := context.WithCancel(t.Context())
		work, stop := got.Keep(ctx)
		cancel()
		<-work.Done()
		time.Sleep(time.Hour)
		_, err := w.locks("b").Acquire(t.Context(), key, "run-2")
		w.held(err, "run-1")
		stop()
		w.check("release", got.Release(t.Context()), nil)
	})
}

// A log whose stream takes no more lines must not delay the end of the work.
func TestKeep_StalledLogDoesNotDelayEndOfWork(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, l *Locks) {
		got := w.acquire(l, "run-1")
		stalled := make(stall)
		l.Log = slog.New(slog.NewTextHandler(stalled, nil))
		w.harm(func(string) fault { return refused })
		work, stop := got.Keep(t.Context())
		<-work.Done()
		w.check("cause", context.Cause(work), ErrLost)
		if err := context.Cause(work); !strings.Contains(err.Error(), errAway.Error()) {
			t.Errorf("%v does not say why", err)
		}
		close(stalled)
		stop()
	})
}

// stall is a stream that takes nothing until it is closed.
type stall chan struct{}

func (s stall) Write(p []byte) (int, error) { <-s; return len(p), nil }

// hanging is a store that answers only when its caller has gone.
type hanging struct{ store.Store }

func (hanging) Apply(ctx context.Context, _ ...store.Write) ([]store.Version, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A process that is being stopped has only seconds. A renewal that hangs must not use them up.
func TestKeep_StopDoesNotWaitForHangingRenewal(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, l *Locks) {
		got := w.acquire(l, "run-1")
		l.Store = hanging{l.Store}
		_, stop := got.Keep(t.Context())
		time.Sleep(Max/3 + Max/60) // the renewal hangs
		began := time.Now()
		stop()
		if took := time.Since(began); took > 0 {
			t.Errorf("waited %v", took)
		}
		w.check("check", got.Check(), nil)
	})
}

// A process that was stopped, or a machine that was suspended, wakes with its timers
// still to come; on the latter the monotonic clock has stood still.
func TestKeep_PausedHolderDetectsLossBeforeWork(t *testing.T) {
	for name, jump := range map[string]func(t time.Time) time.Time{
		"both_clocks_moved": func(t time.Time) time.Time { return t.Add(9 * time.Minute) },
		"wall_clock_alone":  func(t time.Time) time.Time { return t.Round(0).Add(9 * time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world, _ *Locks) {
				var asleep atomic.Bool
				l := w.locksAt("a", func() time.Time {
					if asleep.Load() {
						return jump(time.Now())
					}
					return time.Now()
				}, t.Output())
				got := w.acquire(l, "run-1")
				work, stop := got.Keep(t.Context())
				defer stop()
				child, cancel := context.WithCancel(work)
				defer cancel()
				w.check("before", work.Err(), nil)
				synctest.Wait()
				asleep.Store(true) // and no timer has fired
				w.check("after", work.Err(), context.Canceled)
				w.check("cause", context.Cause(work), ErrLost)
				w.check("of it", child.Err(), context.Canceled)
				w.check("lease", got.Check(), ErrLost)
			})
		})
	}
}

func TestWait_EndsWithLockOrCaller(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, l *Locks) {
		first := w.acquire(l, "run-1")
		_, stop := first.Keep(t.Context())
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Minute, errors.New("enough"))
		defer cancel()
		_, err := w.locks("b").Wait(ctx, key, "run-2")
		w.held(err, "run-1")
		done := make(chan *Lease)
		var looks atomic.Int64
		w.harm(func(op string) fault {
			if op == "get" && looks.Add(1) == 10 {
				return refused
			}
			return healthy
		})
		began := time.Now()
		go func() {
			got, err := w.locks("c").Wait(t.Context(), key, "run-3")
			w.check("wait", err, nil)
			done <- got
		}()
		time.Sleep(time.Hour)
		stop()
		w.check("release", first.Release(t.Context()), nil)
		got := <-done
		if took := time.Since(began); took > time.Hour+3*lastPause/2 {
			t.Errorf("waited %v", took)
		}
		if n := looks.Load(); n > 4000 { // 5 s at first, 1.25 s in the end
			t.Errorf("%d reads in an hour", n)
		}
		w.check("release", got.Release(t.Context()), nil)
	})
}
