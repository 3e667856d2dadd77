package storetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/store"
)

var commitTests = []test{
	{"applied_version_is_the_version_read", appliedVersion},
	{"one_commit_has_one_version", oneCommitOneVersion},
	{"merge_if_version_answers", mergeIfAnswers},
	{"delete_if_version_answers", deleteIfAnswers},
	{"versions_grow_across_deletes", recreate},
	{"failing_write_undoes_the_others", atomicity},
	{"write_without_effect_keeps_the_version", withoutEffect},
}

func appliedVersion(t *testing.T, b bench) {
	var last store.Version
	check := func(step string, v store.Version) {
		t.Helper()
		if got := b.get("doc").Version; got != v {
			t.Errorf("%s: read version %d, applied %d", step, got, v)
		}
		if v <= last {
			t.Errorf("%s: version %d after %d", step, v, last)
		}
		last = v
	}
	check("create", b.create("doc", store.F(1, "n")))
	check("merge", b.apply(store.Merge(b.ref("doc"), store.F(2, "n")))[0])
	check("merge if", b.apply(store.MergeIf(b.ref("doc"), last, store.F(3, "n")))[0])
	check("server time", b.apply(store.Merge(b.ref("doc"), store.F(store.ServerTime, "at")))[0])
	check("union", b.apply(store.Merge(b.ref("doc"), store.F(store.Union("x"), "list")))[0])
	if v := b.apply(store.DeleteIf(b.ref("doc"), last))[0]; v != 0 {
		t.Errorf("version %d of a deleted document, want 0", v)
	}
}

func oneCommitOneVersion(t *testing.T, b bench) {
	b.create("b", store.F(1, "n"))
	c := b.create("c", store.F(1, "n"))
	versions := b.apply(
		store.Create(b.ref("a"), store.F(1, "n")),
		store.Merge(b.ref("b"), store.F(2, "n")),
		store.MergeIf(b.ref("c"), c, store.F(2, "n")),
	)
	if versions[0] != versions[1] || versions[1] != versions[2] {
		t.Errorf("versions of one commit differ: %v", versions)
	}
	for i, doc := range b.snapshot(b.refs("a", "b", "c")...).Docs {
		if doc.Version != versions[i] {
			t.Errorf("%s: read version %d, applied %d", doc.Ref, doc.Version, versions[i])
		}
	}
}

func mergeIfAnswers(_ *testing.T, b bench) {
	old := b.create("doc", store.F(1, "n"), store.F("kept", "other"))
	v := b.apply(store.MergeIf(b.ref("doc"), old, store.F(2, "n")))[0]
	b.data("doc", map[string]any{"n": int64(2), "other": "kept"})
	for _, wrong := range []store.Version{0, old, v - 1, v + 1} {
		b.refuses(store.ErrConflict, store.MergeIf(b.ref("doc"), wrong, store.F(3, "n")))
	}
	for _, any := range []store.Version{0, v} {
		b.refuses(store.ErrConflict, store.MergeIf(b.ref("missing"), any, store.F(3, "n")))
	}
	// Not even a write without effect is let through.
	b.refuses(store.ErrConflict, store.MergeIf(b.ref("doc"), old, store.F(2, "n")))
}

func deleteIfAnswers(_ *testing.T, b bench) {
	old := b.create("doc", store.F(1, "n"))
	v := b.apply(store.Merge(b.ref("doc"), store.F(2, "n")))[0]
	for _, wrong := range []store.Version{0, old, v - 1, v + 1} {
		b.refuses(store.ErrConflict, store.DeleteIf(b.ref("doc"), wrong))
	}
	for _, any := range []store.Version{0, v} {
		b.refuses(store.ErrConflict, store.DeleteIf(b.ref("missing"), any))
	}
	b.apply(store.DeleteIf(b.ref("doc"), v))
	b.equal(b.get("doc"), store.Doc{Ref: b.ref("doc")})
	b.refuses(store.ErrConflict, store.DeleteIf(b.ref("doc"), v))
}

func recreate(t *testing.T, b bench) {
	last := store.Version(0)
	for i := range 50 {
		v := b.create("doc", store.F(i, "n"))
		if v <= last {
			t.Fatalf("round %d: version %d after %d", i, v, last)
		}
		b.data("doc", map[string]any{"n": int64(i)}) // nothing of the former one
		if last > 0 {
			b.refuses(store.ErrConflict, store.DeleteIf(b.ref("doc"), last))
		}
		b.apply(store.DeleteIf(b.ref("doc"), v))
		last = v
	}
}

