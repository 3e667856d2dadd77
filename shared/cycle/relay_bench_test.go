package cycle

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/pipeline/pipelinetest"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/wire"
)

// reading counts the documents that Firestore bills as read: each one that is asked for, there or
// not, and at least one for each scan.
type reading struct {
	store.Store
	docs *atomic.Int64
}

func (r reading) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	r.docs.Add(int64(len(refs)))
	return r.Store.Get(ctx, refs...)
}

func (r reading) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		n := int64(0)
		defer func() { r.docs.Add(max(n, 1)) }()
		for doc, err := range r.Store.Scan(ctx, collection, from, to) {
			n++
			if !yield(doc, err) {
				return
			}
		}
	}
}

// hourliesText is the definition of hourlies, with a deadline.
func hourliesText(transitions int) string {
	return strings.ReplaceAll(pipelinetest.Hourly(transitions, "a", "b"), `second_runs: ignore`, `deadline: "+1h :50", second_runs: ignore`)
}

// hourlies is a pipeline with a number of hourly transitions, with two processors each.
func hourlies(t testing.TB, transitions int) []*pipeline.Transition {
	t.Helper()
	p, err := pipeline.Parse([]byte(hourliesText(transitions)))
	if err != nil {
		t.Fatal(err)
	}
	return p.Transitions
}

// handOver records the reports of one period and hands it over.
func handOver(t testing.TB, e *Engine, tr *pipeline.Transition, p pipeline.Period, at time.Time) {
	t.Helper()
	key := Key{Transition: tr, Period: p}
	for _, name := range tr.Order {
		c := wire.Completion{Processor: name, Reported: name, Period: p, Status: wire.StatusSuccess, EventTime: at, ExecutionID: name + "@" + string(p), CorrelationID: "x"}
		if err := e.Record(t.Context(), key, c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Converge(t.Context(), key, "m"); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkRelay measures a relay that finds nothing to do, after 1, 30 and 10,000 finished hourly periods.
// It also measures the relays of 100 transitions with a fortnight of finished periods each. Before that a
// period is handed over each hour, and a relay runs each day. The newest period has been finished for more
// than two hours when the measured relay runs.
func BenchmarkRelay(b *testing.B) {
	for _, tc := range []struct{ transitions, periods int }{{1, 1}, {1, 30}, {1, 10_000}, {100, 336}} {
		b.Run(fmt.Sprintf("transitions_%d/finished_periods_%d", tc.transitions, tc.periods), func(b *testing.B) {
			now := time.Date(2026, 2, 4, 6, 10, 0, 0, time.UTC).Add(-time.Duration(tc.periods) * time.Hour)
			docs := &atomic.Int64{}
			s := &counting{Store: reading{memory.New(func() time.Time { return now }), docs}}
			e := New(Config{Store: s, Publish: (&broker{}).publish, Check: Unchecked, Now: func() time.Time { return now },
				NewID: rand.Text, Claim: time.Minute, Log: brokenLog(b)})
			transitions := hourlies(b, tc.transitions)
			relay := func() {
				for _, tr := range transitions {
					if err := e.Relay(b.Context(), tr, "", nil); err != nil {
						b.Fatal(err)
					}
				}
			}
			for n := range tc.periods {
				for _, tr := range transitions {
					handOver(b, e, tr, tr.Calendar().Add(tr.Calendar().At(now), -1), now)
				}
				now = now.Add(time.Hour)
				if n%24 == 0 { // once a day is enough: each period is marked in its week
					relay()
				}
			}
			now = now.Add(-50 * time.Minute)
			for range 3 {
				relay()
				now = now.Add(50 * time.Minute)
			}
			s.calls.Store(0)
			docs.Store(0)
			b.ReportAllocs()
			for b.Loop() {
				relay()
			}
			b.ReportMetric(float64(s.calls.Load())/float64(b.N), "calls/op")
			b.ReportMetric(float64(docs.Load())/float64(b.N), "documents/op")
		})
	}
}
