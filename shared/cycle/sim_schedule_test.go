//go:build unix && !race

package cycle

import (
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

// ended is the broker's side of an answer: a message that was not acknowledged is
// redelivered with growing delays, and is dead-lettered in the end.
func (s *simulation) ended(th *simThread) {
	ok := th.ok && !th.killed
	if s.trace != nil {
		s.tell("     %s %s", th, map[bool]string{true: "acknowledged", false: "not acknowledged"}[ok])
	}
	if th.request != nil {
		s.asked(th, ok)
		return
	}
	in := th.instance
	switch th {
	case in.recording:
		defer s.nextGroup(in)
	case in.evaluating:
		defer s.nextEvaluation(in)
	}
	if !ok && !th.followed() {
		s.orphans++
	}
	for _, m := range append(th.messages(), th.stranded...) {
		if recorded := ok && !th.refused[m]; recorded && th.stage == simRecords {
			in.recorded = append(in.recorded, m)
			continue
		}
		s.came(th, m, ok && !th.refused[m])
	}
	if th.stage == simRecords && (in.evaluating == nil || s.rng.IntN(4) == 0) { // that one is slow
		s.nextEvaluation(in)
	}
}

// followed reports whether a redelivered message repeats the thread's work if it fails. Messages
// that only waited behind it find its claim, and leave the work to it.
func (th *simThread) followed() bool {
	return slices.ContainsFunc(th.messages(), func(m *simMessage) bool { return m != nil && !m.acked })
}

// messages are those that the thread handles.
func (th *simThread) messages() []*simMessage {
	return append([]*simMessage{th.message}, th.company...)
}

// came decides what happens next to a message that a thread has handled, or to a thread without one.
func (s *simulation) came(th *simThread, m *simMessage, ok bool) {
	if th.acts != nil && (th.acts.kind == "hold" || th.acts.kind == "release") {
		th.instance.holding = false
		if until := s.now.Add(th.acts.lasts); th.acts.kind == "hold" && s.heldUntil.Before(until) {
			s.heldUntil = until // at the latest
		}
	}
	if m != nil && ok {
		s.unclaimed(th, m)
	}
	switch {
	case s.path != nil: // bring redelivers the rest afterwards
		if m != nil {
			m.acked = m.acked || ok
		}
	case m == nil:
		if !ok && !s.calm && th.acts == nil {
			s.event(10*time.Second, simEvent{job: th.job})
		}
	case ok:
		m.acked = true
		if !s.calm && s.rng.IntN(12) == 0 { // once more, although it was acknowledged
			s.event(s.delay(), simEvent{message: m})
		}
	case m.acked:
	case m.attempts >= simAttempts: // it is dead-lettered until the world comes to rest
	default:
		s.event(min(10*time.Second<<(m.attempts-1), 10*time.Minute), simEvent{message: m})
	}
}

// simAttempts is how often a message is delivered before it goes to the dead letter.
const simAttempts = 6

func (s *simulation) event(after time.Duration, e simEvent) {
	e.at = s.now.Add(after)
	s.events = append(s.events, e)
}

// delay draws the time until an event: often at once, sometimes much later.
func (s *simulation) delay() time.Duration {
	switch s.rng.IntN(6) {
	case 0, 1, 2:
		return time.Duration(s.rng.IntN(100)) * time.Millisecond
	case 3:
		return time.Duration(s.rng.IntN(90)) * time.Second
	case 4:
		return time.Duration(s.rng.IntN(50)) * time.Minute
	}
	return time.Duration(s.rng.IntN(30)) * time.Hour
}

// play runs until nothing is left to happen.
func (s *simulation) play() {
	for s.problem == "" {
		if s.calls > 5000 {
			s.fail("no end after %d calls", s.calls)
			return
		}
		s.happen()
		s.carry()
		th, ok := s.choose()
		if !ok {
			return
		}
		if th != nil {
			s.step(th)
		}
	}
}

// happen starts the events that are due.
func (s *simulation) happen() {
	for i := 0; i < len(s.events); i++ {
		e := s.events[i]
		if e.at.After(s.now) {
			continue
		}
		s.events = slices.Delete(s.events, i, i+1)
		i--
		if e.landing != nil {
			s.land(e.landing)
			continue
		}
		in := s.instances[s.rng.IntN(len(s.instances))]
		switch {
		case e.message != nil:
			s.deliver(e.message, in)
		case e.request != nil:
			s.serve(e.request, in)
		case e.deploy != nil:
			s.tell("     instance %d has definition %d", e.deploy.id, e.rules.version+1)
			e.deploy.rules = e.rules
		case e.act != nil:
			s.act(e.act)
		case e.expiry:
			s.deleteSome()
		default:
			s.relay(e.job, in, s.rng.IntN(16) == 0 || s.desk != nil && s.rng.IntN(4) == 0)
		}
	}
}

// choose returns the thread that continues. When all sleep, it moves the clock to the next
// event and returns nil. It returns false when nothing is left.
func (s *simulation) choose() (*simThread, bool) {
	ready := 0
	next := s.now.Add(1 << 62)
	for _, th := range s.threads {
		if th.killed {
			return th, true // to unwind what it has on its stack
		}
		if !th.wake.After(s.now) {
			ready++
		} else if th.wake.Before(next) {
			next = th.wake
		}
	}
	if ready > 0 {
		k := s.rng.IntN(ready)
		for _, th := range s.threads {
			if !th.wake.After(s.now) {
				if k == 0 {
					return th, true
				}
				k--
			}
		}
	}
	if len(s.threads)+len(s.events) == 0 {
		return nil, false
	}
	for _, e := range s.events {
		if e.at.Before(next) {
			next = e.at
		}
	}
	s.now = next
	return nil, true
}

// carry brings some message of the downstream topic to its consumer, in any order,
// now and then twice.
func (s *simulation) carry() {
	wire := s.books.wire
	if len(wire) == 0 || s.rng.IntN(4) > 0 {
		return
	}
	i := s.rng.IntN(len(wire))
	s.consume(wire[i])
	if s.rng.IntN(4) > 0 {
		s.books.wire = slices.Delete(wire, i, i+1)
	}
}

// consume is the next phase, which drops what it has seen by trigger_id.
func (s *simulation) consume(m wire.Outgoing) {
	id := m.Attributes["trigger_id"]
	if first, seen := s.books.effects[id]; seen && first != string(m.Data) {
		s.fail("two messages with the trigger id %s differ:\n%s\n%s", id, first, m.Data)
	}
	s.books.effects[id] = string(m.Data)
}
