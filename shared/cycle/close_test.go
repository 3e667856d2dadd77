package cycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

func (w *world) close(mode string) CloseResult {
	w.t.Helper()
	r, err := w.engine.Close(context.Background(), w.key("2026-02-03"), w.mode(mode), "ada@host", "the games were cancelled")
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// wantClosed checks that the night is closed and that nothing was handed over.
func (w *world) wantClosed() {
	w.t.Helper()
	st := w.statuses()["overnight"]
	if st.State != "closed" || !strings.HasPrefix(st.Reason, "closed by ada@host at ") || !strings.Contains(st.Reason, "the games were cancelled") || st.Due || !st.NextCheck.IsZero() || len(w.tablesOf("overnight")) != 0 {
		w.t.Errorf("%s (%s), due %v, sent %v", st.State, st.Reason, st.Due, w.tablesOf("overnight"))
	}
}

// The engine never hands over a closed cycle by itself, before or after its deadline. Reports are
// still recorded, and a person can still trigger the cycle.
func TestClose_NothingIsHandedOverByItself(t *testing.T) {
	for name, prepare := range map[string]func(w *world){
		"nothing_reported": func(*world) {},
		"waiting":          func(w *world) { w.mustDeliver(overnight()[:2]...) },
		"in_grace":         func(w *world) { w.mustDeliver(overnight()[:4]...) },
		"all_reported":     func(w *world) { w.ready() },
		"blocked": func(w *world) {
			w.engine.Check = func(context.Context, Key, string, []string) Readiness {
				return Readiness{Outcome: Failed, Reasons: []string{"coverage"}}
			}
			w.mustDeliver(overnight()...)
			w.engine.Check = Unchecked
		},
		"on_hold": func(w *world) { w.hold("overnight", time.Minute); w.ready() },
		"overdue": func(w *world) { w.clock.set(at("2026-02-04 11:00")); w.relay() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-04 06:00"))
			prepare(w)
			if r := w.close("overnight"); r.Before != nil || len(r.Publishing) > 0 {
				t.Errorf("%+v", r)
			}
			audits, batches := len(w.audits()), len(w.statuses()["overnight"].Batches)
			w.mustDeliver(overnight()...)
			for range 3 {
				w.pass(6 * time.Hour)
				w.relay()
			}
			w.wantClosed()
			if r := w.close("overnight"); r.Before == nil || len(w.audits()) != audits {
				t.Errorf("closed again: %+v, %d records", r, len(w.audits())-audits)
			}
			if slices.Contains(w.overdue(), "2026-02-03 overnight") && name != "overdue" {
				t.Error("it is logged as overdue")
			}
			if st := w.statuses()["overnight"]; len(st.Satisfied) != 5 || len(st.Batches) != batches {
				t.Errorf("recorded: %v, %d batches, were %d", st.Satisfied, len(st.Batches), batches)
			}
			b, err := w.engine.Trigger(context.Background(), w.key("2026-02-03"), w.mode("overnight"), Request{Actor: "bob", Reason: "after all", Force: true})
			if err != nil || b.State != StatePublished || len(w.tablesOf("overnight")) != 5 {
				t.Errorf("%v: %s, sent %v", err, b.State, w.tablesOf("overnight"))
			}
		})
	}
}

// A frozen batch is published although its cycle is closed meanwhile, and Close returns its name.
// A later run is not handed over.
func TestClose_BatchThatIsPublishingGoesOn(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	var r CloseResult
	w.broker.fail = func(i int, _ wire.Trigger) error {
		if i == 0 {
			r = w.close("overnight")
		}
		return nil
	}
	w.converge("2026-02-03")
	if diff := cmp.Diff([]string{overnightOne}, r.Publishing); diff != "" || len(w.broker.got) != 5 {
		t.Fatalf("publishing (-want +got):\n%s%d messages", diff, len(w.broker.got))
	}
	w.broker.fail = nil
	w.mustDeliver(run("player_game_summary", "2026-02-04 06:30", count(348)))
	w.pass(6 * time.Hour)
	w.relay()
	if st := w.statuses()["overnight"]; len(w.broker.got) != 5 || st.State != "closed" || !strings.HasSuffix(st.Reason, "; batch 1 was published") {
		t.Errorf("%s (%s), %d messages", st.State, st.Reason, len(w.broker.got))
	}
}

