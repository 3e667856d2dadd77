package cycle

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// PeriodState is the recorded state of one period, for comparisons with tables and documents.
type PeriodState struct {
	Key
	At       time.Time // of the read, by the server's clock
	Recorded bool      // whether anything is written down
	Expired  bool      // nothing is, and the period is so old that its documents have expired
	Cycles   []Status  // by mode
	Problem  error     // why the period cannot be read; then nothing else is known
	Full     string    // what the period has no room for, "" when it has room
	// Document is the present compatibility document, nil when there is none. Wrong are the names
	// of its fields that differ from the recorded state. Shown are the processors that it rightly
	// shows as complete. A shadow has no such document, and Shown is nil.
	Document map[string]any
	Wrong    []string
	Shown    map[string]bool
	// Others are the processors that it shows as complete and of which no run counts: others
	// wrote that, or an earlier definition, and nothing takes it away.
	Others []string

	engine   *Engine
	snapshot *snapshot
	newest   map[string]policy.Run // by processor
}

// PeriodStates reads the periods from one to another, with their compatibility documents, as
// [Engine.EachPeriodState] does.
func (e *Engine) PeriodStates(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period) (out []PeriodState, err error) {
	err = e.eachPeriodState(ctx, t, from, to, true, func(b PeriodState) { out = append(out, b) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// EachPeriodState reads the periods from one to another, those without any record included, oldest
// first: in one call, and one query for every [store.ScanPage] documents of a kind. It changes nothing, and holds the
// documents of one period at a time. It does not read the compatibility documents, which are a third of
// all: Document, Wrong, Shown and Others stay empty. After an error some periods have been visited.
func (e *Engine) EachPeriodState(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period, visit func(PeriodState)) error {
	return e.eachPeriodState(ctx, t, from, to, false, visit)
}

func (e *Engine) eachPeriodState(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period, compare bool, visit func(PeriodState)) error {
	got, err := e.Store.Get(ctx, e.holdRef(t))
	if err != nil {
		return fmt.Errorf("read the hold of %s: %w", t.ID, err)
	}
	prefix := t.StoredID() + "_"
	periods := e.reader(ctx, e.Prefix+periodsCollection, prefix, string(from), string(to)+"~~")
	defer periods.stop()
	batches := e.reader(ctx, e.Prefix+triggersCollection, prefix, string(from), string(to)+"~~")
	defer batches.stop()
	var shown *reader
	if compare {
		shown = e.reader(ctx, e.Prefix+t.CompatibilityCollection, "", string(from), string(to))
		defer shown.stop()
	}
	for p := from; p <= to; p = t.Calendar().Add(p, 1) {
		b := PeriodState{Key: Key{Transition: t, Period: p}, At: got.ReadTime, engine: e}
		of, err := periods.of(p)
		if err != nil {
			return fmt.Errorf("read the periods: %w", err)
		}
		handed, err := batches.of(p) // after the period, so that most listed batches exist
		if err != nil {
			return fmt.Errorf("read the hand-overs: %w", err)
		}
		var view map[string]store.Doc
		if compare {
			if view, err = shown.of(p); err != nil {
				return fmt.Errorf("read %s: %w", t.CompatibilityCollection, err)
			}
		}
		var docs []store.Doc
		for _, ref := range e.periodRefs(b.Key) {
			docs = append(docs, document(of, ref))
		}
		var cycles []store.Doc
		for id, doc := range handed {
			if period, _, _ := strings.Cut(strings.TrimPrefix(id, prefix), "_"); period == string(p) {
				cycles = append(cycles, doc)
			}
		}
		compat := document(view, e.projectionRef(b.Key))
		b.fill(ctx, docs, compat, got.Docs[0], cycles)
		if compare && b.Problem == nil {
			b.compare(compat)
		}
		b.slim()
		visit(b)
	}
	return nil
}

// reader reads a collection once, period by period.
type reader struct {
	prefix string // of the ids, before the period
	next   func() (store.Doc, error, bool)
	stop   func()
	head   *store.Doc // read and not yet taken
}

func (e *Engine) reader(ctx context.Context, collection, prefix, from, to string) *reader {
	r := &reader{prefix: prefix}
	r.next, r.stop = iter.Pull2(e.Store.Scan(ctx, collection, prefix+from, prefix+to))
	return r
}

// of returns the documents whose id begins with a period, by id. Periods must ascend.
func (r *reader) of(p pipeline.Period) (map[string]store.Doc, error) {
	docs := map[string]store.Doc{}
	for {
		if r.head == nil {
			doc, err, ok := r.next()
			if err != nil {
				return nil, err
			}
			if !ok {
				return docs, nil
			}
			r.head = &doc
		}
		id := strings.TrimPrefix(r.head.Ref.ID, r.prefix)
		switch {
		case strings.HasPrefix(id, string(p)):
			docs[r.head.Ref.ID] = *r.head
		case id > string(p):
			return docs, nil
		}
		r.head = nil
	}
}

// fill sets the state of one period from its documents.
func (b *PeriodState) fill(ctx context.Context, periods []store.Doc, shown, hold store.Doc, batches []store.Doc) {
	s, err := b.engine.listing(b.Key, b.At, periods, shown)
	if err == nil {
		listed := map[string]bool{}
		for _, id := range s.listed {
			listed[id] = true
		}
		// One that came between the scans is left out.
		batches = slices.DeleteFunc(batches, func(d store.Doc) bool { return !listed[d.Ref.ID] })
		for _, d := range batches {
			delete(listed, d.Ref.ID)
		}
		var refs []store.Ref // of those that were created while the collection was read
		for id := range listed {
			refs = append(refs, b.engine.batchRef(id))
		}
		var created, parts, shards []store.Doc
		if created, err = b.engine.get(ctx, b.Key, refs); err == nil {
			batches, refs = append(batches, created...), nil
			for _, id := range b.engine.partsOf(s, batches, false) {
				refs = append(refs, b.engine.partRef(id))
			}
			parts, err = b.engine.get(ctx, b.Key, refs)
			batches = append(batches, parts...)
		}
		if err == nil {
			shards, err = b.engine.getShards(ctx, s)
		}
		if err == nil {
			err = b.engine.complete(s, periods, shards, hold, batches)
		}
	}
	if err != nil {
		b.Problem = err
		return
	}
	b.Full = s.full()
	b.snapshot, b.Recorded, b.Cycles = s, s.recorded(), s.describe()
	b.Expired = !b.Recorded && b.forgotten(b.At)
}

// compare sets what the compatibility document shows, and what it should.
func (b *PeriodState) compare(shown store.Doc) {
	if b.engine.Shadow {
		return
	}
	s := b.snapshot
	b.Shown = map[string]bool{}
	if shown.Exists {
		b.Document = shown.Data
	}
	fields := s.shown()
	said := map[string]bool{}
	for _, f := range fields {
		said[f.Path[0]] = true
		switch {
		case !holds(shown, f):
			b.Wrong = append(b.Wrong, f.Path[0])
		case b.Key.Transition.Expects(f.Path[0]):
			b.Shown[f.Path[0]] = true
		}
	}
	if b.countsOnly() {
		newest, _ := s.counted()
		for name := range newest {
			said[name] = true
			if !slices.Contains(b.Wrong, completedCount) {
				b.Shown[name] = true // as one of so many
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.Document)) {
		run, _ := b.Document[name].(map[string]any)
		if _, completed := run["completed_at"]; run != nil && !said[name] && len(fields) > 0 && (completed || b.Key.Transition.Expects(name)) {
			b.Others = append(b.Others, name)
		}
	}
}

// slim drops what only an evaluation needs: payloads, lists of entities, documents. A week of an
// hourly pipeline has several hundred documents of up to a megabyte.
func (b *PeriodState) slim() {
	if b.snapshot == nil {
		return
	}
	b.snapshot.periods, b.snapshot.shards, b.snapshot.tallies, b.snapshot.compat = nil, nil, nil, store.Doc{}
	for i, r := range b.snapshot.runs {
		if len(r.Entities) > 0 {
			bare := r.WithoutEntities()
			b.snapshot.runs[i].Completion = &bare
		}
	}
	b.newest = map[string]policy.Run{}
	for _, r := range b.snapshot.runs {
		if old, ok := b.newest[r.Processor]; !ok || policy.Older(old, r) < 0 {
			b.newest[r.Processor] = r
		}
	}
	for _, of := range b.snapshot.batches {
		for _, batch := range of {
			batch.Messages = nil
		}
	}
	if b.Document != nil {
		bare := map[string]any{}
		for name, v := range b.Document {
			if _, isRun := v.(map[string]any); isRun {
				v = map[string]any{}
			}
			bare[name] = v
		}
		b.Document = bare
	}
}

func document(docs map[string]store.Doc, ref store.Ref) store.Doc {
	if doc, ok := docs[ref.ID]; ok {
		return doc
	}
	return store.Doc{Ref: ref}
}

// Counting returns, by processor, the newest run that counts for a mode.
func (b PeriodState) Counting(m pipeline.Mode) map[string]policy.Run {
	newest := map[string]policy.Run{}
	for _, r := range policy.Counting(b.snapshot.input(m)) {
		if old, ok := newest[r.Processor]; !ok || policy.Older(old, r) < 0 {
			newest[r.Processor] = r
		}
	}
	return newest
}

// Newest returns the newest report of a processor, with any status; none where the period
// cannot be read.
func (b PeriodState) Newest(processor string) (newest policy.Run, ok bool) {
	newest, ok = b.newest[processor]
	return newest, ok
}

// BadReports returns the last report of each of a mode's missing processors, if it is no success.
func (b PeriodState) BadReports(m pipeline.Mode, missing []string) []policy.Run {
	return policy.BadReports(b.snapshot.input(m), missing)
}

// Old reports whether the period ended longer ago than trigger_within, so that a repair
// hands nothing over.
func (b PeriodState) Old() bool { return b.old(b.At) }

// WouldCount reports whether a run of a processor that ended at a time would count for
// a mode.
func (b PeriodState) WouldCount(m pipeline.Mode, processor string, at time.Time) bool {
	run := policy.Run{Completion: &wire.Completion{Processor: processor, Period: b.Period, Status: wire.StatusSuccess, EventTime: at}}
	return policy.WhyNot(b.snapshot.input(m), run) == ""
}

// Managed returns from when on cycles are ours. The first period is what the definition says; else
// what a relay found and recorded; else the first period with a record.
func (e *Engine) Managed(ctx context.Context, t *pipeline.Transition) (Managed, error) {
	list, _, err := e.watched(ctx, t)
	if err != nil {
		return Managed{}, err
	}
	m, err := e.adopted(t, list)
	if m.Since == "" && err == nil {
		m.Since, err = e.firstRecorded(ctx, t)
	}
	return m, err
}

func (e *Engine) firstRecorded(ctx context.Context, t *pipeline.Transition) (pipeline.Period, error) {
	prefix := t.StoredID() + "_"
	for doc, err := range e.Store.Scan(ctx, e.Prefix+periodsCollection, prefix+"0", prefix+"~") {
		if err != nil {
			return "", fmt.Errorf("read the first period: %w", err)
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(doc.Ref.ID, prefix), "~")
		if p, err := t.Calendar().Parse(id); err == nil {
			return p, nil
		}
	}
	return "", nil
}
