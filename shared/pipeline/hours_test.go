package pipeline

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func hoursOf(t *testing.T, zone string) Calendar {
	t.Helper()
	return NewHourly(calendarOf(t, zone).Zone())
}

func TestHours_AreNamedInUTC(t *testing.T) {
	c := hoursOf(t, "Asia/Kolkata")
	for _, s := range []string{"2026-02-03T00", "2026-02-03T23", "1900-01-01T00", "9899-12-31T23"} {
		if p, err := c.Parse(s); err != nil || string(p) != s {
			t.Errorf("%q: period %q, error %v", s, p, err)
		}
	}
	for _, s := range []string{"", "2026-02-03", "2026-02-03T24", "2026-02-03T7", "2026-02-03 07", "2026-02-03T07:00", "2026-02-30T07", "2026-02-03T07Z",
		"1899-12-31T23", "9900-01-01T00", "2026-02-03t07"} {
		if p, err := c.Parse(s); err == nil || p != "" {
			t.Errorf("%q: period %q, error %v", s, p, err)
		}
	}
	if _, err := calendarOf(t, "UTC").Parse("2026-02-03T07"); err == nil {
		t.Error("a calendar of days takes an hour")
	}
}

func TestHours_IgnoreClockChanges(t *testing.T) {
	for _, tc := range []struct {
		zone, at, period, day string
	}{
		{"Europe/Berlin", "2026-02-03T14:59:59Z", "2026-02-03T14", "2026-02-03"},
		{"Europe/Berlin", "2026-02-03T23:00:00Z", "2026-02-03T23", "2026-02-04"},
		// Both are 02:30 on the clock.
		{"Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T00", "2026-10-25"},
		{"Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T01", "2026-10-25"},
		// The day begins in the middle of an hour.
		{"Asia/Kolkata", "2026-02-03T18:45:00Z", "2026-02-03T18", "2026-02-03"},
		{"Asia/Kolkata", "2026-02-03T19:15:00Z", "2026-02-03T19", "2026-02-04"},
	} {
		c, at := hoursOf(t, tc.zone), instant(t, tc.at)
		p := c.At(at)
		if string(p) != tc.period || string(c.Day(p)) != tc.day {
			t.Errorf("%s %s: %s of %s, want %s of %s", tc.zone, tc.at, p, c.Day(p), tc.period, tc.day)
		}
		if c.Relation(p, at) != Within || c.End(p).Sub(c.Start(p)) != time.Hour || c.Start(p).Location() != time.UTC {
			t.Errorf("%s: from %s to %s", p, c.Start(p), c.End(p))
		}
	}
}

func TestHours_WindowBeginsWithItsFirstDay(t *testing.T) {
	for _, tc := range []struct {
		zone, at string
		days     int
		from, to Period
	}{
		{"Europe/Berlin", "2026-02-03T14:20:00Z", 1, "2026-02-02T23", "2026-02-03T14"},
		{"Europe/Berlin", "2026-02-03T14:20:00Z", 7, "2026-01-27T23", "2026-02-03T14"},
		{"Europe/Berlin", "2026-03-29T10:20:00Z", 2, "2026-03-27T23", "2026-03-29T10"}, // 34 hours, not 35
		{"Asia/Kolkata", "2026-02-03T14:20:00Z", 1, "2026-02-02T18", "2026-02-03T14"},
	} {
		from, to := hoursOf(t, tc.zone).Window(instant(t, tc.at), tc.days)
		if from != tc.from || to != tc.to {
			t.Errorf("%s %s, %d days: %s to %s, want %s to %s", tc.zone, tc.at, tc.days, from, to, tc.from, tc.to)
		}
	}
	from, to := calendarOf(t, "Europe/Berlin").Window(instant(t, "2026-02-03T14:20:00Z"), 7)
	if from != "2026-01-28" || to != "2026-02-03" {
		t.Errorf("of days: %s to %s", from, to)
	}
}

func TestHours_OffsetBecomesInstant(t *testing.T) {
	c := hoursOf(t, "Europe/Berlin")
	for s, want := range map[string]string{":00": "2026-02-03T14:00:00Z", ":20": "2026-02-03T14:20:00Z", "+1h :05": "2026-02-03T15:05:00Z", "-2h :50": "2026-02-03T12:50:00Z", "+12h :00": "2026-02-04T02:00:00Z"} {
		o, err := c.ParseOffset(s)
		if err != nil || o.String() != s || !c.Instant("2026-02-03T14", o).Equal(instant(t, want)) {
			t.Errorf("%q: %q, %s, %v, want %s", s, o.String(), c.Instant("2026-02-03T14", o), err, want)
		}
	}
	for _, s := range []string{"", "18:00", "+1d 05:00", ":60", ":5", "+1h 05", "+0h :05", "1h :05", "+1d :05"} {
		if o, err := c.ParseOffset(s); err == nil || !strings.Contains(err.Error(), "+2h :05") {
			t.Errorf("%q: %+v, error %v", s, o, err)
		}
	}
}

func TestHours_FollowEachOther(t *testing.T) {
	c := hoursOf(t, "Europe/Berlin")
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "at"), 0)
		n := rapid.IntRange(-10_000, 10_000).Draw(t, "n")
		p := c.At(at)
		q := c.Add(p, n)
		if c.Add(q, -n) != p || c.Start(q).Sub(c.Start(p)) != time.Duration(n)*time.Hour || (n > 0) != (q > p) {
			t.Fatalf("%s %+d: %s", p, n, q)
		}
		if c.AddDays(p, 1) != c.Add(p, 24) || c.Add(p, 1) != c.At(c.End(p)) {
			t.Fatalf("%s: a day later %s, then %s", p, c.AddDays(p, 1), c.Add(p, 1))
		}
	})
}
