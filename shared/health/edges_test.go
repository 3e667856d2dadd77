package health

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// A hand-over of a later mode does not make up for a cycle that a person keeps on hold: the
// hold is named until it ends.
func TestHandOvers_LaterModeDoesNotHideHold(t *testing.T) {
	f := sound(t)
	f.compare(func(r *reconcile.Report) {
		r.Periods = append(r.Periods, cycle.PeriodState{Key: cycle.Key{Transition: f.pipeline.Transitions[0], Period: night}, Cycles: []cycle.Status{
			{Period: string(night), Mode: "same_day", State: "on_hold", Reason: "deadline 13:00 EST passed", Hold: &cycle.Hold{Until: morning.Add(time.Hour), Actor: "ada", Reason: "box scores"}},
			{Period: string(night), Mode: "overnight", State: "published", Batches: []cycle.BatchStatus{{State: cycle.StatePublished}}}}})
	})
	got := judged(f)[HandOvers]
	if all := strings.Join(got.Evidence, "\n"); !strings.HasPrefix(all, "2026-02-03 same_day is on hold until 2026-02-04 13:20 EST: box scores (ada)") || strings.Contains(all, "was handed over since") {
		t.Errorf("%s: %s", got.State, all)
	}
}

// The history has a row when a run begins and another when it ends: one run does not
// overlap itself.
func TestLockingActive_RunDoesNotOverlapItself(t *testing.T) {
	f := sound(t)
	f.runs = []warehouse.ProcessorRun{
		{Processor: "player_game_summary", Period: night, ID: "run-1", Began: at(today, 6, 0), Ended: at(today, 6, 20)},
		{Processor: "player_game_summary", Period: night, ID: "run-1", Began: at(today, 6, 1), Ended: at(today, 6, 20)},
	}
	f.lockedAt = at(today, 6, 0)
	if got := judged(f)[LockingActive]; got.State != OK {
		t.Errorf("%s: %s", got.State, got.Evidence)
	}
	f.runs[1].ID = "run-2"
	if got := judged(f)[LockingActive]; got.State != Failing || !strings.Contains(got.Evidence[0], "run-1") || !strings.Contains(got.Evidence[0], "run-2") {
		t.Errorf("two runs: %s: %s", got.State, got.Evidence)
	}
}

// A report whose time is in the future was written under a wrong clock: the time of the last
// evaluation is unknown.
func TestLast_ReportFromTheFutureIsUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		ahead   time.Duration
		unknown bool
	}{
		"within_the_clocks_skew": {clockSkew, false},
		"beyond_it":              {clockSkew + time.Second, true},
		"by_a_year":              {365 * 24 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, checker := checker(t)
			r := Report{Schema: 1, At: morning.Add(c.ahead), Overall: OK, Checks: []Check{{ID: Locks, State: OK, Evidence: []string{"none"}}}}
			if err := checker.Remember(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			last, err := checker.Last(t.Context())
			if err != nil || (last.Overall == Unknown) != c.unknown || (last.Checks[0].ID == reportAge) != c.unknown {
				t.Fatalf("%+v, %v", last, err)
			}
			if want := "the last report is of " + r.At.Format(time.RFC3339) + ", which is in the future: compare the clocks"; c.unknown &&
				(last.Checks[0].Evidence[0] != want || !last.Checks[0].Since.Equal(morning)) {
				t.Errorf("%+v", last.Checks[0])
			}
		})
	}
}

