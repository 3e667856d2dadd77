package storetest

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

var valueTests = []test{
	{"every_kind_round_trips", roundTrip},
	{"maps_that_look_like_an_encoding", lookalikes},
	{"deepest_nesting", deepest},
	{"caller_and_store_share_nothing", noSharing},
}

var (
	nan          = math.NaN()
	negativeZero = math.Copysign(0, -1)
)

func roundTrip(t *testing.T, b bench) {
	zone := time.FixedZone("somewhere", -5*3600)
	for _, c := range []struct {
		name      string
		in, wants any
	}{
		{"nil", nil, nil},
		{"true", true, true},
		{"false", false, false},
		{"int", 42, int64(42)},
		{"zero", 0, int64(0)},
		{"min_int64", int64(math.MinInt64), int64(math.MinInt64)},
		{"max_int64", int64(math.MaxInt64), int64(math.MaxInt64)},
		{"int_beyond_53_bits", int64(1<<53 + 1), int64(1<<53 + 1)},
		{"float", 0.1, 0.1},
		{"whole_float", 3.0, 3.0},
		{"negative_zero", negativeZero, negativeZero},
		{"largest_float", math.MaxFloat64, math.MaxFloat64},
		{"smallest_float", math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat64},
		{"infinity", math.Inf(1), math.Inf(1)},
		{"negative_infinity", math.Inf(-1), math.Inf(-1)},
		{"nan", nan, nan},
		{"empty_string", "", ""},
		{"string", "a\x00\n\"\\ä☃😀\u2028<&>", "a\x00\n\"\\ä☃😀\u2028<&>"},
		{"long_string", strings.Repeat("long", 50_000), strings.Repeat("long", 50_000)},
		{"number_in_a_string", "1e3", "1e3"},
		{"time_truncated_to_microseconds", time.Date(2026, 2, 3, 4, 5, 6, 123456999, time.UTC), time.Date(2026, 2, 3, 4, 5, 6, 123456000, time.UTC)},
		{"time_before_1970_rounded_down", time.Date(1960, 1, 1, 0, 0, 0, 1999, time.UTC), time.Date(1960, 1, 1, 0, 0, 0, 1000, time.UTC)},
		{"time_of_another_zone", time.Date(2026, 2, 3, 4, 5, 6, 0, zone), time.Date(2026, 2, 3, 9, 5, 6, 0, time.UTC)},
		{"zero_time", time.Time{}, time.Time{}.UTC()},
		{"last_time", time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)},
		{"empty_array", []any{}, []any{}},
		{"nil_array", []any(nil), []any{}},
		{"array", []any{nil, true, 1, 1.5, "x", time.Unix(1, 2).In(zone)}, []any{nil, true, int64(1), 1.5, "x", time.Unix(1, 0).UTC()}},
		{"empty_map", fields{}, fields{}},
		{"nil_map", map[string]any(nil), fields{}},
		{"map", fields{"n": 1, "m": fields{"deep": fields{"list": []any{1}, "empty": fields{}}}},
			fields{"n": int64(1), "m": fields{"deep": fields{"list": []any{int64(1)}, "empty": fields{}}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := b
			b.t = t
			want := fields{"v": c.wants, "m": fields{"v": c.wants}}
			set := []store.Field{store.F(c.in, "v"), store.F(c.in, "m", "v")}
			b.create(c.name, set...)
			b.data(c.name, want)
			b.apply(store.Merge(b.ref(c.name+" merged"), set...))
			b.data(c.name+" merged", want)
			v := b.create(c.name + " merged if")
			b.apply(store.MergeIf(b.ref(c.name+" merged if"), v, set...))
			b.data(c.name+" merged if", want)
			for doc, err := range b.store.Scan(b.ctx, b.collection, c.name, c.name) {
				if err != nil {
					t.Fatal(err)
				}
				b.equal(doc.Data, want)
			}
		})
	}
}

// lookalikes are what drivers could take for their own notation.
func lookalikes(_ *testing.T, b bench) {
	want := fields{}
	for _, tag := range []string{
		"float", "time", "map", "list", "array", "int", "integerValue", "doubleValue", "timestampValue", "mapValue",
		"arrayValue", "nullValue", "$type", "@type", "value", "t", "v",
	} {
		want[tag] = fields{
			"string": fields{tag: "1"},
			"int":    fields{tag: int64(1770076800000000)},
			"map":    fields{tag: fields{tag: "NaN"}},
			"list":   []any{tag, "1"},
		}
	}
	var set []store.Field
	for name, v := range want {
		set = append(set, store.F(v, name))
	}
	b.create("doc", set...)
	b.data("doc", want)
}

func deepest(_ *testing.T, b bench) {
	path := make([]string, 20)
	var value any = []any{int64(1)}
	for i := range path {
		path[i] = "k"
		if i > 0 {
			value = fields{"k": value}
		}
	}
	b.create("path", store.F([]any{1}, path...))
	b.data("path", fields{"k": value})
	b.create("map", store.F(value, "k"))
	b.data("map", fields{"k": value})
	b.refuses(store.ErrInvalid, store.Create(b.ref("deeper"), store.F(1, append(path, "k")...)))
	b.refuses(store.ErrInvalid, store.Create(b.ref("deeper"), store.F(fields{"k": value}, "k")))
}

func noSharing(t *testing.T, b bench) {
	want := fields{"m": fields{"deep": fields{"n": int64(1)}, "list": []any{"x"}}}
	inner, list := fields{"n": 1}, []any{"x"}
	path := []string{"m"}
	b.create("doc", store.Field{Path: path, Value: fields{"deep": inner, "list": list}})
	inner["n"], list[0], path[0] = 2, "y", "z"
	b.data("doc", want)

	spoil := func(doc store.Doc) {
		m := doc.Data["m"].(map[string]any)
		m["deep"].(map[string]any)["n"] = int64(3)
		m["list"].([]any)[0] = "z"
		doc.Data["new"] = true
	}
	spoil(b.get("doc"))
	b.data("doc", want)
	for doc, err := range b.store.Scan(b.ctx, b.collection, "a", "z") {
		if err != nil {
			t.Fatal(err)
		}
		spoil(doc)
	}
	b.data("doc", want)

	union := []any{"x", "y"}
	b.apply(store.Merge(b.ref("doc"), store.F(store.Union(union...), "m", "list")))
	union[1] = "z"
	b.data("doc", fields{"m": fields{"deep": fields{"n": int64(1)}, "list": []any{"x", "y"}}})
}
