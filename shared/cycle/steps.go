package cycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// actorEngine is the actor of batches that a policy caused.
const actorEngine = "engine"

// execute does one action. store.ErrExists and store.ErrConflict say that the
// snapshot was no longer current; nothing was written then.
func (c *convergence) execute(ctx context.Context, s *snapshot, a action) error {
	if a.do != claim && a.do != create {
		c.fresh = "" // the claim has been used
	}
	switch a.do {
	case create:
		return c.create(ctx, s, a)
	case updateGrace:
		return c.updateGrace(ctx, a)
	case claim:
		return c.claim(ctx, a.batch)
	case freeze:
		return c.freeze(ctx, s, a)
	case publish:
		return c.publish(ctx, a)
	case askSchedule:
		return c.askSchedule(ctx)
	case giveBack:
		return c.apply(ctx, store.MergeIf(c.batchRef(a.batch.ID), a.batch.Version, store.F("", "holder")))
	case trim:
		return c.trim(ctx, *a.doc)
	case project:
		return c.project(ctx, s, a)
	case settle:
		return c.settle(ctx, s, a)
	case unsettle:
		period := s.periods[0]
		return c.apply(ctx, store.MergeIf(period.Ref, period.Version, store.F(nil, settledField)))
	}
	return fmt.Errorf("no such step: %d", a.do)
}

func (c *convergence) apply(ctx context.Context, writes ...store.Write) error {
	_, err := c.Store.Apply(ctx, writes...)
	return err
}

// cause is a policy's cause, or the repair that has found it not acted upon.
func (c *convergence) cause(byPolicy string) string {
	if c.repairer != "" {
		return CauseReconciliation
	}
	return byPolicy
}

func (c *convergence) actor() string {
	if c.repairer != "" {
		return c.repairer
	}
	return actorEngine
}

// create makes a batch and lists it in the period, in one commit: of any number of
// simultaneous deciders one wins. It is born claimed, unless it has to wait first.
func (c *convergence) create(ctx context.Context, s *snapshot, a action) error {
	id := batchID(c.key, a.mode.Name, a.n)
	fields := []store.Field{
		store.F(a.n, "n"),
		store.F(c.cause(a.handing.verdict.Cause), "cause"),
		store.F(c.actor(), "actor"),
		store.F(a.handing.verdict.Reason, "reason"),
		store.F(encode(a.handing.verdict.Capped()), "verdict"),
		store.F(store.ServerTime, "created_at"),
	}
	fields = append(fields, c.expiry(c.Now())...)
	if a.handing.verdict.State == policy.Grace {
		fields = append(fields, store.F(string(StateGrace), "state"), store.F(store.ServerTime, "grace_since"))
	} else {
		fields = append(append(fields, store.F(string(StateChecking), "state")), c.claimFields()...)
	}
	return c.inPeriod(ctx, c.key, s, []store.Field{store.F(store.Union(id), "batches"), c.stays(c.Now())}, store.Create(c.batchRef(id), fields...))
}

// inPeriod commits writes together with fields of the period that are no reports. If the period's
// first document is full, the fields go to the document that no report can fill, and the same
// commit lets the first one stay.
// With a snapshot, the document must not have been deleted since, if it is near its end.
func (e *Engine) inPeriod(ctx context.Context, key Key, s *snapshot, fields []store.Field, writes ...store.Write) error {
	period := store.Merge(e.periodRef(key), fields...)
	if s != nil && s.ending() {
		period = store.MergeIf(period.Ref, s.periods[0].Version, fields...)
		writes = append(slices.Clone(writes), s.shardsEnd(e.stays(e.Now()))...)
	}
	_, err := e.Store.Apply(ctx, append(slices.Clone(writes), period)...)
	if !errors.Is(err, store.ErrTooLarge) {
		return err
	}
	writes = append(slices.Clone(writes), store.Merge(e.controlRef(key), fields...))
	period.Fields = []store.Field{e.stays(e.Now())}
	_, err = e.Store.Apply(ctx, append(slices.Clone(writes), period)...)
	if errors.Is(err, store.ErrTooLarge) { // null is smaller than a time: the first has no expires_at
		_, err = e.Store.Apply(ctx, writes...)
	}
	return err
}

