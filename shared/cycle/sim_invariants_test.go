//go:build unix && !race

package cycle

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// What holds after every write.

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
			s.fail("%s is claimed by %q, who is nobody", b.id, b.holder)
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

// created: batches of a cycle come one after another, for a reason.
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

// froze: exactly what was checked is handed over, and exactly what the rules want.
func (s *simulation) froze(th *simThread, b, old *simBatch, index int) {
	c, rules := th.checked, th.rules
	chosen := old.selected && slices.ContainsFunc(s.visible(th.seen), func(run *simRun) bool {
		return slices.Contains(old.runs, run.key) && rules.counts(index, run)
	})
	if chosen && old.force { // nobody asks the warehouse
		c = simChecked{mode: b.mode, seen: th.seen, ready: Readiness{Outcome: NotChecked}}
	}
	visible, covered, began := s.visible(c.seen), s.coveredBy(b.mode, b.n), s.books.began[b.mode]
	var names []string
	taken := make([]*simRun, 0, len(b.runs))
	for _, key := range b.runs {
		run := s.family.byKey[key]
		if run == nil {
			s.fail("%s takes the run %q, which nobody reported", b.id, key)
			return
		}
		taken = append(taken, run)
		if covered[key] && !chosen {
			s.fail("%s takes a run that an earlier batch has", b.id)
		}
	}
	for _, p := range rules.order {
		if slices.ContainsFunc(taken, func(r *simRun) bool { return r.processor == p }) {
			names = append(names, p)
		}
	}
	s.mayRepair(th, b, c.seen.ReadTime)
	m := &rules.modes[index]
	overdue := !chosen && began == nil && m.handOver && !c.seen.ReadTime.Before(rules.start.Add(m.deadline))
	switch {
	case th.rules.stored(c.mode) != b.mode:
		s.fail("%s is frozen without a readiness check", b.id)
		return
	case c.ready.Outcome != Passed && c.ready.Outcome != NotChecked && !overdue:
		s.fail("%s is frozen although the checks said %q", b.id, c.ready.Outcome)
	case !(chosen && old.force) && !slices.Equal(c.processors, names):
		s.fail("%s is frozen with %v, checked were %v", b.id, names, c.processors)
	case b.holder == "" || s.holder(b.holder) != th:
		s.fail("%s is frozen by %s, held by %q", b.id, th, b.holder)
	}
	cause, actor, why := "operator", "ada", ""
	if chosen {
		why = rules.mayGive(index, visible, taken, old.runs)
	} else {
		for _, key := range old.runs { // a request of which nothing counts any more
			covered[key] = true
		}
		cause, actor = rules.cause(index, visible, covered, began), "engine"
		switch {
		case th.acts != nil && th.acts.kind == "repair":
			cause, actor = "reconciliation", "nightly"
		case old.cause == "reconciliation" && !old.selected: // its repair has died
			cause, actor = old.cause, old.actor
		}
		why = rules.mayFreeze(index, visible, taken, covered, began, s.kept(b.mode, b.n, c.seen.ReadTime), c.seen.ReadTime, old.grace(rules))
	}
	if why != "" {
		s.fail("%s may not be frozen: %s", b.id, why)
		return
	}
	if s.books.closed[b.mode] && !chosen {
		s.fail("%s is frozen, and closed", b.id)
	}
	for mode, until := range s.books.holds {
		if (mode == "" || mode == b.mode) && s.now.Before(until) && !(chosen && b.force) {
			s.fail("%s is frozen, and held until %s", b.id, until)
		}
	}
	if b.cause != cause || b.actor != actor || b.selected != chosen {
		s.fail("%s has the cause %s and the actor %s, not %s and %s", b.id, b.cause, b.actor, cause, actor)
	}
	s.begins(b, taken, visible, rules, index, old.grace(rules), c.seen.ReadTime, chosen)
	slices.SortFunc(taken, simOlder)
	if got := slices.Sorted(maps.Keys(b.messages)); !slices.Equal(got, slices.Sorted(slices.Values(names))) {
		s.fail("%s has messages for %v, runs of %v", b.id, got, names)
	}
	for name, msg := range b.messages {
		if want := rules.payload(name, b.mode, b.id, b.n, cause, taken, c.seen.ReadTime, c.ready); msg.Payload != want {
			s.fail("%s/%s says\n%s\nand should say\n%s", b.id, name, msg.Payload, want)
		}
		if msg.ID != "" {
			s.fail("%s/%s has an id before it was published", b.id, name)
		}
	}
	th.checked = simChecked{} // good for one batch
}

