//go:build unix && !race

package cycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// The limits of a world's cost: calls, documents read, readiness checks, schedule look-ups, and
// documents that stay.

// simCosts counts what was done.
type simCosts struct {
	calls, docs int                   // of the store
	checked     map[string]simChecked // by batch: the last readiness check, and what it was about
	most        int                   // calls of one thread
}

// simMostCalls bounds the calls of one request. Each conflict with a rival makes some ten more.
const simMostCalls = 100

func (s *simulation) spends(th *simThread, docs int) {
	s.costs.calls++
	s.costs.docs += docs
	th.calls++
	s.costs.most = max(s.costs.most, th.calls)
	if th.calls > simMostCalls && !strings.HasPrefix(th.job, "unwatch") {
		s.fail("%s makes more than %d calls", th, simMostCalls)
	}
}

// idleRead: a period in which nothing is due costs one read, however many batches it had. The read covers
// the three documents, the shards, the hold, the projection and the first batch of each mode. Open batches
// and shards of another definition cost a second read.
func (s *simulation) idleRead(calls, docs int) {
	open := 0
	for _, b := range s.books.batches {
		if b.state != "published" || s.final.mode(b.mode) < 0 {
			open++
		}
	}
	own := 0
	if n := s.shardsOf(s.final.tr); n > 1 {
		own = n
	}
	others := len(slices.DeleteFunc(simListed(s.periodDocs()), func(name string) bool {
		return strings.HasPrefix(name, fmt.Sprint(own, ".")) && !strings.HasSuffix(name, fullDocument)
	}))
	reads, each := 1+min(open+others, 1), 5+len(s.final.modes)+own+others
	if s.checks.schedule {
		reads *= 2 // the schedule is asked, and has no answer
	}
	if calls > reads || docs > reads*(each+open) {
		s.fail("a relay that has nothing to do makes %d calls and reads %d documents", calls, docs)
	}
}

// checksAgain: readiness that failed is checked again at the recorded time, or when other runs have
// arrived.
func (s *simulation) checksAgain(th *simThread, mode string, processors []string) {
	if s.changed {
		return // another definition has other checks
	}
	for _, doc := range th.seen.Docs {
		if doc.Ref.Collection != triggersCollection || !doc.Exists {
			continue
		}
		b := s.readBatch(doc)
		if th.rules.stored(mode) != b.mode || b.frozen() || b.state == "published" {
			continue
		}
		last, before := s.costs.checked[b.id]
		next, _ := doc.Data["next_attempt"].(time.Time)
		if before && !b.selected && b.state == "checking" && th.seen.ReadTime.Before(next) && slices.Equal(last.processors, processors) &&
			len(s.visible(last.seen)) == len(s.visible(th.seen)) && last.seen.ReadTime.Before(next) {
			s.fail("the readiness of %s is checked again before %s, and nothing has come", b.id, next)
		}
		s.costs.checked[b.id] = simChecked{processors: processors, seen: th.seen}
	}
}

// asksAgain: the schedule is asked again a quarter of an hour after an answer, at the earliest.
func (s *simulation) asksAgain(th *simThread) {
	for _, doc := range th.seen.Docs {
		schedule, _ := doc.Data["schedule"].(map[string]any)
		if tried, _ := schedule["tried"].(time.Time); th.seen.ReadTime.Before(tried.Add(15 * time.Minute)) {
			s.fail("%s asks the schedule again, asked %s before", th, th.seen.ReadTime.Sub(tried))
		}
	}
}

// isShown: a consumer that gets a completion finds it in the projection, also during a readiness check.
func (s *simulation) isShown(th *simThread) {
	if len(s.instances)+len(s.threads) > 2 || s.acted || s.changed || s.faults.happened() {
		return // rivals and faults can keep it from being shown before the end
	}
	if th.shows >= 3 {
		return // more completions have arrived than an evaluation shows before it continues
	}
	newest, _ := th.rules.shown(s.visible(th.seen))
	doc := s.doc(store.Ref{Collection: "completion", ID: string(simPeriod)})
	for p := range newest {
		if doc.Data[p] == nil {
			s.fail("the readiness of %s is checked before %s is shown", th, p)
		}
	}
}

func (f *simFaults) happened() bool {
	return slices.ContainsFunc(f.count[:], func(n int) bool { return n > 0 })
}
