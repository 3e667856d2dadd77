package e2e

import (
	"context"
	"flag"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline/pipelinetest"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/wire"
)

// history makes the state of the periods before the present one: each was handed over in its own time,
// and a relay has settled it.
func (w *world) history(periods int) store.Store {
	w.t.Helper()
	now := w.started.Truncate(time.Microsecond) // as decoded completions have it
	m := memory.New(func() time.Time { return now })
	e := cycle.New(cycle.Config{Store: m, Check: cycle.Unchecked, Now: func() time.Time { return now }, NewID: func() string { return "h" }, Claim: time.Minute,
		Version: app.SourceHash, Log: slog.New(slog.DiscardHandler),
		Publish: func(_ context.Context, _ string, msgs []wire.Outgoing) []cycle.Published {
			return slices.Repeat([]cycle.Published{{ID: "1"}}, len(msgs))
		}})
	for n := periods; n > 0; n-- {
		now = w.started.Truncate(time.Microsecond).Add(-time.Duration(n) * time.Hour)
		for _, tr := range w.pipeline.Transitions {
			key := cycle.Key{Transition: tr, Period: tr.Calendar().Add(tr.Calendar().At(now), -1)}
			for _, name := range tr.Order {
				c := wire.Completion{Processor: name, Reported: name, Period: key.Period, Status: wire.StatusSuccess, ExecutionID: name + string(key.Period), CorrelationID: "c", EventTime: now}
				if err := e.Record(w.t.Context(), key, c); err != nil {
					w.t.Fatal(err)
				}
			}
			if _, err := e.Converge(w.t.Context(), key, "m"); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	now = w.started.Add(time.Hour) // the newest was handed over two hours ago
	for _, tr := range w.pipeline.Transitions {
		if err := e.Relay(w.t.Context(), tr, "", nil); err != nil {
			w.t.Fatal(err)
		}
	}
	return m
}

// load writes the documents of the periods to the world's store. A relay reads no other documents of a
// settled period.
func (w *world) load(from store.Store) {
	w.t.Helper()
	var writes []store.Write
	flush := func() {
		if len(writes) > 0 {
			if _, err := w.store.Apply(w.t.Context(), writes...); err != nil {
				w.t.Fatal(err)
			}
		}
		writes = nil
	}
	for doc, err := range from.Scan(w.t.Context(), "phase_periods", "!", "~") {
		if err != nil {
			w.t.Fatal(err)
		}
		var fields []store.Field
		for _, name := range slices.Sorted(maps.Keys(doc.Data)) {
			fields = append(fields, store.F(doc.Data[name], name))
		}
		if writes = append(writes, store.Merge(doc.Ref, fields...)); len(writes) == 200 {
			flush()
		}
	}
	flush()
}

var settledPeriods = flag.Int("relay.periods", 46, "settled periods of each transition in TestMemory_RelayOfAHundredHourlyTransitions")

// A hundred transitions by the hour, with two days of settled periods each. How long a relay takes depends on
// the emulator and the machine; it is logged.
func TestMemory_RelayOfAHundredHourlyTransitions(t *testing.T) {
	i := deployed(t, "reconcile")
	w := newWorld(t, of(t, subject{name: "many", mode: "hourly"}, []byte(pipelinetest.Hourly(100, "a", "b"))), "GOMEMLIMIT="+i.limit, "LOG_LEVEL=error")
	w.load(w.history(*settledPeriods))
	for range 2 {
		began := time.Now()
		w.post("reconcile", `{"job":"relay"}`)
		t.Logf("the relay took %s", time.Since(began).Round(10*time.Millisecond))
	}
	i.fits(t, w.process)
}
