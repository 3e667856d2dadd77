package cycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// The room of a period. Firestore takes 1 MiB (1,048,576 bytes) a document
// (https://cloud.google.com/firestore/quotas). It counts a text as its UTF-8 bytes and 1, a
// field as its name and its value, and a map as 32 bytes and its fields
// (https://firebase.google.com/docs/firestore/storage-size; store.Size).
//
// A period has three documents, so that what one kind of entry fills leaves the others
// their room:
//
//	{period}           everything, as long as it has room
//	{period}~overflow  successful runs without their entities, once the first is full; of
//	                   other reports maxBadBytes at most
//	{period}~control   batches, holds, schedule, repaired_at and summaries, once the first
//	                   is full: no report
//
// A recorded run takes 190 bytes at least, so both documents of reports hold 11,037 runs at
// most. Each causes one batch at most. Its id takes 51 bytes in batches, if the transition's id
// has 25 bytes at most and the mode's name 12. Its key takes 19 bytes in the summary, in two modes
// at most: 11,037 × (51 + 2 × 19) = 982,293 bytes. The control document has 66,283 bytes left for
// holds and the schedule. Above maxProjected processors a key takes 11 bytes in a summary, which also
// names all processors. With the longest names that a definition may have, and two runs of each of
// 10,000 processors, a summary has 762,364 bytes. One that fits nowhere is not written: evaluations
// then read the published batches.
//
// Beyond these bounds, failed, unexpected and other reports that cannot count are dropped, the
// oldest first. When the first document is full, a success that repeats the newest one in every
// respect is dropped too. Nothing else is: no success that could count, no batch, no hold, no
// schedule.
const (
	maxBad      = 20        // reports of one processor that did not succeed
	maxUnknown  = 50        // reports of processors that the pipeline does not know
	maxBadBytes = 128 << 10 // of both kinds in one document
)

// kept is a recorded report.
type kept struct {
	processor string // "" of an unexpected one
	id, text  string
	run       policy.Run
	rank      int // 0 for the newest of its processor
}

func newKept(c *wire.Completion) kept {
	id, text := c.Record()
	return kept{processor: c.Processor, id: id, text: text, run: policy.Run{Key: id, Completion: c}}
}

// size is what Firestore counts for it.
func (k kept) size() int { return len(k.id) + 1 + len(k.text) + 1 }

// path returns the place of its processor's reports in a document.
func (k kept) path() []string {
	if k.processor == "" { // what a stranger calls itself never names a field
		return []string{"unexpected"}
	}
	return []string{"runs", k.processor}
}

func (k kept) group(doc store.Doc) map[string]any {
	data := doc.Data
	for _, name := range k.path() {
		data, _ = data[name].(map[string]any)
	}
	return data
}

func (k kept) within() bool {
	return k.rank < maxBad || k.processor == "" && k.rank < maxUnknown
}

// canCount reports whether a report could ever complete a processor.
func canCount(c *wire.Completion) bool { return c.Processor != "" && c.Status.Counts() }

// reports returns the recorded reports of a document, expected and unexpected ones.
func (e *Engine) reports(doc store.Doc) ([]kept, error) {
	var out []kept
	f := &fields{doc: doc}
	add := func(processor string, group map[string]any) {
		for _, r := range f.group(nil, processor, group, &e.seen) {
			text, _ := group[r.Key].(string)
			out = append(out, kept{processor: processor, id: r.Key, text: text, run: r})
		}
	}
	for processor, group := range f.maps("runs") {
		add(processor, group)
	}
	add("", field[map[string]any](f, "unexpected"))
	return out, f.err
}

// withoutCopies leaves out what stands in a later document, too: a report that was redelivered when
// the first one had room again.
func withoutCopies(reports [][]kept) [][]kept {
	later := map[string]bool{}
	for i := len(reports) - 1; i >= 0; i-- {
		if len(later) > 0 {
			reports[i] = slices.DeleteFunc(reports[i], func(k kept) bool {
				bare := k.id
				if len(k.run.Entities) > 0 {
					bare, _ = k.run.WithoutEntities().Record()
				}
				return later[k.processor+"/"+k.id] || later[k.processor+"/"+bare]
			})
		}
		for _, k := range reports[i] {
			if i > 0 {
				later[k.processor+"/"+k.id] = true
			}
		}
	}
	return reports
}

