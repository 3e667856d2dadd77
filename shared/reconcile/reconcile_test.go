package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
)

const night = pipeline.Period("2026-02-03")

// morning is 11:05 after the night, local time: its deadline has passed.
var morning = time.Date(2026, 2, 4, 16, 5, 0, 0, time.UTC)

// scene is an environment whose warehouse is a map.
type scene struct {
	*apptest.World
	t        *testing.T
	tr       *pipeline.Transition
	rec      *Reconciler
	tables   map[string]warehouse.Contents
	expected map[pipeline.Period]int64
	away     error // what the schedule answers
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{World: apptest.New(t, morning), t: t, tables: map[string]warehouse.Contents{}, expected: map[pipeline.Period]int64{}}
	s.tr = s.Pipeline.Transitions[0]
	s.rec = New(s.App)
	s.rec.Contents = func(_ context.Context, processors []pipeline.Processor, _, _ pipeline.Period) map[string]warehouse.Contents {
		out := map[string]warehouse.Contents{}
		for _, p := range processors {
			out[p.Table] = s.tables[p.Table]
		}
		return out
	}
	s.rec.Expected = func(context.Context, *pipeline.Transition, pipeline.Period, pipeline.Period) (map[pipeline.Period]int64, error) {
		return s.expected, s.away
	}
	for _, phase := range s.Pipeline.Phases {
		for _, p := range phase.Processors {
			s.tables[p.Table] = warehouse.Contents{Slices: map[pipeline.Period]warehouse.Slice{}}
		}
	}
	return s
}

// wrote is when a night's rows were written: 06:03 local time after it.
func wrote(p pipeline.Period) time.Time {
	day, err := time.Parse(time.DateOnly, string(p))
	if err != nil {
		panic(err)
	}
	return day.Add(35*time.Hour + 3*time.Minute)
}

var rowsOf = map[string]int64{"player_game_summary": 348, "team_defense_game_summary": 20, "team_offense_game_summary": 20,
	"upcoming_player_game_context": 300, "upcoming_team_game_context": 20}

func table(name string) string { return "nba_analytics." + name }

func (s *scene) slice(table string, p pipeline.Period, sl warehouse.Slice) {
	if sl.Rows == 0 {
		delete(s.tables[table].Slices, p)
		return
	}
	s.tables[table].Slices[p] = sl
}

// data puts a complete night into the tables, and on the schedule.
func (s *scene) data(p pipeline.Period) {
	for name, rows := range rowsOf {
		s.slice(table(name), p, warehouse.Slice{Rows: rows, Oldest: wrote(p), Newest: wrote(p)})
	}
	s.expected[p] = 10
}

// phase4 lets the next phase run about a night, at a time.
func (s *scene) phase4(p pipeline.Period, at time.Time) {
	for _, phase := range s.Pipeline.Phases[1:] {
		for _, pr := range phase.Processors {
			s.slice(pr.Table, p, warehouse.Slice{Rows: 300, Oldest: at, Newest: at})
		}
	}
}

func (s *scene) report(p pipeline.Period, name string, count int64) {
	s.t.Helper()
	c := message.Completion{Processor: name, Reported: name, Period: p, Status: message.StatusSuccess, EventTime: wrote(p).Add(10 * time.Second),
		ExecutionID: "run-" + name, CorrelationID: "c", RecordCount: &count}
	if err := s.Engine.Record(context.Background(), cycle.Key{Transition: s.tr, Period: p}, c); err != nil {
		s.t.Fatal(err)
	}
}

// reports records all of a night but some, and converges.
func (s *scene) reports(p pipeline.Period, but ...string) {
	s.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(rowsOf)) {
		if !slices.Contains(but, name) {
			s.report(p, name, rowsOf[name])
		}
	}
	if _, err := s.Engine.Converge(context.Background(), cycle.Key{Transition: s.tr, Period: p}, ""); err != nil {
		s.t.Fatal(err)
	}
}

// good is a night with which everything is right.
func (s *scene) good(p pipeline.Period) {
	s.data(p)
	s.reports(p)
	s.phase4(p, s.Now().Add(time.Minute))
}

