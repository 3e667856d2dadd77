package cycle

import (
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
)

// How the documents of a period expire. Nothing deletes them but the platform, each by itself and
// up to a day after its time, so every rule below holds for any subset of them.
//
//   - A period's document holds its runs together with the summary of what was handed over: both
//     go at once, so that no run is ever there without the batch that took it. Runs in a shard are there
//     only while the period's document names it.
//   - Each write that may open something (a batch, a hold, a request, a repair; a completion where
//     the document may be near its end) sets expires_at to null in its own commit. The last step of
//     an evaluation sets it where nothing is open, against the version that was read, and to null
//     where something is. The period's shards get the same end in the same commit.
//   - A batch gets its end in the commit that sums it up, against its version. So a later summary
//     cannot be overwritten by an earlier one, and a batch that is gone is in a summary.
//   - A batch that its period does not list belongs to a period that was deleted, and is ignored.
//   - A period that needs a second document (finding period_full), or whose first one has less than
//     endRoom left, does not expire. A commit that has to write to ~control sets expires_at of the
//     first document to null. The platform never deletes such a period.
//
// In a shadow all documents end some time after their last write, open or not.

// stays is the field of a period's document that something is written to.
func (e *Engine) stays(from time.Time) store.Field {
	if fields := e.expiry(from); fields != nil {
		return fields[0]
	}
	return store.Stays()
}

// fresh is how much of its time a settled period may have used up before an evaluation gives it all
// of its time again: most evaluations then write nothing.
const fresh = 30 * 24 * time.Hour

// endRoom is how many bytes the first document of a period must have left, or it does not expire.
// They are enough for the id of one more batch. So an evaluation that lets a period expire meets no
// batch in ~control: reports have to fill the first document before, and change its version.
const endRoom = 1 << 10

// maxEndTries is how often one Converge sets the end of a period while other processes write to
// it: they evaluate after that, and set it then.
const maxEndTries = 3

// end returns the field by which a period begins or ceases to expire, nil where it is right. sums
// are written with it.
func (s *snapshot) end(by *attempt, sums []store.Field) *store.Field {
	period := s.periods[0]
	if by.shadow || !period.Exists || by.endTries >= maxEndTries {
		return nil
	}
	at, expires := period.Data[store.ExpiresAt].(time.Time)
	f := store.Expires(s.now)
	stays := s.open() || !leavesRoom(period, append(slices.Clone(sums), f))
	together := !slices.ContainsFunc(s.shards, func(d store.Doc) bool { end, _ := d.Data[store.ExpiresAt].(time.Time); return !end.Equal(at) })
	if together && (stays && !expires || !stays && at.Sub(s.now) > store.Kept-fresh) {
		return nil
	}
	if stays {
		f = store.Stays()
	}
	return &f
}

// leavesRoom reports whether a document has endRoom left with some fields more.
func leavesRoom(doc store.Doc, fields []store.Field) bool {
	after, err := store.Resolve(doc, store.MergeIf(doc.Ref, doc.Version, fields...), doc.Version)
	return err == nil && store.MaxDocumentBytes-store.Size(after.Ref, after.Data) >= endRoom
}

// open reports whether anything in a period may still be wanted. That is a batch that is not
// published, a hold, or a recorded cycle that is neither published nor closed.
func (s *snapshot) open() bool {
	for _, doc := range s.periods[1:] {
		if doc.Exists {
			return true
		}
	}
	for _, bs := range s.batches {
		if firstUnpublished(bs) != nil {
			return true
		}
	}
	for mode, h := range s.holds {
		if mode != "" && s.now.Before(h.Until) {
			return true
		}
	}
	for _, m := range s.key.Transition.Modes {
		st := s.status(m)
		ended := st.State == string(StatePublished) || st.State == string(policy.Closed)
		if !ended && len(st.Satisfied)+len(st.Failed)+len(st.Batches) > 0 {
			return true
		}
	}
	return false
}

// Numbers of batches. A trigger_id is never used for two contents: consumers would drop the
// second. A cycle counts from 1 if its first batch is made from earliest before its period's
// beginning on, and before numberSpan has passed since then. Outside this time an earlier batch 1
// may have expired with its period. The cycle then counts from the number of spans since 1970
// times spanNumbers, which no earlier batch has. The platform deletes a document only [store.Kept]
// after its last change. One span is not longer than that, so the two batches never share a span.
const (
	earliest    = 100 * 24 * time.Hour
	numberSpan  = 400 * 24 * time.Hour // at most store.Kept; a change would use numbers again
	spanNumbers = 100_000              // more batches than a period's documents can list
)

// number returns that of a cycle's next batch.
func (s *snapshot) number(mode string) int {
	if n := s.highest(mode); n > 0 {
		return n + 1
	}
	from := s.key.Transition.Calendar().Start(s.key.Period).Add(-earliest)
	if !s.now.Before(from) && s.now.Before(from.Add(numberSpan)) {
		return 1
	}
	return int(s.now.Unix()/int64(numberSpan/time.Second))*spanNumbers + 1
}

// mayEnd reports whether the period's document may end soon, or have ended: a completion then keeps
// it in its own commit. Before that the evaluation does, which follows each completion before it is
// acknowledged.
func (e *Engine) mayEnd(k Key) bool {
	now, start := e.Now(), k.Transition.Calendar().Start(k.Period)
	return now.Before(start.Add(-earliest)) || now.After(start.Add(e.kept()/2))
}

// kept is how long the platform keeps the documents of this engine after their last change.
func (e *Engine) kept() time.Duration {
	if e.Shadow {
		return shadowKept
	}
	return store.Kept
}

// ending reports whether the platform may delete the period's document or a shard within a day. What a
// write was decided on may then be gone before it.
func (s *snapshot) ending() bool {
	return slices.ContainsFunc(append(slices.Clone(s.shards), s.periods[0]), func(d store.Doc) bool {
		at, ends := d.Data[store.ExpiresAt].(time.Time)
		return ends && at.Sub(s.now) < 24*time.Hour
	})
}

// gone reports whether a published batch that is not there has expired. Else it is damage.
func (e *Engine) gone(s *snapshot, id string) bool {
	mode, n, ok := cutBatchID(s.key, id)
	h := s.handed[mode]
	return ok && n <= h.N && !s.now.Before(h.At.Add(e.kept()))
}

// forgotten reports whether documents of the period that were last changed in its own time have
// expired.
func (k Key) forgotten(now time.Time) bool {
	return now.After(k.Transition.Calendar().Start(k.Period).Add(store.Kept - fresh))
}

// forget says in a status what cannot be known of a period any more. Where nothing is recorded,
// nothing has to be done.
func (s *snapshot) forget(st *Status) {
	kept := fmt.Sprintf("documents expire %d days after their last change", int(store.Kept.Hours()/24))
	switch {
	case !s.key.forgotten(s.now), st.State == string(StatePublished), st.State == string(policy.Closed):
	case s.recorded():
		st.Reason += "; what was recorded in the period's own time may have expired: " + kept
	default:
		days := int(s.now.Sub(s.key.Transition.Calendar().End(s.key.Period)).Hours() / 24)
		st.State, st.NextCheck, st.Since, st.Due, st.TooLate = string(policy.Closed), time.Time{}, time.Time{}, false, false
		st.Reason = fmt.Sprintf("nothing is recorded any more: the period ended %d days ago, and %s", days, kept)
	}
}
