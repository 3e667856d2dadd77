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
	"strings"
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

// lastInTime returns the latest event time of a run that may be handed over
// automatically.
func lastInTime(in Input) time.Time { return in.Transition.LastInTime(in.Period) }

// inTime reports whether a run may be handed over automatically.
func (r Run) inTime(limit time.Time) bool { return !r.EventTime.After(limit) && !r.FoundLate }

// Counting returns the runs that count for the mode, oldest first.
func Counting(in Input) []Run {
	out := make([]Run, 0, len(in.Runs))
	counts := counter(in.Transition, in.Mode, in.Period)
	for _, r := range in.Runs {
		if counts(r) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, Older)
	return out
}

// counter returns the test whether a run counts for a mode, with everything that is
// the same for all runs worked out once.
func counter(t *pipeline.Transition, m pipeline.Mode, p pipeline.Period) func(Run) bool {
	belongs := belonging(t, m, p)
	return func(r Run) bool { return r.Status.Counts() && belongs(r) }
}

// belonging returns the test whether a run would count for a mode, had it succeeded.
func belonging(t *pipeline.Transition, m pipeline.Mode, p pipeline.Period) func(Run) bool {
	place := placing(t, m, p)
	return func(r Run) bool { return place(r) >= accepted }
}

// place is the relation of a run to a mode, with any status.
type place int

const (
	unexpected place = iota // the mode does not name its processor
	elsewhere               // its own mode is another one, from which the mode accepts nothing
	tooEarly                // it ended before its own mode's counts_from
	accepted                // it counts for its own mode, and the mode accepts earlier runs
	own                     // the mode is its own
)

// placing returns the place of a run in a mode. It is the only place in which this rule
// stands: what counts, why a run does not, and which mode is shown follow from it.
func placing(t *pipeline.Transition, m pipeline.Mode, p pipeline.Period) func(Run) place {
	modeAt, from := t.ModesOf(p), t.Calendar().Instant(p, m.CountsFrom)
	var earlier []time.Time // counts_from of the modes before this one
	if len(m.AcceptEarlier) > 0 {
		for _, o := range t.Modes[:min(rank(t, m.Name), len(t.Modes))] {
			earlier = append(earlier, t.Calendar().Instant(p, o.CountsFrom))
		}
	}
	return func(r Run) place {
		if !m.Names(r.Processor) {
			return unexpected
		}
		at := modeAt(r.EventTime)
		if at == m.Name || !slices.ContainsFunc(t.Modes, func(o pipeline.Mode) bool {
			return o.Name != m.Name && o.Names(r.Processor)
		}) {
			if r.EventTime.Before(from) {
				return tooEarly
			}
			return own
		}
		i := rank(t, at)
		switch {
		case i >= len(earlier) || !m.AcceptsEarlier(r.Processor) || !t.Modes[i].Names(r.Processor):
			return elsewhere
		case r.EventTime.Before(earlier[i]):
			return tooEarly
		}
		return accepted
	}
}

// Own returns the test whether a counting run belongs to the mode itself, and is not
// merely accepted from an earlier one.
func Own(in Input) func(Run) bool {
	place := placing(in.Transition, in.Mode, in.Period)
	return func(r Run) bool { return place(r) == own }
}

// rank orders modes by the time in which a period lives through them. A run whose
// relation no mode declares ranks last: it is an earlier run of no mode.
func rank(t *pipeline.Transition, mode string) int {
	if i := slices.IndexFunc(t.Modes, func(m pipeline.Mode) bool { return m.Name == mode }); i >= 0 {
		return i
	}
	return len(t.Modes)
}

