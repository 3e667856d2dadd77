//go:build !race

package guard

import (
	"flag"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/pathtest"
	"github.com/phasegate/phasegate/shared/store/memory"
)

var (
	simPreemptions = flag.Int("sim.preemptions", 1, "the most that TestEverySchedule interrupts a guard for another")
	simFaults      = flag.Int("sim.faults", 1, "the most that goes wrong in a schedule of TestEverySchedule")
	simSchedule    = flag.String("sim.schedule", "", "replay this one schedule, LAYOUT:CHOICES, and print what happens")
)

// path is one way through the tree of everything that can be chosen: who goes on at each call,
// and what goes wrong there.
type path struct {
	pathtest.Path
	left int // preemptions

	mu      sync.Mutex
	gates   []gate
	arrived chan struct{}
	current string // who went on last
}

// gate is a call that waits for its turn.
type gate struct {
	who  string
	open chan struct{}
}

// Parts of a delivery that take turns. Next to the guard its claim and its locks are renewed, each
// in a collection of its own.
const (
	partGuard   = "guard "
	partServe   = "connection"
	partService = "service"
)

// turn returns when the path lets a part of a delivery go on.
func (t *try) turn(part string) {
	if t.w.path != nil {
		t.w.path.wait(t.w, t.name+" "+part)
	}
}

// begins returns when a call of the store begins: after a random time, or in its turn. It returns
// the time at which the caller began it.
func (t *try) begins(part string) time.Time {
	if t.w.path != nil {
		began := time.Now()
		t.turn(part)
		t.alive(part)
		return began
	}
	t.alive(part)
	began := time.Now()
	t.w.pause(20 * time.Millisecond)
	return began
}

// wait returns when the path lets the part go on.
func (p *path) wait(w *world, who string) {
	g := gate{who, make(chan struct{})}
	p.mu.Lock()
	p.gates = append(p.gates, g)
	p.mu.Unlock()
	p.wake()
	select {
	case <-g.open:
	case <-w.end:
		runtime.Goexit()
	}
}

// wake ends sleep.
func (p *path) wake() {
	select {
	case p.arrived <- struct{}{}:
	default:
	}
}

// sleep returns when something has happened, and all timers of that moment have fired.
func (p *path) sleep() {
	select {
	case <-p.arrived: // of a gate that was opened since
	default:
	}
	<-p.arrived
	time.Sleep(time.Microsecond)
}

// answers takes the time of an answer of the store; on a path the turns take it.
func (t *try) answers() {
	if t.w.path == nil {
		t.w.pause(20 * time.Millisecond)
	}
}

// followed is a step of a run on a path: its guard may die there, or its connection break.
func (w *world) followed(e *execution, d time.Duration) bool {
	if d > simTTL {
		select {
		case <-time.After(3*simTTL + 7*time.Second): // at no renewal
		case <-e.gone:
		case <-w.end:
		}
	}
	w.path.wait(w, e.t.name+" "+partService)
	if w.faults > 0 && e.on {
		switch w.path.Choose(3) {
		case 1:
			w.faults, w.faulted = w.faults-1, true
			e.t.die()
		case 2:
			w.faults, w.faulted = w.faults-1, true
			e.t.breaks <- time.Now()
		}
	}
	return e.on
}

// openOne lets one of the parts that wait go on, and reports whether there was any. The one that
// went on last goes on for free; another one in its place is a preemption.
func (p *path) openOne() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.gates) == 0 {
		return false
	}
	slices.SortFunc(p.gates, func(a, b gate) int { return strings.Compare(a.who, b.who) })
	i := slices.IndexFunc(p.gates, func(g gate) bool { return g.who == p.current })
	switch n := len(p.gates); {
	case i < 0 && n > 1:
		i = p.Choose(n)
	case i < 0:
		i = 0
	case n > 1 && p.left > 0:
		if c := p.Choose(n); c > 0 {
			p.left--
			i = (i + c) % n
		}
	}
	g := p.gates[i]
	p.gates = slices.Delete(p.gates, i, i+1)
	p.current = g.who
	close(g.open)
	return true
}

