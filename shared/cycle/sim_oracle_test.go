//go:build unix && !race

package cycle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

// The oracle derives the expected result from the rules and the runs alone. It shares no
// code with gate and engine but the encoding of a trigger's JSON.

// own is the index of the mode in whose time a run fell, len(modes) for none.
func (r *simRules) own(run *simRun) int {
	relation := 0
	switch {
	case run.event.Before(r.start):
		relation = -1
	case !run.event.Before(r.end):
		relation = 1
	}
	for i, m := range r.modes {
		if m.relation == relation {
			return i
		}
	}
	return len(r.modes)
}

// counts reports whether a run counts for the i-th mode.
func (r *simRules) counts(i int, run *simRun) bool {
	own := r.own(run)
	return r.itself(i, run) || own < i && slices.Contains(r.modes[i].earlier, run.processor) && r.itself(own, run)
}

// itself reports whether a run counts for the i-th mode without being an earlier one's.
func (r *simRules) itself(i int, run *simRun) bool {
	m := &r.modes[i]
	if !run.succeeded() || !slices.Contains(m.names(), run.processor) || run.event.Before(r.start.Add(m.from)) {
		return false
	}
	alone := true
	for j, other := range r.modes {
		alone = alone && (j == i || !slices.Contains(other.names(), run.processor))
	}
	return r.own(run) == i || alone
}

// inTime reports whether a run may be handed over without a person.
func (r *simRules) inTime(run *simRun) bool { return !run.event.After(r.end.Add(simWithin)) }

// complete returns how far a mode is complete: its processors with a run that counts in time.
func (r *simRules) complete(i int, runs []*simRun) (done []string, complete, quorum bool) {
	m := &r.modes[i]
	for _, p := range r.order {
		if slices.ContainsFunc(runs, func(run *simRun) bool { return run.processor == p && r.counts(i, run) && r.inTime(run) }) {
			done = append(done, p)
		}
	}
	for _, p := range m.critical {
		if !slices.Contains(done, p) {
			return done, false, false
		}
	}
	size := len(m.critical) + len(m.optional)
	return done, !m.all || len(done) == size, m.quorum > 0 && len(done)*100 >= m.quorum*size
}

// met reports whether the runs of a mode let it begin at an instant. grace is when its
// grace period began, zero while it has not.
func (r *simRules) met(i int, runs []*simRun, now, grace time.Time) (met bool, why string) {
	m := &r.modes[i]
	done, complete, quorum := r.complete(i, runs)
	critical := !slices.ContainsFunc(m.critical, func(p string) bool { return !slices.Contains(done, p) })
	switch {
	case m.notBefore != simNever && now.Before(r.start.Add(m.notBefore)):
		return false, fmt.Sprintf("it is not yet %s", r.start.Add(m.notBefore))
	case complete, critical && m.handOver && !now.Before(r.start.Add(m.deadline)):
		return true, ""
	case !quorum:
		return false, fmt.Sprintf("the policy is not met by %v", done)
	case grace.IsZero() || now.Before(grace.Add(m.grace)):
		return false, fmt.Sprintf("its grace has not ended, begun %s", grace)
	}
	return true, ""
}

// due returns the runs that the next batch of a mode has to take after those covered,
// oldest first, and whether a processor among them was never handed over. began has the
// processors that the mode expected when it began, nil before that. Further runs of a
// processor in kept are collected and not due yet.
func (r *simRules) due(i int, runs []*simRun, covered map[string]bool, began []string, kept map[string]bool) (due []*simRun, late bool) {
	for _, p := range r.order {
		if began != nil && !slices.Contains(began, p) {
			continue
		}
		var before, open []*simRun
		for _, run := range runs {
			switch {
			case run.processor != p || !r.counts(i, run):
			case covered[run.key]:
				before = append(before, run)
			case r.inTime(run):
				open = append(open, run)
			}
		}
		switch {
		case len(open) == 0:
		case len(before) == 0:
			due, late = append(due, open...), true
		case began != nil && kept[p]:
		case r.modes[i].secondRuns && slices.ContainsFunc(open, func(run *simRun) bool { return simNews(run, before) }):
			due = append(due, open...)
		}
	}
	slices.SortFunc(due, simOlder)
	return due, late
}

// simNews reports whether a run has something new, compared with the covered ones.
func simNews(run *simRun, covered []*simRun) bool {
	newest := slices.MaxFunc(covered, simOlder)
	if simSameCount(run, newest) && len(run.entities) == 0 && !run.truncated {
		return false
	}
	for _, c := range covered {
		if c.execution == run.execution && c.status == run.status && simSameCount(c, run) &&
			slices.Equal(c.entities, run.entities) && c.truncated == run.truncated {
			return false
		}
	}
	return true
}