// updateGrace follows a definition that changed while a batch was waiting: the quorum that
// it waits with has just come to hold, or holds no more.
func (c *convergence) updateGrace(ctx context.Context, a action) error {
	var since any
	path := []string{"graces", c.key.Transition.Definition()}
	if a.handing.verdict.State == policy.Grace {
		since = store.ServerTime
		if !a.batch.GraceUpdated {
			path = []string{"grace_since"} // the first one, for every definition
		}
	}
	return c.apply(ctx, store.MergeIf(c.batchRef(a.batch.ID), a.batch.Version,
		store.F(string(StateGrace), "state"), store.F(since, path...),
		store.F(a.handing.verdict.Reason, "reason"), store.F(encode(a.handing.verdict.Capped()), "verdict")))
}

// claim takes over a batch without a live claim, or renews our claim.
func (c *convergence) claim(ctx context.Context, b *batch) error {
	if b.Holder != "" && !c.mine(b) {
		c.Log.WarnContext(ctx, "taking over a hand-over that another instance left", "event", telemetry.BatchResumed,
			"transition", c.key.Transition.ID, "period", string(c.key.Period), "batch", b.ID, "state", string(b.State))
	}
	return c.apply(ctx, store.MergeIf(c.batchRef(b.ID), b.Version, c.claimFields()...))
}

func (c *convergence) claimFields() []store.Field {
	first, others := "", []any{}
	for i, id := range c.messageIDs {
		if i == 0 {
			first = id
		} else {
			others = append(others, id)
		}
	}
	return []store.Field{
		store.F(c.holder(), "holder"),
		store.F(store.ServerTime, "claimed_at"),
		store.F(c.Claim.Milliseconds(), "claim_ms"),
		store.F(first, "claim_message"),
		store.F(others, "claim_messages"),
	}
}

// Readiness is tried again after 5 minutes, then 10, 20 and, from then on, 30.
const (
	firstRetry = 5 * time.Minute
	lastRetry  = 30 * time.Minute
)

// freeze checks readiness for the runs of the snapshot and, when it passes, fixes
// exactly these runs and their payloads. Otherwise the batch is blocked and free,
// unless its deadline says that it goes all the same.
func (c *convergence) freeze(ctx context.Context, s *snapshot, a action) error {
	ref, h := c.batchRef(a.batch.ID), a.handing
	if !h.selected {
		h.verdict.Cause = c.cause(h.verdict.Cause)
		a.handing = h
	}
	names := processors(c.key.Transition, h.runs)
	ready := c.check(ctx, a, names)
	c.logUnknown(ctx, a.mode.Name, ready)
	if ready.Outcome != Passed && ready.Outcome != NotChecked { // any other outcome is not ok
		if h.selected || !s.overdue(a.mode) || a.mode.AtDeadline != pipeline.DeadlineHandOver {
			attempts := a.batch.Attempts
			if a.batch.Checked != fingerprint(h.runs) {
				attempts = 0 // other data: it may be ready soon
			}
			wait := s.retry(a.mode, attempts)
			return c.apply(ctx, store.MergeIf(ref, a.batch.Version,
				store.F(string(StateBlocked), "state"), store.F("", "holder"),
				store.F(blockedReason(ready), "reason"), store.F(encode(ready), "readiness"),
				store.F(attempts+1, "attempts"), store.F(s.now.Add(wait), "next_attempt"), store.F(fingerprint(h.runs), "checked")))
		}
		h.verdict.Reason += "; deadline passed, handed over in spite of " + blockedReason(ready)
	}
	messages, err := c.payloads(ctx, s, a, ready)
	if err != nil {
		return err
	}
	placed, stay, err := c.place(ctx, a.batch, messages)
	if err != nil {
		return err
	}
	keys := make([]string, len(h.runs))
	for i, r := range h.runs {
		keys[i] = r.Key
	}
	actor := c.actor()
	if h.selected || h.verdict.Cause == CauseReconciliation && c.repairer == "" {
		actor = a.batch.Actor
	}
	freeze := store.MergeIf(ref, a.batch.Version, append(placed,
		store.F(string(StatePublishing), "state"), store.F(actor, "actor"), store.F(h.selected, "selected"),
		store.F(h.verdict.Cause, "cause"), store.F(h.verdict.Reason, "reason"),
		store.F(encode(h.verdict.Capped()), "verdict"), store.F(encode(ready), "readiness"),
		store.F(h.verdict.Since, "due_at"), store.F(store.ServerTime, "frozen_at"),
		store.F(runKeys(keys, len(stay) > 0), "runs"), store.F(s.expects(a), "expects"))...)
	return c.apply(ctx, append(stay, freeze)...)
}

