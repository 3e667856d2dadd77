//go:build unix && !race

package cycle

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

// simulation is one world: instances of the real engine on one store, a broker on
// either side, and a clock. Every call that the engine makes is a point at which
// another thread may go on, and at which something may go wrong. All that happens
// follows from the seed; one goroutine at a time runs.
type simulation struct {
	seed      uint64
	rng       *rand.Rand
	now       time.Time // the server's clock
	family    *simFamily
	final     *simRules // the definition that is deployed in the end
	mem       *memory.Store
	instances []*simInstance
	threads   []*simThread
	desk      *simInstance // the operator's
	current   *simThread
	messages  []*simMessage
	events    []simEvent
	idle      []*simCoroutine
	holders   []*simThread // by the number in a holder's id
	burst     time.Time    // before which nothing comes
	calls     int
	writes    int
	unrelayed bool // the last relay of all periods has failed
	orphans   int  // threads that failed and whose work nobody brings again
	acted     bool // an operator has done something
	changed   bool // another definition was at work, too
	heldUntil time.Time
	grouped   bool     // completions that come while another is handled share the next commit
	calm      bool     // nothing goes wrong any more
	path      *simPath // of the systematic exploration, else nil
	checks    simChecks
	faults    simFaults
	full      bool       // the period's first document has hardly any room
	late      *rand.Rand // of writes and messages that land after their caller was told that they failed; nil: none does
	clocks    simClocks
	costs     simCosts
	books     simBooks
	past      simPast
	locks     simLocks
	part      int // messages of a part, 0 as usual
	problem   string
	trace     func(line string) // nil: nobody reads it
}

// simInstance is one process of the function.
type simInstance struct {
	id      int
	engine  *Engine
	rules   *simRules
	skew    time.Duration // of its clock
	stood   time.Duration // for so long its monotonic clock has stood still
	holding bool          // of the operator's: a hold or release is under way

	// Where completions are grouped: who works on a group, and who waits for the next one.
	recording, evaluating *simThread
	waiting, recorded     []*simMessage
}

// simMessage is one message of the upstream topic, until it is acknowledged.
type simMessage struct {
	*simText
	attempts int
	acked    bool
}

// simEvent is something that happens at a time.
type simEvent struct {
	at      time.Time
	message *simMessage  // delivered
	request *simRequest  // for a run
	job     string       // the relay's, comes
	act     *simAct      // an operator's
	deploy  *simInstance // runs these rules from now on
	rules   *simRules
	landing *simLanding // of a late write
	expiry  bool        // of what has expired, some is deleted
}

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
	shows     int    // writes of the compatibility document
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
	seen    store.Snapshot // the last look at the period
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

// start makes a thread; it stands before its first call.
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

// resume is true when the thread has come to its end; one that panics comes to a bad
// one, and its coroutine with it.
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

// pause gives the others a turn; the thread goes on when it is chosen again.
func (th *simThread) pause() {
	if !th.co.yield(false) || th.killed {
		panic(simKilled{})
	}
}

func (th *simThread) sleep(d time.Duration) {
	th.wake = th.sim.now.Add(d)
	th.pause()
}

// kill ends a process: whatever it was handling stops where it stands.
func (s *simulation) kill(in *simInstance) {
	for _, th := range s.threads {
		th.killed = th.killed || th.instance == in
	}
	if in.recording != nil {
		in.recording.stranded, in.waiting = in.waiting, nil
	}
	if in.evaluating != nil {
		in.evaluating.stranded, in.recorded = in.recorded, nil
	}
	s.tell("     instance %d is dead", in.id)
	s.boot(in)
}

// boot gives an instance an engine without any memory.
func (s *simulation) boot(in *simInstance) {
	var expected Expected
	if s.checks.schedule {
		expected = s.expected
	}
	in.engine = New(Config{
		Store: (*simStore)(s), Publish: s.publish, Check: s.check, Expected: expected,
		Now:   func() time.Time { return s.clock(in) },
		NewID: s.newID, Claim: simClaim, Log: simSilence,
	})
	if s.part > 0 {
		in.engine.inline, in.engine.part = s.part, s.part
	}
}

var simSilence = slog.New(slog.DiscardHandler)

const simClaim = time.Minute

func (s *simulation) newID() string {
	s.holders = append(s.holders, s.current)
	return fmt.Sprintf("h%d", len(s.holders)-1)
}

