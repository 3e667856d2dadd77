package cycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
)

// What a person asks for may be about a period of any age, or last until the period is
// older than the relay's window. Such periods are watched: listed in one document, in
// the commit that makes the hold or the hand-over, until nothing is left to do there.

// watchRef names the list. Its id lies outside the range of the transition's periods.
func (e *Engine) watchRef(t *pipeline.Transition) store.Ref {
	return store.Ref{Collection: e.Prefix + periodsCollection, ID: t.StoredID() + "~watch"}
}

// watch lists a period. The list changes even if it has the period already: a relay
// that has just found nothing to do there must not take it off.
func (e *Engine) watch(key Key) store.Write {
	return store.Merge(e.watchRef(key.Transition), e.listed(key.Period)...)
}

// listed are the fields that change the list and add periods to it.
func (e *Engine) listed(periods ...pipeline.Period) []store.Field {
	fields := []store.Field{store.F(e.NewID(), "listing")}
	if len(periods) > 0 {
		var added []any
		for _, p := range periods {
			added = append(added, string(p))
		}
		fields = append(fields, store.F(store.Union(added...), "periods"))
	}
	return fields
}

// list reads the list.
func (e *Engine) list(ctx context.Context, t *pipeline.Transition) (store.Doc, error) {
	got, err := e.Store.Get(ctx, e.watchRef(t))
	if err != nil {
		return store.Doc{}, fmt.Errorf("read the watched periods of %s: %w", t.ID, err)
	}
	return got.Docs[0], nil
}

// state reads the list, and the hold of the whole transition, at the server's time.
func (e *Engine) state(ctx context.Context, t *pipeline.Transition) (list, hold store.Doc, now time.Time, err error) {
	got, err := e.Store.Get(ctx, e.watchRef(t), e.holdRef(t))
	if err != nil {
		return list, hold, now, fmt.Errorf("read the watched periods and the hold of %s: %w", t.ID, err)
	}
	return got.Docs[0], got.Docs[1], got.ReadTime, nil
}

// watched reads the list and its periods.
func (e *Engine) watched(ctx context.Context, t *pipeline.Transition) (store.Doc, []pipeline.Period, error) {
	list, err := e.list(ctx, t)
	if err != nil {
		return store.Doc{}, nil, err
	}
	periods, err := watchedIn(list, t)
	return list, periods, err
}

func watchedIn(list store.Doc, t *pipeline.Transition) (periods []pipeline.Period, err error) {
	f := fields{doc: list}
	for _, s := range f.strings("periods") {
		p, err := t.Calendar().Parse(s)
		if err != nil {
			return nil, fmt.Errorf("%s: periods: %w", f.doc.Ref, err)
		}
		periods = append(periods, p)
	}
	return periods, f.err
}

// Managed says from when on the cycles of a transition are ours.
type Managed struct {
	Since pipeline.Period // the first period; "" where nothing is recorded
	At    time.Time       // when the first relay ran; zero in the state of earlier versions
}

// Words say it for people, with the transition where there are several; "" where nothing is recorded.
func (m Managed) Words(t *pipeline.Transition) string {
	if m.Since == "" {
		return ""
	}
	unit := "days"
	if t.Calendar().Hourly() {
		unit = "hours"
	}
	return fmt.Sprintf("%sadopted on %s; earlier %s are not judged", t.Prefix(), m.Since, unit)
}

// missed reports whether reports about a cycle may have come before the first relay, to another
// orchestrator: of such a cycle nothing has to be recorded.
func (m Managed) missed(t *pipeline.Transition, p pipeline.Period, mode pipeline.Mode) bool {
	return t.Calendar().Instant(p, mode.CountsFrom).Before(m.At)
}

// Judges reports whether the cycles of a period are ours to judge; earlier ones are shown.
func (m Managed) Judges(p pipeline.Period) bool { return m.Since != "" && p >= m.Since }

