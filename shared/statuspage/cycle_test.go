package statuspage

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

func cycleOf(t testing.TB, w *apptest.World, p pipeline.Period, mode string) cycleView {
	t.Helper()
	tr := w.Pipeline.Transitions[0]
	m, _ := tr.Mode(mode)
	s := readCycle(t.Context(), w.App, cycle.Key{Transition: tr, Period: p}, m)
	if s.err != nil {
		t.Fatal(s.err)
	}
	return newCyclePage(w.App, s, query{})
}

func TestCycle_ShowsRunsHandOversAndOperators(t *testing.T) {
	w := apptest.New(t, morning.Add(-9*time.Hour))
	w.Config.Local = false
	tr := w.Pipeline.Transitions[0]
	record(t, w, night, wire.StatusFailed, "team_defense_game_summary")
	w.SetNow(morning.Add(-8 * time.Hour)) // 04:20
	key := cycle.Key{Transition: tr, Period: night}
	if _, err := w.Engine.Hold(t.Context(), key, "overnight", 30*time.Minute, "ada", "box scores"); err != nil {
		t.Fatal(err)
	}
	w.SetNow(morning.Add(-7 * time.Hour))
	record(t, w, night, wire.StatusSuccess, tr.Order...)
	w.SetNow(morning)
	v := cycleOf(t, w, night, "overnight")
	if v.Headline != "2026-02-03 overnight is published" || v.Complete != "5 of 5 complete" || len(v.Runs) != 6 || len(v.Batches) != 1 || len(v.Batches[0].Triggers) != 5 {
		t.Fatalf("%+v", v)
	}
	failed := v.Runs[len(v.Runs)-1]
	if failed.Status != "failed" || failed.Took != "8 min 47 s" || failed.Rows != "348" || !strings.HasPrefix(failed.Error, "QuotaExceeded: éé") || len(failed.Error) > 203 {
		t.Errorf("%+v", failed)
	}
	filter, err := url.PathUnescape(strings.TrimSuffix(strings.TrimPrefix(failed.Log, "https://console.cloud.google.com/logs/query;query="), "?project=test"))
	if err != nil || filter != `jsonPayload.execution_id="run-team_defense_game_summary" timestamp>="2026-02-03T23:00:00Z" timestamp<="2026-02-08T05:00:00Z"` {
		t.Errorf("%s %v", filter, err)
	}
	if len(v.People) != 1 || v.People[0].Action != "hold" || v.People[0].Reason != "box scores" {
		t.Errorf("%+v", v.People)
	}
	// The hold lasted from 04:20 to 04:50, and nothing ended it.
	areas := v.Timeline.Areas
	if len(areas) != 1 || time.Unix(areas[0].At, 0).UTC() != morning.Add(-8*time.Hour) {
		t.Errorf("%+v", areas)
	}
	ax := axis{time.Unix(v.Timeline.From, 0), time.Unix(v.Timeline.To, 0)}
	if want := per(ax.share(morning.Add(-8*time.Hour).Add(30*time.Minute)) - ax.share(morning.Add(-8*time.Hour))); areas[0].Width != want {
		t.Errorf("%s wide, want %s", areas[0].Width, want)
	}
	if b := cycleOf(t, w, night, "overnight").Before; b.Link != "../../cycle/2026-02-02/overnight" {
		t.Errorf("%+v", b)
	}
}

// A further run with the same rows makes no hand-over, and the page promises none.
func TestCycle_FurtherRunThatChangedNothingHasNoHandOverDue(t *testing.T) {
	w := apptest.New(t, morning.Add(-7*time.Hour))
	tr := w.Pipeline.Transitions[0]
	record(t, w, night, wire.StatusSuccess, tr.Order[0])
	if v := cycleOf(t, w, night, "overnight"); v.Runs[0].HandOver != "not yet" {
		t.Errorf("at first: %q", v.Runs[0].HandOver)
	}
	record(t, w, night, wire.StatusSuccess, tr.Order...)
	w.SetNow(morning.Add(-6 * time.Hour))
	rows := int64(348)
	c := wire.Completion{Processor: tr.Order[0], Reported: tr.Order[0], Period: night, Status: wire.StatusSuccess, EventTime: w.Now(), ExecutionID: "again", CorrelationID: "x", RecordCount: &rows}
	key := cycle.Key{Transition: tr, Period: night}
	if err := w.Engine.Record(t.Context(), key, c); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Engine.Converge(t.Context(), key, "m"); err != nil {
		t.Fatal(err)
	}
	if v := cycleOf(t, w, night, "overnight"); len(v.Batches) != 1 || v.Runs[0].Execution != "again" || v.Runs[0].HandOver != "none is due" {
		t.Errorf("%d batches, %+v", len(v.Batches), v.Runs[0])
	}
}

