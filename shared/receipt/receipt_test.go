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
			t.Errorf("a copy of a request that is done: %v", err)
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
