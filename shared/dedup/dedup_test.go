package dedup

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/civil"
	"github.com/google/go-cmp/cmp"
)

var (
	rule  = Rule{Key: []string{"game_date", "player_lookup"}, OrderBy: "processed_at", Columns: []string{"game_date", "player_lookup", "points", "team", "processed_at"}}
	early = time.Date(2026, 2, 4, 11, 3, 12, 0, time.UTC)
	late  = early.Add(18 * time.Second)
)

func row(player string, points any, team any, at any) Row {
	return Row{"game_date": "2026-02-03", "player_lookup": player, "points": points, "team": team, "processed_at": at}
}

func TestApply_KeepsOneRowOfEachKey(t *testing.T) {
	for _, c := range []struct {
		name string
		rows []Row
		want []int // places in rows
	}{
		{"nothing", nil, nil},
		{"unique", []Row{row("a", 1, "LAL", early), row("b", 1, "LAL", early)}, []int{0, 1}},
		{"the_newest", []Row{row("a", 1, "LAL", early), row("a", 2, "LAL", late)}, []int{1}},
		{"the_newest_though_it_has_nulls", []Row{row("a", 1, "LAL", early), row("a", nil, nil, late)}, []int{1}},
		{"the_newest_in_another_zone", []Row{row("a", 1, "LAL", late.In(time.FixedZone("", -5*3600))), row("a", 2, "LAL", early)}, []int{0}},
		{"no_time_is_oldest", []Row{row("a", 1, "LAL", nil), row("a", nil, nil, early)}, []int{1}},
		{"of_one_time_the_fuller", []Row{row("a", nil, "LAL", late), row("a", 2, "LAL", late)}, []int{1}},
		{"of_no_time_the_fuller", []Row{row("a", 1, "LAL", nil), row("a", nil, "LAL", nil)}, []int{0}},
		{"an_absent_column_is_null", []Row{{"game_date": "2026-02-03", "player_lookup": "a", "processed_at": late}, row("a", 2, "LAL", late)}, []int{1}},
		{"identical_triplets", []Row{row("a", 1, "LAL", late), row("a", 1, "LAL", late), row("a", 1, "LAL", late)}, []int{0}},
		{"times_within_a_microsecond_are_one", []Row{row("a", nil, "LAL", late.Add(900)), row("a", 1, "LAL", late)}, []int{1}},
		{"in_the_order_in_which_they_came", []Row{row("b", 1, "LAL", early), row("a", 1, "LAL", early), row("b", 2, "LAL", late)}, []int{1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := rule.Apply(c.rows)
			if err != nil {
				t.Fatal(err)
			}
			want := []Row{}
			for _, i := range c.want {
				want = append(want, c.rows[i])
			}
			if diff := cmp.Diff(want, got.Rows); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Removed != len(c.rows)-len(want) {
				t.Errorf("removed %d", got.Removed)
			}
		})
	}
}

// The incident: two runs of one processor, 18 seconds apart, and the second wrote what
// the first had written.
func TestApply_RemovesRowsOfIncident(t *testing.T) {
	var rows []Row
	for i := range 348 {
		rows = append(rows, row(fmt.Sprintf("player%03d", i), i, "LAL", early))
	}
	for i := range 72 {
		rows = append(rows, row(fmt.Sprintf("player%03d", i), i+1, "LAL", late))
	}
	got, err := rule.Apply(rows)
	if err != nil || got.Removed != 72 || len(got.Rows) != 348 {
		t.Fatalf("%d rows, %d removed: %v", len(got.Rows), got.Removed, err)
	}
	want := Example{Key: "game_date=2026-02-03, player_lookup=player000", Rows: 2}
	if len(got.Examples) != maxExamples || got.Examples[0] != want {
		t.Errorf("%+v", got.Examples)
	}
	for _, r := range got.Rows[348-72:] {
		if r["processed_at"] != late {
			t.Fatalf("%v survives", r)
		}
	}
}

