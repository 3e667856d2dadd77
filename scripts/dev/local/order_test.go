package local

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestHandOver_CompletionsInOrderPublishOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind)
		w.phase4.answer = strict
		for i, r := range morning() {
			w.atTime(fmt.Sprintf("2026-02-04 06:%02d", i), r)
		}
		w.wantHandedOver("overnight", five...)
		w.wantPublishedOnce("overnight")
		if n := len(w.phase4.deliveries()); n != 5 {
			t.Errorf("%d deliveries, want 5", n)
		}
	})
}

func TestHandOver_DoesNotDependOnCompletionOrder(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		for range 3 {
			seed := rand.Uint64()
			t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, kind)
				rs := morning()
				rand.New(rand.NewPCG(seed, 0)).Shuffle(len(rs), func(i, j int) { rs[i], rs[j] = rs[j], rs[i] })
				for _, r := range rs {
					w.atTime("2026-02-04 06:05", r)
				}
				w.wantHandedOver("overnight", five...)
				w.wantPublishedOnce("overnight")
			})
		}
	})
}

func TestHandOver_ConcurrentCompletionsPublishOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind)
		w.atTime("2026-02-04 06:05", morning()...)
		w.exhaust() // a rival's claim answers 429
		w.wantHandedOver("overnight", five...)
		w.wantPublishedOnce("overnight")
	})
}

func TestHandOver_TripleCompletionsPublishOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind)
		w.atTime("2026-02-04 06:05", slices.Concat(morning(), morning(), morning())...)
		w.exhaust()
		w.wantHandedOver("overnight", five...)
		w.wantPublishedOnce("overnight")
		for _, p := range five {
			if n := w.runs(p); n != 1 {
				t.Errorf("%s: %d runs are recorded, want 1", p, n)
			}
		}
	})
}

// The upcoming processors do not run again for a night that is over, and the teams'
// summaries end on its evening: all of them count for the morning's hand-over.
func TestHandOver_OvernightIncludesEveningAndEarlierRuns(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind, func(o *Options) { o.Clock = NewClock(at("2026-02-02 12:00")) })
		w.atTime("2026-02-02 17:00", done(utg, "2026-02-02 17:00"))
		w.atTime("2026-02-02 17:01", done(upg, "2026-02-02 17:01"))
		w.wantHandedOver("tomorrow", upg, utg)
		w.atTime("2026-02-03 22:40", done(toff, "2026-02-03 22:40"), done(tdef, "2026-02-03 22:40"))
		w.wantHandedOver("overnight")
		w.atTime("2026-02-04 06:03", done(pgs, "2026-02-04 06:03"))
		w.exhaust()

		w.wantHandedOver("tomorrow", upg, utg)
		w.wantHandedOver("same_day")
		w.wantHandedOver("overnight", five...)
		w.wantPublishedOnce("overnight")
		if n := len(w.phase4.deliveries()); n != 7 {
			t.Errorf("%d deliveries, want 2 and 5", n)
		}
	})
}

func TestHandOver_ModesOfDateAreIndependent(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind, func(o *Options) { o.Clock = NewClock(at("2026-02-02 12:00")) })
		for _, when := range []string{"2026-02-02 17:00", "2026-02-03 10:30"} {
			w.atTime(when, done(utg, when))
			w.atTime(when, done(upg, when))
		}
		w.atTime("2026-02-04 06:05", morning()...)
		w.exhaust()
		w.wantHandedOver("tomorrow", upg, utg)
		w.wantHandedOver("same_day", upg, utg)
		w.wantHandedOver("overnight", five...)
		ids := map[string]bool{}
		for _, r := range w.phase4.accepted() {
			ids[r.Trigger.TriggerID] = true
		}
		if len(ids) != 9 {
			t.Errorf("%d trigger ids, want 9 of their own", len(ids))
		}
	})
}
