//go:build unix && !race

package cycle

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// The rules that hold after every write.

// batchWritten compares a batch with what it was before.
func (s *simulation) batchWritten(th *simThread, w store.Write, commit []store.Write) {
	doc := s.doc(w.Ref)
	if !doc.Exists {
		s.fail("%s was deleted", w.Ref.ID)
		return
	}
	b, old := s.readBatch(doc), s.books.batches[w.Ref.ID]
	index := th.rules.mode(b.mode)
	if index < 0 && th.acts == nil && (old == nil || !old.frozen()) {
		s.fail("%s is of no mode and %s writes it", b.id, th)
		return
	}
	if old == nil {
		s.created(th, w, b, index)
		s.books.byMode[b.mode] = append(s.books.byMode[b.mode], b)
		old = &simBatch{}
	} else if s.past.spent[b.id] && len(s.books.byMode[b.mode]) == 0 {
		s.fail("%s is made again, after its period was deleted", b.id)
		return
	} else {
		s.books.byMode[b.mode][b.n-s.books.byMode[b.mode][0].n] = b
	}
	s.books.batches[b.id] = b
	s.mayEnd(doc, b)
	if b.holder != "" && b.holder != old.holder {
		owner := s.holder(b.holder)
		if owner == nil {
			s.fail("%s is claimed by %q, which is no thread", b.id, b.holder)
			return
		}
		owner.claim = b
		if old.live(s.now) && s.holder(old.holder) != th {
			s.fail("%s takes the claim of %s, which %s holds until %s", th, b.id, old.holder, old.claimedAt.Add(simClaim))
		}
	}
	if b.request != old.request && (!b.selected || th.acts == nil || !slices.ContainsFunc(commit, func(w store.Write) bool { return w.Ref.Collection == "audit" })) {
		s.fail("%s takes a request of %s without a record of it", b.id, th)
	}
	if b.request != old.request {
		th.requested = b.id
		s.isWatched("asked for")
	}
	order := []string{"", "grace", "checking", "blocked", "publishing", "published"}
	was, is := slices.Index(order, old.state), slices.Index(order, b.state)
	switch {
	case is < 1:
		s.fail("%s has the state %q", b.id, b.state)
	case was >= 4 && is < was:
		s.fail("%s goes from %s back to %s", b.id, old.state, b.state)
	case was > 0 && was < 4 && is == 5:
		s.fail("%s is published without having been frozen", b.id)
	case old.live(s.now) && s.holder(old.holder) != th && is < 5 && !old.frozen() && th.acts == nil:
		s.fail("%s writes into %s, which %s holds", th, b.id, old.holder)
	}
	if !old.graceSince.IsZero() && !b.graceSince.Equal(old.graceSince) {
		s.fail("%s: its first grace began %s, and now %s", b.id, old.graceSince, b.graceSince)
	}
	switch {
	case old.frozen():
		s.stillFrozen(b, old)
	case b.frozen():
		s.froze(th, b, old, index)
	case is >= 4 || len(b.runs) > 0 && !b.selected:
		s.fail("%s is %s with %d runs and no messages", b.id, b.state, len(b.runs))
	}
	if b.state == "published" {
		for name, m := range b.messages {
			if m.ID == "" {
				s.fail("%s is published without the broker's id for %s", b.id, name)
			}
		}
	}
}

// partWritten: a part belongs to one batch, and stays as long as that one. What no batch names expires.
func (s *simulation) partWritten(w store.Write) {
	part := s.doc(w.Ref)
	id := w.Ref.ID
	for range 3 { // without holder, version and number
		id = id[:max(0, strings.LastIndexByte(id, '~'))]
	}
	doc, old := s.doc(store.Ref{Collection: triggersCollection, ID: id}), s.books.batches[id]
	_, ends := part.Data[store.ExpiresAt].(time.Time)
	if !doc.Exists || !slices.Contains(simStrings(doc.Data["parts"]), w.Ref.ID) {
		if !ends || w.Op != store.OpCreate {
			s.fail("%s belongs to no batch, and stays", w.Ref.ID)
		}
		return
	}
	if _, batchEnds := doc.Data[store.ExpiresAt].(time.Time); ends != batchEnds {
		s.fail("%s expires: %v, its batch: %v", w.Ref.ID, ends, batchEnds)
	}
	if old == nil || !old.frozen() { // it is named in this commit
		return
	}
	b := s.readBatch(doc)
	s.stillFrozen(b, old)
	s.books.batches[id], s.books.byMode[b.mode][b.n-s.books.byMode[b.mode][0].n] = b, b
}

