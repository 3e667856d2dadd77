package health

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/deployed"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
	"github.com/phasegate/phasegate/shared/wire"
)

func none(context.Context) (map[string]int64, error) { return nil, errNotCounted }

// checker returns a checker that cannot count dead letters.
func checker(t *testing.T) (*apptest.World, *Checker) {
	t.Helper()
	w := apptest.New(t, morning)
	c := New(w.App)
	c.Dead = none
	return w, c
}

func by(r Report) map[string]Check {
	out := map[string]Check{}
	for _, c := range r.Checks {
		out[c.ID] = c
	}
	return out
}

// A check whose source cannot be read is unknown, not ok.
func TestRun_UnreadableSourceIsUnknown(t *testing.T) {
	w, c := checker(t)
	got := by(c.Run(t.Context()))
	for _, id := range []string{TrackingAccuracy, NextPhase, Duplicates, Reconciliation, LateUpstream, ExpectedProcessors, LockingActive, DeadLetterMessages, Heartbeats, DeployedCode, DeployedServices, Configuration} {
		if got[id].State != Unknown || got[id].Action == "" {
			t.Errorf("%s: %+v", id, got[id])
		}
	}
	w.SetDown(true)
	r := c.Run(t.Context())
	for _, check := range r.Checks {
		if check.State != Unknown {
			t.Errorf("the store is down, and %s is %s", check.ID, check.State)
		}
	}
	if r.Overall != Unknown {
		t.Errorf("overall %s", r.Overall)
	}
}

// A source that hangs costs its own time, and keeps nothing else from being judged.
func TestRun_HangingSourceDoesNotStopOthers(t *testing.T) {
	ended := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-ended:
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(ended) })
	w, _ := checker(t)
	tr := w.Pipeline.Transitions[0]
	report := wire.Completion{Processor: tr.Order[0], Reported: tr.Order[0], Period: "2026-02-03", Status: wire.StatusSuccess, EventTime: morning, ExecutionID: "x", CorrelationID: "x"}
	if err := w.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: "2026-02-03"}, report); err != nil {
		t.Fatal(err)
	}
	w.App.Warehouse = warehouse.New("test", s.Listener.Addr().String())
	c := New(w.App)
	c.Patience = 200 * time.Millisecond
	c.Dead = func(ctx context.Context) (map[string]int64, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	got := by(c.Run(t.Context()))
	for id, want := range map[string]State{HandOvers: Failing, Locks: OK, Quarantine: OK, Duplicates: Unknown, LateUpstream: Unknown, LockingActive: Unknown, DeadLetterMessages: Unknown} {
		if got[id].State != want {
			t.Errorf("%s: %+v, want %s", id, got[id], want)
		}
	}
}

