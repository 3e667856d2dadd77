package reconcile

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

// refusing answers every scan that begins at an id with an error.
type refusing struct {
	store.Store
	at string
}

func (r refusing) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	if from == r.at {
		return func(yield func(store.Doc, error) bool) { yield(store.Doc{}, errors.New("not now")) }
	}
	return r.Store.Scan(ctx, collection, from, to)
}

// A later period that cannot be read is named, and the findings of the others are reported.
func TestRun_NamesALaterPeriodThatCannotBeRead(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.reports(night, "player_game_summary")
	ref := store.Ref{Collection: "phase_periods", ID: s.tr.StoredID() + "_2026-03-02"}
	if _, err := s.Store.Apply(t.Context(), store.Merge(ref, store.F("damaged", "batches"))); err != nil {
		t.Fatal(err)
	}
	r := s.run(night, night, "")
	if !strings.Contains(types(r), "missing_completion player_game_summary") {
		t.Errorf("findings: %s", types(r))
	}
	if len(r.Unknown) != 1 || !strings.Contains(r.Unknown[0], "2026-03-02: ") {
		t.Errorf("unknown: %q", r.Unknown)
	}
}

// While it is not known whether a transition was renamed, findings are reported and nothing is
// repaired: what is missing may be recorded by another name.
func TestRun_RepairsNothingWhileNamesAreUnread(t *testing.T) {
	for name, at := range map[string]string{"names": "0", "later periods": "phase3_to_phase4_2026-02-07"} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.first()
			s.data(night)
			s.reports(night, "player_game_summary")
			a, config := *s.App, s.Engine.Config
			config.Store = refusing{s.Store, at}
			a.Engine = cycle.New(config)
			s.rec = withWarehouse(s, &a)
			before := len(s.PubSub.Messages())
			r := s.run(night, night, "ada@host")
			want, repaired := Repaired, true
			if name == "names" {
				want, repaired = Open, false
			}
			if n := len(s.PubSub.Messages()) - before; (n > 0) != repaired {
				t.Errorf("%d messages published", n)
			}
			if _, at := s.Doc(t, "phase_periods", s.tr.StoredID()+"_"+string(night)).Data["repaired_at"]; at != repaired {
				t.Errorf("repaired: %v", at)
			}
			found := false
			for _, f := range r.Findings {
				if f.Type == MissingCompletion {
					found = true
					if f.Status != want {
						t.Errorf("%s: %s, want %s", f.Type, f.Status, want)
					}
				}
			}
			if !found || len(r.Unknown) != 1 || !strings.Contains(r.Unknown[0], "not now") {
				t.Errorf("findings %s, unknown %q", types(r), r.Unknown)
			}
		})
	}
}

// withWarehouse returns a reconciler of another application with a scene's warehouse.
func withWarehouse(s *scene, a *app.App) *Reconciler {
	r := New(a)
	r.Contents, r.Expected, r.Sweep = s.rec.Contents, s.rec.Expected, s.rec.Sweep
	return r
}

// A period whose repair panics is reported as failed; the others are repaired and reported.
func TestRun_APanicOfOnePeriodKeepsNoOtherFromItsRepair(t *testing.T) {
	s := newScene(t)
	s.first()
	const before = pipeline.Period("2026-02-02")
	for _, p := range []pipeline.Period{before, night} {
		s.data(p)
		s.reports(p, "player_game_summary")
	}
	s.Engine.Check = func(_ context.Context, key cycle.Key, _ string, _ []string) cycle.Readiness {
		if key.Period == before {
			panic("the check is broken")
		}
		return cycle.Readiness{Outcome: cycle.Passed}
	}
	r := s.run(before, night, "nightly")
	status := map[pipeline.Period]Status{}
	for _, f := range r.Findings {
		if f.Type == MissingCompletion {
			status[f.Period] = f.Status
		}
	}
	if status[before] != Failed || status[night] != Repaired {
		t.Errorf("the period that panics is %q, and the other %q; findings: %s", status[before], status[night], types(r))
	}
}