func (s *scene) run(from, to pipeline.Period, actor string) Report {
	s.t.Helper()
	r, err := s.rec.Run(context.Background(), s.tr, from, to, actor)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// types are the findings in short.
func types(r Report) string {
	var out []string
	for _, f := range r.Findings {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s", f.Type, strings.TrimPrefix(f.Table, "nba_analytics."))))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// received are the tables that messages are about, with their sources.
func (s *scene) received() []string {
	var out []string
	for _, m := range s.PubSub.Messages() {
		t, err := message.DecodeTrigger(m.Data)
		if err != nil {
			s.t.Error(err)
		}
		out = append(out, fmt.Sprintf("%s %s %s", t.GameDate, t.SourceTable, t.TriggerSource))
	}
	slices.Sort(out)
	return out
}

func (s *scene) edit(p pipeline.Period, fields ...store.Field) {
	s.t.Helper()
	if _, err := s.Store.Apply(context.Background(), store.Merge(store.Ref{Collection: "phase3_completion", ID: string(p)}, fields...)); err != nil {
		s.t.Fatal(err)
	}
}

func TestNothingIsFoundWhereEverythingIsRight(t *testing.T) {
	s := newScene(t)
	s.good("2026-02-02")
	s.good(night)
	s.expected["2026-02-01"], s.expected["2026-02-04"] = 0, 7
	r := s.run("2026-02-01", "2026-02-05", "")
	if len(r.Findings)+len(r.Unknown) != 0 || r.pct() != 100 || r.Tables != 10 {
		t.Errorf("%s, unknown %q, accuracy %v of %d", types(r), r.Unknown, r.pct(), r.Tables)
	}
}

// corpus is each thing that can be wrong with a night, what it is called, and whether it
// can be mended.
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

// first makes sure that the window is managed.
func (s *scene) first() { s.good("2026-01-20") }

func TestEachFindingIsNamedAndMendedIfItCanBe(t *testing.T) {
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
				t.Errorf("a look has sent %d messages", n-before)
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

func TestWhatARepairHandsOverSaysSo(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.run(night, night, "ada@host")
	want := []string{}
	for _, name := range slices.Sorted(maps.Keys(rowsOf)) {
		want = append(want, fmt.Sprintf("%s %s reconciliation", night, name))
	}
	got := slices.DeleteFunc(s.received(), func(r string) bool { return !strings.HasPrefix(r, string(night)) })
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	doc := s.Doc(t, "phase3_completion", string(night))
	if fix, _ := doc.Data["_reconciliation_fix"].(string); fix != morning.Format(time.RFC3339) || doc.Data["_triggered"] != true || doc.Data["_completed_count"] != int64(5) {
		t.Errorf("%v", doc.Data)
	}
	n := 0
	for doc, err := range s.Store.Scan(t.Context(), "audit", "!", "~") {
		detail, _ := doc.Data["detail"].(string)
		reason, _ := doc.Data["reason"].(string)
		if n++; err != nil || doc.Data["action"] != "repair" || doc.Data["actor"] != "ada@host" || !strings.Contains(reason, "missing_completion of nba_analytics.player_game_summary") ||
			!strings.Contains(detail, "overnight held (deadline 2026-02-04 10:00 passed: 0 of 5 complete") || !strings.Contains(detail, "put on record: player_game_summary, 348 rows of 2026-02-04T11:03:00Z; ") {
			t.Errorf("%v, %v", doc.Data, err)
		}
	}
	if n != 1 {
		t.Errorf("%d audit records", n)
	}
}

func TestWhatLiesAsideIsFound(t *testing.T) {
	s := newScene(t)
	s.first()
	if _, err := s.Store.Apply(t.Context(), store.Create(store.Ref{Collection: "quarantine", ID: "m1"}, store.F("TODAY", "reason")),
		store.Create(store.Ref{Collection: "quarantine", ID: "m2"}, store.F(store.ServerTime, "replayed_at"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-02"}, "run-1"); err != nil {
		t.Fatal(err)
	}
	s.SetNow(s.Now().Add(31 * time.Minute))
	s.expected[night] = 0
	s.rec.GivenUp = func(context.Context) (int, error) { return 3, nil }
	r := s.run(night, night, "")
	if got := types(r); got != "dead_letter_waiting, leaked_lock, quarantine_waiting" || r.Left() != 3 || len(r.Unknown) != 0 {
		t.Errorf("%s, %q", got, r.Unknown)
	}
	for _, f := range r.Findings {
		if f.Type == QuarantineWaiting && f.Evidence["messages"] != 1 || f.Type == LeakedLock && f.Period != "2026-02-02" {
			t.Errorf("%+v", f)
		}
	}
	s.rec.GivenUp = func(context.Context) (int, error) { return 0, errors.New("may not pull") }
	if r := s.run(night, night, ""); len(r.Unknown) != 1 || !strings.Contains(r.Unknown[0], "may not pull") {
		t.Errorf("%q", r.Unknown)
	}
}

// F21: the repair set the flag and sent nothing.
func TestF21_ARepairThatCannotPublishHasNotRepaired(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.reports(night, "player_game_summary")
	before := len(s.PubSub.Messages())
	working := s.Engine.Publish
	s.Engine.Publish = func(_ context.Context, _ string, msgs []message.Outgoing) []cycle.Published {
		out := make([]cycle.Published, len(msgs))
		for i := range out {
			out[i].Err = errors.New("the broker is away")
		}
		return out
	}
	r := s.run(night, night, "ada@host")
	if r.Findings[0].Type != MissingCompletion || r.Findings[0].Status != Failed || r.Left() == 0 {
		t.Errorf("%s: %+v", types(r), r.Findings[0])
	}
	if doc := s.Doc(t, "phase3_completion", string(night)); doc.Data["_triggered"] == true {
		t.Errorf("%v", doc.Data)
	}
	s.Engine.Publish = working
	s.SetNow(s.Now().Add(time.Hour))
	r = s.run(night, night, "ada@host")
	if len(s.PubSub.Messages())-before != 5 || r.Left() != 0 {
		t.Errorf("%d messages, %s", len(s.PubSub.Messages())-before, types(r))
	}
}

// F23: a backfilled date is complete and not triggered, by its policy.
func TestF23_WhatIsTooOldIsPutOnRecordAndNotHandedOver(t *testing.T) {
	s := newScene(t)
	s.good("2026-01-10")
	const old = pipeline.Period("2026-01-25")
	s.data(old)
	before := len(s.PubSub.Messages())
	r := s.run(old, old, "ada@host")
	if r.Left() != 0 || len(s.PubSub.Messages()) != before {
		t.Errorf("%s, %d messages", types(r), len(s.PubSub.Messages())-before)
	}
	again := s.run(old, old, "ada@host")
	if types(again) != "untriggered" || again.Findings[0].Status != Skipped || again.Left() != 0 || again.pct() != 100 {
		t.Errorf("%s, %+v", types(again), again.Findings)
	}
}

// On the day of adoption, what others have handed over is not sent again.
func TestWhatTheNextPhaseHasRunAboutIsNotHandedOverAgain(t *testing.T) {
	s := newScene(t)
	s.first()
	s.data(night)
	s.phase4(night, wrote(night).Add(20*time.Minute))
	before := len(s.PubSub.Messages())
	r := s.run(night, night, "ada@host")
	for _, f := range r.Findings {
		if f.Type != MissingCompletion || f.Status != Skipped {
			t.Errorf("%+v", f)
		}
	}
	if len(r.Findings) != 5 || r.Left() != 0 || len(s.PubSub.Messages()) != before {
		t.Errorf("%s, %d messages", types(r), len(s.PubSub.Messages())-before)
	}
	empty := newScene(t)
	empty.data(night)
	if r := empty.run("2026-02-01", night, "ada@host"); len(r.Findings) != 0 || len(empty.PubSub.Messages()) != 0 {
		t.Errorf("nothing is on record, and yet: %s", types(r))
	}
}

func TestWhatIsNotSettledOrAttributableIsUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(s *scene)
		says string
	}{
		"fresh rows": {func(s *scene) {
			at := s.Now().Add(-29 * time.Minute)
			s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 10, Oldest: at, Newest: at})
		}, "in flight, its newest row"},
		"a run at work": {func(s *scene) {
			if _, err := s.Locks.Acquire(context.Background(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: night}, "run-1"); err != nil {
				s.t.Fatal(err)
			}
		}, "has the lock"},
		"rows of no mode": {func(s *scene) {
			at := time.Date(2026, 2, 3, 15, 0, 0, 0, time.UTC) // on the day itself
			s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 10, Oldest: at, Newest: at})
		}, "belong to no mode"},
		"rows of two modes": {func(s *scene) {
			s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 10, Oldest: time.Date(2026, 2, 3, 15, 0, 0, 0, time.UTC), Newest: wrote(night)})
		}, "belong to no mode"},
		"rows without a time": {func(s *scene) { s.slice(table("player_game_summary"), night, warehouse.Slice{Rows: 10}) }, "no row says when"},
		"a table is away": {func(s *scene) {
			s.tables[table("player_game_summary")] = warehouse.Contents{Problem: "table not found"}
		}, "table not found"},
		"the schedule is away": {func(s *scene) { s.away, s.expected = errors.New("schedule away"), nil }, "schedule away"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.first()
			s.data(night)
			s.reports(night, "player_game_summary")
			if name == "the schedule is away" {
				s.report(night, "player_game_summary", 348)
				if _, err := s.Engine.Converge(context.Background(), cycle.Key{Transition: s.tr, Period: night}, ""); err != nil {
					t.Fatal(err)
				}
			}
			before := len(s.PubSub.Messages())
			c.do(s)
			r := s.run(night, night, "ada@host")
			if len(r.Findings) != 0 || len(r.Unknown) != 1 || !strings.Contains(r.Unknown[0], c.says) || len(s.PubSub.Messages()) != before {
				t.Errorf("%s, unknown %q, %d messages", types(r), r.Unknown, len(s.PubSub.Messages())-before)
			}
		})
	}
}

