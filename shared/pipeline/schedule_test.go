package pipeline

import (
	"testing"
	"time"
)

func TestInterval_IsTheGapBetweenTwoJobs(t *testing.T) {
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		when, err := time.ParseInLocation("2006-01-02 15:04:05.000", s, zone)
		if err != nil {
			t.Fatal(err)
		}
		return when.UTC()
	}
	const minutes5, night, office = "*/5 * * * *", "30 10 * * *", "*/5 8-18 * * *"
	for name, tc := range map[string]struct {
		crons []string
		job   string
		at    string
		want  time.Duration
	}{
		"on the minute":                 {[]string{minutes5}, "relay", "2026-02-04 10:05:00.000", 5 * time.Minute},
		"just after it":                 {[]string{minutes5}, "relay", "2026-02-04 10:05:00.300", 5 * time.Minute},
		"by hand, just before the next": {[]string{minutes5}, "relay", "2026-02-04 10:04:59.000", 5 * time.Minute},
		"a day":                         {[]string{night}, "relay", "2026-02-04 10:30:00.100", 24 * time.Hour},
		"a day of 23 hours":             {[]string{night}, "relay", "2026-03-07 10:30:00.100", 23 * time.Hour},
		"the last of a day":             {[]string{office}, "relay", "2026-02-04 18:55:00.100", 13*time.Hour + 5*time.Minute},
		"two schedules of one job":      {[]string{night, minutes5}, "relay", "2026-02-04 10:30:00.100", 5 * time.Minute},
		"another job":                   {[]string{minutes5}, "verify", "2026-02-04 10:30:00.100", 0},
		"weeks after the last":          {[]string{"0 0 1 * *"}, "relay", "2026-02-20 10:30:00.100", 28 * 24 * time.Hour},
		"never":                         {[]string{"0 0 31 2 *"}, "relay", "2026-02-20 10:30:00.100", 0},
	} {
		p := &Pipeline{Calendar: NewCalendar(zone)}
		for _, cron := range tc.crons {
			p.Schedules = append(p.Schedules, Schedule{Cron: cron, Job: "relay"}, Schedule{Cron: "* * * * *", Job: "health"})
		}
		if got := p.Interval(tc.job, at(tc.at)); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
