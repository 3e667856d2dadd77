package cycle

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// overnight returns the completions of a usual night: the upcoming processors on the day
// before, the teams in the evening, and the players in the morning.
func overnight() []wire.Completion {
	return []wire.Completion{
		run(upg, "2026-02-02 17:05"), run(utg, "2026-02-02 17:06"),
		run(toff, "2026-02-03 22:40"), run(tdef, "2026-02-03 22:41"),
		run(pgs, "2026-02-04 06:03"),
	}
}

var five = []string{pgs, tdef, toff, upg, utg}

func TestHandOver_CombinesEveningMorningAndEarlierRuns(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			w := newWorld(t, driver)
			w.clock.set(at("2026-02-02 17:00"))
			w.mustDeliver(overnight()...)
			var got []string
			for _, tr := range w.broker.got {
				if tr.Mode == "overnight" {
					got = append(got, tr.SourceTable)
				}
			}
			if diff := cmp.Diff(five, got); diff != "" {
				t.Errorf("overnight messages, in the pipeline's order (-want +got):\n%s", diff)
			}
			st := w.statuses()["overnight"]
			if st.State != "published" || len(st.Batches) != 1 || st.Batches[0].Cause != "all_complete" {
				t.Errorf("overnight: %+v", st)
			}
			if tomorrow := w.statuses()["tomorrow"]; tomorrow.State != "published" {
				t.Errorf("tomorrow: %+v", tomorrow)
			}
			for table, id := range st.Batches[0].Messages {
				if id == "" {
					t.Errorf("%s has no id", table)
				}
			}
		})
	}
}

func TestHandOver_DoesNotDependOnArrivalOrder(t *testing.T) {
	morning := []wire.Completion{
		run(pgs, "2026-02-04 06:00"), run(tdef, "2026-02-04 06:01"), run(toff, "2026-02-04 06:02"),
		run(upg, "2026-02-04 06:03"), run(utg, "2026-02-04 06:04"),
	}
	permute(len(morning), func(order []int) {
		w := newWorld(t, "memory")
		w.clock.set(at("2026-02-04 06:10"))
		for _, i := range order {
			w.mustDeliver(morning[i])
		}
		if diff := cmp.Diff(five, w.broker.tables()); diff != "" {
			t.Fatalf("order %v (-want +got):\n%s", order, diff)
		}
	})
}

func permute(n int, f func([]int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var rec func(int)
	rec = func(k int) {
		if k == n {
			f(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			rec(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	rec(0)
}

func TestRecord_RedeliveryChangesNothing(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()...)
	before := w.versions()
	sent := len(w.broker.got)
	for range 3 {
		w.mustDeliver(overnight()...)
	}
	if len(w.broker.got) != sent {
		t.Errorf("%d messages, %d after the redelivery", sent, len(w.broker.got))
	}
	if diff := cmp.Diff(before, w.versions()); diff != "" {
		t.Errorf("documents changed (-before +after):\n%s", diff)
	}
}

// versions returns the version of every document that the engine writes.
func (w *world) versions() map[string]store.Version {
	out := map[string]store.Version{}
	for _, c := range []string{"phase_periods", "phase_triggers", "phase3_completion"} {
		for d, err := range w.store.Store.Scan(context.Background(), c, "!", "~") {
			if err != nil {
				w.t.Fatal(err)
			}
			out[d.Ref.String()] = d.Version
		}
	}
	return out
}

func TestRecord_FailedRunAfterSuccessChangesNothing(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()...)
	sent, projected := len(w.broker.got), w.projection()
	failed := run(pgs, "2026-02-04 06:30", status(wire.StatusFailed))
	w.mustDeliver(failed, failed)
	if len(w.broker.got) != sent {
		t.Errorf("a failed run published %d messages", len(w.broker.got)-sent)
	}
	if diff := cmp.Diff(projected, w.projection()); diff != "" {
		t.Errorf("projection changed:\n%s", diff)
	}
}

func TestRecord_SameExecutionWithDifferentCountIsSecondRun(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(run(pgs, "2026-02-04 06:00", execution("e"), count(280)), run(pgs, "2026-02-04 06:00", execution("e"), count(348)))
	runs := w.doc("phase_periods", "phase3_to_phase4_2026-02-03").Data["runs"].(map[string]any)[pgs].(map[string]any)
	if len(runs) != 2 {
		t.Errorf("%d runs are recorded, want 2: %v", len(runs), runs)
	}
}

func TestRecord_CompletionWithoutHandOverTakesAtMostThreeCalls(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	for _, c := range []wire.Completion{run(tdef, "2026-02-04 06:00"), run(toff, "2026-02-04 06:01")} {
		w.store.calls.Store(0)
		w.mustDeliver(c)
		if n := w.store.calls.Load(); n > 3 {
			t.Errorf("%s: %d remote calls, at most 3 allowed", c.Processor, n)
		}
	}
	w.store.calls.Store(0)
	w.mustDeliver(run(toff, "2026-02-04 06:01"))
	if n := w.store.calls.Load(); n > 2 {
		t.Errorf("redelivery: %d remote calls, at most 2 needed", n)
	}
}

func TestRelay_HandsOverCompleteCycleAtNotBefore(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	cs := overnight()
	cs[4] = run(pgs, "2026-02-04 01:15")
	w.mustDeliver(cs...)
	st := w.statuses()["overnight"]
	if st.State != "waiting" || !st.NextCheck.Equal(at("2026-02-04 05:00")) || !strings.Contains(st.Reason, "not handed over before 2026-02-04 05:00 EST") {
		t.Fatalf("at 01:15: %+v", st)
	}
	w.clock.set(at("2026-02-04 04:59"))
	if err := w.engine.Relay(context.Background(), w.tr, "", nil); err != nil {
		t.Fatal(err)
	}
	if w.statuses()["overnight"].State != "waiting" {
		t.Fatal("handed over before 05:00 EST")
	}
	w.clock.set(at("2026-02-04 05:00"))
	if err := w.engine.Relay(context.Background(), w.tr, "", nil); err != nil {
		t.Fatal(err)
	}
	if st := w.statuses()["overnight"]; st.State != "published" {
		t.Errorf("at 05:00: %+v", st)
	}
}

func TestHandOver_LogsContentAndDurationInOneLine(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	for _, name := range five[:4] {
		w.mustDeliver(run(name, "2026-02-04 06:00"))
	}
	w.clock.set(at("2026-02-04 06:02"))
	w.mustDeliver(run(utg, "2026-02-04 06:01:30"))
	lines := w.events(telemetry.BatchPublished)
	if len(lines) != 1 {
		t.Fatalf("%d lines:\n%s", len(lines), w.log)
	}
	l := lines[0]
	if s, ok := l["seconds"].(float64); !ok || s < 30 || s > 31 {
		t.Errorf("seconds %v, want 30", l["seconds"])
	}
	if l["mode"] != "overnight" || l["period"] != "2026-02-03" || l["severity"] != "INFO" || l["messages"] != 5.0 || len(l["satisfied"].([]any)) != 5 {
		t.Errorf("line %v", l)
	}
	if n := len(w.events(telemetry.CycleWaiting)); n != 4 {
		t.Errorf("%d waiting lines, want one for each of four completions:\n%s", n, w.log)
	}
}
