package health

import (
	"slices"
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
		if s.Function == pipeline.FunctionHealth {
			continue
		}
		j := f.job(s)
		since := "has never finished"
		if !j.Last.IsZero() {
			since = "has not finished since " + f.local(j.Last)
		}
		switch {
		case j.former != "":
			v.failing("%s %s, and was due at %s by its former schedule %q", j.Name, since, f.local(j.Due), j.former)
		case j.State == Failing:
			v.failing("%s %s, and was due at %s", j.Name, since, f.local(j.Due))
		case j.State == Unknown && j.Next.IsZero():
			v.notKnown("%s: %q is never due", j.Name, s.Cron)
		case j.State == Unknown:
			v.notKnown("%s has never finished, and the start of its schedule is not known yet", j.Name)
		case j.Pending:
			v.ok("%s has not been due since %s, when its schedule was first seen", j.Name, f.local(j.first))
		default:
			v.ok("%s: %s", j.Name, f.local(j.Last))
		}
	}
	return v.check()
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
