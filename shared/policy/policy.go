// Package policy decides whether the next phase of a period may start in one mode, with which
// processors, and why. After a hand-over it decides which runs are left to hand over.
//
// All functions are pure: no clock, no I/O, no state. The same input gives the same verdict,
// on every instance and after every crash, so the engine can decide again at any time.
//
// # Counting runs
//
// A run counts for a mode that names its processor if it succeeded (success or partial), ended
// at or after the mode's counts_from, and belongs to the mode. It belongs to its own mode,
// which follows from its event time, and to any mode if no other one names the processor. A
// mode may also accept earlier runs: such a run counts if it counts for its own, earlier mode.
//
// # States of a verdict
//
//	waiting ──> grace ──> ready
//	   │          │
//	   └──────────┴─ deadline ──> overdue, or ready if the mode says hand_over
//
//	waiting  a processor is missing, or it is too early; NextCheck is the next evaluation
//	grace    the critical processors and the quorum are complete; others may still complete
//	ready    hand over Satisfied now
//	overdue  past the deadline, or too old for an automatic hand-over
//	closed   no completion is expected and none came; rows that arrive reopen the cycle
//
// # Deadlines
//
// A mode whose policy is not met at its deadline is overdue until the policy is met. A mode
// with hand_over instead hands over the complete processors at the deadline, or later as soon
// as the critical ones are complete, without quorum and grace period. Without its critical
// processors even such a cycle is overdue.
package policy

