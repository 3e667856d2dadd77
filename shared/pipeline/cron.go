package pipeline

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cron is a schedule as Cloud Scheduler reads it, and nothing that only one of us reads:
// https://cloud.google.com/scheduler/docs/configuring/cron-job-schedules. Of a day of the
// month and a day of the week that are both restricted either is enough.
type cron struct {
	minutes, hours, days, months, weekdays uint64 // a bit for each number
	anyDay, anyWeekday                     bool   // the field is *
}

// cronFields are the five fields, in their order.
var cronFields = [...]struct {
	name     string
	min, max int
	names    []string // of numbers from min on, in any case
}{
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day of the month", 1, 31, nil},
	{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{"day of the week", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}}, // 7 is Sunday, too
}

// allHours is the bits of a job that runs in every hour.
const allHours = 1<<24 - 1

func parseCron(s string) (cron, error) {
	words := strings.Fields(s)
	if len(words) != len(cronFields) {
		return cron{}, fmt.Errorf("%q is no cron expression of five fields: minute, hour, day of the month, month, day of the week", clip(s))
	}
	var sets [len(cronFields)]uint64
	for i, word := range words {
		var err error
		if sets[i], err = cronSet(i, word); err != nil {
			return cron{}, err
		}
	}
	c := cron{sets[0], sets[1], sets[2], sets[3], sets[4], words[2] == "*", words[4] == "*"}
	c.weekdays = c.weekdays&0x7f | c.weekdays>>7
	if !c.comes() {
		return cron{}, fmt.Errorf("%q never comes: the calendar has no such day", clip(s))
	}
	return c, nil
}

// cronSet reads one field: a list of numbers, ranges and steps.
func cronSet(field int, word string) (set uint64, err error) {
	f := cronFields[field]
	bad := fmt.Errorf("%q is no %s: write *, a number from %d to %d, a range such as %d-%d, a step such as */2, or a list of these", clip(word), f.name, f.min, f.max, f.min, f.min+1)
	number := func(s string) (int, bool) {
		if i := slices.Index(f.names, strings.ToLower(s)); i >= 0 {
			return f.min + i, true
		}
		n, err := strconv.ParseUint(s, 10, 8)
		return int(n), err == nil && f.min <= int(n) && int(n) <= f.max
	}
	for part := range strings.SplitSeq(word, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		first, last, ranged := strings.Cut(span, "-")
		from, ok := number(first)
		to, alsoOK := from, true
		switch {
		case span == "*":
			from, to, ok, ranged = f.min, f.max, true, true
			if field == len(cronFields)-1 {
				to = 6 // not Sunday twice
			}
		case ranged:
			to, alsoOK = number(last)
		}
		step := 1
		if stepped {
			n, err := strconv.ParseUint(stepText, 10, 8)
			if err != nil || n == 0 || int(n) > f.max || !ranged {
				return 0, bad
			}
			step = int(n)
		}
		if !ok || !alsoOK || to < from {
			return 0, bad
		}
		for n := from; n <= to; n += step {
			set |= 1 << n
		}
	}
	return set, nil
}

// comes reports whether there is such a day in any year.
func (c cron) comes() bool {
	for month := range 12 {
		days := []int{31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month]
		if c.months>>(month+1)&1 == 1 && (!c.anyWeekday || bits.TrailingZeros64(c.days) <= days) {
			return true
		}
	}
	return false
}

// onDay reports whether a date has any of the times.
func (c cron) onDay(date time.Time) bool {
	day, weekday := c.days>>date.Day()&1 == 1, c.weekdays>>int(date.Weekday())&1 == 1
	if c.months>>int(date.Month())&1 == 0 {
		return false
	}
	if c.anyDay || c.anyWeekday {
		return day && weekday
	}
	return day || weekday
}

// at reports whether an instant of such a day is one of the times. Where the clock is set back
// it shows an hour twice, and the platform may send a job of that hour once or twice: it is due
// the first time. A job of every hour is due in both.
func (c cron) at(cal Calendar, t time.Time) bool {
	local := t.In(cal.zone)
	if c.minutes>>local.Minute()&1 == 0 || c.hours>>local.Hour()&1 == 0 {
		return false
	}
	day := Period(local.Format(time.DateOnly))
	return c.hours == allHours || cal.Daily().Instant(day, Offset{Minute: 60*local.Hour() + local.Minute()}).Equal(t)
}

