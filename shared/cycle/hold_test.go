package cycle

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

const actor = "ada@host"

// hold holds the overnight cycle of 2026-02-03, or with "" the whole transition.
func (w *world) hold(mode string, lasts time.Duration) HoldResult {
	w.t.Helper()
	r, err := w.engine.Hold(context.Background(), w.heldKey(mode), mode, lasts, actor, "source data is wrong")
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// heldKey returns the key of the night, or for the whole transition a key without a period.
func (w *world) heldKey(mode string) Key {
	if mode == "" {
		return w.key("")
	}
	return w.key("2026-02-03")
}

func (w *world) release(mode string) HoldResult {
	w.t.Helper()
	r, err := w.engine.Release(context.Background(), w.heldKey(mode), mode, actor, "repaired")
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) relay() {
	w.t.Helper()
	if err := w.engine.Relay(context.Background(), w.tr, "relay", nil); err != nil {
		w.t.Fatal(err)
	}
}

// audits returns the details of the audit records, in order.
func (w *world) audits() (out []string) {
	w.t.Helper()
	for doc, err := range w.store.Store.Scan(context.Background(), w.prefix+"audit", "!", "~") {
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, doc.Data["action"].(string)+" by "+doc.Data["actor"].(string)+": "+doc.Data["detail"].(string))
	}
	return out
}

func TestHold_CycleIsHandedOverWhenHoldEnds(t *testing.T) {
	for driver := range drivers {
		for _, mode := range []string{"overnight", ""} {
			t.Run(driver+"/"+mode, func(t *testing.T) {
				w := newWorld(t, driver)
				w.ready()
				w.hold(mode, 3*time.Hour)
				w.converge("2026-02-03")
				w.relay()
				st := w.statuses()["overnight"]
				if st.State != "on_hold" || len(w.broker.got) != 0 || !st.NextCheck.Truncate(time.Second).Equal(at("2026-02-04 09:05")) ||
					!strings.HasPrefix(st.Reason, "on hold by ada@host until 2026-02-04 09:05 EST: source data is wrong; 5 of 5 complete") {
					t.Fatalf("%s until %s (%s), %d messages", st.State, st.NextCheck, st.Reason, len(w.broker.got))
				}
				if n := len(w.events("cycle_on_hold")); n == 0 {
					t.Error("the hold is not logged")
				}
				w.pass(3*time.Hour - time.Millisecond)
				w.relay()
				if len(w.broker.got) != 0 {
					t.Fatal("handed over before its end")
				}
				w.pass(2 * time.Millisecond)
				w.relay() // it expires without a release
				if st := w.statuses()["overnight"]; st.State != "published" || len(w.broker.got) != 5 {
					t.Errorf("%s, %d messages", st.State, len(w.broker.got))
				}
			})
		}
	}
}

func TestRelease_HandsOverImmediately(t *testing.T) {
	for _, mode := range []string{"overnight", ""} {
		w := newWorld(t, "memory")
		w.ready()
		w.hold(mode, time.Hour)
		w.converge("2026-02-03")
		if r := w.release(mode); r.Hold == nil || r.Hold.Actor != actor || len(w.broker.got) != 5 {
			t.Errorf("%q: %+v, %d messages", mode, r, len(w.broker.got))
		}
		before := len(w.audits())
		if r := w.release(mode); r.Hold != nil || len(w.audits()) != before {
			t.Errorf("%q: released twice: %+v", mode, r)
		}
		what := map[string]string{"overnight": "phase3_to_phase4_2026-02-03_overnight", "": "every cycle of phase3_to_phase4"}[mode]
		want := []string{"hold by ada@host: " + what + ", until 2026-02-04T12:05:00Z: source data is wrong",
			"release by ada@host: " + what + ", until 2026-02-04T12:05:00Z: repaired"}
		if diff := cmp.Diff(want, w.audits()); diff != "" {
			t.Errorf("audit (-want +got):\n%s", diff)
		}
		if n := len(w.events("operator_action")); n != 2 {
			t.Errorf("%d events", n)
		}
	}
}

// A hold of one cycle does not apply to another.
func TestHold_AppliesToItsCycleOnly(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 10:00"))
	w.hold("overnight", 22*time.Hour)
	w.mustDeliver(run(upg, "2026-02-03 10:31"))
	w.mustDeliver(overnight()...)
	if w.statuses()["same_day"].State != "published" || w.statuses()["overnight"].State != "on_hold" {
		t.Errorf("%+v", w.statuses())
	}
}

