package cycle

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
)

// step is the kind of an action.
type step int

const (
	idle        step = iota // nothing is due, or another holds the claim
	askSchedule             // ask the schedule whether anything is expected of the period
	create                  // the next batch of a cycle
	updateGrace             // begin or end the grace period of a batch, because the definition changed
	claim                   // take over a batch without a live claim, or renew
	freeze                  // check readiness; fix runs and payloads, or block
	publish                 // send what has no id, write down the ids
	giveBack                // end our claim on a batch that has to wait
	trim                    // drop reports that cannot count, of which there are too many
	project                 // bring the compatibility document up to date
	settle                  // mark the period: nothing is due in it
	unsettle                // remove the mark
)

// action is what next found to be due.
type action struct {
	do      step
	mode    pipeline.Mode
	batch   *batch
	n       int // of create
	handing handing
	fields  []store.Field // of project: of the compatibility document
	sums    []store.Field // of project: of the period
	summed  []*batch      // of project: that these are the first to have
	end     *store.Field  // of project: by which the period begins or ceases to expire
	ahead   bool          // of project: more is due after it
	doc     *store.Doc    // of trim
	waits   bool          // there is a check to be made besides, for which no time is left
	mark    string        // of settle
}

// handing is what a batch would hand over now.
type handing struct {
	verdict  policy.Verdict
	runs     []policy.Run
	began    bool // the cycle's first hand-over is frozen
	selected bool // an operator selected the runs
	byPolicy policy.State
	// collects: a processor has run again, and it is too soon to hand it over again.
	collects bool
}

// next decides the one thing to do about a snapshot. It has no effects, and reads no clock.
//
// Readers of the compatibility document read it once, when they hear of a completion.
// So it shows the completion before a step that can take seconds, and before another
// instance's claim ends.
func (s *snapshot) next(by *attempt) action {
	a := s.due(by)
	switch a.do {
	case askSchedule, claim, freeze, publish:
	case create:
		if a.handing.verdict.State == policy.Grace {
			return a // it waits: the last step projects at once
		}
	case idle:
		if !s.contended(by) {
			return a
		}
	default:
		return a
	}
	if fields := s.ahead(by); fields != nil {
		return action{do: project, fields: fields, ahead: true, waits: a.waits}
	}
	return a
}

// due decides what is due next, apart from projecting ahead of it.
func (s *snapshot) due(by *attempt) action {
	if s.asks(by) {
		return action{do: askSchedule}
	}
	if len(s.runs)+len(s.listed) == 0 { // nothing is known of the period: what a relay finds most often
		if end := s.end(by, nil); end != nil { // but an answer of the schedule, or a hold that has ended
			return action{do: project, end: end}
		}
		return action{}
	}
	waits := false
	for _, m := range slices.Concat(s.key.Transition.Modes, s.orphans()) {
		_, known := s.key.Transition.Mode(m.Name)
		bs := s.batches[m.Name]
		open := firstUnpublished(bs)
		var a action
		switch {
		case by.repairer != "" && s.key.old(s.now) && (open == nil || open.unfrozen()):
			// A repair publishes what is frozen of an old period, and begins nothing. The period can
			// have become old since the repair took its claim.
			if open != nil && by.mine(open) {
				a = action{do: giveBack, mode: m, batch: open}
			}
		case open == nil && known:
			a = s.begin(by, m)
		case open == nil, !known && open.State != StatePublishing:
			// A mode that the definition has dropped begins nothing; what is frozen in
			// it was promised all the same.
		case open.live(s.now) && !by.mine(open):
		default:
			a = s.advance(by, m, open)
		}
		waits = waits || a.waits
		if a.do != idle {
			a.waits = waits
			return a
		}
	}
	a := s.last(by)
	a.waits = waits
	return a
}

// last returns the last step, which follows the work on all batches.
func (s *snapshot) last(by *attempt) action {
	if s.contended(by) {
		return action{} // the holder reads after its last write and projects all it sees
	}
	for _, t := range s.tallies {
		if t.crowded() && !by.trimmed {
			return action{do: trim, doc: t.doc}
		}
	}
	var fields []store.Field
	if !by.shadow {
		fields = s.projection()
	}
	sums, summed := s.sums()
	end := s.end(by, sums)
	if len(fields)+len(sums) > 0 || end != nil {
		return action{do: project, fields: fields, sums: sums, summed: summed, end: end}
	}
	return action{}
}

// contended reports whether another instance works on a batch of the period.
func (s *snapshot) contended(by *attempt) bool {
	for _, bs := range s.batches {
		if open := firstUnpublished(bs); open != nil && open.live(s.now) && !by.mine(open) {
			return true
		}
	}
	return false
}

// orphans are the modes that have batches and no place in the definition any more.
func (s *snapshot) orphans() []pipeline.Mode {
	var modes []pipeline.Mode
	for _, name := range slices.Sorted(maps.Keys(s.batches)) {
		if _, known := s.key.Transition.Mode(name); !known {
			modes = append(modes, pipeline.Mode{Name: name})
		}
	}
	return modes
}

func firstUnpublished(bs []*batch) *batch {
	for _, b := range bs {
		if b.State != StatePublished {
			return b
		}
	}
	return nil
}

