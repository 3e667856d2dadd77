//go:build unix && !race

package cycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

// simulation is one world: instances of the real engine on one store, a broker on
// either side, and a clock. At every call that the engine makes another thread may
// continue, or a fault may happen. Everything follows from the seed; one goroutine at
// a time runs.
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
	burst     time.Time    // before which no event happens
	calls     int
	writes    int
	unrelayed bool // the last relay of all periods has failed
	orphans   int  // threads that failed and whose work no redelivery repeats
	acted     bool // an operator has done something
	changed   bool // another definition was deployed, too
	heldUntil time.Time
	grouped   bool     // completions that arrive while another is handled share the next commit
	calm      bool     // nothing goes wrong any more
	path      *simPath // of the systematic exploration, else nil
	checks    simChecks
	faults    simFaults
	full      bool       // the period's first document has hardly any room
	late      *rand.Rand // of writes and messages that take effect after their caller got an error; nil: none does
	clocks    simClocks
	costs     simCosts
	books     simBooks
	past      simPast
	locks     simLocks
	part      int                          // messages of a part, 0 as usual
	shards    map[*pipeline.Transition]int // in how many a definition has the runs; 1 if it is not here
	problem   string
	trace     func(line string) // nil: there is no trace
}

// simInstance is one process of the function.
type simInstance struct {
	id      int
	engine  *Engine
	rules   *simRules
	skew    time.Duration // of its clock
	stood   time.Duration // how long its monotonic clock has stood still
	holding bool          // of the operator's: a hold or release is under way

	// With groups: the threads that work on a group, and the messages that wait for the next one.
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
	job     string       // the relay's, starts
	act     *simAct      // an operator's
	deploy  *simInstance // runs these rules from now on
	rules   *simRules
	landing *simLanding // of a late write
	expiry  bool        // of what has expired, some is deleted
}

// kill ends a process: all of its threads stop at once.
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
	in.engine.shards = s.shardsOf
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

// relay is the scheduler's job on an instance. Only one of its periods has reports, and most relays
// evaluate that one alone. In place of the scan, s.skipped says whether it is skipped.
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

// quarantine is what the intake does with an invalid message.
func (s *simulation) quarantine(m *simMessage) bool {
	_, err := (*simStore)(s).Apply(context.Background(), store.Create(
		store.Ref{Collection: "quarantine", ID: m.envelope.MessageID}, store.F(string(m.envelope.Data), "envelope")))
	return err == nil || errors.Is(err, store.ErrExists)
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