// surplus returns those of some reports that are beyond the bounds of what cannot count, a
// document being allowed as many bytes. The newest of each processor are kept first.
func surplus(reports []kept, bytes int) []kept {
	bad := slices.DeleteFunc(slices.Clone(reports), func(k kept) bool { return canCount(k.run.Completion) })
	slices.SortFunc(bad, func(a, b kept) int {
		return cmp.Or(strings.Compare(a.processor, b.processor), policy.Older(b.run, a.run))
	})
	for i := range bad {
		if i > 0 && bad[i].processor == bad[i-1].processor {
			bad[i].rank = bad[i-1].rank + 1
		}
	}
	slices.SortFunc(bad, func(a, b kept) int { return cmp.Or(a.rank-b.rank, policy.Older(b.run, a.run)) })
	return slices.DeleteFunc(bad, func(k kept) bool {
		if !k.within() || k.size() > bytes {
			return false
		}
		bytes -= k.size()
		return true
	})
}

// rewritten returns the fields by which a document loses some reports and gains others. What is
// left of a processor's reports takes their place.
func rewritten(doc store.Doc, drop []kept, add ...kept) []store.Field {
	var fields []store.Field
	groups, first := map[string]map[string]any{}, map[string]kept{}
	for _, k := range drop {
		if groups[k.processor] == nil {
			groups[k.processor], first[k.processor] = maps.Clone(k.group(doc)), k
		}
		delete(groups[k.processor], k.id)
	}
	for _, k := range add {
		if group := groups[k.processor]; group != nil {
			group[k.id] = k.text
		} else {
			fields = append(fields, store.F(k.text, append(k.path(), k.id)...))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		fields = append(fields, store.F(groups[name], first[name].path()...))
	}
	if len(drop) > 0 {
		before, _ := doc.Data["dropped"].(int64)
		fields = append(fields, store.F(before+int64(len(drop)), "dropped"))
	}
	return fields
}

// tally counts what a document has of reports that cannot count.
type tally struct {
	doc   *store.Doc
	of    map[string]int // by processor
	bytes int
}

func (t *tally) add(k kept) {
	if !canCount(k.run.Completion) {
		if t.of == nil {
			t.of = map[string]int{}
		}
		t.of[k.processor]++
		t.bytes += k.size()
	}
}

// crowded reports whether so many are there that some are to be dropped: twice the bound
// of a processor, or all the bytes. Half of it stays, so that this is seldom.
func (t tally) crowded() bool {
	for name, n := range t.of {
		if n > 2*maxUnknown || name != "" && n > 2*maxBad {
			return true
		}
	}
	return t.bytes > maxBadBytes
}

// trim drops the oldest of a document's reports that cannot count. It is tried once:
// the process that wrote meanwhile, or evaluates next, does it.
func (c *convergence) trim(ctx context.Context, doc store.Doc) error {
	c.trimmed = true
	reports, err := c.reports(doc)
	if err != nil {
		return err
	}
	drop := surplus(reports, maxBadBytes/2)
	if len(drop) == 0 {
		return nil
	}
	err = c.apply(ctx, store.MergeIf(doc.Ref, doc.Version, rewritten(doc, drop)...))
	if err == nil {
		c.logDropped(ctx, c.key, len(drop))
	}
	return err
}

func (e *Engine) logDropped(ctx context.Context, key Key, n int) {
	e.Log.WarnContext(ctx, fmt.Sprintf("the period has no room for %d reports that cannot count: it keeps the newest", n),
		"transition", key.Transition.ID, "period", string(key.Period))
}

// recordInFull records a report where the period's first document has no room.
func (e *Engine) recordInFull(ctx context.Context, key Key, c wire.Completion) error {
	if canCount(&c) && !policy.Whole(c) {
		if recorded, err := e.recordedWhole(ctx, key, c); err != nil || recorded {
			return err
		}
		err := e.merge(ctx, key, true, c.WithoutEntities())
		if !errors.Is(err, store.ErrTooLarge) {
			return err
		}
	}
	return untilNoRival(key, func() error { return e.replace(ctx, key, c) })
}

// untilNoRival repeats a write while other processes are faster.
func untilNoRival(k Key, write func() error) error {
	for range maxSteps {
		if err := write(); !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
			return err
		}
	}
	return fmt.Errorf("%s: no end after %d steps", k, maxSteps)
}

