package cycle

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

// wantNoLine waits until all goroutines are blocked, and checks that no line is left.
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
