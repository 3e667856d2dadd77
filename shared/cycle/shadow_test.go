package cycle

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// shadow puts the world's engine into shadow.
func (w *world) shadow() {
	c := w.engine.Config
	c.Shadow, c.Prefix = true, c.Prefix+"shadow_"
	w.engine = New(c)
}

func TestShadow_EvaluatesLikeActiveEngineAndPublishesNothing(t *testing.T) {
	story := []wire.Completion{
		run(upg, "2026-02-02 17:10"), run(tdef, "2026-02-03 23:50"), run(toff, "2026-02-03 23:51"),
		run(utg, "2026-02-04 00:10"), run(pgs, "2026-02-04 06:03"),
		run(pgs, "2026-02-04 07:10", count(348)), // a second run
	}
	active, shadow := newWorld(t, "memory"), newWorld(t, "memory")
	shadow.shadow()
	written := map[string]bool{}
	shadow.store.before = func(ws []store.Write) {
		for _, w := range ws {
			written[w.Ref.Collection] = true
		}
	}
	active.mustDeliver(story...)
	shadow.mustDeliver(story...)

	for _, w := range []*world{active, shadow} {
		if err := w.engine.Relay(t.Context(), w.tr, "relay", nil); err != nil {
			t.Fatal(err)
		}
		overnight, _ := w.tr.Mode("overnight")
		again := Request{Processors: []string{pgs}, Actor: "ann", Reason: "once more"}
		if _, err := w.engine.Trigger(t.Context(), w.key("2026-02-03"), overnight, again); err != nil {
			t.Fatal(err)
		}
		if _, err := w.engine.Hold(t.Context(), w.key("2026-02-03"), "overnight", time.Hour, "ann", "try"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.engine.Release(t.Context(), w.key("2026-02-03"), "overnight", "ann", "tried"); err != nil {
			t.Fatal(err)
		}
	}

	want, got := active.statuses(), shadow.statuses()
	for _, ss := range []map[string]Status{want, got} {
		for _, s := range ss {
			for _, b := range s.Batches {
				for table, id := range b.Messages {
					if id == "" {
						t.Errorf("%s: %s has no id", b.ID, table)
					}
					b.Messages[table] = "sent"
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want["overnight"].Batches) != 3 {
		t.Errorf("active and shadow (-active +shadow):\n%s", diff)
	}
	if n := len(active.broker.got); n == 0 {
		t.Error("the active engine published nothing either")
	}
	if n := len(shadow.broker.got); n != 0 {
		t.Errorf("the shadow published %d messages", n)
	}
	if diff := cmp.Diff([]string{"shadow_audit", "shadow_phase_periods", "shadow_phase_triggers"}, slices.Sorted(maps.Keys(written))); diff != "" {
		t.Errorf("collections written (-want +got):\n%s", diff)
	}
	for n := 1; n <= 3; n++ {
		if doc := shadow.doc("shadow_phase_triggers", fmt.Sprintf("phase3_to_phase4_2026-02-03_overnight~%d", n)); doc.Data["expires_at"] == nil {
			t.Errorf("%s does not expire", doc.Ref)
		}
	}
}

// A shadow and an active engine share one store: neither sees the other's runs.
func TestShadow_DoesNotChangeStateOfActiveEngine(t *testing.T) {
	w := newWorld(t, "memory")
	active := w.engine
	w.mustDeliver(run(pgs, "2026-02-04 06:03"))
	before := w.doc("phase_periods", "phase3_to_phase4_2026-02-03")
	w.shadow()
	w.mustDeliver(run(pgs, "2026-02-04 06:04"), run(tdef, "2026-02-04 06:04"), run(toff, "2026-02-04 06:04"),
		run(upg, "2026-02-04 06:04"), run(utg, "2026-02-04 06:04"))
	if st := w.statuses()["overnight"]; st.State != string(StatePublished) || len(st.Satisfied) != 5 {
		t.Errorf("shadow: %+v", st)
	}
	if diff := cmp.Diff(before, w.doc("phase_periods", "phase3_to_phase4_2026-02-03")); diff != "" {
		t.Errorf("the active engine's period changed:\n%s", diff)
	}
	keys, _, err := w.engine.recordedFrom(t.Context(), w.tr, "2026-02-01")
	if err != nil || len(keys) != 1 {
		t.Errorf("the shadow's relay finds %v: %v", keys, err)
	}
	w.engine = active
	w.mustDeliver(run(pgs, "2026-02-04 06:05", func(c *wire.Completion) { c.Period = "2026-02-02" }))
	w.shadow()
	if keys, _, err := w.engine.recordedFrom(t.Context(), w.tr, "2026-02-01"); err != nil || len(keys) != 1 {
		t.Errorf("the shadow's relay finds %v, of both: %v", keys, err)
	}
	w.engine = active
	if st := w.statuses()["overnight"]; len(st.Satisfied) != 1 || len(st.Batches) != 0 {
		t.Errorf("active: %+v", st)
	}
}

func TestShadow_DocumentsExpireEarlierThanThoseOfTheActiveEngine(t *testing.T) {
	five := []wire.Completion{run(tdef, "2026-02-03 23:50"), run(toff, "2026-02-03 23:51"), run(upg, "2026-02-04 00:10"),
		run(utg, "2026-02-04 00:10"), run(pgs, "2026-02-04 06:03")}
	w := newWorld(t, "memory")
	w.mustDeliver(five...)
	w.shadow()
	w.mustDeliver(five...)
	for prefix, kept := range map[string]time.Duration{"": store.Kept, "shadow_": shadowKept} {
		for collection, id := range map[string]string{"phase_periods": "phase3_to_phase4_2026-02-03", "phase_triggers": "phase3_to_phase4_2026-02-03_overnight~1"} {
			doc := w.doc(prefix+collection, id)
			if !doc.Exists {
				t.Fatalf("%s does not exist", doc.Ref)
			}
			if expires, _ := doc.Data["expires_at"].(time.Time); !expires.Truncate(time.Millisecond).Equal(at("2026-02-04 06:03").Add(kept)) {
				t.Errorf("%s expires at %v", doc.Ref, doc.Data["expires_at"])
			}
		}
	}
}