// replace records a report in place of older ones that cannot count, by one
// compare-and-set on what it has read.
func (e *Engine) replace(ctx context.Context, key Key, c wire.Completion) error {
	refs := []store.Ref{e.periodRef(key), e.overflowRef(key)}
	sharded := e.shards(key.Transition) > 1
	if sharded {
		refs = []store.Ref{e.shardRef(key, e.shard(key, c.Processor, false)), e.shardRef(key, e.shard(key, c.Processor, true))}
	}
	got, err := e.Store.Get(ctx, refs...)
	if err != nil {
		return err
	}
	bounds := []int{maxBadBytes / 2}
	if canCount(&c) {
		bounds = append(bounds, 0) // it goes before everything that cannot
		repeats, err := e.repeats(ctx, key, got.Docs, c)
		if err != nil || repeats {
			return err
		}
	}
	for _, bytes := range bounds {
		for i, doc := range got.Docs {
			c := c
			if i > 0 {
				c = c.WithoutEntities()
			}
			k := newKept(&c)
			if k.group(doc)[k.id] != nil {
				return nil // it is redelivered
			}
			reports, err := e.reports(doc)
			if err != nil {
				return err
			}
			drop := surplus(append(reports, k), bytes)
			if slices.ContainsFunc(drop, func(d kept) bool { return d.processor == k.processor && d.id == k.id }) {
				e.logDropped(ctx, key, 1) // it is older than all that are kept
				return nil
			}
			write := store.IfUnchanged(doc, append(rewritten(doc, drop, k), e.stays(c.EventTime))...)
			if sharded {
				err = e.inShards(ctx, key, append(e.touching(e.shard(key, c.Processor, i > 0)), e.stays(c.EventTime)), write)
			} else {
				_, err = e.Store.Apply(ctx, write)
			}
			if err == nil && len(drop) > 0 {
				e.logDropped(ctx, key, len(drop))
			}
			if !errors.Is(err, store.ErrTooLarge) {
				return err
			}
		}
	}
	if !canCount(&c) {
		e.logDropped(ctx, key, 1)
		return nil
	}
	return fmt.Errorf("%s and %s are full of runs that count: %w", refs[0], refs[1], store.ErrTooLarge)
}

// repeats reports whether a success says nothing that the newest recorded run of its
// processor does not say.
func (e *Engine) repeats(ctx context.Context, key Key, docs []store.Doc, c wire.Completion) (bool, error) {
	if !policy.Whole(c) {
		return false, nil
	}
	k := newKept(&c)
	var newest policy.Run
	for _, doc := range docs {
		f := &fields{doc: doc}
		for _, r := range f.group(nil, c.Processor, k.group(doc), &e.seen) {
			if f.err == nil && (newest.Completion == nil || policy.Older(newest, r) < 0) {
				newest = r
			}
		}
		if f.err != nil {
			return false, f.err
		}
	}
	if newest.Completion == nil || !policy.Repeats(key.Transition, key.Period, present(key.Transition, newest), present(key.Transition, k.run)) {
		return false, nil
	}
	e.Log.WarnContext(ctx, "the period has no room for a success that repeats another", "transition", key.Transition.ID, "period", string(key.Period),
		"processor", c.Processor, "execution_id", c.ExecutionID, "repeats", newest.ExecutionID)
	return true, nil
}

// overflows reports whether a document with the period's reports is full.
func (s *snapshot) overflows() bool {
	return slices.ContainsFunc(s.tallies, func(t tally) bool { return t.doc.Exists && strings.HasSuffix(t.doc.Ref.ID, fullDocument) })
}

// full says what a period has no room for while any of its cycles is neither published nor
// closed, "" otherwise. That reports which cannot count were dropped leaves room for the rest.
func (s *snapshot) full() string {
	ended := func(st Status) bool { return st.State == string(StatePublished) || st.State == string(policy.Closed) }
	if !s.overflows() || !slices.ContainsFunc(s.describe(), func(st Status) bool { return !ended(st) }) {
		return ""
	}
	return "a document of it is full: runs are recorded without their entities, and what repeats the newest run is not recorded"
}