// A frozen batch is published in spite of a hold, and Hold returns its name. Later runs are on hold.
func TestHold_DuringPublishingAppliesToNextBatch(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	var r HoldResult
	w.broker.fail = func(i int, _ wire.Trigger) error {
		if i == 0 {
			r = w.hold("overnight", time.Hour)
		}
		return nil
	}
	w.converge("2026-02-03")
	if diff := cmp.Diff([]string{overnightOne}, r.Publishing); diff != "" || len(w.broker.got) != 5 {
		t.Fatalf("publishing (-want +got):\n%s%d messages", diff, len(w.broker.got))
	}
	w.broker.fail = nil
	if st := w.statuses()["overnight"]; st.State != "published" || !strings.Contains(st.Reason, "what comes next is on hold by ada@host") {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
	w.mustDeliver(run(pgs, "2026-02-04 06:30", count(348)))
	if st := w.statuses()["overnight"]; st.State != "on_hold" || len(w.broker.got) != 5 {
		t.Errorf("%s (%s), %d messages", st.State, st.Reason, len(w.broker.got))
	}
	w.release("overnight")
	if len(w.broker.got) != 6 {
		t.Errorf("%d messages", len(w.broker.got))
	}
}

// Readiness checks take minutes. A process that started them before the hold decided
// without it, and must not be able to write its decision.
func TestHold_DuringChecksPreventsHandOver(t *testing.T) {
	for _, mode := range []string{"overnight", ""} {
		w := newWorld(t, "memory")
		w.ready()
		checks := 0
		w.engine.Check = func(context.Context, Key, string, []string) Readiness {
			if checks++; checks == 1 {
				if r := w.hold(mode, time.Hour); len(r.Publishing) != 0 {
					t.Errorf("the answer names batches as publishing: %v", r.Publishing)
				}
			}
			return Readiness{Outcome: Passed}
		}
		w.converge("2026-02-03")
		st := w.statuses()["overnight"]
		if st.State != "on_hold" || len(w.broker.got) != 0 || w.doc("phase_triggers", overnightOne).Data["holder"] != "" {
			t.Errorf("%q: %s, %d messages", mode, st.State, len(w.broker.got))
		}
		w.pass(time.Hour + time.Second)
		w.relay()
		if len(w.broker.got) != 5 || checks != 2 {
			t.Errorf("%q: %d messages, %d checks", mode, len(w.broker.got), checks)
		}
	}
}

// A hold is no reason to start the grace period later.
func TestHold_GracePeriodContinues(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	w.hold("overnight", 40*time.Minute)
	w.mustDeliver(run(pgs, "2026-02-04 06:01"), run(upg, "2026-02-04 06:02"), run(utg, "2026-02-04 06:03"))
	w.pass(37 * time.Minute) // the grace ended at 06:33, the hold at 06:40
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "published" || st.Batches[0].Cause != "critical_plus_majority_60pct" {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
}

func TestHold_RejectsDurationOutsideLimits(t *testing.T) {
	w := newWorld(t, "memory")
	for mode, most := range map[string]time.Duration{"overnight": MaxHold, "": MaxWholeHold} {
		for _, d := range []time.Duration{0, -time.Hour, most + time.Second} {
			_, err := w.engine.Hold(context.Background(), w.heldKey(mode), mode, d, actor, "x")
			if err == nil || len(w.audits()) != 0 {
				t.Errorf("%q, %s: accepted", mode, d)
			}
		}
	}
}

// A period with no byte left keeps its hold in its second document.
func TestHold_FullPeriodCanBePutOnHold(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.fill(store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4_2026-02-03"}, 0)
	w.hold("overnight", time.Hour)
	w.converge("2026-02-03")
	if st := w.statuses()["overnight"]; st.State != "on_hold" {
		t.Fatalf("%s", st.State)
	}
	w.release("overnight")
	if len(w.broker.got) != 5 {
		t.Errorf("%d messages", len(w.broker.got))
	}
}

func TestHold_DamagedHoldIsNotIgnored(t *testing.T) {
	for name, f := range map[string]struct {
		id string
		f  store.Field
	}{
		"no_map":     {"phase3_to_phase4_2026-02-03", store.F("x", "holds", "overnight")},
		"no_time":    {"phase3_to_phase4_2026-02-03", store.F("soon", "holds", "overnight", "until")},
		"transition": {"phase3_to_phase4~hold", store.F("soon", "until")},
	} {
		w := newWorld(t, "memory")
		w.ready()
		ref := store.Ref{Collection: "phase_periods", ID: f.id}
		if _, err := w.store.Apply(context.Background(), store.Merge(ref, f.f)); err != nil {
			t.Fatal(err)
		}
		_, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "")
		if err == nil || !strings.Contains(err.Error(), f.id) || len(w.broker.got) != 0 {
			t.Errorf("%s: %v, %d messages", name, err, len(w.broker.got))
		}
	}
}

// A hold lasts from the server's time. The clock of the caller's machine does not matter.
func TestHold_DurationStartsAtServerTime(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	other := w.newEngine()
	other.Now = func() time.Time { return w.clock.now().Add(-2 * time.Hour) }
	r, err := other.Hold(context.Background(), w.key("2026-02-03"), "overnight", time.Hour, actor, "wait")
	if err != nil {
		t.Fatal(err)
	}
	w.converge("2026-02-03")
	if st := w.statuses()["overnight"]; st.State != "on_hold" || !st.NextCheck.Equal(r.Hold.Until) || r.Hold.Until.Sub(w.clock.now()).Round(time.Minute) != time.Hour {
		t.Errorf("%s until %s, answered was %s", st.State, st.NextCheck, r.Hold.Until)
	}
}

// A hold may last until its period is older than the relay's window.
func TestHold_EndsInHandOverBeyondRelayWindow(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.hold("overnight", 10*24*time.Hour)
	for range 10 {
		w.pass(23 * time.Hour)
		w.relay()
	}
	if len(w.broker.got) != 0 {
		t.Fatalf("%d messages during the hold", len(w.broker.got))
	}
	w.pass(24 * time.Hour)
	w.relay()
	if len(w.broker.got) != 5 {
		t.Errorf("%d messages after it", len(w.broker.got))
	}
	w.relay()
	if left, _ := w.doc("phase_periods", "phase3_to_phase4~watch").Data["periods"].([]any); len(left) != 0 {
		t.Errorf("%v are watched still", left)
	}
}

// Of two holds, one in a full period's second document, the later one is in force.
func TestHold_LaterHoldAppliesInEitherDocument(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.fill(store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4_2026-02-03"}, 300)
	for _, h := range []struct {
		lasts  time.Duration
		reason string
	}{{time.Hour, strings.Repeat("long ", 100)}, {24 * time.Hour, "short"}} {
		if _, err := w.engine.Hold(context.Background(), w.key("2026-02-03"), "overnight", h.lasts, actor, h.reason); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
	}
	w.pass(2 * time.Hour)
	w.converge("2026-02-03")
	if st := w.statuses()["overnight"]; st.State != "on_hold" || !strings.Contains(st.Reason, "short") {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
	w.release("overnight")
	if len(w.broker.got) != 5 {
		t.Errorf("%d messages", len(w.broker.got))
	}
}

// A hold of the transition also applies to old periods that are watched for an operator.
func TestHold_OfTransitionIncludesWatchedPeriods(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()...)
	sent := len(w.broker.got)
	w.clock.set(at("2026-02-20 09:00"))
	once := false
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		if !once {
			once = true
			w.hold("", time.Hour)
		}
		return Readiness{Outcome: Passed}
	}
	if _, err := w.trigger(); err != nil || len(w.broker.got) != sent {
		t.Errorf("%v, %d messages during the hold", err, len(w.broker.got)-sent)
	}
	w.pass(time.Hour + time.Second)
	w.relay()
	if n := len(w.broker.got) - sent; n != 5 {
		t.Errorf("%d messages after it", n)
	}
}

// The hold of a whole transition names no period. During the hold and after it, the periods
// before the first completion stay unmanaged.
func TestHold_OfTransitionDoesNotChangeManagedSince(t *testing.T) {
	w, s := idleDay(t, "memory")
	first := func() string { return string(w.since()) }
	w.hold("", time.Hour)
	for _, when := range []string{"2026-02-03 06:30", "2026-02-03 14:00"} { // the hold has ended at the second
		w.clock.set(at(when))
		w.relay()
		if got := first(); got != "2026-02-02" {
			t.Errorf("%s: the first managed period is %s", when, got)
		}
		for _, line := range w.events(telemetry.CycleOnHold) {
			if p := line["period"].(string); p < "2026-02-02" {
				t.Errorf("%s: %s is logged as on hold", when, p)
			}
		}
	}
	if s.asked == 0 {
		t.Error("the schedule was never asked")
	}
}
