package cycle

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/store"
)

const actor = "ada@host"

// hold holds the overnight cycle of 2026-02-03, or with "" the whole transition.
func (w *world) hold(mode string, lasts time.Duration) HoldResult {
	w.t.Helper()
	r, err := w.engine.Hold(context.Background(), w.heldKey(mode), mode,
		Hold{Until: w.clock.now().Add(lasts), Actor: actor, Reason: "source data is wrong"})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// heldKey names the night, and for the whole transition no period.
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
	if err := w.engine.Relay(context.Background(), w.tr, "relay"); err != nil {
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

func TestAHeldCycleIsHandedOverWhenTheHoldEnds(t *testing.T) {
	for driver := range drivers {
		for _, mode := range []string{"overnight", ""} {
			t.Run(driver+"/"+mode, func(t *testing.T) {
				w := newWorld(t, driver)
				w.ready()
				w.hold(mode, 3*time.Hour)
				w.converge("2026-02-03")
				w.relay()
				st := w.statuses()["overnight"]
				if st.State != "held" || len(w.broker.got) != 0 || !st.NextLook.Equal(at("2026-02-04 09:05")) ||
					!strings.HasPrefix(st.Reason, "held by ada@host until 2026-02-04 09:05: source data is wrong; 5 of 5 complete") {
					t.Fatalf("%s until %s (%s), %d messages", st.State, st.NextLook, st.Reason, len(w.broker.got))
				}
				if n := len(w.events("cycle_held")); n == 0 {
					t.Error("nothing is said while it lasts")
				}
				w.pass(3*time.Hour - time.Microsecond)
				w.relay()
				if len(w.broker.got) != 0 {
					t.Fatal("handed over before its end")
				}
				w.pass(time.Microsecond)
				w.relay() // nobody released it
				if st := w.statuses()["overnight"]; st.State != "published" || len(w.broker.got) != 5 {
					t.Errorf("%s, %d messages", st.State, len(w.broker.got))
				}
			})
		}
	}
}

func TestAReleaseHandsOverAtOnce(t *testing.T) {
	for _, mode := range []string{"overnight", ""} {
		w := newWorld(t, "memory")
		w.ready()
		w.hold(mode, time.Hour)
		w.converge("2026-02-03")
		if r := w.release(mode); r.Was == nil || r.Was.Actor != actor || len(w.broker.got) != 5 {
			t.Errorf("%q: %+v, %d messages", mode, r, len(w.broker.got))
		}
		before := len(w.audits())
		if r := w.release(mode); r.Was != nil || len(w.audits()) != before {
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

// A hold of one cycle is not another's.
func TestAHoldIsOfItsCycleAlone(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 10:00"))
	w.hold("overnight", 22*time.Hour)
	w.mustDeliver(run(upg, "2026-02-03 10:31"))
	w.mustDeliver(overnight()...)
	if w.statuses()["same_day"].State != "published" || w.statuses()["overnight"].State != "held" {
		t.Errorf("%+v", w.statuses())
	}
}

// What is frozen goes on, and the caller is told; what follows is held.
func TestAHoldThatArrivesWhileABatchIsPublishingTakesEffectAfterIt(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	var r HoldResult
	w.broker.fail = func(i int, _ message.Trigger) error {
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
	if st := w.statuses()["overnight"]; st.State != "published" || !strings.Contains(st.Reason, "what comes next is held by ada@host") {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
	w.mustDeliver(run(pgs, "2026-02-04 06:30", count(348)))
	if st := w.statuses()["overnight"]; st.State != "held" || len(w.broker.got) != 5 {
		t.Errorf("%s (%s), %d messages", st.State, st.Reason, len(w.broker.got))
	}
	w.release("overnight")
	if len(w.broker.got) != 6 {
		t.Errorf("%d messages", len(w.broker.got))
	}
}

// The checks take minutes. Whoever started them before the hold decided without it,
// and must not be able to write what it decided.
func TestAHoldDuringTheChecksIsInTime(t *testing.T) {
	for _, mode := range []string{"overnight", ""} {
		w := newWorld(t, "memory")
		w.ready()
		checks := 0
		w.engine.Check = func(context.Context, Key, string, []string) Readiness {
			if checks++; checks == 1 {
				if r := w.hold(mode, time.Hour); len(r.Publishing) != 0 {
					t.Errorf("said to be publishing: %v", r.Publishing)
				}
			}
			return Readiness{Outcome: Passed}
		}
		w.converge("2026-02-03")
		st := w.statuses()["overnight"]
		if st.State != "held" || len(w.broker.got) != 0 || w.doc("phase_triggers", overnightOne).Data["holder"] != "" {
			t.Errorf("%q: %s, %d messages", mode, st.State, len(w.broker.got))
		}
		w.pass(time.Hour)
		w.relay()
		if len(w.broker.got) != 5 || checks != 2 {
			t.Errorf("%q: %d messages, %d checks", mode, len(w.broker.got), checks)
		}
	}
}

// A hold is no reason to start the grace period later.
func TestAGracePeriodRunsDuringAHold(t *testing.T) {
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

func TestAHoldMustEndSoonEnoughToBeRemembered(t *testing.T) {
	w := newWorld(t, "memory")
	for _, d := range []time.Duration{0, -time.Hour, MaxHold + time.Second} {
		_, err := w.engine.Hold(context.Background(), w.key("2026-02-03"), "overnight", Hold{Until: w.clock.now().Add(d), Actor: actor})
		if err == nil || len(w.audits()) != 0 {
			t.Errorf("%s: accepted", d)
		}
	}
}

// A period with no byte left keeps its hold in its second document.
func TestAFullPeriodCanBeHeld(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.fill(store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4_2026-02-03"}, 0)
	w.hold("overnight", time.Hour)
	w.converge("2026-02-03")
	if st := w.statuses()["overnight"]; st.State != "held" {
		t.Fatalf("%s", st.State)
	}
	w.release("overnight")
	if len(w.broker.got) != 5 {
		t.Errorf("%d messages", len(w.broker.got))
	}
}

func TestADamagedHoldIsNotTakenForNone(t *testing.T) {
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
