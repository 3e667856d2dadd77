package sweep

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

const withLine = scores + ", line STRUCT<rebounds INT64, halves ARRAY<STRUCT<half INT64>>>"

// remade makes player_game_summary anew with other columns, and one row of each key.
func (w *world) remade(columns, line string) {
	w.t.Helper()
	w.Exec("DROP TABLE nba_analytics.player_game_summary", "CREATE TABLE nba_analytics.player_game_summary ("+columns+") PARTITION BY game_date")
	for _, r := range append(twice()[:3:3], twice()[4]) {
		w.insert(r + line)
	}
}

func TestUndo_NamesTheFieldThatHasChangedAndLeavesTheRemovalApplied(t *testing.T) {
	for name, c := range map[string]struct{ columns, line, problem string }{
		"column_gone":        {scores, "", "line is gone"},
		"column_new":         {withLine + ", fouls INT64", ", NULL, NULL", "fouls is new"},
		"column_of_a_type":   {strings.Replace(withLine, "points INT64", "points FLOAT64", 1), ", NULL", "points is FLOAT, was INTEGER"},
		"nested_of_a_type":   {scores + ", line STRUCT<rebounds STRING, halves ARRAY<STRUCT<half INT64>>>", ", NULL", "line.rebounds is STRING, was INTEGER"},
		"nested_new":         {scores + ", line STRUCT<rebounds INT64, halves ARRAY<STRUCT<half INT64, q INT64>>>", ", NULL", "line.halves.q is new"},
		"nested_gone":        {scores + ", line STRUCT<halves ARRAY<STRUCT<half INT64>>>", ", NULL", "line.rebounds is gone"},
		"nested_moved":       {scores + ", line STRUCT<halves ARRAY<STRUCT<half INT64>>, rebounds INT64>", ", NULL", "line.halves stands at another place"},
		"nested_of_one_kind": {scores + ", line STRUCT<rebounds ARRAY<INT64>, halves ARRAY<STRUCT<half INT64>>>", ", NULL", "line.rebounds is ARRAY<INTEGER>, was INTEGER"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := withScores(t, withLine)
			for _, r := range twice() {
				w.insert(r + ", STRUCT(7 AS rebounds, [STRUCT(1 AS half)] AS halves)")
			}
			p := w.process()
			removed := p.sweep(order(all))
			p.wantPart(removed, Removed, 1, 1, "")
			w.remade(c.columns, c.line)
			before := w.json("nba_analytics.player_game_summary")
			changed := p.writes
			out, err := p.Undo(t.Context(), removed.ID, "ada", "the wrong one stayed")
			if !errors.Is(err, errNotUndone) || !strings.Contains(err.Error(), "the columns of "+w.table()+" have changed: "+c.problem) {
				t.Errorf("%v, want %q", err, c.problem)
			}
			if got := w.states(); got != "applied" || len(out) != 1 || out[0].State != applied || out[0].Unknown {
				t.Errorf("the removal is %q, %+v", got, out)
			}
			if strings.Contains(p.logs.String(), `"action":"sweep_undo"`) {
				t.Errorf("an undo that was refused is recorded as one, after %d writes", p.writes-changed)
			}
			w.want("nba_analytics.player_game_summary", before)
		})
	}
}

// A removal that died in the middle must not block its period for every later sweep.
func TestRun_EndsAnUnfinishedRemovalWhoseRowsCannotBeCompared(t *testing.T) {
	for name, c := range map[string]struct {
		undoing, gone bool
		states        string
	}{
		"removal":      {states: "abandoned"},
		"undoing":      {undoing: true, states: "applied"},
		"archive_gone": {gone: true, states: "abandoned"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := withScores(t, scores, twice()...)
			p := w.process()
			if c.undoing {
				id := p.sweep(order(all)).ID
				p.diesAt("MERGE")
				_, _ = p.Undo(context.Background(), id, "ada", "the wrong one stayed")
			} else {
				p.diesAt("MERGE")
				_, _ = p.Run(context.Background(), order(all))
			}
			if !p.dead {
				t.Fatal("alive")
			}
			w.advance(11 * time.Minute)
			if c.gone {
				w.Exec("DROP TABLE " + w.archive + ".`" + tableName(firstSweep(t, w)) + "`")
			} else {
				w.remade(strings.Replace(scores, "points INT64", "score INT64", 1), "")
			}
			next := w.process()
			next.wantPart(next.sweep(order(all)), Clean, 0, 0, "the duplicates no longer exist")
			if got := w.states(); got != c.states {
				t.Errorf("the removal is %q, want %q", got, c.states)
			}
		})
	}
}
