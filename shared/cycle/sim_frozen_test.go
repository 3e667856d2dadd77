//go:build unix && !race

package cycle

import (
	"maps"
	"slices"
	"time"
)

// froze: exactly what was checked is handed over, and exactly what the rules want.
func (s *simulation) froze(th *simThread, b, old *simBatch, index int) {
	c, rules := th.checked, th.rules
	chosen := old.selected && slices.ContainsFunc(s.visible(th.seen), func(run *simRun) bool {
		return slices.Contains(old.runs, run.key) && rules.counts(index, run)
	})
	if chosen && old.force { // the warehouse is not asked
		c = simChecked{mode: b.mode, seen: th.seen, ready: Readiness{Outcome: NotChecked}}
	}
	visible, covered, began := s.visible(c.seen), s.coveredBy(b.mode, b.n), s.books.began[b.mode]
	var names []string
	taken := make([]*simRun, 0, len(b.runs))
	for _, key := range b.runs {
		run := s.family.byKey[key]
		if run == nil {
			s.fail("%s takes the run %q, which was never reported", b.id, key)
			return
		}
		taken = append(taken, run)
		if covered[key] && !chosen {
			s.fail("%s takes a run that an earlier batch has", b.id)
		}
	}
	for _, p := range rules.order {
		if slices.ContainsFunc(taken, func(r *simRun) bool { return r.processor == p }) {
			names = append(names, p)
		}
	}
	s.mayRepair(th, b, c.seen.ReadTime)
	m := &rules.modes[index]
	overdue := !chosen && began == nil && m.handOver && !c.seen.ReadTime.Before(rules.start.Add(m.deadline))
	switch {
	case th.rules.stored(c.mode) != b.mode:
		s.fail("%s is frozen without a readiness check", b.id)
		return
	case c.ready.Outcome != Passed && c.ready.Outcome != NotChecked && !overdue:
		s.fail("%s is frozen although the checks said %q", b.id, c.ready.Outcome)
	case !(chosen && old.force) && !slices.Equal(c.processors, names):
		s.fail("%s is frozen with %v, checked were %v", b.id, names, c.processors)
	case b.holder == "" || s.holder(b.holder) != th:
		s.fail("%s is frozen by %s, held by %q", b.id, th, b.holder)
	}
	cause, actor, why := "operator", "ada", ""
	if chosen {
		why = rules.mayGive(index, visible, taken, old.runs)
	} else {
		for _, key := range old.runs { // a request none of whose runs counts any more
			covered[key] = true
		}
		cause, actor = rules.cause(index, visible, covered, began), "engine"
		switch {
		case th.acts != nil && th.acts.kind == "repair":
			cause, actor = "reconciliation", "nightly"
		case old.cause == "reconciliation" && !old.selected: // its repair has died
			cause, actor = old.cause, old.actor
		}
		why = rules.mayFreeze(index, visible, taken, covered, began, s.kept(b.mode, b.n, c.seen.ReadTime), c.seen.ReadTime, old.grace(rules))
	}
	if why != "" {
		s.fail("%s may not be frozen: %s", b.id, why)
		return
	}
	if s.books.closed[b.mode] && !chosen {
		s.fail("%s is frozen, and closed", b.id)
	}
	for mode, until := range s.books.holds {
		if (mode == "" || mode == b.mode) && s.now.Before(until) && !(chosen && b.force) {
			s.fail("%s is frozen, and held until %s", b.id, until)
		}
	}
	if b.cause != cause || b.actor != actor || b.selected != chosen {
		s.fail("%s has the cause %s and the actor %s, not %s and %s", b.id, b.cause, b.actor, cause, actor)
	}
	s.begins(b, taken, visible, rules, index, old.grace(rules), c.seen.ReadTime, chosen)
	slices.SortFunc(taken, simOlder)
	if got := slices.Sorted(maps.Keys(b.messages)); !slices.Equal(got, slices.Sorted(slices.Values(names))) {
		s.fail("%s has messages for %v, runs of %v", b.id, got, names)
	}
	for name, msg := range b.messages {
		if want := rules.payload(name, b.mode, b.id, b.n, cause, taken, c.seen.ReadTime, c.ready); msg.Payload != want {
			s.fail("%s/%s says\n%s\nand should say\n%s", b.id, name, msg.Payload, want)
		}
		if msg.ID != "" {
			s.fail("%s/%s has an id before it was published", b.id, name)
		}
	}
	th.checked = simChecked{} // good for one batch
}