func atomicity(t *testing.T, b bench) {
	big := store.F(strings.Repeat("x", 600_000), "second")
	large := b.create("large", store.F(strings.Repeat("x", 600_000), "first"))
	stale := b.create("there", store.F(0, "n"))
	there := b.apply(store.Merge(b.ref("there"), store.F(1, "n")))[0]
	toMerge := b.create("to-merge", store.F(1, "n"))
	toDelete := b.create("to-delete", store.F(1, "n"))

	for _, failing := range []struct {
		name  string
		want  error
		write store.Write
	}{
		{"create_of_an_existing_document", store.ErrExists, store.Create(b.ref("there"))},
		{"merge_if_stale", store.ErrConflict, store.MergeIf(b.ref("there"), stale, store.F(2, "n"))},
		{"merge_if_missing", store.ErrConflict, store.MergeIf(b.ref("missing"), there, store.F(2, "n"))},
		{"delete_if_stale", store.ErrConflict, store.DeleteIf(b.ref("there"), stale)},
		{"delete_if_missing", store.ErrConflict, store.DeleteIf(b.ref("missing"), there)},
		{"merge_that_outgrows_the_document", store.ErrTooLarge, store.Merge(b.ref("large"), big)},
		{"merge_if_that_outgrows_the_document", store.ErrTooLarge, store.MergeIf(b.ref("large"), large, big)},
		{"value_of_no_kind", store.ErrInvalid, store.Merge(b.ref("there"), store.F(struct{}{}, "n"))},
	} {
		for _, position := range []int{0, 2, 4} {
			t.Run(fmt.Sprint(failing.name, "_at_", position), func(t *testing.T) {
				b := b
				b.t = t
				writes := []store.Write{
					store.Create(b.ref("new"), store.F(1, "n")),
					store.Merge(b.ref("merged"), store.F(1, "n")),
					store.MergeIf(b.ref("to-merge"), toMerge, store.F(2, "n")),
					store.DeleteIf(b.ref("to-delete"), toDelete),
				}
				writes = append(writes[:position], append([]store.Write{failing.write}, writes[position:]...)...)
				b.refuses(failing.want, writes...)
			})
		}
	}
}

func withoutEffect(t *testing.T, b bench) {
	for _, c := range []struct {
		name    string
		field   store.Field
		changes bool
	}{
		{"same_int", store.F(1, "n"), false},
		{"same_null", store.F(nil, "null"), false},
		{"same_nan", store.F(nan, "nan"), false},
		{"same_empty_map", store.F(fields{}, "empty"), false},
		{"same_map", store.F(fields{"b": fields{"c": "x"}, "a": 1}, "m"), false},
		{"same_nested", store.F("x", "m", "b", "c"), false},
		{"same_list", store.F([]any{"x", "y", 3}, "list"), false},
		{"union_with_present_elements", store.F(store.Union("y", "x"), "list"), false},
		{"union_with_an_equal_number", store.F(store.Union(3.0), "list"), false},
		{"union_with_nothing", store.F(store.Union(), "list"), false},
		{"list_in_another_order", store.F([]any{"y", "x", 3}, "list"), true},
		{"whole_number_as_float", store.F(1.0, "n"), true},
		{"zero_as_negative_zero", store.F(negativeZero, "zero"), true},
		{"new_null", store.F(nil, "new"), true},
		{"new_empty_map", store.F(fields{}, "m", "new"), true},
		{"map_with_less", store.F(fields{"a": 1}, "m"), true},
		{"union_in_a_replaced_map", store.F(fields{"list": store.Union("x")}, "m"), true},
	} {
		for _, op := range []store.Op{store.OpMerge, store.OpMergeIf} {
			ref := b.ref(fmt.Sprint(c.name, "_by_", op))
			v := b.apply(store.Create(ref,
				store.F(1, "n"), store.F(nil, "null"), store.F(nan, "nan"), store.F(0.0, "zero"), store.F(fields{}, "empty"),
				store.F(fields{"a": 1, "b": fields{"c": "x"}}, "m"), store.F([]any{"x", "y", 3}, "list")))[0]
			write := store.Write{Op: op, Ref: ref, Fields: []store.Field{c.field}}
			if op == store.OpMergeIf {
				write.Version = v
			}
			got := b.apply(write)[0]
			if read := b.get(ref.ID).Version; read != got {
				t.Errorf("%s: read version %d, applied %d", ref.ID, read, got)
			}
			if c.changes != (got > v) || got < v {
				t.Errorf("%s: version %d after %d", ref.ID, got, v)
			}
		}
	}
	// A commit that changes one document leaves the version of the other.
	v := b.create("same", store.F(1, "n"))
	versions := b.apply(store.Merge(b.ref("same"), store.F(1, "n")), store.Create(b.ref("other")))
	if versions[0] != v || versions[1] <= v {
		t.Errorf("versions %v after %d", versions, v)
	}
}
