package cycle

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// adopting is a pipeline that reports for the first time about 2026-02-03.
func adopting(t *testing.T) *world {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(run("player_game_summary", "2026-02-04 06:00"))
	return w
}

func (w *world) since() pipeline.Period {
	w.t.Helper()
	m, err := w.engine.Managed(context.Background(), w.tr)
	if err != nil {
		w.t.Fatal(err)
	}
	return m.Since
}

// A completion with an old date, of a backfill or a typing error, does not make the periods
// since then managed.
func TestManagedSince_OldDateDoesNotMoveIt(t *testing.T) {
	w := adopting(t)
	if got := w.since(); got != "2026-02-03" {
		t.Fatalf("before the first relay: %s", got)
	}
	w.relay()
	for _, old := range []pipeline.Period{"2026-01-30", "2025-02-03"} {
		c := run("player_game_summary", "2026-02-04 06:10")
		c.Period = old
		w.mustDeliver(c)
	}
	if got := w.since(); got != "2026-02-03" {
		t.Errorf("managed since %s", got)
	}
	w.overdue()
	w.clock.set(at("2026-02-04 14:00"))
	w.relay()
	if got := w.overdue(); slices.Contains(got, "2026-02-01 overnight") || !slices.Contains(got, "2026-02-03 overnight") {
		t.Errorf("overdue: %v", got)
	}
	tr := *w.tr
	tr.ManagedSince = "2026-01-15" // the pipeline file has priority
	if got, err := w.engine.Managed(context.Background(), &tr); err != nil || got.Since != "2026-01-15" {
		t.Errorf("%+v, %v", got, err)
	}
}

// A day before the adoption causes no alert and no notification: the status page does not show it either.
func TestManagedSince_EarlierPeriodIsNotOverdue(t *testing.T) {
	w := adopting(t)
	w.relay()
	states := map[string]string{}
	w.clock.set(at("2026-02-04 14:00"))
	w.overdue()
	c := run("player_game_summary", "2026-02-04 13:59")
	c.Period = "2026-02-02"
	w.mustDeliver(c)
	if err := w.engine.Relay(t.Context(), w.tr, "relay", func(_ Key, cycles []Status) {
		for _, st := range cycles {
			states[st.Period+" "+st.Mode] = st.State
		}
	}); err != nil {
		t.Fatal(err)
	}
	if got := w.overdue(); slices.Contains(got, "2026-02-02 overnight") || !slices.Contains(got, "2026-02-03 overnight") {
		t.Errorf("overdue: %v", got)
	}
	if states["2026-02-02 overnight"] != "waiting" || states["2026-02-03 overnight"] != "overdue" {
		t.Errorf("%v", states)
	}
}

func TestManagedSince_NothingRecorded(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	w.relay()
	if got := w.since(); got != "" {
		t.Errorf("managed since %q", got)
	}
	w.mustDeliver(run("player_game_summary", "2026-02-04 06:00"))
	w.relay()
	if got := w.doc(periodsCollection, "phase3_to_phase4~watch").Data["managed_since"]; got != "2026-02-03" {
		t.Errorf("recorded: %v", got)
	}
}

// failingList is a store whose next write of the watch list goes wrong.
type failingList struct {
	store.Store
	id   string
	fail func(apply func() ([]store.Version, error)) ([]store.Version, error)
}

func (r *failingList) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	if fail := r.fail; fail != nil && len(ws) == 1 && ws[0].Ref.ID == r.id {
		r.fail = nil
		return fail(func() ([]store.Version, error) { return r.Store.Apply(ctx, ws...) })
	}
	return r.Store.Apply(ctx, ws...)
}

