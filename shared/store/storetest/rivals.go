package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/phasegate/phasegate/shared/store"
)

var rivalTests = []test{
	{"of_20_creates_one_wins", createRivals},
	{"100_blind_merges_into_one_document_all_stay", mergeRivals},
	{"100_blind_unions_into_one_array_all_stay", unionRivals},
	{"of_20_merges_at_a_version_one_wins", mergeIfRivals},
	{"of_20_deletes_at_a_version_one_wins", deleteIfRivals},
	{"compare_and_set_loops_lose_no_increment", compareAndSetLoops},
	{"merge_then_read_then_create_misses_nothing", recordThenDecide},
}

// oneWinner expects one nil among errors that are otherwise all of one kind, and
// returns its index. Drivers that repeat a commit whose answer was lost may answer
// their own success with that kind; then the document tells the winner.
func (b bench) oneWinner(errs []error, loss error, winner func() int) int {
	b.t.Helper()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			b.t.Fatalf("both %d and %d won", won, i)
		case err == nil:
			won = i
		case !errors.Is(err, loss):
			b.t.Fatalf("rival %d: %v, want %q", i, err, loss)
		}
	}
	if held := winner(); won >= 0 && won != held {
		b.t.Fatalf("%d won, but the document is of %d", won, held)
	}
	if won < 0 {
		b.t.Fatalf("none of %d won", len(errs))
	}
	return won
}

func createRivals(_ *testing.T, b bench) {
	errs := together(20, func(i int) error {
		_, err := b.store.Apply(b.ctx, store.Create(b.ref("doc"), store.F(i, "by")))
		return err
	})
	b.oneWinner(errs, store.ErrExists, func() int { return int(b.get("doc").Data["by"].(int64)) })
}

func mergeRivals(t *testing.T, b bench) {
	want := map[string]any{}
	for i := range 100 {
		want[fmt.Sprint("writer-", i)] = map[string]any{"run": int64(i)}
	}
	for i, err := range together(100, func(i int) error {
		_, err := b.store.Apply(b.ctx, store.Merge(b.ref("doc"), store.F(i, "runs", fmt.Sprint("writer-", i), "run")))
		return err
	}) {
		if err != nil {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	b.data("doc", map[string]any{"runs": want})
}

func unionRivals(t *testing.T, b bench) {
	for i, err := range together(100, func(i int) error {
		_, err := b.store.Apply(b.ctx, store.Merge(b.ref("doc"), store.F(store.Union(i%50), "list")))
		return err
	}) {
		if err != nil {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	list := b.get("doc").Data["list"].([]any)
	seen := map[any]bool{}
	for _, v := range list {
		seen[v] = true
	}
	if len(list) != 50 || len(seen) != 50 {
		t.Errorf("%d elements, %d different, want 50: %v", len(list), len(seen), list)
	}
}

func mergeIfRivals(_ *testing.T, b bench) {
	v := b.create("doc", store.F(-1, "by"))
	errs := together(20, func(i int) error {
		_, err := b.store.Apply(b.ctx, store.MergeIf(b.ref("doc"), v, store.F(i, "by")))
		return err
	})
	b.oneWinner(errs, store.ErrConflict, func() int { return int(b.get("doc").Data["by"].(int64)) })
}

func deleteIfRivals(t *testing.T, b bench) {
	v := b.create("doc")
	errs := together(20, func(i int) error {
		_, err := b.store.Apply(b.ctx, store.DeleteIf(b.ref("doc"), v), store.Create(b.ref("won"), store.F(i, "by")))
		if errors.Is(err, store.ErrExists) {
			return store.ErrConflict // either of the two can be found first
		}
		return err
	})
	b.oneWinner(errs, store.ErrConflict, func() int { return int(b.get("won").Data["by"].(int64)) })
	if b.get("doc").Exists {
		t.Error("the deleted document exists")
	}
}

func compareAndSetLoops(_ *testing.T, b bench) {
	const writers = 10
	b.create("doc", store.F(0, "n"))
	for i, err := range together(writers, func(int) error { return b.increment() }) {
		if err != nil {
			b.t.Fatalf("writer %d: %v", i, err)
		}
	}
	b.data("doc", map[string]any{"n": int64(writers)})
}

// increment adds one to a counter by compare-and-set, until it succeeds.
func (b bench) increment() error {
	for {
		snap, err := b.store.Get(b.ctx, b.ref("doc"))
		if err != nil {
			return err
		}
		doc := snap.Docs[0]
		_, err = b.store.Apply(b.ctx, store.MergeIf(doc.Ref, doc.Version, store.F(doc.Data["n"].(int64)+1, "n")))
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// recordThenDecide is the engine's pattern: each writer records blindly, then reads.
// The last writer must see all records.
func recordThenDecide(t *testing.T, b bench) {
	const writers = 20
	errs := together(writers, func(i int) error {
		if _, err := b.store.Apply(b.ctx, store.Merge(b.ref("period"), store.F(true, "runs", fmt.Sprint(i)))); err != nil {
			return err
		}
		snap, err := b.store.Get(b.ctx, b.refs("period", "batch")...)
		if err != nil {
			return err
		}
		if len(snap.Docs[0].Data["runs"].(map[string]any)) < writers {
			return store.ErrConflict // another will see all
		}
		_, err = b.store.Apply(b.ctx, store.Create(b.ref("batch"), store.F(i, "by")))
		return err
	})
	created := 0
	for i, err := range errs {
		switch {
		case err == nil:
			created++
		case !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists):
			t.Errorf("writer %d: %v", i, err)
		}
	}
	if created != 1 {
		t.Errorf("%d creates, want 1", created)
	}
}
