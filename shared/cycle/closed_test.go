package cycle

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// timetable is the schedule of a test.
type timetable struct {
	games map[pipeline.Period]int64 // a period that is absent has none
	err   error
	asked int
}

func (s *timetable) expected(_ context.Context, key Key) (int64, error) {
	s.asked++
	return s.games[key.Period], s.err
}

// idleDay is a world in which the day before had completions, so that the relay expects
// some of 2026-02-03 too.
func idleDay(t *testing.T, driver string) (*world, *timetable) {
	w := newWorld(t, driver)
	s := &timetable{games: map[pipeline.Period]int64{}}
	w.engine.Expected = s.expected
	w.clock.set(at("2026-02-03 06:00"))
	for _, name := range five {
		w.mustDeliver(run(name, "2026-02-03 06:00", func(c *wire.Completion) { c.Period = "2026-02-02" }))
	}
	return w, s
}

func zero(processor, when string) wire.Completion { return run(processor, when, count(0)) }

func TestClosed_DateWithoutGamesOrRunsClosesAtDeadline(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			w, s := idleDay(t, driver)
			if st := w.statuses()["overnight"]; st.State != "waiting" {
				t.Errorf("before the first relay: %s", st.State)
			}
			w.clock.set(at("2026-02-04 10:00"))
			w.relay()
			st := w.statuses()["overnight"]
			if st.State != "closed" || st.Reason != "nothing is expected of 2026-02-03" || !st.NextCheck.After(w.clock.now()) {
				t.Errorf("%s until %s: %s", st.State, st.NextCheck, st.Reason)
			}
			closed, asked := len(w.events(telemetry.CycleClosed)), s.asked
			w.relay()
			if len(w.events(telemetry.CycleClosed)) != closed || s.asked != asked || closed == 0 {
				t.Errorf("%d lines and %d look-ups, then %d and %d within the hour", closed, asked, len(w.events(telemetry.CycleClosed)), s.asked)
			}
			if n := len(w.broker.got); n != 5 { // the day before
				t.Errorf("%d messages", n)
			}
			for _, line := range w.events(telemetry.CycleOverdue) {
				if line["period"] == "2026-02-03" && line["mode"] == "overnight" {
					t.Errorf("a closed cycle is logged as overdue: %v", line)
				}
			}
		})
	}
}

func TestClosed_RunsWithoutRowsDoNotOpenDateWithoutGames(t *testing.T) {
	w, s := idleDay(t, "memory")
	checked, asked := 0, s.asked
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { checked++; return Readiness{Outcome: Failed} }
	w.mustDeliver(zero(upg, "2026-02-03 10:35"), zero(utg, "2026-02-03 10:36"))
	st := w.statuses()["same_day"]
	if st.State != "closed" || !strings.Contains(st.Reason, "brought no rows") || checked > 0 || s.asked != asked+1 {
		t.Errorf("%s: %s; %d checks, %d look-ups", st.State, st.Reason, checked, s.asked-asked)
	}
	// A run with rows opens the date at once, although the schedule lists no games.
	w.engine.Check = Unchecked
	w.mustDeliver(run(upg, "2026-02-03 10:40"))
	if st := w.statuses()["same_day"]; st.State != "published" {
		t.Errorf("with rows: %s, %s", st.State, st.Reason)
	}
}

func TestClosed_RunWithoutRecordCountOpensDate(t *testing.T) {
	w, _ := idleDay(t, "memory")
	w.mustDeliver(run(upg, "2026-02-03 10:35", func(c *wire.Completion) { c.RecordCount = nil }))
	if st := w.statuses()["same_day"]; st.State != "published" {
		t.Errorf("%s, %s", st.State, st.Reason)
	}
}

func TestClosed_CorrectedScheduleReopensClosedDateAndClosesOverdueDate(t *testing.T) {
	w, s := idleDay(t, "memory")
	w.clock.set(at("2026-02-04 10:00"))
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "closed" {
		t.Fatalf("%s", st.State)
	}
	s.games["2026-02-03"] = 4
	w.clock.set(at("2026-02-04 10:59"))
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "closed" {
		t.Errorf("before the next check: %s", st.State)
	}
	w.clock.set(at("2026-02-04 11:01"))
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "overdue" || !strings.Contains(st.Reason, "deadline 2026-02-04 10:00 EST passed") {
		t.Errorf("with games: %s, %s", st.State, st.Reason)
	}
	s.games["2026-02-03"] = 0 // postponed
	w.clock.set(at("2026-02-04 12:02"))
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "closed" {
		t.Errorf("postponed: %s, %s", st.State, st.Reason)
	}
}

