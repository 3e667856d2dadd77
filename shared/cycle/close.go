package cycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

// Closing ends a cycle that shall never be handed over by itself. Completions are recorded all
// the same, what is frozen goes on, and a person can still trigger a hand-over.
type Closing struct {
	At     time.Time // the server's clock
	Actor  string
	Reason string
}

// CloseResult tells what a closing met.
type CloseResult struct {
	// Before is the closing that was in force already, nil when this one was made.
	Before *Closing
	// Publishing names the batches that were frozen when it arrived: they are published.
	Publishing []string
}

// Close closes a cycle, with the audit record in the same commit. When it returns, every batch
// of the cycle is frozen, and named in the result, or will not be handed over unless a person
// triggers it. Closing again changes nothing. A cycle that is published has nothing to close:
// that is [ErrRefused], and so is a batch that a person has triggered and that waits.
func (e *Engine) Close(ctx context.Context, key Key, m pipeline.Mode, actor, reason string) (CloseResult, error) {
	s, err := e.read(ctx, key, nil)
	if err != nil {
		return CloseResult{}, err
	}
	r := CloseResult{Before: s.closed[m.Name]}
	if r.Before == nil {
		switch st, open := s.status(m), waiting(s.batches[m.Name]); {
		case st.State == string(StatePublished):
			return CloseResult{}, fmt.Errorf("%s is published: there is nothing to close: %w", cycleID(key, m.Name), ErrRefused)
		case open != nil && len(selected(s.input(m), open)) > 0:
			return CloseResult{}, fmt.Errorf("%s: batch %d, which %s triggered, waits: %s: %w", cycleID(key, m.Name), open.N, open.Actor, open.Reason, ErrRefused)
		}
		record := audit.Record{Action: "close", Actor: actor, Reason: reason, Transition: key.Transition.ID, Period: string(key.Period), Mode: m.Name,
			Detail: cycleID(key, m.Name) + ": " + reason}
		value := map[string]any{"at": store.ServerTime, "actor": actor, "reason": reason}
		err := e.inPeriod(ctx, key, nil, []store.Field{store.F(value, "closed", key.Transition.StoredMode(m.Name)), e.stays(e.Now())}, record.Write(e.Prefix, e.Now(), e.NewID()))
		if err != nil && !errors.Is(err, store.ErrExists) { // the record's id is ours alone: an earlier try's answer was lost
			return CloseResult{}, fmt.Errorf("close %s: %w", record.Detail, err)
		}
		record.Log(ctx, e.Log)
	}
	r.Publishing, err = e.touch(ctx, key, m.Name)
	return r, err
}

// readClosed reads the closings of cycles. Of two the first is in force.
func (s *snapshot) readClosed(doc store.Doc) error {
	f := &fields{doc: doc}
	for name, m := range f.maps("closed") {
		mode := s.key.Transition.PresentMode(name)
		inner := &fields{doc: store.Doc{Ref: doc.Ref, Data: m}}
		c := &Closing{At: inner.time("at"), Actor: inner.str("actor"), Reason: inner.str("reason")}
		if old := s.closed[mode]; old == nil || c.At.Before(old.At) {
			s.closed[mode] = c
		}
		f.err = errors.Join(f.err, inner.err)
	}
	return f.err
}

// keeps reports whether a closing keeps a batch from going on: one that is not frozen, and of which
// no run counts that a person chose. The policy would go on with such a batch.
func (s *snapshot) keeps(m pipeline.Mode, b *batch) bool {
	return s.closed[m.Name] != nil && b.unfrozen() && len(selected(s.input(m), b)) == 0
}