// holder returns the thread that a claim or a request belongs to.
func (s *simulation) holder(id string) *simThread {
	id, _, _ = strings.Cut(strings.TrimPrefix(id, "h"), ".")
	n, err := strconv.Atoi(id)
	if err != nil || n < 0 || n >= len(s.holders) {
		return nil
	}
	return s.holders[n]
}

// deliver hands a message to an instance, as the function handles it.
func (s *simulation) deliver(m *simMessage, in *simInstance) {
	m.attempts++
	if !s.grouped || m.hopeless {
		s.begin(in, simWhole, m)
		return
	}
	if in.waiting = append(in.waiting, m); in.recording == nil {
		s.nextGroup(in)
	}
}

func (s *simulation) begin(in *simInstance, stage simStage, m *simMessage, company ...*simMessage) *simThread {
	th := &simThread{instance: in, stage: stage, message: m, company: company, attempt: m.attempts}
	return s.start(th, func() bool { return th.handle() })
}

// nextGroup begins to record all that wait.
func (s *simulation) nextGroup(in *simInstance) {
	in.recording = nil
	if all := in.waiting; len(all) > 0 {
		in.waiting = nil
		in.recording = s.begin(in, simRecords, all[0], all[1:]...)
	}
}

// nextEvaluation begins to evaluate all that were recorded since the last one began.
func (s *simulation) nextEvaluation(in *simInstance) {
	in.evaluating = nil
	if all := in.recorded; len(all) > 0 {
		in.recorded = nil
		in.evaluating = s.begin(in, simEvaluates, all[0], all[1:]...)
	}
}

// simTimeout is how long a request may take; then its caller has gone.
const simTimeout = 2 * time.Minute

func (th *simThread) key() Key { return Key{Transition: th.rules.tr, Period: simPeriod} }

func (th *simThread) handle() bool {
	s, m, key := th.sim, th.message, th.key()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	th.ends, th.cancel = s.now.Add(simTimeout), cancel
	if m.hopeless {
		return s.quarantine(m)
	}
	all := th.messages()
	reports := make([]Report, len(all))
	for i, m := range all {
		reports[i] = Report{m.as[th.rules.version].decoded, m.envelope.MessageID}
	}
	var answers []answer
	switch e := th.instance.engine; th.stage {
	case simRecords:
		answers = e.recordGroup(ctx, key, reports)
	case simEvaluates:
		answers = e.evaluateGroup(ctx, key, reports)
	case simWhole:
		answers = e.completeGroup(ctx, key, reports)
	}
	th.refused = map[*simMessage]bool{}
	done := false
	for i, a := range answers {
		done = done || a.err == nil
		th.refused[all[i]] = a.err != nil || a.result.OwnClaim
	}
	if done && th.stage != simRecords {
		s.answered(th)
	}
	return slices.ContainsFunc(all, func(m *simMessage) bool { return !th.refused[m] })
}

// relay is the scheduler's job on an instance. Of the periods that it looks at one is inhabited.
// Most relays are of that one alone: what the scan tells of it, s.skipped tells.
func (s *simulation) relay(job string, in *simInstance, whole bool) *simThread {
	th := &simThread{instance: in, job: job}
	return s.start(th, func() (ok bool) {
		var err error
		if whole {
			s.unrelayed = true
			err = in.engine.Relay(context.Background(), th.rules.tr, job, nil)
			s.unrelayed = err != nil
		} else if !s.skipped(th) {
			c := in.engine.convergence(th.key(), job)
			c.settles = true
			_, err = c.run(context.Background())
		}
		if err == nil {
			s.answered(th)
		}
		return err == nil
	})
}

// quarantine is what the intake does with a hopeless message.
func (s *simulation) quarantine(m *simMessage) bool {
	_, err := (*simStore)(s).Apply(context.Background(), store.Create(
		store.Ref{Collection: "quarantine", ID: m.envelope.MessageID}, store.F(string(m.envelope.Data), "envelope")))
	return err == nil || errors.Is(err, store.ErrExists)
}

// abandon drops all threads, so that their coroutines can be used again.
func (s *simulation) abandon() {
	for len(s.threads) > 0 {
		s.threads[0].killed = true
		s.step(s.threads[0])
	}
}

func (s *simulation) fail(format string, args ...any) {
	if s.problem == "" {
		s.problem = fmt.Sprintf(format, args...)
		s.tell("!!!  %s", s.problem)
	}
}

func (s *simulation) tell(format string, args ...any) {
	if s.trace != nil {
		s.trace(s.now.Format("02 15:04:05.000 ") + fmt.Sprintf(format, args...))
	}
}
