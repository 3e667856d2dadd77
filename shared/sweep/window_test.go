package sweep

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
)

const nightBefore = "2026-02-02"

// dayBefore makes a row of the night before of one of the night.
func dayBefore(row string) string { return strings.Replace(row, "2026-02-03", nightBefore, 1) }

// An order has an authority: its periods, its reason, --force. It is none over an unfinished
// removal of another period, which is completed or abandoned, and nothing else happens there.
func TestRun_DoesNothingOutsideItsPeriodsButEndWhatIsUnfinished(t *testing.T) {
	for name, c := range map[string]struct {
		dies   string // the unfinished removal dies right after the request with this text
		rows   []string
		states string
		left   int
	}{
		"abandoned_before_it_removed": {dies: "survivors", rows: twice(), states: "abandoned applied", left: 5},
		"completed":                   {dies: "MERGE", rows: twice(), states: "applied applied", left: 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := withScores(t, scores, twice()...)
			for _, r := range c.rows {
				w.insert(dayBefore(r))
			}
			p := w.process()
			o := order(all)
			o.From, o.To = nightBefore, nightBefore
			p.diesAt(c.dies)
			if _, err := p.Run(context.Background(), o); err != nil || !p.dead {
				t.Fatal(err, p.dead)
			}
			w.advance(11 * time.Minute)
			// More than a quarter are twice by now: only --force would take them.
			w.insert(dayBefore(row("a", "1", "40")), dayBefore(row("b", "1", "40")), dayBefore(row("c", "1", "40")))

			next := w.process()
			forced := order(all)
			forced.Force = true
			r, err := next.Run(t.Context(), forced)
			if err != nil || len(r.Tables) != 2 {
				t.Fatalf("%+v, %v", r, err)
			}
			next.wantPart(*r.Tables[0], Resumed, 0, 0, "only its unfinished removal was completed")
			next.wantPart(*r.Tables[1], Removed, 1, 1, "")
			if r.Tables[0].Period != nightBefore || r.Open() != 0 || r.Unknown() != 0 {
				t.Errorf("%+v", r.Tables[0])
			}
			if got := w.states(); got != c.states {
				t.Errorf("the removals are %q, want %q", got, c.states)
			}
			if n := len(w.json("nba_analytics.player_game_summary WHERE game_date = DATE '" + nightBefore + "'")); n != c.left+3 {
				t.Errorf("%d rows of %s, want %d", n, nightBefore, c.left+3)
			}
		})
	}
}

// A processor that is at work on the other period keeps only the unfinished removal waiting.
func TestRun_IsNotBusyBecauseOfAnotherPeriod(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	for _, r := range twice() {
		w.insert(dayBefore(r))
	}
	p := w.process()
	o := order(all)
	o.From, o.To = nightBefore, nightBefore
	p.diesAt("survivors")
	if _, err := p.Run(context.Background(), o); err != nil || !p.dead {
		t.Fatal(err, p.dead)
	}
	w.advance(11 * time.Minute)
	next := w.process()
	held, err := next.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: nightBefore}, "run-1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := next.Run(t.Context(), order(all))
	if err != nil || len(r.Tables) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	next.wantPart(*r.Tables[0], Busy, 0, 0, "the next sweep completes its unfinished removal")
	next.wantPart(*r.Tables[1], Removed, 1, 1, "")
	if r.Tables[0].Again() || r.Open() != 0 || r.Left() != 0 || r.Unknown() != 0 {
		t.Errorf("%+v, %d open", r.Tables[0], r.Open())
	}
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := next.Run(t.Context(), order(all)); err != nil || w.states() != "abandoned applied" {
		t.Errorf("the removals are %q, %v", w.states(), err)
	}
}

// The pipeline may have changed from hours to days since.
func TestRun_NamesAnUnfinishedRemovalOfAnotherCalendar(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	p.diesAt("MERGE")
	if _, err := p.Run(context.Background(), order(all)); err != nil || !p.dead {
		t.Fatal(err, p.dead)
	}
	w.advance(11 * time.Minute)
	ref := store.Ref{Collection: "sweeps", ID: firstSweep(t, w)}
	snap, err := w.mem.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.mem.Apply(t.Context(), store.MergeIf(ref, snap.Docs[0].Version, store.F("2026-02-03T14", "period"))); err != nil {
		t.Fatal(err)
	}
	got, err := w.process().Run(t.Context(), order(all))
	if err != nil || len(got.Tables) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	p.wantPart(*got.Tables[0], Unknown, 0, 0, `"2026-02-03T14" is no date of the form YYYY-MM-DD`)
	if got.Tables[0].Again() || got.Tables[1].State != Clean {
		t.Errorf("%+v", got.Tables[1])
	}
}

func firstSweep(t *testing.T, w *world) string {
	t.Helper()
	listed, err := w.process().List(t.Context())
	if err != nil || len(listed) == 0 {
		t.Fatalf("%+v, %v", listed, err)
	}
	return listed[0].ID
}
