package pipeline

import "time"

// Interval returns the time between the two sendings of a job that lie around an instant,
// 0 where no schedule sends the job, or none did in the ten days before.
func (p *Pipeline) Interval(job string, at time.Time) time.Duration {
	var last, next time.Time
	for _, s := range p.Schedules {
		times, err := CronParser.Parse(s.Cron)
		if s.Job != job || err != nil { // the definition was validated with the same parser
			continue
		}
		if due := p.LastDue(s, at.Add(time.Nanosecond)); due.After(last) {
			last = due
		}
		if due := times.Next(at.In(p.Calendar.Zone())); next.IsZero() || !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	if last.IsZero() || next.IsZero() {
		return 0
	}
	return next.Sub(last)
}