// Local days have 23 and 25 hours; each mark stands at its instant.
func TestTimeline_AxisOfDaysWithClockChange(t *testing.T) {
	for _, tc := range []struct {
		period pipeline.Period
		hours  float64 // from 18:00 to 10:00
	}{{"2026-03-07", 15}, {"2026-10-31", 17}, {"2026-02-03", 16}} {
		w := apptest.New(t, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
		cal := w.Pipeline.Calendar
		m, _ := w.Pipeline.Transitions[0].Mode("overnight")
		deadline := cal.Instant(tc.period, *m.Deadline)
		from := cal.Instant(tc.period, m.CountsFrom)
		if got := deadline.Sub(from).Hours(); got != tc.hours {
			t.Errorf("%s: %g hours", tc.period, got)
		}
		w.SetNow(from)
		record(t, w, tc.period, wire.StatusSuccess, "team_offense_game_summary")
		w.SetNow(deadline)
		v := cycleOf(t, w, tc.period, "overnight").Timeline
		ax := axis{time.Unix(v.From, 0), time.Unix(v.To, 0)}
		if len(v.Marks) != 1 || v.Marks[0].X != ax.x(from) || v.Marks[0].At != from.Unix() {
			t.Errorf("%s: %+v", tc.period, v.Marks)
		}
		for i, tk := range v.Ticks {
			local := time.Unix(tk.At, 0).In(cal.Zone())
			if local.Minute() != 0 || tk.Text != "" && !strings.HasPrefix(tk.Text, local.Format("15:04")) || tk.X != ax.x(time.Unix(tk.At, 0)) || i > 0 && tk.At <= v.Ticks[i-1].At {
				t.Errorf("%s: %+v at %s", tc.period, tk, local)
			}
		}
	}
}

func TestUntil_ReadsWhatEngineWrites(t *testing.T) {
	w := apptest.New(t, morning)
	key := cycle.Key{Transition: w.Pipeline.Transitions[0], Period: night}
	if _, err := w.Engine.Hold(t.Context(), key, "", 90*time.Minute, "ada", "x, until y: z"); err != nil {
		t.Fatal(err)
	}
	m, _ := key.Transition.Mode("overnight")
	s := readCycle(t.Context(), w.App, key, m)
	if len(s.records) != 1 || !until(s.records[0]).Equal(morning.Add(90*time.Minute)) {
		t.Errorf("%+v", s.records)
	}
}

func TestBatch_BlockedIsShownSinceItWasBegun(t *testing.T) {
	w := apptest.New(t, morning.Add(-7*time.Hour))
	config := w.Engine.Config
	low := 71.3
	config.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		return cycle.Readiness{Outcome: policy.Failed, Reasons: []string{"minutes_coverage_pct is 71.3, blocks when < 80"},
			Checks: []policy.CheckResult{{Name: "minutes_coverage_pct", State: "fail", Value: &low, Warn: "< 90", Block: "< 80"}}}
	}
	w.App.Engine = cycle.New(config)
	record(t, w, night, wire.StatusSuccess, w.Pipeline.Transitions[0].Order...)
	w.SetNow(morning.Add(-3 * time.Hour)) // 09:20, before the deadline
	o := view(t, w, "")
	if o.Headline != "1 cycle blocked" || o.Todo[0].Since != "05:20" || o.Todo[0].Age != "4 h 0 min" {
		t.Errorf("%q %+v", o.Headline, o.Todo)
	}
	v := cycleOf(t, w, night, "overnight")
	if v.Since != "05:20" || v.Acts[0].Command != "phasectl checks run 2026-02-03 overnight" || len(v.Ready) != 1 || v.Ready[0].Result != "blocks" || v.Ready[0].Bullet == nil || v.Ready[0].Bullet.Bound != "80%" {
		t.Errorf("%+v", v)
	}
	// A period that cannot be read is unknown, and the others are shown.
	ref := store.Ref{Collection: "phase_periods", ID: w.Pipeline.Transitions[0].StoredID() + "_" + string(night)}
	if _, err := w.Store.Apply(t.Context(), store.Merge(ref, store.F("soon", "repaired_at"), store.F(int64(5), "batches"))); err != nil {
		t.Fatal(err)
	}
	if o := view(t, w, ""); o.Headline != "3 cycles unknown" || o.Tone == "good" {
		t.Errorf("%q", o.Headline)
	}
}