// Pending returns the counting runs that a further hand-over has to take. These are all uncovered
// runs of each processor that was never handed over, or that ran again with a difference that its
// consumers must see. covered holds the keys of the runs in earlier batches of the cycle. late
// tells whether one of the processors was never handed over before.
//
// Runs that came too late after the period's end to trigger anything are not pending. Neither are
// runs of a processor that the mode did not expect when the cycle's first hand-over was frozen.
//
// What a processor has run again is pending once Mode.SecondRunsEvery has passed since it
// was last handed over again; until then it is [Collected].
func Pending(in Input, covered map[string]bool) (runs []Run, late bool) {
	runs, _, late = pending(in, covered)
	return runs, late
}

// Collected returns the runs that are still collected for a further hand-over, and when
// the first of them becomes pending; the zero time when there is none.
func Collected(in Input, covered map[string]bool) (runs []Run, until time.Time) {
	_, runs, _ = pending(in, covered)
	for _, r := range runs {
		if due := in.DueAgain(r.Processor); until.IsZero() || due.Before(until) {
			until = due
		}
	}
	return runs, until
}

// DueAgain returns from when on a processor that was handed over again may be once more.
// Before the cycle has begun there is no further hand-over to keep apart.
func (in Input) DueAgain(processor string) time.Time {
	last := in.Again[processor]
	if in.Began == nil || last.IsZero() {
		return time.Time{}
	}
	return last.Add(in.Mode.SecondRunsEvery)
}

func pending(in Input, covered map[string]bool) (runs, collected []Run, late bool) {
	limit := lastInTime(in)
	type group struct{ covered, open []Run }
	groups := map[string]*group{}
	for _, r := range Counting(in) {
		g := groups[r.Processor]
		if g == nil {
			g = &group{}
			groups[r.Processor] = g
		}
		switch {
		case covered[r.Key]:
			g.covered = append(g.covered, r)
		case r.inTime(limit):
			g.open = append(g.open, r)
		}
	}
	expected := set(in.Began)
	for _, name := range in.Transition.Order {
		g := groups[name]
		switch {
		case g == nil || len(g.open) == 0:
		case in.Began != nil && !expected[name]:
		case len(g.covered) == 0:
			runs, late = append(runs, g.open...), true
		case in.Mode.SecondRuns != pipeline.SecondRunsResend || !slices.ContainsFunc(g.open, changed(g.covered)):
		case in.Now.Before(in.DueAgain(name)):
			collected = append(collected, g.open...)
		default:
			runs = append(runs, g.open...)
		}
	}
	return runs, collected, late
}

// ReportsWithin is how long after its last row a run reports, and by how much a row's
// clock may be off.
const ReportsWithin = 5 * time.Minute

// changed tells whether a run brings consumers something that the covered runs did
// not. Whole-table runs repeat often; only another count, or named entities, do.
func changed(covered []Run) func(Run) bool {
	newest := covered[len(covered)-1]
	return func(r Run) bool {
		// The report of a run whose rows were found and handed over, whole, before it came.
		if slices.ContainsFunc(covered, func(c Run) bool {
			return c.Found && !r.EventTime.Before(c.EventTime) && r.EventTime.Sub(c.EventTime) <= ReportsWithin
		}) {
			return false
		}
		if equal(r.RecordCount, newest.RecordCount) && len(r.Entities) == 0 && !r.Truncated {
			return false // most are: the covered runs need not be searched for them
		}
		return !slices.ContainsFunc(covered, func(c Run) bool { return sameReport(c, r) })
	}
}

// sameReport: one execution reported the same thing in two messages.
func sameReport(a, b Run) bool {
	return a.ExecutionID == b.ExecutionID && a.Status == b.Status && equal(a.RecordCount, b.RecordCount) &&
		slices.Equal(a.Entities, b.Entities) && a.Truncated == b.Truncated
}

func equal(a, b *int64) bool { return a == b || a != nil && b != nil && *a == *b }

// Older orders runs by event time; equal times by key, so that the order is total.
func Older(a, b Run) int {
	if c := a.EventTime.Compare(b.EventTime); c != 0 {
		return c
	}
	return strings.Compare(a.Key, b.Key)
}
