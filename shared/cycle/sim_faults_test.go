//go:build unix && !race

package cycle

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// simFault is what goes wrong at one call.
type simFault int

const (
	simHealthy    simFault = iota
	simRefused             // no effect, and an error
	simLost                // its effect, and an error
	simRetried             // its effect, and the driver's own second try is answered
	simSlowBefore          // the process is paused, then the call is made
	simSlowAfter           // the call is made, then the process is paused
	simDiesBefore          // the process is gone, without the effect
	simDiesAfter           // the process is gone, with the effect
	simClockJumps          // the machine's clock is set forward
	simPartly              // of the messages some are accepted, some answers are lost
	simLate                // an error or a dead caller, and the effect later
	simFaultKinds
)

var simFaultNames = [simFaultKinds]string{"", "call refused", "answer lost", "retried by the driver", "slow before", "slow after",
	"killed before", "killed after", "clock set forward", "some messages refused or lost", "landed late"}

// simFaults is what may still go wrong, and what did.
type simFaults struct {
	rate  int // one call in so many; 0: none
	left  int
	count [simFaultKinds]int
}

type simCall int

const (
	simGet simCall = iota
	simApply
	simPublish
	simCheck
)

// fault decides what goes wrong at a call.
func (s *simulation) fault(c simCall) simFault {
	f := &s.faults
	rate := f.rate
	if c == simPublish { // one call of twenty, and the one that matters most
		rate = max(rate/8, 2)
	}
	if s.operatorUnanswered(c) {
		f.left--
		f.count[simRefused]++
		return simRefused
	}
	if s.calm || f.left == 0 || s.rng.IntN(rate) > 0 {
		return simHealthy
	}
	kinds := []simFault{simRefused, simLost, simLost, simSlowBefore, simSlowBefore, simSlowAfter, simDiesBefore, simDiesAfter, simDiesAfter, simClockJumps}
	switch c {
	case simApply:
		kinds = append(kinds, simRetried, simRetried)
	case simPublish:
		kinds = append(kinds, simPartly, simPartly, simPartly)
	}
	kind := kinds[s.rng.IntN(len(kinds))]
	if (c == simGet || c == simCheck) && kind == simLost {
		kind = simRefused
	}
	if s.late != nil && (c == simApply || c == simPublish) && s.late.IntN(2) == 0 {
		kind = []simFault{simRefused, simRefused, simDiesBefore}[s.late.IntN(3)]
	}
	f.left--
	f.count[kind]++
	return kind
}

// asleep pauses a process, often beyond its claim, and lets an event happen meanwhile.
func (s *simulation) asleep(th *simThread) {
	d := []time.Duration{time.Second, 30 * time.Second, 59 * time.Second, simClaim, simClaim + time.Microsecond,
		90 * time.Second, 100 * time.Second, 11 * time.Minute}[s.rng.IntN(8)]
	e, after := simEvent{job: "meanwhile"}, time.Duration(s.rng.Int64N(int64(d)))
	switch k := s.rng.IntN(6); {
	case k < 4 && s.desk != nil && th.claim != nil && !s.books.batches[th.claim.id].frozen(): // an operator holds the cycle of the claimed batch
		e = simEvent{act: &simAct{kind: "hold", mode: s.desk.rules.mode(th.claim.mode), lasts: 5 * time.Hour}}
		if d > simClaim {
			after = simClaim + after%(d-simClaim)
		}
	case k < 3 && s.desk != nil:
		e = simEvent{act: s.drawAct()}
	case k < 4 && th.message != nil:
		e = simEvent{message: s.messages[s.rng.IntN(len(s.messages))]}
	case k > 4:
		e = simEvent{}
	}
	if e != (simEvent{}) {
		s.event(after, e)
	}
	s.sleeps(th.instance, d)
	th.sleep(d)
}

