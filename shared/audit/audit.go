// Package audit records the actions of operators: one document for each action, in
// audit/{time}-{id}, so that ids sort by time, and one log line.
//
// If the action is a write of ours, its record is part of the same commit: neither exists
// without the other. No decision ever reads a record.
package audit

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// collection holds the records, before the prefix.
const collection = "audit"

// Record is one action.
type Record struct {
	Action     string // such as trigger, hold, release, quarantine_replay
	Actor      string // who did it
	Reason     string // in the actor's words
	Transition string // "" where the action is about none
	Period     string // "" for all
	Mode       string // "" for all
	Detail     string // what exactly was done, in words
}

// Write returns the record as part of a commit. at is this machine's time and only
// orders ids; the document has the server's. id must be unique and unguessable: a
// commit that finds the record there is one whose first answer was lost.
func (r Record) Write(prefix string, at time.Time, id string) store.Write {
	ref := store.Ref{Collection: prefix + collection, ID: at.UTC().Format(idForm) + "-" + id}
	return store.Create(ref, store.F(store.ServerTime, "at"), store.Expires(at),
		store.F(r.Action, "action"), store.F(r.Actor, "actor"), store.F(r.Reason, "reason"),
		store.F(r.Transition, "transition"), store.F(r.Period, "period"), store.F(r.Mode, "mode"), store.F(r.Detail, "detail"))
}

// Recorded is a record as stored.
type Recorded struct {
	Record
	At time.Time // the server's clock, UTC
}

// idForm is the time in a record's id.
const idForm = "20060102T150405.000000Z"

// List yields the records from one time to another, oldest first. A damaged field is empty.
func List(ctx context.Context, s store.Store, prefix string, from, to time.Time) iter.Seq2[Recorded, error] {
	return func(yield func(Recorded, error) bool) {
		for doc, err := range s.Scan(ctx, prefix+collection, from.UTC().Format(idForm), to.UTC().Format(idForm)+"~") {
			if err != nil {
				yield(Recorded{}, fmt.Errorf("read the audit records: %w", err))
				return
			}
			text := func(name string) string { s, _ := doc.Data[name].(string); return s }
			at, _ := doc.Data["at"].(time.Time)
			r := Record{Action: text("action"), Actor: text("actor"), Reason: text("reason"), Transition: text("transition"),
				Period: text("period"), Mode: text("mode"), Detail: text("detail")}
			if !yield(Recorded{r, at}, nil) {
				return
			}
		}
	}
}

// Log says that the action was done.
func (r Record) Log(ctx context.Context, log *slog.Logger) {
	log.WarnContext(ctx, r.Actor+": "+r.Action+": "+r.Detail, "event", telemetry.OperatorAction, "action", r.Action, "actor", r.Actor,
		"reason", r.Reason, "transition", r.Transition, "period", r.Period, "mode", r.Mode)
}
