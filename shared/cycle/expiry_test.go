package cycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// remove deletes a document, as the platform does with an expired one.
func (w *world) remove(collection, id string) {
	w.t.Helper()
	doc := w.doc(collection, id)
	at, expires := doc.Data[store.ExpiresAt].(time.Time)
	if !expires || at.After(w.clock.now()) {
		w.t.Fatalf("%s has not expired: %v", doc.Ref, doc.Data[store.ExpiresAt])
	}
	if _, err := w.store.Store.Apply(context.Background(), store.DeleteIf(doc.Ref, doc.Version)); err != nil {
		w.t.Fatal(err)
	}
}

const (
	thePeriod = "phase3_to_phase4_2026-02-03"
	afterAll  = "2027-06-20 06:00" // 501 days later
)

func (w *world) ends(collection, id string) bool {
	_, ends := w.doc(collection, id).Data[store.ExpiresAt].(time.Time)
	return ends
}

func TestPeriod_ExpiresOnlyWhileNothingIsOpen(t *testing.T) {
	w := newWorld(t, "memory")
	overnight, _ := w.tr.Mode("overnight")
	ctx := context.Background()
	expect := func(what string, want bool) {
		t.Helper()
		if got := w.ends(periodsCollection, thePeriod); got != want {
			t.Errorf("%s: the period expires: %t", what, got)
		}
	}
	for i, name := range five {
		w.mustDeliver(run(name, "2026-02-04 06:03"))
		expect(fmt.Sprintf("%d of 5 complete", i+1), i == 4)
	}
	if !w.ends(triggersCollection, overnightOne) {
		t.Error("the published batch does not expire")
	}
	if _, err := w.engine.Hold(ctx, w.key("2026-02-03"), "overnight", time.Hour, "ada", "look"); err != nil {
		t.Fatal(err)
	}
	w.relay()
	expect("on hold", false)
	w.clock.set(w.clock.now().Add(2 * time.Hour))
	w.relay()
	expect("the hold has ended", true)
	w.broker.fail = func(int, wire.Trigger) error { return errBroker }
	if _, err := w.engine.Trigger(ctx, w.key("2026-02-03"), overnight, Request{Actor: "ada", Reason: "again"}); err == nil {
		t.Fatal("published")
	}
	expect("a batch is not published", false)
	if w.ends(triggersCollection, strings.Replace(overnightOne, "~1", "~2", 1)) {
		t.Error("a batch that is not published expires")
	}
	w.broker.fail = nil
	w.clock.set(w.clock.now().Add(2 * time.Minute))
	w.relay()
	expect("all is published", true)
}

// A late report postpones the end of its period, in the commit that records it.
func TestRecord_KeepsAPeriodThatIsNearItsEnd(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.converge("2026-02-03")
	w.clock.set(at("2027-03-11 05:00"))
	if err := w.engine.Record(context.Background(), w.key("2026-02-03"), run(pgs, "2027-03-11 05:00")); err != nil {
		t.Fatal(err)
	}
	if w.ends(periodsCollection, thePeriod) {
		t.Error("the period with the new report can be deleted before it is evaluated")
	}
	w.converge("2026-02-03")
	if end, _ := w.doc(periodsCollection, thePeriod).Data[store.ExpiresAt].(time.Time); end.Before(w.clock.now().Add(store.Kept)) {
		t.Errorf("it expires at %s", end)
	}
}