// created: batches of a cycle are created one after another, each for a reason.
func (s *simulation) created(th *simThread, w store.Write, b *simBatch, index int) {
	earlier := s.books.byMode[b.mode]
	if w.Op != store.OpCreate || b.id != batchName(b.mode, b.n) || !s.numbered(b, earlier) {
		s.fail("%s is made by %s as number %d after %d others", b.id, w.Op, b.n, len(earlier))
	}
	for _, e := range earlier {
		if e.state != "published" && !(b.selected && e.frozen()) {
			s.fail("%s begins while %s is %s", b.id, e.id, e.state)
		}
	}
	if b.frozen() {
		s.fail("%s is frozen at its creation", b.id)
	}
	if b.selected {
		return
	}
	if closedIn(th.seen.Docs, b.mode) {
		s.fail("%s is begun by %s, who has seen that its cycle is closed", b.id, th)
	}
	s.mayRepair(th, b, th.seen.ReadTime)
	rules, visible, began := th.rules, s.visible(th.seen), s.books.began[b.mode]
	due, _ := rules.due(index, visible, s.coveredBy(b.mode, b.n), began, s.kept(b.mode, b.n, th.seen.ReadTime))
	met, why := rules.met(index, visible, th.seen.ReadTime, time.Time{})
	_, _, quorum := rules.complete(index, visible)
	if began == nil && !met && !(quorum && b.state == "grace") {
		s.fail("%s is begun %s: %s", b.id, b.state, why)
	}
	if len(due) == 0 && b.state != "grace" {
		s.fail("%s is begun with nothing to hand over: %s", b.id, simNames(visible))
	}
}

func batchName(mode string, n int) string {
	return simID + "_" + string(simPeriod) + "_" + mode + "~" + strconv.Itoa(n)
}

// visible returns the runs in a snapshot of the period.
func (s *simulation) visible(snap store.Snapshot) []*simRun {
	var out []*simRun
	for _, doc := range simRunsIn(snap.Docs) {
		runs, _ := doc.Data["runs"].(map[string]any)
		for _, group := range runs {
			m, _ := group.(map[string]any)
			for key := range m {
				if run := s.family.byKey[key]; run != nil && !slices.Contains(out, run) {
					out = append(out, run)
				}
			}
		}
	}
	return withoutBare(out)
}

// projected: the projection never shows more than has happened.
func (s *simulation) projected(th *simThread, w store.Write) {
	data := s.doc(w.Ref).Data
	mode, _ := data["_mode"].(string)
	done := false
	for _, b := range s.books.byMode[th.rules.stored(mode)] {
		done = done || b.mode == th.rules.stored(mode) && b == s.books.byMode[b.mode][0] && b.state == "published"
	}
	if (data["_triggered"] == true || data["_trigger_succeeded"] == true) && !done {
		s.fail("the projection claims a trigger of %q that has not happened", mode)
	}
	newest, shown := th.rules.shown(s.visible(th.seen))
	want := ""
	if shown >= 0 {
		want = th.rules.modes[shown].shown()
	}
	if data["_mode"] != want || data["_completed_count"] != int64(len(newest)) {
		s.fail("the projection shows %v processors and the mode %q, complete are %d for %q", data["_completed_count"], data["_mode"], len(newest), want)
	}
	for _, p := range th.rules.order {
		run, _ := data[p].(map[string]any)
		at, _ := run["completed_at"].(time.Time)
		if at.Before(s.books.shown[p]) && !s.changed { // runs are only added
			s.fail("the projection of %s goes back from %s to %s", p, s.books.shown[p], at)
		}
		s.books.shown[p] = at
	}
}

// answered: a thread that has answered holds no claim, and has stored every message id
// that it got from the broker.
func (s *simulation) answered(th *simThread) {
	for _, b := range s.books.batches {
		if b.holder != "" && s.holder(b.holder) == th && b.live(s.now) {
			s.fail("%s answers while it holds %s", th, b.id)
		}
	}
	for _, b := range s.books.batches {
		if i := th.rules.mode(b.mode); i >= 0 && th.acts == nil {
			s.grace(th, b, i)
		}
	}
	for _, id := range th.ids {
		batch, table, _ := strings.Cut(s.books.ids[id], "/")
		if b := s.books.batches[batch]; b.messages[table].ID != id && !slices.Contains(b.copies, id) {
			s.fail("%s answers, and has not written down %s of %s", th, id, s.books.ids[id])
		}
	}
}

// unclaimed: a message is not acknowledged while an earlier try to handle it has the claim of a
// batch. That try may be dead, and only the message repeats its work.
func (s *simulation) unclaimed(th *simThread, m *simMessage) {
	for _, b := range s.books.batches {
		if h := s.holder(b.holder); b.live(s.now) && h != nil && h != th && b.claimedAt.Before(th.began) && slices.Contains(h.messages(), m) {
			s.fail("%s acknowledges %s, for which %s has the claim of %s", th, m.envelope.MessageID, h, b.id)
		}
	}
}

// grace: a thread that has evaluated a batch has ended its grace period if the quorum, by
// the thread's definition, is not met.
func (s *simulation) grace(th *simThread, b *simBatch, i int) {
	if s.acted && s.isClosed(b.mode) || b.frozen() || b.selected || b.grace(th.rules).IsZero() || b.live(s.now) || s.books.began[b.mode] != nil || !b.written.Before(th.seen.ReadTime) {
		return
	}
	visible := s.visible(th.seen)
	_, _, quorum := th.rules.complete(i, visible)
	if met, why := th.rules.met(i, visible, th.seen.ReadTime, time.Time{}); !met && !quorum {
		s.fail("%s leaves %s in a grace since %s: %s", th, b.id, b.grace(th.rules), why)
	}
}