// do makes one call of the engine: first other threads get a turn, then the fault applies.
// describe names the call.
func (s *simulation) do(c simCall, describe func() string, call func(simFault) error) error {
	th := s.current
	th.pause()
	s.calls++
	if s.path == nil {
		s.now = s.now.Add(time.Duration(1+s.rng.IntN(20)) * time.Millisecond)
	} else {
		s.now = s.now.Add(time.Millisecond)
	}
	var f simFault
	if s.path == nil {
		f = s.fault(c)
	} else {
		f = s.path.fault(th)
	}
	if s.trace != nil {
		what := describe()
		if f != simHealthy {
			what += "  *** " + simFaultNames[f]
		}
		s.tell("%-14s %s", th, what)
	}
	switch late := th.late; f {
	case simRefused:
		s.lands(th, c, late)
		return errLost
	case simLost:
		_ = s.tellError(call(f))
		return errLost
	case simRetried:
		_ = s.tellError(call(f))
	case simSlowBefore:
		s.asleep(th)
	case simDiesBefore:
		s.lands(th, c, late)
		s.kill(th.instance)
		panic(simKilled{})
	case simClockJumps:
		s.jumps(th.instance, time.Duration(s.rng.IntN(300))*time.Second)
	}
	if th.cancel != nil && s.now.After(th.ends) {
		th.cancel()
	}
	err := s.tellError(call(f))
	switch f {
	case simSlowAfter:
		s.asleep(th)
	case simDiesAfter:
		s.kill(th.instance)
		panic(simKilled{})
	}
	return err
}

func (s *simulation) tellError(err error) error {
	if err != nil {
		s.tell("               %v", err)
	}
	return err
}

// simStore is the store as the instances reach it.
type simStore simulation

func (f *simStore) Get(ctx context.Context, refs ...store.Ref) (snap store.Snapshot, err error) {
	s := (*simulation)(f)
	th := s.current
	s.spends(th, len(refs))
	err = s.do(simGet, func() string { return "get " + simRefs(refs) }, func(simFault) (err error) {
		snap, err = s.mem.Get(ctx, refs...)
		return err
	})
	if err == nil && refs[0].Collection == periodsCollection && strings.HasPrefix(refs[0].ID, simID+"_"+string(simPeriod)) {
		th.seen = snap
	}
	return snap, err
}

func (f *simStore) Apply(ctx context.Context, ws ...store.Write) (vs []store.Version, err error) {
	s := (*simulation)(f)
	th := s.current
	s.spends(th, 0)
	if slices.ContainsFunc(ws, func(w store.Write) bool { return w.Ref.Collection == "completion" }) {
		th.shows++
	}
	th.late = func() {
		if _, err := s.mem.Apply(context.WithoutCancel(ctx), ws...); s.tellError(err) == nil {
			s.applied(th, ws)
		}
	}
	err = s.do(simApply, func() string { return simWrites(ws) }, func(simFault) (err error) {
		vs, err = s.mem.Apply(ctx, ws...)
		if err == nil {
			th.writes++
			s.applied(th, ws)
		}
		return err
	})
	return vs, err
}

func (f *simStore) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	s := (*simulation)(f)
	return func(yield func(store.Doc, error) bool) {
		var docs []store.Doc
		err := s.do(simGet, func() string { return "scan " + collection + " " + from + " " + to }, func(simFault) error {
			docs = nil
			for doc, err := range s.mem.Scan(ctx, collection, from, to) {
				if err != nil {
					return err
				}
				docs = append(docs, doc)
			}
			return nil
		})
		if err != nil {
			yield(store.Doc{}, err)
			return
		}
		for _, doc := range docs {
			if !yield(doc, nil) {
				return
			}
		}
	}
}

var errSimRefused = errors.New("the broker is not available")

