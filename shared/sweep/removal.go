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
	earlier   []string // ids of removals of this period that came to no end
}

func (r *removal) target() warehouse.Target {
	return warehouse.Target{Processor: r.processor, Period: r.part.Period, Calendar: r.Pipeline.Calendar}
}

// preview is what a removal would do, as far as it is known without doing it.
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
	r.part.again = warehouse.Passing(err) && !errors.Is(err, errBroken)
	r.part.is(Unknown, "%v", err)
}

// run removes the period's duplicates.
func (r *removal) run(ctx context.Context) { r.under(ctx, r.inside) }

// under does something under the locks of all that write the table.
func (r *removal) under(ctx context.Context, do func(context.Context, *lease.Lease) error) {
	err := r.locked(ctx, r.processor.Table, r.part.Period, "sweep-"+r.id, do)
	if held, ok := errors.AsType[*lease.HeldError](err); ok {
		r.part.again = true
		r.part.is(Busy, "%v", held)
	} else if err != nil {
		r.fails(err)
	}
}

// finish brings unfinished removals of a period to an end, and does nothing else there. If a
// processor is at work there, the next sweep of any period does so: this order need not be
// carried out again.
func (r *removal) finish(ctx context.Context) {
	r.part.is(Resumed, "this period was not requested: only its unfinished removal was completed")
	r.under(ctx, func(ctx context.Context, _ *lease.Lease) error { return r.resume(ctx, r.earlier) })
	if r.part.State == Busy {
		r.part.again = false
		r.part.Problem = "this period was not requested; the next sweep completes its unfinished removal: " + r.part.Problem
	}
}

func (r *removal) inside(ctx context.Context, held *lease.Lease) error {
	if err := r.resume(ctx, r.earlier); err != nil {
		return err
	}
	// Anew, for it was seen before the locks were ours.
	found, bytes, err := r.Warehouse.Duplicates(ctx, r.Pipeline.Calendar, r.processor, r.part.Period, r.part.Period)
	if err != nil {
		return err
	}
	r.part.Bytes += bytes
	found = slices.DeleteFunc(found, func(d warehouse.Duplicates) bool { return d.Stray != "" })
	if len(found) == 0 {
		r.part.takes(warehouse.Duplicates{Rows: r.part.Rows})
		r.part.is(Clean, "the duplicates no longer exist")
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
	// The rails are about what the survey has seen: that is what goes.
	d := found[0]
	d.Rows += int64(survey.Surplus) - d.Surplus
	d.Surplus, d.Keys = int64(survey.Surplus), int64(survey.Keys)
	r.part.takes(d)
	if survey.Surplus == 0 {
		r.part.is(Clean, "the duplicates no longer exist")
		return nil
	}
	if why := r.order.refusal(d); why != "" {
		r.part.is(Refused, "%s", why)
		return nil
	}
	rec := &record{ID: r.id, Table: r.processor.Table, Period: r.part.Period, State: planned, Actor: r.order.Actor, Reason: r.order.Reason, Forced: r.order.Force,
		Keys: int64(survey.Keys), Surplus: int64(survey.Surplus), Before: survey.Before, After: survey.After, Archive: r.Archive + "." + tableName(r.id)}
	if err := r.create(ctx, rec); err != nil {
		return err
	}
	r.part.ID = r.id
	return r.apply(ctx, held, rec, survey)
}

// apply takes a planned removal to its end.
func (r *removal) apply(ctx context.Context, held *lease.Lease, rec *record, survey warehouse.Survey) error {
	w := rec.removal(r.Pipeline.Calendar, r.processor)
	changed := func() error {
		r.part.again = true
		r.part.is(Changed, "a run without a lock wrote its rows meanwhile: nothing was removed")
		return r.step(ctx, rec, abandoned)
	}
	err := r.Warehouse.Archive(ctx, w, survey)
	if errors.Is(err, warehouse.ErrChanged) {
		return changed()
	}
	if err == nil {
		err = r.step(ctx, rec, archived)
	}
	if err != nil {
		return err
	}
	err = r.Warehouse.Remove(ctx, warehouse.Under(held), w)
	switch {
	case errors.Is(err, warehouse.ErrChanged): // the statement itself says that it did nothing
		return changed()
	case errors.Is(err, warehouse.ErrTarget):
		r.part.is(Refused, "%v", err)
		return r.step(ctx, rec, abandoned)
	case err != nil:
		return err
	}
	now, err := r.Warehouse.Standing(ctx, w)
	if err != nil {
		return err
	}
	if now == rec.Before { // without a row to insert its guard was never asked, and nothing deleted
		return changed()
	}
	r.part.Removed = rec.Surplus
	r.part.is(Removed, "")
	if now != rec.After {
		r.part.again = true
		r.part.Problem = "a run without a lock wrote its rows right after the removal: it cannot be undone, and the rows are checked again"
	}
	return r.step(ctx, rec, applied)
}

// resume ends what earlier removals and undoings have left. The caller has their locks and has
// fenced their tokens: they do nothing any more. The rows show what was done. Where the rows were
// written anew since, or cannot be compared, the removal can no longer be undone.
func (s *Sweeper) resume(ctx context.Context, ids []string) error {
	for _, id := range ids {
		rec, err := s.record(ctx, id)
		if err != nil {
			return err
		}
		from := rec.State
		if rec.ended() {
			continue
		}
		next := abandoned
		if from != planned { // nothing is removed before all of it is in the archive
			now, err := s.Warehouse.Standing(ctx, rec.removal(s.Pipeline.Calendar, s.writers(rec.Table)[0]))
			switch {
			case err != nil && !errors.Is(err, warehouse.ErrTarget):
				return err
			case from == undoing && err == nil && now == rec.Before:
				next = undone
			case from == undoing:
				next = applied
			case err == nil && now == rec.After:
				next = applied
			}
		}
		if err := s.step(ctx, rec, next); err != nil {
			return err
		}
		s.Log.WarnContext(ctx, fmt.Sprintf("sweep %s was interrupted in state %q, and is now %q", rec.ID, from, next), "sweep", rec.ID, "table", rec.Table, "period", string(rec.Period))
		switch {
		case from == archived && next == applied:
			s.logRemoved(ctx, rec.ID, rec.Table, rec.Period, rec.Surplus, rec.Actor)
		case next == undone:
			s.logUndone(ctx, rec, rec.Actor)
		}
	}
	return nil
}

// locked does something under the locks of all processors that write a table. The context ends with
// the first lock that is lost. held is the lock under whose token do writes: one is enough, because
// what is written changes nothing unless the rows are as planned. do returns nil when everything
// that it has begun has ended.
func (s *Sweeper) locked(ctx context.Context, table string, period pipeline.Period, execution string, do func(ctx context.Context, held *lease.Lease) error) (err error) {
	var all []*lease.Lease
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		for _, held := range slices.Backward(all) {
			if failed := held.Release(after); failed != nil && !errors.Is(failed, lease.ErrLost) {
				s.Log.WarnContext(ctx, "a lock was not released, it will expire: "+failed.Error(), "lock", held.Key().String())
			}
		}
	}()
	inside := ctx
	for _, p := range s.writers(table) {
		held, err := s.Locks.Acquire(ctx, lease.Key{Class: p.Class, Period: period}, execution)
		if err != nil {
			for _, held := range all { // nothing was begun under them
				if failed := held.Settle(ctx, held.Used()...); failed != nil {
					s.Log.WarnContext(ctx, "tokens are left to the next run: "+failed.Error(), "lock", held.Key().String())
				}
			}
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
