package reconcile

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// counting counts calls.
type counting struct {
	store.Store
	calls *atomic.Int64
}

func (c counting) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	c.calls.Add(1)
	return c.Store.Get(ctx, refs...)
}

func (c counting) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	c.calls.Add(1)
	return c.Store.Scan(ctx, collection, from, to)
}

// BenchmarkAYear reads the states of 365 days, each with a complete night, from the Firestore
// emulator. It compares a read by ranges with one read a date.
func BenchmarkAYear(b *testing.B) {
	emulatortest.Firestore(b)
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		b.Fatal(err)
	}
	fs, err := firestore.Open(b.Context(), fmt.Sprintf("year-%016x", rand.Uint64()), "")
	if err != nil {
		b.Fatal(err)
	}
	defer fs.Close()
	log, err := telemetry.New(nobody{}, "error")
	if err != nil {
		b.Fatal(err)
	}
	var calls atomic.Int64
	id := 0
	e := cycle.New(cycle.Config{Store: counting{fs, &calls}, Check: cycle.Unchecked, Now: time.Now, NewID: func() string { id++; return fmt.Sprint(id) }, Claim: time.Minute, Log: log,
		Publish: func(_ context.Context, _ string, msgs []wire.Outgoing) []cycle.Published {
			out := make([]cycle.Published, len(msgs))
			for i := range out {
				id++
				out[i].ID = fmt.Sprint(id)
			}
			return out
		}})
	tr := p.Transitions[0]
	to := pipeline.Period("2026-02-03")
	from := tr.Calendar().Add(to, -364)
	for day := from; day <= to; day = tr.Calendar().Add(day, 1) {
		key := cycle.Key{Transition: tr, Period: day}
		for name, rows := range rowsOf {
			c := wire.Completion{Processor: name, Reported: name, Period: day, Status: wire.StatusSuccess, EventTime: wrote(day), ExecutionID: name, CorrelationID: name, RecordCount: &rows}
			if err := e.Record(b.Context(), key, c); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := e.Converge(b.Context(), key, ""); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("window", func(b *testing.B) {
		b.ReportAllocs()
		calls.Store(0)
		for range b.N {
			if periods, err := e.PeriodStates(b.Context(), tr, from, to); err != nil || len(periods) != 365 || !periods[364].Recorded {
				b.Fatal(len(periods), err)
			}
		}
		b.ReportMetric(float64(calls.Load())/float64(b.N), "calls/op")
	})
	b.Run("one_read_a_date", func(b *testing.B) {
		b.ReportAllocs()
		calls.Store(0)
		for range b.N {
			for day := from; day <= to; day = tr.Calendar().Add(day, 1) {
				if ss, err := e.Status(b.Context(), cycle.Key{Transition: tr, Period: day}); err != nil || len(ss) != 3 {
					b.Fatal(len(ss), err)
				}
			}
		}
		b.ReportMetric(float64(calls.Load())/float64(b.N), "calls/op")
	})
}

type nobody struct{}

func (nobody) Write(p []byte) (int, error) { return len(p), nil }
