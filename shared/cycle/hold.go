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

// Hold keeps a cycle, or every cycle of a transition, from being handed over until it
// ends. Completions are recorded meanwhile; a grace period may begin. What is frozen
// already goes on: it was promised.
type Hold struct {
	Until  time.Time `json:"until"` // UTC
	Since  time.Time `json:"since"` // UTC, the server's clock
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	Whole  bool      `json:"whole_transition"`
}

// MaxHold bounds a hold: one that nobody ends must end.
const MaxHold = 30 * 24 * time.Hour

// HoldResult tells what a hold or a release met.
type HoldResult struct {
	// Publishing names the batches that were frozen when a hold arrived: it takes effect
	// after them.
	Publishing []string
	// Was is what a release ended, nil when nothing was held.
	Was *Hold
}

// holdRef names the document of a whole transition's hold. Its id lies outside the
// range of the transition's periods.
func (e *Engine) holdRef(t *pipeline.Transition) store.Ref {
	return store.Ref{Collection: e.Prefix + periodsCollection, ID: t.ID + "~hold"}
}

func (s *snapshot) readHolds(doc store.Doc) error {
	f := &fields{doc: doc}
	for mode, v := range field[map[string]any](f, "holds") {
		if v == nil {
			continue // released
		}
		m, ok := v.(map[string]any)
		f.check(ok, "holds."+mode, v)
		h := &fields{doc: store.Doc{Ref: doc.Ref, Data: m}}
		s.holds[mode], s.heldIn[mode] = h.hold(), append(s.heldIn[mode], doc.Ref)
		f.err = errors.Join(f.err, h.err)
	}
	return f.err
}

func (s *snapshot) readHold(doc store.Doc) error {
	f := &fields{doc: doc}
	if h := f.hold(); !h.Until.IsZero() {
		h.Whole = true
		s.holds[""] = h
	}
	return f.err
}

func (f *fields) hold() *Hold {
	return &Hold{Until: f.time("until"), Since: f.time("since"), Actor: f.str("actor"), Reason: f.str("reason")}
}

// Hold holds a cycle, or with an empty mode every cycle of the transition (the key's
// period then means nothing), whatever held it before. When it returns, every batch is either frozen, and named in the
// result, or will not be handed over before the hold ends. Idempotent; the audit
// record is written in the same commit.
func (e *Engine) Hold(ctx context.Context, key Key, mode string, h Hold) (HoldResult, error) {
	if d := h.Until.Sub(e.Now()); d <= 0 || d > MaxHold {
		return HoldResult{}, fmt.Errorf("hold until %s: must end within the next %d days", h.Until.UTC().Format(time.RFC3339), MaxHold/(24*time.Hour))
	}
	value := map[string]any{"until": h.Until, "since": store.ServerTime, "actor": h.Actor, "reason": h.Reason}
	record := e.holdRecord("hold", key, mode, h)
	write := record.Write(e.Prefix, e.Now(), e.NewID())
	var err error
	if mode == "" {
		var fields []store.Field
		for name, v := range value {
			fields = append(fields, store.F(v, name))
		}
		_, err = e.Store.Apply(ctx, write, store.Merge(e.holdRef(key.Transition), fields...))
	} else {
		err = e.inPeriod(ctx, key, store.F(value, "holds", mode), write)
	}
	if err != nil && !errors.Is(err, store.ErrExists) { // the record's id is ours alone: an earlier try's answer was lost
		return HoldResult{}, fmt.Errorf("hold %s: %w", record.Detail, err)
	}
	record.Log(ctx, e.Log)
	keys := []Key{key}
	if mode == "" {
		if keys, err = e.window(ctx, key.Transition, key.Transition.Calendar().At(e.Now())); err != nil {
			return HoldResult{}, err
		}
	}
	var r HoldResult
	for _, k := range keys {
		publishing, err := e.touch(ctx, k, mode)
		if err != nil {
			return r, err
		}
		r.Publishing = append(r.Publishing, publishing...)
	}
	return r, nil
}

func (e *Engine) holdRecord(action string, key Key, mode string, h Hold) audit.Record {
	what, period := "every cycle of "+key.Transition.ID, ""
	if mode != "" {
		what, period = cycleID(key, mode), string(key.Period)
	}
	return audit.Record{Action: action, Actor: h.Actor, Reason: h.Reason, Transition: key.Transition.ID, Period: period, Mode: mode,
		Detail: fmt.Sprintf("%s, until %s: %s", what, h.Until.UTC().Format(time.RFC3339), h.Reason)}
}

// touch changes every unfrozen batch that somebody is working on, so that what its
// holder decided before the hold cannot be written: it has to read again. That holds
// for one whose claim has run out, too: it may only be asleep. It returns the batches
// that are frozen and not published yet.
func (e *Engine) touch(ctx context.Context, key Key, mode string) (publishing []string, err error) {
	for range maxSteps {
		s, err := e.read(ctx, key, nil)
		if err != nil {
			return nil, err
		}
		publishing = nil
		for m, bs := range s.batches {
			for _, b := range bs {
				switch {
				case mode != "" && m != mode:
				case b.State == StatePublishing:
					publishing = append(publishing, b.ID)
				case b.unfrozen() && b.Holder != "" && err == nil:
					_, err = e.Store.Apply(ctx, store.MergeIf(e.batchRef(b.ID), b.Version, store.F(store.ServerTime, "held_at")))
				}
			}
		}
		if !errors.Is(err, store.ErrConflict) {
			return publishing, err
		}
	}
	return nil, fmt.Errorf("%s: no end after %d steps", key, maxSteps)
}

// Release ends the hold of a cycle, or with an empty mode that of the transition, and
// does what is due. Idempotent: what is not held stays so, and nothing is recorded.
func (e *Engine) Release(ctx context.Context, key Key, mode, actor, reason string) (HoldResult, error) {
	if mode == "" {
		key.Period = key.Transition.Calendar().At(e.Now()) // any will do: each is read with the transition's hold
	}
	s, err := e.read(ctx, key, nil)
	if err != nil {
		return HoldResult{}, err
	}
	was := s.holds[mode]
	if was == nil || !s.now.Before(was.Until) {
		return HoldResult{}, nil
	}
	record := e.holdRecord("release", key, mode, Hold{Until: was.Until, Actor: actor, Reason: reason})
	writes := []store.Write{record.Write(e.Prefix, e.Now(), e.NewID())}
	if mode == "" {
		writes = append(writes, store.Merge(e.holdRef(key.Transition), store.F(nil, "until")))
	}
	for _, ref := range s.heldIn[mode] {
		writes = append(writes, store.Merge(ref, store.F(nil, "holds", mode)))
	}
	if _, err := e.Store.Apply(ctx, writes...); err != nil && !errors.Is(err, store.ErrExists) {
		return HoldResult{}, fmt.Errorf("release %s: %w", record.Detail, err)
	}
	record.Log(ctx, e.Log)
	r := HoldResult{Was: was}
	if mode == "" {
		return r, e.Relay(ctx, key.Transition, "")
	}
	_, err = e.Converge(ctx, key, "")
	return r, err
}