// Judged returns the status as every surface shows it: of an earlier period, no cycle is overdue.
func (m Managed) Judged(st Status) Status {
	if st.Early = !m.Judges(pipeline.Period(st.Period)); st.Early && st.State == string(policy.Overdue) {
		st.State, st.TooLate = string(policy.Waiting), false
		st.Reason += "; not judged: the period is before the adoption"
	}
	return st
}

// Excuses reports whether nothing has to be recorded of a cycle: its reports may have gone to
// another orchestrator, before the first relay ran. A report that counts for no mode, such as the first
// failure of another mode's processor, is no report of it.
func (m Managed) Excuses(t *pipeline.Transition, st Status) bool {
	touched := st.Recorded()
	if st.Ignored = nil; st.Recorded() {
		return false
	}
	p := pipeline.Period(st.Period)
	mode, known := t.Mode(st.Mode)
	return !touched && p == m.Since && t.ManagedSince == "" || known && m.missed(t, p, mode)
}

// adopted returns what the list has of it. What the definition says wins. At is now where no relay
// has run.
func (e *Engine) adopted(t *pipeline.Transition, list store.Doc) (Managed, error) {
	f := fields{doc: list}
	m, s := Managed{Since: t.ManagedSince, At: f.time("managed_at")}, f.str("managed_since")
	if f.err != nil {
		return m, f.err
	}
	if m.At.IsZero() && s == "" {
		m.At = e.Now().UTC()
	}
	if m.Since != "" || s == "" {
		return m, nil
	}
	var err error
	if m.Since, err = t.Calendar().Parse(s); err != nil {
		return m, fmt.Errorf("%s: managed_since: %w", list.Ref, err)
	}
	return m, nil
}

// adopt records, each once, when the first relay ran and the first period that is ours. A
// completion with an older date (a backfill, a typing error) does not move it later. It returns
// the list as it is now.
func (e *Engine) adopt(ctx context.Context, t *pipeline.Transition, list store.Doc) (store.Doc, Managed, error) {
	m, err := e.adopted(t, list)
	if err != nil {
		return list, m, err
	}
	var fs []store.Field
	if f := (fields{doc: list}); f.str("managed_since") == "" && f.time("managed_at").IsZero() {
		fs = append(fs, store.F(m.At, "managed_at"))
	}
	if m.Since == "" {
		if m.Since, err = e.firstRecorded(ctx, t); err != nil {
			return list, m, err
		}
		if m.Since != "" {
			fs = append(fs, store.F(string(m.Since), "managed_since"))
		}
	}
	if len(fs) == 0 {
		return list, m, nil
	}
	versions, err := e.Store.Apply(ctx, store.IfUnchanged(list, fs...))
	switch {
	case err == nil:
		list.Exists, list.Version = true, versions[0]
	case errors.Is(err, store.ErrExists), errors.Is(err, store.ErrConflict):
		err = nil // another relay, or a person who lists a period: the next relay reads what is recorded
	}
	return list, m, err
}

// unwatch takes the settled periods off the list, unless another process has listed one of
// them or another meanwhile: the next relay does it then.
func (e *Engine) unwatch(ctx context.Context, list store.Doc, periods []pipeline.Period, settled map[pipeline.Period]bool) error {
	var left []any
	for _, p := range periods {
		if !settled[p] {
			left = append(left, string(p))
		}
	}
	if len(left) == len(periods) {
		return nil
	}
	_, err := e.Store.Apply(ctx, store.MergeIf(list.Ref, list.Version, store.F(left, "periods")))
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

// settled reports whether nothing is left to do in a period, and nothing is on hold.
func (s *snapshot) settled() bool {
	for name, bs := range s.batches {
		m, known := s.key.Transition.Mode(name)
		if !known {
			m = pipeline.Mode{Name: name}
		}
		if open := firstUnpublished(bs); open != nil && !s.keeps(m, open) || s.hold(name) != nil {
			return false
		}
	}
	for mode := range s.heldIn {
		if s.hold(mode) != nil {
			return false
		}
	}
	return true
}

// merged returns both in order, each once.
func merged(a, b []pipeline.Period) []pipeline.Period {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