// The last report has the former state of each check and its beginning. It can be read until
// it is too old.
func TestRemember_KeepsReport(t *testing.T) {
	w, c := checker(t)
	if last, err := c.Last(t.Context()); err != nil || last.Overall != Unknown || last.Checks[0].ID != reportAge || !last.Checks[0].Since.Equal(morning) {
		t.Errorf("before the first: %+v, %v", last, err)
	}
	first := c.Run(t.Context())
	if err := c.Remember(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	w.SetNow(morning.Add(time.Hour))
	if _, err := w.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-02"}, "run-1"); err != nil {
		t.Fatal(err)
	}
	w.SetNow(morning.Add(2 * time.Hour)) // and its process died
	second := by(c.Run(t.Context()))
	if got := second[Quarantine]; !got.Since.Equal(morning) {
		t.Errorf("ok since %s", got.Since)
	}
	if got := second[Locks]; got.State != Failing || !got.Since.Equal(morning.Add(2*time.Hour)) {
		t.Errorf("%+v", got)
	}
	if last, err := c.Last(t.Context()); err != nil || !last.At.Equal(morning) || len(last.Checks) != len(first.Checks) {
		t.Errorf("%+v, %v", last, err)
	}
	w.SetNow(morning.Add(stale + time.Second))
	if last, err := c.Last(t.Context()); err != nil || last.Overall != Unknown || last.Checks[0].ID != reportAge || last.Checks[0].Evidence[0] != "health was not evaluated since 2026-02-04T17:20:00Z" {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestChecks_SilentRequiredProcessorIsFound(t *testing.T) {
	w, c := checker(t)
	tr := w.Pipeline.Transitions[0]
	c.Reconcile.Expected = func(context.Context, *pipeline.Transition, pipeline.Period, pipeline.Period) (map[pipeline.Period]int64, error) {
		return map[pipeline.Period]int64{"2026-01-31": 8, "2026-02-01": 8, "2026-02-02": 0, "2026-02-03": 10, "2026-02-04": 7}, nil
	}
	for _, day := range []pipeline.Period{"2026-01-31", "2026-02-01", "2026-02-03"} {
		for _, name := range tr.Order {
			if name == "team_offense_game_summary" {
				continue
			}
			r := wire.Completion{Processor: name, Reported: name, Period: day, Status: wire.StatusFailed, EventTime: at(day, 30, 0), ExecutionID: name, CorrelationID: name}
			if err := w.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: day}, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := by(c.Run(t.Context()))[ExpectedProcessors]
	if got.State != Failing || len(got.Evidence) != 1 || got.Evidence[0] != "team_offense_game_summary has not reported for any of the last 3 days with expected work" {
		t.Errorf("%+v", got)
	}
}

// The statements of the definition, on real tables: the scraper that ran at 14:45, and the
// two runs 18 seconds apart.
func TestF33_TheDefinitionsStatementsAreAsked(t *testing.T) {
	in := warehousetest.NBA(t)
	if err := in.Sample().CreateFurther(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Parse([]byte(in.Definition()))
	if err != nil {
		t.Fatal(err)
	}
	in.Exec(`INSERT INTO nba_orchestration.scraper_execution_log SELECT name, 'success', TIMESTAMP_ADD(TIMESTAMP(DATETIME(day, TIME '06:03:00'), 'America/New_York'), INTERVAL IF(day = DATE '2026-02-04' AND name = 'nbac_gamebook', 522, 0) MINUTE)
		FROM UNNEST(GENERATE_DATE_ARRAY(DATE '2026-01-28', DATE '2026-02-04')) AS day, UNNEST(['nbac_gamebook', 'bdl_box_scores']) AS name`,
		`INSERT INTO nba_reference.processor_run_history (processor_name, run_id, status, data_date, started_at, processed_at) VALUES
		('PlayerGameSummaryProcessor', 'a', 'running', DATE '2026-02-03', TIMESTAMP '2026-02-04 11:03:12', TIMESTAMP '2026-02-04 11:03:12'),
		('PlayerGameSummaryProcessor', 'a', 'success', DATE '2026-02-03', TIMESTAMP '2026-02-04 11:03:12', TIMESTAMP '2026-02-04 11:03:41'),
		('PlayerGameSummaryProcessor', 'b', 'running', DATE '2026-02-03', TIMESTAMP '2026-02-04 11:03:30', TIMESTAMP '2026-02-04 11:03:30')`)
	w, _ := checker(t)
	w.App.Warehouse, w.App.Pipeline = in.Warehouse, p
	c := New(w.App)
	c.Dead = none
	w.SetNow(time.Date(2026, 1, 28, 20, 0, 0, 0, time.UTC)) // the deployment: earlier runs could take no lock
	if err := c.Remember(t.Context(), c.Run(t.Context())); err != nil {
		t.Fatal(err)
	}
	w.SetNow(time.Date(2026, 2, 4, 20, 0, 0, 0, time.UTC))
	got := by(c.Run(t.Context()))
	if check := got[LateUpstream]; check.State != Failing || check.Evidence[0] != "nbac_gamebook ran first at 14:45 EST, expected by 08:00 EST" {
		t.Errorf("%+v", check)
	}
	if check := got[LockingActive]; check.State != Failing || check.Evidence[0] != "two runs of PlayerGameSummaryProcessor for 2026-02-03 at once: a from 2026-02-04 06:03 EST and b from 2026-02-04 06:03 EST" ||
		!strings.HasPrefix(check.Evidence[1], "2 runs in the last 7 days, and none has taken a lock") {
		t.Errorf("%+v", check)
	}
	// The day before, as of its end.
	c.Day = "2026-02-03"
	if check := by(c.Run(t.Context()))[LateUpstream]; check.State != OK {
		t.Errorf("%+v", check)
	}
	// F33: a check of a table that no longer exists does not pass.
	in.Exec("DROP TABLE nba_orchestration.scraper_execution_log")
	if check := by(c.Run(t.Context()))[LateUpstream]; check.State != Unknown {
		t.Errorf("%+v", check)
	}
}

func TestReport_IsOneJSONObject(t *testing.T) {
	_, c := checker(t)
	b, err := json.Marshal(c.Run(t.Context()))
	var m map[string]any
	if err != nil || json.Unmarshal(b, &m) != nil {
		t.Fatal(err)
	}
	check := m["checks"].([]any)[0].(map[string]any)
	for _, field := range []string{"id", "state", "evidence", "since", "action"} {
		if check[field] == nil {
			t.Errorf("no %s in %v", field, check)
		}
	}
	if m["schema"] != 1.0 || m["overall"] != "unknown" {
		t.Errorf("%s", b)
	}
}

// forgetful is a store that cannot be read about health's own document.
type forgetful struct {
	store.Store
	once, hang bool
}

func (s *forgetful) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	if len(refs) == 1 && refs[0].ID == "health" {
		if s.hang {
			<-ctx.Done()
			return store.Snapshot{}, ctx.Err()
		}
		if s.once {
			s.once = false
			return store.Snapshot{}, errAway
		}
	}
	return s.Store.Get(ctx, refs...)
}

func TestRemember_FailureKeepsSinceTime(t *testing.T) {
	w, c := checker(t)
	s := &forgetful{Store: c.Store}
	c.Store = s
	for hour := range 3 {
		w.SetNow(morning.Add(time.Duration(hour) * time.Hour))
		s.once = hour == 1
		r := c.Run(t.Context())
		if got := by(r)[Quarantine]; hour != 1 && !got.Since.Equal(morning) {
			t.Errorf("hour %d: ok since %s", hour, got.Since)
		}
		if err := c.Remember(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

// slow is a checker whose sources other than the store, which hangs once, wait before they answer.
func slow(t *testing.T, wait func(context.Context) error) *Checker {
	t.Helper()
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	mem := memory.New(time.Now)
	log := slog.New(slog.DiscardHandler)
	engine := cycle.New(cycle.Config{Store: mem, Now: time.Now, NewID: func() string { return "x" }, Claim: time.Minute, Log: log,
		Publish: func(context.Context, string, []wire.Outgoing) []cycle.Published { return nil }, Check: cycle.Unchecked})
	locks := lease.New(lease.Config{Store: mem, Now: time.Now, NewID: func() string { return "x" }, Lease: lease.Max, Log: log})
	return &Checker{Pipeline: p, Store: &forgetful{Store: mem, hang: true}, Locks: locks, Now: time.Now, Patience: patience, Log: log,
		Dead:      func(ctx context.Context) (map[string]int64, error) { return nil, wait(ctx) },
		FirstRuns: func(ctx context.Context, _, _ pipeline.Period) ([]warehouse.FirstRun, error) { return nil, wait(ctx) },
		Services:  func(ctx context.Context) (map[string]deployed.Service, error) { return nil, wait(ctx) },
		Runs: func(ctx context.Context, _, _ pipeline.Period) ([]warehouse.ProcessorRun, error) {
			return nil, wait(ctx)
		},
		Reconcile: &reconcile.Reconciler{Pipeline: p, Engine: engine, Locks: locks, Log: log,
			Waiting: func(context.Context) (int, error) { return 0, nil },
			Contents: func(ctx context.Context, ps []pipeline.Processor, _, _ pipeline.Period) map[string]warehouse.Contents {
				if err := wait(ctx); err != nil {
					return map[string]warehouse.Contents{ps[0].Table: {Problem: err.Error()}}
				}
				return map[string]warehouse.Contents{}
			},
			Expected: func(ctx context.Context, _ *pipeline.Transition, _, _ pipeline.Period) (map[pipeline.Period]int64, error) {
				return map[pipeline.Period]int64{}, wait(ctx)
			}}}
}

// Documents are judged even if every query of the warehouse takes all the time that it gets,
// and nothing takes longer than all may take together.
func TestRun_SourceLimitsFitIntoTotalLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		got := by(slow(t, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }).Run(t.Context()))
		if got[Locks].State != OK || got[Quarantine].State != OK || got[DeadLetterMessages].State != Unknown {
			t.Errorf("%+v", got)
		}
		if took := time.Since(began); took > limit {
			t.Errorf("it took %s", took)
		}
	})
}

// A query over all tables of a phase takes 1 to 4 s, and reconciliation sends three, one by one.
func TestChecker_WaitsForQueriesOfSeveralSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := by(slow(t, func(ctx context.Context) error {
			select {
			case <-time.After(4 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}).Run(t.Context()))
		for _, id := range []string{NextPhase, Duplicates, Locks, Quarantine} {
			if got[id].State != OK {
				t.Errorf("%s: %+v", id, got[id])
			}
		}
	})
}
