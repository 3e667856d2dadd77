package cycle

import (
	"context"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

// order notes the documents in the order in which scans yield them. hides keeps scans from
// yielding some.
type order struct {
	store.Store
	ids   []string
	hides func(store.Ref) bool
}

func (o *order) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		for doc, err := range o.Store.Scan(ctx, collection, from, to) {
			if o.hides != nil && o.hides(doc.Ref) {
				continue
			}
			if o.ids = append(o.ids, doc.Ref.String()); !yield(doc, err) {
				return
			}
		}
	}
}

// threePeriods is a world in which three periods are handed over.
func threePeriods(t *testing.T) (*world, []pipeline.Period) {
	w := newWorld(t, "memory")
	periods := []pipeline.Period{"2026-02-01", "2026-02-02", "2026-02-03"}
	for _, p := range periods {
		w.clock.set(w.tr.Calendar().End(p).Add(w.tr.Calendar().End(p).Sub(w.tr.Calendar().Start(p)) / 4))
		for _, name := range w.tr.Order {
			c := run(name, "2026-02-04 06:00", count(100))
			c.Period, c.EventTime, c.Incremental, c.Entities = p, w.clock.now(), true, []string{"a", "b"}
			w.mustDeliver(c)
		}
	}
	return w, periods
}

func TestPeriodStates_HoldTheDocumentsOfOnePeriodAtATime(t *testing.T) {
	w, periods := threePeriods(t)
	o := &order{Store: w.engine.Store}
	w.engine.Store = o
	states, err := w.engine.PeriodStates(context.Background(), w.tr, periods[0], periods[2])
	if err != nil || len(states) != len(periods) {
		t.Fatalf("%d states, %v", len(states), err)
	}
	first := slices.IndexFunc(o.ids, func(id string) bool {
		return strings.HasPrefix(id, triggersCollection) && strings.Contains(id, string(periods[0]))
	})
	last := slices.IndexFunc(o.ids, func(id string) bool {
		return strings.HasPrefix(id, periodsCollection) && strings.Contains(id, string(periods[2]))
	})
	if first < 0 || last < 0 || first > last {
		t.Errorf("the hand-over of %s is read after the period %s: %q", periods[0], periods[2], o.ids)
	}
	for _, b := range states {
		if b.Problem != nil || len(b.snapshot.runs) != len(w.tr.Order) || len(b.snapshot.batches) == 0 {
			t.Fatalf("%s: %d runs, %d modes with batches, %v", b.Period, len(b.snapshot.runs), len(b.snapshot.batches), b.Problem)
		}
		if b.snapshot.periods != nil || b.snapshot.compat.Exists {
			t.Errorf("%s keeps its documents", b.Period)
		}
		for _, r := range b.snapshot.runs {
			if r.Entities != nil {
				t.Errorf("%s keeps the entities of %s", b.Period, r.Processor)
			}
		}
		for _, of := range b.snapshot.batches {
			for _, batch := range of {
				if batch.Messages != nil {
					t.Errorf("%s keeps the messages of %s", b.Period, batch.ID)
				}
			}
		}
	}
}

// A store need not read a collection as it is at one moment: a batch can be created behind the
// place that a scan has reached.
func TestPeriodStates_ReadABatchThatAScanHasMissed(t *testing.T) {
	w, periods := threePeriods(t)
	want, err := w.engine.PeriodStates(context.Background(), w.tr, periods[1], periods[1])
	if err != nil {
		t.Fatal(err)
	}
	w.engine.Store = &order{Store: w.engine.Store, hides: func(r store.Ref) bool { return r.Collection == triggersCollection }}
	got, err := w.engine.PeriodStates(context.Background(), w.tr, periods[1], periods[1])
	if err != nil || got[0].Problem != nil {
		t.Fatal(err, got[0].Problem)
	}
	for i, c := range want[0].Cycles {
		if got[0].Cycles[i].State != c.State || len(got[0].Cycles[i].Batches) != len(c.Batches) {
			t.Errorf("%s: %s with %d batches, want %s with %d", c.Mode, got[0].Cycles[i].State, len(got[0].Cycles[i].Batches), c.State, len(c.Batches))
		}
	}
}
