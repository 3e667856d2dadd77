package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/phasegate/phasegate/shared/store"
)

// moved is a later reading of both clocks, the one of the wall and the monotonic one. No call
// of the library moves them apart, as a suspended machine or a clock that is set does.
func moved(t *testing.T, from time.Time, wall, monotonic time.Duration) time.Time {
	t.Helper()
	to := from.Add(wall)
	(*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&to)).ext += int64(monotonic - wall)
	if to.Sub(from) != monotonic || to.Round(0).Sub(from.Round(0)) != wall {
		t.Fatalf("the clocks read %v and %v, want %v and %v", to.Round(0).Sub(from.Round(0)), to.Sub(from), wall, monotonic)
	}
	return to
}

func TestLease_IsTrustedByTheStricterOfTwoClocks(t *testing.T) {
	for name, c := range map[string]struct {
		wall, monotonic time.Duration
		want            error
	}{
		"shortly_before_its_end": {9*time.Minute - 1, 9*time.Minute - 1, nil},
		"suspended":              {9 * time.Minute, time.Second, ErrLost}, // the monotonic clock stood still
		"clock_set_back":         {-time.Hour, 9 * time.Minute, ErrLost},
		"clock_set_forward":      {time.Hour, time.Second, ErrLost},
	} {
		t.Run(name, func(t *testing.T) {
			w, from := newWorld(t), time.Now()
			var wall, monotonic atomic.Int64
			l := w.locksAt("a", func() time.Time {
				return moved(t, from, time.Duration(wall.Load()), time.Duration(monotonic.Load()))
			}, t.Output())
			got := w.acquire(l, "run-1")
			work, stop := got.Keep(t.Context())
			defer stop()
			w.check("before", got.Check(), nil)
			wall.Store(int64(c.wall))
			monotonic.Store(int64(c.monotonic))
			w.check("work", context.Cause(asked(work)), c.want)
			w.check("lease", got.Check(), c.want)
		})
	}
}

// asked is a context whose Err was called, as each call to a service calls it.
func asked(ctx context.Context) context.Context { _ = ctx.Err(); return ctx }

// hangsOnce is a store whose first write returns only when its context ends.
type hangsOnce struct {
	store.Store
	hung *atomic.Bool
}

func (s hangsOnce) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	if s.hung.CompareAndSwap(false, true) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Store.Apply(ctx, ws...)
}

func TestKeep_LeavesTimeForARenewalAfterOneThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, l *Locks) {
		got := w.acquire(l, "run-1")
		l.Store = hangsOnce{l.Store, &atomic.Bool{}}
		work, stop := got.Keep(t.Context())
		time.Sleep(20 * time.Minute)
		if err := work.Err(); err != nil {
			t.Errorf("%v: %v", err, context.Cause(work))
		}
		stop()
		w.check("release", got.Release(t.Context()), nil)
	})
}

// leaving is a store whose caller goes right after its write has happened.
type leaving struct {
	store.Store
	leave func()
	err   error // what the caller would hear
}

func (s leaving) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	versions, err := s.Store.Apply(ctx, ws...)
	if ws[0].Op == store.OpCreate {
		s.leave()
		err = errors.Join(err, s.err)
	}
	return versions, err
}

// A lock that no run has must not keep the next one out for ten minutes.
func TestAcquire_GivesBackWhatItsCallerDidNotWaitFor(t *testing.T) {
	for name, answer := range map[string]error{"answered": nil, "answer_lost": errAway} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			l := w.locks("a")
			ctx, leave := context.WithCancel(t.Context())
			l.Store = leaving{l.Store, leave, answer}
			if got, err := l.Acquire(ctx, key, "run-1"); err == nil {
				t.Errorf("a caller that has gone has %v", got.Key())
			}
			if w.holder() != "" {
				t.Errorf("held by %q", w.holder())
			}
		})
	}
}
