package reconcile

import (
	"context"
	"flag"
	"iter"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/pipeline/pipelinetest"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/wire"
)

// distant is a store whose calls take their time.
type distant struct {
	store.Store
	read, write time.Duration
}

func (d *distant) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	time.Sleep(d.read)
	return d.Store.Get(ctx, refs...)
}

func (d *distant) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	time.Sleep(d.write)
	return d.Store.Apply(ctx, ws...)
}

func (d *distant) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		n := 0
		for doc, err := range d.Store.Scan(ctx, collection, from, to) {
			if n%store.ScanPage == 0 {
				time.Sleep(d.read)
			}
			if n++; !yield(doc, err) {
				return
			}
		}
	}
}

// manyHours are so many transitions by the hour.
func manyHours(t *testing.T, n int) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.Parse([]byte(pipelinetest.Hourly(n, "a")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var finished = flag.Int("relay.periods", 6, "finished periods of each transition in TestRelay_AHundredHourlyTransitionsAfterADeployment")

// 100 transitions by the hour have periods that were handed over. After a deployment the first
// relay evaluates and marks all of them, and the next one skips them. Time here is that of the store
// alone: 15 ms a read, and 35 ms a commit.
func TestRelay_AHundredHourlyTransitionsAfterADeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &distant{Store: memory.New(time.Now)}
		config := cycle.Config{Store: d, Check: cycle.Unchecked, Now: time.Now, NewID: func() string { return "h" }, Claim: time.Minute, Version: "1", Log: slog.New(slog.DiscardHandler),
			Publish: func(_ context.Context, _ string, msgs []wire.Outgoing) []cycle.Published {
				return slices.Repeat([]cycle.Published{{ID: "1"}}, len(msgs))
			}}
		e := cycle.New(config)
		a := &app.App{Pipeline: manyHours(t, 100), Log: config.Log}
		for range *finished {
			time.Sleep(time.Hour)
			for _, tr := range a.Pipeline.Transitions {
				key := cycle.Key{Transition: tr, Period: tr.Calendar().Add(tr.Calendar().At(time.Now()), -1)}
				c := wire.Completion{Processor: tr.Order[0], Reported: tr.Order[0], Period: key.Period, Status: wire.StatusSuccess, ExecutionID: string(key.Period), CorrelationID: "c", EventTime: time.Now()}
				if err := e.Record(t.Context(), key, c); err != nil {
					t.Fatal(err)
				}
				if _, err := e.Converge(t.Context(), key, "m"); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(2 * time.Hour)
		d.read, d.write = 15*time.Millisecond, 35*time.Millisecond
		for _, relay := range []struct {
			of, version string
			within      time.Duration
		}{{"first", "1", time.Minute}, {"usual", "1", 2 * time.Second}, {"first after a deployment", "2", time.Minute}, {"usual", "2", 2 * time.Second}} {
			config.Version = relay.version
			e := cycle.New(config)
			began := time.Now()
			err := eachTransition(t.Context(), a, func(tr *pipeline.Transition) error { return e.Relay(t.Context(), tr, "", nil) }, func() {})
			if took := time.Since(began); err != nil || took > relay.within {
				t.Errorf("the %s relay took %s, %v", relay.of, took, err)
			} else {
				t.Logf("the %s relay took %s", relay.of, took)
			}
			time.Sleep(2 * time.Hour)
		}
	})
}
