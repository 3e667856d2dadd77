//go:build unix && !race

package cycle

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// The rules that hold when the world has come to rest.

func (s *simulation) end() {
	s.nothingLost()
	for i := range s.final.modes {
		s.handedOver(i)
	}
	s.promised()
	s.effects()
	s.projection()
	s.rest()
	s.status()
}

// wokenUp: once every message is acknowledged, a cycle waits only for a later time, even
// without a relay. An acknowledgement means that some thread continues the work.
func (s *simulation) wokenUp() {
	if s.orphans > 0 || s.acted || s.changed {
		return // after a crash, an action or a deployment only the relay may continue
	}
	for i, m := range s.final.modes {
		waits := m.notBefore != simNever
		for _, b := range s.books.byMode[m.name] {
			waits = waits || b.state == "grace" || b.state == "blocked"
			if b.state == "checking" || b.state == "publishing" || b.holder != "" {
				s.fail("%s is left %s by everybody", b.id, b.state)
			}
		}
		_, complete, _ := s.final.complete(i, s.books.recorded)
		if complete && !waits && s.dueNow(i, true) {
			s.fail("%s is left behind, though complete", m.name)
		}
	}
	s.projection()
}

// nothingLost: every report is recorded, or in quarantine if it is invalid.
func (s *simulation) nothingLost() {
	for _, m := range s.messages {
		kept := s.doc(store.Ref{Collection: "quarantine", ID: m.envelope.MessageID}).Exists
		if kept != m.hopeless {
			s.fail("%s: invalid %t, in quarantine %t", m.envelope.Data, m.hopeless, kept)
		}
		if m.hopeless {
			continue
		}
		if !slices.ContainsFunc(m.as, s.onRecord) {
			s.fail("%s is not recorded", m.envelope.Data)
		}
	}
}

// onRecord reports whether a report is recorded. A full period has it without its entities, or not
// at all if it cannot count or repeats another in every respect.
func (s *simulation) onRecord(r simReading) bool {
	run := r.run
	switch {
	case s.books.runs[run.processor+"/"+run.key] == r.value:
		return true
	case !s.full:
		return false
	case run.bare != nil:
		return s.books.runs[run.processor+"/"+run.bare.key] == run.bareValue
	case run.processor == "" || !run.succeeded():
		return true
	}
	return !run.incremental && !run.truncated && slices.ContainsFunc(s.books.recorded, func(other *simRun) bool {
		return other.processor == run.processor && other.status == run.status && simSameCount(other, run) && len(other.entities) == 0 && !other.truncated &&
			!slices.ContainsFunc(s.deployed(), func(rules *simRules) bool {
				return rules.inTime(other) != rules.inTime(run) || slices.ContainsFunc(rules.modes, func(m simMode) bool {
					i := rules.mode(m.name)
					return rules.counts(i, other) != rules.counts(i, run)
				})
			})
	})
}

// handedOver: a mode whose policy is met has handed over all that it has to; one
// whose policy is not met has begun nothing by itself.
func (s *simulation) handedOver(i int) {
	m := &s.final.modes[i]
	if s.dueNow(i, false) {
		s.fail("%s has not handed over all that it has to", m.name)
	}
	met, why := s.final.met(i, s.books.recorded, s.now, s.final.start)
	for _, b := range s.books.byMode[m.name] {
		if !met && !b.selected && !s.changed && s.books.began[m.name] == nil {
			s.fail("%s was begun: %s", b.id, why)
		}
		if b.state != "published" && !s.stays(b) && (!s.changed || met && s.books.began[m.name] == nil && !s.spent(i, b)) {
			s.fail("%s is %s when all has come to rest", b.id, b.state)
		}
	}
}

// stays reports whether a batch is left as it is, because its cycle is closed. A batch that
// a person requested does not stay while one of its runs still counts.
func (s *simulation) stays(b *simBatch) bool {
	i := s.final.mode(b.mode)
	return s.acted && !b.frozen() && s.isClosed(b.mode) && !(b.selected && i >= 0 &&
		slices.ContainsFunc(b.runs, func(key string) bool { return s.final.counts(i, s.family.byKey[key]) }))
}

// spent reports whether an unfrozen batch has nothing left to hand over, by a definition
// that has changed since it was begun.
func (s *simulation) spent(i int, b *simBatch) bool {
	for _, key := range b.runs {
		if s.final.counts(i, s.family.byKey[key]) {
			return false
		}
	}
	return !s.dueNow(i, false)
}

// promised: every frozen batch is published in the end, after any other change.
func (s *simulation) promised() {
	for _, b := range s.books.batches {
		if b.frozen() && b.state != "published" {
			s.fail("%s is frozen, and %s when all has come to rest", b.id, b.state)
		}
		if b.holder != "" && b.live(s.now) {
			s.fail("%s is held by %s when all has come to rest", b.id, b.holder)
		}
	}
}

// effects: each message of each batch reached the consumer, and nothing else did.
func (s *simulation) effects() {
	want := 0
	for _, b := range s.books.batches {
		for name, m := range b.messages {
			want++
			if s.books.effects[b.id+"/"+name] != m.Payload {
				s.fail("the consumer has %q for %s/%s", s.books.effects[b.id+"/"+name], b.id, name)
			}
		}
	}
	if len(s.books.effects) != want {
		s.fail("%d effects, %d messages", len(s.books.effects), want)
	}
}

