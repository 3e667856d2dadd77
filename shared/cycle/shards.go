package cycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// The runs of a transition with more than maxRuns processors stand in manyShards, which are documents of
// a collection of their own. A smaller one has its runs in the period's first document.
//
//   - One commit writes a report into its shard, and into the period's document the shard's name and a
//     new value of touched. So each report changes the version of the period's document, as it does
//     without shards: a mark of the relay is not valid any more, and an end or a mark that was decided
//     before is refused.
//   - A shard's name has the number of shards. Definitions with different numbers of processors use
//     different shards of one period, and an evaluation reads all that the period lists.
//   - A shard that the period does not list belongs to a period that was deleted, and is ignored. A report
//     that comes to it so late deletes it first.
//   - A shard that is full continues in a second one, as a period's document does (room.go).
//   - Period and shards get their end, and lose it, in one commit (expiry.go). While some of them are
//     deleted and the period's document is still there, no policy begins anything.
const runsCollection = "phase_runs"

const (
	// maxRuns is for how many processors the period's document has the runs.
	maxRuns = 500
	// manyShards take maxRecorded, and a quarter more: names are not spread evenly.
	manyShards = 20
)

// fullDocument ends the id of the document in which a full one, of a period or a shard, continues.
const fullDocument = "~overflow"

// shardsOf returns in how many shards the runs of a transition stand. With one they stand in the
// period's document.
func shardsOf(t *pipeline.Transition) int {
	if len(t.Order) <= maxRuns {
		return 1
	}
	return manyShards
}

func shardName(shards, n int) string { return fmt.Sprintf("%d.%d", shards, n) }

// shard returns the name of the shard of a processor, by the name under which its runs are stored.
func (e *Engine) shard(k Key, processor string, full bool) string {
	shards, h := e.shards(k.Transition), fnv.New32a()
	_, _ = h.Write([]byte(processor)) // which never fails
	name := shardName(shards, int(h.Sum32()%uint32(shards)))
	if full {
		name += fullDocument
	}
	return name
}

// ownShards names the shards of the definition, none if there is one.
func (e *Engine) ownShards(t *pipeline.Transition) (names []string) {
	if n := e.shards(t); n > 1 {
		for i := range n {
			names = append(names, shardName(n, i))
		}
	}
	return names
}

func (e *Engine) shardRef(k Key, name string) store.Ref {
	return store.Ref{Collection: e.Prefix + runsCollection, ID: k.stored() + "~" + name}
}

// recording returns what one commit writes to record some reports: fields of the period's document, and
// the writes to shards. Each write gets the fields in common.
func (e *Engine) recording(k Key, full bool, all []wire.Completion, common ...store.Field) (period []store.Field, shards []store.Write) {
	var names []any
	at, seen := map[string]int{}, map[string]bool{}
	for _, c := range all {
		r := newKept(&c)
		id := r.processor + "/" + r.id
		if seen[id] { // the same report may have come twice
			continue
		}
		seen[id] = true
		field := store.F(r.text, append(r.path(), r.id)...)
		if e.shards(k.Transition) == 1 {
			period = append(period, field)
			continue
		}
		name := e.shard(k, r.processor, full)
		i, known := at[name]
		if !known {
			i, at[name] = len(shards), len(shards)
			names, shards = append(names, name), append(shards, store.Merge(e.shardRef(k, name), slices.Clone(common)...))
		}
		shards[i].Fields = append(shards[i].Fields, field)
	}
	if len(shards) > 0 {
		period = e.touching(names...)
	}
	return append(period, common...), shards
}

// touching are the fields of the period's document that go along with a write to shards.
func (e *Engine) touching(shards ...any) []store.Field {
	return []store.Field{store.F(store.Union(shards...), "shards"), store.F(e.NewID(), "touched")}
}

