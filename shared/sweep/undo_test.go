package sweep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestUndo_RestoresExactlyOrNothing(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	removed := p.sweep(order(all))
	p.wantPart(removed, Removed, 1, 1, "")
	w.Exec("UPDATE nba_analytics.player_game_summary SET points = 9 WHERE player_lookup = 'd'")
	rewritten := w.json("nba_analytics.player_game_summary")
	got, err := p.Undo(t.Context(), removed.ID, "ada", "")
	if !errors.Is(err, errNotUndone) || !strings.Contains(err.Error(), ", or those in "+w.archive+".") || got[0].State != applied {
		t.Errorf("%+v, %v", got, err)
	}
	w.want("nba_analytics.player_game_summary", rewritten)
	w.Exec("UPDATE nba_analytics.player_game_summary SET points = 1 WHERE player_lookup = 'd'") // as it was
	w.advance(31 * 24 * time.Hour)
	if _, err := p.Undo(t.Context(), removed.ID, "ada", ""); !errors.Is(err, errNotUndone) || !strings.Contains(err.Error(), "kept until 2026-03-06T15:50:00Z") {
		t.Errorf("%v", err)
	}
}

// A sweep of several periods is undone as one, and each of its parts by itself.
func TestUndo_CoversSweepOfSeveralPeriods(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	for _, r := range twice() {
		w.insert(strings.Replace(r, "2026-02-03", "2026-02-02", 1))
	}
	before := w.json("nba_analytics.player_game_summary")
	p := w.process()
	o := order(all)
	o.From = "2026-01-28"
	r, err := p.Run(t.Context(), o)
	if err != nil || len(r.Tables) != 2 || r.Tables[0].Period != "2026-02-02" || r.Tables[1].Removed != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if out, err := p.Undo(t.Context(), r.SweepID, "ada", ""); err != nil || len(out) != 2 || out[0].Restored+out[1].Restored != 2 {
		t.Errorf("%+v, %v", out, err)
	}
	w.want("nba_analytics.player_game_summary", before)
	if b, err := json.Marshal(r); err != nil || !strings.Contains(string(b), `"sweep_id":"`) || !strings.Contains(string(b), `"period":"2026-02-02","rows":5,"duplicates":1,`) {
		t.Errorf("%s, %v", b, err)
	}
}

// The same for an undoing.
func TestUndo_ResumesAfterCrashAtEachStep(t *testing.T) {
	undoing := func(p *process) {
		dies := p.dies
		p.dies = 0
		id := p.sweep(order(all)).ID
		p.writes, p.dies = 0, dies
		_, _ = p.Undo(context.Background(), id, "ada", "")
	}
	eachDeath(t, undoing, func(t *testing.T, w *world, before []string) {
		p := w.process()
		listed, err := p.List(t.Context())
		if err != nil || len(listed) != 1 {
			t.Fatal(listed, err)
		}
		if out, err := p.Undo(t.Context(), listed[0].ID, "ada", ""); err != nil || out[0].State != undone {
			t.Errorf("%+v, %v", out, err)
		}
		w.want("nba_analytics.player_game_summary", before)
	})
}

// The archive was changed since.
func TestUndo_RefusesChangedArchive(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"rewritten": "UPDATE %s SET points = 99 WHERE NOT phasegate_kept",
		"emptied":   "DELETE FROM %s WHERE NOT phasegate_kept",
		"doubled":   "INSERT INTO %[1]s SELECT * FROM %[1]s WHERE NOT phasegate_kept",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := withScores(t, scores, twice()...)
			p := w.process()
			removed := p.sweep(order(all))
			after := w.json("nba_analytics.player_game_summary")
			w.Exec(fmt.Sprintf(change, w.archive+".`"+tableName(removed.ID)+"`"))
			if _, err := p.Undo(t.Context(), removed.ID, "ada", ""); !errors.Is(err, errNotUndone) {
				t.Errorf("%v", err)
			}
			w.want("nba_analytics.player_game_summary", after)
		})
	}
}