import (
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// Run is one recorded completion, which never changes. Key identifies it within its
// period.
type Run struct {
	Key string
	*wire.Completion
}

// State is the outcome of a decision.
type State string

// The states of a verdict.
const (
	Waiting State = "waiting"
	Grace   State = "grace"
	Ready   State = "ready"
	Overdue State = "overdue"
	Closed  State = "closed"
)

// Causes of a hand-over, as they stand in a trigger's trigger_reason. A hand-over
// without some optional processors is critical_plus_majority_NNpct.
const (
	AllComplete      = "all_complete"
	CriticalComplete = "critical_complete"
	LateCompletion   = "late_completion"
	SecondRun        = "second_run"
)

// Input is everything a decision depends on.
type Input struct {
	Transition *pipeline.Transition
	Mode       pipeline.Mode
	Period     pipeline.Period
	Runs       []Run     // of the whole period, any mode
	Now        time.Time // the server's read time of Runs
	GraceStart time.Time // when the grace period began; zero when it has not
	// Began holds the names that the mode expected when the cycle's first hand-over was
	// frozen, nil before that. What is late, or ran again, is judged by them: a
	// processor that the definition gains afterwards reopens nothing.
	Began []string
	// Again holds when each processor was last handed over again in this cycle, the zero
	// time where it was handed over once. What it runs then is collected for
	// Mode.SecondRunsEvery.
	Again map[string]time.Time
	// Expected tells whether the period should bring anything at all.
	Expected Expected
}

// Expected is what the schedule says of a period.
type Expected int

// What the schedule says. Only a schedule that could be read can say that nothing is to
// come.
const (
	ExpectedUnknown Expected = iota
	ExpectedSome
	ExpectedNone
)

// Empty reports whether a cycle has neither begun nor any row to hand over: only then
// does it matter whether anything is expected of its period. A run that does not say
// how many rows it wrote may have written some.
func Empty(in Input) bool {
	return in.Began == nil && !slices.ContainsFunc(Counting(in), func(r Run) bool { return r.RecordCount == nil || *r.RecordCount != 0 })
}

// Verdict is a decision with its grounds.
type Verdict struct {
	State      State     `json:"state"`
	Cause      string    `json:"cause,omitempty"`    // of Ready
	Satisfied  []string  `json:"satisfied"`          // processors with a counting run, in the order of messages
	Missing    []string  `json:"missing"`            // named by the mode, without one
	Ignored    []string  `json:"ignored"`            // reported in this mode's time, counting for no mode
	Failed     []string  `json:"failed,omitempty"`   // of Missing: the last report says failed
	TooLate    bool      `json:"too_late,omitempty"` // of Overdue: the policy is met, too long after the period
	Reason     string    `json:"reason"`
	NextCheck  time.Time `json:"next_check,omitzero"` // zero: only a further run changes anything
	Since      time.Time `json:"since,omitzero"`      // of Ready: when the policy came to be met
	Policy     string    `json:"policy"`
	Definition string    `json:"definition"` // hash of the pipeline definition
}

// Capped returns the verdict with the first [MostNames] of each list, for a document or a log line.
func (v Verdict) Capped() Verdict {
	v.Satisfied, v.Missing, v.Ignored, v.Failed = Capped(v.Satisfied), Capped(v.Missing), Capped(v.Ignored), Capped(v.Failed)
	return v
}

// Decide applies the policy of the mode to the recorded runs.
func Decide(in Input) Verdict {
	m, cal := in.Mode, in.Transition.Calendar()
	v := Verdict{Policy: policy(m), Definition: in.Transition.Definition()}
	first := map[string]time.Time{}  // processor → event time of its first counting run
	inTime := map[string]time.Time{} // of its first that may be handed over automatically
	limit := lastInTime(in)
	for _, r := range Counting(in) { // oldest first
		if _, ok := first[r.Processor]; !ok {
			first[r.Processor] = r.EventTime
		}
		if _, ok := inTime[r.Processor]; !ok && r.inTime(limit) {
			inTime[r.Processor] = r.EventTime
		}
	}
	v.Satisfied, v.Missing = partition(in.Transition.Order, m, first)
	v.Ignored = ignored(in, first)

	local := func(t time.Time) string { return clock(cal, in.Period, t) }
	notBefore, deadline := instant(cal, in.Period, m.NotBefore), instant(cal, in.Period, m.Deadline)
	sum := summary(m, v)
	complete, quorum := met(m, inTime)
	completeLate, quorumLate := met(m, first)
	var graceEnd time.Time
	if quorum {
		graceEnd = later(in.GraceStart.Add(m.Grace.After), notBefore)
	}
	handOver := m.AtDeadline == pipeline.DeadlineHandOver && !deadline.IsZero()
	if handOver {
		deadline = later(deadline, notBefore)
	}
	passed := !deadline.IsZero() && !in.Now.Before(deadline)
	atDeadline := handOver && all(m.Critical, inTime)

	switch {
	case in.Expected == ExpectedNone && Empty(in):
		v.State, v.Reason = Closed, "nothing is expected of "+string(in.Period)
		if len(first) > 0 {
			v.Reason += ", and " + join(v.Satisfied) + " brought no rows"
		}
		return v
	case complete && in.Now.Before(notBefore):
		v.State, v.NextCheck = Waiting, notBefore
		v.Reason = fmt.Sprintf("%s, not handed over before %s", sum, local(notBefore))
	case complete:
		v.State, v.Reason, v.Cause = Ready, sum, CriticalComplete
		v.Since = later(heldSince(m, inTime), notBefore)
		if len(inTime) == m.Size() {
			v.Cause = AllComplete
		}
	case quorum && !in.GraceStart.IsZero() && !in.Now.Before(graceEnd):
		v.State, v.Cause, v.Since = Ready, majority(m, inTime), graceEnd
		v.Reason = fmt.Sprintf("%s, grace ended %s", sum, local(v.Since))
	case atDeadline && passed:
		v.State, v.Cause = Ready, majority(m, inTime)
		v.Since = later(lastOf(m.Critical, inTime), deadline)
		v.Reason = fmt.Sprintf("%s, deadline %s passed: handed over without the rest", sum, local(deadline))
	case quorum && in.GraceStart.IsZero():
		v.State, v.NextCheck = Grace, sooner(later(in.Now.Add(m.Grace.After), notBefore), deadline, atDeadline)
		v.Reason = fmt.Sprintf("%s, grace of %s begins", sum, Short(m.Grace.After))
	case quorum:
		v.State, v.NextCheck = Grace, sooner(graceEnd, deadline, atDeadline)
		v.Reason = fmt.Sprintf("%s, grace until %s", sum, local(v.NextCheck))
	case completeLate || quorumLate || passed && handOver && all(m.Critical, first):
		v.State, v.TooLate = Overdue, true
		v.Reason = fmt.Sprintf("%s, but only %s, more than %s after the period: not handed over automatically",
			sum, since(heldSince(m, first), limit, local), Short(in.Transition.TriggerWithin))
	case passed:
		v.State = Overdue
		v.Reason = fmt.Sprintf("deadline %s passed: %s", local(deadline), sum)
	default:
		v.State, v.Reason, v.NextCheck = Waiting, sum, deadline
	}
	bad := BadReports(in, v.Missing)
	for _, r := range bad {
		if r.Status == wire.StatusFailed {
			v.Failed = append(v.Failed, r.Processor)
		}
	}
	if len(v.Missing) > 0 {
		v.Reason += "; missing " + ranked(m, v.Missing) + failures(bad, local)
	}
	if v.Cause != "" || complete || quorum {
		v.Reason += tooLate(v.Satisfied, first, inTime, limit, local)
	}
	return v
}

// majority is the cause of a hand-over without some optional processors.
func majority(m pipeline.Mode, done map[string]time.Time) string {
	return fmt.Sprintf("critical_plus_majority_%dpct", len(done)*100/m.Size())
}

// met tells whether processors that completed make the mode complete, and whether
// they are enough for a hand-over after the grace period.
func met(m pipeline.Mode, first map[string]time.Time) (complete, quorum bool) {
	if !all(m.Critical, first) {
		return false, false
	}
	complete = m.Complete == pipeline.CompleteCritical || len(first) == m.Size()
	return complete, m.Grace != nil && len(first)*100 >= m.Grace.QuorumPct*m.Size()
}
