package reconcile_test

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// twoTransitions is a pipeline with a second transition, and a complete night of each.
func twoTransitions(t *testing.T) (w *apptest.World, first, second *pipeline.Transition) {
	t.Helper()
	w = apptest.New(t, now)
	first = w.Pipeline.Transitions[0]
	other := *first
	other.ID, other.CompatibilityCollection = "other", "other_completion"
	second = &other
	w.Pipeline.Transitions = append(w.Pipeline.Transitions, second)
	recorded(t, w)
	for _, name := range second.Order {
		c := wire.Completion{Processor: name, Reported: name, Period: "2026-02-03", Status: wire.StatusSuccess,
			EventTime: w.Now(), ExecutionID: name, CorrelationID: name}
		if err := w.Engine.Record(t.Context(), cycle.Key{Transition: second, Period: c.Period}, c); err != nil {
			t.Fatal(err)
		}
	}
	return w, first, second
}

func published(t *testing.T, w *apptest.World, tr *pipeline.Transition) bool {
	t.Helper()
	return w.Doc(t, "phase_triggers", tr.StoredID()+"_2026-02-03_overnight~1").Data["state"] == "published"
}

// The check of the first transition hangs until the second one has had its turn.
func TestRelay_ATransitionThatHangsKeepsNoOtherFromItsTurn(t *testing.T) {
	w, first, second := twoTransitions(t)
	turn := make(chan struct{})
	w.Engine.Check = func(ctx context.Context, key cycle.Key, _ string, _ []string) cycle.Readiness {
		if key.Transition == second {
			close(turn)
			return cycle.Readiness{Outcome: cycle.Passed}
		}
		select {
		case <-turn:
			return cycle.Readiness{Outcome: cycle.Passed}
		case <-ctx.Done():
			return cycle.Readiness{Outcome: cycle.Unknown}
		}
	}
	if rec := job(w, `{"job":"relay"}`); rec.Code != 204 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	if !published(t, w, first) || !published(t, w, second) {
		t.Errorf("published: %v, %v", published(t, w, first), published(t, w, second))
	}
}

// panicking panics when one transition's periods are listed.
type panicking struct {
	store.Store
	transition string
}

func (p panicking) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	if strings.HasPrefix(from, p.transition+"_0") || strings.HasPrefix(from, p.transition+"_2") {
		panic("nil map")
	}
	return p.Store.Scan(ctx, collection, from, to)
}

func TestRelay_ATransitionThatPanicsKeepsNoOtherFromItsTurn(t *testing.T) {
	for _, name := range []string{wire.JobRelay, wire.JobNightly} {
		w, first, second := twoTransitions(t)
		w.SetNow(now.Add(time.Hour))
		w.Engine.Store = panicking{w.Engine.Store, first.ID}
		if rec := job(w, `{"job":"`+name+`"}`); rec.Code != 503 {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
		turn := published(t, w, second)
		if name == wire.JobNightly {
			turn = slices.ContainsFunc(w.Logs.Lines("event", "report"), func(l map[string]any) bool { return l["transition"] == second.ID })
		}
		if published(t, w, first) || !turn {
			t.Errorf("%s: the first is published: %v, the second had its turn: %v", name, published(t, w, first), turn)
		}
		if beats := w.Logs.Lines("event", "heartbeat"); len(beats) > 0 {
			t.Errorf("%s: %v", name, beats)
		}
		if len(w.Logs.Lines("transition", first.ID)) == 0 {
			t.Errorf("%s: no log line names the panic", name)
		}
	}
}

// seen closes a channel when locks are read.
type seen struct {
	store.Store
	locks chan struct{}
	once  *sync.Once
}

func (s seen) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	if collection == "processing_locks" {
		s.once.Do(func() { close(s.locks) })
	}
	return s.Store.Scan(ctx, collection, from, to)
}

// The check of the transition hangs until the locks are read.
func TestRelay_ATransitionThatHangsKeepsLeakedLocksFromNothing(t *testing.T) {
	w := apptest.New(t, now)
	recorded(t, w)
	read := make(chan struct{})
	w.Locks.Store = seen{w.Locks.Store, read, &sync.Once{}}
	w.Engine.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		select {
		case <-read:
		case <-time.After(10 * time.Second):
			t.Error("the locks are not read")
		}
		return cycle.Readiness{Outcome: cycle.Passed}
	}
	if rec := job(w, `{"job":"relay"}`); rec.Code != 204 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
}
