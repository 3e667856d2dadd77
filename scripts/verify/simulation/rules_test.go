//go:build unix && !race

package simulation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// settle lets the system finish its work without faults, and then checks the rules.
func (w *world) settle() {
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	if w.poisoned+w.hangs != "" { // a broken period does not block the others
		for range 5 {
			w.relayed()
		}
		w.reconcile()
		w.play(time.Now().Add(30 * time.Minute)) // a grace ends
		w.relayed()
		w.handedOver(w.poisoned + w.hangs)
		w.poisoned, w.hangs = "", ""
	}
	for range 4 {
		w.play(time.Now().Add(2 * time.Hour))
		w.job(wire.JobRelay)
		w.play(time.Now().Add(10 * time.Minute))
		w.reconcile()
		w.tidy()
	}
	w.play(time.Now().Add(2 * time.Hour))
	for range 7 { // a batch whose readiness failed waits for half an hour, and its further runs are collected
		w.job(wire.JobRelay)
		w.play(time.Now().Add(31 * time.Minute))
	}
	if w.problem != "" {
		return
	}
	w.nothingLost()
	w.quarantineNotified()
	w.handedOver("")
	w.costs()
	w.rest()
}

// nothingLost: every report is recorded, or in quarantine if it is invalid.
func (w *world) nothingLost() {
	recorded := map[string]bool{}
	for doc := range w.mem.Scan(context.Background(), "phase_periods", "!", "~") {
		recorded[doc.Ref.ID] = true
		groups, _ := doc.Data["runs"].(map[string]any)
		for processor, g := range groups {
			for _, text := range g.(map[string]any) {
				for _, r := range w.runs {
					if strings.Contains(text.(string), fmt.Sprintf("%q", r.execution)) && r.processor == processor && strings.HasSuffix(doc.Ref.ID, "_"+string(r.period)) {
						recorded[r.execution] = true
					}
				}
			}
		}
	}
	for _, r := range w.runs {
		if r.reported && r.processor[0] != 'c' && !recorded[r.execution] {
			w.fail("the report of %s about %s is not recorded", r.execution, r.period)
		}
	}
	for _, m := range w.messages {
		doc := w.doc("quarantine", m.id)
		switch {
		case !m.acked:
			w.fail("%s is never acknowledged", m.id)
		case doc.Exists != m.invalid:
			w.fail("%s: invalid %t, in quarantine %t", m.id, m.invalid, doc.Exists)
		case m.invalid && doc.Data["discarded_at"] == nil:
			w.fail("%s waits in quarantine, and was discarded", m.id)
		}
	}
}

// relayed runs a relay to its end.
func (w *world) relayed() {
	m := w.job(wire.JobRelay)
	w.play(m.published.Add(6 * time.Minute)) // then it is superseded
}

// heartbeat is when a relay ended well.
func (w *world) heartbeat() time.Time {
	beats, _ := w.doc("function_status", "reconcile").Data["heartbeats"].(map[string]any)
	at, _ := beats[wire.JobRelay].(time.Time)
	return at
}

// handedOver: if the critical processors of a cycle have run, each processor that has run is handed over.
func (w *world) handedOver(but pipeline.Period) {
	for id, processors := range upstream {
		for _, period := range w.season.periods {
			if period == but {
				continue
			}
			known := func(p string) bool {
				return slices.ContainsFunc(w.runs, func(r *run) bool {
					return r.processor == p && r.period == period && (r.reported || but == "" || p[0] == 'a') && r.event.Before(time.Now().Add(-40*time.Minute))
				})
			}
			begun := !slices.ContainsFunc(critical[id], func(p string) bool { return !known(p) })
			for _, p := range processors {
				batches := 0
				for trigger := range w.effects {
					if cycle, table, _ := strings.Cut(trigger, "/"); table == p && strings.HasPrefix(cycle, id+"_"+string(period)+"_") {
						batches++
					}
				}
				runs := 0
				for _, r := range w.runs {
					if r.processor == p && r.period == period {
						runs++
					}
				}
				switch {
				case begun && known(p) && batches == 0:
					w.fail("%s of %s has run for %s, and was not handed over", p, id, period)
				case batches > runs+1: // one more, if reconciliation found the rows of a run before its report
					w.fail("%s of %s is handed over %d times for %s, and ran %d times", p, id, batches, period, runs)
				case batches > 0 && but == "" && !begun:
					w.fail("%s of %s is handed over for %s, and critical processors have not run", p, id, period)
				}
			}
		}
	}
}