// A holder that has decided before the closing cannot freeze after it.
func TestClose_ReachesTheHolderOfAClaim(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	once := false
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		if !once {
			once = true
			w.close("overnight")
		}
		return Readiness{Outcome: Passed}
	}
	w.converge("2026-02-03")
	w.wantClosed()
	if holder := w.doc("phase_triggers", overnightOne).Data["holder"]; holder != "" {
		t.Errorf("claimed by %v", holder)
	}
}

func TestClose_RefusesWhatIsPublished(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(overnight()...)
	_, err := w.engine.Close(context.Background(), w.key("2026-02-03"), w.mode("overnight"), "ada", "x")
	if !errors.Is(err, ErrRefused) || len(w.audits()) != 0 {
		t.Errorf("%v, %d records", err, len(w.audits()))
	}
}

// After a forced hand-over without a missing processor the cycle is published, and not overdue.
func TestTrigger_ForcedCycleReadsPublished(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(slices.DeleteFunc(overnight(), func(c wire.Completion) bool { return c.Processor == "upcoming_player_game_context" })...)
	w.clock.set(at("2026-02-04 11:00"))
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "overdue" {
		t.Fatalf("%s: %s", st.State, st.Reason)
	}
	if _, err := w.engine.Trigger(context.Background(), w.key("2026-02-03"), w.mode("overnight"), Request{Actor: "ada", Reason: "now", Force: true}); err != nil {
		t.Fatal(err)
	}
	w.overdue()
	w.pass(24 * time.Hour)
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "published" || st.Reason != "published by ada, without upcoming_player_game_context" {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
	if got := w.overdue(); slices.Contains(got, "2026-02-03 overnight") {
		t.Errorf("overdue: %v", got)
	}
	// The late run of the missing processor is still handed over.
	w.mustDeliver(run("upcoming_player_game_context", "2026-02-05 12:00"))
	if got := w.tablesOf("overnight"); !slices.Contains(got, "upcoming_player_game_context") {
		t.Errorf("sent %v", got)
	}
}

// During the deployment of a new version, instances know a mode by either of its names.
func TestClose_HoldsUnderEitherNameOfAMode(t *testing.T) {
	old, renamed := nba(t), changed(t, "- name: overnight", late)
	mode := func(tr *pipeline.Transition) pipeline.Mode {
		i := slices.IndexFunc(tr.Modes, func(m pipeline.Mode) bool { return m.Name == "overnight" || m.Name == "late" })
		return tr.Modes[i]
	}
	for name, tc := range map[string]struct{ closing, handing *pipeline.Transition }{
		"closed_by_the_new": {renamed, old},
		"closed_by_the_old": {old, renamed},
		"two_old":           {old, old},
		"two_new":           {renamed, renamed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf(t, "memory", tc.closing)
			w.clock.set(at("2026-02-04 06:00"))
			if _, err := w.engine.Close(context.Background(), w.key("2026-02-03"), mode(tc.closing), "ada", "not wanted"); err != nil {
				t.Fatal(err)
			}
			w.tr = tc.handing
			w.mustDeliver(overnight()...)
			for _, m := range w.broker.got {
				if !strings.Contains(m.TriggerID, "_tomorrow~") {
					t.Errorf("%s is handed over", m.TriggerID)
				}
			}
			st := w.statuses()[mode(tc.handing).Name]
			if st.State != string(policy.Closed) || st.Closed == nil || st.Closed.Actor != "ada" {
				t.Errorf("%s: %s", st.State, st.Reason)
			}
		})
	}
}

// A hand-over that a person requested in a closed cycle is blocked. Then the definition changes, and
// none of its runs counts any more: the request is dropped, and the cycle stays closed.
func TestClose_HoldsWhenWhatWasAskedForCountsNoMore(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	w.close("overnight")
	w.mustDeliver(overnight()...)
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		return Readiness{Outcome: Failed, Reasons: []string{"coverage"}}
	}
	if _, err := w.engine.Trigger(ctx, w.key("2026-02-03"), w.mode("overnight"), Request{Processors: []string{pgs}, Actor: "ada", Reason: "try"}); err != nil {
		t.Fatal(err)
	}
	w.engine.Check = Unchecked
	w.tr = changed(t, boxScores("")...) // renamed without "formerly": a new processor
	w.mustDeliver(run(box, "2026-02-04 06:01"))
	w.pass(time.Hour)
	w.relay()
	if got := w.tablesOf("overnight"); len(got) > 0 {
		t.Errorf("%v are handed over", got)
	}
	if st := w.statuses()["overnight"]; st.State != "closed" {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
}
