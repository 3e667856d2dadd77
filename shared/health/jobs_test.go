package health

import (
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

func heartbeatsOf(t *testing.T, s pipeline.Schedule, now, last time.Time, before map[string]time.Time) Check {
	t.Helper()
	f := sound(t)
	p := *f.pipeline
	p.Schedules = []pipeline.Schedule{s}
	beats := map[string]time.Time{}
	if !last.IsZero() {
		beats[s.Job] = last
	}
	f.pipeline, f.now, f.functions = &p, now, map[string]status{s.Function: {source: "abc", definition: "def", heartbeats: beats}}
	f.scheduled = scheduled(f.pipeline, f.functions, before, now)
	return judged(f)[Heartbeats]
}

func TestHeartbeats_Cases(t *testing.T) {
	now := time.Date(2026, time.November, 20, 17, 0, 0, 0, time.UTC)
	nightly := pipeline.Schedule{Name: "nightly", Cron: "0 6 * * *", Function: "reconcile", Job: "nightly"}
	never := nightly
	never.Cron = "0 6 30 2 *"
	health := pipeline.Schedule{Name: "health", Cron: "5 * * * *", Function: "health", Job: "health"}
	for name, tc := range map[string]struct {
		s        pipeline.Schedule
		last     time.Time
		before   map[string]time.Time
		state    State
		evidence string
	}{
		"health is watched from outside":              {health, now.AddDate(0, 0, -3), map[string]time.Time{"health 5 * * * *": now.AddDate(0, -1, 0)}, OK, "nothing to check"},
		"a cron that never comes":                     {never, now.AddDate(0, 0, -1), map[string]time.Time{"nightly 0 6 30 2 *": now.AddDate(0, -1, 0)}, Unknown, `"0 6 30 2 *" is never due`},
		"dead, after an update from before schedules": {nightly, now.AddDate(0, 0, -3), nil, Failing, "has not finished since 2026-11-17 12:00 EST, and was due at 2026-11-20 06:00 EST"},
		"ran by hand before it was due":               {nightly, now.Add(-time.Hour), map[string]time.Time{"nightly 0 6 * * *": now.Add(-2 * time.Hour)}, OK, "nightly: 2026-11-20 11:00 EST"},
	} {
		got := heartbeatsOf(t, tc.s, now, tc.last, tc.before)
		if got.State != tc.state || !strings.Contains(got.Evidence[0], tc.evidence) {
			t.Errorf("%s: %s: %q, want %s: %s", name, got.State, got.Evidence, tc.state, tc.evidence)
		}
	}
}

// The status page and the check have one rule: a job whose schedule was moved is not late by the new
// one before it was due by it.
func TestJobs_AreLateByTheRuleOfTheCheck(t *testing.T) {
	now := time.Date(2026, time.November, 20, 17, 0, 0, 0, time.UTC)
	nightly := pipeline.Schedule{Name: "nightly", Cron: "0 6 * * *", Function: "reconcile", Job: "nightly"}
	key := scheduleKey(nightly)
	for name, tc := range map[string]struct {
		last  time.Time
		known map[string]any
		state State
	}{
		"in time":                        {now.Add(-6 * time.Hour), map[string]any{key: now.AddDate(0, -1, 0)}, OK},
		"late":                           {now.AddDate(0, 0, -3), map[string]any{key: now.AddDate(0, -1, 0)}, Failing},
		"never finished":                 {time.Time{}, map[string]any{key: now.AddDate(0, -1, 0)}, Failing},
		"not due since it was seen":      {time.Time{}, map[string]any{key: now.Add(-time.Hour)}, OK},
		"moved an hour ago":              {now.AddDate(0, 0, -1), map[string]any{key: now.Add(-time.Hour)}, OK},
		"moved, and late by the old one": {now.AddDate(0, 0, -3), map[string]any{key: now.Add(-time.Hour), "nightly 0 5 * * *": now.AddDate(0, -1, 0)}, Failing},
		"health was never evaluated":     {time.Time{}, nil, Unknown},
	} {
		w := apptest.New(t, now.AddDate(0, 0, -4))
		p := *w.Pipeline
		p.Schedules = []pipeline.Schedule{nightly, {Name: "health", Cron: "5 * * * *", Function: "health", Job: "health"}}
		w.App.Pipeline = &p
		if !tc.last.IsZero() {
			w.SetNow(tc.last)
			if err := w.Heartbeat(t.Context(), "reconcile", "nightly"); err != nil {
				t.Fatal(err)
			}
		}
		w.SetNow(now)
		if tc.known != nil {
			if _, err := w.Store.Apply(t.Context(), store.Merge(store.Ref{Collection: app.StatusCollection, ID: "health"}, store.F(tc.known, "schedules"))); err != nil {
				t.Fatal(err)
			}
		}
		c := New(w.App)
		jobs, err := c.Jobs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f := c.read(t.Context())
		if check := heartbeats(f); jobs[0].State != tc.state || check.State != tc.state {
			t.Errorf("%s: the page says %s, the check %s: %q; want %s", name, jobs[0].State, check.State, check.Evidence, tc.state)
		}
	}
}

// A deployment is seen when its first function has done a job; the others have until theirs.
func TestHeartbeats_DeploymentIsCheckedPerFunction(t *testing.T) {
	w, c := checker(t)
	deployed := app.SourceHash
	t.Cleanup(func() { app.SourceHash = deployed })
	beat := func(hash, function, job string, want State) {
		t.Helper()
		w.SetNow(w.Now().Add(Settling + time.Minute))
		app.SourceHash = hash
		if err := w.Heartbeat(t.Context(), function, job); err != nil {
			t.Fatal(err)
		}
		r := c.Run(t.Context())
		if err := c.Remember(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if got := by(r)[DeployedCode]; got.State != want {
			t.Errorf("after %s of %s: %+v, want %s", job, hash, got, want)
		}
	}
	beat("old", "reconcile", "relay", Unknown) // the others have never said anything
	beat("old", "sweep", "sweep", OK)          // health was not due since
	beat("old", "health", "health", OK)
	beat("new", "reconcile", "relay", OK)
	beat("new", "reconcile", "relay", OK)
	beat("old", "sweep", "sweep", Failing) // it was forgotten
	beat("new", "reconcile", "relay", Failing)
	beat("new", "sweep", "sweep", OK)
	beat("new", "health", "health", OK)
	beat("old", "reconcile", "relay", OK) // rolled back
	beat("new", "sweep", "sweep", Failing)
	beat("old", "sweep", "sweep", OK)
}

// From the first hour of a deployment on, no job counts as late that was not due yet. A daily
// job that does not run is found after one day.
func TestHeartbeats_FirstDaysAfterADeployment(t *testing.T) {
	for name, tc := range map[string]struct {
		nightly bool // it runs
		want    map[int]State
	}{
		"all_run":             {true, map[int]State{0: Unknown, 1: OK, 17: OK, 22: OK, 23: OK, 24: OK, 40: OK, 71: OK}},
		"nightly_never_comes": {false, map[int]State{0: Unknown, 1: OK, 17: OK, 22: OK, 23: OK, 24: Failing, 71: Failing}},
	} {
		t.Run(name, func(t *testing.T) {
			w, c := checker(t)
			deployed := at(today, 12, 10) // after the night's jobs
			for hour := range 72 {
				now := deployed.Add(time.Duration(hour) * time.Hour)
				w.SetNow(now)
				beat := func(function, job string) {
					t.Helper()
					if err := w.Heartbeat(t.Context(), function, job); err != nil {
						t.Fatal(err)
					}
				}
				beat("reconcile", "relay")
				if local := now.In(c.Pipeline.Calendar.Zone()); local.Hour() == 11 {
					beat("sweep", "sweep")
					if tc.nightly {
						beat("reconcile", "nightly")
					}
				}
				r := c.Run(t.Context())
				if err := c.Remember(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				if want, ok := tc.want[hour]; ok && by(r)[Heartbeats].State != want {
					t.Errorf("hour %d: %+v, want %s", hour, by(r)[Heartbeats], want)
				}
				beat("health", "health")
			}
		})
	}
}
