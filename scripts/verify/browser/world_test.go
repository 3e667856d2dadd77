package browser

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/health"
	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/wire"
)

// world is a pipeline with the status page at a URL. No consumer receives its hand-overs.
type world struct {
	*app.App
	t   *testing.T
	url string
	env *local.Environment // of the demo; nil: world has its own clock

	mu     sync.Mutex
	clock  time.Time
	values map[string]float64 // of readiness checks, by name; others are 100
	runs   int
	later  []event
}

// event is an action at a time. play sorts events, because the store's clock only goes forward.
type event struct {
	at time.Time
	do func()
}

func newWorld(t *testing.T, file string, now time.Time) *world {
	t.Helper()
	w := &world{t: t, clock: now, values: map[string]float64{}}
	c := app.Config{Project: "nba-prod", PipelineFile: file, Store: "memory", Claim: time.Minute, Lease: lease.Max, PubSubHost: "127.0.0.1:1"}
	var err error
	w.App, err = app.Open(t.Context(), c, func(context.Context, app.Config) (store.Store, error) { return memory.New(w.Now), nil }, w.Now, io.Discard)
	w.must(err)
	t.Cleanup(func() { w.App.Close() })
	w.App.Warehouse = nil
	config := w.Engine.Config
	var ids atomic.Int64
	config.Publish = func(_ context.Context, _ string, msgs []wire.Outgoing) (out []cycle.Published) {
		for range msgs {
			out = append(out, cycle.Published{ID: fmt.Sprint(1284000 + ids.Add(1))})
		}
		return out
	}
	config.Expected = nil
	config.Check = func(_ context.Context, key cycle.Key, mode string, processors []string) cycle.Readiness {
		if key.Transition.Checks == nil {
			return cycle.Readiness{Outcome: cycle.NotChecked}
		}
		checks := key.Transition.Checks.For(mode, processors)
		var measured []policy.Measurement
		for _, check := range checks {
			value, known := w.values[check.Name]
			if !known {
				value = 100
			}
			if check.Block != nil && check.Block.Crossed(value) && !known {
				value = 0
			}
			measured = append(measured, policy.Measurement{Value: value})
		}
		return policy.Assess(checks, measured)
	}
	w.App.Engine = cycle.New(config)
	s := httptest.NewServer(health.New(func(context.Context) (*app.App, error) { return w.App, nil }))
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

// Now is the clock of the application and of its store.
func (w *world) Now() time.Time {
	if w.env != nil {
		return w.env.Clock.Now()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// at sets the clock to a local time.
func (w *world) at(local string) time.Time {
	w.t.Helper()
	at := w.local(local)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = at
	return at
}

func (w *world) local(local string) time.Time {
	w.t.Helper()
	at, err := time.ParseInLocation("2006-01-02 15:04", local, w.Pipeline.Calendar.Zone())
	w.must(err)
	return at.UTC()
}

// on schedules an action of play at a local time.
func (w *world) on(local string, do func()) {
	w.later = append(w.later, event{w.local(local), do})
}

// play does all scheduled actions in the order of their times.
func (w *world) play() {
	w.t.Helper()
	slices.SortStableFunc(w.later, func(a, b event) int { return a.at.Compare(b.at) })
	for _, e := range w.later {
		w.mu.Lock()
		w.clock = e.at
		w.mu.Unlock()
		e.do()
	}
	w.later = nil
}

// run is a report of a processor, with rows and a duration.
type run struct {
	period  pipeline.Period
	status  wire.Status
	rows    int64
	seconds float64
	error   string
}

// report records runs that end now, and evaluates their cycles.
func (w *world) report(t *pipeline.Transition, r run, names ...string) {
	w.t.Helper()
	key := cycle.Key{Transition: t, Period: r.period}
	for _, name := range names {
		w.runs++
		c := wire.Completion{Processor: name, Reported: name, Period: r.period, Status: r.status, EventTime: w.Now(), ExecutionID: fmt.Sprintf("run-%06d", w.runs), CorrelationID: "night",
			RecordCount: &r.rows, Duration: &r.seconds, ErrorMessage: r.error}
		if r.error != "" {
			c.ErrorType = "QuotaExceeded"
		}
		if !t.Expects(name) {
			c.Processor = ""
		}
		w.must(w.Engine.Record(w.t.Context(), key, c))
	}
	_, err := w.Engine.Converge(w.t.Context(), key, "m")
	w.must(err)
}

// relay evaluates all recent periods.
func (w *world) relay() {
	w.t.Helper()
	for _, t := range w.Pipeline.Transitions {
		w.must(w.Engine.Relay(w.t.Context(), t, "", nil))
	}
	w.must(w.Heartbeat(w.t.Context(), "reconcile", "relay"))
}
