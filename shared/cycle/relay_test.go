package cycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// degrading is the NBA transition whose overnight cycle is handed over at its deadline.
func degrading(t *testing.T) *pipeline.Transition {
	return changed(t, `deadline: "+1d 10:00"`, "deadline: \"+1d 10:00\"\n        at_deadline: hand_over")
}

// overdue returns "period mode" of each cycle_overdue line since the last call.
func (w *world) overdue() (out []string) {
	for _, line := range w.events("cycle_overdue") {
		out = append(out, fmt.Sprint(line["period"], " ", line["mode"]))
	}
	w.log.reset()
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *syncBuffer) reset() { s.mu.Lock(); defer s.mu.Unlock(); s.b.Reset() }

func TestRelay_CycleIsOverdueAtDeadlineUntilComplete(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()[:4]...)
	missing := overnight()[4].Processor
	w.clock.set(at("2026-02-04 09:59"))
	w.relay()
	w.overdue()
	w.clock.set(at("2026-02-04 10:00"))
	w.relay()
	st := w.statuses()["overnight"]
	if overdue := w.overdue(); !slices.Contains(overdue, "2026-02-03 overnight") || st.State != "overdue" || len(w.tablesOf("overnight")) != 0 {
		t.Fatalf("%s (%s); overdue %v", st.State, st.Reason, overdue)
	}
	w.mustDeliver(run(missing, "2026-02-04 10:20"))
	if got := w.tablesOf("overnight"); len(got) != 5 {
		t.Errorf("handed over %v", got)
	}
}

// tablesOf returns what was sent in a mode.
func (w *world) tablesOf(mode string) (out []string) {
	for _, tr := range w.broker.got {
		if tr.Mode == mode {
			out = append(out, tr.SourceTable)
		}
	}
	return sorted(out)
}

// A separate time-out handler would latch first and publish later. Here a deadline leads to
// a hand-over like any other: its batch is frozen, sent and confirmed. If a process dies in
// between, the relay resumes it.
func TestF20_ADeadlineGoesThroughTheSameEngine(t *testing.T) {
	w := newWorld(t, "memory")
	w.tr = degrading(t)
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(run(pgs, "2026-02-04 06:01"), run(upg, "2026-02-04 06:02"))
	w.clock.set(at("2026-02-04 10:00"))
	w.broker.fail = func(i int, _ wire.Trigger) error {
		if i > 0 {
			return errBroker
		}
		return nil
	}
	if err := w.engine.Relay(context.Background(), w.tr, "relay", nil); !errors.Is(err, errBroker) {
		t.Fatalf("%v", err)
	}
	if st := w.statuses()["overnight"]; st.State != "publishing" || w.projection()["_triggered"] != false || w.projection()["_trigger_pending"] != true {
		t.Fatalf("%s, projection %v", st.State, w.projection())
	}
	w.broker.fail = nil
	w.pass(5 * time.Minute)
	w.relay()
	st := w.statuses()["overnight"]
	if diff := cmp.Diff([]string{"1 critical_plus_majority_40pct published [" + pgs + " " + upg + "]"}, described(st)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.Contains(st.Reason, "deadline 2026-02-04 10:00 EST passed: handed over without the rest; missing "+tdef) {
		t.Errorf("reason %q", st.Reason)
	}
	w.mustDeliver(run(tdef, "2026-02-04 10:20"))
	if got := w.tablesOf("overnight"); !slices.Equal(got, sorted([]string{pgs, upg, tdef})) {
		t.Errorf("handed over %v", got)
	}
	w.eachRunOnce()
}

// A blocked cycle is checked again at its deadline. Then the policy keeps it back, or hands
// it over with messages that do not claim a check.
func TestDeadline_BlockedCycleFollowsPolicy(t *testing.T) {
	for name, tc := range map[string]struct {
		tr    func(t *testing.T) *pipeline.Transition
		state string
		sent  int
	}{
		"hold":      {func(t *testing.T) *pipeline.Transition { return nba(t) }, "overdue", 0},
		"hand_over": {degrading, "published", 5},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.tr = tc.tr(t)
			checks := 0
			w.engine.Check = func(context.Context, Key, string, []string) Readiness {
				checks++
				return Readiness{Outcome: Unknown, Reasons: []string{"BigQuery does not answer"}}
			}
			w.ready()
			w.clock.set(at("2026-02-04 09:57"))
			w.converge("2026-02-03")
			if st := w.statuses()["overnight"]; st.State != "blocked" || !st.NextCheck.Truncate(time.Second).Equal(at("2026-02-04 10:00")) {
				t.Fatalf("%s until %s: the next check is not at the deadline", st.State, st.NextCheck)
			}
			w.clock.set(at("2026-02-04 10:00"))
			w.relay()
			st := w.statuses()["overnight"]
			if st.State != tc.state || len(w.broker.got) != tc.sent || checks != 2 || !strings.Contains(st.Reason, "deadline") || !strings.Contains(st.Reason, "readiness unknown: BigQuery does not answer") {
				t.Fatalf("%s (%s), %d messages, %d checks", st.State, st.Reason, len(w.broker.got), checks)
			}
			for _, tr := range w.broker.got {
				if tr.FreshnessChecked {
					t.Errorf("%s says that the data was verified", tr.SourceTable)
				}
			}
			if tc.sent > 0 {
				// Further batches have no deadline: they wait for their data.
				w.mustDeliver(run(pgs, "2026-02-04 10:30", count(348)))
				if st := w.statuses()["overnight"]; st.State != "blocked" || len(w.broker.got) != tc.sent {
					t.Errorf("a second run: %s, %d messages", st.State, len(w.broker.got))
				}
				return
			}
			w.engine.Check = Unchecked // the data is repaired: no person is needed
			w.pass(30 * time.Minute)
			w.relay()
			if st := w.statuses()["overnight"]; st.State != "published" {
				t.Errorf("%s: %s", st.State, st.Reason)
			}
		})
	}
}

