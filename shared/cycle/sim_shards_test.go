//go:build unix && !race

package cycle

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

// In half of the worlds a definition has its runs in up to three shards. With one, the runs are in the
// period's document. Two definitions of a world may differ in this.

// setShards draws in how many shards each definition has the runs.
func (s *simulation) setShards() {
	if s.seed/20%2 == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(s.seed, 9))
	s.shards = map[*pipeline.Transition]int{}
	for _, rules := range s.family.versions {
		s.shards[rules.tr] = 1 + rng.IntN(3)
	}
}

func (s *simulation) shardsOf(t *pipeline.Transition) int { return max(1, s.shards[t]) }

func simShardRef(name string) store.Ref {
	return store.Ref{Collection: runsCollection, ID: simID + "_" + string(simPeriod) + "~" + name}
}

// simListed returns the names of the shards that the documents of the period list.
func simListed(docs []store.Doc) (names []string) {
	for _, doc := range docs {
		if doc.Ref.Collection == periodsCollection {
			names = append(names, simStrings(doc.Data["shards"])...)
		}
	}
	return names
}

// runDocs are the documents with the runs of the period.
func (s *simulation) runDocs() []store.Doc {
	docs := s.periodDocs()
	for _, name := range simListed(docs) {
		if doc := s.doc(simShardRef(name)); doc.Exists {
			docs = append(docs, doc)
		}
	}
	return docs
}

// simRunsIn keeps of some documents those that have runs of the period.
func simRunsIn(docs []store.Doc) []store.Doc {
	listed := simListed(docs)
	return slices.DeleteFunc(slices.Clone(docs), func(d store.Doc) bool {
		_, name, _ := strings.Cut(d.Ref.ID, "~")
		return d.Ref.Collection != periodsCollection && !(d.Ref.Collection == runsCollection && slices.Contains(listed, name))
	})
}

// shardWritten: a shard with runs is listed, by the same commit at the latest.
func (s *simulation) shardWritten(ref store.Ref) {
	_, name, _ := strings.Cut(ref.ID, "~")
	if s.doc(ref).Exists && !slices.Contains(simListed(s.periodDocs()), name) {
		s.fail("%s is written, and the period does not list it", ref)
	}
	s.periodWritten()
}

// fillShards leaves the shards as little room as the period's first document has.
func (s *simulation) fillShards(rng *rand.Rand, room int) {
	done := map[string]bool{}
	for _, rules := range s.family.versions {
		n := s.shardsOf(rules.tr)
		for i := range n {
			name := shardName(n, i)
			if n == 1 || done[name] || rng.IntN(2) == 0 {
				continue
			}
			done[name] = true
			s.stuff(simShardRef(name), room)
		}
	}
}

// shardsEndTogether: when all has come to rest, the shards expire when their period does, or stay.
func (s *simulation) shardsEndTogether() {
	docs := s.runDocs()
	for _, doc := range docs {
		end, _ := doc.Data[store.ExpiresAt].(time.Time)
		if head, _ := docs[0].Data[store.ExpiresAt].(time.Time); doc.Ref.Collection == runsCollection && !end.Equal(head) && s.problem == "" {
			s.fail("%s ends %s, and its period %s", doc.Ref, end, head)
		}
	}
}

// shardExpired: the runs of a shard that was deleted are not known any more.
func (s *simulation) shardExpired(doc store.Doc) {
	left := s.runDocs()
	s.past.lost = true
	for processor, g := range simGroups(doc) {
		for key := range g {
			if slices.ContainsFunc(left, func(d store.Doc) bool { return simGroups(d)[processor][key] != nil }) {
				continue
			}
			delete(s.books.runs, processor+"/"+key)
			s.books.recorded = slices.DeleteFunc(s.books.recorded, func(r *simRun) bool { return r.key == key && r.processor == processor })
		}
	}
}

// simGroups returns the reports of a document, by processor; "" for unexpected ones.
func simGroups(doc store.Doc) map[string]map[string]any {
	groups := map[string]map[string]any{}
	runs, _ := doc.Data["runs"].(map[string]any)
	for processor, g := range runs {
		groups[processor], _ = g.(map[string]any)
	}
	groups[""], _ = doc.Data["unexpected"].(map[string]any)
	return groups
}

// stuff fills a document but for some bytes.
func (s *simulation) stuff(ref store.Ref, room int) {
	// Two fields: one of them has a limit of its own.
	half := store.MaxDocumentBytes / 2
	rest := store.MaxDocumentBytes - store.Size(ref, map[string]any{"others": simFiller[:half], "more": ""}) - room
	if _, err := s.mem.Apply(context.Background(), store.Create(ref, store.F(simFiller[:half], "others"), store.F(simFiller[:rest], "more"))); err != nil {
		panic(err)
	}
}
