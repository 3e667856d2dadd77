package cycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

// Hold keeps a cycle, or every cycle of a transition, from being handed over until it
// ends. Completions are recorded meanwhile; a grace period may begin. What is frozen
// already goes on: it was promised.
type Hold struct {
	Until  time.Time `json:"until"` // UTC, by the server's clock
	Since  time.Time `json:"since"` // UTC, the server's clock
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	Whole  bool      `json:"whole_transition"`

	id string // of this hold; two can begin within the millisecond of a stamp
}

// Limits of a hold: one that no operator ends must end, and that of a whole
// transition before its periods are older than what the relay looks after.
const (
	MaxHold      = 30 * 24 * time.Hour
	MaxWholeHold = (relayDays - 1) * 24 * time.Hour
)

// HoldResult tells what a hold or a release met.
type HoldResult struct {
	Hold *Hold // that was made, or that a release ended; nil when nothing was held
	// Replaced is the hold that was in force before one was made, nil when there was none.
	Replaced *Hold
	// Publishing names the batches that were frozen when a hold arrived: it takes effect
	// after them.
	Publishing []string
}

// holdRef names the document of a whole transition's hold. Its id lies outside the
// range of the transition's periods.
func (e *Engine) holdRef(t *pipeline.Transition) store.Ref {
	return store.Ref{Collection: e.Prefix + periodsCollection, ID: t.StoredID() + "~hold"}
}

// readHolds reads the holds of cycles. Of two, one in a period's second document, the
// later one is in force.
func (s *snapshot) readHolds(doc store.Doc) error {
	f := &fields{doc: doc}
	for name, v := range field[map[string]any](f, "holds") {
		mode := s.key.Transition.PresentMode(name)
		if v == nil {
			continue // released
		}
		m, ok := v.(map[string]any)
		f.check(ok, "holds."+name, v)
		inner := &fields{doc: store.Doc{Ref: doc.Ref, Data: m}}
		h := inner.hold()
		if old := s.holds[mode]; old == nil || old.Since.Before(h.Since) {
			s.holds[mode] = h
		}
		if !slices.ContainsFunc(s.heldIn[mode], func(in store.Doc) bool { return in.Ref == doc.Ref }) {
			s.heldIn[mode] = append(s.heldIn[mode], doc)
		}
		f.err = errors.Join(f.err, inner.err)
	}
	return f.err
}

func (s *snapshot) readHold(doc store.Doc) error {
	f := &fields{doc: doc}
	if h := f.hold(); !h.Until.IsZero() {
		h.Whole = true
		s.holds[""], s.heldIn[""] = h, []store.Doc{doc}
	}
	return f.err
}

func (f *fields) hold() *Hold {
	return &Hold{Until: f.time("until"), Since: f.time("since"), Actor: f.str("actor"), Reason: f.str("reason"), id: f.str("id")}
}

// Hold holds a cycle, in place of an earlier hold. With an empty mode it holds every cycle of the
// transition, and the key's period has no meaning. The hold begins at the server's present time.
// When Hold returns, every batch of the relay's periods is frozen and named in the result, or it
// is not handed over before the hold ends. Holding again begins anew; the audit record is written
// in the same commit.
func (e *Engine) Hold(ctx context.Context, key Key, mode string, lasts time.Duration, actor, reason string) (HoldResult, error) {
	if most := longest(mode); lasts <= 0 || lasts > most {
		return HoldResult{}, fmt.Errorf("hold for %s: must be more than nothing and at most %s", lasts, most)
	}
	key, mode = e.any(key, mode), key.Transition.PresentMode(mode)
	r, err := e.makeHold(ctx, key, mode, lasts, actor, reason)
	if err != nil {
		return HoldResult{}, err
	}
	keys := []Key{key}
	if mode == "" {
		if keys, err = e.window(ctx, key.Transition, key.Transition.Calendar().At(e.Now())); err != nil {
			return r, err
		}
	}
	for _, k := range keys {
		publishing, err := e.touch(ctx, k, mode)
		if err != nil {
			return r, err
		}
		r.Publishing = append(r.Publishing, publishing...)
	}
	return r, nil
}

// makeHold writes the hold. Every hold and every release also changes the list of watched periods,
// and is refused if that list has changed since it was read. So a hold or a release whose answer
// was lost never lands after a later one.
func (e *Engine) makeHold(ctx context.Context, key Key, mode string, lasts time.Duration, actor, reason string) (HoldResult, error) {
	at, recordID, id := e.Now(), e.NewID(), e.NewID()
	for range maxSteps {
		list, err := e.list(ctx, key.Transition)
		if err != nil {
			return HoldResult{}, err
		}
		s, err := e.read(ctx, key, nil)
		if err != nil {
			return HoldResult{}, err
		}
		r := HoldResult{Hold: &Hold{Until: s.now.Add(lasts), Actor: actor, Reason: reason, Whole: mode == ""}}
		if old := s.holds[mode]; old != nil && s.now.Before(old.Until) {
			r.Replaced = old
		}
		record := holdRecord("hold", key, mode, r.Hold, actor, reason)
		write := record.Write(e.Prefix, at, recordID)
		value := map[string]any{"id": id, "until": r.Hold.Until, "since": store.ServerTime, "actor": actor, "reason": reason}
		if mode == "" {
			var fields []store.Field
			for name, v := range value {
				fields = append(fields, store.F(v, name))
			}
			_, err = e.Store.Apply(ctx, write, store.IfUnchanged(list, e.listed()...), store.Merge(e.holdRef(key.Transition), fields...))
		} else {
			err = e.inPeriod(ctx, key, nil, []store.Field{store.F(value, "holds", key.Transition.StoredMode(mode)), e.stays(e.Now())},
				write, store.IfUnchanged(list, e.listed(key.Period)...))
		}
		if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) {
			// The record's id is ours alone: if it is there, an earlier answer was lost.
			if got, err := e.Store.Get(ctx, write.Ref); err != nil {
				return HoldResult{}, fmt.Errorf("hold %s: %w", record.Detail, err)
			} else if !got.Docs[0].Exists {
				continue // another process has changed the list
			}
			err = nil
		}
		if err != nil {
			return HoldResult{}, fmt.Errorf("hold %s: %w", record.Detail, err)
		}
		record.Log(ctx, e.Log)
		return r, nil
	}
	return HoldResult{}, fmt.Errorf("%s: no end after %d steps", key, maxSteps)
}

