//go:build unix && !race

package cycle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store/memory"
)

// newSimulation makes an empty world of one definition. It takes over the coroutines of the
// last world.
func newSimulation(seed uint64, family *simFamily, last *simulation) *simulation {
	s := &simulation{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), family: family, final: family.versions[0]}
	if last != nil {
		s.idle = last.idle
	}
	if seed/5%2 == 1 {
		s.part = 1 + int(seed/10%2)
	}
	s.setShards()
	s.mem = memory.New(func() time.Time { return s.now })
	s.checks.outcomes = []Outcome{Passed}
	s.opened()
	return s
}

// close stops the idle coroutines, which are not garbage collected.
func (s *simulation) close() {
	for _, c := range s.idle {
		c.stop()
	}
}

func (s *simulation) add(skew time.Duration) *simInstance {
	in := &simInstance{id: len(s.instances) + 1, rules: s.family.versions[0], skew: skew}
	s.boot(in)
	s.instances = append(s.instances, in)
	return in
}

// scenario draws a world from the seed: a definition, instances with their clocks, reports
// with their times, the actions of an operator, and the rate of faults.
func (s *simulation) scenario() {
	s.now = s.final.start.Add(-48 * time.Hour)
	s.checks.schedule = s.rng.IntN(4) == 0
	s.grouped = s.seed%3 == 2
	skew := func() time.Duration {
		return time.Duration(s.rng.IntN(3)-1) * time.Duration(s.rng.IntN(300)) * time.Second
	}
	for range 1 + s.rng.IntN(3) {
		s.add(skew())
	}
	if s.rng.IntN(6) > 0 {
		s.faults.rate, s.faults.left = []int{60, 20, 6}[s.rng.IntN(3)], 1+s.rng.IntN(8)
	}
	switch s.rng.IntN(6) {
	case 0:
		s.checks.outcomes = []Outcome{Failed, Unknown, Passed, ""}
	case 1:
		s.checks.outcomes = []Outcome{NotChecked}
	case 2:
		s.checks.outcomes = []Outcome{Passed, Passed, Passed, Unknown, Failed}
	}
	s.checks.coverage = s.rng.IntN(2) == 0
	for _, t := range s.chosen() {
		m := &simMessage{simText: t}
		s.messages = append(s.messages, m)
		s.at(m.envelope.PublishTime.Add(s.delay()), simEvent{message: m})
		if s.rng.IntN(12) == 0 {
			s.at(m.envelope.PublishTime.Add(s.delay()), simEvent{message: m})
		}
	}
	s.lock()
	s.fill()
	s.delayed()
	s.setClocks()
	for i := range s.rng.IntN(3) {
		s.beside(simEvent{job: fmt.Sprintf("relay%d", i)})
	}
	if len(s.family.versions) > 1 && s.rng.IntN(3) == 0 {
		s.final, s.changed = s.family.versions[1], true
		for _, in := range s.instances {
			s.beside(simEvent{deploy: in, rules: s.final})
		}
	}
	s.backAndForth()
	if s.rng.IntN(6) == 0 {
		s.desk = &simInstance{id: len(s.instances) + 1, rules: s.family.versions[s.rng.IntN(len(s.deployed()))], skew: skew()}
		s.boot(s.desk)
		for range 2 + s.rng.IntN(3) {
			s.beside(simEvent{act: s.drawAct()})
		}
		s.beside(simEvent{job: "relay"})
		s.holdsAndReleases()
	}
}

// introduce writes the world's properties to the trace.
func (s *simulation) introduce() {
	s.tell("seed %d, %s", s.seed, s.family.name)
	for _, r := range s.deployed() {
		_, modes, _ := strings.Cut(r.yaml(), "    modes:\n")
		for _, line := range strings.Split(strings.TrimSpace(modes), "\n") {
			s.tell("     %d  %s", r.version+1, strings.TrimSpace(line))
		}
	}
	for _, in := range s.instances {
		s.tell("     instance %d, its clock off by %s", in.id, in.skew)
	}
	for _, m := range s.messages {
		s.tell("     %s, published %s: %s", m.envelope.MessageID, m.envelope.PublishTime.Format("02 15:04:05.000000"), m.envelope.Data)
	}
}

