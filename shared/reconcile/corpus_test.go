package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// corpus has each fault of a night, its findings, and whether a repair mends it.
var corpus = map[string]struct {
	wrong    func(s *scene, p pipeline.Period)
	findings string
	mends    bool
	sends    int // messages that --fix adds
}{
	"a completion was lost": {func(s *scene, p pipeline.Period) {
		s.data(p)
		s.reports(p, "player_game_summary")
	}, "missing_completion player_game_summary", true, 5},
	"a night was never recorded": {func(s *scene, p pipeline.Period) { s.data(p) },
		"missing_completion player_game_summary, missing_completion team_defense_game_summary, missing_completion team_offense_game_summary, missing_completion upcoming_player_game_context, missing_completion upcoming_team_game_context", true, 5},
	"a later run did not report": {func(s *scene, p pipeline.Period) {
		s.data(p)
		s.reports(p)
		s.slice(table("player_game_summary"), p, warehouse.Slice{Rows: 360, Oldest: wrote(p).Add(time.Hour), Newest: wrote(p).Add(time.Hour)})
		s.phase4(p, s.Now().Add(time.Minute))
		s.slice("nba_precompute.player_daily_cache", p, warehouse.Slice{})
		for _, other := range s.Pipeline.Phases[1].Processors {
			s.slice(other.Table, p, warehouse.Slice{Rows: 1, Oldest: wrote(p), Newest: wrote(p).Add(30 * time.Minute)})
		}
	}, "missing_completion player_game_summary", true, 1},
	"nobody looked": {func(s *scene, p pipeline.Period) {
		s.data(p)
		for name, n := range rowsOf {
			s.report(p, name, n)
		}
	}, "count_drift, flag_drift, untriggered", true, 5},
	"the count lags": {func(s *scene, p pipeline.Period) {
		s.good(p)
		s.edit(p, store.F(1, "_completed_count"))
	}, "count_drift", true, 0},
	"a flag was set by hand": {func(s *scene, p pipeline.Period) {
		s.good(p)
		s.edit(p, store.F(true, "_trigger_pending"))
	}, "flag_drift", true, 0},
	"a run reported rows that are not there": {func(s *scene, p pipeline.Period) {
		s.good(p)
		s.slice(table("team_offense_game_summary"), p, warehouse.Slice{})
	}, "phantom_completion team_offense_game_summary", false, 0},
	"rows went": {func(s *scene, p pipeline.Period) {
		s.good(p)
		s.slice(table("player_game_summary"), p, warehouse.Slice{Rows: 140, Oldest: wrote(p), Newest: wrote(p)})
	}, "partial_data player_game_summary", false, 0},
	"rows are doubled": {func(s *scene, p pipeline.Period) {
		s.good(p)
		s.slice(table("player_game_summary"), p, warehouse.Slice{Rows: 420, Surplus: 72, Oldest: wrote(p), Newest: wrote(p)})
	}, "duplicate_rows player_game_summary", false, 0},
	"rows lie between two periods": {func(s *scene, p pipeline.Period) {
		s.good(p)
		s.tables[table("player_game_summary")].Strays[p] = warehouse.Stray{Rows: 2, Example: "2026-02-03T14:20:00Z"}
	}, "stray_rows player_game_summary", false, 0},
	"nothing came": {func(s *scene, p pipeline.Period) { s.expected[p] = 10 }, "missing_period", false, 0},
	"something came that nobody expected": {func(s *scene, p pipeline.Period) {
		s.good(p)
		s.expected[p] = 0
	}, "unexpected_period", false, 0},
	"the next phase did not run": {func(s *scene, p pipeline.Period) {
		s.good(p)
		s.phase4(p, wrote(p).Add(-time.Hour))
		s.SetNow(s.Now().Add(3 * time.Hour))
	}, "next_phase_missing", false, 0},
}

