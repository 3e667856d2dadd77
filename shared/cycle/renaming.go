package cycle

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// Renaming is a name that has state and is not in the definition, next to one that is in the
// definition and has no state. Most likely they are the same thing.
type Renaming struct {
	What        string // transition, mode or processor
	Transition  string // of the definition
	Old         string
	New         []string // one of these
	First, Last pipeline.Period
}

func (r Renaming) String() string {
	return fmt.Sprintf("%s %q has state of %s to %s and is not in the definition; %s is, and has no state. If it was renamed, write `formerly: [%s]` at its new name, the oldest name first. If not, write `formerly: []` there",
		r.What, r.Old, r.First, r.Last, quoted(r.New), r.Old)
}

func quoted(names []string) string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = fmt.Sprintf("%q", name)
	}
	return strings.Join(out, " or ")
}

// candidate is what something else may have been renamed to.
type candidate struct {
	name     string
	formerly []string // as the definition has it: nil says nothing, an empty list that it is new
	follows  bool     // a mode in whose time the other's runs ended
}

// seen are the periods in which each name of one kind has state.
type seen map[string]map[pipeline.Period]bool

func (s seen) add(name string, p pipeline.Period) {
	if s[name] == nil {
		s[name] = map[pipeline.Period]bool{}
	}
	s[name][p] = true
}

// without reports whether a name has no state in half of the periods in which another has, or
// in more: on the day of the change both have.
func (s seen) without(name, old string) bool {
	both := 0
	for p := range s[old] {
		if s[name][p] {
			both++
		}
	}
	return 2*both <= len(s[old]) && both < len(s[old])
}

// suspect names what was most likely renamed: old has state in periods of which most have none
// of a candidate's. A candidate that is declared new explains where the other has gone.
func (s seen) suspect(what, transition, old string, candidates []candidate) (r Renaming, found bool) {
	for _, c := range candidates {
		switch {
		case !s.without(c.name, old):
		case c.formerly == nil, slices.Contains(c.formerly, old), c.follows && len(c.formerly) > 0:
			r.New = append(r.New, c.name)
		case len(c.formerly) == 0:
			return r, false
		}
	}
	if len(r.New) == 0 {
		return r, false
	}
	periods := slices.Sorted(maps.Keys(s[old]))
	r.What, r.Transition, r.Old, r.First, r.Last = what, transition, old, periods[0], periods[len(periods)-1]
	return r, true
}

// RenamedOf finds the modes and processors of a transition that, by its state, were renamed without
// formerly in the definition.
func RenamedOf(t *pipeline.Transition, periods []PeriodState) (out []Renaming) {
	modes, processors, followers := seen{}, seen{}, map[string]string{}
	for _, b := range periods {
		if b.snapshot == nil {
			continue
		}
		for mode, f := range b.snapshot.former {
			for _, name := range f.names {
				followers[name] = mode
			}
		}
		for mode := range b.snapshot.batches {
			modes.add(mode, b.Period)
		}
		for mode := range b.snapshot.heldIn {
			if mode != "" {
				modes.add(mode, b.Period)
			}
		}
		for _, r := range b.snapshot.runs {
			if r.Processor != "" {
				processors.add(r.Processor, b.Period)
			}
		}
	}
	for _, old := range slices.Sorted(maps.Keys(modes)) {
		if _, known := t.Mode(old); !known {
			var candidates []candidate
			for _, m := range t.Modes {
				if follower := followers[old]; follower == "" || follower == m.Name {
					candidates = append(candidates, candidate{m.Name, m.Formerly, follower != ""})
				}
			}
			if r, found := modes.suspect("mode", t.ID, old, candidates); found {
				out = append(out, r)
			}
		}
	}
	var candidates []candidate
	for _, name := range t.Order {
		candidates = append(candidates, candidate{name: name, formerly: t.Formers(name)})
	}
	for _, old := range slices.Sorted(maps.Keys(processors)) {
		if !t.Expects(old) {
			if r, found := processors.suspect("processor", t.ID, old, candidates); found {
				out = append(out, r)
			}
		}
	}
	return out
}