func TestPeriod_IsNotDamagedByExpiredBatches(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.converge("2026-02-03")
	w.clock.set(at(afterAll))
	w.remove(triggersCollection, overnightOne)
	w.mustDeliver(run(pgs, afterAll, count(1)))
	if n := len(w.broker.got); n != 5 {
		t.Errorf("%d messages, 5 were handed over in time", n)
	}
	st := w.statuses()["overnight"]
	if st.State != string(StatePublished) {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
	overnight, _ := w.tr.Mode("overnight")
	x, err := w.engine.Explain(context.Background(), w.key("2026-02-03"), overnight)
	if err != nil || len(x.Runs) != 6 || !x.Runs[0].HandedOver || x.Runs[0].Batch != 0 || x.Runs[5].HandedOver {
		t.Errorf("%+v, %v", x.Runs, err)
	}
	b, err := w.engine.Trigger(context.Background(), w.key("2026-02-03"), overnight, Request{Processors: []string{pgs}, Actor: "ada", Reason: "corrected", Force: true})
	if err != nil || b.N != 2 {
		t.Errorf("batch %d, %v", b.N, err)
	}
}

// The platform has deleted the period, but not yet its batch.
func TestBatches_OfADeletedPeriodAreIgnored(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.converge("2026-02-03")
	w.clock.set(at(afterAll))
	w.remove(periodsCollection, thePeriod)
	if st := w.statuses()["overnight"]; st.State != "closed" || !strings.Contains(st.Reason, "nothing is recorded any more: the period ended 50") {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
	w.mustDeliver(run(pgs, afterAll))
	if n := len(w.broker.got); n != 5 {
		t.Errorf("%d messages, 5 were handed over in time", n)
	}
	if st := w.statuses()["overnight"]; len(st.Batches) != 0 || !strings.Contains(st.Reason, "may have expired") {
		t.Errorf("%s: %s, %+v", st.State, st.Reason, st.Batches)
	}
	overnight, _ := w.tr.Mode("overnight")
	b, err := w.engine.Trigger(context.Background(), w.key("2026-02-03"), overnight, Request{Processors: []string{pgs}, Actor: "ada", Reason: "corrected", Force: true})
	if err != nil || b.State != StatePublished || b.N <= 5_000_000 {
		t.Errorf("batch %d, %v", b.N, err)
	}
}

func TestNumber_IsNeverUsedAgain(t *testing.T) {
	if numberSpan > store.Kept {
		t.Fatal("a batch can expire within the span in which its number is taken")
	}
	key := Key{Transition: nba(t), Period: "2026-02-03"}
	start := key.Transition.Calendar().Start(key.Period)
	first := func(at time.Time) int { return (&snapshot{key: key, now: at}).number("overnight") }
	for n := range 1400 { // whenever a cycle has its first batch, and its documents expire as early as they can
		at := start.Add(time.Duration(n-150) * 24 * time.Hour)
		if again := first(at.Add(store.Kept)); again < first(at)+spanNumbers && first(at) < again+spanNumbers {
			t.Errorf("batch %d on %s, and %d after it has expired", first(at), at, again)
		}
	}
	if first(start) != 1 || first(start.AddDate(0, 0, 30)) != 1 {
		t.Error("a cycle does not begin with batch 1")
	}
}

// Two processes sum up a cycle, and the commit of the one that read earlier is late. Nothing
// evaluates the period after it, and the batches expire before the period does. The cycle is not
// that of the mode shown, so no version of the compatibility document refuses the late commit.
func TestSummary_ThatIsLateDoesNotReplaceANewerOne(t *testing.T) {
	w := newWorld(t, "memory")
	sameDay, _ := w.tr.Mode("same_day")
	again := func(reason string) BatchStatus {
		t.Helper()
		b, err := w.engine.Trigger(context.Background(), w.key("2026-02-03"), sameDay, Request{Processors: []string{upg}, Actor: "ada", Reason: reason, Force: true})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	w.mustDeliver(run(upg, "2026-02-03 11:00")) // batch 1
	for _, name := range []string{tdef, toff, upg, utg} {
		w.mustDeliver(run(name, "2026-02-04 06:03"))
	}
	w.store.before = func(ws []store.Write) {
		if slices.ContainsFunc(ws, func(write store.Write) bool {
			return slices.ContainsFunc(write.Fields, func(f store.Field) bool { return f.Path[0] == "handed" })
		}) {
			w.store.before = nil
			again("once more")                          // batch 3
			w.mustDeliver(run(pgs, "2026-02-04 06:10")) // nothing is open any more
		}
	}
	again("corrected") // batch 2
	if w.store.before != nil || !w.ends(periodsCollection, thePeriod) {
		t.Fatal("the summary was not late, or the period is open")
	}
	messages := len(w.broker.got)
	w.clock.set(at(afterAll))
	for n := 1; n <= 3; n++ {
		w.remove(triggersCollection, fmt.Sprintf("%s_same_day~%d", thePeriod, n))
	}
	w.mustDeliver(run(tdef, afterAll, status(wire.StatusFailed)))
	if n := len(w.broker.got) - messages; n != 0 {
		t.Errorf("%d messages more", n)
	}
	if b := again("corrected"); b.N != 4 {
		t.Errorf("the next batch is %d; three were published", b.N)
	}
}
