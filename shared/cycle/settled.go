package cycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
)

// A relay marks a period in which nothing is due, and skips it from then on. So its cost does not
// depend on the number of finished periods.
//
// The mark is the field settled of the period's document: a fingerprint of the definition and of the
// code, and one of all other fields of the document. It is valid while both are the same. So no write
// has to remove it: each write that makes something due also changes the period's document, whichever
// process or version of the code makes it.
//
//   - A report, a batch, a hold, a closing, a repair and an answer of the schedule are fields of that
//     document. A write that does not fit there goes to ~overflow or ~control, and a period with one of
//     these is evaluated.
//   - A batch that is published never changes again. One that is not published is in no summary, and
//     keeps the period from being marked.
//   - Nothing becomes due by time alone: no cycle has a next check, the schedule is not asked, and no
//     hold of a cycle is in force. A hold of the whole transition delays only what is due.
//   - Only a definition or a code changes what follows from the same fields. The fingerprint has both.
//     An evaluation removes a mark of another definition before it writes anything, so that the mark
//     is not valid again when that definition comes back.
//   - The projection is written before the mark, which changes its version. So an evaluation of another
//     definition that has read before the mark cannot write the projection after it: it reads again, and
//     removes the mark first. If another program changes the projection later, the nightly reconciliation
//     finds that.
const settledField = "settled"

// settlesAfter is how long a period's document must be unchanged before a relay marks it. Until then
// each relay reports the period's cycles, and sends notifications that could not be sent before.
const settlesAfter = time.Hour

// mark is what settled says while nothing is due in the period of a document, "" if it has no such
// fields.
func mark(t *pipeline.Transition, version string, period store.Doc) string {
	fields := maps.Clone(period.Data)
	delete(fields, settledField)
	text, err := json.Marshal(fields)
	if err != nil {
		return "" // another program has written what has no such form
	}
	return brief([]byte(t.Definition()+" "+version)) + "." + brief(text)
}

const (
	halfMark   = 24 // hexadecimal digits
	markLength = 2*halfMark + 1
)

func brief(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:halfMark/2])
}

// marked reports whether a period's document has a mark that is valid. formerly is also true for one
// of another definition or version of the code, if the fields have not changed since.
func marked(t *pipeline.Transition, version string, period store.Doc) (settled, formerly bool) {
	has, _ := period.Data[settledField].(string)
	if has == "" {
		return false, false
	}
	mark := mark(t, version, period)
	_, fields, _ := strings.Cut(mark, ".")
	return has == mark, fields != "" && strings.HasSuffix(has, "."+fields)
}

// marking adds to an action what becomes of the mark. A relay ends an evaluation with it.
func (s *snapshot) marking(by *attempt, a action) action {
	period := s.periods[0]
	has, _ := period.Data[settledField].(string)
	switch {
	case a.do != idle && has != "":
		return action{do: unsettle}
	case a.do != idle, !by.settles, !period.Exists, s.now.Sub(period.Version.Time()) < settlesAfter, !s.atRest(by):
		return a
	}
	if !leavesRoom(period, []store.Field{store.F(strings.Repeat("0", markLength), settledField)}) {
		return a
	}
	if mark := mark(s.key.Transition, by.version, period); mark != "" && mark != has {
		return action{do: settle, mark: mark}
	}
	return a
}

// settle writes the mark and changes the projection, in one commit against the versions that were read. The
// projection of a period of which this definition shows nothing stays: no evaluation would correct it.
func (c *convergence) settle(ctx context.Context, s *snapshot, a action) error {
	period := s.periods[0]
	writes := []store.Write{store.MergeIf(period.Ref, period.Version, store.F(a.mark, settledField))}
	if s.compat.Exists && s.shown() != nil { // in a shadow there is none
		writes = append(writes, store.MergeIf(s.compat.Ref, s.compat.Version, store.F(store.ServerTime, lastUpdate)))
	}
	return c.apply(ctx, writes...)
}