// A job is judged by its newest due time, however long ago that was.
func TestHeartbeats_AnyCron(t *testing.T) {
	local := func(s string) time.Time {
		zone, err := time.LoadLocation("America/New_York")
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.ParseInLocation("2006-01-02 15:04", s, zone)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	utc := func(s string) time.Time {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	const first = "0 6 1 * *"
	for name, c := range map[string]struct {
		cron     string
		now      time.Time
		last     time.Time
		deployed time.Time
		state    State
		evidence string
	}{
		"monthly_dead_for_nine_months":   {first, local("2026-11-20 12:00"), local("2026-02-01 06:01"), time.Time{}, Failing, "has not finished since 2026-02-01 06:01 EST, and was due at 2026-11-01 06:00 EST"},
		"monthly_alive":                  {first, local("2026-11-20 12:00"), local("2026-11-01 06:01"), time.Time{}, OK, "monthly: 2026-11-01 06:01 EST"},
		"yearly_dead":                    {"0 6 1 1 *", local("2026-11-20 12:00"), local("2025-01-01 06:01"), time.Time{}, Failing, "was due at 2026-01-01 06:00 EST"},
		"monthly_never_ran":              {first, local("2026-11-20 12:00"), time.Time{}, local("2026-10-01 00:00"), Failing, "has never finished, and was due at 2026-11-01 06:00 EST"},
		"monthly_deployed_since":         {first, local("2026-11-20 12:00"), time.Time{}, local("2026-11-10 00:00"), OK, "has not been due since 2026-11-10 00:00 EST"},
		"daily_ran_in_the_first_01_30":   {"30 1 * * *", utc("2026-11-01T14:00:00Z"), utc("2026-11-01T05:31:00Z"), time.Time{}, OK, "2026-11-01 01:31 EDT"},
		"daily_ran_in_the_second_01_30":  {"30 1 * * *", utc("2026-11-01T14:00:00Z"), utc("2026-11-01T06:31:00Z"), time.Time{}, OK, "2026-11-01 01:31 EST"},
		"daily_missed_both":              {"30 1 * * *", utc("2026-11-01T14:00:00Z"), utc("2026-10-31T05:31:00Z"), time.Time{}, Failing, "since 2026-10-31 01:31 EDT, and was due at 2026-11-01 01:30 EDT"},
		"daily_in_the_hour_that_is_none": {"30 2 * * *", utc("2026-03-08T16:00:00Z"), utc("2026-03-07T07:31:00Z"), time.Time{}, OK, "2026-03-07 02:31 EST"},
		"hourly_dead_in_the_second_hour": {"0 * * * *", utc("2026-11-01T06:59:00Z"), utc("2026-11-01T04:01:00Z"), time.Time{}, Failing, "since 2026-11-01 00:01 EDT, and was due at 2026-11-01 01:00 EDT"},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			p := *f.pipeline
			p.Schedules = []pipeline.Schedule{{Name: "monthly", Cron: c.cron, Function: "reconcile", Job: "nightly"}}
			beats := map[string]time.Time{}
			if !c.last.IsZero() {
				beats["nightly"] = c.last
			}
			f.pipeline, f.now, f.functions = &p, c.now, map[string]status{"reconcile": {source: "abc", definition: "def", heartbeats: beats}}
			f.scheduled = map[string]time.Time{scheduleKey(p.Schedules[0]): c.deployed}
			if got := judged(f)[Heartbeats]; got.State != c.state || !strings.Contains(got.Evidence[0], c.evidence) {
				t.Errorf("%s: %q, want %s: %s", got.State, got.Evidence, c.state, c.evidence)
			}
		})
	}
}

// A managed_since with a wrong year keeps every period from being compared: the checks report
// that and are not ok.
func TestChecks_ManagedSinceInTheFutureIsUnknown(t *testing.T) {
	w, _ := checker(t)
	tr := *w.Pipeline.Transitions[0]
	tr.ManagedSince = "2062-02-03"
	p := *w.Pipeline
	p.Transitions = []*pipeline.Transition{&tr}
	w.App.Pipeline = &p
	c := New(w.App)
	c.Dead = none
	c.Reconcile.Pipeline = &p
	c.Reconcile.Contents = func(context.Context, []pipeline.Processor, pipeline.Period, pipeline.Period) map[string]warehouse.Contents {
		return map[string]warehouse.Contents{}
	}
	c.Reconcile.Expected = func(context.Context, *pipeline.Transition, pipeline.Period, pipeline.Period) (map[pipeline.Period]int64, error) {
		return map[pipeline.Period]int64{night: 7}, nil
	}
	got := by(c.Run(t.Context()))
	for _, id := range []string{TrackingAccuracy, HandOvers, NextPhase, Duplicates, Reconciliation, ExpectedProcessors} {
		if check := got[id]; check.State != Unknown || !strings.Contains(check.Evidence[0], `managed_since "2062-02-03" of phase3_to_phase4 is in the future`) {
			t.Errorf("%s: %s: %q", id, check.State, check.Evidence)
		}
	}
}

