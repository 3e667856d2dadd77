//go:build unix && !race

package cycle

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// simPast is what the simulation knows of documents that the platform has deleted, and of the
// years in which it does so.
type simPast struct {
	spent  map[string]bool // batches whose period was deleted: their numbers are used
	summed map[string]int  // mode → the highest number in a summary
	lost   bool            // a shard of the period has expired before the rest
	years  bool            // the years have begun: all hand-overs without a person have happened
	end    time.Time       // of the period, as it was seen last
}

// numbered: batches of a cycle have consecutive numbers. No number is used twice, even after the
// platform has deleted batches.
func (s *simulation) numbered(b *simBatch, earlier []*simBatch) bool {
	switch {
	case s.past.spent[b.id]:
		return false
	case len(earlier) > 0:
		return b.n == earlier[len(earlier)-1].n+1
	}
	return b.n == 1 || s.past.years
}

// mayEnd: a batch has an end only once it is published and its period's summary has it.
func (s *simulation) mayEnd(doc store.Doc, b *simBatch) {
	if _, ends := doc.Data[store.ExpiresAt].(time.Time); !ends {
		return
	}
	if b.state != "published" {
		s.fail("%s expires, and is %s", b.id, b.state)
	}
	n := 0
	for _, period := range s.periodDocs() {
		handed, _ := period.Data["handed"].(map[string]any)
		n = max(n, simSummed(handed[b.mode]))
	}
	if n < b.n {
		s.fail("%s expires, and the summary ends with %d", b.id, n)
	}
}

func simSummed(v any) int {
	var sum struct{ N int }
	text, _ := v.(string)
	_ = json.Unmarshal([]byte(text), &sum)
	return sum.N
}

// periodMayEnd: a period in which something is open has no end, one without room gets none, and its
// summaries only grow.
func (s *simulation) periodMayEnd(period store.Doc) {
	data := period.Data
	handed, _ := data["handed"].(map[string]any)
	for mode, v := range handed {
		n := simSummed(v)
		if n < s.past.summed[mode] {
			s.fail("the summary of %s goes back from %d to %d", mode, s.past.summed[mode], n)
		}
		if s.past.summed == nil {
			s.past.summed = map[string]int{}
		}
		s.past.summed[mode] = n
	}
	before := s.past.end
	s.past.end, _ = data[store.ExpiresAt].(time.Time)
	if s.past.end.IsZero() {
		return
	}
	if room := store.MaxDocumentBytes - store.Size(period.Ref, data); !s.past.end.Equal(before) && room < endRoom {
		s.fail("the period begins to expire with %d bytes of room", room)
	}
	for _, b := range s.books.batches {
		if b.state != "published" && !s.past.spent[b.id] {
			s.fail("the period expires, and %s is %s", b.id, b.state)
		}
	}
	holds, _ := data["holds"].(map[string]any)
	for mode, v := range holds {
		h, _ := v.(map[string]any)
		if until, ok := h["until"].(time.Time); ok && s.now.Before(until) {
			s.fail("the period expires, and %s is on hold", mode)
		}
	}
}

// years lets years pass in which the platform deletes expired documents, in any order. Now and then
// an operator acts on the period, or a late report arrives. There are no other faults.
func (s *simulation) years() {
	s.past.years = true
	if s.past.spent == nil {
		s.past.spent = map[string]bool{}
	}
	if s.desk == nil {
		s.desk = &simInstance{id: len(s.instances) + 1, rules: s.final}
		s.boot(s.desk)
	}
	s.desk.rules = s.final
	for range 5 {
		s.now = s.now.Add([]time.Duration{20, 200, 379, 401, 401, 402}[s.rng.IntN(6)] * 24 * time.Hour)
		if s.rng.IntN(2) == 0 {
			s.deleteSome()
		}
		if s.full && s.rng.IntN(2) == 0 {
			s.refill()
		}
		for range 2 { // meanwhile
			s.event(time.Duration(s.rng.IntN(80))*time.Millisecond, simEvent{expiry: true})
		}
		sent := len(s.books.ids)
		asks := s.rng.IntN(3) == 0
		switch {
		case asks:
			s.act(&simAct{kind: "trigger", mode: s.rng.IntN(len(s.final.modes)), force: true})
		case s.rng.IntN(4) == 0:
			s.act(&simAct{kind: "hold", mode: s.rng.IntN(len(s.final.modes)), lasts: time.Hour})
		default: // a run of the present, too late for a hand-over without a person
			s.lateReport()
		}
		s.play()
		if s.problem == "" && s.rng.IntN(2) == 0 {
			s.deleteSome()
			s.lateReport()
			s.play()
		}
		if n := len(s.books.ids) - sent; n > 0 && !asks {
			s.fail("%d messages are handed over again, years later", n)
		}
		s.now = s.now.Add(2 * time.Hour)
		s.relay("later", s.instances[0], s.rng.IntN(4) == 0)
		s.play()
	}
	for _, m := range s.books.wire {
		s.consume(m)
	}
	s.promised()
	s.effects()
}

