//go:build unix && !race

package cycle

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// simBooks is what the simulation knows of the world by watching every write and every
// message, independently of the engine.
type simBooks struct {
	runs     map[string]string // group/key of every run ever recorded → its value
	recorded []*simRun
	listed   []string // batches that the period lists
	batches  map[string]*simBatch
	byMode   map[string][]*simBatch  // by n
	began    map[string][]string     // mode → what it expected when it began
	released map[string]bool         // mode, "" for all: a release was answered, so no hold is in force
	holds    map[string]time.Time    // mode, "" for all → the end of the hold, as it was answered
	closed   map[string]bool         // modes whose closing was answered
	shown    map[string]time.Time    // processor → completion in the projection
	accepted map[string]*simAccepted // by trigger id
	ids      map[string]string       // the broker's id → trigger id
	wire     []wire.Outgoing         // on the way to the consumer
	effects  map[string]string       // trigger id → payload that the consumer took
}

// simBatch is one batch as stored, read without the engine's help.
type simBatch struct {
	id, mode    string
	n           int
	state       string
	holder      string
	claimedAt   time.Time
	createdAt   time.Time
	graceSince  time.Time
	graces      map[string]any // by definition
	written     time.Time      // last
	publishedAt time.Time
	cause       string
	actor       string
	selected    bool // an operator chose the runs
	force       bool
	request     string
	expects     []string
	runs        []string
	messages    map[string]sent // of the batch and its parts
	parts       []string
	copies      []string // later ids of the same messages
}

func (b *simBatch) frozen() bool { return len(b.messages) > 0 }

func (b *simBatch) live(now time.Time) bool {
	return b.holder != "" && !now.After(b.claimedAt.Add(simClaim))
}

// simChecked is a readiness check, and what its caller had seen.
type simChecked struct {
	mode       string
	processors []string
	seen       store.Snapshot
	ready      Readiness
}

// simAccepted is what the broker took under one trigger id.
type simAccepted struct {
	answered  bool      // every answer so far reached its caller
	claimEnds time.Time // of the last publisher
}

func (s *simulation) opened() {
	s.costs.checked = map[string]simChecked{}
	s.books = simBooks{runs: map[string]string{}, batches: map[string]*simBatch{}, byMode: map[string][]*simBatch{},
		began: map[string][]string{}, shown: map[string]time.Time{}, closed: map[string]bool{}, released: map[string]bool{}, holds: map[string]time.Time{}, accepted: map[string]*simAccepted{}, ids: map[string]string{}, effects: map[string]string{}}
}

func (s *simulation) doc(ref store.Ref) store.Doc {
	snap, err := s.mem.Get(context.Background(), ref)
	if err != nil {
		panic(err)
	}
	return snap.Docs[0]
}

// applied checks every document that a commit has written.
func (s *simulation) applied(th *simThread, ws []store.Write) {
	s.writes++
	for _, w := range ws {
		switch w.Ref.Collection {
		case periodsCollection:
			switch w.Ref.ID {
			case simID + "~hold":
				s.released()
			case simID + "~watch":
				s.watched()
			case simID + "_" + string(simPeriod), simID + "_" + string(simPeriod) + "~overflow", simID + "_" + string(simPeriod) + "~control":
				s.periodWritten()
				s.released()
			default: // other periods have no reports: only the schedule's answer is stored
				data := s.doc(w.Ref).Data
				delete(data, store.ExpiresAt)
				if len(data) != 1 || data["schedule"] == nil {
					s.fail("%s says %v, of which nothing was reported", w.Ref, data)
				}
			}
		case triggersCollection:
			s.batchWritten(th, w, ws)
		case partsCollection:
			s.partWritten(w)
		case runsCollection:
			s.shardWritten(w.Ref)
		case "completion":
			s.projected(th, w)
		}
	}
	for id := range s.books.batches {
		if !slices.Contains(s.books.listed, id) && !s.past.spent[id] {
			s.fail("%s exists and the period does not list it", id)
		}
	}
	s.settledHolds()
}

