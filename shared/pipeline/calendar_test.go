package pipeline

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func calendarOf(t *testing.T, zone string) Calendar {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return NewCalendar(loc)
}

func instant(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestCalendar_AcceptsOnlyExistingDates(t *testing.T) {
	c := calendarOf(t, "America/New_York")
	for _, s := range []string{"2026-02-03", "2024-02-29", "1900-01-01", "9899-12-31"} {
		if p, err := c.Parse(s); err != nil || string(p) != s {
			t.Errorf("%q: period %q, error %v", s, p, err)
		}
	}
	for _, s := range []string{
		"", "TODAY", "YESTERDAY", "2026-02-30", "2026-02-29", "2026-2-3", "2026-02-03T00:00:00", "2026-02-03 ", " 2026-02-03", "20260203",
		"2026/02/03", "26-02-03", "2026-00-01", "2026-13-01", "2026-02-00", "0000-01-01", "1899-12-31", "9900-01-01", "9999-12-31", "10000-01-01",
		"-026-02-03", "2026-02-03\n", "2026-02-03\x00", "２０２６-02-03", "2026‐02‐03", "phase3~1", "../../x", "__name__", strings.Repeat("2026-02-03", 500),
	} {
		if p, err := c.Parse(s); err == nil || p != "" {
			t.Errorf("%q: period %q, error %v", s, p, err)
		}
	}
}

func TestCalendar_InvalidPeriodPanics(t *testing.T) {
	for _, p := range []Period{"", "TODAY", "2026-02-30"} {
		func() {
			defer func() {
				if said := fmt.Sprint(recover()); !strings.Contains(said, fmt.Sprintf("%q", string(p))) {
					t.Errorf("%q: panic %q", p, said)
				}
			}()
			calendarOf(t, "UTC").Start(p)
		}()
	}
}

func TestCalendar_AddMovesByPeriods(t *testing.T) {
	c := calendarOf(t, "America/New_York")
	for _, tc := range []struct {
		from Period
		n    int
		want Period
	}{
		{"2026-02-03", 0, "2026-02-03"}, {"2026-02-28", 1, "2026-03-01"}, {"2024-02-28", 1, "2024-02-29"}, {"2026-03-01", -1, "2026-02-28"},
		{"2025-12-31", 1, "2026-01-01"}, {"2026-03-07", 1, "2026-03-08"}, {"2026-03-08", 1, "2026-03-09"}, {"2026-11-02", -1, "2026-11-01"},
		{"9899-12-31", 1000, "9902-09-27"},
	} {
		if got := c.Add(tc.from, tc.n); got != tc.want {
			t.Errorf("%s %+d: %s, want %s", tc.from, tc.n, got, tc.want)
		}
	}
}

func TestCalendar_LocalTimeBecomesInstant(t *testing.T) {
	for _, tc := range []struct {
		zone   string
		period Period
		offset string
		want   string
	}{
		{"America/New_York", "2026-02-03", "18:00", "2026-02-03T23:00:00Z"},
		{"America/New_York", "2026-02-03", "+1d 05:00", "2026-02-04T10:00:00Z"},
		{"America/New_York", "2026-02-03", "-1d 16:30", "2026-02-02T21:30:00Z"},
		{"America/New_York", "2026-07-03", "18:00", "2026-07-03T22:00:00Z"},
		// The clock goes from 02:00 to 03:00 at 07:00Z.
		{"America/New_York", "2026-03-08", "01:59", "2026-03-08T06:59:00Z"},
		{"America/New_York", "2026-03-08", "02:00", "2026-03-08T07:00:00Z"},
		{"America/New_York", "2026-03-08", "02:30", "2026-03-08T07:00:00Z"},
		{"America/New_York", "2026-03-08", "02:59", "2026-03-08T07:00:00Z"},
		{"America/New_York", "2026-03-08", "03:00", "2026-03-08T07:00:00Z"},
		{"America/New_York", "2026-03-08", "05:00", "2026-03-08T09:00:00Z"},
		{"America/New_York", "2026-03-07", "+1d 02:30", "2026-03-08T07:00:00Z"},
		{"America/New_York", "2026-03-09", "-1d 05:00", "2026-03-08T09:00:00Z"},
		// The clock goes from 02:00 back to 01:00 at 06:00Z.
		{"America/New_York", "2026-11-01", "00:59", "2026-11-01T04:59:00Z"},
		{"America/New_York", "2026-11-01", "01:00", "2026-11-01T05:00:00Z"},
		{"America/New_York", "2026-11-01", "01:30", "2026-11-01T05:30:00Z"},
		{"America/New_York", "2026-11-01", "02:00", "2026-11-01T07:00:00Z"},
		{"America/New_York", "2026-10-31", "+1d 10:00", "2026-11-01T15:00:00Z"},
		{"Europe/London", "2026-03-29", "01:30", "2026-03-29T01:00:00Z"},
		{"Europe/London", "2026-03-29", "02:00", "2026-03-29T01:00:00Z"},
		{"Europe/London", "2026-10-25", "01:30", "2026-10-25T00:30:00Z"},
		{"Europe/London", "2026-10-25", "02:00", "2026-10-25T02:00:00Z"},
		// Midnight itself is skipped, or shown twice, or comes after 23:00 twice.
		{"America/Havana", "2026-03-08", "00:00", "2026-03-08T05:00:00Z"},
		{"America/Havana", "2026-03-08", "00:30", "2026-03-08T05:00:00Z"},
		{"America/Havana", "2026-11-01", "00:30", "2026-11-01T04:30:00Z"},
		{"Asia/Beirut", "2026-03-29", "00:00", "2026-03-28T22:00:00Z"},
		{"Asia/Beirut", "2026-10-24", "23:30", "2026-10-24T20:30:00Z"},
		{"Asia/Beirut", "2026-10-25", "00:00", "2026-10-24T22:00:00Z"},
		// Half an hour of daylight saving; a day that does not exist at all.
		{"Australia/Lord_Howe", "2026-10-04", "02:15", "2026-10-03T15:30:00Z"},
		{"Pacific/Apia", "2011-12-30", "12:00", "2011-12-30T10:00:00Z"},
		{"Asia/Kathmandu", "2026-02-03", "00:00", "2026-02-02T18:15:00Z"},
		{"Pacific/Kiritimati", "2026-02-03", "00:00", "2026-02-02T10:00:00Z"},
		{"UTC", "2026-02-03", "23:59", "2026-02-03T23:59:00Z"},
	} {
		o, err := NewCalendar(time.UTC).ParseOffset(tc.offset)
		if err != nil {
			t.Fatal(err)
		}
		got := calendarOf(t, tc.zone).Instant(tc.period, o)
		if !got.Equal(instant(t, tc.want)) || got.Location() != time.UTC {
			t.Errorf("%s %s %s: %v, want %s", tc.zone, tc.period, tc.offset, got, tc.want)
		}
	}
}

func TestCalendar_DayLengthFollowsZone(t *testing.T) {
	for _, tc := range []struct {
		zone   string
		period Period
		hours  float64
	}{
		{"America/New_York", "2026-02-03", 24}, {"America/New_York", "2026-03-08", 23}, {"America/New_York", "2026-11-01", 25},
		{"Europe/London", "2026-03-29", 23}, {"Europe/London", "2026-10-25", 25},
		{"America/Havana", "2026-03-07", 24}, {"America/Havana", "2026-03-08", 23}, {"America/Havana", "2026-11-01", 25},
		{"Asia/Beirut", "2026-03-28", 24}, {"Asia/Beirut", "2026-03-29", 23}, {"Asia/Beirut", "2026-10-24", 25},
		{"Australia/Lord_Howe", "2026-10-04", 23.5}, {"Pacific/Apia", "2011-12-30", 0},
	} {
		c := calendarOf(t, tc.zone)
		if got := c.End(tc.period).Sub(c.Start(tc.period)).Hours(); got != tc.hours {
			t.Errorf("%s %s has %v hours, want %v", tc.zone, tc.period, got, tc.hours)
		}
	}
}

var zones = []string{
	"America/New_York", "Europe/London", "America/Havana", "Asia/Beirut", "America/Sao_Paulo", "Africa/Cairo", "Asia/Tehran",
	"Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kiritimati", "Asia/Kathmandu", "UTC",
}

func TestCalendar_PeriodSpansStartToEnd(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := calendarOf(t, rapid.SampledFrom(zones).Draw(rt, "zone"))
		at := time.Unix(rapid.Int64Range(0, 2_500_000_000).Draw(rt, "at"), 0)
		p := c.At(at)
		if string(p) != at.In(c.Zone()).Format(time.DateOnly) {
			rt.Fatalf("%v is in %s", at.In(c.Zone()), p)
		}
		start, end := c.Start(p), c.End(p)
		if at.Before(start) || !at.Before(end) {
			rt.Fatalf("%v is in %s, which lasts from %v to %v", at, p, start, end)
		}
		for _, bound := range []time.Time{start, end} {
			for d, want := range map[time.Duration]Relation{-1: Before, 0: Within} {
				of := p
				if bound.Equal(end) {
					of = c.At(end)
				}
				if got := c.Relation(of, bound.Add(d)); got != want {
					rt.Fatalf("%v%+d ns of %s: %s, want %s", bound, d, of, got, want)
				}
			}
		}
		if got := c.Relation(p, end); got != After {
			rt.Fatalf("the end of %s is %s it", p, got)
		}
	})
}