// costs: the number of documents depends on the work of the season, not on the number of evaluations.
func (w *world) costs() {
	counted := map[string]int{}
	for _, c := range []string{"phase_periods", "phase_triggers", "a_completion", "b_completion", "processing_locks", "lock_tokens", "shadow_phase_periods"} {
		for range w.mem.Scan(context.Background(), c, "!", "~") {
			counted[c]++
		}
	}
	periods := len(w.season.periods)
	switch {
	case counted["phase_periods"] > 2*(periods+1), counted["a_completion"] > periods, counted["b_completion"] > periods:
		w.fail("%d periods have %v documents", periods, counted)
	case counted["phase_triggers"] > len(w.runs):
		w.fail("%d runs have %d batches", len(w.runs), counted["phase_triggers"])
	case counted["processing_locks"] > 0:
		w.fail("%d locks are left", counted["processing_locks"])
	case counted["shadow_phase_periods"] > 0 && !w.shadow:
		w.fail("a shadow has documents, and nothing was delivered to it")
	}
	for doc := range w.mem.Scan(context.Background(), "lock_tokens", "!", "~") {
		if nonces, _ := doc.Data["nonces"].([]any); len(nonces) > w.happened {
			w.fail("%s lists %d tokens of runs that have ended, and %d calls failed", doc.Ref, len(nonces), w.happened)
		}
	}
	for _, c := range []string{"shadow_phase_periods", "shadow_phase_triggers"} {
		for doc := range w.mem.Scan(context.Background(), c, "!", "~") {
			if doc.Data["expires_at"] == nil && !strings.Contains(doc.Ref.ID, "~") {
				w.fail("%s stays for ever", doc.Ref)
			}
		}
	}
	if list := w.doc("phase_periods", "a_to_b~watch").Data["periods"]; list != nil && len(list.([]any)) > 0 {
		w.fail("%v are watched when all has come to rest", list)
	}
}

// rest: one more relay and one more comparison write nothing and repair nothing. They need only a few
// reads.
func (w *world) rest() {
	for range 2 { // after an hour without a change a relay marks the periods in which nothing is due
		w.play(time.Now().Add(2 * time.Hour))
		w.job(wire.JobRelay)
		w.play(time.Now().Add(5 * time.Minute))
	}
	writes, calls := w.writes, w.calls
	beat := time.Now()
	w.job(wire.JobRelay)
	w.play(time.Now().Add(5 * time.Minute))
	if w.writes > writes || w.calls-calls > 20 {
		w.fail("a relay that has nothing to do writes %d times and makes %d calls", w.writes-writes, w.calls-calls)
	}
	if w.heartbeat().Before(beat) {
		w.fail("a relay that succeeds leaves no heartbeat: the last is of %s", w.heartbeat())
	}
	writes = w.writes
	var left []string
	var err error
	p := w.processes[0]
	w.request(p, func(ctx context.Context) int { left, err = w.compared(ctx, p); return 1 }, func(int) {})
	w.play(time.Now().Add(5 * time.Minute))
	switch {
	case err != nil:
		w.fail("no comparison: %v", err)
	case w.writes > writes:
		w.fail("a comparison that finds nothing new writes")
	}
	for _, f := range left {
		if strings.HasPrefix(f, "missing_completion") || strings.HasPrefix(f, "untriggered") || strings.HasPrefix(f, "unpublished") || strings.HasPrefix(f, "quarantine") || strings.HasPrefix(f, "leaked") {
			w.fail("a comparison finds %s when all has come to rest", f)
		}
	}
}