// released: once a release is answered, no earlier hold comes into force.
func (s *simulation) released() {
	if len(s.books.released) == 0 {
		return
	}
	in := map[string]any{}
	for _, doc := range append(s.periodDocs(), s.doc(store.Ref{Collection: periodsCollection, ID: simID + "~hold"})) {
		if doc.Ref.ID == simID+"~hold" {
			in[""] = doc.Data
		}
		holds, _ := doc.Data["holds"].(map[string]any)
		for mode, h := range holds {
			if h != nil {
				in[mode] = h
			}
		}
	}
	for mode, released := range s.books.released {
		h, _ := in[mode].(map[string]any)
		if until, _ := h["until"].(time.Time); released && s.now.Before(until) {
			s.fail("%q was released, and is held until %s", mode, until)
		}
	}
}

// watched: a period with a hold or an operator's request stays on the watch list, however
// old it is, until the hold or the request has ended.
func (s *simulation) watched() {
	for mode, until := range s.books.holds {
		if mode != "" && s.now.Before(until) {
			s.isWatched("held")
		}
	}
	for _, b := range s.books.batches {
		if b.request != "" && b.state != "published" && !s.forgone(b) {
			s.isWatched("asked for")
		}
	}
}

// forgone reports whether nothing is left of a request: its cycle is closed, and by a definition
// that was deployed none of its runs counts.
func (s *simulation) forgone(b *simBatch) bool {
	return s.isClosed(b.mode) && slices.ContainsFunc(s.deployed(), func(rules *simRules) bool {
		i := rules.mode(b.mode)
		return i < 0 || !slices.ContainsFunc(b.runs, func(key string) bool { return rules.counts(i, s.family.byKey[key]) })
	})
}

func (s *simulation) isWatched(why string) {
	doc := s.doc(store.Ref{Collection: periodsCollection, ID: simID + "~watch"})
	if !slices.Contains(simStrings(doc.Data["periods"]), string(simPeriod)) {
		s.fail("the period is %s, and not watched", why)
	}
}

// periodDocs are the documents of the period.
func (s *simulation) periodDocs() []store.Doc {
	var docs []store.Doc
	for _, end := range []string{"", "~overflow", "~control"} {
		if doc := s.doc(store.Ref{Collection: periodsCollection, ID: simID + "_" + string(simPeriod) + end}); doc.Exists {
			docs = append(docs, doc)
		}
	}
	return docs
}

// periodWritten: recorded runs are what was reported, and none is removed or changed. Only a full
// period drops runs, and only those that cannot count.
func (s *simulation) periodWritten() {
	found, listed := map[string]bool{}, []string{}
	look := func(group string, runs map[string]any) {
		for key, v := range runs {
			value, _ := v.(string)
			id := group + "/" + key
			old, known := s.books.runs[id]
			switch run := s.family.byKey[key]; {
			case known && old == value:
			case known:
				s.fail("the record of run %s has changed", id)
			case run == nil:
				s.fail("run %s was never reported", id)
			case run.processor != group:
				s.fail("run %s of %q is recorded under %q", key, run.processor, group)
			default:
				s.books.runs[id] = value
				s.books.recorded = withoutBare(append(s.books.recorded, run))
			}
			found[id] = true
		}
	}
	for _, doc := range s.runDocs() {
		for group, runs := range simGroups(doc) {
			look(group, runs)
		}
		listed = append(listed, simStrings(doc.Data["batches"])...)
	}
	if len(found) != len(s.books.runs) {
		s.dropped(found)
	}
	for _, id := range s.books.listed {
		if !slices.Contains(listed, id) {
			s.fail("%s is no longer listed", id)
		}
	}
	s.books.listed = listed
	s.periodMayEnd(s.doc(store.Ref{Collection: periodsCollection, ID: simID + "_" + string(simPeriod)}))
}

// dropped: only a full period loses reports, and only those that cannot count.
func (s *simulation) dropped(found map[string]bool) {
	before := len(s.books.runs)
	for id := range s.books.runs {
		_, key, _ := strings.Cut(id, "/")
		if run := s.family.byKey[key]; s.full && !found[id] && (run.processor == "" || !run.succeeded()) {
			delete(s.books.runs, id)
			s.books.recorded = slices.DeleteFunc(s.books.recorded, func(r *simRun) bool { return r == run })
		}
	}
	if len(found) != len(s.books.runs) {
		s.fail("of %d recorded runs %d are left", before, len(found))
	}
}