func longest(mode string) time.Duration {
	if mode == "" {
		return MaxWholeHold
	}
	return MaxHold
}

// any gives a key that is about a whole transition a period: each is read together
// with the transition's hold.
func (e *Engine) any(key Key, mode string) Key {
	if mode == "" {
		key.Period = key.Transition.Calendar().At(e.Now())
	}
	return key
}

func holdRecord(action string, key Key, mode string, h *Hold, actor, reason string) audit.Record {
	what, period := "every cycle of "+key.Transition.ID, ""
	if mode != "" {
		what, period = cycleID(key, mode), string(key.Period)
	}
	return audit.Record{Action: action, Actor: actor, Reason: reason, Transition: key.Transition.ID, Period: period, Mode: mode,
		Detail: fmt.Sprintf("%s, until %s: %s", what, h.Until.UTC().Format(time.RFC3339), reason)}
}

// touch changes every unfrozen batch that another process is working on, so that what its
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
					_, err = e.Store.Apply(ctx, store.MergeIf(e.batchRef(b.ID), b.Version, store.F(e.NewID(), "touched")))
				}
			}
		}
		if !errors.Is(err, store.ErrConflict) {
			return publishing, err
		}
	}
	return nil, fmt.Errorf("%s: no end after %d steps", key, maxSteps)
}

// Release ends the hold of a cycle, or with an empty mode that of the transition. Then it does what
// is due, also if there was no hold: calling again after an error continues. It ends only the hold
// that it finds. If another operator has made a later one meanwhile, it returns [ErrRefused].
func (e *Engine) Release(ctx context.Context, key Key, mode, actor, reason string) (HoldResult, error) {
	key, mode = e.any(key, mode), key.Transition.PresentMode(mode)
	r, err := e.endHold(ctx, key, mode, actor, reason)
	if err != nil {
		return HoldResult{}, err
	}
	if mode == "" {
		return r, e.Relay(ctx, key.Transition, "", nil)
	}
	_, err = e.Converge(ctx, key, "")
	return r, err
}

// heldAs are the fields that end a mode's hold, under any of its names.
func heldAs(doc store.Doc, mode string, t *pipeline.Transition) (fields []store.Field) {
	holds, _ := doc.Data["holds"].(map[string]any)
	for name := range holds {
		if t.PresentMode(name) == mode {
			fields = append(fields, store.F(nil, "holds", name))
		}
	}
	return fields
}

func (e *Engine) endHold(ctx context.Context, key Key, mode, actor, reason string) (HoldResult, error) {
	var was *Hold
	for range maxSteps {
		list, err := e.list(ctx, key.Transition)
		if err != nil {
			return HoldResult{}, err
		}
		s, err := e.read(ctx, key, nil)
		if err != nil {
			return HoldResult{}, err
		}
		h := s.holds[mode]
		relist := store.IfUnchanged(list, e.listed()...)
		switch {
		case h == nil || !s.now.Before(h.Until): // the commit of a hold whose answer was lost may still be under way
			_, err := e.Store.Apply(ctx, relist)
			if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) {
				continue
			}
			return HoldResult{Hold: was}, err // was: ours, and its answer was lost
		case was != nil && h.id != was.id:
			return HoldResult{}, fmt.Errorf("%s holds it now, until %s: %s: %w", h.Actor, h.Until.Format(time.RFC3339), h.Reason, ErrRefused)
		}
		was = h
		record := holdRecord("release", key, mode, h, actor, reason)
		writes := []store.Write{record.Write(e.Prefix, e.Now(), e.NewID()), relist}
		for _, doc := range s.heldIn[mode] { // against what was read: a hold made since is another
			fields := []store.Field{store.F(nil, "until")}
			if mode != "" {
				fields = heldAs(doc, mode, key.Transition)
			}
			writes = append(writes, store.MergeIf(doc.Ref, doc.Version, fields...))
		}
		switch _, err := e.Store.Apply(ctx, writes...); {
		case err == nil:
			record.Log(ctx, e.Log)
			return HoldResult{Hold: h}, nil
		case !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict):
			return HoldResult{}, fmt.Errorf("release %s: %w", record.Detail, err)
		}
	}
	return HoldResult{}, fmt.Errorf("%s: no end after %d steps", key, maxSteps)
}
