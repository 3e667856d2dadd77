package local

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompletion_FailedRunAfterSuccessChangesNothing(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind)
		w.atTime("2026-02-04 06:05", morning()...)
		w.exhaust()
		before, sent := w.status("overnight"), len(w.phase4.deliveries())

		failed := done(pgs, "2026-02-04 07:00", with("status", "failed"), with("record_count", 0), with("error_type", "Timeout"))
		w.atTime("2026-02-04 07:00", failed)
		w.atTime("2026-02-04 07:01", failed, failed)
		w.exhaust()

		if n := w.runs(pgs); n != 2 {
			t.Errorf("%d runs are recorded, want the successful and the failed one", n)
		}
		if diff := cmp.Diff(before, w.status("overnight")); diff != "" {
			t.Errorf("status (-before +after):\n%s", diff)
		}
		if n := len(w.phase4.deliveries()); n != sent {
			t.Errorf("%d deliveries, want the %d from before", n, sent)
		}
	})
}

func TestCompletion_OtherRowCountIsSecondRun(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind)
		w.atTime("2026-02-04 06:05", morning()...)
		w.exhaust()
		again := done(pgs, "2026-02-04 06:00", with("record_count", 348))
		w.atTime("2026-02-04 06:10", again)
		w.exhaust()

		if n := w.runs(pgs); n != 2 {
			t.Errorf("%d runs are recorded, want 2", n)
		}
		// Phase 4 has to see the other count, under an id of its own.
		w.wantHandedOver("overnight", append([]string{pgs}, five...)...)
		s := w.status("overnight")
		if len(s.Batches) != 2 || s.Batches[1].Cause != "second_run" || len(s.Batches[1].Runs) != 1 {
			t.Errorf("batches %+v, want a second one for the second run", s.Batches)
		}
	})
}

func TestRelay_HandsOverAtNotBefore(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind, func(o *Options) { o.Schedule = true })
		var rs []report
		for _, p := range five {
			rs = append(rs, done(p, "2026-02-04 01:15"))
		}
		w.atTime("2026-02-04 01:15", rs...)
		w.Clock.AdvanceTo(at("2026-02-04 04:59"))
		w.exhaust()
		w.wantHandedOver("overnight")
		// Waiting, or grace when the critical ones were seen before the rest.
		if s := w.status("overnight"); !s.NextCheck.Equal(at("2026-02-04 05:00")) {
			t.Errorf("before: %s, next check %s, want 05:00", s.State, s.NextCheck)
		}

		w.Clock.AdvanceTo(at("2026-02-04 05:00")) // nothing is published by the test
		w.phase4.wait(t, 5)
		w.settle()
		w.wantHandedOver("overnight", five...)
		w.wantPublishedOnce("overnight")
	})
}

func TestStore_FileOutlivesEnvironment(t *testing.T) {
	t.Parallel()
	stores := openStore(t, "sqlite")
	w := newWorld(t, "", func(o *Options) { o.Stores = stores })
	rs := morning()
	w.atTime("2026-02-04 06:05", rs[:2]...)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	w = newWorld(t, "", func(o *Options) { o.Stores = stores })
	w.atTime("2026-02-04 06:06", rs[2:]...)
	w.exhaust()
	w.wantHandedOver("overnight", five...)
	w.wantPublishedOnce("overnight")
}
