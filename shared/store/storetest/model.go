package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/store"
)

var modelTests = []test{
	{"random_commits_do_what_a_simple_model_does", againstModel},
}

var modelIDs = []string{"a", "b", "c"}

// model is what the documents of one run must be: plain data, changed in place.
type model map[string]modelDoc

type modelDoc struct {
	data    map[string]any
	version store.Version // 0 if missing
}

func againstModel(t *testing.T, b bench) {
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		b := bench{ctx: b.ctx, t: rt, store: b.store, collection: fmt.Sprint(b.collection, "-", runs)}
		m, last := model{}, store.Version(0)
		for range rapid.IntRange(1, 8).Draw(rt, "commits") {
			last = step(rt, b, m, last)
		}
		var ids []string
		for _, id := range modelIDs {
			if m[id].version != 0 {
				ids = append(ids, id)
			}
		}
		b.equal(b.scan("a", "z"), ids)
	})
}

// step makes one random commit and compares the store with the model. It returns
// the latest version so far.
func step(rt *rapid.T, b bench, m model, last store.Version) store.Version {
	ids := rapid.SliceOfNDistinct(rapid.SampledFrom(modelIDs), 1, len(modelIDs), rapid.ID).Draw(rt, "ids")
	var writes []store.Write
	for _, id := range ids {
		writes = append(writes, drawWrite(rt, b.ref(id), m[id]))
	}
	versions, err := b.store.Apply(b.ctx, writes...)
	if fits := m.failures(writes); len(fits) > 0 || err != nil {
		if !slices.ContainsFunc(fits, func(want error) bool { return errors.Is(err, want) }) {
			rt.Fatalf("Apply(%+v) = %v, want one of %v", writes, err, fits)
		}
		m.compare(b)
		return last
	}
	newest := last
	for i, w := range writes {
		before := m[w.Ref.ID]
		after := before.apply(w, versions[i])
		want := "a new version"
		if w.Op == store.OpDeleteIf {
			want = "version 0"
		} else if before.version != 0 && cmp.Equal(before.data, after.data, exactly) {
			want = "the same version"
		}
		got := "a new version"
		switch v := versions[i]; {
		case v == 0:
			got = "version 0"
		case v == before.version:
			got = "the same version"
		case v <= last:
			got = "an old version"
		}
		if got != want {
			rt.Fatalf("%s %s left version %d after %d, which is %s: want %s", w.Op, w.Ref, versions[i], before.version, got, want)
		}
		m[w.Ref.ID] = after
		newest = max(newest, versions[i])
	}
	m.compare(b)
	return newest
}

// compare reads all documents and compares them with the model.
func (m model) compare(b bench) {
	b.t.Helper()
	for i, doc := range b.snapshot(b.refs(modelIDs...)...).Docs {
		want := m[modelIDs[i]]
		if doc.Version != want.version || doc.Exists != (want.version != 0) {
			b.t.Fatalf("%s: version %d, exists %v; want %d", doc.Ref, doc.Version, doc.Exists, want.version)
		}
		if doc.Exists {
			b.equal(doc.Data, want.data)
		}
	}
}

func (m model) failures(writes []store.Write) []error {
	var errs []error
	for _, w := range writes {
		doc := m[w.Ref.ID]
		switch w.Op {
		case store.OpCreate:
			if doc.version != 0 {
				errs = append(errs, store.ErrExists)
			}
		case store.OpMergeIf, store.OpDeleteIf:
			if doc.version == 0 || doc.version != w.Version {
				errs = append(errs, store.ErrConflict)
			}
		}
	}
	return errs
}

func (d modelDoc) apply(w store.Write, v store.Version) modelDoc {
	if w.Op == store.OpDeleteIf {
		return modelDoc{}
	}
	after := modelDoc{data: map[string]any{}, version: v}
	if d.data != nil {
		after.data = store.Clone(d.data)
	}
	for _, f := range w.Fields {
		m := after.data
		for _, name := range f.Path[:len(f.Path)-1] {
			inner, ok := m[name].(map[string]any)
			if !ok {
				inner = map[string]any{}
				m[name] = inner
			}
			m = inner
		}
		name := f.Path[len(f.Path)-1]
		value := f.Value
		if u, ok := value.(store.UnionValue); ok {
			list := []any{}
			if old, ok := m[name].([]any); ok {
				list = slices.Clone(old)
			}
			for _, v := range u.Values {
				if !slices.Contains(list, v) {
					list = append(list, v)
				}
			}
			value = list
		}
		m[name] = value
	}
	return after
}

func drawWrite(rt *rapid.T, ref store.Ref, doc modelDoc) store.Write {
	version := doc.version
	if rapid.IntRange(0, 4).Draw(rt, "stale") == 0 {
		version = rapid.SampledFrom([]store.Version{0, 1, doc.version + 1}).Draw(rt, "version")
	}
	switch rapid.SampledFrom([]store.Op{store.OpCreate, store.OpMerge, store.OpMerge, store.OpMergeIf, store.OpMergeIf, store.OpDeleteIf}).Draw(rt, "op") {
	case store.OpCreate:
		return store.Create(ref, drawFields(rt, 0)...)
	case store.OpMergeIf:
		return store.MergeIf(ref, version, drawFields(rt, 1)...)
	case store.OpDeleteIf:
		return store.DeleteIf(ref, version)
	}
	return store.Merge(ref, drawFields(rt, 1)...)
}

var modelNames = rapid.SampledFrom([]string{"a", "b", "c.d", "`"})

// drawFields draws fields whose paths do not overlap: their first names differ, or
// else they are of the same length.
func drawFields(rt *rapid.T, atLeast int) []store.Field {
	depth := rapid.IntRange(1, 3).Draw(rt, "depth")
	paths := rapid.SliceOfNDistinct(rapid.SliceOfN(modelNames, depth, depth), atLeast, 3,
		func(path []string) string { return fmt.Sprintf("%q", path) }).Draw(rt, "paths")
	var fields []store.Field
	for _, path := range paths {
		fields = append(fields, store.F(drawValue(rt), path...))
	}
	return fields
}

func drawValue(rt *rapid.T) any {
	if rapid.IntRange(0, 3).Draw(rt, "union") == 0 {
		return store.Union(rapid.SliceOfN(modelScalars, 0, 3).Draw(rt, "added")...)
	}
	return modelValues(2).Draw(rt, "value")
}

var modelScalars = rapid.OneOf(
	rapid.Just[any](nil),
	rapid.Map(rapid.Bool(), func(v bool) any { return v }),
	rapid.Map(rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 2)), func(v int64) any { return v }),
	// Halves, so that no float equals an integer: what a union makes of these is
	// tested by example.
	rapid.Map(rapid.Int32(), func(v int32) any { return float64(v) + 0.5 }),
	rapid.Map(rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "x", "y"})), func(v string) any { return v }),
	rapid.Map(rapid.Int64Range(-1e15, 4e15), func(us int64) any { return time.UnixMicro(us).UTC() }),
)

func modelValues(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{
		modelScalars,
		rapid.Map(rapid.SliceOfN(modelScalars, 0, 3), func(v []any) any { return v }),
	}
	if depth > 0 {
		kinds = append(kinds, rapid.Map(rapid.MapOfN(modelNames, modelValues(depth-1), 0, 3), func(v map[string]any) any { return v }))
	}
	return rapid.OneOf(kinds...)
}
