package pipeline

import "time"

// Interval returns the time between the two sendings of a job that lie around an instant,
// 0 where no schedule sends the job.
func (p *Pipeline) Interval(job string, at time.Time) time.Duration {
	var last, next time.Time
	for _, s := range p.Schedules {
		if s.Job != job {
			continue
		}
		if due := p.LastDue(s, at.Add(time.Nanosecond)); due.After(last) {
			last = due
		}
		if due := p.NextDue(s, at); next.IsZero() || !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	if last.IsZero() || next.IsZero() {
		return 0
	}
	return next.Sub(last)
}
