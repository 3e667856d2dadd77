package cycle

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestF01_PublishedMeansThatTheBrokerAnsweredForEveryMessage(t *testing.T) {
	for _, lose := range []bool{false, true} {
		for broken := range 5 {
			t.Run(fmt.Sprintf("message_%d_lost_answer_%t", broken+1, lose), func(t *testing.T) {
				w := newWorld(t, "memory")
				w.clock.set(at("2026-02-04 06:00"))
				w.broker.lose = lose
				w.broker.fail = func(_ int, tr wire.Trigger) error {
					if tr.SourceTable == five[broken] {
						return errBroker
					}
					return nil
				}
				for i, name := range five {
					_, err := w.deliver(run(name, fmt.Sprintf("2026-02-04 06:0%d", i)))
					if last := i == 4; (err != nil) != last {
						t.Fatalf("%s: error %v", name, err)
					}
				}
				st, p := w.statuses()["overnight"], w.projection()
				if st.State != "publishing" || st.Batches[0].Messages[five[broken]] != "" {
					t.Errorf("after the failure: %+v", st)
				}
				if p["_triggered"] != false || p["_trigger_succeeded"] != false || p["_trigger_pending"] != true {
					t.Errorf("the projection claims a trigger that did not happen: %v", p)
				}
				w.broker.fail = nil
				w.mustDeliver(run(five[4], "2026-02-04 06:04")) // the redelivery
				if st := w.statuses()["overnight"]; st.State != "published" {
					t.Errorf("after the redelivery: %+v", st)
				}
				if p := w.projection(); p["_triggered"] != true || p["_trigger_succeeded"] != true || p["_trigger_pending"] != false {
					t.Errorf("projection after the redelivery: %v", p)
				}
				ids := map[string]int{}
				for _, tr := range w.broker.got {
					ids[tr.TriggerID]++
				}
				for name, n := range ids {
					if want := 1; n != want && !(lose && strings.HasSuffix(name, five[broken]) && n == 2) {
						t.Errorf("%s sent %d times", name, n)
					}
				}
				if len(ids) != 5 {
					t.Errorf("%d trigger ids, want 5", len(ids))
				}
			})
		}
	}
}

func TestF03_TheThreeCyclesOfADateAreTriggeredEachOnItsOwn(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(
		run(upg, "2026-02-02 17:05"), run(utg, "2026-02-02 17:06"),
		run(upg, "2026-02-03 10:35"), run(utg, "2026-02-03 10:36"),
		run(toff, "2026-02-03 22:40"), run(tdef, "2026-02-03 22:41"), run(pgs, "2026-02-04 06:03"),
	)
	got := map[string][]string{}
	for _, tr := range w.broker.got {
		got[tr.Mode] = append(got[tr.Mode], tr.SourceTable)
	}
	want := map[string][]string{"tomorrow": {upg, utg}, "same_day": {upg, utg}, "overnight": five}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestF09_WritersOfOneDocumentNeverOverwriteEachOther(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 23:00"))
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			c := run(five[i%5], "2026-02-03 22:00", execution(fmt.Sprint("e", i)))
			if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	total := 0
	for _, group := range w.doc("phase_periods", "phase3_to_phase4_2026-02-03").Data["runs"].(map[string]any) {
		total += len(group.(map[string]any))
	}
	if total != 100 {
		t.Errorf("%d of 100 runs are recorded", total)
	}
	// Fields of another tool in the compatibility document stay.
	ref := store.Ref{Collection: "phase3_completion", ID: "2026-02-03"}
	if _, err := w.store.Apply(context.Background(), store.Create(ref, store.F("by hand", "note"), store.F(1, "_completed_count"))); err != nil {
		t.Fatal(err)
	}
	w.converge("2026-02-03")
	if p := w.projection(); p["note"] != "by hand" || p["_completed_count"] == int64(1) {
		t.Errorf("projection: %v", p)
	}
}

func TestF11_NoStatusSaysTriggeredBeforeTheBrokerAnswered(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	w.broker.fail = func(int, wire.Trigger) error {
		if st := w.statuses()["overnight"]; st.State == "published" {
			t.Error("status says published while publishing")
		}
		if p := w.projection(); p["_triggered"] == true || p["_trigger_succeeded"] == true {
			t.Errorf("projection says triggered while publishing: %v", p)
		}
		return nil
	}
	for i, name := range five {
		w.mustDeliver(run(name, fmt.Sprintf("2026-02-04 06:0%d", i)))
	}
	if w.projection()["_triggered"] != true || len(w.broker.got) != 5 {
		t.Errorf("%d messages sent, projection %v", len(w.broker.got), w.projection())
	}
}

func TestF13_FiveUnknownNamesAreNotFiveProcessors(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	for i := range 5 {
		c := run("", "2026-02-04 06:00", execution(fmt.Sprint(i)))
		c.Reported = fmt.Sprintf("../stranger.%d/__x__", i)
		w.mustDeliver(c)
	}
	if len(w.broker.got) != 0 {
		t.Errorf("published %v", w.broker.tables())
	}
	if p := w.projection(); p != nil {
		t.Errorf("projected %v", p)
	}
	doc := w.doc("phase_periods", "phase3_to_phase4_2026-02-03")
	delete(doc.Data, store.ExpiresAt)
	if n := len(doc.Data["unexpected"].(map[string]any)); n != 5 || len(doc.Data) != 1 {
		t.Errorf("%d of 5 reports are recorded: %v", n, doc.Data)
	}
	if ig := w.statuses()["overnight"].Ignored; len(ig) != 5 {
		t.Errorf("status shows %v", ig)
	}
}

func TestF15_EntitiesAreKeyedByTheKindInTheDefinition(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	for i, name := range five {
		who := "lebronjames"
		if strings.Contains(name, "team") {
			who = "LAL"
		}
		w.mustDeliver(run(name, fmt.Sprintf("2026-02-04 06:0%d", i), entities(who)))
	}
	for _, tr := range w.broker.got {
		want := map[string][]string{"players": {"lebronjames"}}
		if strings.Contains(tr.SourceTable, "team") {
			want = map[string][]string{"teams": {"LAL"}}
		}
		if diff := cmp.Diff(want, tr.EntitiesChanged); diff != "" || !tr.Incremental {
			t.Errorf("%s: incremental %t (-want +got):\n%s", tr.SourceTable, tr.Incremental, diff)
		}
	}
}
