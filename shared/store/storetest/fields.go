package storetest

import (
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

var fieldTests = []test{
	{"map_replaces_the_whole_map_at_its_path", replaceMap},
	{"path_leads_through_what_is_no_map", throughScalar},
	{"path_segments_are_literal", literalPaths},
	{"union_adds_what_is_new_in_order", unions},
	{"server_time_is_the_time_of_the_commit", serverTime},
	{"placeholders_within_a_map", nestedPlaceholders},
	{"create_without_fields", createEmpty},
}

type fields = map[string]any

func replaceMap(_ *testing.T, b bench) {
	b.create("doc",
		store.F(fields{"a": 1, "b": fields{"x": 1, "y": 2}}, "m"),
		store.F("kept", "neighbour"))
	b.apply(store.Merge(b.ref("doc"), store.F(fields{"x": 9}, "m", "b")))
	b.data("doc", fields{"m": fields{"a": int64(1), "b": fields{"x": int64(9)}}, "neighbour": "kept"})

	b.apply(store.Merge(b.ref("doc"), store.F(fields{"z": 1}, "m")))
	b.data("doc", fields{"m": fields{"z": int64(1)}, "neighbour": "kept"})

	b.apply(store.Merge(b.ref("doc"), store.F(fields{}, "m")))
	b.data("doc", fields{"m": fields{}, "neighbour": "kept"})

	v := b.apply(store.Merge(b.ref("doc"), store.F(2, "m", "p", "q"), store.F(3, "m", "p", "r")))[0]
	b.data("doc", fields{"m": fields{"p": fields{"q": int64(2), "r": int64(3)}}, "neighbour": "kept"})

	b.apply(store.MergeIf(b.ref("doc"), v, store.F(fields{"new": fields{}}, "m", "p")))
	b.data("doc", fields{"m": fields{"p": fields{"new": fields{}}}, "neighbour": "kept"})
}

func throughScalar(_ *testing.T, b bench) {
	b.create("doc", store.F(1, "n"), store.F([]any{1}, "list"))
	b.apply(store.Merge(b.ref("doc"), store.F("x", "n", "a", "b"), store.F(store.Union("y"), "list", "c")))
	b.data("doc", fields{"n": fields{"a": fields{"b": "x"}}, "list": fields{"c": []any{"y"}}})
}

func literalPaths(_ *testing.T, b bench) {
	names := []string{
		"a.b", "a b", "ä☃", "😀", "`", "\\", "`a.b`", "a\\`b", "\"'", "*~[]/", "0", "-", "_", "__x", "x__", ".", "..", " ", "\n",
		"phase_2~2026-02-03", "null",
	}
	var nested []store.Field
	want := fields{"a": fields{"b": "not a.b"}}
	inner := fields{}
	for i, name := range names {
		nested = append(nested, store.F(i, name), store.F(i, "deep", name, name))
		want[name] = int64(i)
		inner[name] = fields{name: int64(i)}
	}
	want["deep"] = inner
	b.apply(store.Merge(b.ref("doc"), append(nested, store.F("not a.b", "a", "b"))...))
	b.data("doc", want)

	v := b.get("doc").Version
	b.apply(store.MergeIf(b.ref("doc"), v, nested...), store.Create(b.ref("copy"), append(nested, store.F("not a.b", "a", "b"))...))
	b.data("doc", want)
	b.data("copy", want)
}

func unions(_ *testing.T, b bench) {
	b.apply(store.Merge(b.ref("doc"), store.F(store.Union("c", "a", "c"), "list")))
	b.data("doc", fields{"list": []any{"c", "a"}}) // on a missing document
	b.apply(store.Merge(b.ref("doc"), store.F(store.Union("b", "a", "d", "b"), "list")))
	b.data("doc", fields{"list": []any{"c", "a", "b", "d"}})
	b.apply(store.Merge(b.ref("doc"), store.F(store.Union(1), "m", "list")))
	b.data("doc", fields{"list": []any{"c", "a", "b", "d"}, "m": fields{"list": []any{int64(1)}}})

	instant := time.Date(2026, 2, 3, 4, 5, 6, 7000, time.UTC)
	for _, c := range []struct {
		name      string
		had, want any
		add       []any
	}{
		{"null", nil, []any{}, nil},
		{"not_an_array", 7, []any{"a"}, []any{"a", "a"}},
		{"a_map", fields{"a": 1}, []any{"a"}, []any{"a"}},
		{"duplicates_already_there", []any{"x", "x"}, []any{"x", "x", "y"}, []any{"x", "y"}},
		{"kinds_differ", []any{"1", int64(0)}, []any{"1", int64(0), int64(1), false, nil}, []any{1, false, nil, nil}},
		{"equal_numbers", []any{int64(1)}, []any{int64(1), 2.0}, []any{1.0, 2.0, 2}},
		{"zeros", []any{0.0}, []any{0.0}, []any{0, negativeZero}},
		{"nan", []any{nan}, []any{nan}, []any{nan}},
		{"beyond_53_bits", []any{int64(1<<53 + 1)}, []any{int64(1<<53 + 1), float64(1 << 53)}, []any{float64(1 << 53)}},
		{"beyond_int64", []any{int64(1<<63 - 1)}, []any{int64(1<<63 - 1), float64(1 << 63)}, []any{float64(1 << 63)}},
		{"times", []any{instant}, []any{instant, instant.Add(time.Microsecond)},
			[]any{instant.Add(999), instant.In(time.FixedZone("", 3600)), instant.Add(time.Microsecond)}},
	} {
		b.create(c.name, store.F(c.had, "list"))
		b.apply(store.Merge(b.ref(c.name), store.F(store.Union(c.add...), "list")))
		b.data(c.name, fields{"list": c.want})
	}
}

func serverTime(t *testing.T, b bench) {
	// Firestore stamps in milliseconds, and when it receives a commit, which can be
	// before a read that was quicker.
	const slack = time.Second
	var last time.Time
	for range 10 {
		before := b.snapshot(b.ref("doc")).ReadTime
		b.apply(store.Merge(b.ref("doc"), store.F(store.ServerTime, "at"), store.F(store.ServerTime, "m", "at")))
		snap := b.snapshot(b.ref("doc"))
		at, ok := snap.Docs[0].Data["at"].(time.Time)
		if !ok {
			t.Fatalf("server time read as %T", snap.Docs[0].Data["at"])
		}
		b.equal(snap.Docs[0].Data["m"], fields{"at": at})
		if at.Before(before.Add(-slack)) || at.After(snap.ReadTime) {
			t.Errorf("stamp %v, read before at %v, after at %v", at, before, snap.ReadTime)
		}
		if at.Before(last) {
			t.Errorf("stamp %v after %v", at, last)
		}
		if d := snap.Docs[0].Version.Time().Sub(at); d < 0 || d > slack {
			t.Errorf("stamp %v of version %v", at, snap.Docs[0].Version.Time())
		}
		last = at
	}
	if last.Location() != time.UTC {
		t.Errorf("stamp in %v", last.Location())
	}
}

func nestedPlaceholders(t *testing.T, b bench) {
	claim := func(holder string) map[string]any {
		return fields{"holder": holder, "at": store.ServerTime, "by": store.Union(holder, holder), "deep": fields{"at": store.ServerTime}}
	}
	check := func(holder string) {
		t.Helper()
		got := b.get("doc").Data["claim"].(map[string]any)
		at, _ := got["at"].(time.Time)
		if at.IsZero() {
			t.Fatalf("server time read as %v", got["at"])
		}
		b.equal(got, fields{"holder": holder, "at": at, "by": []any{holder}, "deep": fields{"at": at}})
	}
	v := b.create("doc", store.F(claim("a"), "claim"))
	check("a")
	// The map is replaced, so a union within it starts from nothing.
	b.apply(store.MergeIf(b.ref("doc"), v, store.F(claim("b"), "claim")))
	check("b")
	b.apply(store.Merge(b.ref("doc"), store.F(claim("c"), "claim")))
	check("c")
	b.apply(store.Merge(b.ref("doc"), store.F(fields{"only": store.Union("x")}, "claim")))
	b.data("doc", fields{"claim": fields{"only": []any{"x"}}})
}

func createEmpty(t *testing.T, b bench) {
	v := b.create("doc")
	b.equal(b.get("doc"), store.Doc{Ref: b.ref("doc"), Exists: true, Version: v, Data: fields{}})
	if v == 0 {
		t.Error("created with version 0")
	}
	b.refuses(store.ErrExists, store.Create(b.ref("doc")))
}
