package health

import (
	"context"
	"time"
)

// Job is a scheduled job with its last and its next run.
type Job struct {
	Name, Function string
	Source         string    // hash of the source that the function ran last
	State          State     // failing: it is late, or has never finished; unknown: it has not been due yet
	Last           time.Time // when it last finished; zero: never
	Due            time.Time // since when it is late; zero: it is not
	Next           time.Time // zero: never
}

// Jobs returns the scheduled jobs, health itself included, from one read of the store.
func (c *Checker) Jobs(ctx context.Context) ([]Job, error) {
	functions, err := c.functions(ctx)
	if err != nil {
		return nil, err
	}
	now := c.Now()
	var out []Job
	for _, s := range c.Pipeline.Schedules {
		last, due := functions[s.Function].heartbeats[s.Job], owed(c.Pipeline, s, now)
		first, seen := functions["health"].schedules[scheduleKey(s)]
		j := Job{Name: s.Name, Function: s.Function, Source: functions[s.Function].source, State: OK, Last: last, Next: c.Pipeline.NextDue(s, now)}
		switch {
		case last.IsZero() && (!seen || due.Before(first)):
			j.State = Unknown
		case last.Before(due.Add(-clockSkew)):
			j.State, j.Due = Failing, due
		}
		out = append(out, j)
	}
	return out, nil
}
