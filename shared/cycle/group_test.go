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
)

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
		// Without groups: 3 calls for each completion, and some ten for the hand-over.
		if calls := g.store.calls.Load(); calls >= 3*n {
			t.Errorf("%d calls for %d completions", calls, n)
		}
	})
}

// A readiness check may take half a minute. A consumer that counts completions meanwhile must see all.
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
	}{{5, 0}, {50, 0}, {51, 612 * time.Millisecond}, {300, 3600 * time.Millisecond}, {1200, 14400 * time.Millisecond}, {1300, 15 * time.Second}} {
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
				t.Errorf("%d processors: the first completion after a long pause waits for %v", tc.processors, last-late)
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

// Notifications go out with the answer of one request: that request must still be waiting.
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
