package receipt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/store/sqlite"
)

// drivers are the stores on which each test runs, empty ones.
func onEachDriver(t *testing.T, test func(t *testing.T, s store.Store)) {
	t.Run("memory", func(t *testing.T) { test(t, memory.New(time.Now)) })
	t.Run("sqlite", func(t *testing.T) {
		s, err := sqlite.Open(filepath.Join(t.TempDir(), "db"), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		test(t, s)
	})
	t.Run("firestore", func(t *testing.T) {
		emulatortest.Firestore(t)
		s, err := firestore.Open(context.Background(), fmt.Sprintf("receipt-%016x", rand.Uint64()), "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		test(t, s)
	})
}

var ids int

func newID() string { ids++; return fmt.Sprint("nonce", ids) }

func receipts(s store.Store, ttl time.Duration, prefix string) *Receipts {
	return New(Config{Store: s, Now: time.Now, NewID: newID, TTL: ttl, Prefix: prefix, Instance: "i1", Log: slog.New(slog.DiscardHandler)})
}

var work = Delivery{Scope: "phase4", Route: "/process?x=1", Key: "t_2026-02-03_overnight~1/summary", MessageID: "m1", Data: []byte("a")}

func TestClaim_IsGrantedOnceAndRefusedToCopies(t *testing.T) {
	onEachDriver(t, func(t *testing.T, s store.Store) {
		r := receipts(s, time.Hour, "")
		c, err := r.Claim(t.Context(), work)
		if err != nil || c.Check() != nil || c.Attempt() != 1 || c.TakenFrom() != "" {
			t.Fatalf("%+v, %v", c, err)
		}
		live := (*LiveError)(nil)
		if _, err := r.Claim(t.Context(), work); !errors.As(err, &live) || !strings.Contains(err.Error(), work.Key+" is worked by i1") {
			t.Errorf("a copy: %v", err)
		}
		other := work
		other.Data = []byte("b")
		if _, err := r.Claim(t.Context(), other); !errors.Is(err, ErrReused) {
			t.Errorf("another message with the key: %v", err)
		}
		for range 2 {
			if err := c.Renew(t.Context()); err != nil {
				t.Error(err)
			}
		}
		for range 2 {
			if outcome, err := c.Done(t.Context(), 200); err != nil || outcome != Recorded {
				t.Errorf("done: %v, %v", outcome, err)
			}
		}
		if _, err := r.Claim(t.Context(), work); !errors.Is(err, ErrDone) {
			t.Errorf("a copy of what is done: %v", err)
		}
		if err := c.Renew(t.Context()); !errors.Is(err, errLost) {
			t.Errorf("renewed after done: %v", err)
		}
		found, _, err := r.Show(t.Context(), work.ID())
		if err != nil || found.State != Done || found.Status != 200 || found.Key != work.Key || found.Route != work.Route || found.Finished.IsZero() {
			t.Errorf("%+v, %v", found, err)
		}
	})
}

func TestID_TellsScopesRoutesAndKeysApart(t *testing.T) {
	seen := map[string]Delivery{}
	for _, d := range []Delivery{{"a", "/x", "k", "", nil}, {"b", "/x", "k", "", nil}, {"a", "/xk", "", "", nil}, {"a", "/", "xk", "", nil}, {"a", "/x", "k2", "", nil}} {
		if other, ok := seen[d.ID()]; ok {
			t.Errorf("%+v and %+v have one id", d, other)
		}
		seen[d.ID()] = d
	}
}

func TestClaim_IsTakenOverAfterItsTime(t *testing.T) {
	onEachDriver(t, func(t *testing.T, s store.Store) {
		short, long := receipts(s, time.Millisecond, ""), receipts(s, time.Hour, "")
		first, err := short.Claim(t.Context(), work)
		if err != nil {
			t.Fatal(err)
		}
		for { // its millisecond passes by the server's clock
			found, at, err := short.Show(t.Context(), work.ID())
			if err != nil {
				t.Fatal(err)
			}
			if !found.Live(at) {
				break
			}
		}
		second, err := long.Claim(t.Context(), work)
		if err != nil || second.TakenFrom() != "i1" || second.Attempt() != 2 {
			t.Fatalf("%+v, %v", second, err)
		}
		if err := first.Renew(t.Context()); !errors.Is(err, errLost) {
			t.Errorf("the first renews: %v", err)
		}
		if err := first.Release(t.Context(), 500); err != nil {
			t.Error(err)
		}
		if found, at, err := long.Show(t.Context(), work.ID()); err != nil || !found.Live(at) || found.holder != second.nonce {
			t.Errorf("after the release of the first: %+v, %v", found, err)
		}
		// The first has done the work after all; the second's run is an overlap.
		if outcome, err := first.Done(t.Context(), 200); err != nil || outcome != Overlapped {
			t.Errorf("done: %v, %v", outcome, err)
		}
		if err := long.Forget(t.Context(), work.ID(), "op", "again"); err == nil || !strings.Contains(err.Error(), "may be at work until") {
			t.Errorf("forget during an overlap: %v", err)
		}
		if outcome, err := second.Done(t.Context(), 200); err != nil || outcome != Overlapped {
			t.Errorf("done: %v, %v", outcome, err)
		}
		if err := long.Forget(t.Context(), work.ID(), "op", "again"); err != nil {
			t.Errorf("forget after the overlap: %v", err)
		}
	})
}

func TestClaim_RenewedAfterItsTimeIsKeptIfNoOtherHasTakenIt(t *testing.T) {
	r := receipts(memory.New(time.Now), time.Nanosecond, "")
	c, err := r.Claim(t.Context(), work)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); !errors.Is(err, errLost) {
		t.Errorf("check: %v", err)
	}
	if err := c.Renew(t.Context()); err != nil {
		t.Errorf("renew: %v", err)
	}
}

func TestForget_BeginsANewEpoch(t *testing.T) {
	onEachDriver(t, func(t *testing.T, s store.Store) {
		r := receipts(s, time.Hour, "")
		if err := r.Forget(t.Context(), work.ID(), "op", "why"); !errors.Is(err, ErrNoReceipt) {
			t.Errorf("without a receipt: %v", err)
		}
		old, err := r.Claim(t.Context(), work)
		if err != nil {
			t.Fatal(err)
		}
		live := (*LiveError)(nil)
		if err := r.Forget(t.Context(), work.ID(), "op", "why"); !errors.As(err, &live) {
			t.Errorf("while it is at work: %v", err)
		}
		if err := r.Forget(t.Context(), work.ID(), "op", ""); err == nil || !strings.Contains(err.Error(), "reason") {
			t.Errorf("without a reason: %v", err)
		}
		if err := old.Release(t.Context(), 500); err != nil {
			t.Fatal(err)
		}
		if err := r.Forget(t.Context(), work.ID(), "op", "why"); err != nil {
			t.Fatal(err)
		}
		if outcome, err := old.Done(t.Context(), 200); err != nil || outcome != Superseded {
			t.Errorf("the old run: %v, %v", outcome, err)
		}
		c, err := r.Claim(t.Context(), work)
		if err != nil || c.epoch == old.epoch || c.Attempt() != 2 {
			t.Errorf("%+v, %v", c, err)
		}
		records := 0
		for _, err := range s.Scan(t.Context(), "audit", "0", "z") {
			if err != nil {
				t.Fatal(err)
			}
			records++
		}
		if records != 1 {
			t.Errorf("%d audit records, want 1", records)
		}
	})
}

func TestParse_RefusesADamagedDocument(t *testing.T) {
	s := memory.New(time.Now)
	r := receipts(s, time.Hour, "")
	if _, err := r.Claim(t.Context(), work); err != nil {
		t.Fatal(err)
	}
	for want, field := range map[string]store.Field{
		"no valid holder":      store.F(7, "holder"),
		`unknown state "half"`: store.F("half", "state"),
		"no valid ttl_ms":      store.F("long", "ttl_ms"),
	} {
		before, err := s.Get(t.Context(), r.ref(work.ID()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(t.Context(), store.Merge(r.ref(work.ID()), field)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Claim(t.Context(), work); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("claim: %v, want %q", err, want)
		}
		for _, err := range r.List(t.Context(), work.Scope, "") {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("list: %v, want %q", err, want)
			}
		}
		was := store.F(before.Docs[0].Data[field.Path[0]], field.Path[0])
		if _, err := s.Apply(t.Context(), store.Merge(r.ref(work.ID()), was)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestList_YieldsTheReceiptsOfAScope(t *testing.T) {
	onEachDriver(t, func(t *testing.T, s store.Store) {
		r := receipts(s, time.Hour, "")
		for _, scope := range []string{"a", "ab", "b"} {
			for n := range 3 {
				if _, err := r.Claim(t.Context(), Delivery{Scope: scope, Route: "/", Key: fmt.Sprint(n)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		var ids []string
		for after, rest := "", 3; rest >= 0; rest-- { // of a list that is read in pages of one
			n := 0
			for found, err := range r.List(t.Context(), "a", after) {
				if err != nil || found.Scope != "a" || found.State != Working {
					t.Errorf("%+v, %v", found, err)
				}
				if n++; n == 1 && rest > 0 {
					ids, after = append(ids, found.ID), found.ID
				}
			}
			if n != rest {
				t.Errorf("%d receipts are left, want %d", n, rest)
			}
		}
		if slices.Sort(ids); len(slices.Compact(ids)) != 3 {
			t.Errorf("%d receipts, want 3", len(ids))
		}
	})
}

// fault is what happens to one call of the store.
type fault string

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
