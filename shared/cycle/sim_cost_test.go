//go:build unix && !race

package cycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// What a world may cost: calls, documents that are read, checks of readiness, questions to the
// schedule, and documents that stay.

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

// idleRead: a period in which nothing is due costs one read of its three documents, its shards, the hold,
// the projection and the first batch of each mode, however many batches it had. Shards of another
// definition are read by a second call.
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
		reads *= 2 // it is asked, and has no answer
	}
	if calls > reads || docs > reads*(each+open) {
		s.fail("a relay that has nothing to do makes %d calls and reads %d documents", calls, docs)
	}
}

// checksAgain: what was not ready is checked again at the time that is written down, or when other runs
// have come.
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

// isShown: a reader who hears of a completion finds it, although a check of readiness takes its time.
func (s *simulation) isShown(th *simThread) {
	if len(s.instances)+len(s.threads) > 2 || s.acted || s.changed || s.faults.happened() {
		return // rivals, and what goes wrong, can keep it from being shown before the end
	}
	if th.shows >= 3 {
		return // more completions have come meanwhile than an evaluation shows before it goes on
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
