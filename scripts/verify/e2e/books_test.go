package e2e

import (
	"fmt"
	"strings"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// These tests read the documents from the store, not through the engine: an error of the
// engine's own reader would hide an error of its writer.

// batch is one recorded hand-over.
type batch struct {
	id, state, holder string
	runs              []string
	messages          map[string]sent // by processor
}

// sent is one message of a recorded batch.
type sent struct {
	payload, id string
	copies      []string // further ids
}

// books holds all documents of a period.
type books struct {
	runs       map[string]string // key → processor
	batches    []batch
	projection map[string]any
}

// read reads the documents of periods.
func (w *world) read(periods ...pipeline.Period) map[pipeline.Period]books {
	w.t.Helper()
	all := map[pipeline.Period]books{}
	for _, p := range periods {
		b := books{runs: map[string]string{}, projection: w.doc(w.tr.CompatibilityCollection, string(p)).Data}
		period := w.doc("phase_periods", w.tr.ID+"_"+string(p)).Data
		for processor, runs := range object(period["runs"]) {
			for key := range object(runs) {
				b.runs[key] = processor
			}
		}
		for _, id := range texts(period["batches"]) {
			doc := w.doc("phase_triggers", id)
			batch := parse(doc)
			for _, part := range texts(doc.Data["parts"]) {
				batch.take(w.doc("phase_trigger_parts", part))
			}
			b.batches = append(b.batches, batch)
		}
		all[p] = b
	}
	return all
}

func parse(d store.Doc) batch {
	b := batch{id: d.Ref.ID, state: text(d.Data["state"]), holder: text(d.Data["holder"]),
		runs: texts(d.Data["runs"]), messages: map[string]sent{}}
	b.take(d)
	return b
}

// take adds the messages of the batch's own document, or of a part's.
func (b batch) take(d store.Doc) {
	for processor, v := range object(d.Data["messages"]) {
		m := object(v)
		b.messages[processor] = sent{text(m["payload"]), text(m["id"]), texts(m["copies"])}
	}
}

func text(v any) string { s, _ := v.(string); return s }

func object(v any) map[string]any { m, _ := v.(map[string]any); return m }

func texts(v any) (all []string) {
	list, _ := v.([]any)
	for _, e := range list {
		if key, ok := e.(int64); ok { // of a run, in a batch with parts
			e = fmt.Sprintf("%016x", uint64(key))
		}
		all = append(all, text(e))
	}
	return all
}

// lie describes a wrong state of a batch: it must be published if and only if the broker
// has returned an id for every message.
func (b batch) lie() string {
	open := 0
	for _, m := range b.messages {
		if m.id == "" {
			open++
		}
	}
	if published := b.state == "published"; published != (open == 0 && len(b.messages) > 0) {
		return fmt.Sprintf("%s: %s, and %d of %d messages have no id", b.id, b.state, open, len(b.messages))
	}
	return ""
}

// unfinished describes the work that is left for a period, "" if it is complete: all runs must
// be recorded and handed over, and the projection must match.
func (w *world) unfinished(b books, runs int) string {
	if len(b.runs) != runs {
		return fmt.Sprintf("%d of %d runs on record", len(b.runs), runs)
	}
	covered := 0
	for _, batch := range b.batches {
		if batch.state != "published" {
			return batch.id + ": " + batch.state
		}
		covered += len(batch.runs)
	}
	if covered < runs {
		return fmt.Sprintf("%d of %d runs handed over", covered, runs)
	}
	for field, want := range map[string]any{"_triggered": true, "_trigger_pending": false, "_trigger_succeeded": true,
		"_completed_count": int64(w.processors), "_mode": w.mode} {
		if got := b.projection[field]; got != want {
			return fmt.Sprintf("projection says %s: %v, not %v", field, got, want)
		}
	}
	return ""
}

// awaitHandedOver waits until the given number of runs of each period is handed over.
func (w *world) awaitHandedOver(runs map[pipeline.Period]int) {
	w.t.Helper()
	left := map[pipeline.Period]int{}
	for p, n := range runs {
		left[p] = n
	}
	w.await(2*limit, func() string {
		for p, n := range left {
			if problem := w.unfinished(w.read(p)[p], n); problem != "" {
				return fmt.Sprintf("%s: %s (%d periods left)", p, problem, len(left))
			}
			delete(left, p) // no more runs are reported for it
		}
		return ""
	})
	w.await(limit, func() string {
		here := map[string]bool{}
		for _, r := range w.phase4.messages() {
			here[r.id] = true
		}
		missing := 0
		for _, b := range w.read(keys(runs)...) {
			for _, batch := range b.batches {
				for _, m := range batch.messages {
					for _, id := range append(m.copies, m.id) {
						if !here[id] {
							missing++
						}
					}
				}
			}
		}
		if missing > 0 {
			return fmt.Sprintf("%d messages that are on record as published have not reached Phase 4", missing)
		}
		return ""
	})
}

func keys(runs map[pipeline.Period]int) (ps []pipeline.Period) {
	for p := range runs {
		ps = append(ps, p)
	}
	return ps
}

// balance of an audit.
type balance struct{ batches, messages, copies int }

// audit compares the documents of periods with the messages that Phase 4 has received.
// Phase 4 must have received every recorded message and no other. A trigger id must stand
// for one message of one batch, and a run must be in one batch.
func (w *world) audit(runs map[pipeline.Period]int) (sum balance) {
	w.t.Helper()
	onRecord := map[string]string{} // trigger id → payload
	for _, b := range w.read(keys(runs)...) {
		sum.batches += len(b.batches)
		batchOf := map[string]string{}
		for _, batch := range b.batches {
			if lie := batch.lie(); lie != "" {
				w.t.Error(lie)
			}
			if batch.holder != "" {
				w.t.Errorf("%s: published, and still claimed by %s", batch.id, batch.holder)
			}
			for _, key := range batch.runs {
				if other, twice := batchOf[key]; twice {
					w.t.Errorf("run %s is in %s and in %s: doubled", key, other, batch.id)
				}
				batchOf[key] = batch.id
			}
			for processor, m := range batch.messages {
				t, err := wire.DecodeTrigger([]byte(m.payload))
				if err != nil || !strings.HasSuffix(t.SourceTable, processor) {
					w.t.Errorf("%s: message %s for %q: %v", batch.id, processor, t.SourceTable, err)
				}
				if _, twice := onRecord[t.TriggerID]; twice {
					w.t.Errorf("%s: trigger id %s stands for two messages", batch.id, t.TriggerID)
				}
				onRecord[t.TriggerID] = m.payload
			}
		}
		for key, processor := range b.runs {
			if batchOf[key] == "" {
				w.t.Errorf("run %s of %s is in no batch: lost", key, processor)
			}
		}
	}
	arrived := map[string]int{}
	brokerIDs := map[string]bool{}
	for _, r := range w.phase4.messages() {
		if _, ours := runs[r.trigger.AnalysisDate]; !ours || brokerIDs[r.id] {
			continue // of another period, or delivered again by the broker itself
		}
		brokerIDs[r.id] = true
		arrived[r.trigger.TriggerID]++
		switch payload, known := onRecord[r.trigger.TriggerID]; {
		case !known:
			w.t.Errorf("Phase 4 received %s, which is not recorded: %s", r.trigger.TriggerID, r.data)
		case payload != r.data:
			w.t.Errorf("%s: a copy differs:\n%s\n%s", r.trigger.TriggerID, payload, r.data)
		}
	}
	for id, payload := range onRecord {
		if arrived[id] == 0 {
			w.t.Errorf("Phase 4 has not received %s: lost: %s", id, payload)
		}
		sum.messages++
		sum.copies += max(arrived[id]-1, 0)
	}
	return sum
}