// However much is wrong, the report is stored, and each of its lines is short enough for the log.
func TestReport_OfABadWeekCanBeKept(t *testing.T) {
	w, c := checker(t)
	all := make([]string, 5588)
	for i := range all {
		all[i] = fmt.Sprintf("2026-02-03T%02d <hourly>: overdue: %s", i%24, strings.Repeat("é", 300))
	}
	got := capped(all)
	if last := got[len(got)-1]; last != fmt.Sprintf("and 5,%d more", 588-len(got)+1) {
		t.Errorf("%d items, the last is %q", len(got), last)
	}
	if short := capped(all[:3]); len(short) != 3 || short[2] != all[2] {
		t.Errorf("%q", short)
	}
	for i := range 3 { // cycles of many periods that are all overdue
		all[i] = strings.Repeat("<", 1<<20)
	}
	r := c.Run(t.Context())
	for i := range r.Checks {
		r.Checks[i].Evidence = capped(all)
	}
	if err := c.Remember(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	doc := w.Doc(t, "function_status", "health")
	if text, _ := doc.Data["report"].(string); len(text) == 0 || len(text) > store.MaxDocumentBytes*3/4 {
		t.Errorf("%d bytes", len(text))
	}
}

// The checks themselves are capped: of hours that are all overdue a hundred stay.
func TestRun_CapsEvidence(t *testing.T) {
	_, c := checker(t)
	real := checks
	t.Cleanup(func() { checks = real })
	checks = slices.Clone(checks[:1])
	checks[0].judge = func(*facts) Check {
		v := verdict{}
		for i := range 5588 {
			v.failing("hour %d", i)
		}
		return v.check()
	}
	if got := c.Run(t.Context()).Checks[0].Evidence; len(got) != mostEvidence+1 || got[mostEvidence] != "and 5,488 more" {
		t.Errorf("%d items, the last is %q", len(got), got[len(got)-1])
	}
}

// A job that is dead stays failing when its cron changes, until a run of it ends. One that
// was in time by the former cron has time until it is due by the new one.
func TestHeartbeats_ANewCronDoesNotExcuseADeadJob(t *testing.T) {
	const daily, monthly, quarter = "0 6 * * *", "0 6 1 * *", "*/15 * * * *"
	day := func(d, hour, minute int) time.Time {
		return time.Date(2026, time.November, d, hour, minute, 0, 0, time.UTC)
	}
	for name, tc := range map[string]struct {
		from, to string
		last     time.Time // before the change, which health sees on the 20th at 15:05
		again    time.Time // after it
		states   map[time.Time]State
		evidence string
	}{
		"dead":            {daily, "0 18 * * *", day(17, 11, 1), time.Time{}, map[time.Time]State{day(20, 15, 5): Failing, day(20, 22, 5): Failing, day(21, 15, 5): Failing}, "since 2026-11-17 06:01 EST, and was due at 2026-11-20 06:00 EST by its former schedule \"0 6 * * *\""},
		"never ran":       {daily, "0 18 * * *", time.Time{}, time.Time{}, map[time.Time]State{day(20, 15, 5): Failing}, "has never finished, and was due at 2026-11-20 06:00 EST by its former schedule"},
		"dead, now alive": {daily, "0 18 * * *", day(17, 11, 1), day(20, 23, 1), map[time.Time]State{day(20, 15, 5): Failing, day(21, 0, 5): OK, day(21, 15, 5): OK, day(22, 15, 5): Failing}, ""},
		"alive":           {daily, "0 18 * * *", day(20, 11, 1), time.Time{}, map[time.Time]State{day(20, 15, 5): OK, day(20, 22, 5): OK, day(21, 1, 5): Failing}, ""},
		"more often":      {monthly, quarter, day(1, 11, 1), time.Time{}, map[time.Time]State{day(20, 15, 5): OK, day(20, 15, 35): Failing}, ""},
		"less often":      {quarter, daily, day(20, 13, 1), time.Time{}, map[time.Time]State{day(20, 15, 5): Failing, day(20, 20, 5): Failing}, "was due at 2026-11-20 09:45 EST by its former schedule"},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			p := *f.pipeline
			look := func(cron string, now, last time.Time) Check {
				p.Schedules = []pipeline.Schedule{{Name: "n", Cron: cron, Function: "reconcile", Job: "nightly"}}
				beats := map[string]time.Time{}
				if !last.IsZero() {
					beats["nightly"] = last
				}
				f.pipeline, f.now, f.functions = &p, now, map[string]status{"reconcile": {source: "abc", definition: "def", heartbeats: beats}}
				f.scheduled = scheduled(f.pipeline, f.functions, f.scheduled, now)
				return judged(f)[Heartbeats]
			}
			f.scheduled = map[string]time.Time{"n " + tc.from: day(1, 0, 0)}
			times := slices.SortedFunc(maps.Keys(tc.states), time.Time.Compare)
			for i, now := range times {
				last := tc.last
				if !tc.again.IsZero() && now.After(tc.again) {
					last = tc.again
				}
				got := look(tc.to, now, last)
				if got.State != tc.states[now] || i == 0 && !strings.Contains(got.Evidence[0], tc.evidence) {
					t.Errorf("%s: %s: %q, want %s: %s", now, got.State, got.Evidence, tc.states[now], tc.evidence)
				}
			}
			if len(f.scheduled) > 1 && !tc.again.IsZero() {
				t.Errorf("kept: %v", f.scheduled)
			}
		})
	}
}