// If the write fails, or its answer is lost, the next relay has the same date.
func TestManagedSince_WriteThatGoesWrong(t *testing.T) {
	lost := errors.New("the answer was lost")
	for name, fail := range map[string]func(func() ([]store.Version, error)) ([]store.Version, error){
		"not_written":      func(func() ([]store.Version, error)) ([]store.Version, error) { return nil, lost },
		"answer_lost":      func(apply func() ([]store.Version, error)) ([]store.Version, error) { _, _ = apply(); return nil, lost },
		"another_is_first": func(apply func() ([]store.Version, error)) ([]store.Version, error) { _, _ = apply(); return apply() },
	} {
		t.Run(name, func(t *testing.T) {
			w := adopting(t)
			w.engine.Store = &failingList{w.engine.Store, "phase3_to_phase4~watch", fail}
			err := w.engine.Relay(context.Background(), w.tr, "", nil)
			if wrong := name != "another_is_first"; (err != nil) != wrong {
				t.Errorf("%v", err)
			}
			w.relay()
			old := run("player_game_summary", "2026-02-04 06:10")
			old.Period = "2025-02-03"
			w.mustDeliver(old)
			w.relay()
			if got := w.since(); got != "2026-02-03" {
				t.Errorf("managed since %s", got)
			}
		})
	}
}

// Some cycles began to count reports before the first relay. Their reports may have gone to another
// orchestrator, so they are not overdue if nothing is recorded. Later cycles, and cycles with a
// report, are overdue as usual.
func TestManaged_CyclesOfBeforeTheFirstRelayAreNotOverdue(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 05:00"))
	w.relay() // the deployment's first: the reports for tomorrow arrived at 17:00 the day before
	w.clock.set(at("2026-02-04 06:00"))
	w.mustDeliver(run("player_game_summary", "2026-02-04 06:00"))
	w.relay()
	if got := w.overdue(); len(got) != 0 {
		t.Errorf("after the first report: %v", got)
	}
	w.clock.set(at("2026-02-04 13:30"))
	w.relay()
	got := w.overdue()
	for cycle, want := range map[string]bool{"2026-02-04 tomorrow": false, "2026-02-04 same_day": true, "2026-02-03 overnight": true} {
		if slices.Contains(got, cycle) != want {
			t.Errorf("%s is overdue: %v, want %v", cycle, !want, want)
		}
	}
	m, err := w.engine.Managed(context.Background(), w.tr)
	if err != nil || !m.At.Equal(at("2026-02-04 05:00")) || m.Since != "2026-02-03" {
		t.Errorf("%+v, %v", m, err)
	}
	given := *w.tr
	given.ManagedSince = "2026-02-04" // by the pipeline file
	if m, err := w.engine.Managed(context.Background(), &given); err != nil || m.Since != "2026-02-04" || !m.missed(w.tr, "2026-02-04", w.tr.Modes[0]) || m.missed(w.tr, "2026-02-04", w.tr.Modes[1]) {
		t.Errorf("%+v, %v", m, err)
	}
}

// State of an earlier version has no time of the first relay: every cycle since managed_since counts.
func TestManaged_StateOfAnEarlierVersionMissesNothing(t *testing.T) {
	w := adopting(t)
	if _, err := w.engine.Store.Apply(context.Background(), store.Create(w.engine.watchRef(w.tr), store.F("2026-02-03", "managed_since"))); err != nil {
		t.Fatal(err)
	}
	w.relay()
	if m, err := w.engine.Managed(context.Background(), w.tr); err != nil || !m.At.IsZero() || m.Since != "2026-02-03" {
		t.Errorf("%+v, %v", m, err)
	}
	if !slices.Contains(w.overdue(), "2026-02-04 tomorrow") {
		t.Error("a cycle without a report is not overdue")
	}
}

// A report that counts for no mode, such as the failure of another mode's processor in the evening,
// makes no cycle from before the first relay overdue.
func TestManaged_ReportOfAnotherModeMakesNothingOverdue(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 21:00"))
	w.relay()
	failed := run("player_game_summary", "2026-02-04 21:00")
	failed.Period, failed.Status = "2026-02-04", wire.StatusFailed
	w.mustDeliver(failed)
	w.relay()
	if got := w.overdue(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
