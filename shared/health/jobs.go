package health

import (
	"context"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// Job is a scheduled job with its last and its next run.
type Job struct {
	Name, Function string
	Source         string    // hash of the source that the function ran last
	State          State     // failing: it is late, or has never finished; unknown: the start of its schedule, or when it is due, is not known
	Pending        bool      // it is ok, and was not due since its schedule was first seen
	Last           time.Time // when it last finished; zero: never
	Due            time.Time // since when it is late; zero: it is not
	Next           time.Time // zero: never

	first  time.Time // when its schedule was first seen
	former string    // the cron by which it was due, if that has changed since
}

// Jobs returns the scheduled jobs, health itself included, from one read of the store.
func (c *Checker) Jobs(ctx context.Context) ([]Job, error) {
	functions, err := c.functions(ctx)
	if err != nil {
		return nil, err
	}
	known := functions[pipeline.FunctionHealth].schedules
	f := &facts{pipeline: c.Pipeline, now: c.Now(), functions: functions, firstEvaluation: known == nil}
	f.scheduled = scheduled(f.pipeline, functions, known, f.now)
	var out []Job
	for _, s := range c.Pipeline.Schedules {
		out = append(out, f.job(s))
	}
	return out, nil
}

// job compares when a job was due with when it last finished.
func (f *facts) job(s pipeline.Schedule) Job {
	of := f.functions[s.Function]
	j := Job{Name: s.Name, Function: s.Function, Source: of.source, State: OK, Last: of.heartbeats[s.Job], Next: f.pipeline.NextDue(s, f.now), first: f.scheduled[scheduleKey(s)]}
	due := owed(f.pipeline, s, f.now)
	former, missed := f.missedBefore(s, j.Last, j.first)
	switch {
	case !missed.IsZero():
		j.State, j.Due, j.former = Failing, missed, former
	case due.IsZero() || j.Last.IsZero() && f.firstEvaluation:
		j.State = Unknown
	case due.Before(j.first) && !j.Last.After(j.first):
		j.Pending = true
	case j.Last.Before(due.Add(-clockSkew)):
		j.State, j.Due = Failing, due
	}
	return j
}

// owed returns the newest time at which a job was due, and after which it has had an hour to
// end, or its interval where that is shorter.
func owed(p *pipeline.Pipeline, s pipeline.Schedule, now time.Time) time.Time {
	due := p.LastDue(s, now)
	before := p.LastDue(s, due)
	if now.Sub(due) < min(due.Sub(before), time.Hour) {
		return before
	}
	return due
}

// missedBefore returns a former cron of a schedule, and when the job was due by it, if the job had
// not ended before the present cron was first seen. A new cron alone must not make a dead job ok.
func (f *facts) missedBefore(s pipeline.Schedule, last, first time.Time) (former string, missed time.Time) {
	for _, key := range sorted(f.scheduled) {
		name, cron, _ := strings.Cut(key, " ")
		if name != s.Name || cron == s.Cron {
			continue
		}
		old := s
		old.Cron = cron
		due := owed(f.pipeline, old, first)
		if due.After(missed) && !due.Before(f.scheduled[key]) && last.Before(due.Add(-clockSkew)) {
			former, missed = cron, due
		}
	}
	return former, missed
}

// scheduleKey names what a schedule promises: another time of day is another promise.
func scheduleKey(s pipeline.Schedule) string { return s.Name + " " + s.Cron }

// scheduled returns when each schedule was first seen, of which before was known: a job is late
// once it has been due since. Where nothing was known, as by earlier versions, a job that
// has come to its end was scheduled then at the latest. The former cron of a schedule is kept
// until the job has come to its end by the present one.
func scheduled(p *pipeline.Pipeline, functions map[string]status, before map[string]time.Time, now time.Time) map[string]time.Time {
	out := map[string]time.Time{}
	for _, s := range p.Schedules {
		first, known := before[scheduleKey(s)]
		if last := functions[s.Function].heartbeats[s.Job]; !known && before == nil && !last.IsZero() {
			first, known = last, true
		}
		if !known {
			first = now
		}
		out[scheduleKey(s)] = first
		for key, at := range before {
			if name, cron, _ := strings.Cut(key, " "); name == s.Name && cron != s.Cron && !functions[s.Function].heartbeats[s.Job].After(first) {
				out[key] = at
			}
		}
	}
	return out
}
