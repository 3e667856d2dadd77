package health

import (
	"context"
	"iter"
	"sync/atomic"
	"testing"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// counted counts calls.
type counted struct {
	store.Store
	n *atomic.Int64
}

func (c counted) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	c.n.Add(1)
	return c.Store.Get(ctx, refs...)
}

func (c counted) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	c.n.Add(1)
	return c.Store.Scan(ctx, collection, from, to)
}

func (c counted) Apply(context.Context, ...store.Write) ([]store.Version, error) {
	panic("a look has written something")
}

// An evaluation makes a constant number of store calls, for any number of recorded days.
func TestRun_MakesConstantNumberOfCalls(t *testing.T) {
	w, _ := checker(t)
	tr, calls := w.Pipeline.Transitions[0], &atomic.Int64{}
	s := counted{w.Store, calls}
	for _, days := range []int{0, 1, 30} {
		for d := -days; d < days; d++ { // half of them are later than every period that is expected
			r := wire.Completion{Processor: tr.Order[0], Reported: "x", Period: w.Pipeline.Calendar.Add(night, -d), Status: wire.StatusSuccess, EventTime: morning, ExecutionID: "x", CorrelationID: "x"}
			if err := w.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: r.Period}, r); err != nil {
				t.Fatal(err)
			}
		}
		a, config, locks := *w.App, w.Engine.Config, *w.Locks
		config.Store, locks.Store = s, s
		a.Store, a.Engine, a.Locks = s, cycle.New(config), &locks
		c := New(&a)
		c.Dead = none
		c.Runs = func(context.Context, pipeline.Period, pipeline.Period) ([]warehouse.ProcessorRun, error) {
			return []warehouse.ProcessorRun{{Processor: tr.Order[0], Period: night, ID: "r", Began: morning}}, nil // the check searches its lock
		}
		if err := w.Engine.Relay(t.Context(), tr, "", nil); err != nil { // it records since when periods are ours
			t.Fatal(err)
		}
		want := int64(15)
		if days == 0 {
			want++ // nothing to record yet
		}
		calls.Store(0)
		c.Run(t.Context())
		if n := calls.Load(); n != want {
			t.Errorf("%d calls with %d recorded days", n, days)
		}
	}
}
