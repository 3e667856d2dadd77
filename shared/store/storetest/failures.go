package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

var failureTests = []test{
	{"ended_contexts", endedContexts},
	{"too_large", tooLarge},
	{"refused_values_name_the_field", refusedValues},
	{"refused_paths", refusedPaths},
	{"refused_documents", refusedDocs},
	{"refused_calls", refusedCalls},
	{"errors_name_the_document", errorsName},
}

func endedContexts(t *testing.T, b bench) {
	b.create("doc", store.F(1, "n"))
	canceled, cancel := context.WithCancel(b.ctx)
	cancel()
	late, cancel := context.WithDeadline(b.ctx, time.Unix(0, 0))
	defer cancel()
	for want, ctx := range map[error]context.Context{context.Canceled: canceled, context.DeadlineExceeded: late} {
		if snap, err := b.store.Get(ctx, b.ref("doc")); !errors.Is(err, want) {
			t.Errorf("Get = %v, %v; want %v", snap, err, want)
		}
		for _, w := range []store.Write{
			store.Create(b.ref("new"), store.F(1, "n")),
			store.Merge(b.ref("doc"), store.F(2, "n")),
			store.DeleteIf(b.ref("doc"), b.get("doc").Version),
		} {
			if versions, err := b.store.Apply(ctx, w); !errors.Is(err, want) {
				t.Errorf("Apply of a %s = %v, %v; want %v", w.Op, versions, err, want)
			}
		}
		for _, from := range []string{"a", "nothing"} {
			var got error
			for doc, err := range b.store.Scan(ctx, b.collection, from, "z") {
				if err == nil {
					t.Errorf("Scan yielded %v", doc)
				}
				got = errors.Join(got, err)
			}
			if !errors.Is(got, want) {
				t.Errorf("Scan from %q: %v, want %v", from, got, want)
			}
		}
	}
	b.data("doc", fields{"n": int64(1)})
	if b.get("new").Exists {
		t.Error("an ended context wrote")
	}
}

func tooLarge(_ *testing.T, b bench) {
	big := func(n int) string { return strings.Repeat("x", n) }
	v := b.create("doc", store.F(big(600_000), "a"), store.F([]any{big(100_000)}, "list"))
	for _, w := range []store.Write{
		store.Create(b.ref("new"), store.F(big(store.MaxDocumentBytes), "a")),
		store.Create(b.ref("new"), store.F(big(600_000), "a"), store.F(big(600_000), "b")),
		store.Create(b.ref("new"), store.F(fields{"a": big(600_000), "b": []any{big(600_000)}}, "m")),
		store.Create(b.ref("new"), store.F(store.Union(big(600_000), big(600_001)), "list")),
		store.Create(b.ref("new"), store.F("x", "a"), store.F(manyFields(30_000), "m")),
		store.Merge(b.ref("new"), store.F(big(store.MaxDocumentBytes-89+1), "a")), // the limit of a field
		store.Merge(b.ref("doc"), store.F(big(600_000), "b")),
		store.Merge(b.ref("doc"), store.F(store.Union(big(400_000)), "list")),
		store.MergeIf(b.ref("doc"), v, store.F(big(600_000), "m", "b")),
	} {
		b.refuses(store.ErrTooLarge, w)
	}
	b.apply(store.Merge(b.ref("doc"), store.F(big(700_000), "a"))) // it takes the place of the other
	b.create("new", store.F(big(1_000_000), "a"))
}

// manyFields is large by its names.
func manyFields(n int) map[string]any {
	m := make(map[string]any, n)
	for i := range n {
		m[fmt.Sprintf("field-with-a-rather-long-name-%08d", i)] = nil
	}
	return m
}

func refusedValues(t *testing.T, b bench) {
	type named string
	for _, c := range []struct {
		field string // as it must appear in the error
		bad   store.Field
	}{
		{"a.b", store.F(struct{}{}, "a", "b")},
		{"a", store.F(int32(1), "a")},
		{"a", store.F(uint64(1), "a")},
		{"a", store.F(float32(1), "a")},
		{"a", store.F([]byte("x"), "a")},
		{"a", store.F([]string{"x"}, "a")},
		{"a", store.F(map[string]string{"k": "v"}, "a")},
		{"a", store.F(named("x"), "a")},
		{"a", store.F(new(int), "a")},
		{"a", store.F(errors.New("x"), "a")},
		{"a", store.F(func() {}, "a")},
		{"a", store.F(time.Second, "a")},
		{"a", store.F("\xff", "a")},
		{"a", store.F(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), "a")},
		{"a", store.F(time.Date(0, 12, 31, 0, 0, 0, 0, time.UTC), "a")},
		{"a.[1]", store.F([]any{1, []any{}}, "a")},
		{"a.[0]", store.F([]any{fields{}}, "a")},
		{"a.[0]", store.F([]any{store.ServerTime}, "a")},
		{"a.[0]", store.F([]any{store.Union(1)}, "a")},
		{"a.[2]", store.F(store.Union(1, 2, fields{}), "a")},
		{"a.[0]", store.F(store.Union(store.ServerTime), "a")},
		{"a.k.l", store.F(fields{"fine": 1, "k": fields{"l": struct{}{}}}, "a")},
		{"a.k.[0]", store.F(fields{"k": []any{struct{}{}}}, "a")},
		{"a.", store.F(fields{"": 1}, "a")},
		{"a.__k__", store.F(fields{"__k__": 1}, "a")},
	} {
		v := b.get("doc").Version
		if v == 0 {
			v = b.create("doc", store.F(1, "kept"))
		}
		for _, w := range []store.Write{
			store.Create(b.ref("new"), c.bad),
			store.Merge(b.ref("new"), c.bad, store.F(1, "fine")),
			store.MergeIf(b.ref("doc"), v, store.F(1, "fine"), c.bad),
		} {
			err := b.refuses(store.ErrInvalid, w)
			if !strings.Contains(err.Error(), fmt.Sprintf("%q", c.field)) || !strings.Contains(err.Error(), w.Ref.String()) {
				t.Errorf("%s of %#v: error %q does not name field %q of %s", w.Op, c.bad.Value, err, c.field, w.Ref)
			}
		}
	}
}

