package cycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// Collections, before the prefix.
const (
	periodsCollection  = "phase_periods"
	triggersCollection = "phase_triggers"
)

// Record writes one completion into its period: one blind merge of one field whose
// name is the hash of its value. Nothing is read or awaited; a redelivery changes
// nothing, and no later run can overwrite an earlier one. In a large transition the field
// stands in a shard (shards.go).
//
// A period whose document is full continues in a second one. That takes successful runs without
// their entity lists: what is handed over from such a run is not incremental.
// Reports that cannot count are bounded; see room.go.
func (e *Engine) Record(ctx context.Context, key Key, c wire.Completion) error {
	shown := c.Processor
	c = key.fitting(c)
	c.Processor = key.Transition.Stored(shown) // a copy that comes after a renaming is the same run
	err := e.merge(ctx, key, false, c)
	if errors.Is(err, store.ErrTooLarge) {
		e.Log.WarnContext(ctx, "period is at its size limit: a completion is recorded without its entities, if it is no repetition",
			"transition", key.Transition.ID, "period", string(key.Period), "processor", shown, "entities", len(c.Entities))
		err = e.recordInFull(ctx, key, c)
	}
	if err != nil {
		return fmt.Errorf("record %s for %s: %w", c.Reported, key, err)
	}
	c.Processor = shown
	e.logRecorded(ctx, key, c)
	return nil
}

func (e *Engine) logRecorded(ctx context.Context, key Key, c wire.Completion) {
	level, msg := slog.LevelInfo, "completion recorded"
	if c.Processor == "" {
		level, msg = slog.LevelWarn, "completion of an unexpected processor recorded; it never counts"
	}
	e.Log.Log(ctx, level, msg, "event", telemetry.CompletionRecorded,
		"transition", key.Transition.ID, "period", string(key.Period),
		"mode", key.Transition.ModeAt(key.Period, c.EventTime),
		"processor", c.Processor, "reported", c.Reported, "status", string(c.Status), "execution_id", c.ExecutionID)
	e.logDoubt(ctx, key, c)
}

// recordAll records the completions of a group by one commit, and returns the error of each.
// Where they do not fit together, each is recorded by itself.
func (e *Engine) recordAll(ctx context.Context, key Key, reports []Report) []error {
	errs := make([]error, len(reports))
	err := store.ErrTooLarge // one report is recorded by itself, too
	if len(reports) > 1 {
		all := make([]wire.Completion, len(reports))
		for i, r := range reports {
			all[i] = key.fitting(r.Completion)
			all[i].Processor = key.Transition.Stored(r.Completion.Processor)
		}
		err = e.merge(ctx, key, false, all...)
	}
	for i, r := range reports {
		switch {
		case err == nil:
			e.logRecorded(ctx, key, r.Completion)
		case errors.Is(err, store.ErrTooLarge), errors.Is(err, store.ErrInvalid):
			errs[i] = e.Record(ctx, key, r.Completion)
		default:
			errs[i] = fmt.Errorf("record %d completions for %s: %w", len(reports), key, err)
		}
	}
	return errs
}

const (
	// maxRecorded bounds what the runs of a period have in bytes if each processor runs once: an
	// instance reads them all at once.
	maxRecorded = 16 << 20
	// largestRun is what one run has at most.
	largestRun = 52 << 10
)

// fitting returns a completion without its entities if its record exceeds the processor's share of
// maxRecorded. What is handed over from it is not incremental.
func (k Key) fitting(c wire.Completion) wire.Completion {
	share := maxRecorded / max(len(k.Transition.Order), 1)
	if share >= largestRun || len(c.Entities) == 0 {
		return c
	}
	if _, text := c.Record(); len(text) <= share {
		return c
	}
	return c.WithoutEntities()
}

// merge records reports by one commit; full: where their first documents have no room.
func (e *Engine) merge(ctx context.Context, k Key, full bool, all ...wire.Completion) error {
	var newest time.Time
	for _, c := range all {
		if c.EventTime.After(newest) {
			newest = c.EventTime
		}
	}
	end := e.expiry(newest)
	if end == nil && e.mayEnd(k) {
		end = []store.Field{store.Stays()}
	}
	fields, shards := e.recording(k, full, all, end...)
	if len(shards) > 0 {
		return untilNoRival(k, func() error { return e.inShards(ctx, k, fields, shards...) })
	}
	ref := e.periodRef(k)
	if full {
		ref = e.overflowRef(k)
	}
	_, err := e.Store.Apply(ctx, store.Merge(ref, fields...))
	return err
}

func (e *Engine) periodRef(k Key) store.Ref {
	return store.Ref{Collection: e.Prefix + periodsCollection, ID: k.stored()}
}

// overflowRef names the document that a full period goes on in; it sorts after the
// period's own and before the next period's.
func (e *Engine) overflowRef(k Key) store.Ref {
	return store.Ref{Collection: e.Prefix + periodsCollection, ID: k.stored() + fullDocument}
}

// controlRef names the document that takes what is no report once the period's own is
// full; no report can fill it.
func (e *Engine) controlRef(k Key) store.Ref {
	return store.Ref{Collection: e.Prefix + periodsCollection, ID: k.stored() + "~control"}
}

// periodRefs names the documents of a period.
func (e *Engine) periodRefs(k Key) []store.Ref {
	return []store.Ref{e.periodRef(k), e.overflowRef(k), e.controlRef(k)}
}

func (e *Engine) batchRef(id string) store.Ref {
	return store.Ref{Collection: e.Prefix + triggersCollection, ID: id}
}

func (e *Engine) projectionRef(k Key) store.Ref {
	return store.Ref{Collection: e.Prefix + k.Transition.CompatibilityCollection, ID: string(k.Period)}
}

// cycleID names a cycle: {transition}_{period}_{mode}, by the names under which they are
// stored.
func cycleID(k Key, mode string) string { return k.stored() + "_" + k.Transition.StoredMode(mode) }

// batchID names the n-th batch of a cycle; n counts from 1.
func batchID(k Key, mode string, n int) string { return cycleID(k, mode) + "~" + strconv.Itoa(n) }
