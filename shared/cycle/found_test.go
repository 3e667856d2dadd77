package cycle

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// Faults that the simulation found; docs/explanation/robustness.md has the seeds.

// A holder whose claim has expired may only be paused. It must not write after a hold what
// it decided before.
func TestHold_AppliesToHolderResumingAfterClaimExpiry(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	checks := 0
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		if checks++; checks == 1 {
			w.pass(2 * time.Minute)
			w.hold("overnight", time.Hour)
		}
		return Readiness{Outcome: Passed}
	}
	w.converge("2026-02-03")
	if st := w.statuses()["overnight"]; st.State != "on_hold" || len(w.broker.got) != 0 {
		t.Errorf("%s (%s), %d messages", st.State, st.Reason, len(w.broker.got))
	}
	w.pass(time.Hour)
	w.relay()
	if len(w.broker.got) != 5 {
		t.Errorf("%d messages after the hold", len(w.broker.got))
	}
}

// A request that is made while a batch is publishing has no claim. The publisher of that
// batch continues with it at once, and waits for no claim to expire.
func TestTrigger_RequestBehindPublishingBatchIsUnclaimed(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.broker.fail = func(_ int, tr wire.Trigger) error {
		if tr.Batch != 1 || tr.SourceTable != five[0] {
			return nil
		}
		w.broker.mu.Unlock() // while the first message is on the wire
		defer w.broker.mu.Lock()
		if _, err := w.trigger(of(pgs)); err != nil {
			t.Error(err)
		}
		if holder := w.doc("phase_triggers", strings.Replace(overnightOne, "~1", "~2", 1)).Data["holder"]; holder != nil {
			t.Errorf("the request is held by %v", holder)
		}
		return nil
	}
	w.converge("2026-02-03")
	want := []string{"1 all_complete published [" + strings.Join(five, " ") + "]", "2 operator published [" + pgs + "]"}
	if diff := cmp.Diff(want, described(w.statuses()["overnight"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A run outside the times of all modes can count for the one mode that names its processor.
// It is no earlier run of another mode, so the projection shows the mode it counts for.
func TestProjection_RunOutsideModeTimesShowsModeItCountsFor(t *testing.T) {
	w := newWorld(t, "memory")
	before, rest, _ := strings.Cut(string(pipeline.Default()), "      - name: tomorrow\n")
	_, overnight, _ := strings.Cut(rest, "      - name: overnight\n")
	p, err := pipeline.Parse([]byte(before + "      - name: overnight\n" + overnight))
	if err != nil {
		t.Fatal(err)
	}
	w.tr = p.Transitions[0]
	w.clock.set(at("2026-02-03 18:30"))
	w.mustDeliver(run(upg, "2026-02-03 18:30"))
	if got := w.projection(); got["_mode"] != "overnight" || got["_completed_count"] != int64(1) {
		t.Errorf("_mode %q, _completed_count %v", got["_mode"], got["_completed_count"])
	}
}

// Runs that completed too late do not keep a grace period open whose quorum is not met any more.
func TestGrace_EndsIfQuorumIsNoLongerMetDespiteLateRuns(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(run(upg, "2026-02-02 17:05"), run(utg, "2026-02-02 17:06"), run(tdef, "2026-02-07 01:00"), run(toff, "2026-02-07 01:01"),
		run(pgs, "2026-02-06 23:50"))
	if st := w.statuses()["overnight"]; st.State != "grace" {
		t.Fatalf("%s: %s", st.State, st.Reason)
	}
	w.tr = changed(t, "quorum_pct: 60", "quorum_pct: 100")
	w.relay()
	if graces, _ := w.doc("phase_triggers", overnightOne).Data["graces"].(map[string]any); len(graces) != 1 || graces[w.tr.Definition()] != nil {
		t.Errorf("its grace runs on: %v", graces)
	}
	if st := w.statuses()["overnight"]; st.State == "grace" {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
	w.pass(time.Hour)
	w.relay()
	if len(w.broker.got) != 2 {
		t.Errorf("%d messages without a quorum", len(w.broker.got))
	}
	w.tr = nba(t) // under which the quorum has held since the first start
	w.relay()
	if st := w.statuses()["overnight"]; st.State != "published" {
		t.Errorf("%s: %s", st.State, st.Reason)
	}
}

// A relay finds a watched period settled, and an operator holds the period meanwhile. The
// relay must not take it off the watch list, although the hold did not have to add it.
func TestHold_WatchedPeriodOnHoldRemainsWatched(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.hold("overnight", time.Hour)
	w.release("overnight") // the period stays on the list until the next relay
	watch := store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4~watch"}
	rival, once := w.newEngine(), false
	w.store.before = func(ws []store.Write) {
		if once || ws[0].Ref != watch {
			return
		}
		once = true // the relay has evaluated every period
		if _, err := rival.Hold(context.Background(), w.key("2026-02-03"), "overnight", time.Hour, actor, "wait"); err != nil {
			t.Error(err)
		}
	}
	w.relay()
	if !once {
		t.Fatal("the relay never wrote the list")
	}
	if list, _ := w.doc(watch.Collection, watch.ID).Data["periods"].([]any); len(list) != 1 || list[0] != "2026-02-03" {
		t.Errorf("watched: %v", list)
	}
}

// answeredTwice applies the first commit that has an audit record, calls meanwhile, and
// applies the commit again, as a driver does that retries.
type answeredTwice struct {
	store.Store
	meanwhile func()
	done      bool
}

func (a *answeredTwice) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	vs, err := a.Store.Apply(ctx, ws...)
	if a.done || ws[0].Ref.Collection != "audit" {
		return vs, err
	}
	a.done = true
	a.meanwhile()
	return a.Store.Apply(ctx, ws...)
}

// A request was written, and another operator's forced request replaced it before its
// caller could read it. The error must not say that the first request was refused.
func TestTrigger_ReplacedRequestIsNotReportedAsRefused(t *testing.T) {
	w := newWorld(t, "memory")
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { return Readiness{Outcome: Failed} }
	w.ready()
	w.converge("2026-02-03")
	rival := w.newEngine()
	rival.Check = w.engine.Check
	w.engine.Store = &answeredTwice{Store: w.engine.Store, meanwhile: func() {
		r := Request{Actor: "bob@host", Reason: "mine first", Force: true, Processors: []string{upg}}
		if err := rival.convergence(w.key("2026-02-03"), "").request(context.Background(), w.mode("overnight"), r, "bobs"); err != nil {
			t.Error(err)
		}
	}}
	_, err := w.trigger(of(pgs))
	if err == nil || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "has replaced this one") {
		t.Errorf("error %v", err)
	}
	if n := len(w.audits()); n != 2 {
		t.Errorf("%d records", n)
	}
}
