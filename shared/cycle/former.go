package cycle

import (
	"maps"
	"slices"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

// former is what was handed over under other names than those under which the definition stores
// a mode: before it was renamed without formerly, mostly.
type former struct {
	handed
	names []string // of the modes, as stored
}

// modeOf returns the name of a mode that is stored under another. State under a name that a
// mode has or had, but is not stored under, is apart from it; its name is no mode's.
func modeOf(t *pipeline.Transition, stored string) string {
	switch m, known := t.Mode(stored); {
	case !known:
		return stored
	case t.StoredMode(stored) == stored:
		return m.Name
	}
	return stored + "~"
}

// present returns a run with the present name of its processor.
func present(t *pipeline.Transition, r policy.Run) policy.Run {
	if r.Completion == nil || t.Present(r.Processor) == r.Processor {
		return r
	}
	c := *r.Completion // the parsed one is shared
	c.Processor = t.Present(r.Processor)
	r.Completion = &c
	return r
}

// then returns a run with the name that its processor had when the batch took it.
func (b *batch) then(t *pipeline.Transition, r policy.Run) policy.Run {
	stored := t.Stored(r.Processor)
	if m, frozen := b.Messages[stored]; frozen && stored != r.Processor {
		c := *r.Completion
		c.Processor = m.table(t, stored)
		r.Completion = &c
	}
	return r
}

// table returns what a message calls its table: the name that the processor had then. It is
// the one under which it is stored, but for a processor that was renamed.
func (m sent) table(tr *pipeline.Transition, name string) string {
	if tr.Present(name) == name {
		return name
	}
	if t, err := wire.DecodeTrigger([]byte(m.Payload)); err == nil {
		return t.SourceTable
	}
	return name
}

// adopt finds the modes that replace one that the definition does not know. Each event belongs to
// one mode, so the newest run that was handed over shows which mode that is. A mode that was
// renamed without formerly must not hand over the same runs again.
func (s *snapshot) adopt() {
	modeAt := s.key.Transition.ModesOf(s.key.Period)
	names := map[string]bool{}
	for name := range s.batches {
		names[name] = true
	}
	for name := range s.handed {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if _, known := s.key.Transition.Mode(name); known {
			continue
		}
		h := s.handedBy(name)
		taken := map[string]bool{}
		for _, k := range h.Runs {
			taken[k] = true
		}
		for _, b := range s.batches[name] {
			if b.unfrozen() {
				continue // it begins nothing any more
			}
			for _, k := range b.Runs {
				taken[k] = true
			}
			if len(h.Expects) == 0 {
				h.Expects = b.Expects
			}
		}
		var newest policy.Run
		for _, r := range s.runs {
			if taken[r.Key] && (newest.Completion == nil || policy.Older(newest, r) < 0) {
				newest = r
			}
		}
		if newest.Completion == nil {
			continue
		}
		mode := modeAt(newest.EventTime)
		f := s.former[mode]
		if f.N > 0 { // of several that had its place, the one that handed over first is shown
			h.At, h.Cause, h.Expects = f.At, f.Cause, f.Expects
			again := maps.Clone(f.Again)
			maps.Copy(again, h.Again)
			h.Again = again
		}
		h.Runs = slices.Concat(f.Runs, slices.Sorted(maps.Keys(taken)))
		s.former[mode] = former{h, append(f.names, name)}
	}
}
