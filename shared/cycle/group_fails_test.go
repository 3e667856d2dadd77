package cycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

func TestGroup_AFailedCommitFailsEachMemberAndNoOtherGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrouping(t, 5)
		first, away := make(chan struct{}), errors.New("the store is away")
		g.during = func(commit int) {
			if commit == 0 {
				<-first
			}
		}
		g.fails = func(_ context.Context, runs int) error {
			if runs == 3 {
				return away
			}
			return nil
		}
		errs := make([]error, 5)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { _, errs[i] = g.complete(t.Context(), report(i)) })
			synctest.Wait()
		}
		close(first)
		wg.Wait()
		_, errs[4] = g.complete(t.Context(), report(4))
		for i, err := range errs {
			if failed := i >= 1 && i <= 3; errors.Is(err, away) != failed {
				t.Errorf("completion %d: %v", i, err)
			}
		}
		g.fails = nil
		for i := 1; i <= 3; i++ { // redelivered
			if _, err := g.complete(t.Context(), report(i)); err != nil {
				t.Error(err)
			}
		}
		if len(g.broker.got) != 5 {
			t.Errorf("%d of 5 triggers", len(g.broker.got))
		}
	})
}

func TestGroup_RecordsOneByOneWhatDoesNotFitTogether(t *testing.T) {
	for _, cause := range []error{store.ErrTooLarge, store.ErrInvalid} {
		w := newGrouping(t, 4)
		w.fails = func(_ context.Context, runs int) error {
			if runs > 1 {
				return fmt.Errorf("together: %w", cause)
			}
			return nil
		}
		answers := w.engine.completeGroup(t.Context(), w.key("2026-02-03"), []Report{report(0), report(1), report(2), report(3)})
		for i, a := range answers {
			if a.err != nil {
				t.Errorf("%v, completion %d: %v", cause, i, a.err)
			}
		}
		if !slices.Equal(w.commits, []int{4, 1, 1, 1, 1}) || len(w.broker.got) != 4 {
			t.Errorf("%v: commits record %v, %d triggers", cause, w.commits, len(w.broker.got))
		}
	}
}

func TestGroup_TakesTheSameReportTwice(t *testing.T) {
	g := newGrouping(t, 2)
	again := report(0)
	again.MessageID = "copy"
	for _, a := range g.engine.completeGroup(t.Context(), g.key("2026-02-03"), []Report{report(0), again, report(1)}) {
		if a.err != nil {
			t.Error(a.err)
		}
	}
	if len(g.broker.got) != 2 || !slices.Equal(g.commits, []int{2}) {
		t.Errorf("%d triggers, commits record %v", len(g.broker.got), g.commits)
	}
}

// A process dies while it handles a group. Each message of the group finds its own claim when it
// is redelivered; a message of another group does not.
func TestGroup_EachMemberIsAnsweredForItsOwnClaim(t *testing.T) {
	g := newGrouping(t, 3)
	died := g.engine
	died.Check = func(context.Context, Key, string, []string) Readiness { panic("the process dies") }
	func() {
		defer func() { _ = recover() }()
		died.completeGroup(t.Context(), g.key("2026-02-03"), []Report{report(0), report(1), report(2)})
		t.Error("the process did not die")
	}()
	other := g.newEngine()
	for _, tc := range []struct {
		id  string
		own bool
	}{{"m0", true}, {"m1", true}, {"m2", true}, {"m3", false}} {
		r := report(1)
		r.MessageID = tc.id
		result, err := other.Complete(t.Context(), g.key("2026-02-03"), r)
		if err != nil || !result.Busy || result.OwnClaim != tc.own {
			t.Errorf("%s: %+v, %v", tc.id, result, err)
		}
	}
	g.clock.set(g.clock.now().Add(2 * time.Minute))
	if _, err := other.Complete(t.Context(), g.key("2026-02-03"), report(1)); err != nil || len(g.broker.got) != 3 {
		t.Errorf("%d of 3 triggers, %v", len(g.broker.got), err)
	}
}

func TestGroup_GoesOnWhenAMemberLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrouping(t, 2)
		first := make(chan struct{})
		g.during = func(commit int) {
			if commit == 0 {
				<-first
			}
		}
		ctx, leave := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		go func() { _, err := g.complete(ctx, report(0)); errs <- err }()
		synctest.Wait()
		leave()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("the member that left: %v", err)
		}
		go func() { _, err := g.complete(t.Context(), report(1)); errs <- err }()
		synctest.Wait()
		close(first)
		if err := <-errs; err != nil {
			t.Error(err)
		}
		if len(g.broker.got) != 2 {
			t.Errorf("%d of 2 triggers", len(g.broker.got))
		}
	})
}

func TestGroup_EndsAWorkThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrouping(t, 1)
		g.fails = func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return ctx.Err()
		}
		began := time.Now()
		if _, err := g.complete(t.Context(), report(0)); err == nil {
			t.Error("no error")
		}
		if took := time.Since(began); took > groupLimit {
			t.Errorf("answered after %v", took)
		}
	})
}

func TestGroup_APanicInOnePeriodFailsItsGroupAndHarmsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrouping(t, 1)
		g.engine.Check = func(_ context.Context, k Key, _ string, _ []string) Readiness {
			if k.Period == "2026-02-03" {
				panic("a broken check")
			}
			return Readiness{Outcome: Passed}
		}
		if _, err := g.complete(t.Context(), report(0)); err == nil || !strings.Contains(err.Error(), "a broken check") {
			t.Errorf("the period that panics: %v", err)
		}
		r := report(0)
		r.Completion.Period = pipeline.Period("2026-02-02")
		if _, err := g.complete(t.Context(), r); err != nil {
			t.Errorf("another period: %v", err)
		}
		if len(g.broker.got) != 1 || !strings.Contains(g.log.String(), "a broken check") {
			t.Errorf("%d triggers, log %s", len(g.broker.got), g.log)
		}
	})
}
