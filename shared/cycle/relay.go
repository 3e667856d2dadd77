package cycle

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/phasegate/phasegate/shared/gate"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// PeriodFull is the type of the finding that a period has no room for all reports.
const PeriodFull = "period_full"

const (
	// relayDays is how far back the relay looks, and then once more as far to name what
	// it leaves.
	relayDays = 7
	// maxAhead bounds how many periods beyond the newest expected one it looks at: a
	// processor with a broken clock must not make every relay longer.
	maxAhead = 100
)

// Relay converges the periods from a week back to the newest expected or recorded
// one, and older ones about which a person has asked for something: whatever is due
// there by time, or was left by a process that died, is finished. A cycle of which
// nothing is on record has a deadline too, from the first period on that is ours. What is
// unfinished in the week before is named, and left to reconciliation.
//
// It reads each of these periods once, whatever history there is, and writes only
// where something is unfinished. Idempotent; two at once are harmless. One period's
// error does not keep it from the others.
func (e *Engine) Relay(ctx context.Context, t *pipeline.Transition, messageID string) error {
	today := t.Calendar().At(e.Now()) // once: midnight may pass while it reads
	managed, err := e.nameWhatIsLeft(ctx, t, today)
	errs := []error{err}
	list, watched, err := e.watched(ctx, t)
	errs = append(errs, err)
	list, since, adoptErr := e.adopt(ctx, t, list)
	errs = append(errs, adoptErr)
	keys, err := e.periods(ctx, t, today, watched)
	errs = append(errs, err)
	settled := map[pipeline.Period]bool{}
	unread := false // a schedule that hangs is not asked about each period in turn
	for _, key := range keys {
		c := e.convergence(key, messageID)
		c.expected, c.lookedUp = managed && key.Period >= since, unread
		_, err := c.run(ctx)
		errs = append(errs, err)
		managed = managed || c.last != nil && c.last.recorded()
		unread = unread || c.unread
		e.tellFull(ctx, key, c.last)
		settled[key.Period] = err == nil && c.last.settled()
	}
	errs = append(errs, e.unwatch(ctx, list, watched, settled))
	return errors.Join(errs...)
}

// tellFull logs that a period has no room for all that is reported.
func (e *Engine) tellFull(ctx context.Context, key Key, s *snapshot) {
	if s == nil || s.full() == "" {
		return
	}
	e.Log.WarnContext(ctx, "the period is full: "+s.full(), "event", telemetry.Finding, "by", "relay", "type", PeriodFull,
		"transition", key.Transition.ID, "period", string(key.Period), "mode", "")
}

// window returns the periods that the relay looks after, oldest first.
func (e *Engine) window(ctx context.Context, t *pipeline.Transition, today pipeline.Period) ([]Key, error) {
	_, watched, err := e.watched(ctx, t)
	if err != nil {
		return nil, err
	}
	return e.periods(ctx, t, today, watched)
}

func (e *Engine) periods(ctx context.Context, t *pipeline.Transition, today pipeline.Period, watched []pipeline.Period) ([]Key, error) {
	cal := t.Calendar()
	var ps []pipeline.Period
	for n := -relayDays * cal.PerDay(); n <= t.Lead(); n++ {
		ps = append(ps, cal.Add(today, n))
	}
	ahead, err := e.recordedFrom(ctx, t, cal.Add(today, t.Lead()+1))
	var keys []Key
	for _, p := range merged(append(ps, ahead...), watched) {
		keys = append(keys, Key{Transition: t, Period: p})
	}
	return keys, err
}

// recordedFrom returns the periods from one on that have a document.
func (e *Engine) recordedFrom(ctx context.Context, t *pipeline.Transition, from pipeline.Period) ([]pipeline.Period, error) {
	var ps []pipeline.Period
	prefix := t.StoredID() + "_"
	for doc, err := range e.Store.Scan(ctx, e.Prefix+periodsCollection, prefix+string(from), prefix+"~") {
		if err != nil {
			return ps, fmt.Errorf("periods from %s on: %w", from, err)
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(doc.Ref.ID, prefix), "~")
		p, err := t.Calendar().Parse(id)
		if err != nil {
			e.Log.WarnContext(ctx, "no period's document, left alone: "+err.Error(), "document", doc.Ref.String())
			continue
		}
		if n := len(ps); n > 0 && ps[n-1] == p {
			continue // its second document
		}
		if len(ps) == maxAhead {
			e.Log.WarnContext(ctx, "more periods ahead than the relay looks at", "transition", t.ID, "first_left", string(p))
			break
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// nameWhatIsLeft logs what is unfinished in the week before the window, and reports
// whether anything was ever recorded before the window.
func (e *Engine) nameWhatIsLeft(ctx context.Context, t *pipeline.Transition, today pipeline.Period) (recorded bool, err error) {
	cal := t.Calendar()
	for n := -2 * relayDays * cal.PerDay(); n < -relayDays*cal.PerDay(); n++ {
		key := Key{Transition: t, Period: cal.Add(today, n)}
		finding := func(mode, typ, what string) {
			e.Log.WarnContext(ctx, "left to reconciliation: "+what, "event", telemetry.Finding, "by", "relay", "type", typ,
				"transition", t.ID, "period", string(key.Period), "mode", mode)
		}
		s, err := e.evaluate(ctx, key, nil, nil)
		if err != nil {
			finding("", "unknown", err.Error())
			continue
		}
		if !s.recorded() {
			continue
		}
		recorded = true
		for _, st := range e.describe(key, s) {
			switch {
			case len(st.Satisfied) == 0 || st.State == string(StatePublished) || st.State == string(gate.Closed):
			case st.State == string(StatePublishing):
				finding(st.Mode, "unpublished", st.Reason)
			default:
				finding(st.Mode, "untriggered", st.Reason)
			}
		}
	}
	if recorded {
		return true, nil
	}
	// Two weeks of silence: is that an outage, or has nothing begun yet? One document
	// tells.
	prefix := t.StoredID() + "_"
	for _, err := range e.Store.Scan(ctx, e.Prefix+periodsCollection, prefix+"0", prefix+string(cal.AddDays(today, -2*relayDays))) {
		return err == nil, err
	}
	return false, nil
}
