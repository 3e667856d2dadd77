//go:build unix && !race

package cycle

import (
	"math/rand/v2"
	"time"
	"unsafe"

	"github.com/phasegate/phasegate/shared/store"
)

// In a third of the worlds a write or a message can take effect late: its caller got an error
// or died minutes ago, and other threads have continued.

// delayed draws whether this is such a world.
func (s *simulation) delayed() {
	if s.seed/10%3 == 0 {
		s.late = rand.New(rand.NewPCG(s.seed, 3))
	}
}

// simLanding is a call that has its effect after its caller has gone on, with what the caller knew.
type simLanding struct {
	thread  *simThread
	seen    store.Snapshot
	checked simChecked
	apply   func()
}

// lands draws whether a call that was refused, or whose caller has died, has its effect later.
func (s *simulation) lands(th *simThread, c simCall, apply func()) {
	if s.late == nil || c != simApply && c != simPublish || s.late.IntN(4) == 0 {
		return
	}
	after := []time.Duration{time.Second, 10 * time.Second, 50 * time.Second, 70 * time.Second, 3 * time.Minute, 20 * time.Minute}[s.late.IntN(6)]
	after = time.Duration(s.late.Int64N(int64(after)))
	s.faults.count[simLate]++
	s.event(after, simEvent{landing: &simLanding{th, th.seen, th.checked, apply}})
	s.orphans++ // the late write may be a claim, and no redelivery follows it
}

func (s *simulation) land(l *simLanding) {
	s.tell("%-14s what it was told had failed lands", l.thread)
	seen, checked := l.thread.seen, l.thread.checked
	l.thread.seen, l.thread.checked = l.seen, l.checked
	l.apply()
	l.thread.seen, l.thread.checked = seen, checked
}

// simClocks is what is wrong with the machines' clocks, in addition to their differences.
type simClocks struct {
	rng      *rand.Rand // nil: wall and monotonic clock agree, and only go forward
	suspends bool       // the monotonic clock stops while a process is paused
}

// setClocks draws whether the clocks of a world diverge. In half of such worlds a paused process is a
// suspended machine. In the other half wall clocks are set back.
func (s *simulation) setClocks() {
	if k := s.seed / 30 % 4; k > 1 {
		s.clocks = simClocks{rand.New(rand.NewPCG(s.seed, 4)), k == 2}
	}
}

// clock is what a machine reads. In a world whose clocks diverge the reading has both of them.
func (s *simulation) clock(in *simInstance) time.Time {
	wall := s.now.Add(in.skew)
	if s.clocks.rng == nil {
		return wall
	}
	to := simBoot.Add(wall.Sub(simBoot.Round(0)))
	// No call of the library moves the two apart; see moved in clocks_test.go.
	(*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&to)).ext = int64(time.Hour) + int64(s.now.Sub(s.final.start.Add(-72*time.Hour))-in.stood)
	return to
}

var simBoot = time.Now()

// jumps sets a machine's wall clock.
func (s *simulation) jumps(in *simInstance, by time.Duration) {
	if s.clocks.rng != nil && !s.clocks.suspends {
		by = -by
	}
	in.skew += by
}

// sleeps sets the clocks of a machine whose process is paused.
func (s *simulation) sleeps(in *simInstance, d time.Duration) {
	switch {
	case s.clocks.rng == nil || s.clocks.rng.IntN(2) == 0:
	case s.clocks.suspends:
		in.stood += d
	default: // set back by an operator or a time server meanwhile
		in.skew -= d
	}
}

// operatorUnanswered draws, where writes land late, whether an operator's write has no answer: a hold that
// lands after it was released, a release that lands after the next hold.
func (s *simulation) operatorUnanswered(c simCall) bool {
	return s.late != nil && !s.calm && s.faults.left > 0 && c == simApply && s.current.acts != nil && s.late.IntN(3) == 0
}

// holdsAndReleases lets an operator act without waiting for answers: hold, release, and hold again.
func (s *simulation) holdsAndReleases() {
	if s.late == nil || s.desk == nil || s.late.IntN(2) == 0 {
		return
	}
	at, mode := s.events[s.late.IntN(len(s.events))].at, s.late.IntN(len(s.desk.rules.modes))
	for _, kind := range []string{"hold", "release", "hold", "release"} {
		s.at(at, simEvent{act: &simAct{kind: kind, mode: mode, lasts: 5 * time.Hour}})
		at = at.Add(time.Duration(1+s.late.IntN(60)) * time.Second)
	}
}
