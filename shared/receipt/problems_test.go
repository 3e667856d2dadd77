package receipt

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

func key(name string) Delivery {
	return Delivery{Scope: "phase4", Route: "/", Key: name, MessageID: "m", Data: []byte(name)}
}

// claimed claims a delivery, with a claim that lasts for a while.
func claimed(t *testing.T, s store.Store, name string, ttl time.Duration) *Claim {
	t.Helper()
	c, err := receipts(s, ttl, "").Claim(t.Context(), key(name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestProblems_ListsReceiptsThatNeedAPerson(t *testing.T) {
	onEachDriver(t, func(t *testing.T, s store.Store) {
		ctx := t.Context()
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		claimed(t, s, "at work", time.Hour)
		claimed(t, s, "expired a moment ago", -time.Minute)
		claimed(t, s, "lost", -time.Hour)
		check(claimed(t, s, "unknown", time.Hour).Unknown(ctx, "the connection broke"))
		check(claimed(t, s, "released", time.Hour).Release(ctx, 500))
		_, err := claimed(t, s, "done", time.Hour).Done(ctx, 200)
		check(err)
		first, _ := claimed(t, s, "overlapping", -time.Hour), claimed(t, s, "overlapping", time.Hour)
		_, err = first.Done(ctx, 200)
		check(err)
		// A note that comes after another claim is none, and one that another claim follows is over.
		late, _ := claimed(t, s, "late note", -time.Hour), claimed(t, s, "late note", time.Hour)
		check(late.Unknown(ctx, "late"))
		check(claimed(t, s, "taken over", -time.Hour).Unknown(ctx, "the connection broke"))
		claimed(t, s, "taken over", time.Hour)
		claimed(t, s, "forgotten", -time.Hour)
		check(receipts(s, time.Hour, "").Forget(ctx, key("forgotten").ID(), "op", "why"))

		found, err := Problems(ctx, s, "", 100)
		got := map[string]Problem{}
		for _, p := range found.Problems {
			got[p.Key] = p
		}
		if err != nil || len(got) != 3 || found.AtWork != 3 || found.More {
			t.Errorf("%d at work, more %t, %v: %+v", found.AtWork, found.More, err, found.Problems)
		}
		for _, want := range []struct{ kind, why string }{
			{Lost, "the claim of i1 was not renewed"},
			{Unknown, "the connection broke"},
			{Overlapping, "i1 has recorded its run as done while another one had the claim"},
		} {
			if p := got[want.kind]; p.Kind != want.kind || !strings.Contains(p.Why, want.why) || p.Since.IsZero() || p.Scope != "phase4" {
				t.Errorf("%s: %+v", want.kind, p)
			}
		}
	})
}

// counted counts the calls of a store.
type counted struct {
	store.Store
	gets, pages int
}

func (c *counted) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	c.gets++
	return c.Store.Get(ctx, refs...)
}

func (c *counted) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		n := 0
		for doc, err := range c.Store.Scan(ctx, collection, from, to) {
			if n%store.ScanPage == 0 {
				c.pages++
			}
			n++
			if !yield(doc, err) {
				return
			}
		}
	}
}

func TestProblems_CallsDoNotGrowWithReceipts(t *testing.T) {
	s := &counted{Store: memory.New(time.Now)}
	for n := range 1000 {
		if _, err := claimed(t, s, fmt.Sprint("done", n), time.Hour).Done(t.Context(), 200); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 250 {
		claimed(t, s, fmt.Sprint("open", n), time.Hour)
	}
	for most, calls := range map[int]int{1: 1, 100: 1, 250: 3, 1000: 3} {
		s.gets, s.pages = 0, 0
		found, err := Problems(t.Context(), s, "", most)
		if err != nil || found.AtWork != min(most, 250) || found.More != (most < 250) || s.gets != calls || s.pages > calls+1 {
			t.Errorf("of %d at most: %d at work, more %t, %d reads and %d pages, %v", most, found.AtWork, found.More, s.gets, s.pages, err)
		}
	}
}

func TestProblems_OneDamagedReceiptHidesNoOther(t *testing.T) {
	s := memory.New(time.Now)
	claimed(t, s, "damaged", -time.Hour)
	claimed(t, s, "lost", -time.Hour)
	if _, err := s.Apply(t.Context(), store.Merge(receipts(s, 0, "").ref(key("damaged").ID()), store.F("half", "state"))); err != nil {
		t.Fatal(err)
	}
	found, err := Problems(t.Context(), s, "", 100)
	if err == nil || !strings.Contains(err.Error(), `unknown state "half"`) || len(found.Problems) != 1 || found.Problems[0].Key != "lost" {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestDone_IsRecordedIfTheOpenDocumentIsGone(t *testing.T) {
	onEachDriver(t, func(t *testing.T, s store.Store) {
		for name, end := range map[string]func(*Claim) error{
			Done:     func(c *Claim) error { _, err := c.Done(t.Context(), 200); return err },
			Released: func(c *Claim) error { return c.Release(t.Context(), 500) },
		} {
			c := claimed(t, s, name, time.Hour)
			if _, err := s.Apply(t.Context(), store.DeleteIf(c.receipts.open(c.id), c.open)); err != nil {
				t.Fatal(err)
			}
			if err := end(c); err != nil {
				t.Error(err)
			}
			if found, _, err := c.receipts.Show(t.Context(), c.id); err != nil || found.State != name {
				t.Errorf("%+v, %v", found, err)
			}
		}
	})
}

// open reports whether a receipt is listed as open, and whether it should be.
func open(ctx context.Context, r *Receipts, id string) (is, should bool, err error) {
	found, _, err := r.Show(ctx, id)
	if errors.Is(err, ErrNoReceipt) {
		snap, err := r.get(ctx, id)
		return err == nil && snap.Docs[1].Exists, false, err
	}
	return found.open != 0, found.State == Working || found.Overlap, err
}