func TestReconcile_EachFindingIsNamedAndRepairedIfPossible(t *testing.T) {
	for name, c := range corpus {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.first()
			c.wrong(s, night)
			before := len(s.PubSub.Messages())
			preview := s.run(night, night, "")
			if got := types(preview); got != c.findings || len(preview.Unknown) != 0 {
				t.Fatalf("found %s, want %s; unknown %q", got, c.findings, preview.Unknown)
			}
			if n := len(s.PubSub.Messages()); n != before {
				t.Errorf("a run without repairs has sent %d messages", n-before)
			}
			fixed := s.run(night, night, "ada@host")
			for _, f := range fixed.Findings {
				if c.mends != (f.Status == Repaired) {
					t.Errorf("%s: %s", f.Type, f.Status)
				}
			}
			if n := len(s.PubSub.Messages()) - before; n != c.sends {
				t.Errorf("%d messages sent, want %d: %v", n, c.sends, s.received())
			}
			s.phase4(night, s.Now().Add(time.Minute)) // it runs, if it was triggered
			again := s.run(night, night, "ada@host")
			if c.mends && len(again.Findings)+len(again.Unknown) != 0 || c.mends && again.pct() != 100 {
				t.Errorf("after the repair: %s, unknown %q, accuracy %v", types(again), again.Unknown, again.pct())
			}
			if n := len(s.PubSub.Messages()) - before; n != c.sends {
				t.Errorf("%d messages after the second repair, want %d", n, c.sends)
			}
		})
	}
}

// Two faults at once, on two nights, are found and repaired as each of them alone.
func TestReconcile_PairsOfFindingsAreRepaired(t *testing.T) {
	names := slices.Sorted(maps.Keys(corpus))
	for _, one := range names {
		for _, other := range names {
			s := newScene(t)
			s.first()
			first, second := corpus[one], corpus[other]
			first.wrong(s, "2026-02-02")
			second.wrong(s, night)
			before := len(s.PubSub.Messages())
			r := s.run("2026-02-02", night, "ada@host")
			want := first.findings
			if one == "a later run did not report" && other == "the next phase did not run" { // hours pass
				want += ", next_phase_missing"
			}
			if got := of(r, "2026-02-02"); got != want {
				t.Errorf("%s, together with %s: %s", one, other, got)
			}
			if got := of(r, night); got != second.findings {
				t.Errorf("%s, together with %s: %s", other, one, got)
			}
			if n := len(s.PubSub.Messages()) - before; n != first.sends+second.sends {
				t.Errorf("%s, %s: %d messages, want %d", one, other, n, first.sends+second.sends)
			}
		}
	}
}

// Each night has one fault of the corpus, through a month and through the weeks in which the
// clock is changed. A nightly job runs each morning. It repairs once what can be repaired; the
// other findings stay.
func TestAMonthOfBrokenNights(t *testing.T) {
	names := slices.Sorted(maps.Keys(corpus))
	for start, days := range map[pipeline.Period]int{"2026-01-25": 30, "2026-03-01": 16, "2026-10-24": 16} {
		s := newScene(t)
		cal := s.tr.Calendar()
		s.SetNow(cal.Instant(start, pipeline.Offset{Periods: 1, Minute: 11 * 60}))
		s.good(start)
		wrong := map[pipeline.Period]string{}
		for i := range days {
			p := cal.Add(start, i+1)
			s.SetNow(cal.Instant(p, pipeline.Offset{Periods: 1, Minute: 11 * 60}))
			wrong[p] = names[i%len(names)]
			c := corpus[wrong[p]]
			before := len(s.PubSub.Messages())
			c.wrong(s, p)
			from, to := s.tr.Window(s.Now(), 7)
			broken := len(s.PubSub.Messages()) - before
			s.run(from, to, "nightly")
			if n := len(s.PubSub.Messages()) - before - broken; n != c.sends {
				t.Errorf("%s, %s: %d messages, want %d", p, wrong[p], n, c.sends)
			}
			if c.mends {
				s.phase4(p, s.Now().Add(time.Minute))
			}
		}
		all := len(s.PubSub.Messages())
		end := cal.Add(start, days)
		r := s.run(start, end, "nightly")
		if len(s.PubSub.Messages()) != all {
			t.Errorf("from %s: %d messages more in the end", start, len(s.PubSub.Messages())-all)
		}
		for p, name := range wrong {
			c := corpus[name]
			want := c.findings
			if c.mends {
				want = ""
			}
			if got := of(r, p); got != want {
				t.Errorf("%s, %s, in the end: %s, want %q", p, name, got, want)
			}
		}
		seen := map[string]bool{}
		for _, m := range s.PubSub.Messages() {
			tr, err := wire.DecodeTrigger(m.Data)
			if err != nil || seen[tr.TriggerID] {
				t.Errorf("%s twice, %v", tr.TriggerID, err)
			}
			seen[tr.TriggerID] = true
		}
	}
}

