package cycle

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/gate"
	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/store"
)

// described is a batch in a line.
func described(st Status) []string {
	var out []string
	for _, b := range st.Batches {
		var tables []string
		for name := range b.Messages {
			tables = append(tables, name)
		}
		out = append(out, fmt.Sprintf("%d %s %s %v", b.N, b.Cause, b.State, sorted(tables)))
	}
	return out
}

func TestALateOptionalProcessorIsHandedOverInABatchOfItsOwn(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 10:30"))
	w.mustDeliver(run(upg, "2026-02-03 10:31"), run(utg, "2026-02-03 10:45"))
	want := []string{"1 critical_complete published [" + upg + "]", "2 late_completion published [" + utg + "]"}
	if diff := cmp.Diff(want, described(w.statuses()["same_day"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p := w.projection(); p["_trigger_reason"] != "critical_complete" || p["_trigger_succeeded"] != true || p["_mode"] != "same_day" {
		t.Errorf("projection %v", p)
	}
}

func TestSecondRunsAreHandedOverAsThePolicySays(t *testing.T) {
	first := run(pgs, "2026-02-04 06:03", count(280))
	for name, tc := range map[string]struct {
		second message.Completion
		batch  string // "" means none
	}{
		"another_count":     {run(pgs, "2026-02-04 07:10", count(348)), "2 second_run published [" + pgs + "]"},
		"the_same_count":    {run(pgs, "2026-02-04 07:10", count(280)), ""},
		"named_entities":    {run(pgs, "2026-02-04 07:10", count(280), entities("lebronjames")), "2 second_run published [" + pgs + "]"},
		"the_same_message":  {first, ""},
		"failed":            {run(pgs, "2026-02-04 07:10", count(348), status(message.StatusFailed)), ""},
		"older_other_count": {run(pgs, "2026-02-04 05:30", count(100)), "2 second_run published [" + pgs + "]"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-02 17:00"))
			w.mustDeliver(append(overnight()[:4], first)...)
			w.mustDeliver(tc.second, tc.second)
			want := []string{"1 all_complete published " + fmt.Sprint(five)}
			if tc.batch != "" {
				want = append(want, tc.batch)
			}
			if diff := cmp.Diff(want, described(w.statuses()["overnight"])); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOddsUpdatesOfTheSameDayTriggerNothing(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 10:30"))
	w.mustDeliver(run(upg, "2026-02-03 10:31"), run(utg, "2026-02-03 10:31"))
	sent := len(w.broker.got)
	for i := range 30 {
		w.mustDeliver(run(upg, "2026-02-03 11:00", execution(fmt.Sprint(i)), count(int64(i)), entities("x")))
	}
	if len(w.broker.got) != sent {
		t.Errorf("%d messages for odds updates", len(w.broker.got)-sent)
	}
}

// A second, changed run may arrive while the first batch is in any of its states.
func TestASecondRunIsHandedOverOnceWhateverTheFirstBatchIsDoing(t *testing.T) {
	second := run(pgs, "2026-02-04 06:04", count(348))
	for name, tc := range map[string]struct {
		disturb func(w *world)
		batches []string
	}{
		"while_it_is_being_checked": {func(w *world) {
			once := false
			w.engine.Check = func(context.Context, Key, string, []string) Readiness {
				if !once {
					once = true
					w.mustDeliver(second)
				}
				return Readiness{Outcome: Passed}
			}
			w.converge("2026-02-03")
		}, []string{"1 all_complete published " + fmt.Sprint(five), "2 second_run published [" + pgs + "]"}},
		"while_it_is_publishing": {func(w *world) {
			once := false
			w.broker.fail = func(int, message.Trigger) error {
				if !once {
					once = true
					w.broker.mu.Unlock()
					defer w.broker.mu.Lock()
					w.mustDeliver(second)
				}
				return nil
			}
			w.converge("2026-02-03")
		}, []string{"1 all_complete published " + fmt.Sprint(five), "2 second_run published [" + pgs + "]"}},
		"while_its_holder_is_dead": {func(w *world) {
			w.broker.fail = func(int, message.Trigger) error { panic("dies") }
			func() {
				defer func() { _ = recover() }()
				w.converge("2026-02-03")
			}()
			w.broker.fail = nil
			w.mustDeliver(second)
			w.pass(2 * time.Minute)
			w.converge("2026-02-03")
		}, []string{"1 all_complete published " + fmt.Sprint(five), "2 second_run published [" + pgs + "]"}},
		"while_it_is_blocked": {func(w *world) { // not frozen yet: the run joins
			w.engine.Check = func(context.Context, Key, string, []string) Readiness { return Readiness{Outcome: Failed} }
			w.converge("2026-02-03")
			w.mustDeliver(second)
			w.engine.Check = Unchecked
			w.pass(10 * time.Minute)
			w.converge("2026-02-03")
		}, []string{"1 all_complete published " + fmt.Sprint(five)}},
		"after_it_is_published": {func(w *world) {
			w.converge("2026-02-03")
			w.mustDeliver(second)
		}, []string{"1 all_complete published " + fmt.Sprint(five), "2 second_run published [" + pgs + "]"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.ready()
			tc.disturb(w)
			if diff := cmp.Diff(tc.batches, described(w.statuses()["overnight"])); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			w.eachRunOnce()
			for id, n := range w.broker.counts() {
				if n != 1 {
					t.Errorf("%s sent %d times", id, n)
				}
			}
		})
	}
}

// eachRunOnce checks that no run is in two batches of a cycle.
func (w *world) eachRunOnce() {
	w.t.Helper()
	s, err := w.engine.read(context.Background(), w.key("2026-02-03"), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for mode, bs := range s.batches {
		seen := map[string]string{}
		for _, b := range bs {
			for _, k := range b.Runs {
				if seen[k] != "" {
					w.t.Errorf("%s: run %s is in %s and %s", mode, k, seen[k], b.ID)
				}
				seen[k] = b.ID
			}
		}
	}
}

func TestAMessageUnitesTheRunsOfItsProcessor(t *testing.T) {
	for name, tc := range map[string]struct {
		runs        []message.Completion
		incremental bool
		entities    map[string][]string
	}{
		"all_incremental": {[]message.Completion{
			run(pgs, "2026-02-04 04:00", entities("a", "b")), run(pgs, "2026-02-04 04:10", entities("b", "c"))},
			true, map[string][]string{"players": {"a", "b", "c"}}},
		"one_is_not": {[]message.Completion{
			run(pgs, "2026-02-04 04:00", entities("a")), run(pgs, "2026-02-04 04:10")},
			false, map[string][]string{}},
		"one_is_truncated": {[]message.Completion{
			run(pgs, "2026-02-04 04:00", entities("a")),
			run(pgs, "2026-02-04 04:10", entities("b"), func(c *message.Completion) { c.Truncated = true })},
			false, map[string][]string{}},
		"nothing_changed": {[]message.Completion{run(pgs, "2026-02-04 04:10", entities())}, true, map[string][]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-02 17:00"))
			w.mustDeliver(overnight()[:4]...)
			for i := len(tc.runs) - 1; i >= 0; i-- { // newest first: order of arrival does not matter
				w.mustDeliver(tc.runs[i])
			}
			w.clock.set(at("2026-02-04 05:00"))
			w.converge("2026-02-03")
			var got *message.Trigger
			for i, tr := range w.broker.got {
				if tr.Mode == "overnight" && tr.SourceTable == pgs {
					got = &w.broker.got[i]
				}
			}
			if got == nil {
				t.Fatal("nothing was handed over")
			}
			if got.Incremental != tc.incremental || !cmp.Equal(got.EntitiesChanged, tc.entities) {
				t.Errorf("incremental %t, entities %v", got.Incremental, got.EntitiesChanged)
			}
			newest := tc.runs[len(tc.runs)-1]
			if got.ParentExecution != newest.ExecutionID || got.CorrelationID != newest.CorrelationID {
				t.Errorf("ids of %s, want those of the newest run %s", got.ParentExecution, newest.ExecutionID)
			}
		})
	}
}

// Whatever arrives in whatever order, with redeliveries, broker failures and relays
// in between: each run is handed over at most once a cycle, hand-overs end, and what
// is pending at the end is nothing.
func TestAnyStreamOfRunsIsHandedOverOnceAndEnds(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t, "memory")
		w.clock.set(at("2026-02-02 16:00"))
		steps := rapid.IntRange(1, 25).Draw(r, "steps")
		var all []message.Completion
		for range steps {
			c := run(rapid.SampledFrom(five).Draw(r, "processor"), "2026-02-03 12:00")
			c.EventTime = at("2026-02-02 16:00").Add(time.Duration(rapid.IntRange(0, 44*60).Draw(r, "minute")) * time.Minute)
			c.ExecutionID = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "execution")
			n := int64(rapid.IntRange(1, 2).Draw(r, "count"))
			c.RecordCount = &n
			c.Status = rapid.SampledFrom([]message.Status{"success", "success", "partial", "failed"}).Draw(r, "status")
			if len(all) > 0 && rapid.IntRange(0, 4).Draw(r, "redelivery") == 0 {
				c = rapid.SampledFrom(all).Draw(r, "again")
			}
			all = append(all, c)
			down := rapid.IntRange(0, 3).Draw(r, "down") == 0
			w.broker.fail = func(i int, _ message.Trigger) error {
				if down && i%2 == 0 {
					return errBroker
				}
				return nil
			}
			_, _ = w.deliver(c) // an error is a redelivery, or the relay's business
			if rapid.Bool().Draw(r, "time passes") {
				w.pass(time.Duration(rapid.IntRange(1, 120).Draw(r, "minutes")) * time.Minute)
			}
		}
		w.broker.fail = nil
		w.clock.set(at("2026-02-05 16:00"))
		for range 3 {
			w.pass(time.Hour)
			w.converge("2026-02-03")
		}
		before := len(w.broker.got)
		w.converge("2026-02-03")
		if len(w.broker.got) != before {
			r.Fatal("hand-overs do not end")
		}
		w.eachRunOnce()
		s, err := w.engine.read(context.Background(), w.key("2026-02-03"), nil)
		if err != nil {
			r.Fatal(err)
		}
		for _, m := range w.tr.Modes {
			bs := s.batches[m.Name]
			in := gate.Input{Transition: w.tr, Mode: m, Period: "2026-02-03", Runs: s.runs, Now: s.now}
			pending, _ := gate.Pending(in, s.covered(m.Name))
			if len(bs) > 0 && len(pending) > 0 {
				r.Fatalf("%s: %d runs pending after %d batches", m.Name, len(pending), len(bs))
			}
			if len(bs) > len(all) {
				r.Fatalf("%s: %d batches for %d runs", m.Name, len(bs), len(all))
			}
		}
		for id, n := range w.broker.counts() {
			if n > 1 {
				r.Fatalf("%s sent %d times although every answer arrived", id, n)
			}
		}
	})
}

func TestThreeModesOfADateShareOneProjection(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	type flags struct {
		Mode      any
		Count     any
		Triggered any
		Succeeded any
	}
	for _, step := range []struct {
		run  message.Completion
		want flags
	}{
		{run(utg, "2026-02-02 17:06"), flags{"tomorrow", int64(1), false, false}},
		{run(upg, "2026-02-02 17:07"), flags{"tomorrow", int64(2), true, true}},
		{run(upg, "2026-02-03 10:35"), flags{"same_day", int64(2), true, true}},
		{run(toff, "2026-02-03 22:40"), flags{"same_day", int64(3), true, true}}, // counts for overnight, whose own mode has no run yet
		{run(tdef, "2026-02-04 05:30"), flags{"overnight", int64(4), false, false}},
		{run(pgs, "2026-02-04 06:03"), flags{"overnight", int64(5), true, true}},
	} {
		w.mustDeliver(step.run)
		p := w.projection()
		got := flags{p["_mode"], p["_completed_count"], p["_triggered"], p["_trigger_succeeded"]}
		if got != step.want {
			t.Errorf("after %s: %+v, want %+v", step.run.ExecutionID, got, step.want)
		}
	}
	newest := w.projection()[upg].(map[string]any)
	if !newest["completed_at"].(time.Time).Equal(at("2026-02-03 10:35")) {
		t.Errorf("%s completed at %v", upg, newest["completed_at"])
	}
}

func TestAProjectionThatACrashLeftBehindIsCaughtUpByTheRelay(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.engine.Store = &failing{Store: w.store, collection: "phase3_completion"}
	if _, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m"); err == nil {
		t.Fatal("no error")
	}
	w.engine.Store = w.store
	if err := w.engine.Relay(context.Background(), w.tr, ""); err != nil {
		t.Fatal(err)
	}
	if p := w.projection(); p["_triggered"] != true || p["_completed_count"] != int64(5) {
		t.Errorf("projection %v", p)
	}
}

func TestWhatOtherToolsWroteIsCorrectedAndTheirOwnFieldsKept(t *testing.T) {
	w := newWorld(t, "memory")
	ref := store.Ref{Collection: "phase3_completion", ID: "2026-02-03"}
	_, err := w.store.Apply(context.Background(), store.Create(ref,
		store.F(int64(1), "_completed_count"), store.F(true, "_triggered"), store.F("x", "their_note"),
		store.F(map[string]any{"status": "success", "extra": int64(1)}, pgs)))
	if err != nil {
		t.Fatal(err)
	}
	w.clock.set(at("2026-02-03 22:00"))
	w.mustDeliver(run(toff, "2026-02-03 22:40"), run(tdef, "2026-02-03 22:41"))
	p := w.projection()
	if p["_completed_count"] != int64(2) || p["_triggered"] != false || p["their_note"] != "x" {
		t.Errorf("projection %v", p)
	}
	w.mustDeliver(run(pgs, "2026-02-04 06:00"))
	if _, there := w.projection()[pgs].(map[string]any)["extra"]; there {
		t.Error("a field that we own was merged instead of replaced")
	}
}

func TestFiftyConvergersDoNotFightOverTheProjection(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 22:40"))
	for _, name := range []string{toff, tdef} {
		c := run(name, "2026-02-03 22:40")
		if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
			t.Fatal(err)
		}
	}
	w.store.calls.Store(0)
	done := make(chan error)
	for range 50 {
		go func() {
			_, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "")
			done <- err
		}()
	}
	for range 50 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// One read each, a write that at most each tries once, and one more read for each loser.
	if n := w.store.calls.Load(); n > 150 {
		t.Errorf("%d calls by 50 convergers", n)
	}
}

