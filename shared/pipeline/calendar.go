package pipeline

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
	_ "time/tzdata" // an image without zone files would turn today into yesterday
)

// Period names a stretch of the calendar, now a day such as 2026-02-03. It is
// opaque to everything but a [Calendar]; periods of one calendar sort by time.
type Period string

// Relation is the place of an instant relative to a period.
type Relation string

// The relations, in the order of time.
const (
	Before Relation = "before"
	Within Relation = "within"
	After  Relation = "after"
)

// Calendar makes periods and local instants of one time zone. Its unit is the day.
type Calendar struct{ zone *time.Location }

// NewCalendar returns the calendar of days in a zone.
func NewCalendar(zone *time.Location) Calendar { return Calendar{zone: zone} }

// Zone returns the calendar's time zone.
func (c Calendar) Zone() *time.Location { return c.zone }

// Parse checks that s names a period: exactly YYYY-MM-DD, a date that exists, and far
// enough from the year 10000 that what is reckoned from it has four digits too.
func (c Calendar) Parse(s string) (Period, error) {
	if _, err := time.Parse(time.DateOnly, s); err != nil || len(s) != len(time.DateOnly) || s < "1900" || s >= "9900" {
		return "", fmt.Errorf("%q is no date of the form YYYY-MM-DD", s)
	}
	return Period(s), nil
}

// At returns the period that contains an instant.
func (c Calendar) At(t time.Time) Period { return Period(t.In(c.zone).Format(time.DateOnly)) }

// Add returns the period n periods later (earlier when n is negative).
func (c Calendar) Add(p Period, n int) Period {
	return Period(c.day(p).AddDate(0, 0, n).Format(time.DateOnly))
}

// Start returns the first instant of a period.
func (c Calendar) Start(p Period) time.Time { return c.Instant(p, Offset{}) }

// End returns the first instant after a period.
func (c Calendar) End(p Period) time.Time { return c.Instant(p, Offset{Days: 1}) }

// Relation says whether an instant lies before, within or after a period.
func (c Calendar) Relation(p Period, t time.Time) Relation { return c.relations(p)(t) }

func (c Calendar) relations(p Period) func(time.Time) Relation {
	start, end := c.Start(p), c.End(p)
	return func(t time.Time) Relation {
		switch {
		case t.Before(start):
			return Before
		case t.Before(end):
			return Within
		}
		return After
	}
}

// Offset is a local wall-clock time relative to a period: Days after the period's
// day (negative: before), at Minute minutes after midnight on the clock.
type Offset struct {
	Days   int
	Minute int
}

var offsetForm = regexp.MustCompile(`^(?:([+-][1-9]\d{0,2})d )?([01]\d|2[0-3]):([0-5]\d)$`)

// ParseOffset reads "18:00", "-1d 16:30" or "+1d 05:00".
func ParseOffset(s string) (Offset, error) {
	m := offsetForm.FindStringSubmatch(s)
	if m == nil {
		return Offset{}, fmt.Errorf(`%q is no local time of the form "18:00", "-1d 16:30" or "+1d 05:00"`, s)
	}
	var o Offset
	if m[1] != "" {
		o.Days, _ = strconv.Atoi(m[1])
	}
	h, _ := strconv.Atoi(m[2])
	min, _ := strconv.Atoi(m[3])
	o.Minute = h*60 + min
	return o, nil
}

func (o Offset) String() string {
	clock := fmt.Sprintf("%02d:%02d", o.Minute/60, o.Minute%60)
	if o.Days == 0 {
		return clock
	}
	return fmt.Sprintf("%+dd %s", o.Days, clock)
}

// Instant returns the instant of a local time. A time that the clock shows twice is
// taken the first time; one that it skips becomes the instant at which it skips.
func (c Calendar) Instant(p Period, o Offset) time.Time {
	day := c.day(p).AddDate(0, 0, o.Days)
	wall := day.Add(time.Duration(o.Minute) * time.Minute)
	var first time.Time
	before, after := c.offset(wall.Add(-24*time.Hour)), c.offset(wall.Add(24*time.Hour))
	for _, offset := range [...]time.Duration{before, after} {
		// The clock shows the wall's time at t when its offset there is the one assumed.
		if t := wall.Add(-offset); c.offset(t) == offset && (first.IsZero() || t.Before(first)) {
			first = t
		}
		if before == after {
			break
		}
	}
	if !first.IsZero() {
		return first.UTC()
	}
	// Skipped: by the offset before the gap the instant lies after it, in the zone's
	// next stretch, whose start is the gap.
	start, _ := wall.Add(-before).In(c.zone).ZoneBounds()
	return start.UTC()
}

// day returns a period's day at midnight UTC, for arithmetic on the wall clock.
func (c Calendar) day(p Period) time.Time {
	t, err := time.Parse(time.DateOnly, string(p))
	if err != nil {
		panic(fmt.Sprintf("period %q was not made by this calendar", string(p)))
	}
	return t
}

// offset returns how far the zone's clock is ahead of UTC at an instant.
func (c Calendar) offset(t time.Time) time.Duration {
	_, seconds := t.In(c.zone).Zone()
	return time.Duration(seconds) * time.Second
}
