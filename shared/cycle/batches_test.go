package cycle

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

// described returns one line for each batch.
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

func TestBatch_LateOptionalProcessorHasItsOwnBatch(t *testing.T) {
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

func TestSecondRuns_AreHandedOverByPolicy(t *testing.T) {
	first := run(pgs, "2026-02-04 06:03", count(280))
	for name, tc := range map[string]struct {
		second wire.Completion
		batch  string // "" means none
	}{
		"another_count":     {run(pgs, "2026-02-04 07:10", count(348)), "2 second_run published [" + pgs + "]"},
		"the_same_count":    {run(pgs, "2026-02-04 07:10", count(280)), ""},
		"named_entities":    {run(pgs, "2026-02-04 07:10", count(280), entities("lebronjames")), "2 second_run published [" + pgs + "]"},
		"the_same_message":  {first, ""},
		"failed":            {run(pgs, "2026-02-04 07:10", count(348), status(wire.StatusFailed)), ""},
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

func TestSecondRuns_SameDayOddsUpdatesTriggerNothing(t *testing.T) {
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
func TestSecondRuns_AreHandedOverOnceInAnyStateOfFirstBatch(t *testing.T) {
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
			w.broker.fail = func(int, wire.Trigger) error {
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
			w.broker.fail = func(int, wire.Trigger) error { panic("dies") }
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

func TestTrigger_MessageCombinesRunsOfProcessor(t *testing.T) {
	for name, tc := range map[string]struct {
		runs        []wire.Completion
		incremental bool
		entities    map[string][]string
	}{
		"all_incremental": {[]wire.Completion{
			run(pgs, "2026-02-04 04:00", entities("a", "b")), run(pgs, "2026-02-04 04:10", entities("b", "c"))},
			true, map[string][]string{"players": {"a", "b", "c"}}},
		"one_is_not": {[]wire.Completion{
			run(pgs, "2026-02-04 04:00", entities("a")), run(pgs, "2026-02-04 04:10")},
			false, map[string][]string{}},
		"one_is_truncated": {[]wire.Completion{
			run(pgs, "2026-02-04 04:00", entities("a")),
			run(pgs, "2026-02-04 04:10", entities("b"), func(c *wire.Completion) { c.Truncated = true })},
			false, map[string][]string{}},
		"nothing_changed": {[]wire.Completion{run(pgs, "2026-02-04 04:10", entities())}, true, map[string][]string{}},
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
			var got *wire.Trigger
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

// Completions arrive in random order, with redeliveries, broker failures and relays in
// between. Each run is handed over at most once a cycle, hand-overs end, and no run
// stays pending.
func TestHandOver_AnyRunSequenceIsHandedOverOnceAndEnds(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t, "memory")
		w.clock.set(at("2026-02-02 16:00"))
		steps := rapid.IntRange(1, 25).Draw(r, "steps")
		var all []wire.Completion
		for range steps {
			c := run(rapid.SampledFrom(five).Draw(r, "processor"), "2026-02-03 12:00")
			c.EventTime = at("2026-02-02 16:00").Add(time.Duration(rapid.IntRange(0, 44*60).Draw(r, "minute")) * time.Minute)
			c.ExecutionID = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "execution")
			n := int64(rapid.IntRange(1, 2).Draw(r, "count"))
			c.RecordCount = &n
			c.Status = rapid.SampledFrom([]wire.Status{"success", "success", "partial", "failed"}).Draw(r, "status")
			if len(all) > 0 && rapid.IntRange(0, 4).Draw(r, "redelivery") == 0 {
				c = rapid.SampledFrom(all).Draw(r, "again")
			}
			all = append(all, c)
			down := rapid.IntRange(0, 3).Draw(r, "down") == 0
			w.broker.fail = func(i int, _ wire.Trigger) error {
				if down && i%2 == 0 {
					return errBroker
				}
				return nil
			}
			_, _ = w.deliver(c) // after an error a redelivery or the relay continues
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
			in := policy.Input{Transition: w.tr, Mode: m, Period: "2026-02-03", Runs: s.runs, Now: s.now}
			pending, _ := policy.Pending(in, s.covered(m.Name))
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
