package cycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// trigger asks for a hand-over of the overnight cycle of 2026-02-03.
func (w *world) trigger(edit ...func(*Request)) (BatchStatus, error) {
	w.t.Helper()
	r := Request{Actor: actor, Reason: "Phase 4 lost its tables"}
	for _, e := range edit {
		e(&r)
	}
	return w.engine.Trigger(context.Background(), w.key("2026-02-03"), w.mode("overnight"), r)
}

func (w *world) mode(name string) pipeline.Mode {
	w.t.Helper()
	m, ok := w.tr.Mode(name)
	if !ok {
		w.t.Fatalf("no mode %s", name)
	}
	return m
}

func of(processors ...string) func(*Request) {
	return func(r *Request) { r.Processors = processors }
}
func force(r *Request) { r.Force = true }

func TestTrigger_PublishesAllRunsAgain(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			w := newWorld(t, driver)
			w.clock.set(at("2026-02-02 17:00"))
			w.mustDeliver(overnight()...)
			w.mustDeliver(run(pgs, "2026-02-04 07:10", count(348), entities("lebronjames")))
			sent := len(w.broker.got)
			p, err := w.trigger(of(pgs, toff))
			if err != nil || p.N != 3 {
				t.Fatalf("%+v, %v", p, err)
			}
			want := []string{"1 all_complete published " + "[" + strings.Join(five, " ") + "]", "2 second_run published [" + pgs + "]", "3 operator published [" + pgs + " " + toff + "]"}
			st := w.statuses()["overnight"]
			if diff := cmp.Diff(want, described(st)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if b := st.Batches[2]; b.Actor != actor || b.Reason != "Phase 4 lost its tables" || len(b.Runs) != 3 {
				t.Errorf("%+v", b)
			}
			for _, tr := range w.broker.got[sent:] {
				// Two runs of one processor, one of which did not say what it changed.
				if tr.TriggerSource != "operator" || tr.TriggerReason != "operator" || tr.Incremental || tr.Batch != 3 ||
					tr.TriggerID != "phase3_to_phase4_2026-02-03_overnight~3/"+tr.SourceTable {
					t.Errorf("%+v", tr)
				}
			}
			if diff := cmp.Diff([]string{"trigger by ada@host: phase3_to_phase4_2026-02-03_overnight~3 of " + pgs + ", " + toff + ": Phase 4 lost its tables"}, w.audits()); diff != "" {
				t.Errorf("audit (-want +got):\n%s", diff)
			}
			w.relay()
			if n := len(w.broker.got) - sent; n != 2 || len(w.events("operator_action")) != 1 {
				t.Errorf("%d messages, %d events", n, len(w.events("operator_action")))
			}
		})
	}
}

func TestTrigger_AcceptsOrRefusesRequest(t *testing.T) {
	critical := []wire.Completion{run(pgs, "2026-02-04 06:01"), run(upg, "2026-02-04 06:02")}
	for name, tc := range map[string]struct {
		runs    []wire.Completion
		now     string
		before  func(w *world)
		request []func(*Request)
		refusal string // part of it; "" means that it is done
		forced  bool   // Force passes it
	}{
		"complete":                     {critical, "2026-02-04 06:05", nil, nil, "", false},
		"older_than_trigger_within":    {[]wire.Completion{run(pgs, "2026-02-20 06:01"), run(upg, "2026-02-20 06:02")}, "2026-02-20 07:00", nil, nil, "", false},
		"after_the_deadline":           {critical, "2026-02-04 12:00", nil, nil, "", false},
		"without_a_critical_one":       {critical[:1], "2026-02-04 06:05", nil, nil, "critical processors are missing: " + upg, true},
		"before_its_time":              {[]wire.Completion{run(pgs, "2026-02-04 01:01"), run(upg, "2026-02-04 01:02")}, "2026-02-04 02:00", nil, nil, "before +1d 05:00", true},
		"on_hold":                      {critical, "2026-02-04 06:05", func(w *world) { w.hold("overnight", time.Hour) }, nil, "it is on hold by ada@host: source data is wrong", true},
		"nothing_on_record":            {nil, "2026-02-04 06:05", nil, nil, "no counting run is recorded", false},
		"a_processor_that_failed":      {append(critical, run(utg, "2026-02-04 06:00", status(wire.StatusFailed))), "2026-02-04 06:05", nil, []func(*Request){of(utg)}, "no counting run of " + utg, false},
		"a_processor_that_did_not_run": {critical, "2026-02-04 06:05", nil, []func(*Request){of(pgs, tdef)}, "no counting run of " + tdef, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.engine.Check = func(context.Context, Key, string, []string) Readiness { return Readiness{Outcome: Passed} }
			w.clock.set(at("2026-02-02 17:00"))
			for _, c := range tc.runs {
				if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
					t.Fatal(err)
				}
			}
			w.clock.set(at(tc.now))
			if tc.before != nil {
				tc.before(w)
			}
			audits := len(w.audits())
			plan, err := w.engine.Plan(context.Background(), w.key("2026-02-03"), w.mode("overnight"), request(tc.request))
			if err != nil || (plan.Refusal == "") != (tc.refusal == "") || !strings.Contains(plan.Refusal, tc.refusal) || tc.refusal != "" && plan.Forcible != tc.forced {
				t.Errorf("plan %+v, %v", plan, err)
			}
			_, err = w.trigger(tc.request...)
			if refused := errors.Is(err, ErrRefused); refused != (tc.refusal != "") || refused && !strings.Contains(err.Error(), tc.refusal) {
				t.Fatalf("%v", err)
			}
			if tc.refusal != "" && (len(w.broker.got) != 0 || len(w.audits()) != audits) {
				t.Fatalf("refused, and %d messages, %d records", len(w.broker.got), len(w.audits()))
			}
			if tc.refusal == "" {
				if len(w.broker.got) == 0 || !w.broker.got[0].FreshnessChecked {
					t.Errorf("%+v", w.broker.got)
				}
				return
			}
			_, err = w.trigger(append(slices.Clone(tc.request), force)...)
			if (err == nil) != tc.forced || (len(w.broker.got) > 0) != tc.forced {
				t.Fatalf("forced: %v, %d messages", err, len(w.broker.got))
			}
			if tc.forced && (w.broker.got[0].FreshnessChecked || !strings.Contains(w.audits()[audits], "forced although "+plan.Refusal)) {
				t.Errorf("forced: %+v, audit %v", w.broker.got[0], w.audits())
			}
		})
	}
}

