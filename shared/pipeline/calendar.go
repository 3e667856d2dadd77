package pipeline

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
	_ "time/tzdata" // an image without zone files would turn today into yesterday
)

// Period names a stretch of the calendar: a day such as 2026-02-03, or an hour such as
// 2026-02-03T14. It is opaque to everything but a [Calendar]; periods of one calendar
// sort by time.
type Period string

// Relation is the place of an instant relative to a period.
type Relation string

// The relations, in the order of time.
const (
	Before Relation = "before"
	Within Relation = "within"
	After  Relation = "after"
)

// Calendar makes periods and instants. Its unit is the day of one time zone, or the hour:
// hours are named in UTC, since on a local clock two of them can have one name.
type Calendar struct {
	zone   *time.Location
	hourly bool
}

// hourForm is how an hour is written, in UTC.
const hourForm = "2006-01-02T15"

// NewCalendar returns the calendar of days in a zone.
func NewCalendar(zone *time.Location) Calendar { return Calendar{zone: zone} }

// NewHourly returns the calendar of hours. Days are still those of the zone: those that a
// window counts, those of the scheduler and of the people.
func NewHourly(zone *time.Location) Calendar { return Calendar{zone: zone, hourly: true} }

// Hourly reports whether the periods are hours.
func (c Calendar) Hourly() bool { return c.hourly }

// Daily returns the calendar of days in the same zone.
func (c Calendar) Daily() Calendar { return NewCalendar(c.zone) }

// Zone returns the calendar's time zone.
func (c Calendar) Zone() *time.Location { return c.zone }

// Local writes an instant for people, on the zone's clock and with the zone's name of the
// season: two hours in a year look alike without.
func (c Calendar) Local(t time.Time) string { return t.In(c.zone).Format("2006-01-02 15:04 MST") }

// Parse checks that s names a period: exactly YYYY-MM-DD, or YYYY-MM-DDTHH of an hour. The date must
// exist, and be so far from the year 10000 that what is computed from it has four digits too.
func (c Calendar) Parse(s string) (Period, error) {
	layout, form := time.DateOnly, "date of the form YYYY-MM-DD"
	if c.hourly {
		layout, form = hourForm, "hour of the form YYYY-MM-DDTHH, in UTC"
	}
	if _, err := time.Parse(layout, s); err != nil || len(s) != len(layout) || s < "1900" || s >= "9900" {
		return "", fmt.Errorf("%q is no %s", s, form)
	}
	return Period(s), nil
}

// At returns the period that contains an instant.
func (c Calendar) At(t time.Time) Period {
	if c.hourly {
		return Period(t.UTC().Format(hourForm))
	}
	return Period(t.In(c.zone).Format(time.DateOnly))
}

// Add returns the period n periods later (earlier when n is negative).
func (c Calendar) Add(p Period, n int) Period {
	if c.hourly {
		return Period(c.wall(p).Add(time.Duration(n) * time.Hour).Format(hourForm))
	}
	return Period(c.wall(p).AddDate(0, 0, n).Format(time.DateOnly))
}

// AddDays is Add in days: of hours, 24 are one.
func (c Calendar) AddDays(p Period, n int) Period { return c.Add(p, n*c.PerDay()) }

// PerDay returns how many periods a day has, one without a change of the clock.
func (c Calendar) PerDay() int {
	if c.hourly {
		return 24
	}
	return 1
}

// Day returns the day in which a period begins.
func (c Calendar) Day(p Period) Period { return c.Daily().At(c.Start(p)) }

// Window returns the periods from the beginning of the first of so many days, the last of
// them that of an instant, to the one that contains it.
func (c Calendar) Window(at time.Time, days int) (from, to Period) {
	d := c.Daily()
	return c.At(d.Start(d.Add(d.At(at), 1-days))), c.At(at)
}

// Start returns the first instant of a period.
func (c Calendar) Start(p Period) time.Time { return c.Instant(p, Offset{}) }

// End returns the first instant after a period.
func (c Calendar) End(p Period) time.Time { return c.Instant(p, Offset{Periods: 1}) }

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

// Offset is a time relative to a period: so many Periods after it (negative: before), at
// Minute minutes after midnight on the local clock, or past the hour.
type Offset struct {
	Periods int
	Minute  int

	hourly bool
}

var (
	dayOffset  = regexp.MustCompile(`^(?:([+-][1-9]\d{0,2})d )?([01]\d|2[0-3]):([0-5]\d)$`)
	hourOffset = regexp.MustCompile(`^(?:([+-][1-9]\d{0,2})h )?():([0-5]\d)$`)
)

// ParseOffset reads "18:00", "-1d 16:30" or "+1d 05:00"; of an hour ":20", "-1h :50" or
// "+2h :05".
func (c Calendar) ParseOffset(s string) (Offset, error) {
	form, like := dayOffset, `local time of the form "18:00", "-1d 16:30" or "+1d 05:00"`
	if c.hourly {
		form, like = hourOffset, `time of the form ":20", "-1h :50" or "+2h :05"`
	}
	m := form.FindStringSubmatch(s)
	if m == nil {
		return Offset{}, fmt.Errorf("%q is no %s", s, like)
	}
	o := Offset{hourly: c.hourly}
	if m[1] != "" {
		o.Periods, _ = strconv.Atoi(m[1])
	}
	if m[2] != "" {
		h, _ := strconv.Atoi(m[2])
		o.Minute = h * 60
	}
	min, _ := strconv.Atoi(m[3])
	o.Minute += min
	return o, nil
}

func (o Offset) String() string {
	clock, unit := fmt.Sprintf("%02d:%02d", o.Minute/60, o.Minute%60), "d"
	if o.hourly {
		clock, unit = fmt.Sprintf(":%02d", o.Minute), "h"
	}
	if o.Periods == 0 {
		return clock
	}
	return fmt.Sprintf("%+d%s %s", o.Periods, unit, clock)
}

// Instant returns the instant of a local time. A time that the clock shows twice is
// taken the first time; one that it skips becomes the instant at which it skips.
func (c Calendar) Instant(p Period, o Offset) time.Time {
	if c.hourly {
		return c.wall(p).Add(time.Duration(o.Periods)*time.Hour + time.Duration(o.Minute)*time.Minute)
	}
	day := c.wall(p).AddDate(0, 0, o.Periods)
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

// wall returns a period's beginning on its clock, as if that were UTC, for arithmetic.
func (c Calendar) wall(p Period) time.Time {
	layout := time.DateOnly
	if c.hourly {
		layout = hourForm
	}
	t, err := time.Parse(layout, string(p))
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