// projection: the compatibility document says what a fresh computation says.
func (s *simulation) projection() {
	doc := s.doc(store.Ref{Collection: "completion", ID: string(simPeriod)})
	newest, shown := s.final.shown(s.books.recorded)
	if len(newest)+len(s.books.batches) == 0 {
		if doc.Exists && !s.changed {
			s.fail("nothing is complete and the projection says %v", doc.Data)
		}
		return
	}
	for _, p := range s.final.order {
		got, _ := doc.Data[p].(map[string]any)
		run := newest[p]
		switch {
		case (got == nil) != (run == nil) && !s.changed:
			s.fail("the projection says %v of %s", got, p)
		case run == nil:
		case !simSays(got, run):
			s.fail("the projection says %v of %s, newest is %s", got, p, run.execution)
		}
	}
	want := map[string]any{
		"_completed_count": int64(len(newest)), "_mode": "", "_trigger_pending": false, "_trigger_pending_at": nil,
		"_triggered": false, "_triggered_at": nil, "_trigger_succeeded": false, "_trigger_reason": nil,
	}
	if shown >= 0 {
		want["_mode"] = s.final.modes[shown].shown()
		batches := s.books.byMode[s.final.modes[shown].name]
		want["_trigger_succeeded"] = len(batches) > 0
		for _, b := range batches {
			switch {
			case b.state != "published":
				want["_trigger_pending"], want["_trigger_pending_at"], want["_trigger_succeeded"] = true, b.createdAt, false
			case want["_triggered"] == false:
				want["_triggered"], want["_triggered_at"], want["_trigger_reason"] = true, b.publishedAt, b.cause
			}
		}
	}
	for field, v := range want {
		if got, ok := doc.Data[field]; !ok || got != v {
			s.fail("the projection says %s: %v, and should say %v", field, got, v)
		}
	}
}

func simSays(got map[string]any, run *simRun) bool {
	var count any
	if run.count != nil {
		count = *run.count
	}
	at, _ := got["completed_at"].(time.Time)
	return at.Equal(run.event) && got["correlation_id"] == run.correlation && got["status"] == string(run.status) &&
		got["record_count"] == count && got["execution_id"] == run.execution && got["is_incremental"] == (run.incremental && !run.truncated) &&
		slices.Equal(simStrings(got["entities_changed"]), run.entities) && len(got) == 7
}

// rest: when nothing is due, the relay writes nothing and sends nothing.
func (s *simulation) rest() {
	if s.problem != "" {
		return
	}
	whole := s.seed%16 == 0
	if whole && s.acted { // takes the period off the watch list
		if s.desk != nil { // but not if an operator holds it meanwhile
			s.relay("unwatch", s.instances[0], true)
			s.act(&simAct{kind: "hold", lasts: time.Hour})
			s.play()
			s.watched()
			s.now = s.now.Add(2 * time.Hour)
		}
		s.relay("unwatch", s.instances[0], true)
		s.play()
		if list := simStrings(s.doc(store.Ref{Collection: periodsCollection, ID: simID + "~watch"}).Data["periods"]); len(list) > 0 && s.settled() {
			s.fail("%v are watched when all has come to rest", list)
		}
	}
	if whole && (s.unrelayed || s.doc(store.Ref{Collection: periodsCollection, ID: simID + "~watch"}).Data["managed_since"] == nil) {
		s.relay("adopt", s.instances[0], true) // the first whole relay records since when periods are managed; a whole relay that failed is repeated
		s.play()
	}
	if s.summaryBehind() || s.full && len(s.books.runs) == 0 { // or nothing was evaluated yet of a period that others have written to
		s.relay("sum", s.instances[0], true)
		s.play()
	}
	s.rests()
	before, costs := s.writes, s.costs
	s.relay("rest", s.instances[0], whole)
	s.play()
	if !whole {
		s.idleRead(s.costs.calls-costs.calls, s.costs.docs-costs.docs)
	}
	if s.writes != before {
		s.fail("a relay that has nothing to do writes")
	}
}

// summaryBehind reports whether a summary of published batches that was written late, over a
// newer one, says less than is known. The next evaluation reads those batches and writes it again.
func (s *simulation) summaryBehind() bool {
	most := map[string]int{}
	for _, doc := range s.periodDocs() {
		handed, _ := doc.Data["handed"].(map[string]any)
		for mode, v := range handed {
			var sum struct{ N int }
			text, _ := v.(string)
			if err := json.Unmarshal([]byte(text), &sum); err != nil {
				s.fail("the summary of %s: %v", mode, err)
			}
			most[mode] = max(most[mode], sum.N)
		}
	}
	for mode, n := range most {
		if bs := s.books.byMode[mode]; n < len(bs) && bs[n].state == "published" {
			return true
		}
	}
	return false
}

// status: the status shows what is recorded.
func (s *simulation) status() {
	if s.seed%8 > 0 || s.problem != "" {
		return
	}
	e := New(Config{Store: s.mem, Now: func() time.Time { return s.now }, Log: simSilence})
	shown, err := e.Status(context.Background(), Key{Transition: s.final.tr, Period: simPeriod})
	if err != nil {
		s.fail("no status: %v", err)
	}
	for _, st := range shown {
		mode := s.final.stored(st.Mode)
		batches := s.books.byMode[mode]
		if len(st.Batches) != len(batches) {
			s.fail("%s is shown with %d batches of %d", st.Cycle, len(st.Batches), len(batches))
		}
		sent := len(batches) > 0
		for _, b := range batches {
			sent = sent && b.state == "published"
		}
		if !sent && st.State == "published" || sent && st.State != "published" && !(st.State == "closed" && s.isClosed(mode)) &&
			s.final.mode(mode) >= 0 && s.books.began[mode] != nil {
			s.fail("%s is shown as %s: %s", st.Cycle, st.State, st.Reason)
		}
	}
}
