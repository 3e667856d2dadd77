package pipeline

import (
	_ "embed"
	"iter"
	"slices"
	"strings"
	"time"
)

// MaxDays is the longest window.
const MaxDays = 365

// Window returns the periods of the last days before a time, its day included, and those
// that are expected ahead.
func (p *Pipeline) Window(at time.Time, days int) (from, to Period) {
	lead := 0
	for _, t := range p.Transitions {
		lead = max(lead, t.Lead())
	}
	from, to = p.Calendar.Window(at, days)
	return from, p.Calendar.Add(to, lead)
}

// Window is the window of one transition.
func (t *Transition) Window(at time.Time, days int) (from, to Period) {
	from, to = t.calendar.Window(at, days)
	return from, t.calendar.Add(to, t.Lead())
}

// Transition returns the transition that has, or had, that id; an empty id means the only one.
func (p *Pipeline) Transition(id string) (*Transition, bool) {
	if id == "" && len(p.Transitions) == 1 {
		return p.Transitions[0], true
	}
	for _, t := range p.Transitions {
		if t.ID == id || slices.Contains(t.Formerly, id) {
			return t, true
		}
	}
	return nil, false
}

// processors returns those of a phase.
func (p *Pipeline) processors(phase string) []Processor {
	for _, ph := range p.Phases {
		if ph.Name == phase {
			return ph.Processors
		}
	}
	return nil
}

// Processors returns those of all phases, each with its phase.
func (p *Pipeline) Processors() iter.Seq2[Phase, Processor] {
	return func(yield func(Phase, Processor) bool) {
		for _, ph := range p.Phases {
			for _, pr := range ph.Processors {
				if !yield(ph, pr) {
					return
				}
			}
		}
	}
}

// Processor finds a processor of any phase by a name that it has or had, or by its class.
func (p *Pipeline) Processor(name string) (Phase, Processor, bool) {
	for ph, pr := range p.Processors() {
		if pr.Name == name || pr.Class == name || slices.Contains(pr.Formerly, name) {
			return ph, pr, true
		}
	}
	return Phase{}, Processor{}, false
}

// ReportsTo returns the transition that waits for a processor's completions; nil when none
// does.
func (p *Pipeline) ReportsTo(processor string) *Transition {
	for _, t := range p.Transitions {
		if t.Expects(processor) {
			return t
		}
	}
	return nil
}

// TransitionIDs returns the ids in the definition's order, for messages.
func (p *Pipeline) TransitionIDs() string {
	ids := make([]string, len(p.Transitions))
	for i, t := range p.Transitions {
		ids[i] = t.ID
	}
	return strings.Join(ids, ", ")
}