// begin creates the next batch of a cycle whose earlier ones are all published. A hold
// does not keep a grace period from beginning: it hands nothing over.
func (s *snapshot) begin(by *attempt, m pipeline.Mode) action {
	if s.closed[m.Name] != nil || s.lost { // it is not known what of the rest was handed over
		return action{}
	}
	switch h := s.handing(m, nil); {
	case h.verdict.State != policy.Grace && (!h.due() || s.hold(m.Name) != nil):
		return action{}
	case h.verdict.State != policy.Grace && !by.mayCheck():
		return action{waits: true}
	default:
		return action{do: create, mode: m, n: s.number(m.Name), handing: h}
	}
}

// advance moves an unpublished batch that is free or ours.
func (s *snapshot) advance(by *attempt, m pipeline.Mode, b *batch) action {
	a := action{mode: m, batch: b}
	if b.State == StatePublishing {
		a.do = publish
	} else {
		a.handing = s.handing(m, b)
		switch h := a.handing; {
		case s.keeps(m, b):
		case h.verdict.State == policy.Grace && b.GraceSince.IsZero(),
			!b.GraceSince.IsZero() && !h.due() && (h.verdict.State == policy.Overdue || h.verdict.State == policy.Waiting && len(h.verdict.Missing) > 0):
			a.do = updateGrace
			return a // no claim is needed: it hands nothing over
		case !h.due(): // its grace has not ended, or the definition changed under it
		case s.hold(m.Name) != nil && !(h.selected && b.Force):
		case b.State == StateBlocked && s.now.Before(b.NextAttempt) && b.Checked == fingerprint(h.runs):
		case !(h.selected && b.Force) && !by.mayCheck():
			a.waits = true
		default:
			a.do = freeze
		}
	}
	if by.failed[b.ID] != nil {
		a.do = idle
	}
	switch held := b.Holder != "" && by.mine(b); {
	case a.do == idle && held:
		a.do = giveBack
	case a.do == idle:
	case !held, by.left(b.Holder) <= 0, by.left(b.Holder) < by.claim*2/3 && b.Holder != by.fresh:
		a.do = claim // renewed when a third of it is gone, but never twice without using it
	}
	return a
}

// due reports whether there is something to hand over now.
func (h handing) due() bool { return h.verdict.State == policy.Ready && len(h.runs) > 0 }

// handing works out what a cycle hands over next; b is its unpublished batch or nil. Runs that an
// operator selected come first. Otherwise the mode's policy decides until the cycle has begun, and
// from then on it is what is pending.
func (s *snapshot) handing(m pipeline.Mode, b *batch) handing {
	in := s.input(m)
	if b != nil {
		in.GraceStart = b.GraceSince
	}
	v := policy.Decide(in)
	byPolicy, collects := v.State, false
	runs, late := policy.Pending(in, s.covered(m.Name))
	selected := selected(in, b)
	switch {
	case len(selected) > 0:
		runs = selected
		v.State, v.Cause, v.Reason, v.Since, v.NextCheck = policy.Ready, b.Cause, b.Reason, b.DueAt, time.Time{}
	case in.Began != nil && len(runs) > 0:
		v.State, v.Cause, v.Since, v.NextCheck = policy.Ready, policy.SecondRun, runs[0].EventTime, time.Time{}
		v.Reason = "ran again: " + policy.Listed(processors(s.key.Transition, runs))
		if late {
			v.Cause = policy.LateCompletion
			v.Reason = "after the first hand-over: " + policy.Listed(processors(s.key.Transition, runs))
		}
		for _, r := range runs {
			for _, at := range []time.Time{r.EventTime, in.DueAgain(r.Processor)} {
				if at.After(v.Since) {
					v.Since = at
				}
			}
		}
	case in.Began != nil:
		v.State, v.Cause, v.Since, v.NextCheck = policy.Waiting, "", time.Time{}, time.Time{}
		if again, until := policy.Collected(in, s.covered(m.Name)); len(again) > 0 {
			collects, v.NextCheck = true, until
			v.Reason = fmt.Sprintf("ran again: %s; collected until %s", policy.Listed(processors(s.key.Transition, again)),
				until.In(s.key.Transition.Calendar().Zone()).Format(time.TimeOnly))
		}
	}
	if b != nil && b.Cause == CauseReconciliation && b.unfrozen() { // a repair has made it, and may have died
		v.Cause = CauseReconciliation
	}
	return handing{verdict: v, runs: runs, began: in.Began != nil, selected: len(selected) > 0, byPolicy: byPolicy, collects: collects}
}

// selected returns the runs that an operator selected for a batch and that still count.
func selected(in policy.Input, b *batch) []policy.Run {
	if b == nil || !b.Selected {
		return nil
	}
	chosen := pipeline.SetOf(b.Runs)
	return slices.DeleteFunc(policy.Counting(in), func(r policy.Run) bool { return !chosen[r.Key] })
}

func (s *snapshot) input(m pipeline.Mode) policy.Input {
	return policy.Input{Transition: s.key.Transition, Mode: m, Period: s.key.Period, Runs: s.runs, Now: s.now,
		Began: s.began(m.Name), Again: s.again(m.Name), Expected: s.schedule.expected()}
}
