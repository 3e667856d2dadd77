package lease

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/store"
)

func (w *world) listed() []string {
	w.t.Helper()
	got, err := outstanding(w.doc(tokensCollection))
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

func TestRearm_ListsNewTokenNextToOldToken(t *testing.T) {
	for _, f := range []fault{healthy, lost, retried} {
		w := newWorld(t)
		got := w.acquire(w.locks("a"), "run-1")
		first := got.Token()
		w.once("apply", f)
		second, err := got.Rearm(t.Context())
		if f == lost {
			w.check("rearm", err, errAway)
			second, err = got.Rearm(t.Context()) // and finds what it wrote
		}
		w.check("rearm", err, nil)
		if second.At <= first.At || second.Nonce == first.Nonce || second != got.Token() {
			t.Errorf("%v after %v, holding %v", second, first, got.Token())
		}
		if s, _ := parse(w.doc(locksCollection)); s.nonce != second.Nonce {
			t.Errorf("the lock has %s, not %s", s.nonce, second.Nonce)
		}
		if l := w.listed(); !slices.Contains(l, first.Nonce) || !slices.Contains(l, second.Nonce) {
			t.Errorf("listed %v", l)
		}
		if used := got.Used(); !slices.Contains(used, first.Nonce) || used[len(used)-1] != second.Nonce {
			t.Errorf("used %v", used)
		}
		w.check("renew", got.Renew(t.Context()), nil)
		w.check("settle", got.Settle(t.Context(), first.Nonce), nil)
		w.check("settle again", got.Settle(t.Context(), first.Nonce), nil)
		if slices.Contains(w.listed(), first.Nonce) || !slices.Contains(w.listed(), second.Nonce) {
			t.Errorf("listed %v", w.listed())
		}
		w.check("release", got.Release(t.Context()), nil)
		if !slices.Contains(w.listed(), second.Nonce) {
			t.Errorf("a release settles: %v", w.listed())
		}
	}
}

// A token that was not recorded must not be used: the next holder has to know it.
func TestRearm_UnwrittenTokenIsNotUsed(t *testing.T) {
	w := newWorld(t)
	got := w.acquire(w.locks("a"), "run-1")
	first := got.Token()
	for _, op := range []string{"get", "apply"} {
		w.once(op, refused)
		_, err := got.Rearm(t.Context())
		w.check(op, err, errAway)
		if got.Token() != first {
			t.Errorf("%v", got.Token())
		}
	}
	if diff := cmp.Diff([]string{first.Nonce}, w.listed()); diff != "" {
		t.Error(diff)
	}
}

func TestRearm_LostLockGetsNoNewToken(t *testing.T) {
	w := newWorld(t)
	got := w.acquire(w.locks("a"), "run-1")
	w.apply(store.DeleteIf(w.doc(locksCollection).Ref, w.doc(locksCollection).Version))
	next := w.acquire(w.locks("b"), "run-2")
	_, err := got.Rearm(t.Context())
	w.check("rearm", err, ErrLost)
	if diff := cmp.Diff([]string{"n1", "n2"}, w.listed()); diff != "" {
		t.Error(diff)
	}
	w.check("the other's", next.Renew(t.Context()), nil)
	w.advance(Max)
	_, err = next.Rearm(t.Context())
	w.check("without trust", err, ErrLost)
}

// Settling meets acquisitions of others, which must not be undone.
func TestSettle_KeepsTokensOfOtherHolders(t *testing.T) {
	w := newWorld(t)
	got := w.acquire(w.locks("a"), "run-1")
	once := true
	w.harm(func(op string) fault {
		if op == "apply" && once {
			once = false
			w.advance(Max + time.Second)
			w.acquire(w.locks("b"), "run-2")
		}
		return healthy
	})
	w.check("settle", got.Settle(t.Context(), "n1"), nil)
	if diff := cmp.Diff([]string{"n2"}, w.listed()); diff != "" {
		t.Error(diff)
	}
	w.once("apply", lost)
	w.check("settle", got.Settle(t.Context(), "n2"), errAway)
	w.check("settle", got.Settle(t.Context(), "n2"), nil)
	if len(w.listed()) != 0 {
		t.Errorf("%v", w.listed())
	}
}

func TestTokens_ExpireOnlyWhileNoneIsListed(t *testing.T) {
	w := newWorld(t)
	l, got := w.locks("a"), (*Lease)(nil)
	var first, second Token
	for _, c := range []struct {
		step    string
		do      func() error
		expires bool
	}{
		{"acquire", func() (err error) { got, err = l.Acquire(t.Context(), key, "run-1"); first = got.Token(); return err }, false},
		{"settle", func() error { return got.Settle(t.Context(), first.Nonce) }, true},
		{"rearm", func() (err error) { second, err = got.Rearm(t.Context()); return err }, false},
		{"rearm again", func() error { _, err := got.Rearm(t.Context()); return err }, false},
		{"settle one of two", func() error { return got.Settle(t.Context(), second.Nonce) }, false},
		{"release", func() error { return got.Release(t.Context()) }, false},
		{"settle the other", func() error { return got.Settle(t.Context(), got.Token().Nonce) }, true},
		{"acquire again", func() (err error) { got, err = l.Acquire(t.Context(), key, "run-2"); return err }, false},
		{"settle again", func() error { return got.Settle(t.Context(), got.Token().Nonce) }, true},
	} {
		w.advance(time.Minute)
		w.check(c.step, c.do(), nil)
		want := any(nil)
		if c.expires {
			want = w.time().Add(store.Kept)
		}
		if got, there := w.doc(tokensCollection).Data[store.ExpiresAt]; got != want || !there {
			t.Errorf("%s: expires_at is %v (written: %t), want %v", c.step, got, there, want)
		}
	}
}