func TestThreeThousandRunsOfAPeriodAreAllRecorded(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 22:40"))
	var long []string
	for i := range message.MaxEntities {
		long = append(long, fmt.Sprintf("player-number-%d", i))
	}
	ctx := context.Background()
	for i := range 3000 {
		c := run(five[i%5], "2026-02-03 22:40", execution(fmt.Sprintf("0f8fad5b-d9cb-469f-a165-%012d", i)), entities(long...))
		for range 1 + i%2 { // every other one is delivered twice
			if err := w.engine.Record(ctx, w.key(c.Period), c); err != nil {
				t.Fatalf("run %d: %v", i, err)
			}
		}
	}
	s, err := w.engine.read(ctx, w.key("2026-02-03"), nil)
	if err != nil {
		t.Fatal(err)
	}
	executions := map[string]int{}
	full := 0
	for _, r := range s.runs {
		executions[r.ExecutionID]++
		switch {
		case len(r.Entities) > 0:
			full++
		case !r.Truncated:
			t.Fatalf("%s lost its entities and does not say so", r.ExecutionID)
		}
	}
	if len(s.runs) != 3000 || len(executions) != 3000 {
		t.Errorf("%d runs of %d executions on record", len(s.runs), len(executions))
	}
	if full == 0 || full == 3000 {
		t.Errorf("%d runs with entities: the limit was not reached", full)
	}
	if n := len(w.lines("severity", "WARNING")); n == 0 {
		t.Error("no warning")
	}
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(run(pgs, "2026-02-04 06:00"))
	if st := w.statuses()["overnight"]; st.State != "published" {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
}

func TestAHandOverLargerThanADocumentGoesWithoutEntities(t *testing.T) {
	w := newWorld(t, "memory")
	w.tr = wide(t, 300)
	w.clock.set(at("2026-02-04 06:00"))
	var long []string
	for i := range message.MaxEntities {
		long = append(long, fmt.Sprintf("player-number-%d", i))
	}
	for i := range 300 {
		c := run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00", entities(long...))
		if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
			t.Fatal(err)
		}
	}
	w.converge("2026-02-03")
	if len(w.broker.got) != 300 {
		t.Fatalf("%d messages", len(w.broker.got))
	}
	if i := slices.IndexFunc(w.broker.got, func(tr message.Trigger) bool { return tr.Incremental || len(tr.EntitiesChanged) > 0 }); i >= 0 {
		t.Errorf("%+v", w.broker.got[i])
	}
}