// anything makes a world of which anything may be wrong.
func anything(rt *rapid.T, s *scene) {
	for _, p := range []pipeline.Period{"2026-02-02", night} {
		s.expected[p] = int64(rapid.IntRange(0, 12).Draw(rt, "expected"))
		for _, name := range slices.Sorted(maps.Keys(rowsOf)) {
			at := wrote(p).Add(time.Duration(rapid.IntRange(-40, 40).Draw(rt, "hours")) * time.Hour)
			if rapid.Bool().Draw(rt, "rows") {
				rows := rapid.Int64Range(1, 400).Draw(rt, "n")
				s.slice(table(name), p, warehouse.Slice{Rows: rows, Surplus: rapid.Int64Range(0, rows-1).Draw(rt, "surplus"), Oldest: at.Add(-time.Duration(rapid.IntRange(0, 20).Draw(rt, "older")) * time.Hour), Newest: at})
			}
			for range rapid.IntRange(0, 2).Draw(rt, "reports") {
				count := rapid.Int64Range(0, 400).Draw(rt, "count")
				c := wire.Completion{Processor: name, Reported: name, Period: p, Status: wire.StatusSuccess, EventTime: at.Add(time.Duration(rapid.IntRange(-3, 3).Draw(rt, "off")) * time.Hour),
					ExecutionID: fmt.Sprint("run-", count), CorrelationID: "c", RecordCount: &count}
				if err := s.Engine.Record(context.Background(), cycle.Key{Transition: s.tr, Period: p}, c); err != nil {
					rt.Fatal(err)
				}
			}
		}
		if rapid.Bool().Draw(rt, "looked") {
			if _, err := s.Engine.Converge(context.Background(), cycle.Key{Transition: s.tr, Period: p}, ""); err != nil {
				rt.Fatal(err)
			}
		}
		if rapid.Bool().Draw(rt, "edited") {
			s.edit(p, store.F(rapid.IntRange(0, 6).Draw(rt, "shown"), "_completed_count"), store.F(rapid.Bool().Draw(rt, "flag"), "_triggered"))
		}
		if rapid.Bool().Draw(rt, "next") {
			s.phase4(p, wrote(p).Add(time.Duration(rapid.IntRange(-5, 4).Draw(rt, "after"))*time.Hour))
		}
	}
}

func TestReconcile_IsIdempotent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newScene(t)
		anything(rt, s)
		look := s.run("2026-01-30", "2026-02-05", "")
		sent := len(s.PubSub.Messages())
		first := s.run("2026-01-30", "2026-02-05", "ada@host")
		// The findings of a run without repairs come first. Those that a repair has revealed follow.
		if seen := (Report{Findings: first.Findings[:len(look.Findings)]}); types(look) != types(seen) {
			rt.Fatalf("without repairs it finds %s, with repairs %s", types(look), types(first))
		}
		if len(first.Findings) == 0 && len(s.PubSub.Messages()) != sent {
			rt.Fatal("messages without a finding")
		}
		sent = len(s.PubSub.Messages())
		second := s.run("2026-01-30", "2026-02-05", "ada@host")
		if len(s.PubSub.Messages()) != sent {
			rt.Fatalf("the second time has sent %d messages: %s", len(s.PubSub.Messages())-sent, types(second))
		}
		for _, f := range second.Findings {
			if f.Status == Repaired {
				rt.Fatalf("repaired again: %s %s %v; first %s, second %s", f.Type, f.Table, f.Evidence, types(first), types(second))
			}
		}
		for _, f := range first.Findings {
			if f.Status == Failed {
				rt.Fatalf("not repaired: %+v", f)
			}
		}
	})
}