// A hold by a person stays in the evidence when other cycles fail or cannot be read, however many.
func TestHandOvers_NamesAHoldNextToWhatFails(t *testing.T) {
	for name, tc := range map[string]struct {
		failing, broken, holds int
		state                  State
		first                  string
	}{
		"one fails":       {1, 0, 1, Failing, "2026-02-01 overnight: overdue: "},
		"a bad week":      {500, 0, 1, Failing, "2026-02-01 overnight: overdue: "},
		"one is unread":   {0, 1, 1, Unknown, "2026-02-01: "},
		"both":            {1, 1, 1, Failing, "2026-02-01 overnight: overdue: "},
		"many holds":      {1, 0, 40, Failing, "2026-02-01 overnight: overdue: "},
		"nothing is left": {0, 0, 1, OK, "2026-02-03 mode0 is on hold"},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			f.compare(func(r *reconcile.Report) {
				key := cycle.Key{Transition: f.pipeline.Transitions[0], Period: "2026-02-01"}
				for range tc.failing {
					r.Periods = append(r.Periods, cycle.PeriodState{Key: key, Cycles: []cycle.Status{{Period: "2026-02-01", Mode: "overnight", State: "overdue", Reason: "its deadline has passed"}}})
				}
				for range tc.broken {
					r.Periods = append(r.Periods, cycle.PeriodState{Key: key, Problem: errAway})
				}
				key.Period = night
				for i := range tc.holds {
					r.Periods = append(r.Periods, cycle.PeriodState{Key: key, Cycles: []cycle.Status{{Period: string(night), Mode: fmt.Sprint("mode", i), State: "on_hold",
						Hold: &cycle.Hold{Until: morning.Add(time.Hour), Actor: "ada", Reason: "box scores"}}}})
				}
			})
			got := judged(f)[HandOvers]
			evidence := capped(got.Evidence)
			if got.State != tc.state || !strings.HasPrefix(evidence[0], tc.first) {
				t.Errorf("%s: %q", got.State, evidence[0])
			}
			holds := 0
			for _, line := range evidence {
				if strings.Contains(line, "is on hold until 2026-02-04 13:20 EST: box scores (ada)") {
					holds++
				}
			}
			if want := min(tc.holds, 10); holds != want {
				t.Errorf("%d holds named, want %d: %q", holds, want, evidence[:min(len(evidence), 15)])
			}
			if tc.holds > 10 && !strings.Contains(strings.Join(evidence, "\n"), "\nand 30 more\n") && evidence[len(evidence)-1] != "and 30 more" {
				t.Errorf("%q", evidence)
			}
		})
	}
}

// heartbeatsOf judges a schedule whose job came to its end last at a time, zero for never.
