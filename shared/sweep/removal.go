package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// removal is one under way.
type removal struct {
	*Sweeper
	order     Order
	part      *Part
	processor pipeline.Processor
	id        string
}

func (r *removal) target() warehouse.Target {
	return warehouse.Target{Processor: r.processor, Period: r.part.Period}
}

// preview is what a removal would do, as far as it can be told without doing it.
func (r *removal) preview(ctx context.Context, d warehouse.Duplicates) {
	if why := r.order.refusal(d); why != "" {
		r.part.is(Refused, "%s", why)
		return
	}
	r.part.is(Found, "")
	r.survey(ctx)
}

// survey looks at the rows; false: nothing can be removed, and the part says why.
func (r *removal) survey(ctx context.Context) (warehouse.Survey, bool) {
	survey, err := r.Warehouse.Survey(ctx, r.target())
	switch {
	case errors.Is(err, warehouse.ErrTarget):
		r.part.is(Refused, "%v", err)
	case err != nil:
		r.fails(err)
	default:
		identical := int64(survey.Identical)
		r.part.Bytes, r.part.Identical, r.part.Examples = r.part.Bytes+survey.Bytes, &identical, survey.Examples
	}
	return survey, err == nil
}

// fails notes that it is not known how it stands.
func (r *removal) fails(err error) {
	r.part.again = warehouse.Passing(err)
	r.part.is(Unknown, "%v", err)
}

// run removes the period's duplicates under the locks of all that write the table.
func (r *removal) run(ctx context.Context) {
	err := r.locked(ctx, r.processor.Table, r.part.Period, "sweep-"+r.id, r.inside)
	if held := (*lease.HeldError)(nil); errors.As(err, &held) {
		r.part.again = true
		r.part.is(Busy, "%v", held)
	} else if err != nil {
		r.fails(err)
	}
}

func (r *removal) inside(ctx context.Context, held *lease.Lease) error {
	if err := r.resume(ctx, r.processor.Table, r.part.Period); err != nil {
		return err
	}
	// Anew, for it was seen before the locks were ours.
	found, bytes, err := r.Warehouse.Duplicates(ctx, r.Pipeline.Calendar, r.processor, r.part.Period, r.part.Period)
	if err != nil {
		return err
	}
	r.part.Bytes += bytes
	if len(found) == 0 {
		r.part.takes(warehouse.Duplicates{Rows: r.part.Rows})
		r.part.is(Clean, "they are gone")
		return nil
	}
	r.part.takes(found[0])
	if why := r.order.refusal(found[0]); why != "" {
		r.part.is(Refused, "%s", why)
		return nil
	}
	survey, ok := r.survey(ctx)
	if !ok {
		return nil
	}
	if survey.Surplus == 0 {
		r.part.is(Clean, "they are gone")
		return nil
	}
	rec := &record{ID: r.id, Table: r.processor.Table, Period: r.part.Period, State: planned, Actor: r.order.Actor, Reason: r.order.Reason, Forced: r.order.Force,
		Keys: int64(survey.Keys), Surplus: int64(survey.Surplus), Before: survey.Before, After: survey.After, Quarantine: r.Quarantine + "." + tableName(r.id)}
	if err := r.create(ctx, rec); err != nil {
		return err
	}
	r.part.ID = r.id
	return r.apply(ctx, held, rec, survey)
}

// apply takes a planned removal to its end.
func (r *removal) apply(ctx context.Context, held *lease.Lease, rec *record, survey warehouse.Survey) error {
	w := rec.removal(r.processor)
	const meanwhile = "its rows were written meanwhile by a run without a lock: nothing was removed"
	err := r.Warehouse.Quarantine(ctx, w, survey)
	if errors.Is(err, warehouse.ErrChanged) {
		r.part.again = true
		r.part.is(Changed, meanwhile)
		return r.step(ctx, rec, abandoned)
	}
	if err == nil {
		err = r.step(ctx, rec, quarantined)
	}
	if err != nil {
		return err
	}
	err = r.Warehouse.Remove(ctx, right(held), w)
	changed := errors.Is(err, warehouse.ErrChanged)
	if err != nil && !changed {
		return err
	}
	if err := r.conclude(ctx, rec, w); err != nil {
		return err
	}
	switch {
	case rec.State == applied:
		r.part.Removed = rec.Surplus
		r.part.is(Removed, "")
	case changed:
		r.part.again = true
		r.part.is(Changed, meanwhile)
	default:
		r.part.again = true
		r.part.is(Changed, "%d rows were removed, and its rows written by a run without a lock right after it: %s cannot be undone", rec.Surplus, rec.ID)
	}
	return nil
}

