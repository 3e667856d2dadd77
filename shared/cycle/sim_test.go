//go:build unix && !race

// One goroutine at a time runs: the race detector would find nothing here.

package cycle

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var (
	simSeeds = flag.Int("sim.seeds", 10_000, "how many seeds TestSimulation plays")
	simFrom  = flag.Uint64("sim.from", 1, "the first of them")
	simOne   = flag.Uint64("sim.seed", 0, "play this seed alone, and print what happens")
)

// TestSimulation plays worlds with every kind of fault, each from a seed of its own, and
// checks every step against the rules.
func TestSimulation(t *testing.T) {
	if *simOne > 0 {
		s := simPlay(*simOne, nil, func(line string) { fmt.Println(line) })
		s.close()
		if s.problem != "" {
			t.Errorf("seed %d, %s: %s", *simOne, s.family.name, s.problem)
		}
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(2000)) // worlds are small and many
	var next atomic.Uint64
	next.Store(*simFrom)
	stop := *simFrom + uint64(*simSeeds)
	var mu sync.Mutex
	var total simTotal
	began, before := time.Now(), simUsed()
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var last *simulation
			var mine simTotal
			for {
				seed := next.Add(1) - 1
				if seed >= stop {
					break
				}
				s := simPlay(seed, last, nil)
				last = s
				mine.add(s)
				if s.problem != "" {
					next.Store(stop)
					mu.Lock()
					total.failed = append(total.failed, s)
					mu.Unlock()
				}
			}
			if last != nil {
				last.close()
			}
			mu.Lock()
			total.join(mine)
			mu.Unlock()
		})
	}
	wg.Wait()
	for _, s := range total.failed {
		t.Errorf("seed %d, %s: %s\nreplay: make sim SEED=%d", s.seed, s.family.name, s.problem, s.seed)
	}
	t.Log(total.report(time.Since(began), simUsed()-before))
}

// simUsed returns the time that this process has had a core for itself: the rate by it
// is the same on a busy machine.
func simUsed() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// simPlay plays one seed to its end.
func simPlay(seed uint64, last *simulation, trace func(string)) *simulation {
	families := simFamilies()
	s := newSimulation(seed, families[seed%uint64(len(families))], last)
	s.trace = trace
	s.scenario()
	if trace != nil {
		s.introduce()
	}
	s.play()
	s.settle()
	if s.problem == "" {
		s.end()
	}
	if s.problem == "" && s.seed%8 == 3 {
		s.afterwards()
	}
	if s.problem == "" && s.seed%4 == 1 {
		s.years()
	}
	s.abandon()
	return s
}

// simTotal adds up what many seeds did.
type simTotal struct {
	seeds, calls, batches, messages int
	faults                          [simFaultKinds]int
	most                            int
	failed                          []*simulation
}

func (t *simTotal) add(s *simulation) {
	t.seeds++
	t.calls += s.calls
	t.most = max(t.most, s.costs.most)
	t.batches += len(s.books.batches)
	t.messages += len(s.books.ids)
	for i, n := range s.faults.count {
		t.faults[i] += n
	}
}

func (t *simTotal) join(o simTotal) {
	t.seeds, t.calls, t.batches, t.messages = t.seeds+o.seeds, t.calls+o.calls, t.batches+o.batches, t.messages+o.messages
	t.most = max(t.most, o.most)
	for i, n := range o.faults {
		t.faults[i] += n
	}
}

func (t *simTotal) report(took, used time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d seeds in %.1f s, %.0f a second (%.0f for each second of a core): %d calls, %d batches, %d messages, at most %d calls of the store in one request; faults:",
		t.seeds, took.Seconds(), float64(t.seeds)/took.Seconds(), float64(t.seeds)/used.Seconds(), t.calls, t.batches, t.messages, t.most)
	for i, n := range t.faults {
		if i > 0 {
			fmt.Fprintf(&b, "\n  %8d  %s", n, simFaultNames[i])
		}
	}
	return b.String()
}
