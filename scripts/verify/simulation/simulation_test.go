//go:build unix && !race

package simulation

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds = flag.Int("sim.seeds", 60, "how many seeds TestSimulation plays")
	from  = flag.Uint64("sim.from", 1, "the first of them")
	one   = flag.Uint64("sim.seed", 0, "play this seed alone, and print what happens")
)

// TestSimulation plays whole systems in which calls fail, processes die and time passes. Each has its
// own seed. The test checks the outcome with rules of its own.
func TestSimulation(t *testing.T) {
	if *one > 0 {
		if w := simulate(t, *one, func(line string) { fmt.Println(line) }); w.problem != "" {
			t.Errorf("seed %d, %s: %s", *one, w.season.name, w.problem)
		}
		return
	}
	var next atomic.Uint64
	next.Store(*from)
	stop := *from + uint64(*seeds)
	var mu sync.Mutex
	var calls, runs, effects int
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1) - 1; seed < stop; seed = next.Add(1) - 1 {
					w := simulate(t, seed, nil)
					mu.Lock()
					calls, runs, effects = calls+w.calls, runs+len(w.runs), effects+len(w.effects)
					mu.Unlock()
					if w.problem != "" {
						next.Store(stop)
						t.Errorf("seed %d, %s: %s\nreplay: make systems SEED=%d", seed, w.season.name, w.problem, seed)
					}
				}
			})
		}
	})
	took := time.Since(began)
	t.Logf("%d seeds in %.1f s, %.0f a second: %d calls, %d runs, %d messages", *seeds, took.Seconds(), float64(*seeds)/took.Seconds(), calls, runs, effects)
}

// simulate plays one seed to its end.
func simulate(t *testing.T, seed uint64, trace func(string)) *world {
	w := newWorld(seed)
	w.trace = trace
	synctest.Test(t, func(*testing.T) {
		w.arrived = make(chan struct{}, 1)
		w.scenario()
		w.play(w.season.last.Add(12 * time.Hour))
		w.settle()
		w.end()
	})
	return w
}

// end lets every goroutine of the world end.
func (w *world) end() {
	w.problem = cmp.Or(w.problem, "-") // fail records no further problem
	for _, p := range w.processes {
		w.mu.Lock()
		p.dead = true
		for _, c := range w.waiting {
			if c.process == p {
				c.turn <- dead
			}
		}
		w.mu.Unlock()
	}
	w.waiting = nil
	time.Sleep(24 * time.Hour)
	synctest.Wait()
	if w.problem == "-" {
		w.problem = ""
	}
}

// TestSimulation_SameSeedGivesSameResult plays seeds twice and compares every line that a person
// would read.
func TestSimulation_SameSeedGivesSameResult(t *testing.T) {
	for range 8 {
		seed := 1 + rand.Uint64N(1_000_000)
		var first, second strings.Builder
		simulate(t, seed, func(line string) { first.WriteString(line + "\n") })
		simulate(t, seed, func(line string) { second.WriteString(line + "\n") })
		if first.String() != second.String() || first.Len() == 0 {
			t.Fatalf("seed %d took two ways:\n%s\n%s", seed, first.String(), second.String())
		}
	}
}
