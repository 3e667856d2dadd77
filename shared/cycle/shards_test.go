package cycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// sharded is a world in which every definition has its runs in a number of shards.
func sharded(t *testing.T, driver string, shards int) *world {
	t.Helper()
	w := newWorldOf(t, driver, nba(t))
	w.engine.shards = func(*pipeline.Transition) int { return shards }
	return w
}

// messagesOfANight is what is sent for overnight(): two processors in the evening, and all at night.
var messagesOfANight = []string{upg, utg, pgs, tdef, toff, upg, utg}

func (w *world) shard(name string) store.Doc {
	return w.doc(runsCollection, w.key("2026-02-03").stored()+"~"+name)
}

func (w *world) head() store.Doc { return w.doc(periodsCollection, w.key("2026-02-03").stored()) }

// runsOf returns the processors of which a document has runs.
func runsOf(doc store.Doc) (names []string) {
	runs, _ := doc.Data["runs"].(map[string]any)
	for name := range runs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestShards_HoldTheRunsOfALargeTransition(t *testing.T) {
	for n, want := range map[int]int{1: 1, 5: 1, 500: 1, 501: 20, 10_000: 20} {
		if got := shardsOf(&pipeline.Transition{Order: make([]string, n)}); got != want {
			t.Errorf("%d processors: %d shards, not %d", n, got, want)
		}
	}
	w := newWorld(t, "memory")
	w.tr = wide(t, 1200)
	w.clock.set(at("2026-02-04 06:00"))
	var reports []Report
	for i := range 1200 {
		reports = append(reports, Report{run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00"), fmt.Sprint(i)})
	}
	for _, err := range w.engine.recordAll(t.Context(), w.key("2026-02-03"), reports) {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.converge("2026-02-03")
	all := map[string]bool{}
	for i := range manyShards {
		names := runsOf(w.shard(shardName(manyShards, i)))
		if len(names) < 40 || len(names) > 80 {
			t.Errorf("shard %d has the runs of %d processors", i, len(names))
		}
		for _, name := range names {
			all[name] = true
		}
	}
	if len(all) != 1200 || len(runsOf(w.head())) != 0 {
		t.Errorf("runs of %d processors in shards, of %d in the period", len(all), len(runsOf(w.head())))
	}
	if st := w.statuses()["overnight"]; st.State != "published" || len(w.broker.got) != 1200 {
		t.Errorf("%s, %d messages", st.State, len(w.broker.got))
	}
	if states, err := w.engine.PeriodStates(t.Context(), w.tr, "2026-02-03", "2026-02-03"); err != nil || states[0].Problem != nil || states[0].Cycles[0].State != "published" {
		t.Errorf("%+v, %v", states, err)
	}
}

// Each report changes the period's document, even a report that is already recorded. So a write that
// another process decided without it is refused.
func TestShards_EachReportChangesThePeriod(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			w := sharded(t, driver, 2)
			w.ready()
			before := w.head().Version
			w.record(overnight()[0])
			if after := w.head().Version; after == before {
				t.Error("a redelivered report kept the version of the period's document")
			}
			calls := w.store.calls.Load()
			w.record(run(pgs, "2026-02-04 07:10", count(348)))
			if n := w.store.calls.Load() - calls; n != 1 {
				t.Errorf("a report took %d calls", n)
			}
		})
	}
}

// A definition that grows or shrinks while a period is open has other shards. Runs stay where they were
// recorded, count once, and are handed over once.
func TestShards_AnotherDefinitionReadsAll(t *testing.T) {
	for _, change := range [][]int{{1, 2, 1}, {3, 1, 2}, {2, 3, 2}} {
		t.Run(fmt.Sprint(change), func(t *testing.T) {
			w := sharded(t, "memory", change[0])
			for i, c := range overnight() {
				shards := change[i*len(change)/len(overnight())]
				w.engine.shards = func(*pipeline.Transition) int { return shards }
				w.mustDeliver(c)
				if i > 0 {
					w.mustDeliver(overnight()[i-1]) // is redelivered, to another shard
				}
			}
			if st := w.statuses()["overnight"]; st.State != "published" || len(st.Satisfied) != 5 {
				t.Errorf("%s: %v", st.State, st.Satisfied)
			}
			if got := w.broker.tables(); !slices.Equal(got, messagesOfANight) {
				t.Errorf("messages: %v", got)
			}
		})
	}
}

func TestShards_OneThatIsGoneIsDamageUnlessItHasExpired(t *testing.T) {
	w := sharded(t, "memory", 2)
	w.ready()
	w.converge("2026-02-03")
	names := w.snapshot().sharded
	gone := w.shard(names[0])
	if _, err := w.store.Store.Apply(t.Context(), store.DeleteIf(gone.Ref, gone.Version)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.engine.Converge(t.Context(), w.key("2026-02-03"), "m"); err == nil || !strings.Contains(err.Error(), names[0]+" is listed in") {
		t.Errorf("error %v", err)
	}
	w.clock.set(at("2027-03-20 06:00")) // more than 400 days later
	if s := w.snapshot(); !s.lost || len(s.shards) != len(names)-1 {
		t.Errorf("lost %t, %d shards", s.lost, len(s.shards))
	}
	sent := len(w.broker.got)
	var again []Report
	for _, c := range overnight() { // each shard is written again
		again = append(again, Report{run(c.Processor, "2027-03-20 06:00", count(7)), "m"})
	}
	for _, err := range w.engine.recordAll(t.Context(), w.key("2026-02-03"), again) {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.converge("2026-02-03")
	if n := len(w.broker.got) - sent; n != 0 {
		t.Errorf("%d messages of a period of which a part has expired", n)
	}
	if s := w.snapshot(); !s.lost || len(s.shards) != len(names) {
		t.Errorf("lost %t, %d shards of %d", s.lost, len(s.shards), len(names))
	}
}

// The platform deletes the documents of a period one by one. A report that comes when the period's
// document is gone and a shard is not must not bring back what was handed over.
func TestShards_LeftOfADeletedPeriodGoWithTheNextReport(t *testing.T) {
	w := sharded(t, "memory", 2)
	w.ready()
	w.converge("2026-02-03")
	for _, doc := range w.snapshot().shards {
		if end, _ := doc.Data[store.ExpiresAt].(time.Time); !end.Equal(w.head().Data[store.ExpiresAt].(time.Time)) {
			t.Errorf("%s ends %s, not with its period", doc.Ref, end)
		}
	}
	w.clock.set(at("2027-03-20 06:00"))
	sent := len(w.broker.got)
	gone := false
	w.store.before = func([]store.Write) { // after the read
		if !gone {
			gone = true
			w.remove(periodsCollection, w.key("2026-02-03").stored())
		}
	}
	w.mustDeliver(run(pgs, "2027-03-20 06:00", count(7)))
	if n := len(w.broker.got) - sent; n != 0 {
		t.Errorf("%d messages are handed over again", n)
	}
	if runs := w.snapshot().runs; len(runs) != 1 {
		t.Errorf("%d runs, of which one was reported", len(runs))
	}
}

// A shard that is full continues in a second one, without entities, and the relay says so.
func TestShards_AFullOneContinues(t *testing.T) {
	w := sharded(t, "memory", 2)
	w.mustDeliver(overnight()[:4]...)
	last := overnight()[4]
	last.Entities, last.Incremental = []string{strings.Repeat("e", 200)}, true
	name := w.engine.shard(w.key(last.Period), last.Processor, false)
	ref := w.engine.shardRef(w.key(last.Period), name)
	w.leave(ref, 100)
	before := w.head().Version
	w.record(last)
	second := w.shard(name + fullDocument)
	if !slices.Contains(runsOf(second), last.Processor) || w.head().Version == before {
		t.Errorf("%s has the runs of %v", second.Ref, runsOf(second))
	}
	if s := w.snapshot(); len(s.full()) == 0 {
		t.Error("nothing says that the period is full")
	}
	for _, c := range []wire.Completion{failed(pgs, 1), failed(last.Processor, 2)} {
		w.record(c)
	}
	w.mustDeliver(last)
	if st, got := w.statuses()["overnight"], w.broker.tables(); st.State != "published" || !slices.Equal(got, messagesOfANight) {
		t.Errorf("%s, messages: %v", st.State, got)
	}
	if w.broker.got[slices.Index(messagesOfANight, last.Processor)].Incremental {
		t.Error("a run without its entities was handed over as incremental")
	}
}

// A report that is redelivered when another definition has other shards, and those are full, is the same run.
func TestShards_AFullOneTakesNoCopyWithoutEntities(t *testing.T) {
	for _, change := range [][2]int{{1, 2}, {2, 1}} {
		w := sharded(t, "memory", change[0])
		night := overnight()
		for i := range night {
			night[i].Entities, night[i].Incremental = []string{"e"}, true
		}
		w.mustDeliver(night...)
		sent, before := len(w.broker.got), len(w.snapshot().runs)
		w.engine.shards = func(*pipeline.Transition) int { return change[1] }
		key, last := w.key("2026-02-03"), night[4]
		ref := w.engine.periodRef(key)
		if change[1] > 1 {
			ref = w.engine.shardRef(key, w.engine.shard(key, last.Processor, false))
		}
		w.stuff(ref)
		w.mustDeliver(last)
		if n := len(w.broker.got) - sent; n != 0 || len(w.snapshot().runs) != before {
			t.Errorf("shards %v: %d messages for a run that was handed over, %d runs of %d", change, n, len(w.snapshot().runs), before)
		}
	}
}

// If a period's document has no room for the names of shards, ~control lists them.
func TestShards_AFullPeriodTakesReports(t *testing.T) {
	w := sharded(t, "memory", 2)
	w.mustDeliver(overnight()[:2]...)
	w.stuff(w.engine.periodRef(w.key("2026-02-03")))
	var others []Report
	for _, c := range overnight()[2:] {
		others = append(others, Report{c, "m"})
	}
	w.clock.set(at("2026-02-04 06:03"))
	for _, err := range w.engine.recordAll(t.Context(), w.key("2026-02-03"), others) { // into both shards
		if err != nil {
			t.Fatal(err)
		}
	}
	w.converge("2026-02-03")
	if st, got := w.statuses()["overnight"], w.broker.tables(); st.State != "published" || !slices.Equal(got, messagesOfANight) {
		t.Errorf("%s, messages: %v", st.State, got)
	}
	lists := func(doc store.Doc) []string { return (&fields{doc: doc}).strings("shards") }
	if control := w.doc(periodsCollection, w.key("2026-02-03").stored()+"~control"); len(lists(control)) != 2 || len(lists(w.head())) == 0 {
		t.Errorf("the period lists the shards %v, and %s lists %v", lists(w.head()), control.Ref, lists(control))
	}
	states, err := w.engine.PeriodStates(t.Context(), w.tr, "2026-02-03", "2026-02-03")
	if err != nil || states[0].Problem != nil || len(states[0].snapshot.runs) != 5 {
		t.Errorf("%+v, %v", states, err)
	}
	if s := w.snapshot(); len(s.sharded) != len(s.shards) || len(s.shards) > 2 {
		t.Errorf("two shards are listed as %v", s.sharded)
	}
}

// The documents of a shadow end after a month. Shards that are left of a deleted period are not used then.
func TestShards_OfAShadowAreLeftAlone(t *testing.T) {
	w := sharded(t, "memory", 2)
	w.shadow()
	w.engine.shards = func(*pipeline.Transition) int { return 2 }
	w.mustDeliver(overnight()...)
	w.clock.set(at("2026-03-20 06:00"))
	ref := w.engine.periodRef(w.key("2026-02-03"))
	head := w.doc(ref.Collection, ref.ID)
	if _, err := w.store.Store.Apply(t.Context(), store.DeleteIf(head.Ref, head.Version)); err != nil {
		t.Fatal(err)
	}
	w.mustDeliver(run(pgs, "2026-03-20 06:00", count(7)))
	if runs := w.snapshot().runs; len(runs) != 1 {
		t.Errorf("%d runs, of which one was reported", len(runs))
	}
}

// Runs that a repair has found are recorded in shards, once, together with the repair's record.
func TestShards_TakeWhatARepairHasFound(t *testing.T) {
	for name, later := range map[string]time.Time{"soon": at("2026-02-04 09:00"), "late": at("2026-12-01 09:00")} {
		t.Run(name, func(t *testing.T) {
			w := sharded(t, "memory", 2)
			w.mustDeliver(overnight()[:4]...)
			w.clock.set(later)
			inner, lost := w.engine.Store, false
			w.engine.Store = answerLost{inner, func(ws []store.Write) bool {
				is := !lost && slices.ContainsFunc(ws, func(w store.Write) bool { return w.Ref.Collection == "audit" })
				lost = lost || is
				return is
			}}
			repair := Repair{Completions: overnight()[4:], Actor: "nightly", Reason: "a lost completion"}
			if err := w.engine.Repair(t.Context(), w.key("2026-02-03"), repair); err == nil || !errors.Is(err, errAnswerLost) {
				t.Errorf("error %v", err)
			}
			if err := w.engine.Repair(t.Context(), w.key("2026-02-03"), repair); err != nil {
				t.Error(err)
			}
			s := w.snapshot()
			if len(s.runs) != 5 || s.repaired == "" || len(runsOf(w.head())) != 0 {
				t.Errorf("%d runs, repaired %q, in the period %v", len(s.runs), s.repaired, runsOf(w.head()))
			}
		})
	}
}

var errAnswerLost = errors.New("the answer was lost")

// answerLost commits, and loses some answers.
type answerLost struct {
	store.Store
	lost func([]store.Write) bool
}

func (a answerLost) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	vs, err := a.Store.Apply(ctx, ws...)
	if err == nil && a.lost(ws) {
		return nil, errAnswerLost
	}
	return vs, err
}
