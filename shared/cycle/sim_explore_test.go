//go:build unix && !race

package cycle

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pathtest"
)

var (
	simPreemptions = flag.Int("sim.preemptions", 1, "the most that TestEverySchedule interrupts a thread for another")
	simSchedule    = flag.String("sim.schedule", "", "replay this one schedule, LAYOUT:CHOICES, and print what happens")
)

// simLayouts are the ways in which two instances can get the completions of three processors,
// one of them (c) delivered twice. Layouts that differ by names alone are left out. Parentheses
// mark a group. In the second block an operator acts next to an instance. The operator closes
// the cycle (C), holds it (H), releases it (R), triggers the recorded runs (T) or forces a
// hand-over (F). Paths with H, R, T or F have one preemption less.
var simLayouts = [][2]string{
	{"ab", "cc"}, {"ac", "bc"}, {"ac", "cb"}, {"ca", "cb"},
	{"(ab)", "cc"}, {"(ab)c", "c"}, {"(abc)", "c"}, {"(ac)", "(bc)"}, {"c(ac)", "b"},
	{"bcc", "a"}, {"cbc", "a"}, {"ccb", "a"}, {"abc", "c"}, {"acb", "c"}, {"cab", "c"},

	{"abc", "C"}, {"abc", "CT"}, {"abc", "H"}, {"abc", "HR"}, {"abcc", "T"}, {"abc", "F"}, {"abc", "TF"}, {"abcT", "F"}, {"abcT", "HR"},
}

var simActs = map[rune]simAct{
	'C': {kind: "close"},
	'H': {kind: "hold", lasts: time.Hour}, 'R': {kind: "release"},
	'T': {kind: "trigger"}, 'F': {kind: "trigger", force: true, processors: []string{beta}},
}

// TestEverySchedule takes every path of a small world: two instances, three processors, and
// one message twice. At most one process dies, before or after any of its calls. When a
// thread ends, the other may continue or the next one begin. Besides that, one thread is
// interrupted for the other at most -sim.preemptions times.
func TestEverySchedule(t *testing.T) {
	if *simSchedule != "" {
		replaySchedule(t)
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(2000)) // worlds are small and many
	began := time.Now()
	var explored, calls atomic.Int64
	var failed sync.Map
	layouts := make(chan int, len(simLayouts))
	for i := range simLayouts {
		layouts <- i
	}
	close(layouts)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var last *simulation
			for i := range layouts {
				p := &simPath{}
				for more := true; more; more = p.Next() {
					last = simFollow(i, p, last, nil)
					explored.Add(1)
					calls.Add(int64(last.calls))
					if last.problem != "" {
						failed.Store(fmt.Sprintf("%d:%s", i, p), last.problem)
						break
					}
				}
			}
			if last != nil {
				last.close()
			}
		})
	}
	wg.Wait()
	for schedule, problem := range failed.Range {
		t.Errorf("schedule %s: %s\nreplay: make explore PREEMPTIONS=%d SCHEDULE=%s", schedule, problem, *simPreemptions, schedule)
	}
	took := time.Since(began)
	t.Logf("%d schedules with at most %d preemptions, one crash and one duplicate, %d calls, in %.1f s, %.0f a second",
		explored.Load(), *simPreemptions, calls.Load(), took.Seconds(), float64(explored.Load())/took.Seconds())
}

func replaySchedule(t *testing.T) {
	layout, choices, _ := strings.Cut(*simSchedule, ":")
	i, err := strconv.Atoi(layout)
	if err != nil || i < 0 || i >= len(simLayouts) {
		t.Fatalf("-sim.schedule=%q: LAYOUT is no number below %d", *simSchedule, len(simLayouts))
	}
	path, err := pathtest.Parse(choices)
	if err != nil {
		t.Fatalf("-sim.schedule=%q: %v", *simSchedule, err)
	}
	s := simFollow(i, &simPath{Path: path}, nil, func(line string) { fmt.Println(line) })
	s.close()
	if s.problem != "" {
		t.Errorf("schedule %s: %s", *simSchedule, s.problem)
	}
}

// simFollow plays one schedule to its end. After a crash the redelivered message finishes
// the work. A relay runs only if no redelivery follows the crash, or an operator acted.
func simFollow(layout int, p *simPath, last *simulation, trace func(string)) *simulation {
	family := simFamilies()[0]
	s := newSimulation(1, family, last)
	s.trace, s.path = trace, p
	p.restart(*simPreemptions, layout)
	s.now = s.final.start.Add(50 * time.Hour)
	s.add(0)
	s.add(0)
	for _, name := range s.final.order {
		s.messages = append(s.messages, &simMessage{simText: family.good[0][name][0]})
	}
	s.interleave(simLayouts[layout])
	s.path, s.calm = nil, true
	orphaned := p.dead != nil && !p.dead.followed()
	s.bring()
	if orphaned || s.acted {
		s.now = s.now.Add(simClaim + time.Second)
		if s.now.Before(s.heldUntil) {
			s.now = s.heldUntil
		}
		s.relay("relay", s.instances[0], false)
		s.play()
	}
	for _, m := range s.books.wire {
		s.consume(m)
	}
	if s.problem == "" {
		s.end()
	}
	s.abandon()
	return s
}

// interleave lets each instance handle its queue, one message after the other, and
// chooses at every call which of them continues.
func (s *simulation) interleave(queues [2]string) {
	var at [2]*simThread
	turn, free := 0, true // free: a switch interrupts no thread
	for s.problem == "" {
		for i := range queues {
			if at[i] == nil && len(queues[i]) > 0 {
				c := rune(queues[i][0])
				queues[i] = queues[i][1:]
				var company []*simMessage
				if c == '(' {
					members, rest, _ := strings.Cut(queues[i], ")")
					c, queues[i] = rune(members[0]), rest
					for _, other := range members[1:] {
						company = append(company, s.messages[other-'a'])
					}
				}
				if act, ok := simActs[c]; ok {
					s.desk = s.instances[i]
					at[i] = s.act(&act)
				} else {
					at[i] = s.begin(s.instances[i], simWhole, s.messages[c-'a'], company...)
				}
				s.step(at[i]) // to its first call
			}
		}
		other := 1 - turn
		switch {
		case at[0] == nil && at[1] == nil:
			return
		case at[turn] == nil:
			turn = other
		case at[other] == nil:
		case free && s.path.Choose(2) == 1:
			turn = other
		case !free && s.path.left > 0 && s.path.Choose(2) == 1:
			turn = other
			s.path.left--
		}
		th := at[turn]
		s.step(th)
		if free = th.done; free {
			at[turn] = nil
		}
	}
}

// TestSimulation_SameSeedGivesSameResult plays seeds twice and compares every line that a
// person would read.
func TestSimulation_SameSeedGivesSameResult(t *testing.T) {
	for range 50 {
		seed := 1 + rand.Uint64N(1_000_000)
		var first, second strings.Builder
		simPlay(seed, nil, func(line string) { first.WriteString(line + "\n") }).close()
		simPlay(seed, nil, func(line string) { second.WriteString(line + "\n") }).close()
		if first.String() != second.String() || first.Len() == 0 {
			t.Fatalf("seed %d took two ways:\n%s\n%s", seed, first.String(), second.String())
		}
	}
}
