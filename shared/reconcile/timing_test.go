package reconcile

import (
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestRun_RepairsATableThatHasBeenIdleFor30Minutes(t *testing.T) {
	for idle, settled := range map[time.Duration]bool{settled - time.Second: false, settled: true} {
		s := newScene(t)
		s.first()
		s.data(night)
		s.reports(night, "player_game_summary")
		before := len(s.PubSub.Messages())
		at := morning.Add(-idle)
		s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 348, Oldest: at, Newest: at})
		r := s.run(night, night, "ada@host")
		if n := len(s.PubSub.Messages()) - before; (n == 5) != settled || (len(r.Unknown) == 0) != settled {
			t.Errorf("idle for %v: found %q, unknown %q, %d messages", idle, types(r), r.Unknown, n)
		}
	}
}

// The engine writes the compatibility document last: it lags behind reports that have just
// come.
func TestRun_JudgesNoDocumentWhileRunsReport(t *testing.T) {
	for after, want := range map[time.Duration]string{policy.ReportsWithin - time.Second: "", policy.ReportsWithin: "count_drift, flag_drift"} {
		s := newScene(t)
		s.SetNow(wrote(night)) // the store's clock does not go back
		s.first()
		s.data(night)
		for name, n := range rowsOf {
			s.report(night, name, n)
		}
		s.SetNow(wrote(night).Add(10*time.Second + after))
		if r := s.run(night, night, ""); types(r) != want || len(r.Unknown) != 0 {
			t.Errorf("%v after the reports: found %q, want %q; unknown %q", after, types(r), want, r.Unknown)
		}
	}
}

// The clock of a table's rows may be off by ReportsWithin. So our own hand-over explains
// rows of the next phase that seem to be a little older than it.
func TestRun_ToleratesAClockThatIsOffWhenItLooksForTheNextPhase(t *testing.T) {
	for name, tc := range map[string]struct {
		before time.Duration // how long before our hand-over the next phase seems to have written
		status Status
		sends  int
	}{
		"within_the_tolerance": {policy.ReportsWithin - time.Second, Repaired, 1},
		"of_another_hand_over": {policy.ReportsWithin, Skipped, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.SetNow(wrote(night).Add(time.Minute))
			s.first()
			s.data(night)
			s.reports(night, "team_defense_game_summary") // its completion was lost
			s.SetNow(s.Now().Add(31 * time.Minute))
			published := s.Now()
			if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err != nil { // grace has ended
				t.Fatal(err)
			}
			before := len(s.PubSub.Messages())
			s.phase4(night, published.Add(-tc.before))
			s.SetNow(published.Add(nextPhaseWithin))
			r := s.run(night, night, "ada@host")
			if types(r) != "missing_completion team_defense_game_summary" {
				t.Errorf("found %q", types(r))
			}
			for _, f := range r.Findings {
				if f.Status != tc.status {
					t.Errorf("%s is %s, want %s: %v", f.Type, f.Status, tc.status, f.Evidence)
				}
			}
			if n := len(s.PubSub.Messages()) - before; n != tc.sends {
				t.Errorf("%d messages, want %d", n, tc.sends)
			}
		})
	}
}

// A process can send messages and die before it writes down their ids. What the next phase has run
// meanwhile is explained by this hand-over, whenever it is finished.
func TestRun_LateConfirmationExplainsTheNextPhase(t *testing.T) {
	s := newScene(t)
	s.SetNow(wrote(night).Add(time.Minute))
	s.first()
	s.data(night)
	s.reports(night, "team_defense_game_summary") // its completion was lost
	s.SetNow(s.Now().Add(31 * time.Minute))
	back := s.brokerAway() // the ids never come
	if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err == nil {
		t.Fatal("published")
	}
	s.phase4(night, s.Now().Add(10*time.Minute)) // but the messages have arrived
	s.SetNow(s.Now().Add(6 * time.Hour))
	back()
	if _, err := s.Engine.Converge(t.Context(), s.key(), ""); err != nil { // the relay sends copies
		t.Fatal(err)
	}
	r := s.run(night, night, "ada@host")
	if types(r) != "missing_completion team_defense_game_summary" || r.Findings[0].Status != Repaired {
		t.Errorf("%s: %+v", types(r), r.Findings)
	}
}

func TestRun_ToleratesAClockThatIsOffBeforeItMissesTheNextPhase(t *testing.T) {
	for before, want := range map[time.Duration]string{policy.ReportsWithin: "", policy.ReportsWithin + time.Second: "next_phase_missing"} {
		s := newScene(t)
		s.good(night)
		s.phase4(night, morning.Add(-before))
		s.SetNow(morning.Add(nextPhaseWithin + time.Minute))
		if r := s.run(night, night, ""); types(r) != want || len(r.Unknown) != 0 {
			t.Errorf("the next phase wrote %v before the hand-over: found %q, want %q; unknown %q", before, types(r), want, r.Unknown)
		}
	}
}

// A process that died leaves its lock. Once the lock has expired, it says nothing about the
// table.
func TestRun_RepairsATableWhoseLockHasExpired(t *testing.T) {
	for after, expired := range map[time.Duration]bool{lease.Max: false, lease.Max + time.Second: true} {
		s := newScene(t)
		s.first()
		s.data(night)
		s.reports(night, "player_game_summary")
		before := len(s.PubSub.Messages())
		if _, err := s.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: night}, "run-1"); err != nil {
			t.Fatal(err)
		}
		s.SetNow(morning.Add(after))
		r := s.run(night, night, "ada@host")
		if locked := strings.Contains(strings.Join(r.Unknown, ""), "has the lock"); locked == expired || len(r.Unknown) > 1 {
			t.Errorf("%v after the acquisition: unknown %q", after, r.Unknown)
		}
		if n := len(s.PubSub.Messages()) - before; (n == 5) != expired || (types(r) == "missing_completion player_game_summary") != expired {
			t.Errorf("%v after the acquisition: found %q, %d messages", after, types(r), n)
		}
	}
}

// deaf is a store that answers although the caller's context has ended.
type deaf struct{ inner store.Store }

func (d deaf) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	return d.inner.Get(context.WithoutCancel(ctx), refs...)
}

func (d deaf) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	return d.inner.Apply(context.WithoutCancel(ctx), writes...)
}

func (d deaf) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return d.inner.Scan(context.WithoutCancel(ctx), collection, from, to)
}

// The lock of the nightly job may be another's by then.
func TestRun_RepairsNothingAfterItsContextHasEnded(t *testing.T) {
	s := newScene(t)
	s.first()
	for _, p := range []pipeline.Period{"2026-02-02", night} {
		s.data(p)
		s.reports(p, "player_game_summary")
	}
	s.Engine.Store = deaf{s.Engine.Store}
	ctx, cancel := context.WithCancel(t.Context())
	publish := s.Engine.Publish
	s.Engine.Publish = func(c context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
		defer cancel()
		return publish(context.WithoutCancel(c), topic, msgs)
	}
	if _, err := s.rec.Run(ctx, s.tr, "2026-02-02", night, "nightly"); err == nil || !strings.Contains(err.Error(), "repairing from 2026-02-03 on: context canceled") {
		t.Errorf("error %v, want the period from which on it repaired nothing", err)
	}
	if doc := s.Doc(t, "phase_periods", s.tr.ID+"_2026-02-02"); doc.Data["repaired_at"] == nil {
		t.Error("2026-02-02 was not repaired before the context ended")
	}
	if doc := s.Doc(t, "phase_periods", s.tr.ID+"_2026-02-03"); doc.Data["repaired_at"] != nil {
		t.Error("2026-02-03 was repaired after the context ended")
	}
}
