package sweep

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/warehouse"
)

func TestRecord_ExpiresOnlyOnceEnded(t *testing.T) {
	if store.Kept < 2*warehouse.ArchiveKept {
		t.Fatal("a removal expires while it can be undone")
	}
	now := morning
	clock := func() time.Time { return now }
	s := &Sweeper{Store: memory.New(clock), Now: clock, NewID: newID, Log: slog.New(slog.NewJSONHandler(io.Discard, nil))}
	r := &record{ID: s.newSweep() + "~x_2026-02-03", Table: "d.t", Period: night, State: planned}
	if err := s.create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{planned, archived, applied, undoing, applied, undoing, undone, abandoned} {
		now = now.Add(time.Hour)
		if state != planned {
			if err := s.step(t.Context(), r, state); err != nil {
				t.Fatal(err)
			}
		}
		snap, err := s.Store.Get(t.Context(), s.ref(r.ID))
		if err != nil {
			t.Fatal(err)
		}
		want := any(nil)
		if state == applied || state == undone || state == abandoned {
			want = now.Add(store.Kept)
		}
		if got, there := snap.Docs[0].Data[store.ExpiresAt]; got != want || !there {
			t.Errorf("%s: expires_at is %v (written: %t), want %v", state, got, there, want)
		}
	}
}
