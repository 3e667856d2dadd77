//go:build unix && !race

package cycle

import (
	"fmt"
	"iter"
	"runtime/debug"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// simKilled ends a thread whose process is dead.
type simKilled struct{}

// simStage is what a thread does with completions.
type simStage int

const (
	simWhole simStage = iota
	simRecords
	simEvaluates
)

// simThread is one request that an instance handles.
type simThread struct {
	sim       *simulation
	instance  *simInstance
	rules     *simRules
	message   *simMessage          // nil: a job, a run, or an operator's act
	stage     simStage             // of completions
	company   []*simMessage        // in the same group
	stranded  []*simMessage        // that waited for their own turn when the process died
	refused   map[*simMessage]bool // those of a group that are not acknowledged although ok
	request   *simRequest
	attempt   int
	job       string
	acts      *simAct
	writes    int
	shows     int    // writes of the compatibility document, refused ones too
	calls     int    // of the store
	requested string // the batch that it has made or taken over
	began     time.Time
	ends      time.Time // of the request
	cancel    func()
	co        *simCoroutine
	wake      time.Time
	killed    bool
	done      bool
	ok        bool // acknowledged

	claim   *simBatch      // as it was when the thread last took or renewed a claim
	seen    store.Snapshot // the last read of the period
	checked simChecked     // the last readiness check
	ids     []string       // that the broker has answered
	late    func()         // makes the call that is under way land later
}

func (th *simThread) String() string {
	if th.acts != nil {
		return fmt.Sprintf("%d:%s", th.instance.id, th.acts.kind)
	}
	if th.message == nil {
		return fmt.Sprintf("%d:%s", th.instance.id, th.job)
	}
	more := ""
	if len(th.company) > 0 {
		more = fmt.Sprintf("+%d", len(th.company))
	}
	return fmt.Sprintf("%d:%s#%d%s%s", th.instance.id, th.message.envelope.MessageID, th.attempt, more, [...]string{"", "r", "e"}[th.stage])
}

// simCoroutine runs one thread after another, so that stacks are grown once.
type simCoroutine struct {
	resume func() (bool, bool)
	stop   func()
	yield  func(bool) bool
	task   func()
}

func newSimCoroutine() *simCoroutine {
	c := &simCoroutine{}
	c.resume, c.stop = iter.Pull(func(yield func(bool) bool) {
		c.yield = yield
		for yield(true) {
			c.run()
		}
	})
	c.resume()
	return c
}

func (c *simCoroutine) run() {
	defer func() {
		if r := recover(); r != nil && r != (simKilled{}) {
			panic(r)
		}
	}()
	c.task()
}

// start makes a thread, which has not run yet.
func (s *simulation) start(th *simThread, task func() bool) *simThread {
	th.sim, th.began, th.wake, th.rules = s, s.now, s.now, th.instance.rules
	if n := len(s.idle); n > 0 {
		th.co, s.idle = s.idle[n-1], s.idle[:n-1]
	} else {
		th.co = newSimCoroutine()
	}
	th.co.task = func() { th.ok = task() }
	s.threads = append(s.threads, th)
	return th
}

// step lets one thread run to its next call, and to its end if there is none.
func (s *simulation) step(th *simThread) {
	s.current = th
	finished := s.resume(th)
	s.current = nil
	if finished {
		th.done = true
		s.threads = slices.DeleteFunc(s.threads, func(t *simThread) bool { return t == th })
		s.ended(th)
	}
}

// resume returns true when the thread has ended. A panic is a failure that ends the thread,
// and its coroutine is not used again.
func (s *simulation) resume(th *simThread) (finished bool) {
	defer func() {
		if r := recover(); r != nil {
			s.fail("%s panics: %v\n%s", th, r, debug.Stack())
			finished = true
		}
	}()
	if finished, _ = th.co.resume(); finished {
		s.idle = append(s.idle, th.co)
	}
	return finished
}

// pause gives the others a turn; the thread continues when it is chosen again.
func (th *simThread) pause() {
	if !th.co.yield(false) || th.killed {
		panic(simKilled{})
	}
}

func (th *simThread) sleep(d time.Duration) {
	th.wake = th.sim.now.Add(d)
	th.pause()
}

// abandon drops all threads, so that their coroutines can be used again.
func (s *simulation) abandon() {
	for len(s.threads) > 0 {
		s.threads[0].killed = true
		s.step(s.threads[0])
	}
}