// withoutBare leaves out a run whose copy without entities is recorded, too.
func withoutBare(runs []*simRun) []*simRun {
	return slices.DeleteFunc(runs, func(r *simRun) bool { return r.bare != nil && slices.Contains(runs, r.bare) })
}

func simStrings(v any) []string {
	list, _ := v.([]any)
	out := make([]string, len(list))
	for i := range list {
		out[i], _ = list[i].(string)
	}
	return out
}

func (s *simulation) readBatch(doc store.Doc) *simBatch {
	text := func(name string) string { v, _ := doc.Data[name].(string); return v }
	when := func(name string) time.Time { v, _ := doc.Data[name].(time.Time); return v }
	n, _ := doc.Data["n"].(int64)
	b := &simBatch{id: doc.Ref.ID, n: int(n), written: doc.Version.Time(), state: text("state"), holder: text("holder"), claimedAt: when("claimed_at"),
		createdAt: when("created_at"), graceSince: when("grace_since"), publishedAt: when("published_at"), cause: text("cause"), actor: text("actor"),
		selected: doc.Data["selected"] == true, force: doc.Data["force"] == true, request: text("request"),
		expects: simStrings(doc.Data["expects"]), runs: (&fields{doc: doc}).keys("runs"), messages: map[string]sent{}}
	b.parts = simStrings(doc.Data["parts"])
	docs := []store.Doc{doc}
	for _, id := range b.parts {
		docs = append(docs, s.doc(store.Ref{Collection: partsCollection, ID: id}))
	}
	for _, doc := range docs {
		messages, _ := doc.Data["messages"].(map[string]any)
		for name, v := range messages {
			m, _ := v.(map[string]any)
			payload, _ := m["payload"].(string)
			id, _ := m["id"].(string)
			b.messages[name] = sent{Payload: payload, ID: id}
			b.copies = append(b.copies, simStrings(m["copies"])...)
		}
	}
	b.graces, _ = doc.Data["graces"].(map[string]any)
	b.mode, _, _ = strings.Cut(strings.TrimPrefix(b.id, simID+"_"+string(simPeriod)+"_"), "~")
	return b
}

// grace returns when a batch's grace period began by the given rules, or the zero time if
// it has not begun.
func (b *simBatch) grace(r *simRules) time.Time {
	since, own := b.graces[r.tr.Definition()]
	if !own {
		return b.graceSince
	}
	at, _ := since.(time.Time)
	return at
}

// publishing: a thread begins to publish only under a valid claim.
func (s *simulation) publishing(th *simThread) {
	b := th.claim
	if b == nil {
		s.fail("%s publishes and never had a claim", th)
	} else if s.now.After(b.claimedAt.Add(simClaim)) {
		s.fail("%s begins to publish %s after its claim has run out", th, b.id)
	}
}

// accept takes one message and returns the broker's id.
func (s *simulation) accept(th *simThread, topic string, m wire.Outgoing, began time.Time, answered bool) string {
	id := m.Attributes["trigger_id"]
	batch, table, _ := strings.Cut(id, "/")
	b := s.books.batches[batch]
	switch {
	case topic != "trigger":
		s.fail("a message for the topic %q", topic)
	case b == nil || !b.frozen():
		s.fail("%s is published and not frozen", id)
	case b.messages[table].Payload != string(m.Data):
		s.fail("%s is published as\n%s\nand frozen as\n%s", id, m.Data, b.messages[table].Payload)
	}
	if s.problem != "" {
		return ""
	}
	ends := th.claim.claimedAt.Add(simClaim)
	if first := s.books.accepted[id]; first != nil {
		// A copy is allowed if an answer was lost, or if a publisher was paused, or died,
		// until its claim expired.
		if first.answered && !began.After(first.claimEnds) && !s.now.After(ends) {
			s.fail("%s is published a second time, without need", id)
		}
		first.answered, first.claimEnds = first.answered && answered, ends
	} else {
		s.books.accepted[id] = &simAccepted{answered: answered, claimEnds: ends}
	}
	key := "b" + strconv.Itoa(len(s.books.ids))
	s.books.ids[key] = id
	s.books.wire = append(s.books.wire, m)
	return key
}
