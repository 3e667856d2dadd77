package cycle

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// Types of what the relay finds.
const (
	PeriodFull         = "period_full"         // a period has no room for all reports
	evaluationPanicked = "evaluation_panicked" // of one period; the others had their turn
	checkDeferred      = "check_deferred"      // to a later run; no finding, since the checks that hang are logged
)

const (
	// relayDays is how far back the relay looks, and then once more as far to name what
	// it leaves.
	relayDays = 7
	// maxAhead bounds how many periods beyond the newest expected one it looks at: a
	// processor with a broken clock must not make every relay longer.
	maxAhead = 100
	// checksTake bounds when the last readiness check of a relay begins, twice: with the
	// time that each of these two takes it stays below the time that a function has.
	checksTake = 45 * time.Second
)

// Relay converges the periods from a week back to the newest expected or recorded one, and older
// ones for which an operator requested something. It finishes what is due there by time, and what
// a process that died has left. From the first period on that is ours, a cycle of which nothing is
// recorded has a deadline too. What is unfinished in the week before is named, and left to
// reconciliation.
//
// It reads the documents of these periods by one scan. A period that is marked as settled costs
// nothing else (settled.go), and neither does one without documents. Each other one is read once more,
// as one snapshot. The relay writes only where something is unfinished, and the marks. Idempotent; two
// at once are harmless.
//
// One period never keeps another from its turn, whether it errs, panics or hangs. The
// newest comes first. Readiness checks may take [checksTake] together, and then once more
// as long for those that had to wait, the longest waiting first. What waits even then is
// logged, and has its turn in a later run: what was checked is not due again at once.
//
// each, unless nil, is called with the cycles of every period of which anything is to be said, as in [Result].
func (e *Engine) Relay(ctx context.Context, t *pipeline.Transition, messageID string, each func(Key, []Status)) error {
	today := t.Calendar().At(e.Now()) // once: midnight may pass while it reads
	first, err := e.firstRecorded(ctx, t)
	errs := []error{err}
	list, hold, now, err := e.state(ctx, t)
	var watched []pipeline.Period
	if err == nil {
		watched, err = watchedIn(list, t)
	}
	errs = append(errs, err)
	managed := Managed{Since: t.ManagedSince} // "": no period is expected
	if err == nil {
		list, managed, err = e.adopt(ctx, t, list)
		errs = append(errs, err)
	}
	found, err := e.scan(ctx, t, today, now)
	errs = append(errs, err)
	found.hold = hold
	empty, keys := found.turns(t, merged(inWindow(t, today), watched), watched)
	settled := map[pipeline.Period]bool{}
	var waiting []*convergence
	unread := false // a schedule that hangs is not asked about each period in turn
	budget := checksTake
	begin := func(key Key) *convergence {
		c := e.convergence(key, messageID)
		c.expected = managed.Since != "" && key.Period >= managed.Since && first != "" && first < key.Period
		c.managed, c.scheduleAsked, c.checks, c.settles = managed, unread, &budget, true
		return c
	}
	finish := func(c *convergence, work func() (Result, error)) {
		err := e.recovered(ctx, c.key, func() error {
			r, err := work()
			if each != nil && len(r.Cycles) > 0 {
				each(c.key, r.Cycles)
			}
			return err
		})
		errs = append(errs, err)
		unread = unread || c.unread
		settled[c.key.Period] = err == nil && !c.waits && c.last.settled()
	}
	for _, key := range empty { // at once: what is known of them is as old as the scan
		c := begin(key)
		if c.last = found.absent(ctx, e, key); c.last == nil || c.last.next(&c.attempt).do != idle {
			keys = append(keys, key)
			continue
		}
		finish(c, func() (Result, error) { return c.result(ctx, c.last), nil })
	}
	slices.SortFunc(keys, func(a, b Key) int { return strings.Compare(string(b.Period), string(a.Period)) })
	for _, key := range keys {
		c := begin(key)
		finish(c, func() (Result, error) { return c.run(ctx) })
		e.logFull(ctx, key, c.last)
		if c.waits {
			waiting = append(waiting, c)
		}
	}
	slices.SortStableFunc(waiting, func(a, b *convergence) int { return a.last.checkDue().Compare(b.last.checkDue()) })
	budget = checksTake
	for _, c := range waiting {
		c := begin(c.key)
		if finish(c, func() (Result, error) { return c.run(ctx) }); c.waits {
			e.Log.WarnContext(ctx, "readiness is checked in a later run: the checks of other periods took the time of this one",
				"type", checkDeferred, "transition", t.ID, "period", string(c.key.Period))
		}
	}
	errs = append(errs, e.unwatch(ctx, list, watched, settled))
	for n := -2 * relayDays * t.Calendar().PerDay(); n < -relayDays*t.Calendar().PerDay(); n++ {
		key := Key{Transition: t, Period: t.Calendar().Add(today, n)}
		if found.leavesNothing(key.Period) {
			continue
		}
		if err := e.nameWhatIsLeft(ctx, key); err != nil {
			errs = append(errs, err)
			break
		}
	}
	return errors.Join(errs...)
}