func TestExamples_DistinguishCopiesFromVersions(t *testing.T) {
	got, err := rule.Apply([]Row{row("a", 1, "LAL", late), row("a", 1, "LAL", late), row("b", 1, "LAL", late), row("b", 1, "LAL", late), row("b", 2, "LAL", late)})
	if err != nil {
		t.Fatal(err)
	}
	want := []Example{{"game_date=2026-02-03, player_lookup=a", 2, true}, {"game_date=2026-02-03, player_lookup=b", 3, false}}
	if diff := cmp.Diff(want, got.Examples); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// F32: a "newest wins" that kept ties and dropped NULLs, and another tool with another
// rule. Every permutation has one outcome.
func TestF32_TheOutcomeDoesNotDependOnTheOrder(t *testing.T) {
	rows := []Row{row("a", 1, "LAL", late), row("a", 2, "LAL", late), row("a", 3, "BOS", late), row("a", nil, "BOS", late), row("a", 9, "LAL", nil), row("a", 4, "LAL", early)}
	first, err := rule.Apply(rows)
	if err != nil || len(first.Rows) != 1 {
		t.Fatal(first, err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		got, err := rule.Apply(rows)
		if diff := cmp.Diff(first.Rows, got.Rows); diff != "" || err != nil {
			t.Fatalf("%v (-first +got):\n%s", err, diff)
		}
	}
}

func TestApply_RowWithoutKeyIsError(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string
	}{
		{nil, "row 1: key column player_lookup is NULL"},
		{[]any{"a"}, "row 1: key column player_lookup: []interface {} cannot be part of a key"},
		{json.Number("1e999999999"), "row 1: key column player_lookup: json.Number cannot be part of a key"},
		{json.Number("one"), "row 1: key column player_lookup: json.Number cannot be part of a key"},
	} {
		bad := row("b", 1, "LAL", late)
		bad["player_lookup"] = c.value
		got, err := rule.Apply([]Row{row("a", 1, "LAL", late), bad})
		key := (*KeyError)(nil)
		if err == nil || err.Error() != c.want || !errors.As(err, &key) || key.Row != 1 || len(got.Rows) != 0 {
			t.Errorf("%v: %v", got, err)
		}
	}
	many := make([]Row, 1000)
	_, err := rule.Apply(many)
	if err == nil || strings.Count(err.Error(), "\n") != 9 {
		t.Errorf("%v", err)
	}
}

func TestRule_NamesMissingColumns(t *testing.T) {
	_, err := Rule{Key: []string{"game_date", "playr_lookup"}, OrderBy: "processed", Columns: rule.Columns}.Apply(nil)
	if err == nil || err.Error() != "key column \"playr_lookup\" is not in the table\norder column \"processed\" is not in the table" {
		t.Errorf("%v", err)
	}
	if _, err := (Rule{OrderBy: "processed_at", Columns: rule.Columns}).Apply(nil); err == nil || err.Error() != "no key column is declared" {
		t.Errorf("%v", err)
	}
}

// classes are keys by what they are: within a class all are one key, and no two classes
// share one.
var classes = [][]any{
	{1, int64(1), int32(1), int16(1), int8(1), uint(1), uint8(1), uint16(1), uint32(1), uint64(1), 1.0, float32(1), json.Number("1"), json.Number("1.0"), json.Number("1e0"), big.NewRat(2, 2)},
	{0, 0.0, math.Copysign(0, -1), json.Number("-0")},
	{0.5, float32(0.5), json.Number("0.5"), big.NewRat(1, 2)},
	{0.1}, // no decimal
	{json.Number("0.1"), big.NewRat(1, 10)},
	{big.NewRat(1, 3)},
	{uint64(math.MaxUint64), json.Number("18446744073709551615")},
	{float64(1 << 63), uint64(1 << 63)},
	{int64(math.MinInt64), float64(math.MinInt64)},
	{math.Inf(1)}, {math.Inf(-1)}, {math.NaN(), math.Float64frombits(0x7ff8000000000123)},
	{"1"}, {"1.0"}, {""}, {"a"}, {"A"}, {"a "}, {"null"}, {"é"}, {"e\u0301"}, {"\xff"},
	{[]byte("a")}, {[]byte{}}, {true}, {false}, {"true"},
	{late, late.In(time.FixedZone("", 3600)), late.Add(999)}, {late.Add(1000)}, {late.Format(time.RFC3339)},
	{civil.Date{Year: 2026, Month: 2, Day: 3}}, {"2026-02-03"}, {civil.DateTime{Date: civil.Date{Year: 2026, Month: 2, Day: 3}}}, {civil.Time{Hour: 1}},
}

func TestKeys_MatchIfValuesMatch(t *testing.T) {
	one := Rule{Key: []string{"k"}, OrderBy: "k", Columns: []string{"k"}}
	key := func(v any) string {
		k, bad := one.appendKey(nil, Row{"k": v})
		if bad != nil {
			t.Errorf("%T %v: %v", v, v, bad)
		}
		return string(k)
	}
	for i, class := range classes {
		for _, v := range class {
			for j, other := range classes {
				for _, o := range other {
					if (i == j) != (key(v) == key(o)) {
						t.Errorf("%T %v and %T %v: one key %t", v, v, o, o, i != j)
					}
				}
			}
		}
	}
}

func TestValues_HaveTotalOrder(t *testing.T) {
	all := []any{nil, []any{1}, map[string]any{"a": 1}}
	for _, class := range classes {
		all = append(all, class...)
	}
	for _, a := range all {
		for _, b := range all {
			if compareValues(a, b) != -compareValues(b, a) {
				t.Errorf("%T %v against %T %v: %d and %d", a, a, b, b, compareValues(a, b), compareValues(b, a))
			}
			for _, c := range all {
				if compareValues(a, b) <= 0 && compareValues(b, c) <= 0 && compareValues(a, c) > 0 {
					t.Errorf("%v, %v, %v", a, b, c)
				}
			}
		}
	}
}

// Keys whose values run together to one text.
func TestKeys_OfSeveralColumnsStayDistinct(t *testing.T) {
	rows := []Row{}
	for _, k := range [][2]any{{"a", "bc"}, {"ab", "c"}, {"", "abc"}, {"a_b", "c"}, {"a", "b_c"}, {"a|b", "c"}, {"a", "b|c"}, {"a\x00", "b"}, {"a", "\x00b"}, {1, 11}, {11, 1}} {
		r := row("", 1, "LAL", late)
		r["game_date"], r["player_lookup"] = k[0], k[1]
		rows = append(rows, r)
	}
	got, err := rule.Apply(rows)
	if err != nil || got.Removed != 0 {
		t.Errorf("%d removed: %+v, %v", got.Removed, got.Examples, err)
	}
}

func TestCanonical_TextIsJSON(t *testing.T) {
	r := Rule{Key: []string{"a"}, OrderBy: "a", Columns: []string{"a"}}
	for _, v := range []any{nil, true, 1, 0.5, "a\"\\\n\u2028é", []byte{0xff}, late, civil.Date{Year: 2026, Month: 2, Day: 3}, big.NewRat(1, 10),
		[]any{1, "x", nil}, map[string]any{"z": 1, "a": []any{}}, math.NaN(), math.Inf(1), 1e300, uint64(math.MaxUint64)} {
		text, ok := appendText(nil, v)
		if !ok || !json.Valid(text) {
			t.Errorf("%T %v: %s", v, v, text)
		}
	}
	if r.Hash(Row{"a": 1}) != r.Hash(Row{"a": 1.0}) || r.Hash(Row{}) != r.Hash(Row{"a": nil}) || r.Hash(Row{"a": 1}) == r.Hash(Row{"a": "1"}) {
		t.Error("hashes are not of values")
	}
}