// inShards commits writes to shards together with fields of the period's document. Where the platform may
// delete that one, or has done so, the commit is against what was read of it. Shards that are left of it
// are deleted first: a new report would bring back their runs, but not what was handed over of them.
// After [store.ErrConflict] and [store.ErrExists] no report was written.
func (e *Engine) inShards(ctx context.Context, k Key, fields []store.Field, shards ...store.Write) error {
	if !e.mayEnd(k) {
		return e.inPeriod(ctx, k, nil, fields, shards...)
	}
	refs := e.periodRefs(k)
	periods := len(refs)
	for _, w := range shards {
		refs = append(refs, w.Ref)
	}
	got, err := e.Store.Get(ctx, refs...)
	if err != nil {
		return err
	}
	s, err := e.listing(k, got.ReadTime, got.Docs[:periods], store.Doc{})
	if err != nil {
		return err
	}
	var left []store.Write
	lost := false
	for i, doc := range got.Docs[periods:] {
		listed := slices.ContainsFunc(s.sharded, func(name string) bool { return e.shardRef(k, name) == doc.Ref })
		switch {
		case doc.Ref.Collection != e.Prefix+runsCollection:
		case listed && !doc.Exists:
			lost = true
		case !listed && doc.Exists:
			left = append(left, store.DeleteIf(doc.Ref, doc.Version))
			if shards[i].Op != store.OpMerge {
				err = store.ErrConflict // it was decided on what is deleted now
			}
		}
	}
	if lost { // a shard will be there again, and its runs are not
		fields = append(slices.Clone(fields), store.F(true, "lost"))
	}
	if len(left) > 0 {
		if _, deleted := e.Store.Apply(ctx, left...); deleted != nil || err != nil {
			return errors.Join(deleted, err)
		}
	}
	_, err = e.Store.Apply(ctx, append(slices.Clone(shards), store.IfUnchanged(got.Docs[0], fields...))...)
	if errors.Is(err, store.ErrTooLarge) { // a full one is not deleted
		return e.inPeriod(ctx, k, nil, fields, shards...)
	}
	return err
}

// documents returns those that have reports. Of two copies of a report the one in the later document
// counts: those that a full document continues in come last.
func (s *snapshot) documents() []*store.Doc {
	var docs []*store.Doc
	for i := range s.periods {
		docs = append(docs, &s.periods[i])
	}
	for i := range s.shards {
		docs = append(docs, &s.shards[i])
	}
	second := func(d *store.Doc) int {
		if strings.HasSuffix(d.Ref.ID, fullDocument) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(docs, func(a, b *store.Doc) int { return cmp.Or(second(a)-second(b), strings.Compare(a.Ref.ID, b.Ref.ID)) })
	return docs
}

// recordedWhole reports whether a report was recorded with its entities, perhaps where another definition has
// put it. Then it is not recorded without them.
func (e *Engine) recordedWhole(ctx context.Context, k Key, c wire.Completion) (bool, error) {
	got, err := e.Store.Get(ctx, e.periodRefs(k)...)
	if err != nil {
		return false, err
	}
	s, err := e.listing(k, got.ReadTime, got.Docs, store.Doc{})
	if err != nil {
		return false, err
	}
	shards, err := e.getShards(ctx, s)
	r := newKept(&c)
	return slices.ContainsFunc(append(shards, got.Docs...), func(d store.Doc) bool { return r.group(d)[r.id] != nil }), err
}

// getShards reads the shards that a period lists.
func (e *Engine) getShards(ctx context.Context, s *snapshot) ([]store.Doc, error) {
	var refs []store.Ref
	for _, name := range s.sharded {
		refs = append(refs, e.shardRef(s.key, name))
	}
	return e.get(ctx, s.key, refs)
}

// readShards keeps those shards that the period lists.
func (s *snapshot) readShards(e *Engine, shards []store.Doc) error {
	listed, kept := pipeline.SetOf(s.sharded), e.kept()
	if !e.Shadow {
		kept -= fresh
	}
	expired := s.now.After(s.key.Transition.Calendar().Start(s.key.Period).Add(kept))
	for _, doc := range shards {
		_, name, _ := strings.Cut(doc.Ref.ID, "~")
		switch {
		case !listed[name]:
		case doc.Exists:
			s.shards = append(s.shards, doc)
		case !expired:
			return fmt.Errorf("%s is listed in %s and gone: nothing is decided without it", doc.Ref, e.periodRef(s.key))
		default:
			s.lost = true
		}
	}
	return nil
}

// shardsEnd are the writes by which the shards get the end of their period.
func (s *snapshot) shardsEnd(end store.Field) (writes []store.Write) {
	for _, doc := range s.shards {
		writes = append(writes, store.MergeIf(doc.Ref, doc.Version, end))
	}
	return writes
}
