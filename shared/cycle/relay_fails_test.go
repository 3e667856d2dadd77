package cycle

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/store"
)

// If the relay cannot read since when periods are managed, it reports no silent period as overdue.
func TestRelay_ExpectsNothingWhereTheDayOfAdoptionIsUnread(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 23:30"))
	w.relay() // the deployment's first
	w.mustDeliver(run(pgs, "2026-02-03 23:00"))
	w.clock.set(at("2026-02-06 11:00"))
	unread := errors.New("the store is away")
	w.engine.Store = watchless{w.engine.Store, unread}
	if err := w.engine.Relay(context.Background(), w.tr, "relay", nil); !errors.Is(err, unread) {
		t.Errorf("%v", err)
	}
	for _, c := range w.overdue() {
		if !strings.HasPrefix(c, "2026-02-03 ") {
			t.Errorf("%s is overdue", c)
		}
	}
	w.engine.Store = w.store
	if w.relay(); len(w.overdue()) < 2 {
		t.Error("no silent period is overdue: this test says nothing")
	}
}

// watchless is a store that cannot read the list of watched periods.
type watchless struct {
	store.Store
	err error
}

func (l watchless) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	if strings.HasSuffix(refs[0].ID, "~watch") {
		return store.Snapshot{}, l.err
	}
	return l.Store.Get(ctx, refs...)
}

func TestRelay_NamesUnreadablePeriodAndProcessesOthers(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	for _, p := range []string{"2026-01-25", "2026-01-30"} { // before the window, and in it
		ref := store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4_" + p}
		if _, err := w.store.Apply(context.Background(), store.Merge(ref, store.F("x", "runs"))); err != nil {
			t.Fatal(err)
		}
	}
	err := w.engine.Relay(context.Background(), w.tr, "relay", nil)
	if err == nil || !strings.Contains(err.Error(), "2026-01-30") || strings.Contains(err.Error(), "2026-01-25") {
		t.Errorf("%v", err)
	}
	if len(w.broker.got) != 5 {
		t.Errorf("%d messages", len(w.broker.got))
	}
	if lines := w.lines("type", "unknown"); len(lines) != 1 || lines[0]["period"] != "2026-01-25" {
		t.Errorf("%v", lines)
	}
}

// A store that does not answer says nothing about old periods: the relay fails, and names none.
func TestRelay_StoreThatFailsLeavesNoPeriodUnfinished(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.engine.Store = unanswering{w.engine.Store}
	if err := w.engine.Relay(context.Background(), w.tr, "relay", nil); !errors.Is(err, errAway) {
		t.Errorf("%v", err)
	}
	if lines := w.events("finding"); len(lines) > 0 {
		t.Errorf("%v", lines)
	}
}

var errAway = errors.New("the store is away")

type unanswering struct{ store.Store }

func (unanswering) Get(context.Context, ...store.Ref) (store.Snapshot, error) {
	return store.Snapshot{}, errAway
}
