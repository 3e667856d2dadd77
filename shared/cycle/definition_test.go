package cycle

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// Changes to the definition of the overnight mode, old and new text.
var (
	retired = []string{"        - " + utg + "\n", "", ", " + utg + "]", "]", "[" + utg + "]", "[]"}
	// A processor becomes critical: a cycle cannot begin without it any more.
	promoted = []string{"critical: [" + pgs + ", " + upg + "]", "critical: [" + pgs + ", " + upg + ", " + tdef + "]",
		"optional: [" + tdef + ", " + toff + ", " + utg + "]", "optional: [" + toff + ", " + utg + "]"}
	// Before: the overnight mode does not know the processor yet.
	unknown = []string{"optional: [" + tdef + ", " + toff + ", " + utg + "]", "optional: [" + toff + ", " + utg + "]", "        - " + tdef + "\n", ""}
)

func TestF14_ARetiredProcessorIsNoLongerWaitedFor(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(run(upg, "2026-02-02 17:05"), run(toff, "2026-02-03 22:40"), run(tdef, "2026-02-03 22:41"), run(pgs, "2026-02-04 06:03"))
	before := w.engine.mustExplain(t, w.key("2026-02-03"))
	if st := w.statuses()["overnight"]; st.State != "grace" || len(st.Missing) != 1 {
		t.Fatalf("%s, missing %v", st.State, st.Missing)
	}
	w.tr = changed(t, retired...)
	w.relay()
	st := w.statuses()["overnight"]
	if st.State != "published" || st.Batches[0].Cause != "all_complete" || len(st.Missing) != 0 {
		t.Errorf("%s, %v, missing %v", st.State, described(st), st.Missing)
	}
	verdict, _ := w.doc("phase_triggers", overnightOne).Data["verdict"].(string)
	if !strings.Contains(verdict, `"definition":"`+w.tr.Definition()+`"`) || before == w.tr.Definition() {
		t.Errorf("the verdict does not name the definition %s: %s", w.tr.Definition(), verdict)
	}
}

// mustExplain returns the hash of the definition that a cycle is decided by.
func (e *Engine) mustExplain(t *testing.T, key Key) string {
	t.Helper()
	m, _ := key.Transition.Mode("overnight")
	x, err := e.Explain(context.Background(), key, m)
	if err != nil {
		t.Fatal(err)
	}
	return x.Definition
}

// A later change of the definition does not change a published cycle.
func TestDefinition_AddedProcessorDoesNotReopenPublishedCycle(t *testing.T) {
	w := newWorld(t, "memory")
	w.tr = changed(t, unknown...)
	w.clock.set(at("2026-02-02 17:00"))
	for _, c := range overnight() {
		if c.Processor != tdef {
			w.mustDeliver(c)
		}
	}
	if st := w.statuses()["overnight"]; st.State != "published" {
		t.Fatalf("%s: %s", st.State, st.Reason)
	}
	w.tr = nba(t)
	w.mustDeliver(run(tdef, "2026-02-04 07:00"))
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "published" || len(st.Batches) != 1 {
		t.Errorf("%s %v", st.State, described(st))
	}
	// A second run of a processor that the cycle expected is still handed over.
	w.mustDeliver(run(pgs, "2026-02-04 07:10", count(348)))
	if st := w.statuses()["overnight"]; len(st.Batches) != 2 || st.Batches[1].Cause != "second_run" {
		t.Errorf("%v", described(st))
	}
	w.eachRunOnce()
}

// An open cycle is decided by the new definition. If its quorum is no longer met, its
// grace period ends. A new one begins when the quorum is met again.
func TestDefinition_OpenCycleIsEvaluatedByNewDefinition(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(run(pgs, "2026-02-04 06:01"), run(upg, "2026-02-04 06:02"), run(utg, "2026-02-04 06:03"))
	w.tr = changed(t, promoted...)
	w.clock.set(at("2026-02-04 06:10"))
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "waiting" || len(w.broker.got) != 0 {
		t.Fatalf("%s (%s), %d messages", st.State, st.Reason, len(w.broker.got))
	}
	w.mustDeliver(run(tdef, "2026-02-04 07:00"))
	if st := w.statuses()["overnight"]; st.State != "grace" || !st.NextCheck.Truncate(time.Second).Equal(at("2026-02-04 07:30")) {
		t.Fatalf("%s until %s", st.State, st.NextCheck)
	}
	w.clock.set(at("2026-02-04 07:30:01"))
	w.relay()
	want := []string{"1 critical_plus_majority_80pct published [" + pgs + " " + tdef + " " + upg + " " + utg + "]"}
	if diff := cmp.Diff(want, described(w.statuses()["overnight"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The definition gains a processor while a batch is blocked: the batch waits for it in a
// grace period of its own.
func TestDefinition_BlockedBatchIsEvaluatedByNewDefinition(t *testing.T) {
	w := newWorld(t, "memory")
	w.tr = changed(t, unknown...)
	ready := Readiness{Outcome: Failed, Reasons: []string{"no rows"}}
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { return ready }
	w.clock.set(at("2026-02-02 17:00"))
	for _, c := range overnight() {
		if c.Processor != tdef {
			w.mustDeliver(c)
		}
	}
	if st := w.statuses()["overnight"]; st.State != "blocked" {
		t.Fatalf("%s", st.State)
	}
	w.tr = nba(t)
	ready = Readiness{Outcome: Passed}
	w.pass(10 * time.Minute)
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "grace" || len(w.broker.got) != 0 {
		t.Fatalf("%s, %d messages", st.State, len(w.broker.got))
	}
	w.mustDeliver(run(tdef, "2026-02-04 06:30"))
	if diff := cmp.Diff([]string{"1 all_complete published [" + strings.Join(five, " ") + "]"}, described(w.statuses()["overnight"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The definition drops a processor between a request and its hand-over. The batch does
// not claim a run of it.
func TestDefinition_RequestForRemovedProcessorClaimsNoRun(t *testing.T) {
	w := halfSent(t)
	w.broker.fail = func(int, wire.Trigger) error { return errBroker }
	w.pass(2 * time.Minute)
	if _, err := w.trigger(of(pgs, utg)); err == nil {
		t.Fatal("the broker's failure was not reported")
	}
	w.broker.fail = nil
	w.tr = changed(t, retired...)
	w.pass(2 * time.Minute)
	w.relay()
	want := []string{"1 all_complete published [" + strings.Join(five, " ") + "]", "2 operator published [" + pgs + "]"}
	if diff := cmp.Diff(want, described(w.statuses()["overnight"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// During a deployment two definitions evaluate the cycle in turn, and only one of them has
// its quorum met. The grace period counts from its first start, and ends.
func TestGrace_OfHalfADeploymentIsKeptFromItsFirstStart(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(run(upg, "2026-02-02 17:05"), run(toff, "2026-02-03 22:40"), run(pgs, "2026-02-04 06:03")) // 3 of 5
	one, other := w.tr, changed(t, "quorum_pct: 60", "quorum_pct: 100")
	began := w.clock.now()
	for w.clock.now().Before(began.Add(29 * time.Minute)) {
		for _, tr := range []*pipeline.Transition{other, one} {
			w.tr = tr
			w.relay()
		}
		if st := w.statuses()["overnight"]; st.State != "grace" {
			t.Fatalf("%s: %s", st.State, st.Reason)
		}
		w.pass(5 * time.Minute)
	}
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "published" {
		t.Errorf("half an hour after its start it is %s: %s", st.State, st.Reason)
	}
}