// A clock that was wrong.
func TestUndo_RestoresRemovalRecordedWithWrongClock(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	before := w.json("nba_analytics.player_game_summary")
	p := w.process()
	p.Sweeper.Now = func() time.Time { return w.time().Add(-40 * 24 * time.Hour) }
	p.diesAt("MERGE")
	_, _ = p.Run(context.Background(), order(all))
	w.advance(11 * time.Minute)
	id := ""
	for doc, err := range w.mem.Scan(t.Context(), "sweeps", "0", "9") {
		if err != nil {
			t.Fatal(err)
		}
		id = doc.Ref.ID
	}
	if _, err := w.process().Undo(t.Context(), id, "ada", ""); err != nil {
		t.Errorf("its rows stand in the archive, a row was removed: %v", err)
	}
	w.want("nba_analytics.player_game_summary", before)
}

// recreate gives the table a column more, as ALTER TABLE ADD COLUMN does (which the emulator does not carry through).
func (w *world) recreate(rows ...string) {
	w.Exec("DROP TABLE nba_analytics.player_game_summary")
	w.Exec("CREATE TABLE nba_analytics.player_game_summary (" + scores + ", rebounds INT64) PARTITION BY game_date")
	for _, r := range rows {
		w.insert(r + ", NULL")
	}
}

func TestUndo_RefusesTableWithNewColumn(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	removed := p.sweep(order(all))
	p.wantPart(removed, Removed, 1, 1, "")
	w.recreate(append(twice()[:3:3], twice()[4])...)
	if _, err := p.Undo(t.Context(), removed.ID, "ada", ""); !errors.Is(err, errNotUndone) || !strings.Contains(err.Error(), "the columns of") {
		t.Errorf("%v", err)
	}
}

func TestUndo_ConcurrentUndosRestoreOnce(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	before := w.json("nba_analytics.player_game_summary")
	id := w.process().sweep(order(all)).ID
	var wg sync.WaitGroup
	for range 3 {
		p := w.process()
		wg.Go(func() {
			_, _ = p.Undo(context.Background(), id, "ada", "") // one restores the rows, the others are refused
		})
	}
	wg.Wait()
	w.want("nba_analytics.player_game_summary", before)
	if s := w.states(); s != "undone" {
		t.Error(s)
	}
}

func TestUndo_LostLockRestoresOnce(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	before := w.json("nba_analytics.player_game_summary")
	p, q := w.process(), w.process()
	id := p.sweep(order(all)).ID
	p.before["MERGE"] = func() {
		w.advance(11 * time.Minute)
		if _, err := q.Undo(context.Background(), id, "ada", ""); err != nil {
			t.Error(err)
		}
	}
	_, _ = p.Undo(context.Background(), id, "ada", "")
	w.want("nba_analytics.player_game_summary", before)
	if s := w.states(); s != "undone" {
		t.Error(s)
	}
}

// All rows of the archive are deleted, but its table exists.
func TestUndo_RefusesEmptyArchive(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	id := p.sweep(order(all)).ID
	w.Exec(fmt.Sprintf("DELETE FROM %s WHERE TRUE", w.archive+".`"+tableName(id)+"`"))
	if _, err := p.Undo(t.Context(), id, "ada", ""); !errors.Is(err, errNotUndone) {
		t.Errorf("%v, and %d rows of 5", err, len(w.json("nba_analytics.player_game_summary")))
	}
}

// Several sweeps of one key, undone in the wrong order and in the right one.
func TestUndo_RestoresSeveralSweepsOfOneKey(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	a := p.sweep(order(all)).ID
	mid := w.json("nba_analytics.player_game_summary")
	w.insert(row("d", "0", "01"))
	doubled := w.json("nba_analytics.player_game_summary")
	w.advance(time.Second)
	b := p.sweep(order(all)).ID
	w.want("nba_analytics.player_game_summary", mid)
	if _, err := p.Undo(t.Context(), b, "ada", ""); err != nil {
		t.Error(err)
	}
	w.want("nba_analytics.player_game_summary", doubled)
	if _, err := p.Undo(t.Context(), a, "ada", ""); !errors.Is(err, errNotUndone) {
		t.Errorf("%v", err)
	}
	w.want("nba_analytics.player_game_summary", doubled)
}
