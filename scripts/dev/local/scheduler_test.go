package local

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// scheduled starts an environment whose only schedule is the given one, and returns
// what sees its jobs.
func scheduled(t *testing.T, start, cron string) (*world, *consumer) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	definition := strings.Replace(string(pipeline.Default()), `"*/5 * * * *"`, `"`+cron+`"`, 1)
	definition, _, _ = strings.Cut(definition, "  - name: nightly")
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	jobs := newConsumer()
	return newWorld(t, "memory", func(o *Options) {
		o.Config.PipelineFile, o.Schedule, o.Clock = file, true, NewClock(at(start))
		o.Consumers["phasegate-reconcile"] = jobs
	}), jobs
}

func TestSchedule_FollowsLocalTimeAcrossClockChanges(t *testing.T) {
	for name, tc := range map[string]struct {
		start string
		utc   []time.Time // of 05:00 on the days from the one after start
	}{
		"spring": {"2026-03-06 12:00", []time.Time{
			time.Date(2026, 3, 7, 10, 0, 0, 0, time.UTC), time.Date(2026, 3, 8, 9, 0, 0, 0, time.UTC), time.Date(2026, 3, 9, 9, 0, 0, 0, time.UTC)}},
		"autumn": {"2026-10-30 12:00", []time.Time{
			time.Date(2026, 10, 31, 9, 0, 0, 0, time.UTC), time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC), time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, jobs := scheduled(t, tc.start, "0 5 * * *")
			for i, due := range tc.utc {
				w.Clock.AdvanceTo(due.Add(-30 * time.Second))
				w.settle()
				if n := len(jobs.deliveries()); n != i {
					t.Fatalf("%d jobs before %s, want %d", n, due, i)
				}
				w.Clock.AdvanceTo(due)
				if got := jobs.wait(t, i+1)[i]; string(got.Data) != `{"job":"relay"}` {
					t.Errorf("job %s, want relay", got.Data)
				}
			}
		})
	}
}

func TestSchedule_MissedTimesAreSentOnce(t *testing.T) {
	t.Parallel()
	w, jobs := scheduled(t, "2026-02-03 12:00", "0 * * * *")
	w.Clock.AdvanceTo(at("2026-02-04 12:30"))
	jobs.wait(t, 1)
	w.Clock.AdvanceTo(at("2026-02-04 13:00"))
	jobs.wait(t, 2)
	w.settle()
	if n := len(jobs.deliveries()); n != 2 {
		t.Errorf("%d jobs, want one for the 24 slept through and one for 13:00", n)
	}
}

func TestSchedule_ImpossibleTimeIsLoggedAndEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "memory")
	s := pipeline.Schedule{Name: "never", Cron: "0 0 31 2 *", Function: "reconcile", Job: "relay"}
	schedule(context.Background(), w.App, w.Clock, w.Clock.Now(), s, w.logs.errorf)
	if w.logs.count("never comes") != 1 {
		t.Error("nothing was said")
	}
}
