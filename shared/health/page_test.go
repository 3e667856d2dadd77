package health

import (
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// The page names the date of adoption. A completion of an earlier day (a backfill, a typing
// error) is shown, and makes no cycle of the days in between overdue.
func TestPage_NamesTheDateOfAdoptionAndJudgesNoEarlierDay(t *testing.T) {
	w, _ := checker(t)
	tr := w.Pipeline.Transitions[0]
	record := func(p pipeline.Period) {
		t.Helper()
		c := wire.Completion{Processor: tr.Order[0], Reported: "x", Period: p, Status: wire.StatusSuccess, EventTime: morning, ExecutionID: "x", CorrelationID: "x"}
		if err := w.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: p}, c); err != nil {
			t.Fatal(err)
		}
	}
	grid := func() Grid { t.Helper(); return ReadPage(t.Context(), w.App, 7).Grids[0] }
	if g := grid(); g.Adopted != "" || g.Problem != "" {
		t.Errorf("at first: %q, %q", g.Adopted, g.Problem)
	}
	record("2026-02-02")
	if err := w.Engine.Relay(t.Context(), tr, ""); err != nil {
		t.Fatal(err)
	}
	record("2026-01-30")
	g := grid()
	if g.Adopted != "adopted on 2026-02-02; earlier days are not judged" {
		t.Errorf("adopted: %q", g.Adopted)
	}
	for _, row := range g.Rows {
		var words []string
		for _, c := range row.Cells {
			words = append(words, c.State)
		}
		overdue := strings.Contains(strings.Join(words, " "), "overdue")
		if want := row.Period >= "2026-02-02" || row.Period == "2026-01-30"; row.Period <= "2026-02-03" && overdue != want {
			t.Errorf("%s: %q", row.Period, words)
		}
	}
	ref := store.Ref{Collection: "phase_periods", ID: tr.StoredID() + "~watch"}
	if _, err := w.Store.Apply(t.Context(), store.Merge(ref, store.F("soon", "managed_since"))); err != nil {
		t.Fatal(err)
	}
	if g := grid(); !strings.Contains(g.Problem, "managed_since") {
		t.Errorf("damaged: %q", g.Problem)
	}
}
