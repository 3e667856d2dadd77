package sweep

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
)

// The guard rail must count the rows of the survey under the lock, not those of the first search.
func TestSweep_GuardRailCountsRowsUnderLock(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	p.before["QUALIFY"] = func() { // right before the survey: a run without a lock doubles the rest
		w.insert(row("a", "1", "40"), row("b", "1", "40"), row("c", "1", "40"))
	}
	before := 8
	got := p.sweep(order(all))
	if n := len(w.json("nba_analytics.player_game_summary")); n != before {
		t.Errorf("%d of %d rows went without --force, the rail is 25 %%", before-n, before)
	}
	if left := (Report{Tables: []*Part{&got}}).Left(); left < 0 {
		t.Errorf("%d duplicates are left", left)
	}
}

// The other way round.
func TestSweep_IgnoresDuplicatesRemovedBeforeSurvey(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, append(twice(), row("e", "1", "12"), row("f", "1", "12"), row("g", "1", "12"), row("c", "1", "40"))...)
	p := w.process()
	p.before["QUALIFY"] = func() {
		w.Exec("DELETE FROM nba_analytics.player_game_summary WHERE player_lookup = 'c' AND processed_at = TIMESTAMP '2026-02-04 11:03:40'")
	}
	p.wantPart(p.sweep(order(all)), Removed, 1, 1, "")
}

// The statement itself says that it has removed nothing.
func TestSweep_CountsOnlyItsOwnRemovals(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	p.before["MERGE"] = func() {
		w.Exec("DELETE FROM nba_analytics.player_game_summary WHERE player_lookup = 'd' AND processed_at = TIMESTAMP '2026-02-04 11:03:12'")
	}
	got := p.sweep(order(all))
	if got.Removed != 0 || w.states() != "abandoned" {
		t.Errorf("the statement changed nothing; removed %d, removals recorded as %s", got.Removed, w.states())
	}
}

// One record of another table that cannot be read.
func TestSweep_UnreadableRecordDoesNotStopOtherTables(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	if _, err := w.mem.Apply(t.Context(), store.Create(store.Ref{Collection: "sweeps", ID: "20260204t100000-aaaaaaaa~other_2026-02-01"},
		store.F("nba_analytics.team_defense_game_summary", "table"), store.F("2026-02-01", "period"), store.F("applied", "state"))); err != nil {
		t.Fatal(err)
	}
	got := p.sweep(order(all))
	if got.State != Removed {
		t.Errorf("%s: %s", got.State, got.Problem)
	}
	if got.State == Unknown && got.Again() {
		t.Error("and is retried without end")
	}
}

// While another writer is at work, tokens that were never used must not pile up.
func TestSweep_BusyTableLeavesNoToken(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	w.addWriter()
	p := w.process()
	if _, err := p.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: night}, "run-1"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		p.wantPart(p.sweep(order(all)), Busy, 1, 0, "PlayerGameSummaryProcessor")
	}
	held, err := p.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerCorrectionsProcessor", Period: night}, "run-2")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(held.Outstanding()); n > 1 {
		t.Errorf("%d tokens under which nothing was ever begun are for the next run to fence, a BigQuery job each", n)
	}
}

// The event duplicates_found raises an alert: it is not logged for duplicates that no longer exist.
func TestSweep_VanishedDuplicatesAreNotNotified(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	p.before["QUALIFY"] = func() {
		w.Exec("DELETE FROM nba_analytics.player_game_summary WHERE player_lookup = 'd' AND processed_at = TIMESTAMP '2026-02-04 11:03:12'")
	}
	p.wantPart(p.sweep(order(all)), Clean, 0, 0, "the duplicates no longer exist")
	if strings.Contains(p.logs.String(), `"event":"duplicates_found"`) {
		t.Errorf("%s", p.logs.String())
	}
}

// Another run writes the rows again right after their removal.
func TestSweep_RewrittenRowsCountAsRemoved(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	p.before["MERGE"] = func() { p.before["SELECT 0, f.*"] = func() { w.insert(row("d", "7", "55")) } }
	p.wantPart(p.sweep(order(all)), Removed, 1, 1, "a run without a lock wrote its rows right after the removal")
	if !strings.Contains(p.logs.String(), `"event":"duplicates_removed"`) {
		t.Error("a row went, and no duplicates_removed says so")
	}
}

func TestSweep_NewColumnDoesNotHideRemoval(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	p.diesAt("MERGE")
	_, _ = p.Run(context.Background(), order(all))
	w.advance(11 * time.Minute)
	w.recreate(append(twice()[:3:3], twice()[4], row("a", "1", "30"))...)
	next := w.process()
	next.sweep(order(all))
	if got := w.states(); got != "applied applied" {
		t.Errorf("%q: the first one did remove a row", got)
	}
}

// The lock is lost right before the statement, and another sweep comes.
func TestSweep_LostLockPreventsRemoval(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"survivors", "MERGE"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := withScores(t, scores, twice()...)
			before := w.json("nba_analytics.player_game_summary")
			p, q := w.process(), w.process()
			p.before[at] = func() { w.advance(11 * time.Minute); q.sweep(order(all)) }
			p.sweep(order(all))
			w.want("nba_analytics.player_game_summary", append(before[:3:3], before[4]))
			if s := w.states(); s != "abandoned applied" {
				t.Errorf("%s", s)
			}
		})
	}
}

func TestSweep_ConcurrentSweepsRemoveOnce(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	before := w.json("nba_analytics.player_game_summary")
	var wg sync.WaitGroup
	for range 3 {
		p := w.process()
		wg.Go(func() {
			if _, err := p.Run(context.Background(), order(all)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.want("nba_analytics.player_game_summary", append(before[:3:3], before[4]))
}

// A type that the library cannot read is no transient problem.
func TestSweep_UnreadableTypeIsNotRetried(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores+", line STRUCT<seen TIMESTAMP>")
	for _, r := range twice() {
		w.insert(r + ", STRUCT(TIMESTAMP '2026-02-04 11:03:12')")
	}
	p := w.process()
	got := p.sweep(order(all))
	if got.State != Unknown || got.Again() {
		t.Errorf("%+v", got)
	}
}

// Another program changes the archive right before the statement. The statement would keep
// another last row of a key, or none.
func TestSweep_ChangedArchivePreventsRemoval(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{"another": "UPDATE %s SET points = 77 WHERE phasegate_kept", "none": "DELETE FROM %s WHERE phasegate_kept"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := withScores(t, scores, twice()...)
			before := w.json("nba_analytics.player_game_summary")
			p := w.process()
			p.before["MERGE"] = func() {
				listed, err := w.process().List(context.Background())
				if err != nil || len(listed) != 1 {
					t.Error(listed, err)
				}
				w.Exec(fmt.Sprintf(change, w.archive+".`"+tableName(listed[0].ID)+"`"))
			}
			p.wantPart(p.sweep(order(all)), Changed, 1, 0, "nothing was removed")
			w.want("nba_analytics.player_game_summary", before)
			if got := w.states(); got != "abandoned" {
				t.Errorf("%s", got)
			}
		})
	}
}