// backAndForth keeps both definitions deployed for a long time, in a sixth of the worlds that have
// two. Instances move from one to the other and back, and either may be the final one.
func (s *simulation) backAndForth() {
	if len(s.family.versions) == 1 || s.seed/10%6 != 5 {
		return
	}
	rng := rand.New(rand.NewPCG(s.seed, 5))
	s.changed = true
	s.final = s.family.versions[rng.IntN(2)]
	for range 2 + rng.IntN(5) {
		in, other := s.instances[rng.IntN(len(s.instances))], s.events[rng.IntN(len(s.events))]
		s.at(other.at.Add(time.Duration(rng.IntN(120))*time.Second), simEvent{deploy: in, rules: s.family.versions[rng.IntN(2)]})
	}
	for _, in := range s.instances {
		in.rules = s.family.versions[rng.IntN(2)]
	}
}

// deployed are the definitions that some instance may have.
func (s *simulation) deployed() []*simRules {
	if s.changed {
		return s.family.versions
	}
	return s.family.versions[:1]
}

// The event happens at about the time of another one, which is drawn.
func (s *simulation) beside(e simEvent) {
	other := s.events[s.rng.IntN(len(s.events))]
	s.at(other.at.Add(s.delay()), e)
}

// chosen draws reports: most often all that some mode needs or all but one, and some
// more.
func (s *simulation) chosen() []*simText {
	var out []*simText
	mode := s.rng.IntN(len(s.family.good))
	for _, p := range s.family.versions[0].modes[mode].names() {
		if good := s.family.good[mode][p]; len(good) > 0 && s.rng.IntN(12) > 0 {
			out = append(out, good[s.rng.IntN(len(good))])
		}
	}
	for range s.rng.IntN(3) + max(0, 1-len(out)) {
		t := &s.family.texts[s.rng.IntN(len(s.family.texts))]
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	if s.rng.IntN(2) == 0 { // all at once
		last := slices.MaxFunc(out, func(a, b *simText) int { return a.envelope.PublishTime.Compare(b.envelope.PublishTime) })
		s.burst = last.envelope.PublishTime
	}
	return out
}

// at makes something happen at a time, not before now.
func (s *simulation) at(t time.Time, e simEvent) {
	if s.burst.After(t) {
		t = s.burst.Add(t.Sub(t.Truncate(time.Millisecond)))
	}
	e.at = t
	s.events = append(s.events, e)
}

// settle lets the world come to rest. There are no more faults, every message is redelivered
// until it is acknowledged, and the relay runs often enough for every wait.
func (s *simulation) settle() {
	s.calm = true
	for _, in := range s.instances {
		in.rules = s.final
	}
	s.bring()
	s.wokenUp()
	rest := s.final.start.Add(35 * time.Hour)
	for _, t := range []time.Time{rest, s.heldUntil} {
		if s.now.Before(t) {
			s.now = t
		}
	}
	// Without orphaned work the relay has nothing to repair, and only waits for times.
	mend := s.orphans > 0 || s.acted || s.changed
	// The first relay may meet the claim of a dead process, in a cycle that was closed since.
	for round := 0; s.problem == "" && (round == 0 && mend || round == 1 && s.acted || round < 4 && !s.settled()); round++ {
		s.relay(fmt.Sprintf("last%d", round), s.instances[0], false)
		s.play()
		s.now = s.now.Add(41 * time.Minute)
	}
	for _, m := range s.books.wire {
		s.consume(m)
	}
}

// settled reports whether the relay has nothing more to wait for.
func (s *simulation) settled() bool {
	for i := range s.final.modes {
		if s.dueNow(i, false) {
			return false
		}
	}
	for _, b := range s.books.batches {
		if b.state != "published" && !s.stays(b) {
			return false
		}
	}
	return true
}

// dueNow reports whether a mode has something to hand over, now that all grace periods have
// ended. With waits, collected second runs that wait for a later time do not count.
func (s *simulation) dueNow(i int, waits bool) bool {
	mode := s.final.modes[i].name
	if s.acted && s.isClosed(mode) {
		return false
	}
	batches, began := s.books.byMode[mode], s.books.began[mode]
	var kept map[string]bool
	if waits {
		kept = s.kept(mode, len(batches)+1, time.Time{})
	}
	due, _ := s.final.due(i, s.books.recorded, s.coveredBy(mode, len(batches)+1), began, kept)
	if began == nil {
		met, _ := s.final.met(i, s.books.recorded, s.now, s.final.start)
		return met && len(due) > 0
	}
	return len(due) > 0
}

// bring redelivers what is left, dead letters too, until all is acknowledged.
func (s *simulation) bring() {
	s.play()
	s.serveAll()
	for range 40 {
		left := 0
		for _, m := range s.messages {
			if !m.acked && s.problem == "" {
				left++
				s.deliver(m, s.instances[0])
			}
		}
		if left == 0 {
			return
		}
		s.play()
		s.now = s.now.Add(10 * time.Second)
	}
	s.fail("a message is never acknowledged")
}