func TestF45_AFailedLookUpClosesNothing(t *testing.T) {
	w, s := idleDay(t, "memory")
	s.err = errors.New("how much to expect of 2026-02-03: table not found")
	w.clock.set(at("2026-02-04 10:00"))
	w.relay()
	st := w.statuses()["overnight"]
	if st.State != "overdue" || !strings.Contains(st.Reason, "table not found") {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
	lines := w.lines("check", "expected")
	if len(lines) == 0 || lines[0]["event"] != telemetry.CheckUnknown || lines[0]["severity"] != "ERROR" {
		t.Errorf("%v", lines)
	}
	// While the schedule cannot be read, its last answer is valid for a day. Then it is unknown.
	s.err = nil
	w.pass(16 * time.Minute)
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "closed" {
		t.Errorf("once it can be read: %s, %s", st.State, st.Reason)
	}
	s.err = errors.New("down")
	w.pass(61 * time.Minute)
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "closed" {
		t.Errorf("an hour later it cannot be read: %s, %s", st.State, st.Reason)
	}
	w.pass(24 * time.Hour)
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "overdue" {
		t.Errorf("a day later: %s, %s", st.State, st.Reason)
	}
	// A cycle whose runs have no rows is not closed either: the readiness check decides.
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { return Readiness{Outcome: Failed} }
	for _, name := range five {
		w.mustDeliver(zero(name, "2026-02-04 12:00"))
	}
	if st := w.statuses()["overnight"]; st.State == "closed" || len(st.Batches) != 1 {
		t.Errorf("runs without rows, schedule unknown: %s with %d batches", st.State, len(st.Batches))
	}
}

func TestClosed_LaterScheduleWithoutGamesClosesBlockedCycle(t *testing.T) {
	w, s := idleDay(t, "memory")
	s.games["2026-02-03"] = 4
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		return Readiness{Outcome: Failed, Reasons: []string{"no rows"}}
	}
	w.mustDeliver(zero(upg, "2026-02-03 10:35"))
	if st := w.statuses()["same_day"]; st.State != "blocked" {
		t.Fatalf("%s", st.State)
	}
	s.games["2026-02-03"] = 0
	w.pass(61 * time.Minute)
	w.relay()
	st := w.statuses()["same_day"]
	if st.State != "closed" || len(w.broker.got) != 5 {
		t.Errorf("%s, %d messages", st.State, len(w.broker.got))
	}
	w.engine.Check = Unchecked
	w.mustDeliver(run(upg, "2026-02-03 11:50"))
	if st := w.statuses()["same_day"]; st.State != "published" || len(st.Batches) != 1 {
		t.Errorf("rows: %s with %d batches", st.State, len(st.Batches))
	}
}

// The write of a schedule look-up fails, or its answer is lost. The next relay asks
// again, or finds the look-up stored.
func TestClosed_NextRelayFinishesInterruptedScheduleQuery(t *testing.T) {
	for _, applied := range []bool{false, true} {
		w, _ := idleDay(t, "memory")
		w.clock.set(at("2026-02-04 10:00"))
		broken := errors.New("connection reset")
		w.engine.Store = interrupted{w.store, applied, broken}
		if err := w.engine.Relay(context.Background(), w.tr, "relay", nil); !errors.Is(err, broken) {
			t.Fatalf("%v", err)
		}
		w.engine.Store = w.store
		w.relay()
		if st := w.statuses()["overnight"]; st.State != "closed" {
			t.Errorf("applied %t: %s, %s", applied, st.State, st.Reason)
		}
	}
}

// interrupted loses the write of a look-up, or its answer.
type interrupted struct {
	store.Store
	applied bool
	err     error
}

func (s interrupted) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	for _, w := range ws {
		for _, f := range w.Fields {
			if f.Path[0] == "schedule" {
				if s.applied {
					if _, err := s.Store.Apply(ctx, ws...); err != nil {
						return nil, err
					}
				}
				return nil, s.err
			}
		}
	}
	return s.Store.Apply(ctx, ws...)
}

func TestClosed_ScheduleIsNotQueriedBeforeFirstRecord(t *testing.T) {
	w := newWorld(t, "memory")
	s := &timetable{}
	w.engine.Expected = s.expected
	w.clock.set(at("2026-02-04 12:00"))
	w.relay()
	if s.asked != 0 {
		t.Errorf("%d look-ups for a pipeline that has not begun", s.asked)
	}
}

