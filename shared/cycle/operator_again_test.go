package cycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

// A hand-over that is still publishing is finished first.
func TestTrigger_FollowsUnfinishedBatch(t *testing.T) {
	w := halfSent(t)
	w.pass(2 * time.Minute)
	if p, err := w.trigger(of(pgs)); err != nil || p.N != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	tables := w.broker.tables()
	if len(tables) != 6 || tables[5] != pgs || w.broker.got[5].Batch != 2 {
		t.Errorf("%v", tables)
	}
}

// Two requests make two hand-overs, or the second one gets an error.
func TestTrigger_RequestIsNotReplacedWithoutError(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		return Readiness{Outcome: Failed, Reasons: []string{"no rows"}}
	}
	b, err := w.trigger(of(pgs, upg))
	if err != nil || b.State != StateBlocked || !strings.Contains(b.Reason, "no rows") {
		t.Fatalf("%+v, %v", b, err)
	}
	if _, err := w.trigger(of(tdef)); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "batch 1, which ada@host asked for, is not handed over yet: readiness fail: no rows") {
		t.Errorf("%v", err)
	}
	if b, err := w.trigger(of(pgs), force); err != nil || b.N != 1 || b.State != StatePublished || len(b.Messages) != 1 {
		t.Errorf("%+v, %v", b, err)
	}
	w.engine.Check = Unchecked
	var second error
	once := false
	w.broker.fail = func(int, wire.Trigger) error {
		if !once { // frozen: the next is a batch of its own
			once = true
			_, second = w.trigger(of(tdef))
		}
		return nil
	}
	if b, err := w.trigger(of(upg)); err != nil || second != nil || b.State != StatePublished {
		t.Errorf("%+v, %v, %v", b, err, second)
	}
	w.relay()
	w.pass(2 * time.Minute)
	w.relay()
	if got := w.tablesOf("overnight"); !slices.Contains(got, tdef) || !slices.Contains(got, upg) {
		t.Errorf("%v", got)
	}
}

func TestTrigger_ReportsReplacementByForcedRequest(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	checks := 0
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		if checks++; checks == 1 {
			if _, err := w.trigger(of(tdef), force); err != nil {
				t.Error(err)
			}
		}
		return Readiness{Outcome: Passed}
	}
	if _, err := w.trigger(of(pgs, upg)); err == nil || !strings.Contains(err.Error(), "has replaced this one") {
		t.Errorf("%v", err)
	}
}

// While the broker is down, the command fails and its batch is frozen. A repeated request
// does not make another batch.
func TestTrigger_RepeatedRequestCreatesNoBatch(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()...)
	before := len(w.broker.got)
	w.broker.fail = func(int, wire.Trigger) error { return errBroker }
	if b, err := w.trigger(); !errors.Is(err, errBroker) || b.State != StatePublishing {
		t.Fatalf("%+v, %v", b, err)
	}
	for _, request := range [][]func(*Request){nil, {of(pgs)}} {
		if _, err := w.trigger(request...); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "batch 2, which ada@host asked for, is being sent with these runs") {
			t.Errorf("%v", err)
		}
	}
	w.broker.fail = nil
	w.pass(2 * time.Minute)
	w.relay()
	if n := len(w.broker.got) - before; n != 5 {
		t.Errorf("%d messages, want 5", n)
	}
}

// A repair takes its claim right before the period is too old for it, and gives it back.
func TestRepair_GivesBackItsClaimOnAPeriodThatHasBecomeOld(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		return Readiness{Outcome: Failed, Reasons: []string{"no rows"}}
	}
	w.converge("2026-02-03")
	key := w.key("2026-02-03")
	limit := key.Transition.LastInTime(key.Period)
	w.clock.set(limit.Add(-time.Second))
	batch := func() *batch {
		t.Helper()
		s, err := w.plain().read(context.Background(), key, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s.batches["overnight"][0]
	}
	claimed := false
	w.engine.Store = &answering{Store: w.store, after: func(int) error {
		if !claimed && batch().Holder != "" {
			claimed = true
			w.clock.set(limit.Add(time.Second))
		}
		return nil
	}}
	if err := w.engine.Repair(context.Background(), key, Repair{Actor: "nightly", Reason: "blocked"}); err != nil {
		t.Fatal(err)
	}
	if b := batch(); !claimed || b.Holder != "" || b.State != StateBlocked {
		t.Errorf("claimed %t; %s, held by %q", claimed, b.State, b.Holder)
	}
}