// mayRepair: a repair begins nothing of an old period, and freezes nothing.
func (s *simulation) mayRepair(th *simThread, b *simBatch, now time.Time) {
	if th.acts != nil && th.acts.kind == "repair" && now.After(th.rules.end.Add(simWithin)) {
		s.fail("%s makes %s %s, %s after the period", th, b.id, b.state, now.Sub(th.rules.end))
	}
}

// begins: a cycle begins with the last of its critical processors, and from then on
// what is late is judged by what was expected then. What a person chose begins none
// while the policy still waits with something else.
func (s *simulation) begins(b *simBatch, taken, visible []*simRun, rules *simRules, index int, grace, now time.Time, chosen bool) {
	m, done, covered := &rules.modes[index], map[string]bool{}, s.coveredBy(b.mode, b.n)
	for _, run := range taken {
		covered[run.key] = true
	}
	for key := range covered {
		done[s.family.byKey[key].processor] = true
	}
	left, _ := rules.due(index, visible, covered, nil, nil)
	met, _ := rules.met(index, visible, now, grace)
	var expects []string
	if s.books.began[b.mode] == nil && !(chosen && !met && len(left) > 0) && !slices.ContainsFunc(m.critical, func(p string) bool { return !done[p] }) {
		for _, p := range rules.order {
			if slices.Contains(m.names(), p) {
				expects = append(expects, p)
			}
		}
		s.books.began[b.mode] = expects
	}
	if !slices.Equal(b.expects, expects) {
		s.fail("%s expects %v, and should expect %v", b.id, b.expects, expects)
	}
}

// visible returns the runs in a snapshot of the period.
func (s *simulation) visible(snap store.Snapshot) []*simRun {
	var out []*simRun
	for _, doc := range snap.Docs {
		if doc.Ref.Collection != periodsCollection {
			continue
		}
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

// coveredBy returns the runs of the batches of a mode before the n-th.
func (s *simulation) coveredBy(mode string, n int) map[string]bool {
	covered := map[string]bool{}
	for _, b := range s.books.byMode[mode] {
		if b.n < n {
			for _, key := range b.runs {
				covered[key] = true
			}
		}
	}
	return covered
}

// kept returns the processors that batches of a mode before the n-th have handed over more
// than once, the last time less than simEvery before an instant.
func (s *simulation) kept(mode string, n int, now time.Time) map[string]bool {
	kept, times := map[string]bool{}, map[string]int{}
	for _, b := range s.books.byMode[mode] {
		for p := range b.messages {
			if b.n < n {
				times[p]++
				kept[p] = times[p] > 1 && now.Before(b.publishedAt.Add(simEvery))
			}
		}
	}
	return kept
}

// stillFrozen: runs and payloads stand for ever, and ids once known.
func (s *simulation) stillFrozen(b, old *simBatch) {
	if !slices.Equal(b.runs, old.runs) {
		s.fail("%s: its frozen runs were %v, are %v", b.id, old.runs, b.runs)
	}
	if len(b.messages) != len(old.messages) || b.cause != old.cause {
		s.fail("%s: its frozen messages have changed", b.id)
	}
	for name, m := range b.messages {
		before := old.messages[name]
		switch {
		case m.Payload != before.Payload:
			s.fail("%s/%s has changed since it was frozen", b.id, name)
		case before.ID != "" && m.ID != before.ID:
			s.fail("%s/%s had the id %s, has %s", b.id, name, before.ID, m.ID)
		case m.ID != "" && s.books.ids[m.ID] != b.id+"/"+name:
			s.fail("%s/%s has the id %q, which the broker never gave", b.id, name, m.ID)
		}
	}
}

// projected: dashboards never see more than has happened.
func (s *simulation) projected(th *simThread, w store.Write) {
	th.shows++
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
		if at.Before(s.books.shown[p]) && !s.changed { // runs only come
			s.fail("the projection of %s goes back from %s to %s", p, s.books.shown[p], at)
		}
		s.books.shown[p] = at
	}
}

// answered: nobody who has answered still holds a claim, or has kept an id of the
// broker to himself.
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
// batch. That try may be dead, and the message is what brings its work again.
func (s *simulation) unclaimed(th *simThread, m *simMessage) {
	for _, b := range s.books.batches {
		if h := s.holder(b.holder); b.live(s.now) && h != nil && h != th && b.claimedAt.Before(th.began) && slices.Contains(h.messages(), m) {
			s.fail("%s acknowledges %s, for which %s has the claim of %s", th, m.envelope.MessageID, h, b.id)
		}
	}
}

// grace: whoever has looked at a batch has ended a grace period whose quorum, by the
// definition that he knows, does not hold.
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