// conclude writes down what a removal in quarantine has come to, by what is there.
func (s *Sweeper) conclude(ctx context.Context, rec *record, w warehouse.Removal) error {
	now, err := s.Warehouse.Standing(ctx, w)
	if err != nil {
		return err
	}
	next := abandoned // neither: whatever was written since, it is not ours to undo
	if now == rec.After {
		next = applied
	}
	return s.step(ctx, rec, next)
}

// resume brings to an end what earlier removals of a period have left. Whoever comes here
// has their locks and has taken their tokens: nothing happens by them any more.
func (s *Sweeper) resume(ctx context.Context, table string, period pipeline.Period) error {
	for rec, err := range s.records(ctx, s.Now().Add(-warehouse.QuarantineKept)) {
		if err != nil {
			return err
		}
		if rec.Table != table || rec.Period != period || rec.State != planned && rec.State != quarantined {
			continue
		}
		if rec.State == planned { // nothing is removed before all of it is in quarantine
			err = s.step(ctx, rec, abandoned)
		} else {
			err = s.conclude(ctx, rec, rec.removal(s.writers(table)[0]))
		}
		if err != nil {
			return err
		}
		s.Log.WarnContext(ctx, fmt.Sprintf("sweep %s came to no end: %s", rec.ID, rec.State), "sweep", rec.ID, "table", table, "period", string(period))
	}
	return nil
}

// locked does something under the locks of all that write a table. The context ends with
// the first lock that is lost; held is the one under whose token is written: one is enough,
// for what is written changes nothing unless the rows are as planned. do returns nil when
// everything that it has begun has ended.
func (s *Sweeper) locked(ctx context.Context, table string, period pipeline.Period, execution string, do func(ctx context.Context, held *lease.Lease) error) (err error) {
	var all []*lease.Lease
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		for _, held := range slices.Backward(all) {
			if failed := held.Release(after); failed != nil && !errors.Is(failed, lease.ErrLost) {
				s.Log.WarnContext(ctx, "a lock was not given back, it ends by itself: "+failed.Error(), "lock", held.Key().String())
			}
		}
	}()
	inside := ctx
	for _, p := range s.writers(table) {
		held, err := s.Locks.Acquire(ctx, lease.Key{Class: p.Class, Period: period}, execution)
		if err != nil {
			return err
		}
		all = append(all, held)
		kept, stop := held.Keep(inside)
		defer stop()
		inside = kept
	}
	for _, held := range all {
		if err := s.Warehouse.Fence(inside, table, held.Key().String(), held.Outstanding()...); err != nil {
			return err
		}
		if err := held.Settle(inside, held.Outstanding()...); err != nil {
			return err
		}
	}
	if err := do(inside, all[0]); err != nil {
		return err // what may still be written under a token is for the next run to find out
	}
	for _, held := range all {
		if err := held.Settle(inside, held.Used()...); err != nil {
			s.Log.WarnContext(ctx, "tokens are left to the next run: "+err.Error(), "lock", held.Key().String())
		}
	}
	return nil
}

// right is the right to write under a lock's token.
func right(held *lease.Lease) warehouse.Right {
	key := held.Key().String()
	return warehouse.Right{JobID: warehouse.JobID(key, held.Token().Nonce), Next: func(ctx context.Context) (string, error) {
		t, err := held.Rearm(ctx)
		return warehouse.JobID(key, t.Nonce), err
	}}
}