func TestReadiness_IsStoredAndLogged(t *testing.T) {
	w := newWorld(t, "memory")
	seventy, full := 71.4, 100.0
	checks := []policy.CheckResult{{Name: "minutes_coverage_pct", State: "fail", Value: &seventy, Block: "< 80"}, {Name: "null_pct.x", State: "unknown", Problem: "no column"}}
	ready := Readiness{Outcome: Failed, Reasons: []string{"minutes"}, MinutesCoverage: &seventy, Checks: checks}
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { return ready }
	w.ready()
	w.converge("2026-02-03")
	line := w.events(telemetry.CycleBlocked)[0]
	if line["minutes_coverage_pct"] != 71.4 || line["readiness"] != "fail" || line["data_freshness_verified"] != false ||
		line["checks"].(map[string]any)["minutes_coverage_pct"] != 71.4 {
		t.Errorf("%v", line)
	}
	if unknown := w.events(telemetry.CheckUnknown); len(unknown) != 1 || unknown[0]["check"] != "null_pct.x" || unknown[0]["mode"] != "overnight" {
		t.Errorf("%v", unknown)
	}
	ready = Readiness{Outcome: Passed, MinutesCoverage: &full, Checks: []policy.CheckResult{{Name: "minutes_coverage_pct", State: "pass", Value: &full}}}
	w.pass(6 * time.Minute)
	w.converge("2026-02-03")
	line = w.events(telemetry.BatchPublished)[0]
	if line["minutes_coverage_pct"] != 100.0 || line["readiness"] != "pass" || line["data_freshness_verified"] != true {
		t.Errorf("%v", line)
	}
	for _, tr := range w.broker.got {
		if !tr.FreshnessChecked || tr.MinutesCoverage == nil || *tr.MinutesCoverage != 100 {
			t.Errorf("%+v", tr)
		}
	}
	m, _ := w.tr.Mode("overnight")
	x, err := w.engine.Explain(context.Background(), w.key("2026-02-03"), m)
	if err != nil || x.Readiness == nil || len(x.Readiness.Checks) != 1 || *x.Readiness.Checks[0].Value != 100 {
		t.Errorf("%+v, %v", x.Readiness, err)
	}
}

// F16: a check that tolerates an unknown answer does not block the cycle, and no message
// claims that the data was verified.
func TestF16_ATolerableUnknownIsSeenAndNotVerified(t *testing.T) {
	w := newWorld(t, "memory")
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		return policy.Assess([]pipeline.Check{{Name: "x", Unknown: pipeline.UnknownWarns}}, []policy.Measurement{{Problem: "crashed"}})
	}
	w.ready()
	w.converge("2026-02-03")
	if len(w.broker.got) != 5 || w.broker.got[0].FreshnessChecked {
		t.Errorf("%d messages, verified %t", len(w.broker.got), w.broker.got[0].FreshnessChecked)
	}
	if unknown := w.events(telemetry.CheckUnknown); len(unknown) != 1 {
		t.Errorf("%d lines", len(unknown))
	}
}

// A new run of a blocked batch may be the repair. It is evaluated at once, before the next
// check of the batch is due. A redelivery is not a new run.
func TestBlocked_NewRunIsEvaluatedImmediately(t *testing.T) {
	w := newWorld(t, "memory")
	checks, ready := 0, Readiness{Outcome: Failed, Reasons: []string{"8 of 10 games"}}
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { checks++; return ready }
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()...)
	for range 3 {
		w.pass(25 * time.Minute)
		w.relay()
	}
	before := checks
	w.mustDeliver(overnight()...) // redelivered
	w.pass(time.Minute)
	w.relay()
	if checks != before {
		t.Errorf("%d checks for redeliveries", checks-before)
	}
	ready = Readiness{Outcome: Passed}
	sent := len(w.broker.got)
	w.mustDeliver(run(pgs, "2026-02-04 07:30", count(348)))
	if st := w.statuses()["overnight"]; st.State != "published" || len(w.broker.got) != sent+5 || checks != before+1 {
		t.Errorf("%s, %d messages, %d checks", st.State, len(w.broker.got)-sent, checks-before)
	}
}

// A schedule that hangs must not take all of the relay's time: the relay asks it once.
func TestRelay_WaitsForUnresponsiveScheduleOnce(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-01 12:00"))
	w.mustDeliver(run("roster_history", "2026-02-01 12:00", func(c *wire.Completion) { c.Period = "2026-02-01" }))
	asked := 0
	w.engine.Expected = func(context.Context, Key) (int64, error) {
		asked++
		w.pass(30 * time.Second)
		return 0, errors.New("no answer within 30s")
	}
	w.clock.set(at("2026-02-06 12:00"))
	w.relay()
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	w.engine.Expected = func(context.Context, Key) (int64, error) { asked++; return 0, nil }
	w.pass(time.Hour)
	w.relay()
	if asked < 5 {
		t.Errorf("asked %d times once it answers", asked)
	}
}

// One outage is logged once, also if it leaves several checks without an answer.
func TestReadiness_LogsOneLinePerReason(t *testing.T) {
	w := newWorld(t, "memory")
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		return Readiness{Outcome: Unknown, Checks: []policy.CheckResult{{Name: "a", State: "unknown", Problem: "away"}, {Name: "b", State: "unknown", Problem: "no column"},
			{Name: "c", State: "unknown", Problem: "away"}}}
	}
	w.ready()
	w.converge("2026-02-03")
	lines := w.events(telemetry.CheckUnknown)
	if len(lines) != 2 || lines[0]["check"] != "a, c" || lines[1]["check"] != "b" {
		t.Errorf("%v", lines)
	}
}