func request(edits []func(*Request)) (r Request) {
	for _, e := range edits {
		e(&r)
	}
	return r
}

// At most one batch of a cycle is unfrozen: a batch that waits takes over the request.
func TestTrigger_ReusesWaitingBatch(t *testing.T) {
	for name, prepare := range map[string]func(w *world){
		"grace": func(w *world) {
			w.mustDeliver(run(pgs, "2026-02-04 06:01"), run(upg, "2026-02-04 06:02"), run(utg, "2026-02-04 06:03"))
		},
		"blocked": func(w *world) {
			w.ready()
			w.engine.Check = func(context.Context, Key, string, []string) Readiness { return Readiness{Outcome: Failed} }
			w.converge("2026-02-03")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			prepare(w)
			if st := w.statuses()["overnight"]; st.State != name {
				t.Fatalf("%s", st.State)
			}
			if p, err := w.trigger(of(pgs, upg), force); err != nil || p.N != 1 {
				t.Fatalf("%+v, %v", p, err)
			}
			st := w.statuses()["overnight"]
			if len(st.Batches) < 1 || st.Batches[0].Cause != "operator" || st.Batches[0].Actor != actor || st.Batches[0].State != StatePublished || len(st.Batches[0].Runs) != 2 {
				t.Fatalf("%+v", st.Batches)
			}
			w.engine.Check = Unchecked
			w.pass(time.Hour)
			w.relay()
			w.pass(time.Hour)
			w.relay()
			w.eachRunOnce() // the others follow as the policy says: late, or after a grace period of their own
			cause := map[string]string{"blocked": "late_completion", "grace": "critical_plus_majority_60pct"}[name]
			if st := w.statuses()["overnight"]; st.State != "published" || len(st.Batches) != 2 || st.Batches[1].Cause != cause {
				t.Errorf("%s %v", st.State, described(st))
			}
		})
	}
}

