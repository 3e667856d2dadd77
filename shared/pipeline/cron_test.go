package pipeline

import (
	"strings"
	"testing"
	"time"
)

func zoned(t *testing.T, zone string) *Pipeline {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return &Pipeline{Calendar: NewCalendar(loc)}
}

// The times of a schedule, forwards and backwards, in UTC.
func TestCron_DueTimes(t *testing.T) {
	for name, c := range map[string]struct {
		cron, zone, from string
		want             []string
	}{
		"every_five_minutes": {"*/5 * * * *", "UTC", "2026-02-03T10:02:30Z", []string{"2026-02-03T10:05:00Z", "2026-02-03T10:10:00Z"}},
		"not_the_instant":    {"0 * * * *", "UTC", "2026-02-03T10:00:00Z", []string{"2026-02-03T11:00:00Z"}},
		"local_morning":      {"30 10 * * *", "America/New_York", "2026-02-03T12:00:00Z", []string{"2026-02-03T15:30:00Z", "2026-02-04T15:30:00Z"}},
		"lists_and_ranges":   {"5,10-20/5 8-9 * * *", "UTC", "2026-02-03T08:14:00Z", []string{"2026-02-03T08:15:00Z", "2026-02-03T08:20:00Z", "2026-02-03T09:05:00Z"}},
		"weekly":             {"0 6 * * MON", "UTC", "2026-02-03T00:00:00Z", []string{"2026-02-09T06:00:00Z"}},
		"sunday_is_0":        {"0 6 * * 0", "UTC", "2026-02-03T00:00:00Z", []string{"2026-02-08T06:00:00Z", "2026-02-15T06:00:00Z"}},
		"sunday_is_7":        {"0 6 * * 7", "UTC", "2026-02-03T00:00:00Z", []string{"2026-02-08T06:00:00Z", "2026-02-15T06:00:00Z"}},
		"saturday_to_sunday": {"0 6 * * 6-7", "UTC", "2026-02-03T00:00:00Z", []string{"2026-02-07T06:00:00Z", "2026-02-08T06:00:00Z", "2026-02-14T06:00:00Z"}},
		"monthly":            {"0 6 1 * *", "UTC", "2026-02-03T00:00:00Z", []string{"2026-03-01T06:00:00Z", "2026-04-01T06:00:00Z"}},
		"the_31st":           {"0 6 31 * *", "UTC", "2026-02-03T00:00:00Z", []string{"2026-03-31T06:00:00Z", "2026-05-31T06:00:00Z"}},
		"yearly":             {"0 6 1 jan *", "UTC", "2026-02-03T00:00:00Z", []string{"2027-01-01T06:00:00Z", "2028-01-01T06:00:00Z"}},
		"leap_day":           {"0 6 29 2 *", "UTC", "2096-03-01T00:00:00Z", []string{"2104-02-29T06:00:00Z"}},
		"either_day":         {"0 6 13 * 5", "UTC", "2026-02-10T00:00:00Z", []string{"2026-02-13T06:00:00Z", "2026-02-20T06:00:00Z", "2026-02-27T06:00:00Z", "2026-03-06T06:00:00Z", "2026-03-13T06:00:00Z"}},

		"daily_in_the_repeated_hour":       {"30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", []string{"2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"}},
		"hourly_in_the_repeated_hour":      {"30 * * * *", "America/New_York", "2026-11-01T05:00:00Z", []string{"2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-01T07:30:00Z"}},
		"some_hours_in_the_repeated_hour":  {"0 */1,1 * * *", "America/New_York", "2026-11-01T04:30:00Z", []string{"2026-11-01T05:00:00Z", "2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z"}},
		"few_hours_in_the_repeated_hour":   {"0 1-3 * * *", "America/New_York", "2026-11-01T04:30:00Z", []string{"2026-11-01T05:00:00Z", "2026-11-01T07:00:00Z", "2026-11-01T08:00:00Z"}},
		"daily_in_the_skipped_hour":        {"30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", []string{"2026-03-09T06:30:00Z"}},
		"hourly_in_the_skipped_hour":       {"30 * * * *", "America/New_York", "2026-03-08T06:00:00Z", []string{"2026-03-08T06:30:00Z", "2026-03-08T07:30:00Z"}},
		"midnight_that_is_skipped":         {"0 * * * *", "America/Sao_Paulo", "2018-11-04T02:30:00Z", []string{"2018-11-04T03:00:00Z", "2018-11-04T04:00:00Z"}},
		"half_an_hour_that_is_repeated":    {"45 1 * * *", "Australia/Lord_Howe", "2026-04-03T20:00:00Z", []string{"2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"}},
		"the_day_that_a_zone_has_left_out": {"0 6 * * *", "Pacific/Apia", "2011-12-29T20:00:00Z", []string{"2011-12-30T16:00:00Z"}},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := zoned(t, c.zone), Schedule{Cron: c.cron}
			at, err := time.Parse(time.RFC3339, c.from)
			if err != nil {
				t.Fatal(err)
			}
			before := p.LastDue(s, at.Add(time.Nanosecond))
			for _, want := range c.want {
				next := p.NextDue(s, at)
				if got := next.Format(time.RFC3339); got != want {
					t.Fatalf("after %s: %s, want %s", at.Format(time.RFC3339), got, want)
				}
				if got := p.LastDue(s, next); !got.Equal(before) {
					t.Fatalf("before %s: %s, want %s", want, got, before)
				}
				if got := p.LastDue(s, next.Add(time.Nanosecond)); !got.Equal(next) {
					t.Fatalf("at %s: %s", want, got)
				}
				at, before = next, next
			}
		})
	}
}

