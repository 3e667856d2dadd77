//go:build unix && !race

package cycle

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// simAct is something that an operator does, or the nightly job.
type simAct struct {
	kind       string // trigger, hold, release, repair, close
	mode       int    // of the rules; -1: the whole transition
	processors []string
	force      bool
	lasts      time.Duration
	found      []*simText // of repair: the reports that it records
}

func (s *simulation) drawAct() *simAct {
	a := &simAct{kind: []string{"trigger", "trigger", "hold", "hold", "release", "repair", "repair", "close"}[s.rng.IntN(8)],
		mode: s.rng.IntN(len(s.desk.rules.modes)), force: s.rng.IntN(3) == 0,
		lasts: []time.Duration{time.Minute, 40 * time.Minute, 5 * time.Hour, 30 * time.Hour}[s.rng.IntN(4)]}
	switch a.kind {
	case "trigger":
		for _, p := range s.desk.rules.order {
			if s.rng.IntN(3) == 0 {
				a.processors = append(a.processors, p)
			}
		}
	case "repair":
		for range s.rng.IntN(3) {
			a.found = append(a.found, &s.family.texts[s.rng.IntN(len(s.family.texts))])
		}
	case "hold", "release":
		if s.rng.IntN(8) == 0 {
			a.mode = -1
		}
	}
	return a
}

// act is phasectl at the operator's desk. Only the operator could repeat an action that
// failed, and this one does not. Holds come one at a time, so that the simulation knows
// which one is in force.
func (s *simulation) act(a *simAct) *simThread {
	s.acted = true
	if a.kind == "hold" || a.kind == "release" {
		if s.desk.holding {
			s.event(time.Second, simEvent{act: a})
			return nil
		}
		s.desk.holding = true
	}
	th := &simThread{instance: s.desk, acts: a}
	return s.start(th, func() bool {
		ctx, e, key, mode := context.Background(), s.desk.engine, th.key(), ""
		if a.mode >= 0 {
			mode = th.rules.modes[a.mode].name
		}
		switch a.kind {
		case "hold":
			delete(s.books.holds, mode) // whether it is in force is unknown until the answer
			delete(s.books.released, mode)
			r, err := e.Hold(ctx, key, mode, a.lasts, "ada", "to see")
			if err == nil {
				s.books.holds[mode] = r.Hold.Until
				s.watched()
			}
			return err == nil
		case "release":
			delete(s.books.holds, mode)
			_, err := e.Release(ctx, key, mode, "ada", "seen")
			s.books.released[mode] = err == nil
			s.released()
			return err == nil
		case "close":
			m, _ := th.rules.tr.Mode(th.rules.modes[a.mode].shown())
			r, err := e.Close(ctx, key, m, "ada", "not wanted")
			switch {
			case errors.Is(err, ErrRefused) && th.writes > 0:
				s.fail("%s is refused, and has written", th)
			case err == nil:
				s.closed(th, mode, r)
			}
			return err == nil
		case "repair":
			// The nightly job finds a run in the tables. Its report may still arrive, may have
			// arrived, or may be lost.
			r := Repair{Actor: "nightly", Reason: "found"}
			for _, t := range a.found {
				if s.full && (t.hopeless || len(t.as[0].run.entities) > 0) {
					continue // what is found in a table names no entities
				}
				for _, reading := range t.as {
					if th.rules.tr.Expects(reading.decoded.Processor) {
						r.Completions = append(r.Completions, reading.decoded)
						break
					}
				}
			}
			err := e.Repair(ctx, key, r)
			if err == nil {
				s.answered(th)
			}
			return err == nil
		}
		m, _ := th.rules.tr.Mode(mode)
		b, err := e.Trigger(ctx, key, m, Request{Processors: a.processors, Actor: "ada", Reason: "again", Force: a.force})
		switch {
		case errors.Is(err, ErrRefused) && th.writes > 0:
			s.fail("%s is refused, and has written", th)
		case err == nil && b.ID != th.requested:
			s.fail("%s is answered with %s, and asked for %q", th, b.ID, th.requested)
		case err == nil:
			s.answered(th)
		}
		return err == nil
	})
}

// closed: from now on a batch of the cycle is frozen only if an operator triggers it. The answer
// names the batches that were publishing already, except for those triggered since.
func (s *simulation) closed(th *simThread, mode string, r CloseResult) {
	s.books.closed[mode] = true
	if !s.isClosed(mode) {
		s.fail("%s is said to be closed, and is not", mode)
	}
	for _, b := range s.books.byMode[mode] {
		since := b.request != "" && b.createdAt.After(th.seen.ReadTime)
		if b.state == "publishing" && !since && !slices.Contains(r.Publishing, b.id) {
			s.fail("%s goes on, and who closes %s hears of %v", b.id, mode, r.Publishing)
		}
	}
}

// isClosed reports whether a closing is recorded.
func (s *simulation) isClosed(mode string) bool {
	return closedIn(s.periodDocs(), mode)
}

func closedIn(docs []store.Doc, mode string) bool {
	return slices.ContainsFunc(docs, func(d store.Doc) bool {
		closed, _ := d.Data["closed"].(map[string]any)
		return d.Ref.Collection == periodsCollection && closed[mode] != nil
	})
}