func TestCalendar_PeriodsSortByTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := calendarOf(t, rapid.SampledFrom(zones).Draw(rt, "zone"))
		at := rapid.Int64Range(0, 2_500_000_000)
		a, b := time.Unix(at.Draw(rt, "a"), 0), time.Unix(at.Draw(rt, "b"), 0)
		if c.At(a) < c.At(b) && !a.Before(b) {
			rt.Fatalf("%v is in %s, %v in %s", a, c.At(a), b, c.At(b))
		}
	})
}

func TestMode_FollowsLocalEventTime(t *testing.T) {
	tr := nbaPipeline(t).Transitions[0]
	for at, want := range map[string]string{
		"2026-02-02T17:30:00-05:00":      "tomorrow",
		"2026-02-03T04:59:59.999999999Z": "tomorrow",
		"2026-02-03T05:00:00Z":           "same_day",
		"2026-02-04T00:30:00Z":           "same_day",
		"2026-02-04T04:59:59.999999999Z": "same_day",
		"2026-02-04T05:00:00Z":           "overnight",
		"2026-02-04T11:03:12Z":           "overnight",
		"2027-01-01T00:00:00Z":           "overnight",
	} {
		if got := tr.ModeAt("2026-02-03", instant(t, at)); got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
		if got := tr.ModesOf("2026-02-03")(instant(t, at)); got != want {
			t.Errorf("%s, bounds worked out before: %q, want %q", at, got, want)
		}
	}
	tr.Modes = tr.Modes[1:]
	if got := tr.ModeAt("2026-02-03", instant(t, "2026-02-01T00:00:00Z")); got != "" {
		t.Errorf("without a mode for what comes before: %q", got)
	}
}