// The parser refuses expressions that Cloud Scheduler refuses, and says what to write instead.
func TestCron_FormsThatCloudSchedulerDoesNotRead(t *testing.T) {
	for _, word := range []string{"? * * * *", "5/15 * * * *", "*/0 * * * *", "*/90 * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 8",
		"* * * foo *", "20-10 * * * *", "1,,2 * * * *", "-1 * * * *", "* * L * *", "* * * * 5#1", "* * ? * *", "+5 * * * *", "* * 31 2,4,6,9,11 *"} {
		_, err := parseCron(word)
		if err == nil {
			t.Errorf("%q is taken", word)
		} else if !strings.Contains(err.Error(), "write *") && !strings.Contains(err.Error(), "never comes") {
			t.Errorf("%q: %v", word, err)
		}
	}
	_, err := parseCron("*/90 * * * *")
	if want := `"*/90" is no minute: write *, a number from 0 to 59, a range such as 0-1, a step such as */2, or a list of these`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// The relay and health run all day, in UTC; every other job, and one of theirs at a time of day, on
// the clock of the pipeline's zone.
func TestCron_RelayAndHealthRunInUTC(t *testing.T) {
	p := zoned(t, "Asia/Kolkata") // half an hour off
	from := time.Date(2026, 2, 3, 10, 10, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		s    Schedule
		want string
	}{
		"relay":            {Schedule{Job: "relay", Cron: "*/7 * * * *"}, "2026-02-03T10:14:00Z"},
		"health":           {Schedule{Job: "health", Cron: "5 * * * *"}, "2026-02-03T11:05:00Z"},
		"every_six_hours":  {Schedule{Job: "health", Cron: "0 */6 * * *"}, "2026-02-03T12:00:00Z"},
		"health_by_day":    {Schedule{Job: "health", Cron: "0 16 * * *"}, "2026-02-03T10:30:00Z"},
		"nightly":          {Schedule{Job: "nightly", Cron: "0 16 * * *"}, "2026-02-03T10:30:00Z"},
		"nightly_all_day":  {Schedule{Job: "nightly", Cron: "0 * * * *"}, "2026-02-03T10:30:00Z"},
		"sweep_every_hour": {Schedule{Job: "sweep", Cron: "0 * * * *"}, "2026-02-03T10:30:00Z"},
	} {
		next := p.NextDue(c.s, from)
		if got := next.Format(time.RFC3339); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if last := p.LastDue(c.s, next.Add(time.Nanosecond)); !last.Equal(next) {
			t.Errorf("%s: last due %s, want %s", name, last, next)
		}
	}
}

// A job is refused if its zone's clock skips or repeats one of its times on one of its days.
// The hour of the change does not matter. A job that runs all day is accepted.
func TestCron_SkippedHoursAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		zone, job, cron string
		refused         bool
	}{
		"new_york":          {"America/New_York", "nightly", "30 2 * * *", true},
		"new_york_repeated": {"America/New_York", "nightly", "30 1 * * *", true},
		"berlin_sunday":     {"Europe/Berlin", "sweep", "0 2 * * 7", true},
		"berlin_monday":     {"Europe/Berlin", "sweep", "0 2 * * 1", false},
		"berlin_one":        {"Europe/Berlin", "sweep", "0 1 * * *", false},
		"some_hours":        {"Europe/Berlin", "sweep", "0 0,2 * * *", true},
		"relay_by_hand":     {"Europe/Berlin", "relay", "0 1-2 * * *", true},
		"southern":          {"Australia/Sydney", "nightly", "30 2 * * *", true},
		"half_an_hour":      {"Australia/Lord_Howe", "nightly", "45 1 * * *", true},
		"its_other_half":    {"Australia/Lord_Howe", "nightly", "15 1 * * *", false},
		"three":             {"America/New_York", "nightly", "0 3 * * *", false},
		"midnight":          {"America/New_York", "nightly", "59 0 * * *", false},
		"every_hour":        {"America/New_York", "sweep", "0 * * * *", false},
		"relay":             {"America/New_York", "relay", "*/5 * * * *", false},
		"six_hours":         {"America/New_York", "health", "0 */2 * * *", false},
		"utc":               {"UTC", "nightly", "30 2 * * *", false},
		"tokyo":             {"Asia/Tokyo", "nightly", "30 2 * * *", false},

		"cairo_skips_midnight":      {"Africa/Cairo", "nightly", "15 0 * * *", true},
		"cairo_repeats_eleven":      {"Africa/Cairo", "nightly", "15 23 * * *", true},
		"cairo_two":                 {"Africa/Cairo", "nightly", "30 2 * * *", false},
		"havana_skips_midnight":     {"America/Havana", "nightly", "0 0 * * *", true},
		"havana_two":                {"America/Havana", "nightly", "30 2 * * *", false},
		"santiago_skips_midnight":   {"America/Santiago", "nightly", "30 0 * * *", true},
		"santiago_repeats_eleven":   {"America/Santiago", "nightly", "30 23 * * *", true},
		"beirut_skips_midnight":     {"Asia/Beirut", "nightly", "30 0 * * *", true},
		"beirut_two":                {"Asia/Beirut", "nightly", "30 2 * * *", false},
		"casablanca_before_ramadan": {"Africa/Casablanca", "nightly", "30 2 * * *", true},
		"casablanca_one":            {"Africa/Casablanca", "nightly", "30 1 * * *", false},
	} {
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		v := &validator{}
		v.cron("schedules[0].cron", Schedule{Job: c.job, Cron: c.cron}, zone)
		if refused := len(v.problems) > 0; refused != c.refused {
			t.Errorf("%s: %q", name, v.problems)
		}
	}
}

func TestCron_SpacesBetweenFieldsMeanNothing(t *testing.T) {
	definition, _ := change(t, `"*/5 * * * *"`, `"  */5   *  * *   *"`)
	p, err := Parse([]byte(definition))
	if err != nil || p.Schedules[0].Cron != "*/5 * * * *" {
		t.Errorf("%q, error %v", p.Schedules[0].Cron, err)
	}
}