// lateReport delivers one of the reports as a new run, with the present as its event time.
func (s *simulation) lateReport() {
	t := &s.family.texts[s.rng.IntN(len(s.family.texts))]
	if t.hopeless {
		return
	}
	readings := slices.Clone(t.as)
	for i, r := range readings {
		run := *r.run
		run.event, run.execution = s.now.Add(-time.Minute).Truncate(time.Microsecond), run.execution+"-late"
		c := r.decoded
		c.EventTime, c.ExecutionID = run.event, run.execution
		run.key, readings[i].value = c.Record()
		if run.bare != nil {
			bare := *run.bare
			bare.event, bare.execution = run.event, run.execution
			bare.key, run.bareValue = c.WithoutEntities().Record()
			run.bare = &bare
			s.past.reported(s, &bare)
		}
		readings[i].decoded, readings[i].run = c, &run
		s.past.reported(s, &run)
	}
	m := &simMessage{simText: &simText{envelope: t.envelope, as: readings}}
	s.deliver(m, s.instances[0])
}

// reported makes a late run known, in this world alone.
func (p *simPast) reported(s *simulation, run *simRun) {
	family := *s.family
	byKey := make(map[string]*simRun, len(family.byKey)+1)
	for k, v := range family.byKey {
		byKey[k] = v
	}
	byKey[run.key] = run
	family.byKey = byKey
	s.family = &family
}

// deleteSome deletes some of the documents that have expired: the platform does it within a day,
// in any order.
func (s *simulation) deleteSome() {
	ctx := context.Background()
	for _, collection := range []string{triggersCollection, partsCollection, runsCollection, periodsCollection} {
		for doc, err := range s.mem.Scan(ctx, collection, "!", "~") {
			if err != nil {
				panic(err)
			}
			at, ends := doc.Data[store.ExpiresAt].(time.Time)
			if !ends || at.After(s.now) || s.rng.IntN(3) == 0 {
				continue
			}
			if unused := s.now.Sub(doc.Version.Time()); unused < store.Kept-fresh-24*time.Hour {
				s.fail("%s expires %s after it was written", doc.Ref, unused)
			}
			if _, err := s.mem.Apply(ctx, store.DeleteIf(doc.Ref, doc.Version)); err != nil {
				panic(err)
			}
			s.tell("     %s has expired", doc.Ref)
			switch {
			case collection == runsCollection:
				s.shardExpired(doc)
			case doc.Ref.ID == simID+"_"+string(simPeriod):
				s.forget()
			}
		}
	}
}

// forget: the simulation keeps of a deleted period only that its batches were handed over.
func (s *simulation) forget() {
	for id, b := range s.books.batches {
		if b.state != "published" {
			s.fail("the period of %s was deleted, which is %s", id, b.state)
		}
		s.past.spent[id] = true
	}
	s.books.runs, s.books.recorded, s.books.listed = map[string]string{}, nil, nil
	s.books.byMode, s.books.began, s.books.closed = map[string][]*simBatch{}, map[string][]string{}, map[string]bool{}
	s.past.summed, s.past.lost = nil, false
}
