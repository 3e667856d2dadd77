package cycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// overnight is a usual night: yesterday's upcoming runs, the teams on the evening,
// the players in the morning.
func overnight() []message.Completion {
	return []message.Completion{
		run(upg, "2026-02-02 17:05"), run(utg, "2026-02-02 17:06"),
		run(toff, "2026-02-03 22:40"), run(tdef, "2026-02-03 22:41"),
		run(pgs, "2026-02-04 06:03"),
	}
}

var five = []string{pgs, tdef, toff, upg, utg}

func TestEveningTeamsMorningPlayersAndYesterdaysUpcomingMakeOneHandOver(t *testing.T) {
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

func TestAnyOrderOfArrivalHandsOverTheSame(t *testing.T) {
	morning := []message.Completion{
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

func TestRedeliveryChangesNothing(t *testing.T) {
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

// versions of every document that the engine writes.
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

func TestAFailedRunAfterASuccessfulOneChangesNothing(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()...)
	sent, projected := len(w.broker.got), w.projection()
	failed := run(pgs, "2026-02-04 06:30", status(message.StatusFailed))
	w.mustDeliver(failed, failed)
	if len(w.broker.got) != sent {
		t.Errorf("a failed run published %d messages", len(w.broker.got)-sent)
	}
	if diff := cmp.Diff(projected, w.projection()); diff != "" {
		t.Errorf("projection changed:\n%s", diff)
	}
}

func TestOneExecutionReportingAnotherCountIsTwoRuns(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(run(pgs, "2026-02-04 06:00", execution("e"), count(280)), run(pgs, "2026-02-04 06:00", execution("e"), count(348)))
	runs := w.doc("phase_periods", "phase3_to_phase4_2026-02-03").Data["runs"].(map[string]any)[pgs].(map[string]any)
	if len(runs) != 2 {
		t.Errorf("%d runs on record, want 2: %v", len(runs), runs)
	}
}

func TestACompletionThatCompletesNothingTakesThreeCalls(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	for _, c := range []message.Completion{run(tdef, "2026-02-04 06:00"), run(toff, "2026-02-04 06:01")} {
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

func TestBeforeNotBeforeACompleteCycleWaitsForTheRelay(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	cs := overnight()
	cs[4] = run(pgs, "2026-02-04 01:15")
	w.mustDeliver(cs...)
	st := w.statuses()["overnight"]
	if st.State != "waiting" || !st.NextLook.Equal(at("2026-02-04 05:00")) || !strings.Contains(st.Reason, "not handed over before 2026-02-04 05:00") {
		t.Fatalf("at 01:15: %+v", st)
	}
	w.clock.set(at("2026-02-04 04:59"))
	if err := w.engine.Relay(context.Background(), w.tr, ""); err != nil {
		t.Fatal(err)
	}
	if w.statuses()["overnight"].State != "waiting" {
		t.Fatal("handed over before 05:00")
	}
	w.clock.set(at("2026-02-04 05:00"))
	if err := w.engine.Relay(context.Background(), w.tr, ""); err != nil {
		t.Fatal(err)
	}
	if st := w.statuses()["overnight"]; st.State != "published" {
		t.Errorf("at 05:00: %+v", st)
	}
}

func TestManyCompletionsAtOnceAreAllRecordedInOneBatch(t *testing.T) {
	for _, driver := range []string{"memory", "sqlite", "firestore"} {
		for _, n := range []int{5, 23, 100, 300} {
			t.Run(fmt.Sprintf("%s/%d", driver, n), func(t *testing.T) {
				w := newWorld(t, driver)
				w.tr = wide(t, n)
				w.clock.set(at("2026-02-04 06:00"))
				var wg sync.WaitGroup
				errs := make([]error, n)
				began := time.Now()
				for i := range n {
					wg.Go(func() {
						ctx := context.Background()
						c := run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00")
						if errs[i] = w.engine.Record(ctx, w.key(c.Period), c); errs[i] == nil {
							_, errs[i] = w.engine.Converge(ctx, w.key(c.Period), fmt.Sprint("m", i))
						}
					})
				}
				wg.Wait()
				took := time.Since(began)
				for i, err := range errs {
					if err != nil {
						t.Fatalf("completion %d: %v", i, err)
					}
				}
				if got := len(slices.Compact(sorted(w.broker.tables()))); got != n || len(w.broker.got) != n {
					t.Errorf("%d messages for %d processors, want %d", len(w.broker.got), got, n)
				}
				st := w.statuses()["overnight"]
				if st.State != "published" || len(st.Batches) != 1 {
					t.Errorf("%s with %d batches", st.State, len(st.Batches))
				}
				if got := w.projection()["_completed_count"]; got != int64(n) {
					t.Errorf("projection counts %v of %d", got, n)
				}
				calls, conflicts := w.store.calls.Load(), w.store.conflicts.Load()
				t.Logf("%d completions: %d store calls, %d conflicts, in %s", n, calls, conflicts, took)
				// Three calls a completion, some ten for the hand-over, and for each conflict
				// the write that failed and one more read: a fight would take n*n.
				if most := int64(3*n + 30 + 2*int(conflicts)); calls > most || conflicts > int64(10*n) {
					t.Errorf("%d calls and %d conflicts for %d completions", calls, conflicts, n)
				}
			})
		}
	}
}

// wide is a transition of n processors that are all needed.
func wide(t testing.TB, n int) *pipeline.Transition {
	t.Helper()
	var b strings.Builder
	b.WriteString("schema: 1\nname: wide\ntime_zone: America/New_York\ncalendar: day\nkinds: {thing: things}\nphases:\n  - name: up\n    processors:\n")
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("processor_%d", i))
		fmt.Fprintf(&b, "      - {name: %s, kind: thing, table: d.t%d, date_column: day, key: [day, id], order_by: processed_at}\n", names[i], i)
	}
	b.WriteString("  - name: down\n    processors:\n      - {name: cache, kind: thing, table: d.cache, date_column: day, key: [day], order_by: processed_at}\n")
	all := "[" + strings.Join(names, ", ") + "]"
	fmt.Fprintf(&b, `transitions:
  - id: phase3_to_phase4
    upstream: {phase: up, topic: completed}
    downstream: {phase: down, topic: trigger, triggered_by: us, parent_processor: Us, order: %s}
    compatibility_collection: phase3_completion
    trigger_within: 72h
    modes:
      - {name: overnight, event: after, critical: %s, complete: all, counts_from: "00:00", second_runs: ignore}
`, all, all)
	p, err := pipeline.Parse([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return p.Transitions[0]
}

func TestF01_PublishedMeansThatTheBrokerAnsweredForEveryMessage(t *testing.T) {
	for _, lose := range []bool{false, true} {
		for broken := range 5 {
			t.Run(fmt.Sprintf("message_%d_lost_answer_%t", broken+1, lose), func(t *testing.T) {
				w := newWorld(t, "memory")
				w.clock.set(at("2026-02-04 06:00"))
				w.broker.lose = lose
				w.broker.fail = func(_ int, tr message.Trigger) error {
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
					t.Errorf("the books claim a trigger that did not happen: %v", p)
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
		t.Errorf("%d of 100 runs on record", total)
	}
	// What another tool keeps in the compatibility document stays.
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
	w.broker.fail = func(int, message.Trigger) error {
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
	if n := len(doc.Data["unexpected"].(map[string]any)); n != 5 || len(doc.Data) != 1 {
		t.Errorf("%d of 5 on record: %v", n, doc.Data)
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

func TestOneLogLineSaysWhatWasHandedOverAndHowLongItTook(t *testing.T) {
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
