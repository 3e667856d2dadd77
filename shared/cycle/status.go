package cycle

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// Status of a cycle, as shown to people and programs.
type Status struct {
	Cycle      string        `json:"cycle"`
	Transition string        `json:"transition"`
	Period     string        `json:"period"`
	Mode       string        `json:"mode"`
	State      string        `json:"state"` // waiting, overdue, on_hold, closed, or the newest unpublished batch's, else published
	Satisfied  []string      `json:"satisfied"`
	Missing    []string      `json:"missing"`
	Ignored    []string      `json:"ignored"`
	LocalTimes []string      `json:"local_times,omitempty"` // processors with a run of the mode's time whose timestamp looks like local time without offset
	Doubts     []string      `json:"doubts,omitempty"`      // reports of the mode's time that are most likely mistakes, in words
	Outside    []string      `json:"outside,omitempty"`     // newest reports of processors at a time of no declared mode, which count for no mode, in words
	Reason     string        `json:"reason"`
	NextCheck  time.Time     `json:"next_check,omitzero"` // UTC
	Batches    []BatchStatus `json:"batches"`
	Hold       *Hold         `json:"-"` // in force
	Closed     *Closing      `json:"-"` // by a person; the schedule closes without one
	Failed     []string      `json:"-"` // of Missing: the last report says failed
	Early      bool          `json:"-"` // the period is before the adoption; see [Managed.Judged]
	TooLate    bool          `json:"-"` // overdue: the policy is met, too long after the period
	Since      time.Time     `json:"-"` // from when on the policy has been met, zero while it is not
	Live       bool          `json:"-"` // a batch has a live claim
	Due        bool          `json:"-"` // to be handed over by the next evaluation: no live claim, no hold
}

// BatchStatus is one hand-over of a cycle.
type BatchStatus struct {
	ID       string            `json:"id"`
	N        int               `json:"n"`
	Cause    string            `json:"cause"`
	Actor    string            `json:"actor"`
	Reason   string            `json:"reason"`
	State    State             `json:"state"`
	Runs     []string          `json:"runs"`     // processor@execution_id#key, oldest first
	Messages map[string]string `json:"messages"` // table → the broker's id, "" while unknown
	// Readiness is the answer of its last check, nil before that.
	Readiness *Readiness `json:"-"`
	// FrozenAt and PublishedAt are the server's, DueAt is the policy's, zero before. No message was sent
	// before FrozenAt.
	FrozenAt    time.Time `json:"-"`
	PublishedAt time.Time `json:"-"`
	DueAt       time.Time `json:"-"`
	// CreatedAt is when the batch was begun, GraceSince when its grace period began, zero without one.
	CreatedAt  time.Time `json:"-"`
	GraceSince time.Time `json:"-"`
}

