package statuspage

import (
	"fmt"
	"math"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// clock writes times for people, in the pipeline's zone.
type clock struct {
	cal pipeline.Calendar
	now time.Time
}

func (c clock) in(t time.Time) time.Time { return t.In(c.cal.Zone()) }

// short writes a time without seconds, and the date if it is another day.
func (c clock) short(t time.Time) string { return c.write(t, "15:04") }

// exact writes a time with seconds, and the date if it is another day.
func (c clock) exact(t time.Time) string { return c.write(t, "15:04:05") }

func (c clock) write(t time.Time, layout string) string {
	if t.IsZero() {
		return "—"
	}
	l, now := c.in(t), c.in(c.now)
	switch {
	case l.Year() != now.Year():
		layout = "2006 Jan 2 " + layout
	case l.YearDay() != now.YearDay():
		layout = "Jan 2 " + layout
	}
	return l.Format(layout)
}

// long names the day, too.
func (c clock) long(t time.Time) string { return c.in(t).Format("Mon Jan 2 15:04:05 MST") }

// age is how long ago a time was.
func (c clock) age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(c.now.Sub(t))
}

// span writes a duration in its two largest units.
func span(d time.Duration) string {
	d = max(d, 0)
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case d >= 10*time.Minute, d >= time.Minute && int(d.Seconds())%60 == 0:
		return fmt.Sprintf("%d min", minutes)
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", minutes, int(d.Seconds())%60)
	case d >= 10*time.Second:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return fmt.Sprintf("%.1f s", math.Floor(d.Seconds()*10)/10)
}

// count writes a number of things: "1 check", "2 checks".
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
