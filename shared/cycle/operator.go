package cycle

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
)

// Request asks for a hand-over that no policy has caused.
type Request struct {
	Processors []string // to hand over; empty: every one with a counting run
	Actor      string   // who asks
	Reason     string   // why, in words
	Force      bool     // in spite of a hold, of what the policy still needs, and of the data's readiness
}

// Plan is what a Request would do now.
type Plan struct {
	Batch      int      // its number in the cycle
	Processors []string // in the order of messages
	Runs       []string // processor@execution_id#key, oldest first
	Refusal    string   // why not, in words; "" when it would be done
	Forcible   bool     // Force passes the refusal
}

// ErrRefused says that nothing was done, and nothing was written.
var ErrRefused = errors.New("refused")

// RefusedCritical begins the refusal of a hand-over without critical processors, which Force passes.
const RefusedCritical = "critical processors are missing: "

// Plan says what a Request would do. It changes nothing.
func (e *Engine) Plan(ctx context.Context, key Key, m pipeline.Mode, r Request) (Plan, error) {
	s, err := e.read(ctx, key, nil)
	if err != nil {
		return Plan{}, err
	}
	p, _ := s.plan(m, r)
	return p, nil
}

// Trigger hands a cycle over on request: every counting run of the chosen
// processors, sent before or not, as a batch with a cause, an actor and a reason. The
// batch that the policy is waiting with, if there is one, takes these runs in place of
// its own; else a further one is made. It returns the batch as it is afterwards:
// published, or waiting for its data, its predecessor or another's claim, and then the
// relay goes on with it.
//
// Each call is one more hand-over. The audit record is in the commit that makes the
// batch. [ErrRefused] says that the cycle is in no state for it, and nothing was
// written. Any other error may mean that the batch is there; the relay would finish it.
func (e *Engine) Trigger(ctx context.Context, key Key, m pipeline.Mode, r Request) (BatchStatus, error) {
	c, id := e.convergence(key, ""), e.NewID()
	if err := c.request(ctx, m, r, id); err != nil {
		return BatchStatus{}, err
	}
	_, failed := c.run(ctx)
	s, err := c.read(ctx, key, nil)
	if err != nil {
		return BatchStatus{}, errors.Join(failed, err)
	}
	b := requested(s.batches[m.Name], id)
	if b == nil {
		return BatchStatus{}, fmt.Errorf("%s: a forced request of another operator has replaced this one", cycleID(key, m.Name))
	}
	return describe(key.Transition, s.byKey([]*batch{b}), b), failed
}

// request writes the batch that a Request makes.
func (c *convergence) request(ctx context.Context, m pipeline.Mode, r Request, id string) error {
	var ambiguous error
	at, recordID, met := c.Now(), c.NewID(), false
	for range maxSteps {
		s, err := c.read(ctx, c.key, nil)
		if err != nil {
			return errors.Join(ambiguous, err)
		}
		if requested(s.batches[m.Name], id) != nil {
			return nil // an earlier write, whose answer was lost
		}
		if ambiguous != nil {
			return ambiguous
		}
		if met {
			// What was met can be our own write, and a forced request of another operator can have
			// taken its place since. The record of it stays.
			got, err := c.Store.Get(ctx, audit.Record{}.Write(c.Prefix, at, recordID).Ref)
			if err != nil {
				return err
			}
			if got.Docs[0].Exists {
				return nil
			}
		}
		p, runs := s.plan(m, r)
		if p.Refusal != "" && !(r.Force && p.Forcible) {
			return fmt.Errorf("%s: %s: %w", cycleID(c.key, m.Name), p.Refusal, ErrRefused)
		}
		record := audit.Record{Action: "trigger", Actor: r.Actor, Reason: r.Reason, Transition: c.key.Transition.ID, Period: string(c.key.Period), Mode: m.Name,
			Detail: fmt.Sprintf("%s of %s: %s", batchID(c.key, m.Name, p.Batch), policy.Listed(p.Processors), r.Reason)}
		if p.Refusal != "" {
			record.Detail += "; forced although " + p.Refusal
		}
		switch err := c.writeRequest(ctx, s, m, r, runs, id, record.Write(c.Prefix, at, recordID)); {
		case err == nil:
			record.Log(ctx, c.Log)
			return nil
		case errors.Is(err, store.ErrExists), errors.Is(err, store.ErrConflict):
			met = true
		default:
			ambiguous = fmt.Errorf("trigger %s: %w", cycleID(c.key, m.Name), err)
		}
	}
	return fmt.Errorf("%s: no end after %d steps", c.key, maxSteps)
}