// A date without any report is overdue like any other, once the transition has recorded a
// report. Before that the relay expects nothing.
func TestRelay_PeriodWithoutDocumentHasDeadline(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 11:00"))
	w.relay() // the deployment's first
	w.clock.set(at("2026-02-04 11:00"))
	w.relay()
	if got := w.overdue(); len(got) != 0 {
		t.Errorf("nothing was ever recorded, and %v are overdue", got)
	}
	w.mustDeliver(run("roster_history", "2026-02-04 11:00"))
	w.overdue()
	w.clock.set(at("2026-02-05 14:00"))
	w.relay()
	want := []string{"2026-02-03 overnight", "2026-02-04 overnight", "2026-02-04 same_day", "2026-02-04 tomorrow", "2026-02-05 same_day", "2026-02-05 tomorrow"}
	if diff := cmp.Diff(want, w.overdue()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var shown []string
	all, err := w.engine.Cycles(context.Background(), w.tr, "2026-02-01", "2026-02-06")
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range all {
		shown = append(shown, st.Period+" "+st.Mode)
	}
	if diff := cmp.Diff(want, sorted(shown)); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

// The relay reports missing completions on each day of an outage, however long it lasts.
func TestRelay_ReportsMissingCompletionsWhileOutageLasts(t *testing.T) {
	w := newWorld(t, "memory")
	w.relay()
	w.ready()
	w.converge("2026-02-03")
	for d := range 40 {
		w.pass(24 * time.Hour)
		w.log.reset()
		w.relay()
		if n := len(w.events("cycle_overdue")); n == 0 {
			t.Fatalf("after %d days of silence no cycle is reported as overdue", d+1)
		}
	}
}

// A failed evening run is shown in the mode that misses its processor, although the run is
// outside the time of that mode.
func TestCycles_ShowFailureInModeThatMissesProcessor(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 22:00"))
	w.mustDeliver(run(pgs, "2026-02-03 23:00", status(wire.StatusFailed)))
	all, err := w.engine.Cycles(context.Background(), w.tr, "2026-02-03", "2026-02-03")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(st Status) bool { return st.Mode == "overnight" })
	if i < 0 || !slices.Equal(all[i].Failed, []string{pgs}) {
		t.Fatalf("%+v", all)
	}
	for _, line := range w.events("cycle_waiting") {
		if line["mode"] == "overnight" && line["severity"] == "WARNING" {
			return
		}
	}
	t.Error("no warning is logged")
}

// A processor may report for future days for which the relay expects nothing yet.
func TestRelay_EvaluatesAllRecordedFuturePeriods(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 17:00"))
	c := run(upg, "2026-02-03 17:00", func(c *wire.Completion) { c.Period = "2026-02-09" })
	if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
		t.Fatal(err)
	}
	junk := store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4_zzz"}
	if _, err := w.store.Apply(context.Background(), store.Merge(junk, store.F("x", "y"))); err != nil {
		t.Fatal(err)
	}
	w.exists("2026-02-04")
	var read []string
	w.engine.Store = &watching{counting: w.store, get: func(refs []store.Ref) {
		read = append(read, strings.TrimPrefix(refs[0].ID, "phase3_to_phase4_"))
	}}
	w.relay()
	if i := slices.Index(read, "2026-02-09"); i < 0 || !slices.Contains(read[i:], "2026-02-04") { // the newest first
		t.Errorf("read %v", read)
	}
	if n := len(w.lines("document", junk.String())); n != 1 {
		t.Errorf("%d lines about the junk", n)
	}
}

