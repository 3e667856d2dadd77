package cycle

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
)

// projection returns the fields of the compatibility document as the snapshot has
// them, or nil when the document says so already or there is nothing to say. Always
// recomputed as a whole, never incremented; the engine itself never decides on it.
func (s *snapshot) projection() []store.Field {
	fields := s.shown()
	if !slices.ContainsFunc(fields, func(f store.Field) bool { return !holds(s.compat, f) }) {
		return nil
	}
	return append(fields, store.F(store.ServerTime, lastUpdate))
}

// maxAheadWrites is how often one Converge projects ahead of its work when other processes write
// to the document meanwhile.
const maxAheadWrites = 3

// ahead returns the projection if the compatibility document does not show every run
// yet. It never keeps a hand-over waiting: after an error, or a few writes, the last
// step has to do.
func (s *snapshot) ahead(by *attempt) []store.Field {
	if by.shadow || by.aheadWrites >= maxAheadWrites {
		return nil
	}
	fields := s.projection()
	runs := func(f store.Field) bool {
		return s.key.Transition.Expects(f.Path[0]) || s.key.countsOnly() && f.Path[0] == completedCount
	}
	if !slices.ContainsFunc(fields, func(f store.Field) bool { return runs(f) && !holds(s.compat, f) }) {
		return nil
	}
	return fields
}

// maxProjected is for how many processors the compatibility document has a field each. With 10,000 it
// would have 2 MB, and a document takes 1 MiB.
const maxProjected = 500

// countsOnly reports whether the compatibility document has only the number of complete processors and
// the flags.
func (k Key) countsOnly() bool { return len(k.Transition.Order) > maxProjected }

// completedCount is the field of the compatibility document with the number of complete processors.
const completedCount = "_completed_count"

// lastUpdate is its field with the time of the last write, which makes each write a change.
const lastUpdate = "_last_update"

// shown returns what the compatibility document should say.
func (s *snapshot) shown() []store.Field {
	newest, mode := s.counted()
	if len(newest) == 0 && len(s.listed) == 0 {
		return nil
	}
	var fields []store.Field
	if !s.key.countsOnly() {
		for _, name := range s.key.Transition.Order {
			if r, ok := newest[name]; ok {
				fields = append(fields, store.F(projectRun(r), name))
			}
		}
	}
	fields = append(fields, store.F(len(newest), completedCount))
	fields = append(fields, s.flags(mode)...)
	if s.repaired != "" {
		fields = append(fields, store.F(s.repaired, "_reconciliation_fix"))
	}
	return fields
}

func projectRun(r policy.Run) map[string]any {
	entities := make([]any, len(r.Entities))
	for i, e := range r.Entities {
		entities[i] = e
	}
	var count any
	if r.RecordCount != nil {
		count = *r.RecordCount
	}
	return map[string]any{
		"completed_at":     r.EventTime,
		"correlation_id":   r.CorrelationID,
		"status":           string(r.Status),
		"record_count":     count,
		"execution_id":     r.ExecutionID,
		"is_incremental":   r.Incremental && !r.Truncated, // a list that was cut looks complete
		"entities_changed": entities,
	}
}

// counted returns each processor's newest run that counts for any mode, and the mode to show. That
// is the most advanced mode to which a counting run belongs or in whose time it fell. A run that a
// mode accepts from earlier does not make it the mode shown. Runs are never removed, so the mode
// only advances.
func (s *snapshot) counted() (newest map[string]policy.Run, mode string) {
	modes, modeAt := s.key.Transition.Modes, s.key.Transition.ModesOf(s.key.Period)
	newest, shown := map[string]policy.Run{}, -1
	for i, m := range modes {
		in := s.input(m)
		own := policy.Own(in)
		for _, r := range policy.Counting(in) {
			if old, ok := newest[r.Processor]; !ok || policy.Older(old, r) < 0 {
				newest[r.Processor] = r
			}
			at := modeAt(r.EventTime)
			shown = max(shown, slices.IndexFunc(modes, func(o pipeline.Mode) bool { return o.Name == at }))
			if own(r) {
				shown = max(shown, i)
			}
		}
	}
	if shown < 0 {
		return newest, ""
	}
	return newest, modes[shown].Name
}

