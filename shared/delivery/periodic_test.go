package delivery_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/wire"
)

// The schedules are those of the default pipeline: relay every 5 minutes, health every
// hour, nightly and sweep every day.
func TestPeriodic_RetriesAJobUntilTheNextOne(t *testing.T) {
	const day = 24 * time.Hour
	broken := errors.New("BigQuery is down")
	for name, tc := range map[string]struct {
		job        string
		age        time.Duration
		failed     time.Duration // before that, for the first time
		fails      error
		runs       bool
		superseded bool
		severity   string
	}{
		"new":                             {job: "relay", runs: true},
		"new, fails":                      {job: "relay", fails: broken, runs: true},
		"relay of before the last second": {job: "relay", age: 5*time.Minute - time.Second, fails: broken, runs: true},
		"relay of five minutes":           {job: "relay", age: 5 * time.Minute, superseded: true, severity: "WARNING"},
		"health of before the next":       {job: "health", age: time.Hour - time.Second, fails: broken, runs: true},
		"health of an hour":               {job: "health", age: time.Hour, superseded: true, severity: "WARNING"},
		"nightly within the hour":         {job: "nightly", age: time.Hour - time.Second, fails: broken, runs: true},
		"nightly after the hour":          {job: "nightly", age: time.Hour, failed: time.Hour, fails: broken, runs: true, superseded: true, severity: "ERROR"},
		"nightly, delivered late":         {job: "nightly", age: day - time.Second, runs: true},
		"nightly, late, fails":            {job: "nightly", age: 5 * time.Hour, fails: broken, runs: true},
		"nightly, late, fails again":      {job: "nightly", age: 5 * time.Hour, failed: time.Hour - time.Second, fails: broken, runs: true},
		"nightly, late, fails for good":   {job: "nightly", age: 5 * time.Hour, failed: time.Hour, fails: broken, runs: true, superseded: true, severity: "ERROR"},
		"nightly of an hour, fails":       {job: "nightly", age: time.Hour, fails: broken, runs: true},
		"nightly of a day":                {job: "nightly", age: day, superseded: true, severity: "WARNING"},
		"sweep after the hour":            {job: "sweep", age: time.Hour, failed: time.Hour, fails: delivery.ErrBusy, runs: true, superseded: true, severity: "ERROR"},
		"sweep of a day":                  {job: "sweep", age: day, superseded: true, severity: "WARNING"},
		"verify has no schedule":          {job: "verify", age: 30 * day, fails: broken, runs: true},
		"published in the future":         {job: "relay", age: -time.Hour, runs: true},
	} {
		for _, down := range []bool{false, true} {
			if down && tc.failed > 0 {
				continue // then it is not known
			}
			t.Run(fmt.Sprint(name, ", store down ", down), func(t *testing.T) {
				published := time.Date(2026, 2, 4, 15, 30, 0, 200_000_000, time.UTC) // half past ten in New York, and on the hour's half
				if tc.job == "health" {
					published = published.Add(-25 * time.Minute)
				}
				w := apptest.New(t, published.Add(tc.age))
				periodic := func(fails error) (runs int, err error) {
					err = delivery.Periodic(t.Context(), w.App, wire.Envelope{MessageID: "job-1", PublishTime: published}, tc.job, func() error { runs++; return fails })
					return runs, err
				}
				if tc.failed > 0 { // after one of another message, a day ago
					w.SetNow(published.Add(tc.age - tc.failed))
					_ = delivery.Periodic(t.Context(), w.App, wire.Envelope{MessageID: "job-0", PublishTime: published}, tc.job, func() error { return broken })
					if runs, err := periodic(broken); runs != 1 || !errors.Is(err, broken) {
						t.Errorf("the first attempt: %d runs, error %v", runs, err)
					}
					w.SetNow(published.Add(tc.age))
				}
				w.SetDown(down)
				runs, err := periodic(tc.fails)
				if want := tc.fails; tc.superseded && err != nil || !tc.superseded && !errors.Is(err, want) {
					t.Errorf("error %v, want %v", err, want)
				}
				if (runs == 1) != tc.runs {
					t.Errorf("%d runs", runs)
				}
				lines := w.Logs.Lines("event", "job_superseded")
				if (len(lines) == 1) != tc.superseded {
					t.Fatalf("%v", lines)
				}
				if tc.superseded && (lines[0]["severity"] != tc.severity || lines[0]["job"] != tc.job || lines[0]["message_id"] != "job-1" ||
					tc.fails != nil && !strings.Contains(lines[0]["message"].(string), tc.fails.Error())) {
					t.Errorf("%v", lines[0])
				}
			})
		}
	}
}

// A machine whose clock is fast takes every job for an old one.
func TestPeriodic_AFastClockDropsNoJob(t *testing.T) {
	w := apptest.New(t, now)
	w.App.Now = func() time.Time { return now.Add(time.Hour) } // the store's stays
	runs := 0
	err := delivery.Periodic(t.Context(), w.App, wire.Envelope{MessageID: "job-1", PublishTime: now}, "relay", func() error { runs++; return errors.New("down") })
	if err == nil || runs != 1 {
		t.Errorf("%d runs, error %v", runs, err)
	}
}