// recovered does work on one of many periods: a panic is an error of this one.
func (e *Engine) recovered(ctx context.Context, key Key, work func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: panic: %v", key, r)
			e.Log.ErrorContext(ctx, err.Error(), "event", telemetry.Finding, "by", "relay", "type", evaluationPanicked,
				"transition", key.Transition.ID, "period", string(key.Period), "mode", "", "stack", string(debug.Stack()))
		}
	}()
	return work()
}

// checkDue returns since when the period waits for a readiness check; the zero time where
// it was never checked.
func (s *snapshot) checkDue() time.Time {
	var due []time.Time
	for _, bs := range s.batches {
		if b := firstUnpublished(bs); b != nil && b.unfrozen() {
			due = append(due, b.NextAttempt)
		}
	}
	if len(due) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(due, time.Time.Compare)
}

// logFull logs that a period has no room for all that is reported.
func (e *Engine) logFull(ctx context.Context, key Key, s *snapshot) {
	if s == nil {
		return
	}
	full := s.full()
	if full == "" {
		return
	}
	e.Log.WarnContext(ctx, "the period is full: "+full, "event", telemetry.Finding, "by", "relay", "type", PeriodFull,
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
	ahead, _, err := e.recordedFrom(ctx, t, t.Calendar().Add(today, t.Lead()+1))
	var keys []Key
	for _, p := range merged(append(inWindow(t, today), ahead...), watched) {
		keys = append(keys, Key{Transition: t, Period: p})
	}
	return keys, err
}

// inWindow returns the periods that the relay looks after whether anything is recorded or not.
func inWindow(t *pipeline.Transition, today pipeline.Period) (ps []pipeline.Period) {
	for n := -relayDays * t.Calendar().PerDay(); n <= t.Lead(); n++ {
		ps = append(ps, t.Calendar().Add(today, n))
	}
	return ps
}

// recordedFrom returns the periods from one on that have a document, with their documents.
func (e *Engine) recordedFrom(ctx context.Context, t *pipeline.Transition, from pipeline.Period) (ps []pipeline.Period, docs map[pipeline.Period][]store.Doc, err error) {
	docs = map[pipeline.Period][]store.Doc{}
	ps, err = e.eachRecorded(ctx, t, from, "", func(p pipeline.Period, doc store.Doc) { docs[p] = append(docs[p], doc) })
	return ps, docs, err
}

// eachRecorded visits the documents of the periods from one on, in the order of their ids. It returns
// the periods after last that have one, of which it visits [maxAhead].
func (e *Engine) eachRecorded(ctx context.Context, t *pipeline.Transition, from, last pipeline.Period, visit func(pipeline.Period, store.Doc)) (ahead []pipeline.Period, err error) {
	prefix := t.StoredID() + "_"
	for doc, err := range e.Store.Scan(ctx, e.Prefix+periodsCollection, prefix+string(from), prefix+"~") {
		if err != nil {
			return ahead, fmt.Errorf("periods from %s on: %w", from, err)
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(doc.Ref.ID, prefix), "~")
		p, err := t.Calendar().Parse(id)
		if err != nil {
			e.Log.WarnContext(ctx, "no period's document, left alone: "+err.Error(), "document", doc.Ref.String())
			continue
		}
		if p > last && (len(ahead) == 0 || ahead[len(ahead)-1] != p) { // else it is the period's second document
			if len(ahead) == maxAhead {
				e.Log.WarnContext(ctx, "more periods ahead than the relay looks at", "transition", t.ID, "first_left", string(p))
				break
			}
			ahead = append(ahead, p)
		}
		visit(p, doc)
	}
	return ahead, nil
}

// nameWhatIsLeft logs what is unfinished of a period in the week before the window. A store that
// does not answer says nothing about the period: that is an error of the relay.
func (e *Engine) nameWhatIsLeft(ctx context.Context, key Key) error {
	finding := func(mode, typ, what string) {
		e.Log.WarnContext(ctx, "left to reconciliation: "+what, "event", telemetry.Finding, "by", "relay", "type", typ,
			"transition", key.Transition.ID, "period", string(key.Period), "mode", mode)
	}
	var cycles []Status
	err := e.recovered(ctx, key, func() error {
		s, err := e.evaluate(ctx, key, nil, nil)
		if err == nil {
			cycles = s.describe()
		}
		return err
	})
	if errors.Is(err, errUnanswered) {
		return err
	}
	if err != nil {
		finding("", "unknown", err.Error())
		return nil
	}
	for _, st := range cycles {
		switch {
		case len(st.Satisfied) == 0 || st.State == string(StatePublished) || st.State == string(policy.Closed):
		case st.State == string(StatePublishing):
			finding(st.Mode, "unpublished", st.Reason)
		default:
			finding(st.Mode, "untriggered", st.Reason)
		}
	}
	return nil
}