// Renamed finds what was renamed without the definition saying so, of the days that the relay
// looks after and of those ahead: transitions, modes and processors. It changes nothing.
func (e *Engine) Renamed(ctx context.Context, p *pipeline.Pipeline) (out []Renaming, err error) {
	all := map[string][]PeriodState{}
	for _, t := range p.Transitions {
		from, to := t.Window(e.Now(), relayDays)
		periods, err := e.PeriodStates(ctx, t, from, to)
		if err != nil {
			return nil, err
		}
		all[t.ID] = periods
		out = append(out, RenamedOf(t, periods)...)
	}
	transitions, err := e.RenamedTransitions(ctx, p, all)
	return append(transitions, out...), err
}

// RenamedTransitions finds transitions that have documents and are not in the definition, next to
// one without any. periods has the state of each transition by its id.
func (e *Engine) RenamedTransitions(ctx context.Context, p *pipeline.Pipeline, periods map[string][]PeriodState) (out []Renaming, err error) {
	strangers, err := e.strangers(ctx, p)
	if err != nil || len(strangers) == 0 {
		return nil, err
	}
	states := seen{}
	for _, of := range periods {
		for _, b := range of {
			if b.Recorded || b.Problem != nil {
				states.add(b.Transition.StoredID(), b.Period)
			}
		}
	}
	for _, id := range strangers {
		var candidates []candidate
		for _, t := range p.Transitions {
			if _, read := periods[t.ID]; read {
				c := candidate{name: t.StoredID(), formerly: t.Formerly}
				if len(c.formerly) > 0 { // state under its present id is in the wrong place, too
					c.formerly = append(slices.Clone(c.formerly), t.ID)
				}
				candidates = append(candidates, c)
			}
		}
		today := p.Calendar.At(e.Now())
		prefix := id + "_"
		for doc, err := range e.Store.Scan(ctx, e.Prefix+periodsCollection, prefix+string(p.Calendar.AddDays(today, -relayDays)), prefix+":") {
			if err != nil {
				return nil, fmt.Errorf("read the periods of %s: %w", id, err)
			}
			period, _, _ := strings.Cut(strings.TrimPrefix(doc.Ref.ID, prefix), "~")
			if period, err := p.Calendar.Parse(period); err == nil {
				states.add(id, period)
			}
		}
		if r, found := states.suspect("transition", "", id, candidates); found {
			for i, stored := range r.New {
				t, _ := p.Transition(stored)
				r.New[i] = t.ID
			}
			r.Transition = r.New[0]
			out = append(out, r)
		}
	}
	return out, nil
}

// periodOf splits the id of a period's document.
var periodOf = regexp.MustCompile(`^([a-z0-9_]+)_\d{4}-\d{2}-\d{2}(?:T\d{2})?(?:~overflow|~control)?$`)

// strangers returns the ids, in the documents of periods, that no transition is stored under.
// It reads between the documents of those, and of each stranger the first document alone.
func (e *Engine) strangers(ctx context.Context, p *pipeline.Pipeline) (ids []string, err error) {
	ends := []string{"~"}
	for _, t := range p.Transitions {
		ends = append(ends, t.StoredID()+"_") // its first period comes after that
	}
	slices.Sort(ends)
	from := "0"
	for _, to := range ends {
		for from < to {
			stranger, err := e.stranger(ctx, from, to)
			if err != nil {
				return nil, err
			}
			if stranger == "" {
				break
			}
			ids, from = append(ids, stranger), stranger+"_:" // behind its periods
		}
		from = max(from, to+":")
	}
	return ids, nil
}

// stranger returns the id in the first document of a period between two ids, "" for none.
func (e *Engine) stranger(ctx context.Context, from, to string) (string, error) {
	for doc, err := range e.Store.Scan(ctx, e.Prefix+periodsCollection, from, to) {
		if err != nil {
			return "", fmt.Errorf("look for documents of other transitions: %w", err)
		}
		if m := periodOf.FindStringSubmatch(doc.Ref.ID); m != nil { // else a hold, a list
			return m[1], nil
		}
	}
	return "", nil
}
