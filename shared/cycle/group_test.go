package cycle

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

// grouping is a world whose commits of completions can be stopped and counted.
type grouping struct {
	*world
	mu      sync.Mutex
	commits []int                                     // completions of each commit
	reads   int                                       // of the period
	during  func(commit int)                          // runs ahead of a commit, from 0
	fails   func(ctx context.Context, runs int) error // of a commit that records so many
}

func newGrouping(t *testing.T, n int) *grouping {
	w := newWorldOf(t, "memory", wide(t, n))
	w.clock.set(at("2026-02-04 06:00"))
	g := &grouping{world: w}
	w.engine.Store = g
	return g
}

func (g *grouping) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	g.mu.Lock()
	g.reads++
	g.mu.Unlock()
	return g.store.Get(ctx, refs...)
}

func (g *grouping) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	runs := 0
	for _, w := range ws {
		for _, f := range w.Fields {
			if f.Path[0] == "runs" {
				runs++
			}
		}
	}
	if c := ws[0].Ref.Collection; runs == 0 || c != periodsCollection && c != runsCollection {
		return g.store.Apply(ctx, ws...)
	}
	g.mu.Lock()
	n := len(g.commits)
	g.commits = append(g.commits, runs)
	g.mu.Unlock()
	if g.during != nil {
		g.during(n)
	}
	if g.fails != nil {
		if err := g.fails(ctx, runs); err != nil {
			return nil, err
		}
	}
	return g.store.Apply(ctx, ws...)
}

func (g *grouping) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return g.store.Scan(ctx, collection, from, to)
}

// wantNoLine waits until nothing moves any more; then no line may be left.
func (g *grouping) wantNoLine() {
	g.t.Helper()
	time.Sleep(maxPace) // fake time
	synctest.Wait()
	g.engine.groups.mu.Lock()
	defer g.engine.groups.mu.Unlock()
	if n := len(g.engine.groups.lines); n > 0 {
		g.t.Errorf("%d periods' lines do not end", n)
	}
}

func report(i int) Report {
	return Report{run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00"), fmt.Sprint("m", i)}
}

func (g *grouping) complete(ctx context.Context, r Report) (Result, error) {
	return g.engine.Complete(ctx, g.key(r.Completion.Period), r)
}

// completeGroup records a group and then evaluates what could be recorded, in one thread.
func (e *Engine) completeGroup(ctx context.Context, key Key, reports []Report) []answer {
	answers := e.recordGroup(ctx, key, reports)
	var recorded []Report
	for i, a := range answers {
		if a.err == nil {
			recorded = append(recorded, reports[i])
		}
	}
	if len(recorded) == 0 {
		return answers
	}
	evaluated := e.evaluateGroup(ctx, key, recorded)
	for i, a := range answers {
		if a.err == nil {
			answers[i], evaluated = evaluated[0], evaluated[1:]
		}
	}
	return answers
}

func TestGroup_CompletionsThatArriveDuringACommitShareTheNextOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 23
		g := newGrouping(t, n)
		first := make(chan struct{})
		g.during = func(commit int) {
			if commit == 0 {
				<-first
			}
		}
		errs := make(chan error, n)
		for i := range n {
			go func() {
				_, err := g.complete(t.Context(), report(i))
				errs <- err
			}()
			synctest.Wait() // the first is at its commit, the others wait
		}
		close(first)
		for range n {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(g.commits, []int{1, n - 1}) {
			t.Errorf("commits record %v completions", g.commits)
		}
		if len(g.broker.got) != n {
			t.Errorf("%d of %d triggers", len(g.broker.got), n)
		}
		// Before groups: 3 calls a completion and some ten for the hand-over.
		if calls := g.store.calls.Load(); calls >= 3*n {
			t.Errorf("%d calls for %d completions", calls, n)
		}
	})
}

// A readiness check may take half a minute; who counts completions in the meantime must see all.
func TestGroup_ReportDuringACheckIsRecordedAndShownBeforeTheCheckEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrouping(t, 3)
		g.engine.Check = func(context.Context, Key, string, []string) Readiness {
			time.Sleep(30 * time.Second) // fake time
			return Readiness{Outcome: Passed}
		}
		var wg sync.WaitGroup
		complete := func(i int) {
			wg.Go(func() {
				if _, err := g.complete(t.Context(), report(i)); err != nil {
					t.Errorf("completion %d: %v", i, err)
				}
			})
		}
		began := time.Now()
		complete(0)
		for i := 1; i < 3; i++ {
			time.Sleep(time.Second)
			complete(i)
			time.Sleep(2 * time.Second)
			count := g.doc("phase3_completion", "2026-02-03").Data["_completed_count"]
			if count != int64(i+1) {
				t.Errorf("%v into the check %v completions are shown, want %d", time.Since(began), count, i+1)
			}
		}
		wg.Wait()
		if len(g.broker.got) != 3 || len(g.commits) != 3 {
			t.Errorf("%d of 3 triggers, commits record %v", len(g.broker.got), g.commits)
		}
		g.wantNoLine()
	})
}

func TestGroup_RecordsByOneCommitWhatFirestoreTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 250
		g := newGrouping(t, n)
		first := make(chan struct{})
		g.during = func(commit int) {
			if commit == 0 {
				<-first
			}
		}
		away := errors.New("the store is away")
		g.fails = func(context.Context, int) error { return away } // a period of one document does not take them
		large := entities(slices.Repeat([]string{strings.Repeat("x", 490)}, 100)...)
		one := report(100).Completion
		large(&one)
		_, record := one.Record()
		most := maxCommit / len(record)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				r := report(i)
				large(&r.Completion)
				if _, err := g.complete(t.Context(), r); !errors.Is(err, away) {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(first)
		wg.Wait()
		if want := []int{1, most, most, n - 1 - 2*most}; !slices.Equal(g.commits, want) {
			t.Errorf("commits record %v completions, want %v", g.commits, want)
		}
		g.wantNoLine()
	})
}