// check asks for readiness, for as long as the claim is good.
func (c *convergence) check(ctx context.Context, a action, names []string) Readiness {
	if a.handing.selected && a.batch.Force {
		return Readiness{Outcome: NotChecked, Reasons: []string{"not checked: " + a.batch.Actor + " forced it"}}
	}
	ctx, cancel := context.WithTimeout(ctx, max(c.safeRemaining(a.batch.Holder), 0))
	defer cancel()
	if c.checks != nil {
		began := c.Now()
		defer func() { *c.checks -= c.Now().Sub(began) }()
	}
	return c.Check(ctx, c.key, a.mode.Name, names)
}

// fingerprint tells sets of runs apart: a run that comes to a blocked batch may be the
// repair, and is evaluated when it arrives.
func fingerprint(runs []policy.Run) string {
	keys := make([]string, len(runs))
	for i, r := range runs {
		keys[i] = r.Key
	}
	slices.Sort(keys)
	sum := sha256.Sum256([]byte(strings.Join(keys, " ")))
	return hex.EncodeToString(sum[:8])
}

// overdue reports whether a cycle that has not begun is past its deadline. A further
// batch has none.
func (s *snapshot) overdue(m pipeline.Mode) bool {
	return m.Deadline != nil && s.began(m.Name) == nil && !s.now.Before(s.key.Transition.Calendar().Instant(s.key.Period, *m.Deadline))
}

// retry returns how long a blocked batch waits: longer each time, but not past the
// deadline of its cycle, at which something else may be due.
func (s *snapshot) retry(m pipeline.Mode, attempts int) time.Duration {
	wait := min(firstRetry<<min(attempts, 3), lastRetry)
	if m.Deadline != nil && s.began(m.Name) == nil && !s.overdue(m) {
		wait = min(wait, s.key.Transition.Calendar().Instant(s.key.Period, *m.Deadline).Sub(s.now))
	}
	return wait
}

// expects returns what the mode expects if this hand-over begins its cycle, that is,
// brings the last of the critical processors; else nothing. A selection of an operator begins
// none if it leaves something behind that the policy is still waiting with.
func (s *snapshot) expects(a action) []any {
	if a.handing.began {
		return nil
	}
	done, covered := map[string]bool{}, s.covered(a.mode.Name)
	for _, r := range a.handing.runs {
		covered[r.Key] = true
	}
	for _, r := range s.runs {
		done[r.Processor] = done[r.Processor] || covered[r.Key]
	}
	if left, _ := policy.Pending(s.input(a.mode), covered); a.handing.selected && a.handing.byPolicy != policy.Ready && len(left) > 0 {
		return nil
	}
	if slices.ContainsFunc(a.mode.Critical, func(name string) bool { return !done[name] }) {
		return nil
	}
	var names []any
	for _, name := range s.key.Transition.Order {
		if a.mode.Names(name) {
			names = append(names, s.key.Transition.Stored(name))
		}
	}
	return names
}

func blockedReason(r Readiness) string {
	s := "readiness " + string(r.Outcome)
	if len(r.Reasons) > 0 {
		s += ": " + strings.Join(policy.Capped(r.Reasons), "; ")
	}
	return s
}
