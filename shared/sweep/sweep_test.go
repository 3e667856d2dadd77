package sweep

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// The incident: two runs of one processor, 18 seconds apart, and 72 players twice.
func TestSweep_IncidentDuplicatesAreRemovedAndRestored(t *testing.T) {
	t.Parallel()
	day := warehousetest.Complete
	day.Date = night
	w := newWorld(t, warehousetest.NBA(t, day))
	w.Exec("DELETE FROM nba_analytics.player_game_summary WHERE game_date = DATE '2026-02-03' AND player_lookup IN ('player134', 'player934')") // who did not play
	p := w.process()
	alone := w.json("nba_analytics.player_game_summary WHERE game_date = DATE '2026-02-03'")
	w.Exec(`INSERT INTO nba_analytics.player_game_summary SELECT * REPLACE (TIMESTAMP_SUB(processed_at, INTERVAL 18 SECOND) AS processed_at)
		FROM nba_analytics.player_game_summary WHERE game_date = DATE '2026-02-03' ORDER BY player_lookup LIMIT 72`)
	doubled := w.json("nba_analytics.player_game_summary WHERE game_date = DATE '2026-02-03'")
	if len(alone) != 348 || len(doubled) != 420 {
		t.Fatalf("%d and %d rows", len(alone), len(doubled))
	}
	table := "nba_analytics.player_game_summary WHERE game_date = DATE '2026-02-03'"

	preview := p.sweep(order(nil))
	p.wantPart(preview, Found, 72, 0, "")
	if preview.Severity != "critical" || preview.Keys != 72 || preview.Rows != 420 || *preview.Identical != 0 || preview.Newest.Sub(*preview.Oldest) != 18*time.Second {
		t.Errorf("%+v", preview)
	}
	w.want(table, doubled)
	if got := w.states(); got != "" {
		t.Errorf("a preview has left %s", got)
	}

	removed := p.sweep(order(all))
	p.wantPart(removed, Removed, 72, 72, "")
	w.want(table, alone) // the newer ones stay
	p.wantPart(p.sweep(order(all)), Clean, 0, 0, "")
	if got := w.Ask("SELECT COUNT(*), COUNTIF(phasegate_kept) FROM " + w.archive + ".`" + tableName(removed.ID) + "`"); fmt.Sprint(got) != "[144 72]" {
		t.Errorf("%v rows in the archive", got)
	}

	for range 2 {
		if _, err := p.Undo(t.Context(), removed.ID, "ada", "to see"); err != nil {
			t.Fatal(err)
		}
		w.want(table, doubled)
	}
	w.advance(time.Second)
	p.wantPart(p.sweep(order(all)), Removed, 72, 72, "")
	w.want(table, alone)
	if got := w.states(); got != "undone applied" {
		t.Errorf("%s", got)
	}
	for _, event := range []string{`"event":"duplicates_found"`, `"event":"duplicates_removed"`, `"event":"sweep_undone"`} {
		if !strings.Contains(p.logs.String(), event) {
			t.Errorf("no line %s", event)
		}
	}
	if locks, _, err := p.Locks.List(t.Context()); err != nil || len(locks) != 0 {
		t.Errorf("locks %v, %v", locks, err)
	}
}

func TestSweep_KeepsSurvivingRow(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores,
		row("alone", "1", "12"), row("newest", "1", "12"), row("newest", "2", "30"),
		row("triplet", "7", "12"), row("triplet", "7", "12"), row("triplet", "7", "12"),
		row("fuller", "NULL", "12"), row("fuller", "3", "12"), row("never", "4", ""), row("never", "NULL", "12"))
	p := w.process()
	o := order(all)
	o.Force = true // more than a quarter
	got := p.sweep(o)
	p.wantPart(got, Removed, 5, 5, "")
	if *got.Identical != 1 || got.Severity != "info" {
		t.Errorf("%+v", got)
	}
	w.want("nba_analytics.player_game_summary", []string{
		`{"game_date":2026-02-03,"player_lookup":"alone","points":1,"processed_at":2026-02-04T11:03:12Z}`,
		`{"game_date":2026-02-03,"player_lookup":"fuller","points":3,"processed_at":2026-02-04T11:03:12Z}`,
		`{"game_date":2026-02-03,"player_lookup":"never","points":null,"processed_at":2026-02-04T11:03:12Z}`,
		`{"game_date":2026-02-03,"player_lookup":"newest","points":2,"processed_at":2026-02-04T11:03:30Z}`,
		`{"game_date":2026-02-03,"player_lookup":"triplet","points":7,"processed_at":2026-02-04T11:03:12Z}`})
}

