package cycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/safetime"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// Publish hands messages to a topic, in order, and answers for each one: the broker's
// id, or an error, after which it may or may not have been accepted. It returns when
// ctx ends at the latest.
type Publish func(ctx context.Context, topic string, msgs []wire.Outgoing) []Published

// One publishes one message and returns the broker's id for it. An answer without an id is
// [ErrUnconfirmed].
func (p Publish) One(ctx context.Context, topic string, m wire.Outgoing) (id string, err error) {
	answer := p(ctx, topic, []wire.Outgoing{m})[0]
	if answer.Err == nil && answer.ID == "" {
		return "", ErrUnconfirmed
	}
	return answer.ID, answer.Err
}

// ErrUnconfirmed says that the broker answered without an id.
var ErrUnconfirmed = errors.New("no id from the broker")

// Published is the broker's answer for one message.
type Published struct {
	ID  string
	Err error
}

// Readiness is what is known about the data behind a hand-over.
type Readiness = policy.Readiness

// Outcome of the readiness checks.
type Outcome = policy.Outcome

// The outcomes.
const (
	NotChecked = policy.NotChecked
	Passed     = policy.Passed
	Failed     = policy.Failed
	Unknown    = policy.Unknown
)

// Check looks at the data of the processors that a cycle is about to hand over.
type Check func(ctx context.Context, cycle Key, mode string, processors []string) Readiness

// Unchecked is the Check of a pipeline that declares no readiness checks.
func Unchecked(context.Context, Key, string, []string) Readiness {
	return Readiness{Outcome: NotChecked}
}

// Expected tells how many units of work a period should bring. An error means that it
// is not known; [ErrNoSchedule], that it never will be.
type Expected func(ctx context.Context, cycle Key) (int64, error)

// ErrNoSchedule is the answer of a pipeline that has no schedule to ask.
var ErrNoSchedule = errors.New("the pipeline has no schedule")

// Key names the cycles of one period: all modes share one record of runs.
type Key struct {
	Transition *pipeline.Transition
	Period     pipeline.Period
}

func (k Key) String() string { return k.Transition.ID + "_" + string(k.Period) }

// old reports whether a period ended longer ago than trigger_within.
func (k Key) old(at time.Time) bool { return at.After(k.Transition.LastInTime(k.Period)) }

// stored is the id under which the period's documents are stored.
func (k Key) stored() string { return k.Transition.StoredID() + "_" + string(k.Period) }

// Config is what an Engine stands on. All fields are required but Prefix, Shadow, Version and Expected.
type Config struct {
	Store    store.Store
	Publish  Publish
	Check    Check
	Expected Expected         // nil: the pipeline has no schedule
	Now      func() time.Time // this machine's clock, for the safe remaining time of claims only
	NewID    func() string    // unique and unguessable
	Claim    time.Duration    // how long a claim lasts unless renewed
	Prefix   string           // of collections and topics
	Shadow   bool             // see above; Prefix is then the shadow's own
	Version  string           // of the code; what another one has settled is evaluated again
	Log      *slog.Logger
}

// Engine is safe for concurrent use.
type Engine struct {
	Config
	seen   seenRuns
	groups groups

	inline, part int                            // messages of a batch's own document, and of a part
	shards       func(*pipeline.Transition) int // in how many a definition's runs stand
}

// New returns an engine.
func New(c Config) *Engine {
	if c.Shadow {
		c.Publish = unsent
	}
	return &Engine{Config: c, inline: maxInline, part: maxPart, shards: shardsOf}
}

// Result tells how a Converge ended.
type Result struct {
	// Busy: another holder has the claim of a batch and finishes it.
	Busy bool
	// OwnClaim: that claim was taken for the very message being handled, by a try
	// that died or still runs. The message must be redelivered.
	OwnClaim bool
	// Cycles are those of the period of which anything is recorded, or that are overdue or closed,
	// as they were read last. Of completions that are evaluated together, one gets them. It is nil
	// if warnings are not logged.
	Cycles []Status
}

// maxSteps bounds one Converge. A cycle takes some ten steps from the first look to
// the projection, and as many again for each conflict with a rival.
const maxSteps = 500

// Converge does everything that is due for the cycles of a period. messageID names
// the message on whose behalf it runs; the claim remembers it. Idempotent. An error
// means that something due is left; calling again, later, carries on.
func (e *Engine) Converge(ctx context.Context, key Key, messageID string) (Result, error) {
	return e.convergence(key, messageID).run(ctx)
}