// mayRepair: a repair begins nothing of an old period, and freezes nothing.
func (s *simulation) mayRepair(th *simThread, b *simBatch, now time.Time) {
	if th.acts != nil && th.acts.kind == "repair" && now.After(th.rules.end.Add(simWithin)) {
		s.fail("%s makes %s %s, %s after the period", th, b.id, b.state, now.Sub(th.rules.end))
	}
}

// begins: a cycle begins with the last of its critical processors. From then on late runs
// are judged by the processors expected then. A batch that a person chose begins no cycle
// while the policy still waits to hand over other runs.
func (s *simulation) begins(b *simBatch, taken, visible []*simRun, rules *simRules, index int, grace, now time.Time, chosen bool) {
	m, done, covered := &rules.modes[index], map[string]bool{}, s.coveredBy(b.mode, b.n)
	for _, run := range taken {
		covered[run.key] = true
	}
	for key := range covered {
		if run := s.family.byKey[key]; !s.past.lost || slices.Contains(visible, run) {
			done[run.processor] = true
		}
	}
	left, _ := rules.due(index, visible, covered, nil, nil)
	met, _ := rules.met(index, visible, now, grace)
	var expects []string
	if s.books.began[b.mode] == nil && !(chosen && !met && len(left) > 0) && !slices.ContainsFunc(m.critical, func(p string) bool { return !done[p] }) {
		for _, p := range rules.order {
			if slices.Contains(m.names(), p) {
				expects = append(expects, p)
			}
		}
		s.books.began[b.mode] = expects
	}
	if !slices.Equal(b.expects, expects) {
		s.fail("%s expects %v, and should expect %v", b.id, b.expects, expects)
	}
}

// coveredBy returns the runs of the batches of a mode before the n-th.
func (s *simulation) coveredBy(mode string, n int) map[string]bool {
	covered := map[string]bool{}
	for _, b := range s.books.byMode[mode] {
		if b.n < n {
			for _, key := range b.runs {
				covered[key] = true
			}
		}
	}
	return covered
}

// kept returns the processors that batches of a mode before the n-th have handed over more
// than once, the last time less than simEvery before an instant.
func (s *simulation) kept(mode string, n int, now time.Time) map[string]bool {
	kept, times := map[string]bool{}, map[string]int{}
	for _, b := range s.books.byMode[mode] {
		for p := range b.messages {
			if b.n < n {
				times[p]++
				kept[p] = times[p] > 1 && now.Before(b.publishedAt.Add(simEvery))
			}
		}
	}
	return kept
}

// stillFrozen: runs and payloads never change, and neither do ids once they are known.
func (s *simulation) stillFrozen(b, old *simBatch) {
	if !slices.Equal(b.runs, old.runs) {
		s.fail("%s: its frozen runs were %v, are %v", b.id, old.runs, b.runs)
	}
	if len(b.messages) != len(old.messages) || b.cause != old.cause {
		s.fail("%s: its frozen messages have changed", b.id)
	}
	for name, m := range b.messages {
		before := old.messages[name]
		switch {
		case m.Payload != before.Payload:
			s.fail("%s/%s has changed since it was frozen", b.id, name)
		case before.ID != "" && m.ID != before.ID:
			s.fail("%s/%s had the id %s, has %s", b.id, name, before.ID, m.ID)
		case m.ID != "" && s.books.ids[m.ID] != b.id+"/"+name:
			s.fail("%s/%s has the id %q, which the broker never gave", b.id, name, m.ID)
		}
	}
}