// F22: dates without a document were skipped, and keys that are no processors counted.
func TestF22_ADateWithoutADocumentIsAFinding(t *testing.T) {
	s := newScene(t)
	s.first()
	s.expected["2026-02-01"], s.expected["2026-02-02"] = 4, 0
	s.data(night)
	s.edit(night, store.F(map[string]any{"completed_at": morning}, "defense_zone_analytics"), store.F(map[string]any{"completed_at": morning}, "player_game_summary"), store.F(2, "_completed_count"))
	s.phase4(night, wrote(night).Add(-time.Hour))
	r := s.run("2026-02-01", night, "")
	if got := of(r, "2026-02-01"); got != "missing_period" || of(r, "2026-02-02") != "" {
		t.Errorf("%s", types(r))
	}
	if got := of(r, night); !strings.HasPrefix(got, "count_drift, missing_completion") || r.Left() != 7 || r.Shown != 1 || r.Tables != 5 {
		t.Errorf("%s, %d left, %d of %d shown", got, r.Left(), r.Shown, r.Tables)
	}
}

// F43: a clean-up job reported thousands of runs as failed that had succeeded.
func TestF43_FalseFailuresAfterASuccessChangeNothing(t *testing.T) {
	s := newScene(t)
	s.good(night)
	before := s.Doc(t, "phase3_completion", string(night))
	for i := range 500 {
		c := message.Completion{Processor: "player_game_summary", Reported: "player_game_summary", Period: night, Status: message.StatusFailed, EventTime: s.Now().Add(time.Duration(i) * time.Millisecond),
			ExecutionID: "run-player_game_summary", CorrelationID: "clean-up", ErrorMessage: "timed out"}
		if err := s.Engine.Record(t.Context(), cycle.Key{Transition: s.tr, Period: night}, c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Engine.Converge(t.Context(), cycle.Key{Transition: s.tr, Period: night}, ""); err != nil {
		t.Fatal(err)
	}
	r := s.run(night, night, "ada@host")
	if len(r.Findings)+len(r.Unknown) != 0 || r.pct() != 100 || len(s.PubSub.Messages()) != 5 {
		t.Errorf("%s, %q, %v, %d messages", types(r), r.Unknown, r.pct(), len(s.PubSub.Messages()))
	}
	if after := s.Doc(t, "phase3_completion", string(night)); after.Version != before.Version {
		t.Errorf("%v", after.Data)
	}
}

// pct is the accuracy, -1 where it is not known.
func (r Report) pct() float64 {
	if pct, known := r.Accuracy(); known {
		return pct
	}
	return -1
}