func (c *convergence) writeRequest(ctx context.Context, s *snapshot, m pipeline.Mode, r Request, runs []policy.Run, id string, record store.Write) error {
	keys := make([]any, len(runs))
	for i, run := range runs {
		keys[i] = run.Key
	}
	fields := []store.Field{
		store.F(string(StateChecking), "state"), store.F(CauseOperator, "cause"), store.F(r.Actor, "actor"), store.F(r.Reason, "reason"),
		store.F(keys, "runs"), store.F(true, "selected"), store.F(r.Force, "force"), store.F(id, "request"), store.F(store.ServerTime, "due_at"),
	}
	writes := []store.Write{record, c.watch(c.key)}
	if b := waiting(s.batches[m.Name]); b != nil {
		return c.apply(ctx, append(writes, store.MergeIf(c.batchRef(b.ID), b.Version, fields...))...)
	}
	n := s.number(m.Name)
	fields = append(fields, store.F(n, "n"), store.F(store.ServerTime, "created_at"))
	if firstUnpublished(s.batches[m.Name]) == nil { // else the process that finishes that one continues with it
		fields = append(fields, c.claimFields()...)
	}
	fields = append(fields, c.expiry(c.Now())...)
	batch := batchID(c.key, m.Name, n)
	return c.inPeriod(ctx, c.key, s, []store.Field{store.F(store.Union(batch), "batches"), c.stays(c.Now())}, append(writes, store.Create(c.batchRef(batch), fields...))...)
}

// plan works out what a Request does in a snapshot.
func (s *snapshot) plan(m pipeline.Mode, r Request) (Plan, []policy.Run) {
	in := s.input(m)
	v := policy.Decide(in)
	names := r.Processors
	if len(names) == 0 {
		names = v.Satisfied
	}
	asked := pipeline.SetOf(names)
	runs := slices.DeleteFunc(policy.Counting(in), func(run policy.Run) bool { return !asked[run.Processor] })
	p := Plan{Batch: s.number(m.Name), Processors: processors(s.key.Transition, runs), Runs: []string{}}
	if b := waiting(s.batches[m.Name]); b != nil {
		p.Batch = b.N
	}
	for _, run := range runs {
		p.Runs = append(p.Runs, runName(run))
	}
	var absent, critical []string
	there, missing := pipeline.SetOf(p.Processors), pipeline.SetOf(v.Missing)
	for _, name := range names {
		if !there[name] {
			absent = append(absent, name)
		}
	}
	for _, name := range m.Critical {
		if in.Began == nil && missing[name] {
			critical = append(critical, name)
		}
	}
	hold, other := s.hold(m.Name), waiting(s.batches[m.Name])
	p.Forcible = true
	switch {
	case len(absent) > 0: // a message would claim what did not happen
		p.Refusal, p.Forcible = "no counting run of "+policy.Listed(absent)+" is recorded", false
	case len(runs) == 0:
		p.Refusal, p.Forcible = "no counting run is recorded", false
	case sending(s.batches[m.Name], runs) != nil:
		b := sending(s.batches[m.Name], runs)
		p.Refusal = fmt.Sprintf("batch %d, which %s asked for, is being sent with these runs: it goes on by itself", b.N, b.Actor)
	case other != nil && len(selected(in, other)) > 0:
		p.Refusal = fmt.Sprintf("batch %d, which %s asked for, is not handed over yet: %s", other.N, other.Actor, other.Reason)
	case hold != nil:
		p.Refusal = fmt.Sprintf("it is on hold by %s: %s", hold.Actor, hold.Reason)
	case len(critical) > 0:
		p.Refusal = RefusedCritical + policy.Listed(critical)
	case in.Began == nil && m.NotBefore != nil && s.now.Before(s.key.Transition.Calendar().Instant(s.key.Period, *m.NotBefore)):
		p.Refusal = "its policy hands nothing over before " + m.NotBefore.String()
	}
	return p, runs
}

// waiting returns the batch of a cycle that is not frozen: there is one at most.
func waiting(bs []*batch) *batch {
	for _, b := range bs {
		if b.unfrozen() {
			return b
		}
	}
	return nil
}

// sending returns a batch that an operator asked for with all of these runs and that is
// not published yet: a retry after an error finds it.
func sending(bs []*batch, runs []policy.Run) *batch {
	for _, b := range bs {
		if !b.Selected || b.State != StatePublishing {
			continue
		}
		taken := pipeline.SetOf(b.Runs)
		if !slices.ContainsFunc(runs, func(r policy.Run) bool { return !taken[r.Key] }) {
			return b
		}
	}
	return nil
}

func requested(bs []*batch, id string) *batch {
	for _, b := range bs {
		if b.Request == id {
			return b
		}
	}
	return nil
}
