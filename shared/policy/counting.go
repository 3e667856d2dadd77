package policy

import (
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

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
