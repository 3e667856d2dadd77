//go:build unix && !race

package cycle

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// The promise of a mark: a relay skips the period, and nothing is lost.

// skipped reports whether a relay skips the period, as the scan of its documents shows.
func (s *simulation) skipped(th *simThread) bool {
	docs := s.periodDocs()
	if len(docs) != 1 {
		return false
	}
	e := th.instance.engine
	return docs[0].Ref == e.periodRef(th.key()) && e.outline(th.rules.tr, docs[0], s.now).settled
}

// settledHolds: while a mark is valid for a definition, nothing is due by it, now or later.
func (s *simulation) settledHolds() {
	docs := s.periodDocs()
	if len(docs) == 0 || docs[0].Data[settledField] == nil {
		return
	}
	for _, rules := range s.deployed() {
		if settled, _ := marked(rules.tr, "", docs[0]); settled && len(docs) == 1 {
			s.nothingDue(rules, docs[0])
		}
	}
}

func (s *simulation) nothingDue(rules *simRules, period store.Doc) {
	for _, b := range s.books.batches {
		if b.state != "published" && !s.past.spent[b.id] {
			s.fail("the period is settled, and %s is %s", b.id, b.state)
		}
	}
	holds, _ := period.Data["holds"].(map[string]any)
	for mode, v := range holds {
		h, _ := v.(map[string]any)
		if until, ok := h["until"].(time.Time); ok && period.Version.Time().Before(until) && s.now.Before(until) {
			s.fail("the period is settled, and %s is on hold until %s", mode, until)
		}
	}
	for i := range rules.modes {
		m, mode := &rules.modes[i], rules.modes[i].name
		if s.isClosed(mode) {
			continue
		}
		batches, began := s.books.byMode[mode], s.books.began[mode]
		due, _ := rules.due(i, s.books.recorded, s.coveredBy(mode, len(batches)+1), began, nil)
		done, complete, quorum := rules.complete(i, s.books.recorded)
		critical := !slices.ContainsFunc(m.critical, func(p string) bool { return !slices.Contains(done, p) })
		begins := began != nil || complete || quorum || critical && m.handOver
		switch {
		case s.past.years: // the simulation has forgotten earlier hand-overs of the period
		case begins && len(due) > 0:
			s.fail("the period is settled, and %s has to hand over %s", mode, simNames(due))
		case len(batches) == 0 && m.deadline != simNever:
			s.fail("the period is settled, and %s has a deadline", mode)
		case len(batches) == 0 && s.checks.schedule && len(done) > 0:
			s.fail("the period is settled, and the schedule decides of %s", mode)
		}
	}
}

// rests: a relay marks a period in which nothing is due, and costs nothing from then on.
func (s *simulation) rests() {
	s.now = s.now.Add(2 * settlesAfter)
	s.relay("settle", s.instances[0], false)
	s.play()
	docs := s.periodDocs()
	settled := len(docs) == 1
	for i := range s.final.modes {
		mode := s.final.modes[i].name
		settled = settled && (s.books.began[mode] != nil || s.acted && s.isClosed(mode)) && !s.dueNow(i, false)
	}
	for _, b := range s.books.batches {
		settled = settled && b.state == "published"
	}
	if is := len(docs) == 1 && docs[0].Data[settledField] != nil; settled && !is && !s.full && !s.now.Before(s.heldUntil) && s.problem == "" {
		s.fail("the period is not settled, and all is handed over")
	}
	s.shardsEndTogether()
}

// afterwards continues after the end, in an eighth of the worlds. Now and then a report arrives, an
// operator acts, or another definition is deployed, and often a call fails. No message is redelivered:
// only the relay continues the work, and it finds the marks.
func (s *simulation) afterwards() {
	rng := rand.New(rand.NewPCG(s.seed, 8))
	if s.desk == nil {
		s.desk = &simInstance{id: len(s.instances) + 1, rules: s.final}
		s.boot(s.desk)
	}
	s.desk.holding, s.orphans = false, s.orphans+1
	for range 3 + rng.IntN(3) {
		for range 2 { // the first may find something, and the second marks
			s.now = s.now.Add([]time.Duration{time.Minute, 30 * time.Minute, 2 * settlesAfter}[rng.IntN(3)])
			s.relay("before", s.instances[rng.IntN(len(s.instances))], rng.IntN(4) == 0)
			s.play()
		}
		if len(s.family.versions) > 1 && rng.IntN(3) == 0 {
			s.final, s.changed = s.family.versions[rng.IntN(2)], true
			s.desk.rules = s.final
			for _, in := range s.instances {
				in.rules = s.final
			}
			continue
		}
		if rng.IntN(3) > 0 {
			s.calm, s.faults.rate, s.faults.left = false, 2+rng.IntN(6), 1
		}
		switch rng.IntN(5) {
		case 0:
			s.act(s.drawAct())
		case 1:
			s.relay("at once", s.instances[0], false)
			s.lateReport()
		default:
			s.lateReport()
		}
		s.play()
		s.calm, s.faults.left = true, 0
	}
	s.now = s.now.Add(31 * time.Hour) // every hold and every grace period is over
	for range 4 {
		s.relay("last", s.instances[0], false)
		s.play()
		s.now = s.now.Add(41 * time.Minute)
	}
	for _, m := range s.books.wire {
		s.consume(m)
	}
	if s.problem != "" {
		return
	}
	for i := range s.final.modes {
		s.handedOver(i)
	}
	s.promised()
	s.effects()
	s.projection()
	s.rest()
}
