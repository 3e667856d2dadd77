package dedup

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func value(label string) *rapid.Generator[any] {
	return rapid.OneOf(
		rapid.Map(rapid.SampledFrom([]string{"", "a", "b", "ab", "1", "\x00"}), func(s string) any { return s }),
		rapid.Map(rapid.IntRange(-1, 2), func(n int) any { return n }),
		rapid.Map(rapid.SampledFrom([]float64{0, 0.5, 1}), func(f float64) any { return f }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.IntRange(0, 2), func(n int) any { return early.Add(time.Duration(n) * time.Second) }),
	)
}

func rows() *rapid.Generator[[]Row] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Row {
		r := Row{"game_date": value("date").Draw(t, "date"), "player_lookup": value("player").Draw(t, "player")}
		for _, c := range []string{"points", "team", "processed_at"} {
			if rapid.Bool().Draw(t, c) {
				r[c] = value(c).Draw(t, c)
			}
		}
		return r
	}), 0, 12)
}

// texts are the rows as a multiset.
func texts(rs []Row) []string {
	var out []string
	for _, r := range rs {
		h := rule.Hash(r)
		out = append(out, string(h[:]))
	}
	slices.Sort(out)
	return out
}

func keysOf(t *rapid.T, rs []Row) map[string]bool {
	out := map[string]bool{}
	for _, r := range rs {
		k, bad := rule.appendKey(nil, r)
		if bad != nil {
			t.Fatal(bad)
		}
		out[string(k)] = true
	}
	return out
}

func TestApply_KeepsEachKeyExactlyOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rows().Draw(t, "rows")
		got, err := rule.Apply(in)
		if err != nil {
			t.Fatal(err)
		}
		// No key is lost, and none is left twice.
		if diff := cmp.Diff(keysOf(t, in), keysOf(t, got.Rows)); diff != "" || len(got.Rows) != len(keysOf(t, in)) {
			t.Fatalf("keys: %s", diff)
		}
		if got.Removed != len(in)-len(got.Rows) {
			t.Fatalf("%d removed of %d, %d left", got.Removed, len(in), len(got.Rows))
		}
		// Each survivor is the best of its key.
		for _, s := range got.Rows {
			k, _ := rule.appendKey(nil, s)
			for _, r := range in {
				if o, _ := rule.appendKey(nil, r); string(o) == string(k) && rule.compare(r, s) < 0 {
					t.Fatalf("%v survives, and %v is right", s, r)
				}
			}
		}
		// Again changes nothing; another order has the same outcome.
		again, err := rule.Apply(got.Rows)
		if err != nil || again.Removed != 0 || len(again.Rows) != len(got.Rows) {
			t.Fatalf("again: %v, %v", again, err)
		}
		shuffled := slices.Clone(in)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		other, err := rule.Apply(shuffled)
		if diff := cmp.Diff(texts(got.Rows), texts(other.Rows)); diff != "" || err != nil {
			t.Fatalf("in another order: %v %s", err, diff)
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add("a", "bc", "ab", "c")
	f.Add("", "s\x01a", "s\x01a", "")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		k := func(x, y string) string {
			key, bad := rule.appendKey(nil, Row{"game_date": x, "player_lookup": y})
			if bad != nil {
				t.Fatal(bad)
			}
			return string(key)
		}
		if same := a == c && b == d; same != (k(a, b) == k(c, d)) {
			t.Errorf("%q %q and %q %q: one key %t", a, b, c, d, !same)
		}
		if x, y := appendQuoted(nil, a), appendQuoted(nil, c); (a == c) != (string(x) == string(y)) {
			t.Errorf("%q and %q are written as %s and %s", a, c, x, y)
		}
		if strings.ContainsAny(string(appendQuoted(nil, a)), "\n\x00") {
			t.Errorf("%q is written with a control character", a)
		}
	})
}