// farthest is how far apart two of the times can be: between two 29ths of February, where a
// year of the century is none of 366 days.
const farthest = 8*366 + 1

// last returns the newest of the times before an instant, zero where there is none.
func (c cron) last(cal Calendar, before time.Time) time.Time {
	cal = cal.Daily()
	t := before.Add(-1).Truncate(time.Minute)
	date := cal.wall(cal.At(t))
	for range farthest {
		if c.onDay(date) {
			for start := cal.Start(Period(date.Format(time.DateOnly))); !t.Before(start); t = t.Add(-time.Minute) {
				if c.at(cal, t) {
					return t
				}
			}
		}
		t = cal.Start(Period(date.Format(time.DateOnly))).Add(-time.Minute)
		date = date.AddDate(0, 0, -1)
	}
	return time.Time{}
}

// next returns the first of the times after an instant, zero where there is none.
func (c cron) next(cal Calendar, after time.Time) time.Time {
	cal = cal.Daily()
	t := after.Truncate(time.Minute).Add(time.Minute)
	date := cal.wall(cal.At(t))
	for range farthest {
		end := cal.End(Period(date.Format(time.DateOnly)))
		if c.onDay(date) {
			for ; t.Before(end); t = t.Add(time.Minute) {
				if c.at(cal, t) {
					return t
				}
			}
		}
		t, date = end, date.AddDate(0, 0, 1)
	}
	return time.Time{}
}

// allDay reports whether a schedule is of the relay or of health, which run in every hour or every
// few hours. Cloud Scheduler advises UTC for what must not miss an hour:
// https://cloud.google.com/scheduler/docs/configuring/cron-job-schedules
func (s Schedule) allDay() bool {
	fields := strings.Fields(s.Cron)
	return (s.Job == "relay" || s.Job == "health") && len(fields) > 1 && strings.HasPrefix(fields[1], "*")
}

// Zone returns the zone of a schedule's times: the pipeline's; UTC for the relay and health,
// which run all day.
func (p *Pipeline) Zone(s Schedule) *time.Location {
	if s.allDay() {
		return time.UTC
	}
	return p.Calendar.zone
}

// changesFrom and changesTo bound the changes of a zone's clock that schedules are checked
// against. Rules beyond are those of the last year.
const changesFrom, changesTo = 2026, 2046

// unsteady returns the first of a job's times that the zone's clock skips or repeats, as the
// clock shows it, zero where there is none. A job of every hour comes in all the others.
func (c cron) unsteady(zone *time.Location) (wall time.Time, repeated bool) {
	if c.hours == allHours {
		return time.Time{}, false
	}
	clock := Calendar{zone: zone}
	for day := time.Date(changesFrom, time.January, 1, 0, 0, 0, 0, time.UTC); day.Year() < changesTo; day = day.AddDate(0, 0, 1) {
		before, after := clock.offset(day), clock.offset(day.AddDate(0, 0, 1))
		if before == after {
			continue
		}
		change := day
		for clock.offset(change) == before {
			change = change.Add(time.Minute)
		}
		for at := change.Add(min(before, after)); at.Before(change.Add(max(before, after))); at = at.Add(time.Minute) {
			if c.onDay(at) && c.hours>>at.Hour()&1 == 1 && c.minutes>>at.Minute()&1 == 1 {
				return at, after < before
			}
		}
	}
	return time.Time{}, false
}

// LastDue returns the last time before an instant at which a schedule sends its job, on the
// clock of its zone.
func (p *Pipeline) LastDue(s Schedule, before time.Time) time.Time {
	c, err := parseCron(s.Cron)
	if err != nil { // the definition was validated with the same parser
		return time.Time{}
	}
	return c.last(Calendar{zone: p.Zone(s)}, before.UTC())
}

// NextDue returns the first time after an instant at which a schedule sends its job.
func (p *Pipeline) NextDue(s Schedule, after time.Time) time.Time {
	c, err := parseCron(s.Cron)
	if err != nil {
		return time.Time{}
	}
	return c.next(Calendar{zone: p.Zone(s)}, after.UTC())
}