// twice are four players, one of them twice.
func twice() []string {
	return []string{row("a", "1", "12"), row("b", "1", "12"), row("c", "1", "12"), row("d", "1", "12"), row("d", "1", "30")}
}

func TestSweep_GuardRails(t *testing.T) {
	many := func(n, copies int) []string {
		var out []string
		for i := range n {
			for c := range copies {
				out = append(out, row(fmt.Sprint("p", i), fmt.Sprint(c), "12"))
			}
		}
		return out
	}
	for name, c := range map[string]struct {
		rows    []string
		pairs   []string
		problem string
		forced  State // what --force makes of it
	}{
		"a_quarter":       {rows: append(many(2, 2), row("x", "1", "12"), row("y", "1", "12"), row("z", "1", "12"), row("u", "1", "12")), forced: Removed},
		"more":            {rows: append(many(2, 2), row("x", "1", "12"), row("y", "1", "12"), row("z", "1", "12")), problem: "2 of 7 rows would be removed, more than 25 %", forced: Removed},
		"no_key":          {rows: append(twice(), "DATE '2026-02-03', NULL, 1, NULL"), problem: "1 row has NULL in a key column", forced: Refused},
		"no_key_alone":    {rows: []string{"DATE '2026-02-03', NULL, 1, NULL"}, problem: "1 row has NULL in a key column", forced: Refused},
		"key_not_there":   {rows: twice(), pairs: []string{"key: [game_date, player_lookup]", "key: [game_date, playr]"}, problem: "playr", forced: Unknown},
		"order_not_there": {rows: twice(), pairs: []string{"order_by: processed_at", "order_by: loaded_at"}, problem: "loaded_at", forced: Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := withScores(t, scores, c.rows...)
			parsed, err := pipeline.Parse([]byte(w.Definition(c.pairs...)))
			if err != nil {
				t.Fatal(err)
			}
			w.pipeline = parsed
			before := w.json("nba_analytics.player_game_summary")
			p := w.process()
			for _, fix := range []func(pipeline.Processor) bool{nil, all} {
				if got := p.sweep(order(fix)); c.problem != "" {
					if got.State == Removed || got.State == Clean || !strings.Contains(got.Problem, c.problem) {
						t.Errorf("%+v, want %q", got, c.problem)
					}
					w.want("nba_analytics.player_game_summary", before)
				}
			}
			o := order(all)
			o.Force = true
			if got := p.sweep(o); got.State != c.forced && !(c.problem == "" && got.State == Clean) {
				t.Errorf("with force %+v, want %s", got, c.forced)
			}
			if c.forced != Removed {
				w.want("nba_analytics.player_game_summary", before)
			}
		})
	}
}

// This test checks the limit alone, without a table of that size.
func TestSweep_Removes10000RowsWithoutForce(t *testing.T) {
	for surplus, refused := range map[int64]bool{10_000: false, 10_001: true} {
		if got := (Order{}).refusal(found(surplus, 1_000_000)); (got != "") != refused {
			t.Errorf("%d: %q", surplus, got)
		}
		if got := (Order{Force: true}).refusal(found(surplus, surplus)); got != "" {
			t.Errorf("%d by force: %q", surplus, got)
		}
	}
}

func TestSweep_KeepsRowsInStreamingBuffer(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	// The emulator has none: its answer is completed.
	p.answer = func(r *http.Request, answer map[string]any) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/tables/player_game_summary") {
			answer["streamingBuffer"] = map[string]any{"estimatedRows": "7", "oldestEntryTime": fmt.Sprint(morning.UnixMilli())}
		}
	}
	before := w.json("nba_analytics.player_game_summary")
	o := order(all)
	o.Force = true
	p.wantPart(p.sweep(o), Refused, 1, 0, "7 rows in its streaming buffer, since 2026-02-04T15:50:00Z")
	w.want("nba_analytics.player_game_summary", before)
}