func simSameCount(a, b *simRun) bool {
	if a.count == nil || b.count == nil {
		return a.count == b.count
	}
	return *a.count == *b.count
}

func simOlder(a, b *simRun) int {
	return cmp.Or(a.event.Compare(b.event), strings.Compare(a.key, b.key))
}

// mayFreeze says why a hand-over of exactly these runs, decided at an instant, is
// against the rules; "" when it is not.
func (r *simRules) mayFreeze(i int, visible, taken []*simRun, covered map[string]bool, began []string, kept map[string]bool, now, grace time.Time) string {
	due, _ := r.due(i, visible, covered, began, kept)
	if len(due) == 0 {
		return "there is nothing to hand over"
	}
	if !simSameRuns(due, taken) {
		return fmt.Sprintf("it takes %s, due are %s", simNames(taken), simNames(due))
	}
	if began != nil {
		return ""
	}
	_, why := r.met(i, visible, now, grace)
	return why
}

// mayGive says why a hand-over of exactly these runs, for a request that selects runs, is
// against the rules; "" when it is not.
func (r *simRules) mayGive(i int, visible, taken []*simRun, selected []string) string {
	var due []*simRun
	for _, run := range visible {
		if r.counts(i, run) && slices.Contains(selected, run.key) {
			due = append(due, run)
		}
	}
	switch {
	case len(due) == 0:
		return "there is nothing to hand over"
	case !simSameRuns(due, taken):
		return fmt.Sprintf("it takes %s, chosen are %s", simNames(taken), simNames(due))
	}
	return ""
}

func simSameRuns(a, b []*simRun) bool {
	if len(a) != len(b) {
		return false
	}
	for _, run := range a {
		if !slices.Contains(b, run) {
			return false
		}
	}
	return true
}

func simNames(runs []*simRun) string {
	var out []string
	for _, run := range runs {
		out = append(out, run.processor+"@"+run.execution)
	}
	slices.Sort(out)
	return "[" + strings.Join(out, " ") + "]"
}

// cause is the trigger_reason of a batch that the policy causes.
func (r *simRules) cause(i int, visible []*simRun, covered map[string]bool, began []string) string {
	if began != nil {
		if _, late := r.due(i, visible, covered, began, nil); late {
			return "late_completion"
		}
		return "second_run"
	}
	m := &r.modes[i]
	done, complete, _ := r.complete(i, visible)
	size := len(m.critical) + len(m.optional)
	switch {
	case len(done) == size:
		return "all_complete"
	case complete:
		return "critical_complete"
	}
	return fmt.Sprintf("critical_plus_majority_%dpct", len(done)*100/size)
}

func simSource(cause string) string {
	if cause == "operator" || cause == "reconciliation" {
		return cause
	}
	return "orchestrator"
}

// payload is the one message that a batch has for a processor.
func (r *simRules) payload(processor, mode, batch string, n int, cause string, taken []*simRun, now time.Time, checked Readiness) string {
	t := wire.Trigger{
		SourceTable: processor, AnalysisDate: simPeriod, GameDate: simPeriod, Success: true,
		TriggerSource: simSource(cause), TriggeredBy: "us", ParentProcessor: "Us", Timestamp: wire.Timestamp(now),
		Mode: r.modes[r.mode(mode)].shown(), TriggerReason: cause, FreshnessChecked: checked.Outcome == Passed, MinutesCoverage: checked.MinutesCoverage,
		TriggerID: batch + "/" + processor, Cycle: simID + "_" + string(simPeriod) + "_" + mode, Batch: n,
		Incremental: true, EntitiesChanged: map[string][]string{},
	}
	var entities []string
	for _, run := range taken { // oldest first
		if run.processor != processor {
			continue
		}
		t.CorrelationID, t.ParentExecution = run.correlation, run.execution
		if !run.incremental || run.truncated {
			t.Incremental = false
		}
		for _, e := range run.entities {
			if !slices.Contains(entities, e) {
				entities = append(entities, e)
			}
		}
	}
	if t.Incremental {
		t.EntitiesChanged[simKinds[processor]] = entities
	}
	raw, err := t.Encode()
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// shown is what the compatibility document has to say of the runs: each processor's
// newest run that counts anywhere, and the mode.
func (r *simRules) shown(runs []*simRun) (newest map[string]*simRun, mode int) {
	newest, mode = map[string]*simRun{}, -1
	for i := range r.modes {
		for _, run := range runs {
			if !r.counts(i, run) {
				continue
			}
			if old := newest[run.processor]; old == nil || simOlder(old, run) < 0 {
				newest[run.processor] = run
			}
			own := r.own(run)
			if own < len(r.modes) {
				mode = max(mode, own)
			}
			// A run that the mode merely accepts from earlier says nothing about the mode.
			if r.itself(i, run) {
				mode = max(mode, i)
			}
		}
	}
	return newest, mode
}