// A process that checks readiness when an operator makes a request sends the runs of the request.
func TestTrigger_RequestDuringChecksReplacesSelection(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	checks := 0
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		if checks++; checks == 1 {
			if p, err := w.trigger(of(pgs, upg)); err != nil || p.N != 1 {
				t.Errorf("%+v, %v", p, err)
			}
		}
		return Readiness{Outcome: Passed}
	}
	w.converge("2026-02-03")
	w.eachRunOnce()
	want := []string{"1 operator published [" + pgs + " " + upg + "]", "2 late_completion published [" + tdef + " " + toff + " " + utg + "]"}
	if diff := cmp.Diff(want, described(w.statuses()["overnight"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A processor that was forced ahead does not make the others late: until the critical ones
// are handed over, the policy decides.
func TestTrigger_PartialHandOverDoesNotStartCycle(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 23:00"))
	w.mustDeliver(run(toff, "2026-02-03 23:10"))
	if _, err := w.trigger(force); err != nil {
		t.Fatal(err)
	}
	w.mustDeliver(run(tdef, "2026-02-03 23:30"), run(utg, "2026-02-04 06:00"), run(pgs, "2026-02-04 06:01"))
	if diff := cmp.Diff([]string{toff}, w.broker.tables()); diff != "" {
		t.Fatalf("before the policy is met (-want +got):\n%s", diff)
	}
	if st := w.statuses()["overnight"]; st.State != "waiting" || !slices.Equal(st.Missing, []string{upg}) {
		t.Errorf("%s, missing %v", st.State, st.Missing)
	}
	w.mustDeliver(run(upg, "2026-02-04 06:10"))
	want := []string{"1 operator published [" + toff + "]", "2 all_complete published [" + pgs + " " + tdef + " " + upg + " " + utg + "]"}
	if diff := cmp.Diff(want, described(w.statuses()["overnight"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.eachRunOnce()
}

// A hand-over of a period of any age is finished by the relay.
func TestTrigger_RelayFinishesBlockedHandOverOfOldPeriod(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()...)
	before := len(w.broker.got)
	w.clock.set(at("2026-02-20 09:00"))
	ready := Readiness{Outcome: Unknown, Reasons: []string{"BigQuery does not answer"}}
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { return ready }
	if b, err := w.trigger(); err != nil || b.State != StateBlocked {
		t.Fatalf("%+v, %v", b, err)
	}
	ready = Readiness{Outcome: Passed}
	w.pass(6 * time.Minute)
	w.relay()
	if n := len(w.broker.got) - before; n != 5 {
		t.Errorf("%d messages", n)
	}
	if left, _ := w.doc("phase_periods", "phase3_to_phase4~watch").Data["periods"].([]any); len(left) != 0 {
		t.Errorf("%v are watched still", left)
	}
}

// A forced request applies to the runs that it chose, and to no run that replaces them.
func TestTrigger_ForceAppliesToSelectedRunsOnly(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()...)
	w.broker.fail = func(int, wire.Trigger) error { return errBroker }
	if _, err := w.deliver(run(pgs, "2026-02-04 06:30", count(348))); err == nil {
		t.Fatal("the broker's failure was not reported")
	}
	w.pass(2 * time.Minute)
	if _, err := w.trigger(of(utg), force); err == nil {
		t.Fatal("the broker's failure was not reported")
	}
	w.broker.fail = nil
	w.tr = changed(t, retired...)
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { return Readiness{Outcome: Failed} }
	w.pass(2 * time.Minute)
	w.relay()
	before := len(w.broker.got)
	w.hold("overnight", 5*time.Hour)
	w.mustDeliver(run(pgs, "2026-02-04 07:30", count(349)))
	w.relay()
	if len(w.broker.got) != before {
		t.Error("handed over in spite of a hold")
	}
	if st := w.statuses()["overnight"]; st.State != "on_hold" {
		t.Errorf("shown as %s, %s", st.State, st.Reason)
	}
	w.release("overnight")
	if st := w.statuses()["overnight"]; st.State != "blocked" || len(w.broker.got) != before {
		t.Errorf("%s, %d messages in spite of failed checks", st.State, len(w.broker.got)-before)
	}
	w.engine.Check = Unchecked
	w.pass(time.Hour)
	w.relay()
	if b := w.statuses()["overnight"].Batches[2]; b.Actor != actorEngine || b.Cause != "second_run" || b.State != StatePublished {
		t.Errorf("%+v", b)
	}
}

// A request without force waits for its data, also if the policy hands over at the deadline.
func TestTrigger_DeadlineDoesNotForceRequest(t *testing.T) {
	w := newWorld(t, "memory")
	w.tr = degrading(t)
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		return Readiness{Outcome: Failed, Reasons: []string{"no rows"}}
	}
	w.clock.set(at("2026-02-04 06:00"))
	for _, name := range []string{pgs, upg, tdef} {
		if err := w.engine.Record(context.Background(), w.key("2026-02-03"), run(name, "2026-02-04 06:00")); err != nil {
			t.Fatal(err)
		}
	}
	w.clock.set(at("2026-02-04 10:01"))
	if b, err := w.trigger(of(tdef)); err != nil || b.State != StateBlocked || len(w.broker.got) != 0 {
		t.Errorf("%+v, %v, %d messages", b, err, len(w.broker.got))
	}
}

// A request for two of three processors leaves out the third: the policy decides when that
// one is handed over.
func TestTrigger_SelectionExcludesOtherProcessors(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 05:00"))
	w.mustDeliver(run(pgs, "2026-02-04 06:01"), run(upg, "2026-02-04 06:02"), run(tdef, "2026-02-04 06:02"))
	if _, err := w.trigger(of(pgs, upg)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{pgs, upg}, w.tablesOf("overnight")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.mustDeliver(run(toff, "2026-02-04 06:10"), run(utg, "2026-02-04 06:11"))
	want := []string{"1 operator published [" + pgs + " " + upg + "]", "2 all_complete published [" + tdef + " " + toff + " " + utg + "]"}
	if diff := cmp.Diff(want, described(w.statuses()["overnight"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.eachRunOnce()
}