// layouts are small worlds: a message, and a copy of it that comes at once. Locks wait for random
// times, so only TestSimulation plays them.
var layouts = []profile{
	{name: "sidecar"},
	{name: "parent", parent: true},
	{name: "parent_kill", parent: true, kills: true},
	{name: "sidecar_long_runs", long: true},
	{name: "parent_kill_long_runs", parent: true, kills: true, long: true},
	{name: "first_run_fails", fails: 1},
	{name: "first_run_fails_after_its_effect", fails: 1, effect: true},
	{name: "forget", forget: true},
}

// TestEverySchedule takes every path that a small world can take: two deliveries of one message at
// once, and at most -sim.faults faults, at any
// call. Wherever one part ends or waits any other may go on; beyond that a part is interrupted for another at most
// -sim.preemptions times.
func TestEverySchedule(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // a path has one order of events
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	if *simSchedule != "" {
		number, choices, _ := strings.Cut(*simSchedule, ":")
		i, err := strconv.Atoi(number)
		if err != nil || i < 0 || i >= len(layouts) {
			t.Fatalf("-sim.schedule=%q: LAYOUT is no number below %d", *simSchedule, len(layouts))
		}
		p, err := pathtest.Parse(choices)
		if err != nil {
			t.Fatalf("-sim.schedule=%q: %v", *simSchedule, err)
		}
		w := follow(t, layouts[i], &path{Path: p})
		t.Logf("%s: %v\n%s", layouts[i].name, w.wrong, strings.Join(w.log, "\n"))
		return
	}
	began, all := time.Now(), 0
	for i, layout := range layouts {
		p, n := &path{}, 0
		for more := true; more; more = p.Next() {
			n++
			if w := follow(t, layout, p); len(w.wrong) > 0 {
				t.Fatalf("schedule %d:%s, %s: %s\n%s", i, p, layout.name, w.wrong[0], strings.Join(w.log, "\n"))
			}
		}
		all += n
		t.Logf("%s: %d schedules", layout.name, n)
	}
	took := time.Since(began)
	t.Logf("%d schedules with at most %d preemptions and %d faults in %s: %.0f a second", all, *simPreemptions, *simFaults, took.Round(time.Millisecond), float64(all)/took.Seconds())
}

// follow plays one schedule.
func follow(t *testing.T, layout profile, p *path) (w *world) {
	synctest.Test(t, func(*testing.T) {
		*p = path{Path: p.Path.Restart(), left: *simPreemptions, arrived: make(chan struct{}, 1)}
		w = &world{profile: layout, path: p, store: memory.New(time.Now), end: make(chan struct{}), locks: map[string]*execution{}, faults: *simFaults}
		if layout.forget { // three calls wait for their turn where two do elsewhere
			p.left = max(0, p.left-1)
		}
		w.publish("m1", "k1", "P")
		done := make(chan bool, 3)
		begun := 0
		start := func(f func()) {
			begun++
			go func() {
				f()
				p.wake()
			}()
			synctest.Wait() // it waits for its turn before the next one begins
		}
		start(func() { w.broker(w.messages[0], done) })
		start(func() {
			w.deliver(w.copyOf(w.messages[0]))
			done <- true
		})
		if layout.forget {
			start(func() { w.forget(done) })
		}
		limit := time.Now().Add(200 * simTTL)
		defer time.AfterFunc(200*simTTL, p.wake).Stop()
		for len(w.wrong) == 0 {
			synctest.Wait()
			if p.openOne() {
				continue
			}
			if len(done) == begun {
				break
			}
			if !time.Now().Before(limit) {
				w.bad("4: no end after %s", 200*simTTL)
			}
			p.sleep()
		}
		w.atTheEnd()
		w.over = true
		close(w.end)
		time.Sleep(20 * simTTL) // every timer of a dead guard ends
		synctest.Wait()
	})
	return w
}