// atRest reports whether nothing in a period can become due by time alone, and nothing has to be
// reported again.
func (s *snapshot) atRest(by *attempt) bool {
	if s.open() || by.schedule && s.undecided() {
		return false
	}
	for _, id := range s.listed {
		if !s.summed(id) {
			return false
		}
	}
	for _, m := range s.key.Transition.Modes {
		switch st := s.status(m); {
		case st.State == string(StatePublished), st.Closed != nil && st.State == string(policy.Closed):
		case st.State == string(policy.Waiting) && st.NextCheck.IsZero() && !st.Recorded(): // it has no deadline
		default:
			return false
		}
	}
	return true
}

// scanned is what one scan tells about the periods of a transition.
type scanned struct {
	of    map[pipeline.Period]outline // of each period that has a document
	ahead []pipeline.Period           // of these, those after the newest expected one
	from  pipeline.Period             // the first that was read
	whole bool                        // all were read: a period that is not there has no document
	now   time.Time                   // before the scan, by the server's clock; zero where it is not known
	hold  store.Doc                   // of the whole transition, at that time
}

// outline is what is kept of a period's documents.
type outline struct {
	settled  bool // the mark is valid
	formerly bool // or was, by another definition or version of the code
}

// outline says what a period's first document tells a relay. A mark is not enough if the evaluation of the
// period has to put off its end (expiry.go), as of one that is ahead for long.
func (e *Engine) outline(t *pipeline.Transition, period store.Doc, now time.Time) (o outline) {
	o.settled, o.formerly = marked(t, e.Version, period)
	if at, ends := period.Data[store.ExpiresAt].(time.Time); ends && !e.Shadow && at.Sub(now) <= store.Kept-fresh {
		o.settled = false
	}
	return o
}

// scan reads the documents of the periods that a relay evaluates or names, and holds one at a time. now is
// the server's time, zero where it is not known.
func (e *Engine) scan(ctx context.Context, t *pipeline.Transition, today pipeline.Period, now time.Time) (scanned, error) {
	cal := t.Calendar()
	s := scanned{of: map[pipeline.Period]outline{}, from: cal.Add(today, -2*relayDays*cal.PerDay()), now: now}
	var err error
	s.ahead, err = e.eachRecorded(ctx, t, s.from, cal.Add(today, t.Lead()), func(p pipeline.Period, doc store.Doc) {
		var o outline
		key := Key{Transition: t, Period: p}
		if _, another := s.of[p]; !another && doc.Ref == e.periodRef(key) && !now.IsZero() {
			_ = e.recovered(ctx, key, func() error { // which logs it; the period is evaluated
				o = e.outline(t, doc, now)
				return nil
			})
		}
		s.of[p] = o // of a period with a second document, nothing is settled
	})
	s.whole = err == nil
	return s, err
}

// empty reports whether a period has no document.
func (s scanned) empty(p pipeline.Period) bool {
	_, has := s.of[p]
	return s.whole && !has && p >= s.from && (len(s.ahead) < maxAhead || p <= s.ahead[maxAhead-1])
}

// turns returns the periods that a relay evaluates: those without documents, and others.
func (s scanned) turns(t *pipeline.Transition, window, watched []pipeline.Period) (empty, others []Key) {
	for _, p := range merged(window, s.ahead) {
		key := Key{Transition: t, Period: p}
		switch {
		case s.of[p].settled && !slices.Contains(watched, p):
		case s.empty(p):
			empty = append(empty, key)
		default:
			others = append(others, key)
		}
	}
	return empty, others
}

// absent returns the snapshot of a period that has no document, nil where that is not known. The
// batches of such a period are ignored, and no decision depends on its projection.
func (s scanned) absent(ctx context.Context, e *Engine, key Key) (snap *snapshot) {
	if s.now.IsZero() {
		return nil
	}
	var periods []store.Doc
	for _, ref := range e.periodRefs(key) {
		periods = append(periods, store.Doc{Ref: ref})
	}
	err := e.recovered(ctx, key, func() (err error) {
		if snap, err = e.listing(key, s.now, periods, store.Doc{Ref: e.projectionRef(key)}); err != nil {
			return err
		}
		return e.complete(snap, periods, nil, s.hold, nil)
	})
	if err != nil {
		return nil // the period is read, and that meets the same
	}
	return snap
}

// leavesNothing reports whether nothing is unfinished in a period that the relay does not evaluate any
// more. What it was marked for then, another definition does not change.
func (s scanned) leavesNothing(p pipeline.Period) bool { return s.of[p].formerly || s.empty(p) }