// convergence is for the messages that are handled; a claim remembers them.
func (e *Engine) convergence(key Key, messageIDs ...string) *convergence {
	return &convergence{Engine: e, key: key, messageIDs: messageIDs, me: e.NewID(), published: map[string]bool{}, own: map[string]bool{}, confirmed: map[string]bool{},
		attempt: attempt{shadow: e.Shadow, version: e.Version, schedule: e.Expected != nil, claim: e.Claim, taken: map[string]time.Time{}, failed: map[string]error{}}}
}

// convergence is the working state of one Converge. Losing it loses nothing.
type convergence struct {
	*Engine
	attempt
	key        Key
	messageIDs []string
	me         string
	managed    Managed
	unread     bool // the schedule was asked, and took its time not to answer
	claims     int
	last       *snapshot       // as of the last read
	own        map[string]bool // messages for which another holder has a claim
	published  map[string]bool // batches that this call finished
	confirmed  map[string]bool // parts of which this call has seen every id
	waits      bool            // there is a check to be made, for which no time is left
}

// attempt is what a decision depends on, next to the snapshot: what this Converge was called for, and
// what it has done so far. Decisions read it; the steps write it.
type attempt struct {
	now      time.Time      // by this machine's clock
	claim    time.Duration  // how long a claim lasts
	shadow   bool           // nothing is projected, and documents end by themselves
	schedule bool           // the pipeline has one
	expected bool           // completions are expected even without records
	repairer string         // the actor of a repair, "" when it is none
	checks   *time.Duration // of a relay: how long its readiness checks may still take
	settles  bool           // of a relay: it marks a period in which nothing is due
	version  string         // of the code, as a mark has it

	taken         map[string]time.Time // holder id of each try to claim → when it started
	fresh         string               // holder of a claim just taken and not used yet
	failed        map[string]error     // batches that could not be finished
	scheduleAsked bool
	trimmed       bool // reports that cannot count were to be dropped
	aheadWrites   int  // projections ahead of the work that were tried
	endTries      int  // writes of the period's end that were tried
}

func (by *attempt) mine(b *batch) bool { _, ok := by.taken[b.Holder]; return ok }

// left returns for how long a claim held under an id may still be used.
func (by *attempt) left(holder string) time.Duration {
	return safetime.Left(by.claim, by.taken[holder], by.now)
}

// mayCheck reports whether a readiness check may begin now. If not, the period waits for
// another turn.
func (by *attempt) mayCheck() bool { return by.checks == nil || *by.checks > 0 }

func (c *convergence) run(ctx context.Context) (Result, error) {
	for range maxSteps {
		s, err := c.evaluate(ctx, c.key, c.last, c.published)
		if err != nil {
			return Result{}, err
		}
		c.last = s
		c.now = c.Now()
		a := s.marking(&c.attempt, s.next(&c.attempt))
		c.waits = c.waits || a.waits
		if a.do == idle {
			return c.result(ctx, s), c.unfinished()
		}
		err = c.execute(ctx, s, a)
		if a.ahead {
			c.projectedAhead(ctx, err)
			continue
		}
		switch {
		case err == nil && (a.do == project || a.do == settle):
			// The last step, from the newest snapshot: a process that has written since then
			// reads after it and goes on.
			return c.result(ctx, s), c.unfinished()
		case errors.Is(err, store.ErrExists), errors.Is(err, store.ErrConflict):
			// A rival was faster, or our own write's answer was lost: the next read tells.
		case err != nil:
			return Result{}, fmt.Errorf("%s: %w", c.key, err)
		}
	}
	return Result{}, fmt.Errorf("%s: no end after %d steps", c.key, maxSteps)
}

// holder makes the id under which the next attempt to claim is recognised. Every
// attempt has its own, so that the safe time counts from the attempt that succeeded.
func (c *convergence) holder() string {
	c.claims++
	id := c.me + "." + strconv.Itoa(c.claims)
	c.taken[id], c.fresh = c.Now(), id
	return id
}

// safeRemaining returns for how long a claim held under that id may still be used.
func (c *convergence) safeRemaining(holder string) time.Duration {
	c.now = c.Now()
	return c.left(holder)
}

// unfinished joins what this call could not do; doing it is due again.
func (c *convergence) unfinished() error {
	var errs []error
	for id, err := range c.failed {
		errs = append(errs, fmt.Errorf("%s: %w", id, err))
	}
	return errors.Join(errs...)
}

func (c *convergence) result(ctx context.Context, s *snapshot) Result {
	r := Result{Cycles: c.report(ctx, s)}
	for _, bs := range s.batches {
		for _, b := range bs {
			if b.live(s.now) && !c.mine(b) {
				r.Busy = true
				for _, id := range c.messageIDs {
					if id != "" && slices.Contains(b.ClaimMessages, id) {
						r.OwnClaim = true
						c.own[id] = true
					}
				}
			}
		}
	}
	return r
}