// flags describe the cycle of the mode shown.
func (s *snapshot) flags(mode string) []store.Field {
	var triggeredAt, pendingAt, reason any
	h, pending := s.handedBy(mode), false
	if h.N == 0 {
		h = s.former[mode].handed
	}
	for _, b := range s.batches[mode] {
		if b.State != StatePublished {
			pending, pendingAt = true, b.CreatedAt
		}
	}
	triggered := h.N > 0
	if triggered {
		triggeredAt, reason = h.At, h.Cause
	}
	succeeded := triggered && !pending
	return []store.Field{
		store.F(mode, "_mode"),
		store.F(pending, "_trigger_pending"),
		store.F(pendingAt, "_trigger_pending_at"),
		store.F(triggered, "_triggered"),
		store.F(triggeredAt, "_triggered_at"),
		store.F(succeeded, "_trigger_succeeded"),
		store.F(reason, "_trigger_reason"),
	}
}

// holds reports whether a document has exactly this value at a field's path.
func holds(doc store.Doc, f store.Field) bool {
	old, ok := doc.Data[f.Path[0]]
	if n, isInt := f.Value.(int); isInt {
		f.Value = int64(n)
	}
	return ok && equalValues(old, f.Value)
}

func equalValues(a, b any) bool {
	switch a := a.(type) {
	case time.Time:
		b, ok := b.(time.Time)
		return ok && a.Equal(b)
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, v := range a {
			if w, ok := b[k]; !ok || !equalValues(v, w) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}

// project writes the projection against the version that the snapshot has: of two
// convergers the one with the older snapshot fails, reads again and finds it done. The
// summary of what is published goes with it, where the period has room.
func (c *convergence) project(ctx context.Context, s *snapshot, a action) error {
	var writes []store.Write
	switch ref := c.projectionRef(c.key); {
	case len(a.fields) == 0:
	case s.compat.Exists:
		writes = append(writes, store.MergeIf(ref, s.compat.Version, a.fields...))
	default:
		writes = append(writes, store.Create(ref, a.fields...))
	}
	if len(a.sums) > 0 || a.end != nil {
		err := c.projectWith(ctx, s, a, writes)
		if !errors.Is(err, store.ErrTooLarge) {
			return err
		}
	}
	if len(writes) == 0 {
		return nil
	}
	return c.apply(ctx, writes...)
}

// maxEnds bounds the batches and parts that get an end in one commit. Those of one batch stay together.
// What an earlier version has not summed up can be more, and stays.
const maxEnds = 100

// projectWith writes the projection together with what the period gets.
func (c *convergence) projectWith(ctx context.Context, s *snapshot, a action, writes []store.Write) error {
	end := store.Expires(s.now)
	if c.Shadow {
		end = c.stays(s.now)
	}
	ends := 0
	for _, b := range slices.Backward(a.summed) {
		if ends >= maxEnds {
			break
		}
		of := c.ends(b, end)
		writes, ends = append(writes, of...), ends+len(of)
	}
	if a.end != nil {
		c.endTries++
		period := store.MergeIf(s.periods[0].Ref, s.periods[0].Version, append(slices.Clone(a.sums), *a.end)...)
		err := c.apply(ctx, slices.Concat(writes, s.shardsEnd(*a.end), []store.Write{period})...)
		if !errors.Is(err, store.ErrTooLarge) || len(a.sums) == 0 {
			return err
		}
	}
	return c.inPeriod(ctx, c.key, nil, a.sums, writes...)
}

// projectedAhead notes how a projection ahead of the work ended. The work goes on.
func (c *convergence) projectedAhead(ctx context.Context, err error) {
	c.aheadWrites++
	if err == nil || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) {
		return
	}
	c.aheadWrites = maxAheadWrites
	c.Log.WarnContext(ctx, "the completion is shown only after the hand-over: "+err.Error(),
		"transition", c.key.Transition.ID, "period", string(c.key.Period))
}
