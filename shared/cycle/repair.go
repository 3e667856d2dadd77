package cycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// Repair is what reconciliation does about a period.
type Repair struct {
	Completions []wire.Completion // of runs that have not reported; the same content is the same run
	Actor       string
	Reason      string // what was found, in words
	Before      string // how the period's cycles stood, in words, for the record
}

// Repair records completions that were not reported, notes it in the compatibility document, and
// converges. What is then handed over has the cause reconciliation; the mode's policy and its
// limits of time apply. Of a period that ended longer ago than trigger_within, only what is frozen
// is published ([PeriodState.Old]). The audit record is in the same commit. Idempotent, except for
// the audit record; two at once, or live completions at the same time, are harmless.
func (e *Engine) Repair(ctx context.Context, key Key, r Repair) error {
	at := e.Now()
	names := []string{}
	var found []wire.Completion
	for _, c := range r.Completions {
		if !key.Transition.Expects(c.Processor) {
			return fmt.Errorf("repair %s: processor %q is none of %s's", key, c.Processor, key.Transition.ID)
		}
		shown := c.Processor
		c.Processor = key.Transition.Stored(shown)
		found = append(found, c)
		rows := "unknown"
		if c.RecordCount != nil {
			rows = fmt.Sprint(*c.RecordCount)
		}
		names = append(names, fmt.Sprintf("%s, %s rows of %s", shown, rows, c.EventTime.Format(time.RFC3339)))
	}
	if len(names) == 0 {
		names = []string{"nothing"}
	}
	record := audit.Record{Action: "repair", Actor: r.Actor, Reason: r.Reason, Transition: key.Transition.ID, Period: string(key.Period),
		Detail: fmt.Sprintf("%s: before: %s; recorded: %s", key, r.Before, strings.Join(policy.Capped(names), "; "))}
	write := record.Write(e.Prefix, at, e.NewID())
	err := e.repair(ctx, key, found, write, store.F(at.UTC().Format(time.RFC3339), "repaired_at"), e.stays(at))
	if err != nil && !errors.Is(err, store.ErrExists) { // the record's id is ours alone: an earlier try's answer was lost
		return fmt.Errorf("repair %s: %w", key, err)
	}
	record.Log(ctx, e.Log)
	c := e.convergence(key, "")
	c.repairer = r.Actor
	_, err = c.run(ctx)
	return err
}

// repair records what a repair has found, together with its record and fields of the period's document.
// [store.ErrExists] means that the record is there.
func (e *Engine) repair(ctx context.Context, key Key, found []wire.Completion, record store.Write, repaired, stays store.Field) (err error) {
	for _, full := range []bool{false, true} {
		fields, shards := e.recording(key, full, found, stays)
		fields = append(fields, repaired)
		if len(shards) == 0 {
			return e.repairPeriod(ctx, key, fields, record)
		}
		err = untilNoRival(key, func() error { return e.repairShards(ctx, key, fields, shards, record) })
		if !errors.Is(err, store.ErrTooLarge) {
			break
		}
	}
	return err
}

// repairPeriod writes to the first of the period's documents that has room. What a repair has found is
// little: the last has room for it.
func (e *Engine) repairPeriod(ctx context.Context, key Key, fields []store.Field, record store.Write) (err error) {
	for _, ref := range e.periodRefs(key) {
		if _, err = e.Store.Apply(ctx, record, store.Merge(ref, fields...)); !errors.Is(err, store.ErrTooLarge) {
			break
		}
	}
	return err
}

func (e *Engine) repairShards(ctx context.Context, key Key, fields []store.Field, shards []store.Write, record store.Write) error {
	err := e.inShards(ctx, key, fields, append(slices.Clone(shards), record)...)
	if !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict) {
		return err
	}
	got, failed := e.Store.Get(ctx, record.Ref)
	switch {
	case failed != nil:
		return failed
	case got.Docs[0].Exists: // the answer of an earlier try was lost
		return nil
	}
	return err
}
