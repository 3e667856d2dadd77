package statuspage

import (
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
)

// What the axis shows before and after the deadline at most, of days and of hours.
const (
	daysBefore, daysAfter   = 24 * time.Hour, 14 * time.Hour
	hoursBefore, hoursAfter = 4 * time.Hour, 8 * time.Hour
)

// axis maps times to places.
type axis struct{ from, to time.Time }

func (a axis) share(t time.Time) float64 {
	return 100 * float64(t.Sub(a.from)) / float64(a.to.Sub(a.from))
}

func (a axis) x(t time.Time) string { return per(a.share(t)) }

func (a axis) inside(t time.Time) bool { return !t.Before(a.from) && !t.After(a.to) }

func per(share float64) string { return fmt.Sprintf("%.2f%%", share) }

// newAxis covers what happened, as far as it is near the deadline.
func newAxis(s *cycleState, clk clock) axis {
	c, x := s.shown, s.explained
	cal := clk.cal
	due := c.mode.Due(cal, c.period)
	low, high := due.Add(-daysBefore), due.Add(daysAfter)
	least := 2 * time.Hour
	if cal.Hourly() {
		low, high, least = due.Add(-hoursBefore), due.Add(hoursAfter), 30*time.Minute
	}
	if from := cal.Instant(c.period, c.mode.CountsFrom); from.After(low) && from.Before(due) {
		low = from // earlier runs are of another mode
	}
	from, to := due, due
	add := func(t time.Time) {
		if !t.IsZero() && !t.Before(low) && !t.After(high) {
			if t.Before(from) {
				from = t
			}
			if t.After(to) {
				to = t
			}
		}
	}
	if c.mode.NotBefore != nil {
		add(cal.Instant(c.period, *c.mode.NotBefore))
	}
	for _, r := range x.Runs {
		add(r.EventTime)
		if r.Duration != nil {
			add(r.EventTime.Add(-time.Duration(*r.Duration * float64(time.Second))))
		}
	}
	for _, b := range x.Batches {
		add(begun(b))
		add(b.PublishedAt)
	}
	for _, r := range s.records {
		add(r.At)
	}
	if ended := c.State == string(cycle.StatePublished); !ended {
		add(s.at)
	}
	if d := to.Sub(from); d < least {
		from, to = from.Add((d-least)/2), to.Add((least-d)/2)
	}
	pad := to.Sub(from) / 20
	return axis{from.Add(-pad).Truncate(time.Second), to.Add(pad).Truncate(time.Second)}
}

// lines draws the limits of the mode, and the time of the read.
func (t *timeline) lines(s *cycleState, ax axis, clk clock) {
	c, cal := s.shown, clk.cal
	places := newPlacer()
	add := func(at time.Time, tone, text, extra string, dash bool) {
		if !ax.inside(at) {
			return
		}
		l := line{X: ax.x(at), Tone: tone, Dash: dash, At: at.Unix()}
		for row, y := range []int{12, 30} {
			if got, ok := places.place(row, ax.share(at), ax.share(at), 2, text, extra); ok && (!got.Wide || row == 1) {
				l.label, l.Y = got, y
				break
			}
		}
		places.take(0, ax.share(at), ax.share(at), 1)
		places.take(1, ax.share(at), ax.share(at), 1)
		t.Lines = append(t.Lines, l)
	}
	if c.mode.Deadline != nil {
		at := cal.Instant(c.period, *c.mode.Deadline)
		add(at, "bad", "deadline", " "+clk.in(at).Format("15:04"), true)
	}
	if c.mode.NotBefore != nil {
		at := cal.Instant(c.period, *c.mode.NotBefore)
		add(at, "calm", "not before", " "+clk.in(at).Format("15:04"), false)
	}
	if c.State != string(cycle.StatePublished) {
		add(s.at, "calm", "now", "", true)
	}
	if from, to, ok := grace(c); ok && ax.inside(from) && ax.inside(to) {
		t.Grace = &area{X: ax.x(from), Width: per(ax.share(to) - ax.share(from)), Tone: "busy", Y: laneTop, At: from.Unix(),
			Title: "grace period from " + clk.short(from) + " to " + clk.short(to)}
		if l, ok := places.place(1, ax.share(from), ax.share(from), 2, "grace", " "+span(to.Sub(from))); ok {
			t.Grace.label = l
		}
	}
}

// grace is the window in which the cycle waited, or waits, for optional processors.
func grace(c *shown) (from, to time.Time, ok bool) {
	if c.mode.Grace == nil {
		return from, to, false
	}
	for _, b := range c.Batches {
		if !b.GraceSince.IsZero() {
			return b.GraceSince, b.GraceSince.Add(c.mode.Grace.After), true
		}
	}
	return from, to, false
}

// ticks are hours of the local clock, or minutes of an hour. A change of the clock adds the zone.
func (t *timeline) ticks(ax axis, clk clock) {
	minutes := int(ax.to.Sub(ax.from).Minutes())
	step := 0
	for _, m := range []int{5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440} {
		if step = m; minutes/m <= 13 {
			break
		}
	}
	skip := 1 // every which label a phone shows
	for minutes/(step*skip) > 5 {
		skip++
	}
	unit := time.Duration(min(step, 60)) * time.Minute
	_, before := clk.in(ax.from).Zone()
	_, after := clk.in(ax.to).Zone()
	layout := "15:04"
	if before != after {
		layout = "15:04 MST"
		skip *= 2
	}
	n := 0
	previous := ""
	for at := ax.from.Truncate(unit).Add(unit); at.Before(ax.to); at = at.Add(unit) {
		l := clk.in(at)
		wall := l.Hour()*60 + l.Minute()
		if wall%step != 0 {
			continue
		}
		tk := tick{X: ax.x(at), At: at.Unix()}
		share := ax.share(at)
		if text := l.Format(layout); share > 3 && share < 97 && (step < 60 || l.Format("15") != previous || step == 60) {
			tk.Text, previous = text, l.Format("15")
			tk.Wide = n%skip != 0 || share < 8 || share > 92
			n++
		}
		t.Ticks = append(t.Ticks, tk)
	}
}