// publish is the downstream topic.
func (s *simulation) publish(ctx context.Context, topic string, msgs []wire.Outgoing) []Published {
	th, out := s.current, make([]Published, len(msgs))
	began := s.now
	s.publishing(th)
	th.late = func() {
		for _, m := range msgs {
			s.accept(th, topic, m, s.now.AddDate(1, 0, 0), false) // a copy is expected here
		}
	}
	err := s.do(simPublish, func() string { return "publish " + simOutgoing(msgs) }, func(f simFault) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for i, m := range msgs {
			fate := f
			if f == simPartly {
				fate = []simFault{simHealthy, simRefused, simLost, simRetried}[s.rng.IntN(4)]
			}
			switch {
			case fate == simRefused:
				out[i] = Published{Err: errSimRefused}
			case fate == simLost:
				s.accept(th, topic, m, began, false)
				out[i] = Published{Err: errLost}
			case fate == simRetried: // taken, and answered without an id
				s.accept(th, topic, m, began, false)
				out[i] = Published{}
			default:
				out[i] = Published{ID: s.accept(th, topic, m, began, f != simDiesAfter)}
				th.ids = append(th.ids, out[i].ID)
			}
		}
		return nil
	})
	if err != nil {
		for i := range out {
			out[i] = Published{Err: err}
		}
	}
	return out
}

// simChecks has the outcomes of the readiness checks of a seed.
type simChecks struct {
	outcomes []Outcome // chosen from until calm
	coverage bool
	schedule bool // there is one to ask
}

func (s *simulation) check(_ context.Context, key Key, mode string, processors []string) Readiness {
	th := s.current
	seen := th.seen
	s.checksAgain(th, mode, processors)
	s.isShown(th)
	r := Readiness{Outcome: Passed}
	if !s.calm {
		r.Outcome = s.checks.outcomes[s.rng.IntN(len(s.checks.outcomes))]
	}
	if s.checks.coverage {
		pct := 97.4
		r.MinutesCoverage = &pct
	}
	if r.Outcome == Failed {
		r.Reasons = []string{"too few rows"}
	}
	describe := func() string { return fmt.Sprintf("check %s %v: %q", mode, processors, r.Outcome) }
	if err := s.do(simCheck, describe, func(simFault) error { return nil }); err != nil {
		r = Readiness{Outcome: Unknown, Reasons: []string{err.Error()}}
	}
	th.checked = simChecked{mode: mode, processors: slices.Clone(processors), seen: seen, ready: r}
	return r
}

// expected is the schedule: games, none, or no answer, changing from one time to the
// next. Every report that counts has rows, so the schedule must not matter.
func (s *simulation) expected(_ context.Context, key Key) (int64, error) {
	if s.calm {
		return 0, ErrNoSchedule // else each relay would note an answer
	}
	s.asksAgain(s.current)
	games := []int64{7, 0, -1}[s.rng.IntN(3)]
	describe := func() string { return fmt.Sprintf("schedule of %s: %d", key.Period, games) }
	if err := s.do(simCheck, describe, func(simFault) error { return nil }); err != nil || games < 0 {
		return 0, errors.Join(errors.New("the schedule cannot be read"), err)
	}
	return games, nil
}

// The functions below format the lines of a trace.

func simRefs(refs []store.Ref) string {
	var out []string
	for _, r := range refs {
		out = append(out, simShort(r))
	}
	return strings.Join(out, " ")
}

func simShort(r store.Ref) string {
	if r.Collection == periodsCollection || r.Collection == triggersCollection {
		return strings.TrimPrefix(r.ID, simID+"_")
	}
	return r.String()
}

func simWrites(ws []store.Write) string {
	var out []string
	for _, w := range ws {
		var fields []string
		for _, f := range w.Fields {
			value := fmt.Sprint(f.Value)
			switch {
			case store.IsServerTime(f.Value):
				value = "now"
			case len(value) > 60:
				value = value[:60] + "…"
			}
			fields = append(fields, strings.Join(f.Path, ".")+"="+value)
		}
		slices.Sort(fields)
		out = append(out, fmt.Sprintf("%s %s {%s}", w.Op, simShort(w.Ref), strings.Join(fields, ", ")))
	}
	return strings.Join(out, " + ")
}

func simOutgoing(msgs []wire.Outgoing) string {
	var out []string
	for _, m := range msgs {
		out = append(out, strings.TrimPrefix(m.Attributes["trigger_id"], simID+"_"))
	}
	return strings.Join(out, " ")
}
