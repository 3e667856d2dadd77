package health

import (
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// heartbeats compares when each job was due with when it has come to its end. That of
// health itself is watched from outside.
func heartbeats(f *facts) Check {
	v := verdict{action: "gcloud scheduler jobs list", whenUnknown: "phasectl smoke"}
	if f.statusErr != nil {
		v.notKnown("%v", f.statusErr)
		return v.check()
	}
	for _, s := range f.pipeline.Schedules {
		if s.Function == "health" {
			continue
		}
		due := owed(f.pipeline, s, f.now)
		last := f.functions[s.Function].heartbeats[s.Job]
		first := f.scheduled[scheduleKey(s)]
		former, missed := f.missedBefore(s, last, first)
		switch {
		case !missed.IsZero() && last.IsZero():
			v.failing("%s has never finished, and was due at %s by its former schedule %q", s.Name, f.local(missed), former)
		case !missed.IsZero():
			v.failing("%s has not finished since %s, and was due at %s by its former schedule %q", s.Name, f.local(last), f.local(missed), former)
		case due.IsZero():
			v.notKnown("%s: %q is never due", s.Name, s.Cron)
		case last.IsZero() && f.firstEvaluation:
			v.notKnown("%s has never finished, and the start of its schedule is not known yet", s.Name)
		case due.Before(first) && !last.After(first):
			v.ok("%s has not been due since %s, when its schedule was first seen", s.Name, f.local(first))
		case last.IsZero():
			v.failing("%s has never finished, and was due at %s", s.Name, f.local(due))
		case last.Before(due.Add(-clockSkew)):
			v.failing("%s has not finished since %s, and was due at %s", s.Name, f.local(last), f.local(due))
		default:
			v.ok("%s: %s", s.Name, f.local(last))
		}
	}
	return v.check()
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

// deployed returns since when any schedule has been there: the zero time where that is not known.
func (f *facts) deployed() (first time.Time) {
	for _, at := range f.scheduled {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// waits tells whether a function has done nothing yet, because none of its jobs was due since
// their schedules were first seen.
func (f *facts) waits(function string) bool {
	return !f.firstEvaluation && f.functions[function].last().IsZero() && !slices.ContainsFunc(f.pipeline.Schedules, func(s pipeline.Schedule) bool {
		return s.Function == function && !f.pipeline.LastDue(s, f.now).Before(f.scheduled[scheduleKey(s)])
	})
}

// clockSkew is by how much the scheduler's clock and the store's may differ.
const clockSkew = time.Minute

// Settling is for how long after a deployment, which comes function by function, an instance
// of the one before may end a job.
const Settling = 15 * time.Minute

// deployedCode compares what the functions say that they are. A function says it when it
// has done a job; one that has not run since the newest was first seen says nothing yet.
func deployedCode(f *facts) Check {
	v := verdict{action: "make deploy", whenUnknown: "phasectl smoke"}
	if f.statusErr != nil {
		v.notKnown("%v", f.statusErr)
		return v.check()
	}
	newest := "" // that was seen first last
	for _, code := range sorted(f.seen) {
		if newest == "" || f.seen[code].After(f.seen[newest]) {
			newest = code
		}
	}
	for _, name := range sorted(f.functions) {
		s := f.functions[name]
		switch {
		case f.waits(name):
			v.ok("%s has had nothing to do yet", name)
		case s.source == "" || s.definition == "":
			v.notKnown("%s has not reported its source yet", name)
		case s.code() == newest:
			v.ok("%s runs %s", name, newest)
		case s.last().After(f.seen[newest].Add(Settling)):
			v.failing("%s runs %s, and the newest is %s, since %s", name, s.code(), newest, f.local(f.seen[newest]))
		case s.last().After(f.seen[newest]):
			v.ok("%s has ended a job just after %s, when %s was first seen: it may have been an older instance", name, f.local(f.seen[newest]), newest)
		default:
			v.ok("%s has not run since %s, when %s was first seen", name, f.local(f.seen[newest]), newest)
		}
	}
	v.ok("transition has no schedule and is not among them: phasectl smoke asks it")
	return v.check()
}

// code names what a function runs.
func (s status) code() string { return "source " + s.source + ", pipeline file " + s.definition }

// last is when a function has done a job last.
func (s status) last() (newest time.Time) {
	for _, at := range s.heartbeats {
		if at.After(newest) {
			newest = at
		}
	}
	return newest
}

// seen returns when each code that a function runs was seen first, of which before was
// known.
func seen(functions map[string]status, before map[string]time.Time) map[string]time.Time {
	out := map[string]time.Time{}
	for _, s := range functions {
		if s.source == "" || s.definition == "" {
			continue
		}
		first, known := before[s.code()]
		if other, also := out[s.code()]; !known && (!also || s.last().Before(other)) {
			first, known = s.last(), true
		}
		if known {
			out[s.code()] = first
		}
	}
	return out
}
