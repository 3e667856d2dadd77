package cycle

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/pipeline/pipelinetest"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestRecord_KeepsThreeThousandRunsOfPeriod(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 22:40"))
	var long []string
	for i := range wire.MaxEntities {
		long = append(long, fmt.Sprintf("player-number-%d", i))
	}
	ctx := context.Background()
	for i := range 3000 {
		c := run(five[i%5], "2026-02-03 22:40", execution(fmt.Sprintf("0f8fad5b-d9cb-469f-a165-%012d", i)), entities(long...))
		for range 1 + i%2 { // every other one is delivered twice
			if err := w.engine.Record(ctx, w.key(c.Period), c); err != nil {
				t.Fatalf("run %d: %v", i, err)
			}
		}
	}
	s, err := w.engine.read(ctx, w.key("2026-02-03"), nil)
	if err != nil {
		t.Fatal(err)
	}
	executions := map[string]int{}
	full := 0
	for _, r := range s.runs {
		executions[r.ExecutionID]++
		switch {
		case len(r.Entities) > 0:
			full++
		case !r.Truncated:
			t.Fatalf("%s lost its entities and does not say so", r.ExecutionID)
		}
	}
	if len(s.runs) != 3000 || len(executions) != 3000 {
		t.Errorf("%d runs of %d executions are recorded", len(s.runs), len(executions))
	}
	if full == 0 || full == 3000 {
		t.Errorf("%d runs with entities: the limit was not reached", full)
	}
	if n := len(w.lines("severity", "WARNING")); n == 0 {
		t.Error("no warning")
	}
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(run(pgs, "2026-02-04 06:00"))
	if st := w.statuses()["overnight"]; st.State != "published" {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
}

// A run whose entities did not fit into the period is handed over as a full message.
func TestHandOver_LargerThanDocumentKeepsRecordedEntities(t *testing.T) {
	w := newWorld(t, "memory")
	w.tr = wide(t, 300)
	w.clock.set(at("2026-02-04 06:00"))
	var long []string
	for i := range wire.MaxEntities {
		long = append(long, fmt.Sprintf("player-number-%d", i))
	}
	for i := range 300 {
		c := run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00", entities(long...))
		if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
			t.Fatal(err)
		}
	}
	w.converge("2026-02-03")
	if len(w.broker.got) != 300 {
		t.Fatalf("%d messages", len(w.broker.got))
	}
	recorded := map[string]int{}
	for _, r := range w.snapshot().runs {
		recorded[r.Processor] = len(r.Entities)
	}
	whole := 0
	for _, m := range w.broker.got {
		n := recorded[m.SourceTable]
		if len(m.EntitiesChanged["things"]) != n || m.Incremental != (n > 0) {
			t.Errorf("%s names %d entities, recorded are %d", m.SourceTable, len(m.EntitiesChanged["things"]), n)
		}
		if n > 0 {
			whole++
		}
	}
	if whole < 200 || whole == 300 {
		t.Errorf("%d messages with entities", whole)
	}
}

func TestRecord_ConcurrentCompletionsAreHandedOverInOneBatch(t *testing.T) {
	manyCompletionsAtOnce(t, "memory", "sqlite")
}

func TestManyCompletionsAtOnce_OnFirestore(t *testing.T) { manyCompletionsAtOnce(t, "firestore") }

func manyCompletionsAtOnce(t *testing.T, drivers ...string) {
	for _, driver := range drivers {
		for _, n := range []int{5, 23, 100, 300} {
			t.Run(fmt.Sprintf("%s/%d", driver, n), func(t *testing.T) {
				w := newWorld(t, driver)
				w.tr = wide(t, n)
				w.clock.set(at("2026-02-04 06:00"))
				var wg sync.WaitGroup
				errs := make([]error, n)
				instances := []*Engine{w.engine, w.newEngine(), w.newEngine()}
				began := time.Now()
				for i := range n {
					wg.Go(func() {
						ctx := context.Background()
						c := run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00")
						_, errs[i] = instances[i%len(instances)].Complete(ctx, w.key(c.Period), Report{c, fmt.Sprint("m", i)})
					})
				}
				wg.Wait()
				took := time.Since(began)
				for i, err := range errs {
					if err != nil {
						t.Fatalf("completion %d: %v", i, err)
					}
				}
				if got := len(slices.Compact(sorted(w.broker.tables()))); got != n || len(w.broker.got) != n {
					t.Errorf("%d messages for %d processors, want %d", len(w.broker.got), got, n)
				}
				st := w.statuses()["overnight"]
				if st.State != "published" || len(st.Batches) != 1 {
					t.Errorf("%s with %d batches", st.State, len(st.Batches))
				}
				if got := w.projection()["_completed_count"]; got != int64(n) {
					t.Errorf("projection counts %v of %d", got, n)
				}
				calls, conflicts := w.store.calls.Load(), w.store.conflicts.Load()
				t.Logf("%d completions: %d store calls, %d conflicts, in %s", n, calls, conflicts, took)
				// Three calls for each completion and some ten for the hand-over; for each conflict
				// the write that failed and one more read. Unlimited contention would take n*n.
				if most := int64(3*n + 30 + 2*int(conflicts)); calls > most || conflicts > int64(10*n) {
					t.Errorf("%d calls and %d conflicts for %d completions", calls, conflicts, n)
				}
			})
		}
	}
}

// wide is a transition of n processors that are all needed.
func wide(t testing.TB, n int) *pipeline.Transition {
	t.Helper()
	return wideNamed(t, n, "processor")
}

// wideNamed is like wide, and the names of its processors have a prefix.
func wideNamed(t testing.TB, n int, prefix string) *pipeline.Transition {
	t.Helper()
	p, err := pipeline.Parse([]byte(pipelinetest.Wide(n, prefix)))
	if err != nil {
		t.Fatal(err)
	}
	return p.Transitions[0]
}