func TestOffset_RoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Offset{Periods: rapid.IntRange(-999, 999).Draw(t, "days"), Minute: rapid.IntRange(0, 24*60-1).Draw(t, "minute")}
		if got, err := NewCalendar(time.UTC).ParseOffset(want.String()); err != nil || got != want {
			t.Fatalf("%s: %+v, error %v, want %+v", want, got, err, want)
		}
	})
}

func TestOffset_HasOneSpelling(t *testing.T) {
	for s, want := range map[string]Offset{
		"00:00": {}, "18:00": {Minute: 1080}, "-1d 16:30": {Periods: -1, Minute: 990}, "+1d 05:00": {Periods: 1, Minute: 300}, "+999d 23:59": {Periods: 999, Minute: 1439},
	} {
		if got, err := NewCalendar(time.UTC).ParseOffset(s); err != nil || got != want {
			t.Errorf("%q: %+v, error %v, want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "5:00", "05:0", "24:00", "12:60", "1d 05:00", "+1d05:00", "+1d  05:00", "+0d 05:00", "+01d 05:00", "+1000d 05:00", "+1 05:00",
		" 05:00", "05:00 ", "05:00\n", "05:00:00", "5pm", "-05:00", "０５:００",
	} {
		if got, err := NewCalendar(time.UTC).ParseOffset(s); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", s)) {
			t.Errorf("%q: %+v, error %v", s, got, err)
		}
	}
}