// Two reconciles run at once while completions arrive. In the end everything is recorded, and
// each run is in one hand-over.
func TestReconcile_ConcurrentRunsAndCompletionsAreSafe(t *testing.T) {
	for range 30 {
		s := newScene(t)
		s.first()
		s.data(night)
		s.reports(night, "player_game_summary", "team_offense_game_summary")
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := s.rec.Run(context.Background(), s.tr, night, night, "ada@host"); err != nil && !errors.Is(err, store.ErrConflict) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			s.report(night, "player_game_summary", 348) // its own report, late
			if _, err := s.Engine.Converge(context.Background(), cycle.Key{Transition: s.tr, Period: night}, ""); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		s.phase4(night, s.Now().Add(time.Minute))
		if r := s.run(night, night, "ada@host"); len(r.Findings)+len(r.Unknown) != 0 {
			t.Fatalf("%s, %q", types(r), r.Unknown)
		}
		ss, err := s.Engine.Status(t.Context(), cycle.Key{Transition: s.tr, Period: night})
		if err != nil {
			t.Fatal(err)
		}
		runs := map[string]int{}
		for _, st := range ss {
			for _, b := range st.Batches {
				if b.State != cycle.StatePublished {
					t.Errorf("%s is %s", b.ID, b.State)
				}
				for _, run := range b.Runs {
					if runs[st.Mode+run]++; runs[st.Mode+run] > 1 {
						t.Errorf("%s is handed over twice", run)
					}
				}
			}
		}
	}
}

// A source that fails halfway: nothing is repaired on its silence.
func TestReconcile_FailedSourcePreventsRepair(t *testing.T) {
	for _, p := range []string{"player_game_summary", "team_offense_game_summary"} {
		s := newScene(t)
		s.first()
		s.data(night)
		s.tables[table(p)] = warehouse.Contents{Problem: "the query was cancelled"}
		for _, pr := range s.Pipeline.Phases[1].Processors {
			s.tables[pr.Table] = warehouse.Contents{Problem: "the query was cancelled"}
		}
		before := len(s.PubSub.Messages())
		r := s.run(night, night, "ada@host")
		// Six tables cannot be read. For four more it is unknown whether they were handed
		// over.
		if len(r.Unknown) != 10 || len(r.Findings) != 0 || len(s.PubSub.Messages()) != before {
			t.Errorf("%s, %q", types(r), r.Unknown)
		}
	}
	s := newScene(t) // a table that has its rows, and cannot be read
	s.good(night)
	s.tables[table("player_game_summary")] = warehouse.Contents{Problem: "the query was cancelled"}
	if r := s.run(night, night, "ada@host"); len(r.Findings) != 0 || len(r.Unknown) != 1 {
		t.Errorf("%s, %q", types(r), r.Unknown)
	}
	s = newScene(t)
	s.data(night)
	s.SetDown(true)
	if _, err := s.rec.Run(t.Context(), s.tr, night, night, "ada@host"); err == nil {
		t.Error("the periods could not be read, and that was an answer")
	}
}

// A run whose time is over in the middle has repaired what it has, and the next one does
// the rest.
func TestReconcile_InterruptedRunIsResumed(t *testing.T) {
	s := newScene(t)
	s.first()
	for _, p := range []pipeline.Period{"2026-02-02", night} {
		s.data(p)
		s.reports(p, "player_game_summary")
	}
	before := len(s.PubSub.Messages())
	ctx, cancel := context.WithCancel(t.Context())
	publish := s.Engine.Publish
	s.Engine.Publish = func(c context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
		defer cancel()
		return publish(c, topic, msgs)
	}
	if r, err := s.rec.Run(ctx, s.tr, "2026-02-02", night, "nightly"); err == nil {
		t.Errorf("cut off, and that was an answer: %s", types(r))
	}
	s.Engine.Publish = publish
	s.SetNow(s.Now().Add(2 * time.Minute)) // the claim of the interrupted run has expired
	r := s.run("2026-02-02", night, "nightly")
	if n := len(s.PubSub.Messages()) - before; n != 10 || r.Left() != 0 {
		t.Errorf("%d messages, %s", n, types(r))
	}
}
