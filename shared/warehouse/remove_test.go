package warehouse_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/warehouse"
)

// json are the rows of the table as JSON, in order.
func (b *books) json() []string {
	b.t.Helper()
	var out []string
	for _, r := range b.query("SELECT TO_JSON_STRING(t) FROM nba_analytics.scores AS t WHERE game_date > DATE '2000-01-01'") {
		out = append(out, fmt.Sprint(r[0]))
	}
	slices.Sort(out)
	return out
}

// removal surveys the period and archives.
func (b *books) removal() (warehouse.Removal, warehouse.Survey) {
	b.t.Helper()
	s, err := b.Survey(b.t.Context(), b.target)
	if err != nil {
		b.t.Fatal(err)
	}
	r := warehouse.Removal{Target: b.target, Archive: b.target.Staging + ".q" + rand.Text(), Before: s.Before, After: s.After}
	if err := b.Archive(b.t.Context(), r, s); err != nil {
		b.t.Fatal(err)
	}
	return r, s
}

func (b *books) standing(r warehouse.Removal, want warehouse.Fingerprint) {
	b.t.Helper()
	got, err := b.Standing(b.t.Context(), r)
	if err != nil || got != want {
		b.t.Errorf("standing %+v, %v, want %+v", got, err, want)
	}
}

func TestRemove_KeepsSurvivingRowOfEachKey(t *testing.T) {
	b := newBooks(t, scores, "PARTITION BY game_date")
	b.Exec(`INSERT INTO nba_analytics.scores VALUES
		(DATE '2026-02-02', 'other', 1, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-02', 'other', 1, TIMESTAMP '2026-02-04 11:00:00'),
		(DATE '2026-02-03', 'alone', 1, TIMESTAMP '2026-02-04 11:00:00'),
		(DATE '2026-02-03', 'newest', 1, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'newest', 2, TIMESTAMP '2026-02-04 11:00:18'),
		(DATE '2026-02-03', 'triplet', 7, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'triplet', 7, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'triplet', 7, TIMESTAMP '2026-02-04 11:00:00'),
		(DATE '2026-02-03', 'fuller', NULL, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'fuller', 3, TIMESTAMP '2026-02-04 11:00:00'),
		(DATE '2026-02-03', 'never', 4, NULL), (DATE '2026-02-03', 'never', NULL, TIMESTAMP '2026-02-04 11:00:00')`)
	before := b.json()
	r, s := b.removal()
	if s.Keys != 5-1 || s.Surplus != 5 || s.Identical != 1 || s.Before.Rows != 9 || s.After.Rows != 4 {
		t.Errorf("%+v", s)
	}
	b.standing(r, s.Before)
	if err := b.Remove(t.Context(), b.right(), r); err != nil {
		t.Fatal(err)
	}
	b.standing(r, s.After)
	const swept = "2026-02-02:other=1 2026-02-02:other=1 alone=1 fuller=3 never=<nil> newest=2 triplet=7"
	b.want(swept)
	if err := b.Remove(t.Context(), b.right(), r); !errors.Is(err, warehouse.ErrChanged) { // it is not as planned any more
		t.Errorf("%v", err)
	}
	b.want(swept)
	if err := b.Restore(t.Context(), b.right(), r); err != nil {
		t.Fatal(err)
	}
	if got := b.json(); !slices.Equal(got, before) {
		t.Errorf("restored:\n%s\nwere:\n%s", strings.Join(got, "\n"), strings.Join(before, "\n"))
	}
	b.standing(r, s.Before)
}

// A survey holds 500 rows of a key at once: the surviving row may lie anywhere among more of them.
func TestSurvey_KeepsNewestOfMoreRowsThanItHoldsAtOnce(t *testing.T) {
	b := newBooks(t, scores, "PARTITION BY game_date")
	b.Exec(`INSERT INTO nba_analytics.scores SELECT DATE '2026-02-03', 'newest', i, TIMESTAMP_ADD(TIMESTAMP '2026-02-04 11:00:00', INTERVAL MOD(i, 700) SECOND) FROM UNNEST(GENERATE_ARRAY(1, 1200)) AS i`,
		`INSERT INTO nba_analytics.scores SELECT DATE '2026-02-03', 'same', 7, TIMESTAMP '2026-02-04 11:00:00' FROM UNNEST(GENERATE_ARRAY(1, 1002)) AS i`,
		`INSERT INTO nba_analytics.scores SELECT DATE '2026-02-03', 'one differs', IF(i = 600, 8, NULL), TIMESTAMP '2026-02-04 11:00:00' FROM UNNEST(GENERATE_ARRAY(1, 1100)) AS i`)
	r, s := b.removal()
	if s.Keys != 3 || s.Surplus != 1199+1001+1099 || s.Identical != 1 || s.Before.Rows != 1200+1002+1100 || s.After.Rows != 3 {
		t.Errorf("%+v", s)
	}
	for i, rows := range []int{1200, 1100, 1002} { // in the order of the keys
		if e := s.Examples[i]; e.Rows != rows || e.Identical != (rows == 1002) {
			t.Errorf("%+v", e)
		}
	}
	if err := b.Remove(t.Context(), b.right(), r); err != nil {
		t.Fatal(err)
	}
	b.want("newest=699 one differs=8 same=7")
}

func TestRemove_ChangedRowsPreventRemoval(t *testing.T) {
	for name, change := range map[string]string{
		"rewritten": "UPDATE nba_analytics.scores SET points = 9 WHERE player_lookup = 'a'",
		"appended":  "INSERT INTO nba_analytics.scores VALUES (DATE '2026-02-03', 'a', 1, TIMESTAMP '2026-02-04 11:00:00')",
		"removed":   "DELETE FROM nba_analytics.scores WHERE player_lookup = 'a'",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBooks(t, scores, "")
			b.Exec("INSERT INTO nba_analytics.scores VALUES (DATE '2026-02-03', 'a', 1, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'a', 1, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'b', 1, TIMESTAMP '2026-02-04 11:00:00')")
			s, err := b.Survey(t.Context(), b.target)
			if err != nil {
				t.Fatal(err)
			}
			r, _ := b.removal()
			b.Exec(change)
			changed := b.json()
			if err := b.Remove(t.Context(), b.right(), r); !errors.Is(err, warehouse.ErrChanged) {
				t.Errorf("%v", err)
			}
			if got := b.json(); !slices.Equal(got, changed) {
				t.Errorf("%s, was %s", got, changed)
			}
			// Archive detects rows that changed before it copied them.
			r.Archive += "2"
			if err := b.Archive(t.Context(), r, s); !errors.Is(err, warehouse.ErrChanged) {
				t.Errorf("%v", err)
			}
		})
	}
}