func TestRelay_LimitsFuturePeriodsPerPass(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 17:00"))
	p := pipeline.Period("2026-03-01")
	for range maxAhead + 20 {
		c := run(upg, "2026-02-03 17:00", func(c *wire.Completion) { c.Period = p })
		if err := w.engine.Record(context.Background(), w.key(p), c); err != nil {
			t.Fatal(err)
		}
		p = w.tr.Calendar().Add(p, 1)
	}
	before := w.store.calls.Load()
	w.relay()
	first := w.store.calls.Load() - before
	w.relay()
	if n := w.store.calls.Load() - before - first; n > 19+maxAhead {
		t.Errorf("%d calls", n)
	}
	if n := len(w.lines("first_left", string(w.tr.Calendar().Add("2026-03-01", maxAhead)))); n != 2 {
		t.Errorf("%d log lines name what is left, want two", n)
	}
}

// The relay names unpublished cycles that are too old for it to resume.
func TestRelay_ReportsUnpublishedCyclesItNoLongerResumes(t *testing.T) {
	w := halfSent(t) // 2026-02-03: two of five sent
	for _, tc := range []struct{ now, want string }{
		{"2026-02-11 12:00", "unpublished 2026-02-03 overnight"},
		{"2026-02-17 12:00", "unpublished 2026-02-03 overnight"},
		{"2026-02-18 12:00", ""},
	} {
		w.clock.set(at(tc.now))
		w.log.reset()
		w.relay()
		var got string
		for _, line := range w.events("finding") {
			got += fmt.Sprint(line["type"], " ", line["period"], " ", line["mode"])
		}
		if got != tc.want || len(w.broker.got) != 2 {
			t.Errorf("%s: named %q, want %q; %d messages", tc.now, got, tc.want, len(w.broker.got))
		}
	}
}

// The relay resumes cycles that are unfinished, and writes nothing to finished ones.
func TestF48_TheRelayTouchesNothingThatIsFinished(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()...)
	w.relay() // the first one records since when periods are managed
	sent, writes := len(w.broker.got), 0
	w.store.before = func([]store.Write) { writes++ }
	for range 60 { // five hours of relays, two at a time
		w.pass(5 * time.Minute)
		w.relay()
		w.relay()
	}
	if writes != 0 || len(w.broker.got) != sent {
		t.Errorf("%d writes, %d messages more", writes, len(w.broker.got)-sent)
	}
}

// Two relays and several handlers run at once: only one of them hands over.
func TestRelay_ConcurrentRelaysHandOverOnce(t *testing.T) {
	for driver := range drivers {
		w := newWorld(t, driver)
		w.ready()
		errs := make([]error, 8)
		atOnce(len(errs), func(i int) { errs[i] = w.newEngine().Relay(context.Background(), w.tr, fmt.Sprint(i), nil) })
		if err := errors.Join(errs...); err != nil || len(w.broker.got) != 5 {
			t.Errorf("%s: %v, %d messages", driver, err, len(w.broker.got))
		}
		w.eachRunOnce()
	}
}

// No message is sent for a processor that did not complete, even if others did. Consumers
// may not rely on an order: Phase 4 may read only tables for which it got a message.
func TestF56_AMessageOnlyForAProcessorThatCompleted(t *testing.T) {
	w := newWorld(t, "memory")
	w.tr = degrading(t)
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(run(pgs, "2026-02-04 06:01"), run(upg, "2026-02-04 06:02"), run(toff, "2026-02-04 06:03", status(wire.StatusFailed)),
		run(tdef, "2026-02-04 06:03", status(wire.StatusNoData)), run(utg, "2026-02-04 06:03", status(wire.StatusSkipped)))
	var checked []string
	w.engine.Check = func(_ context.Context, _ Key, _ string, processors []string) Readiness {
		checked = processors
		return Readiness{Outcome: Passed}
	}
	w.clock.set(at("2026-02-04 10:00"))
	w.relay()
	if _, err := w.trigger(force); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{pgs, pgs, upg, upg}, w.tablesOf("overnight")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{pgs, upg}, checked); diff != "" {
		t.Errorf("checked (-want +got):\n%s", diff)
	}
}
