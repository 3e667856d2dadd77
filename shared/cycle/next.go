package cycle

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/gate"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

// step is the kind of an action.
type step int

const (
	idle     step = iota // nothing is due, or another holds the claim
	create               // the next batch of a cycle
	claim                // take over a batch that nobody works on, or renew
	freeze               // check readiness; fix runs and payloads, or block
	publish              // send what has no id, write down the ids
	giveBack             // end our claim on a batch that has to wait
	project              // bring the compatibility document up to date
)

// action is what next found to be due.
type action struct {
	do      step
	mode    pipeline.Mode
	batch   *batch
	n       int // of create
	handing handing
	fields  []store.Field // of project
}

// handing is what a batch would hand over now.
type handing struct {
	verdict gate.Verdict
	runs    []gate.Run
}

// next decides the one thing to do about a snapshot. It has no effects and knows no
// time but the snapshot's.
func (c *convergence) next(s *snapshot) action {
	contended := false
	for _, m := range slices.Concat(c.key.Transition.Modes, c.orphans(s)) {
		_, known := c.key.Transition.Mode(m.Name)
		bs := s.batches[m.Name]
		open := firstUnpublished(bs)
		var a action
		switch {
		case open == nil && known:
			a = c.begin(s, m, highest(bs))
		case open == nil, !known && open.State != StatePublishing:
			// A mode that the definition has dropped begins nothing; what is frozen in
			// it was promised all the same.
		case open.live(s.now) && !c.mine(open):
			contended = true
		default:
			a = c.advance(s, m, open)
		}
		if a.do != idle {
			return a
		}
	}
	if contended {
		return action{} // the holder reads after its last write and projects all it sees
	}
	if f := c.projection(s); f != nil {
		return action{do: project, fields: f}
	}
	return action{}
}

// orphans are the modes that have batches and no place in the definition any more.
func (c *convergence) orphans(s *snapshot) []pipeline.Mode {
	var modes []pipeline.Mode
	for _, name := range slices.Sorted(maps.Keys(s.batches)) {
		if _, known := c.key.Transition.Mode(name); !known {
			modes = append(modes, pipeline.Mode{Name: name})
		}
	}
	return modes
}

// highest returns the number of a cycle's newest batch, 0 when there is none.
func highest(bs []*batch) int {
	if len(bs) == 0 {
		return 0
	}
	return bs[len(bs)-1].N
}

func firstUnpublished(bs []*batch) *batch {
	for _, b := range bs {
		if b.State != StatePublished {
			return b
		}
	}
	return nil
}

// begin creates the next batch of a cycle whose earlier ones are all published.
func (c *convergence) begin(s *snapshot, m pipeline.Mode, batches int) action {
	h := c.handing(s, m, batches+1, nil)
	if h.verdict.State == gate.Ready && len(h.runs) > 0 || h.verdict.State == gate.Grace {
		return action{do: create, mode: m, n: batches + 1, handing: h}
	}
	return action{}
}

// advance moves an unpublished batch that is free or ours.
func (c *convergence) advance(s *snapshot, m pipeline.Mode, b *batch) action {
	a := action{mode: m, batch: b}
	switch b.State {
	case StatePublishing:
		a.do = publish
	case StateBlocked:
		if !s.now.Before(b.NextAttempt) {
			a.do = freeze
		}
	default:
		a.do = freeze
	}
	if a.do == freeze {
		a.handing = c.handing(s, m, b.N, b)
		if a.handing.verdict.State != gate.Ready || len(a.handing.runs) == 0 {
			a.do = idle // its grace has not ended, or the definition changed under it
		}
	}
	if c.failed[b.ID] != nil {
		a.do = idle
	}
	switch held := b.Holder != "" && c.mine(b); {
	case a.do == idle && held:
		a.do = giveBack
	case a.do == idle:
	case !held, c.trust(b.Holder) <= 0, c.trust(b.Holder) < c.Claim*2/3 && b.Holder != c.fresh:
		a.do = claim // renewed when a third of it is gone, but never twice without using it
	}
	return a
}

// handing works out what the n-th batch of a cycle hands over: the first by the
// mode's policy, a further one because there are pending runs.
func (c *convergence) handing(s *snapshot, m pipeline.Mode, n int, b *batch) handing {
	in := c.input(s, m)
	if b != nil {
		in.GraceStart = b.CreatedAt
	}
	v := gate.Decide(in)
	runs, late := gate.Pending(in, s.covered(m.Name))
	switch {
	case n > 1 && len(runs) > 0:
		v.State, v.Cause, v.Since, v.NextLook = gate.Ready, gate.SecondRun, runs[0].EventTime, time.Time{}
		v.Reason = "ran again: " + strings.Join(processors(c.key.Transition, runs), ", ")
		if late {
			v.Cause = gate.LateCompletion
			v.Reason = "after the first hand-over: " + strings.Join(processors(c.key.Transition, runs), ", ")
		}
		for _, r := range runs {
			if r.EventTime.After(v.Since) {
				v.Since = r.EventTime
			}
		}
	case n > 1:
		v.State, v.NextLook = gate.Waiting, time.Time{}
	}
	return handing{verdict: v, runs: runs}
}

func (c *convergence) input(s *snapshot, m pipeline.Mode) gate.Input {
	return gate.Input{Transition: c.key.Transition, Mode: m, Period: c.key.Period, Runs: s.runs, Now: s.now}
}
