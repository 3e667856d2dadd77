package cycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// Collections, before the prefix.
const (
	periodsCollection  = "phase_periods"
	triggersCollection = "phase_triggers"
)

// Record writes one completion into its period: one blind merge of one field whose
// name is the hash of its value. Nothing is read, nobody waits; a redelivery changes
// nothing, and no later run can overwrite an earlier one.
//
// A period whose document is full goes on in a second one, which takes successful runs
// without their entity lists: what is handed over from such a run is not incremental.
// Reports that cannot count are bounded; see room.go.
func (e *Engine) Record(ctx context.Context, key Key, c message.Completion) error {
	shown := c.Processor
	c.Processor = key.Transition.Stored(shown) // a copy that comes after a renaming is the same run
	err := e.merge(ctx, e.periodRef(key), c)
	if errors.Is(err, store.ErrTooLarge) {
		e.Log.WarnContext(ctx, "period is at its size limit: a completion is recorded without its entities, if it is no repetition",
			"transition", key.Transition.ID, "period", string(key.Period), "processor", shown, "entities", len(c.Entities))
		err = e.recordInFull(ctx, key, c)
	}
	if err != nil {
		return fmt.Errorf("record %s for %s: %w", c.Reported, key, err)
	}
	level, msg := slog.LevelInfo, "completion recorded"
	if shown == "" {
		level, msg = slog.LevelWarn, "completion of an unexpected processor recorded; it never counts"
	}
	e.Log.Log(ctx, level, msg, "event", telemetry.CompletionRecorded,
		"transition", key.Transition.ID, "period", string(key.Period),
		"mode", key.Transition.ModeAt(key.Period, c.EventTime),
		"processor", shown, "reported", c.Reported, "status", string(c.Status), "execution_id", c.ExecutionID)
	e.tellDoubt(ctx, key, c)
	return nil
}

func (e *Engine) merge(ctx context.Context, period store.Ref, c message.Completion) error {
	id, value := c.Record()
	path := []string{"runs", c.Processor, id}
	if c.Processor == "" { // what a stranger calls itself never names a field
		path = []string{"unexpected", id}
	}
	fields := append(e.expiry(c.EventTime), store.F(value, path...))
	_, err := e.Store.Apply(ctx, store.Merge(period, fields...))
	return err
}

func (e *Engine) periodRef(k Key) store.Ref {
	return store.Ref{Collection: e.Prefix + periodsCollection, ID: k.stored()}
}

// overflowRef names the document that a full period goes on in; it sorts after the
// period's own and before the next period's.
func (e *Engine) overflowRef(k Key) store.Ref {
	return store.Ref{Collection: e.Prefix + periodsCollection, ID: k.stored() + "~overflow"}
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