// Status reads one period and describes its cycles, those of which nothing is known
// included. It changes nothing.
func (e *Engine) Status(ctx context.Context, key Key) ([]Status, error) {
	s, err := e.read(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	return s.describe(), nil
}

// Cycles describes the cycles of the periods from one to another, oldest first. It has those of
// which anything is known, and from the first such period on those whose deadline has passed. It
// reads each period once, and the week before. A cycle of which only a report is known that counts
// for no mode is one of them. It leaves out the messages of a batch that stand in parts. It changes nothing.
func (e *Engine) Cycles(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period) ([]Status, error) {
	var out []Status
	managed := false
	for p := t.Calendar().AddDays(from, -relayDays); p <= to; p = t.Calendar().Add(p, 1) {
		key := Key{Transition: t, Period: p}
		s, err := e.readBatches(ctx, key, nil, false, func(*snapshot, string) bool { return true })
		if err != nil {
			return nil, err
		}
		for _, st := range s.describe() {
			if p >= from && (st.shown(managed) || len(st.Outside) > 0) {
				out = append(out, st)
			}
		}
		managed = managed || s.recorded()
	}
	return out, nil
}

// shown reports whether there is anything to show of the cycle: what is known about it or, where an
// earlier period is recorded, that its time has come.
func (st Status) shown(managed bool) bool {
	return st.Recorded() || managed && (st.State == string(policy.Overdue) || st.State == string(StateOnHold) || st.State == string(policy.Closed))
}

// FailedCritical returns the critical processors of the mode that the cycle waits for and whose last
// report says failed.
func (st Status) FailedCritical(m pipeline.Mode) (names []string) {
	switch State(st.State) {
	case State(policy.Overdue), State(policy.Closed), StateBlocked, StatePublished, StateOnHold:
		return nil
	}
	critical := pipeline.SetOf(m.Critical)
	for _, name := range st.Failed {
		if !st.Early && st.Hold == nil && critical[name] {
			names = append(names, name)
		}
	}
	return names
}

// Recorded reports whether anything is known about the cycle.
func (st Status) Recorded() bool {
	return len(st.Satisfied)+len(st.Ignored)+len(st.Failed)+len(st.Batches) > 0 || st.Hold != nil || st.Closed != nil
}

func (s *snapshot) describe() []Status {
	key := s.key
	var out []Status
	doubts, outside := s.doubts(), s.outside()
	for _, m := range slices.Concat(key.Transition.Modes, s.orphans()) {
		st := s.status(m)
		for _, d := range doubts {
			if key.Transition.ModeAt(key.Period, d.at) == m.Name {
				st.Doubts = append(st.Doubts, d.String())
			}
		}
		st.Outside = outside[m.Name]
		out = append(out, st)
	}
	return out
}

func (s *snapshot) status(m pipeline.Mode) Status {
	bs := s.batches[m.Name]
	open, hold := firstUnpublished(bs), s.hold(m.Name)
	h := handing{verdict: policy.Verdict{Satisfied: []string{}, Missing: []string{}, Ignored: []string{},
		Reason: "the definition has no such mode any more"}}
	_, known := s.key.Transition.Mode(m.Name) // else there is no policy to judge it by
	if known {
		h = s.handing(m, open)
	}
	st := Status{
		Cycle: cycleID(s.key, m.Name), Transition: s.key.Transition.ID,
		Period: string(s.key.Period), Mode: m.Name,
		State: string(h.verdict.State), Satisfied: h.verdict.Satisfied, Missing: h.verdict.Missing,
		Ignored: h.verdict.Ignored, Reason: h.verdict.Reason, NextCheck: h.verdict.NextCheck,
		Batches: []BatchStatus{}, Failed: h.verdict.Failed, TooLate: h.verdict.TooLate,
		Since: h.verdict.Since,
	}
	for _, r := range s.runs {
		if r.LocalTime && s.key.Transition.ModeAt(s.key.Period, r.EventTime) == m.Name {
			st.LocalTimes = append(st.LocalTimes, r.Processor)
		}
	}
	slices.Sort(st.LocalTimes)
	st.LocalTimes = slices.Compact(st.LocalTimes)
	waits := true // nothing is promised yet: a hold keeps it
	switch {
	case open != nil && (!open.unfrozen() || !known):
		st.State, waits = string(open.State), false
	case open != nil && (h.due() || h.verdict.State == policy.Grace):
		st.State = string(open.State)
		if open.State == StateBlocked {
			s.blocked(m, open, &st)
		}
	case open == nil && s.highest(m.Name)+s.former[m.Name].N > 0 && len(h.runs) == 0 && !h.collects && (!known || h.began || h.verdict.State == policy.Ready):
		st.State, st.Reason, st.NextCheck, st.TooLate = string(StatePublished), s.handedBy(m.Name).Reason, time.Time{}, false
		if f := s.former[m.Name]; s.highest(m.Name) == 0 {
			st.Reason = f.Reason + "; handed over as " + strings.Join(f.names, ", ") + ", which is no name of the definition"
		}
		waits = false
	case open == nil && s.handedBy(m.Name).By != "" && !h.began && h.verdict.State == policy.Overdue:
		// An operator has handed it over without the missing runs, and knows that they are late.
		st.State, st.NextCheck, st.TooLate = string(StatePublished), time.Time{}, false
		st.Reason = "published by " + s.handedBy(m.Name).By
		if len(st.Missing) > 0 {
			st.Reason += ", without " + policy.Listed(st.Missing)
		}
		waits = false
	case h.verdict.State == policy.Ready, h.verdict.State == policy.Grace:
		// Due, and the next evaluation begins it.
		st.State, st.NextCheck = string(policy.Waiting), s.now
	}
	s.scheduled(m, &st)
	st.Due = known && hold == nil && h.due() && (open == nil || open.unfrozen() && open.State != StateBlocked && !open.live(s.now)) ||
		open != nil && open.State == StatePublishing && !open.live(s.now)
	if hold != nil {
		st.Hold = hold
		words := fmt.Sprintf("on hold by %s until %s: %s", hold.Actor, s.key.Transition.Calendar().Local(hold.Until), hold.Reason)
		if waits && !(h.selected && open.Force) {
			st.State, st.Reason, st.NextCheck = string(StateOnHold), words+"; "+st.Reason, hold.Until
		} else {
			st.Reason += "; what comes next is " + words
		}
	}
	if closed := s.closed[m.Name]; closed != nil {
		words := fmt.Sprintf("closed by %s at %s: %s", closed.Actor, s.key.Transition.Calendar().Local(closed.At), closed.Reason)
		if st.Closed = closed; waits && !h.selected {
			st.State, st.Reason, st.NextCheck, st.Since, st.Due, st.TooLate = string(policy.Closed), words, time.Time{}, time.Time{}, false, false
			if n := s.handedBy(m.Name).N; n > 0 {
				st.Reason += fmt.Sprintf("; batch %d was published", n)
			}
		} else {
			st.Reason += "; what comes next is " + words
		}
	}
	s.forget(&st)
	runs := s.byKey(bs)
	for _, b := range bs {
		st.Batches = append(st.Batches, describe(s.key.Transition, runs, b))
		st.Live = st.Live || b.live(s.now)
	}
	return st
}

// scheduled says what the schedule has to do with a cycle's state.
func (s *snapshot) scheduled(m pipeline.Mode, st *Status) {
	switch l := s.schedule; {
	case st.State == string(policy.Closed):
		st.NextCheck = l.next()
	case st.State == string(policy.Overdue) && l.Problem != "" && policy.Empty(s.input(m)):
		st.Reason += "; " + l.Problem
	}
}

// blocked says what a batch waits for whose data is not ready, and past the deadline
// that an operator has to look.
func (s *snapshot) blocked(m pipeline.Mode, b *batch, st *Status) {
	st.Reason, st.NextCheck = b.Reason, b.NextAttempt
	if s.overdue(m) {
		deadline := s.key.Transition.Calendar().Instant(s.key.Period, *m.Deadline)
		st.State = string(policy.Overdue)
		st.Reason = fmt.Sprintf("deadline %s passed: %s", s.key.Transition.Calendar().Local(deadline), b.Reason)
	}
}

// byKey returns the runs that batches took, by key, with their places in the order of time:
// worked out once, however many batches there are.
func (s *snapshot) byKey(bs []*batch) map[string]placed {
	all := map[string]placed{}
	if len(bs) == 0 {
		return all
	}
	runs := slices.Clone(s.runs)
	slices.SortFunc(runs, policy.Older)
	for i, r := range runs {
		all[r.Key] = placed{i, r}
	}
	return all
}

type placed struct {
	place int
	run   policy.Run
}

func describe(t *pipeline.Transition, all map[string]placed, b *batch) BatchStatus {
	d := BatchStatus{ID: b.ID, N: b.N, Cause: b.Cause, Actor: b.Actor, Reason: b.Reason, State: b.State,
		Runs: []string{}, Messages: map[string]string{}, FrozenAt: b.FrozenAt, PublishedAt: b.PublishedAt, DueAt: b.DueAt, CreatedAt: b.CreatedAt, GraceSince: b.GraceSince}
	if b.Readiness.Outcome != "" {
		d.Readiness = &b.Readiness
	}
	var runs []placed
	for _, key := range b.Runs {
		if p, ok := all[key]; ok {
			runs = append(runs, p)
		}
	}
	slices.SortFunc(runs, func(a, b placed) int { return a.place - b.place })
	for _, p := range runs {
		d.Runs = append(d.Runs, runName(b.then(t, p.run)))
	}
	for name, m := range b.Messages {
		d.Messages[m.table(t, name)] = m.ID
	}
	return d
}

// runName names a run: one execution may have reported twice.
func runName(r policy.Run) string { return r.Processor + "@" + r.ExecutionID + "#" + r.Key }

// report logs one line for each cycle that this Converge has moved or that is open. The line has
// the verdict, its sets and its reason. For a finished hand-over it has the seconds from the
// moment it was due to the broker's last id. It returns the cycles of which anything is to be said.
func (c *convergence) report(ctx context.Context, s *snapshot) (shown []Status) {
	if !s.recorded() && !c.expected || !c.Log.Enabled(ctx, slog.LevelWarn) {
		return nil // the usual period of a relay
	}
	for _, st := range s.describe() {
		moved := 0
		for _, b := range s.batches[st.Mode] {
			if c.published[b.ID] {
				moved++
				c.line(ctx, st, slog.LevelInfo, telemetry.BatchPublished, append([]any{"batch", b.N, "cause", b.Cause,
					"messages", len(b.Messages), "seconds", b.PublishedAt.Sub(b.DueAt).Seconds()}, measured(b)...)...)
			}
		}
		silent := st.State != string(policy.Overdue) && st.State != string(policy.Closed)
		if !st.Recorded() && (!c.expected || silent || c.missed(st.Mode)) {
			continue
		}
		st = c.judged(ctx, st)
		if st.State == string(policy.Overdue) && st.Recorded() && c.managed.Since != "" && c.managed.Excuses(c.key.Transition, st) {
			continue
		}
		shown = append(shown, st)
		if moved > 0 {
			continue
		}
		switch State(st.State) {
		case State(policy.Closed):
			if c.scheduleAsked { // not at every evaluation
				c.line(ctx, st, slog.LevelInfo, telemetry.CycleClosed)
			}
		case StatePublished:
			if st.Hold != nil {
				c.line(ctx, st, slog.LevelWarn, telemetry.CycleOnHold)
			}
		case StateBlocked:
			c.line(ctx, st, slog.LevelWarn, telemetry.CycleBlocked, measured(firstUnpublished(s.batches[st.Mode]))...)
		case State(policy.Overdue):
			c.line(ctx, st, slog.LevelWarn, telemetry.CycleOverdue)
		case StateOnHold:
			c.line(ctx, st, slog.LevelWarn, telemetry.CycleOnHold)
		default:
			level := slog.LevelInfo
			if len(st.Failed) > 0 {
				level = slog.LevelWarn
			}
			c.line(ctx, st, level, telemetry.CycleWaiting, "failed", policy.Capped(st.Failed))
		}
	}
	return shown
}

// judged applies the adoption. It reads it where a notification depends on it and no relay has read
// it: of most reports it does not.
func (c *convergence) judged(ctx context.Context, st Status) Status {
	if st.State != string(policy.Overdue) && len(st.Failed) == 0 {
		return st
	}
	if c.managed.Since == "" {
		if c.Shadow { // it sends no notifications
			return st
		}
		managed, err := c.Managed(ctx, c.key.Transition)
		if err != nil {
			c.Log.WarnContext(ctx, "the adoption cannot be read, so the cycle is judged: "+err.Error(), "transition", st.Transition, "period", st.Period)
			return st
		}
		c.managed = managed
	}
	return c.managed.Judged(st)
}

// missed reports whether reports about a mode may have gone to the orchestrator before us.
func (c *convergence) missed(mode string) bool {
	m, known := c.key.Transition.Mode(mode)
	return known && c.managed.missed(c.key.Transition, c.key.Period, m)
}

func (c *convergence) line(ctx context.Context, st Status, level slog.Level, event string, more ...any) {
	args := append([]any{"event", event, "transition", st.Transition, "period", st.Period, "mode", st.Mode,
		"state", st.State, "satisfied", policy.Capped(st.Satisfied), "missing", policy.Capped(st.Missing), "ignored", policy.Capped(st.Ignored),
		"definition", c.key.Transition.Definition(), "claimed_by_message", strings.Join(policy.Capped(c.messageIDs), " ")}, more...)
	c.Log.Log(ctx, level, st.Reason, args...)
}
