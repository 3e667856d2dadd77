package receipt

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// fault is what happens to one call of the store.
type fault string

// faulty has one fault at one call.
type faulty struct {
	store.Store
	at, calls int
	fault     fault
	pending   func()
	dead      bool
}

func (f *faulty) step(do func() error) error {
	if f.dead {
		return errCrash
	}
	if f.pending != nil {
		f.pending()
		f.pending = nil
	}
	f.calls++
	if f.calls != f.at {
		return do()
	}
	switch f.fault {
	case unavailable:
		return errAway
	case late:
		f.pending = func() { _ = do() }
		return errAway
	case crashBefore:
		f.dead = true
		return errCrash
	case crashAfter:
		f.dead = true
	}
	if err := do(); err != nil {
		return err
	}
	if f.dead {
		return errCrash
	}
	return errAway
}

func (f *faulty) Get(ctx context.Context, refs ...store.Ref) (snap store.Snapshot, err error) {
	err = f.step(func() (err error) { snap, err = f.Store.Get(ctx, refs...); return err })
	return snap, err
}

func (f *faulty) Apply(_ context.Context, writes ...store.Write) (v []store.Version, err error) {
	err = f.step(func() (err error) { v, err = f.Store.Apply(context.Background(), writes...); return err })
	return v, err
}

// TestCrashMatrix_EachCallOfEachStep plays every fault at every call of a delivery, and then
// its copy. The work is never recorded without having been done, and a run that was answered
// as done has no second one.
func TestCrashMatrix_EachCallOfEachStep(t *testing.T) {
	onEachDriver(t, func(t *testing.T, s store.Store) {
		cases, again := 0, 0
		for _, succeeds := range []bool{true, false} {
			for _, kind := range []fault{unavailable, lostAnswer, late, crashBefore, crashAfter} {
				for at := 1; ; at++ {
					cases++
					prefix := fmt.Sprintf("c%d_", cases)
					f := &faulty{Store: s, at: at, fault: kind}
					name := fmt.Sprintf("success %t, call %d: %s", succeeds, at, kind)
					ran, answered := deliver(t.Context(), receipts(f, time.Hour, prefix), succeeds)
					if f.pending != nil {
						f.pending()
					}
					found, _, err := receipts(s, time.Hour, prefix).Show(t.Context(), work.ID())
					if err != nil && !errors.Is(err, ErrNoReceipt) {
						t.Fatalf("%s: %v", name, err)
					}
					if is, should, err := open(t.Context(), receipts(s, time.Hour, prefix), work.ID()); err != nil || is != should {
						t.Errorf("%s: the receipt is %q, and listed as open: %t, %v", name, found.State, is, err)
					}
					if found.State == Done && (!ran || !succeeds) {
						t.Errorf("%s: done without the work", name)
					}
					if answered && found.State != Done {
						t.Errorf("%s: answered as done, and the receipt is %q", name, found.State)
					}
					if !f.dead && ran && !succeeds && kind != unavailable && found.State != Released {
						t.Errorf("%s: failed, and the receipt is %q", name, found.State)
					}
					// The claim's time passes.
					if found.State == Working {
						if _, err := s.Apply(t.Context(), store.MergeIf(receipts(s, 0, prefix).ref(work.ID()), found.version, store.F(0, "ttl_ms"))); err != nil {
							t.Fatalf("%s: %v", name, err)
						}
					}
					copied, done := deliver(t.Context(), receipts(s, time.Hour, prefix), true)
					if is, _, err := open(t.Context(), receipts(s, time.Hour, prefix), work.ID()); err != nil || is {
						t.Errorf("%s: the copy is done, and listed as open: %t, %v", name, is, err)
					}
					switch {
					case !done:
						t.Errorf("%s: the copy is not done", name)
					case answered && copied:
						t.Errorf("%s: the work was answered as done, and a copy ran", name)
					case copied && ran && succeeds:
						again++ // the documented window: it died between the effect and the record
						if !f.dead {
							t.Errorf("%s: a copy ran, and the process did not die", name)
						}
					}
					if f.calls < at {
						break
					}
				}
			}
		}
		t.Logf("%d cases; in %d a copy ran after the work was done, in the documented window", cases, again)
	})
}

// deliver claims, renews and settles; it reports whether it has worked, and whether the
// delivery was answered as done.
func deliver(ctx context.Context, r *Receipts, succeeds bool) (ran, done bool) {
	c, err := r.Claim(ctx, work)
	if err != nil {
		return false, errors.Is(err, ErrDone)
	}
	_ = c.Renew(ctx)
	if !succeeds {
		_ = c.Release(ctx, 500)
		return true, false
	}
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	_, err = c.Done(ctx, 200)
	return true, err == nil
}

const (
	unavailable fault = "the store is away"
	lostAnswer  fault = "the answer is lost"
	late        fault = "the write lands with the next call"
	crashBefore fault = "the process dies before the call"
	crashAfter  fault = "the process dies after the call"
)

var (
	errAway  = errors.New("away")
	errCrash = errors.New("crashed")
)