func TestSweep_SkipsTableOfRunningProcessor(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	held, err := p.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: night}, "run-1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Run(t.Context(), order(all))
	if err != nil || !r.Tables[0].Again() || r.Left() != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	p.wantPart(*r.Tables[0], Busy, 1, 0, `is locked by execution "run-1"`)
	if _, err := p.Undo(t.Context(), "none", "ada", ""); !errors.Is(err, ErrNoSweep) {
		t.Errorf("%v", err)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.wantPart(p.sweep(order(all)), Removed, 1, 1, "")
}

// Two processors may fill one table: the sweep waits for both.
func TestSweep_LocksAllProcessorsOfTable(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	w.addWriter()
	p := w.process()
	for _, class := range []string{"PlayerGameSummaryProcessor", "PlayerCorrectionsProcessor"} {
		held, err := p.Locks.Acquire(t.Context(), lease.Key{Class: class, Period: night}, "run-1")
		if err != nil {
			t.Fatal(err)
		}
		p.wantPart(p.sweep(order(all)), Busy, 1, 0, class)
		if err := held.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p.before["MERGE"] = func() {
		locks, _, err := w.process().Locks.List(context.WithoutCancel(t.Context()))
		if err != nil || len(locks) != 2 {
			t.Errorf("it removes under %d locks, %v", len(locks), err)
		}
	}
	p.wantPart(p.sweep(order(all)), Removed, 1, 1, "")
	if len(p.before) != 0 {
		t.Error("nothing was removed")
	}
}

// If a run without a lock changes the rows meanwhile, the sweep removes nothing and reports that.
func TestF31_ARunWithoutALockInBetween(t *testing.T) {
	for _, at := range []string{"survivors", "MERGE"} {
		for name, change := range map[string]string{
			"appends":  "INSERT INTO nba_analytics.player_game_summary VALUES (" + row("d", "3", "45") + ")",
			"rewrites": "UPDATE nba_analytics.player_game_summary SET points = 9 WHERE player_lookup = 'd'",
			"deletes":  "DELETE FROM nba_analytics.player_game_summary WHERE player_lookup = 'd'",
		} {
			t.Run(at+"_"+name, func(t *testing.T) {
				t.Parallel()
				w := withScores(t, scores, twice()...)
				p := w.process()
				var changed []string
				p.before[at] = func() {
					w.Exec(change)
					changed = w.json("nba_analytics.player_game_summary")
				}
				got := p.sweep(order(all))
				p.wantPart(got, Changed, 1, 0, "a run without a lock wrote its rows meanwhile: nothing was removed")
				w.want("nba_analytics.player_game_summary", changed)
				if states := w.states(); states != "abandoned" {
					t.Errorf("%s", states)
				}
				if _, err := p.Undo(t.Context(), got.ID, "ada", ""); !errors.Is(err, errNotUndone) {
					t.Errorf("%v", err)
				}
				w.want("nba_analytics.player_game_summary", changed)
			})
		}
	}
}

// New rows of other keys do not stop a removal, and stay.
func TestSweep_AllowsNewRowsOfOtherKeys(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	p.before["MERGE"] = func() { w.insert(row("new", "3", "45")) }
	p.wantPart(p.sweep(order(all)), Removed, 1, 1, "")
	if got := w.json("nba_analytics.player_game_summary"); len(got) != 5 || !strings.Contains(strings.Join(got, ""), `"new"`) {
		t.Errorf("%s", got)
	}
}

// A table that cannot be read is unknown, and stops no other.
func TestSweep_UnreadableTableDoesNotStopOthers(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	r, err := p.Run(t.Context(), Order{From: night, To: night, Fix: all, Actor: "ada"})
	if err != nil || len(r.Tables) != 10 || r.Unknown() != 9 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, part := range r.Tables {
		if part.Table == w.table() {
			p.wantPart(*part, Removed, 1, 1, "")
		} else if part.State != Unknown || part.Problem == "" || part.Again() {
			t.Errorf("%+v", part)
		}
	}
	if _, err := p.Run(t.Context(), Order{Table: "roster_history", From: night, To: night}); err == nil || !strings.Contains(err.Error(), `"roster_history" is neither`) {
		t.Errorf("%v", err)
	}
}

func found(surplus, rows int64) warehouse.Duplicates {
	return warehouse.Duplicates{Rows: rows, Surplus: surplus}
}

func TestSeverity_FollowsDuplicateCount(t *testing.T) {
	for n, want := range map[int64]string{0: "", 1: "info", 5: "info", 6: "warning", 20: "warning", 21: "critical"} {
		if got := Severity(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
