package sweep

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// diesAt makes a process die right after the request to the warehouse that has a word in it.
func (p *process) diesAt(word string) {
	p.before[word] = func() { p.life.Lock(); p.dies = p.writes + 1; p.life.Unlock() }
}

// The rows were removed, the sweeper died before it said so. The next sweep finds no
// Duplicates in its first look and never reads the books.
func TestSweep_RecordsRemovalAfterCrash(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	p.diesAt("MERGE")
	_, _ = p.Run(context.Background(), order(all))
	if !p.dead {
		t.Fatal("alive")
	}
	w.advance(11 * time.Minute)
	next := w.process()
	next.sweep(order(all))
	if n := len(w.json("nba_analytics.player_game_summary")); n != 4 {
		t.Fatalf("%d rows", n)
	}
	if got := w.states(); got != "applied" {
		t.Errorf("the rows are gone, and after the next sweep the books say %q", got)
	}
	if !strings.Contains(p.logs.String()+next.logs.String(), `"event":"duplicates_removed"`) {
		t.Error("nobody was told duplicates_removed")
	}
}

// And whoever books it tells it.
func TestSweep_LateRecordedRemovalIsNotified(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	p.diesAt("MERGE")
	_, _ = p.Run(context.Background(), order(all))
	w.advance(11 * time.Minute)
	w.insert(row("a", "1", "30"))
	next := w.process()
	next.sweep(order(all))
	if got := w.states(); got != "applied applied" {
		t.Errorf("%q", got)
	}
	if n := strings.Count(p.logs.String()+next.logs.String(), `"event":"duplicates_removed"`); n != 2 {
		t.Errorf("two removals, duplicates_removed was told %d times", n)
	}
}

// The guard rail is asked about another look than that which decides.
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
		t.Errorf("the statement changed nothing; removed %d, books %s", got.Removed, w.states())
	}
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
		t.Error("and is asked for again and again")
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

// The undoing dies right after its statement, and a sweep comes next.
func TestSweep_RecordsUndoAfterCrash(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	id := p.sweep(order(all)).ID
	p.diesAt("MERGE")
	_, _ = p.Undo(context.Background(), id, "ada", "the wrong one stayed")
	if !p.dead {
		t.Fatal("alive")
	}
	w.advance(11 * time.Minute)
	next := w.process()
	next.sweep(order(all))
	if got := w.states(); got != "undone applied" {
		t.Errorf("the books say %q: one row is removed, by one of two removals that are both applied", got)
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

// An event without a fact wakes somebody.
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

// Rows removed, then written right after by somebody else.
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

// lossy loses the answer of the n-th change, once.
type lossy struct {
	store.Store
	n  *int
	at int
}

func (s lossy) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	vs, err := s.Store.Apply(ctx, ws...)
	if *s.n++; *s.n == s.at {
		return nil, errors.New("the answer is lost")
	}
	return vs, err
}

func (w *world) lossy(at int) (*process, *int) {
	p := w.process()
	n := new(int)
	log, _ := telemetry.New(&p.logs, "info")
	st := lossy{w.mem, n, at}
	p.Sweeper.Store = st
	p.Sweeper.Locks = lease.New(lease.Config{Store: st, Now: w.time, NewID: rand.Text, Lease: lease.Max, Instance: "p", Log: log})
	p.Sweeper.Warehouse = w.Through(func(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
		forward()
		if r.Method != http.MethodGet {
			if *n++; *n == at {
				return errors.New("the answer is lost")
			}
		}
		return nil
	})
	return p, n
}

func TestSweep_SurvivesLossOfEachResponse(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p, n := w.lossy(0)
	p.wantPart(p.sweep(order(all)), Removed, 1, 1, "")
	total := *n
	for at := 1; at <= total; at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			w := withScores(t, scores, twice()...)
			before := w.json("nba_analytics.player_game_summary")
			p, _ := w.lossy(at)
			first := p.sweep(order(all))
			rows := len(w.json("nba_analytics.player_game_summary"))
			if (first.State == Removed) != (rows == 4) && first.State != Unknown {
				t.Errorf("untrue: %s, %d rows", first.State, rows)
			}
			w.advance(11 * time.Minute)
			next := w.process()
			got := next.sweep(order(all))
			if got.State != Removed && got.State != Clean {
				t.Errorf("%+v", got)
			}
			w.want("nba_analytics.player_game_summary", append(before[:3:3], before[4]))
			if s := w.states(); s != "applied" && s != "abandoned applied" {
				t.Errorf("books %q", s)
			}
		})
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

// What the library cannot read does not pass by itself.
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

func TestUndo_ConcurrentUndosRestoreOnce(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	before := w.json("nba_analytics.player_game_summary")
	id := w.process().sweep(order(all)).ID
	var wg sync.WaitGroup
	for range 3 {
		p := w.process()
		wg.Go(func() {
			_, _ = p.Undo(context.Background(), id, "ada", "") // one does it, the others are turned away
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

// All of the archive is gone, the table is there.
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

// Somebody changes what lies in the archive right before the statement: the last row of a
// key would be another, or there would be none.
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