func refusedPaths(_ *testing.T, b bench) {
	for _, bad := range [][]store.Field{
		{store.F(1)},
		{store.F(1, "")},
		{store.F(1, "a", "")},
		{store.F(1, "a", "", "b")},
		{store.F(1, "\xff")},
		{store.F(1, "__name__")},
		{store.F(1, "a", "__b\nb__")},
		{store.F(1, strings.Repeat("n", 1501))},
		{store.F(1, "a"), store.F(2, "a")},
		{store.F(1, "a"), store.F(2, "z"), store.F(2, "a", "b")},
		{store.F(1, "a", "b", "c"), store.F(2, "a.b"), store.F(2, "a", "b")},
		{store.F(store.ServerTime, "a"), store.F(2, "a", "b")},
		{store.F(fields{"b": 1}, "a"), store.F(store.Union(2), "a", "b")},
	} {
		b.refuses(store.ErrInvalid, store.Create(b.ref("doc"), bad...))
		b.refuses(store.ErrInvalid, store.Merge(b.ref("doc"), bad...))
		b.refuses(store.ErrInvalid, store.MergeIf(b.ref("doc"), 1, bad...))
	}
	// Neighbours, however alike, do not overlap.
	b.create("doc", store.F(1, "a", "b"), store.F(2, "a.b"), store.F(3, "a", "b2"), store.F(4, "a", "c"), store.F(5, "ab"))
	b.data("doc", fields{"a": fields{"b": int64(1), "b2": int64(3), "c": int64(4)}, "a.b": int64(2), "ab": int64(5)})
}

func refusedDocs(t *testing.T, b bench) {
	for _, part := range []string{"", "/", "a/b", ".", "..", "__x__", "____", "\xff", strings.Repeat("n", 1501)} {
		for _, ref := range []store.Ref{{Collection: part, ID: "x"}, b.ref(part)} {
			if _, err := b.store.Get(b.ctx, b.ref("fine"), ref); !errors.Is(err, store.ErrInvalid) {
				t.Errorf("Get(%q): %v", ref, err)
			}
			for _, w := range []store.Write{
				store.Create(ref, store.F(1, "n")), store.Merge(ref, store.F(1, "n")),
				store.MergeIf(ref, 1, store.F(1, "n")), store.DeleteIf(ref, 1),
			} {
				if _, err := b.store.Apply(b.ctx, store.Create(b.ref("fine")), w); !errors.Is(err, store.ErrInvalid) {
					t.Errorf("%s %q: %v", w.Op, ref, err)
				}
			}
			for _, bounds := range [][2]string{{ref.ID, "z"}, {"a", ref.ID}} {
				var got error
				for _, err := range b.store.Scan(b.ctx, ref.Collection, bounds[0], bounds[1]) {
					got = errors.Join(got, err)
				}
				if !errors.Is(got, store.ErrInvalid) {
					t.Errorf("Scan(%q, %q, %q): %v", ref.Collection, bounds[0], bounds[1], got)
				}
			}
		}
	}
	if b.get("fine").Exists {
		t.Error("a refused commit wrote")
	}
	b.create(strings.Repeat("n", 1500))
}

func refusedCalls(t *testing.T, b bench) {
	if _, err := b.store.Get(b.ctx); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("Get of nothing: %v", err)
	}
	if _, err := b.store.Apply(b.ctx); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("Apply of nothing: %v", err)
	}
	a, c := b.ref("a"), b.ref("c")
	for name, writes := range map[string][]store.Write{
		"document_twice":       {store.Merge(a, store.F(1, "n")), store.Create(c), store.Merge(a, store.F(1, "m"))},
		"created_and_deleted":  {store.Create(a), store.DeleteIf(a, 1)},
		"merge_of_nothing":     {store.Merge(a)},
		"merge_if_of_nothing":  {store.MergeIf(a, 1)},
		"delete_with_fields":   {{Op: store.OpDeleteIf, Ref: a, Version: 1, Fields: []store.Field{store.F(1, "n")}}},
		"unknown_operation":    {{Op: 99, Ref: a, Fields: []store.Field{store.F(1, "n")}}},
		"version_below_zero":   {store.MergeIf(a, -1, store.F(1, "n"))},
		"version_out_of_range": {store.DeleteIf(a, 1<<62)},
	} {
		if err := b.refuses(store.ErrInvalid, writes...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func errorsName(t *testing.T, b bench) {
	v := b.create("doc", store.F(1, "n"))
	for want, w := range map[error]store.Write{
		store.ErrExists:   store.Create(b.ref("doc")),
		store.ErrConflict: store.MergeIf(b.ref("doc"), v-1, store.F(2, "n")),
		store.ErrTooLarge: store.Merge(b.ref("doc"), store.F(strings.Repeat("x", 1<<21), "n")),
	} {
		if err := b.refuses(want, w); !strings.Contains(err.Error(), b.ref("doc").String()) {
			t.Errorf("error %q does not name the document", err)
		}
	}
}