// Five instances of the function take turns at the same documents.
func TestGroup_RecordsOfAWideTransitionKeepADistance(t *testing.T) {
	for _, tc := range []struct {
		processors int
		distance   time.Duration
	}{{5, 0}, {50, 0}, {51, 612 * time.Millisecond}, {300, 3600 * time.Millisecond}, {1200, 12 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			g := newGrouping(t, tc.processors)
			const commit = 100 * time.Millisecond
			var began []time.Duration // commits, since the first
			start, five := time.Now(), make(chan struct{})
			g.during = func(n int) {
				if began = append(began, time.Since(start)); n == 4 {
					close(five)
				}
				time.Sleep(commit) // fake time
			}
			// Two completions arrive during each commit.
			for i, done := 0, false; !done; i++ {
				go func() {
					if _, err := g.complete(t.Context(), report(i%tc.processors)); err != nil {
						t.Error(err)
					}
				}()
				select {
				case <-time.After(commit / 2):
				case <-five:
					done = true
				}
			}
			time.Sleep(3 * max(commit, tc.distance))
			late := time.Since(start)
			if _, err := g.complete(t.Context(), report(0)); err != nil {
				t.Error(err)
			}
			if last := began[len(began)-1]; last != late {
				t.Errorf("%d processors: a completion that comes when nothing has been recorded for long waits for %v", tc.processors, last-late)
			}
			g.wantNoLine()
			began = began[:len(began)-1]
			if began[0] != 0 {
				t.Errorf("%d processors: the first waits for %v", tc.processors, began[0])
			}
			if d := began[1] - began[0]; d > tc.distance+commit {
				t.Errorf("%d processors: the second group leaves %v after the first", tc.processors, d)
			}
			for i := 2; i < len(began); i++ {
				if d := began[i] - began[i-1]; d != max(tc.distance, commit) {
					t.Errorf("%d processors: a group leaves %v after the one before it, want %v", tc.processors, d, tc.distance)
				}
			}
		})
	}
}

func TestGroup_ACompletionAloneCostsTheCallsOfRecordAndConverge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, other := newGrouping(t, 2), newGrouping(t, 2)
		if _, err := one.complete(t.Context(), report(0)); err != nil {
			t.Fatal(err)
		}
		r := report(0)
		if err := other.engine.Record(t.Context(), other.key("2026-02-03"), r.Completion); err != nil {
			t.Fatal(err)
		}
		if _, err := other.engine.Converge(t.Context(), other.key("2026-02-03"), r.MessageID); err != nil {
			t.Fatal(err)
		}
		if a, b := one.store.calls.Load(), other.store.calls.Load(); a != b {
			t.Errorf("%d calls, %d without groups", a, b)
		}
	})
}

func TestGroup_ACompletionNeverWaitsForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrouping(t, 5)
		for i := range 4 {
			began := time.Now()
			if _, err := g.complete(t.Context(), report(i)); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(began); waited > 0 { // fake time
				t.Errorf("completion %d waited %v", i, waited)
			}
		}
		if len(g.commits) != 4 {
			t.Errorf("commits record %v completions", g.commits)
		}
		g.wantNoLine()
	})
}

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

// The redelivered message of a group whose process died finds its own claim, whichever of the
// group it is; a message of another group does not.
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

// 80 requests at a time is the concurrency of one instance of the function.
func TestGroup_ThreeHundredCompletionsAreEvaluatedAFewTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, atATime = 300, 80
		g := newGrouping(t, n)
		g.during = func(int) { time.Sleep(100 * time.Millisecond) } // fake time
		names := make([]string, 150)
		for i := range names {
			names[i] = fmt.Sprintf("player%05d", i)
		}
		turn := make(chan struct{}, atATime)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				turn <- struct{}{}
				defer func() { <-turn }()
				r := report(i)
				r.Completion.Entities, r.Completion.Incremental = names, true
				if _, err := g.complete(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(g.commits) > 15 {
			t.Errorf("%d groups for %d completions: %v", len(g.commits), n, g.commits)
		}
		if got := len(slices.Compact(sorted(g.broker.tables()))); got != n {
			t.Errorf("triggers for %d of %d processors", got, n)
		}
		g.wantNoLine()
	})
}

// Notifications go out with the answer of one request: it must still wait then.
func TestGroup_CyclesAreAnsweredToOneMemberThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrouping(t, 4)
		commits := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
		g.during = func(commit int) { <-commits[commit] }
		var seen []int
		var mu sync.Mutex
		gone, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 4 {
			ctx := t.Context()
			if i == 1 {
				ctx = gone
			}
			wg.Go(func() {
				r, err := g.complete(ctx, report(i))
				if (err != nil) != (i == 1) {
					t.Errorf("completion %d: %v", i, err)
				}
				if len(r.Cycles) > 0 {
					mu.Lock()
					defer mu.Unlock()
					seen = append(seen, i)
				}
			})
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		for _, commit := range commits {
			close(commit)
			synctest.Wait() // its evaluation has ended
		}
		wg.Wait()
		if slices.Sort(seen); !slices.Equal(seen, []int{0, 2}) {
			t.Errorf("the cycles were answered to %v", seen)
		}
	})
}
