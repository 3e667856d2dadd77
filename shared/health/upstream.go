package health

import (
	"maps"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// usualDays is how far back is looked for what is usual upstream.
const usualDays = 28

// lateUpstream compares the first run of each source on a day with when it usually runs.
// Until it is late it is judged by the day before, so that what is dead stays failing over
// midnight.
func lateUpstream(f *facts) Check {
	u := f.pipeline.Health.Upstream
	if u == nil {
		return Check{State: OK, Evidence: []string{"the pipeline file has no statement about upstream runs"}}
	}
	v := verdict{action: "read the log of the scraper", whenUnknown: "phasectl health --verbose"}
	if f.firstErr != nil {
		v.notKnown("%v", f.firstErr)
		return v.check()
	}
	cal := f.pipeline.Calendar.Daily()
	if f.dayAt.After(cal.Instant(f.day, u.FailingAfter)) {
		v.upstream(f, f.day, false)
	} else {
		v.upstream(f, cal.Add(f.day, -1), true)
		v.ok("those of %s are expected by %s, and failing after %s", f.day, f.clock(cal.Instant(f.day, u.ExpectedBy)), f.clock(cal.Instant(f.day, u.FailingAfter)))
	}
	return v.check()
}

// upstream judges the first runs of a day that are late if they have not come. A source is
// expected when it has run early on at least half of the days before on which any has run.
// over: the day is over, and what came late has come.
func (v *verdict) upstream(f *facts, day pipeline.Period, over bool) {
	u, cal := f.pipeline.Health.Upstream, f.pipeline.Calendar.Daily()
	for _, m := range f.pipeline.Health.Maintenance {
		if of := f.pipeline.Calendar; of.Day(m.From) <= day && cal.Add(day, -1) <= of.Day(m.To) {
			v.ok("upstream runs of %s are not checked", day)
			return
		}
	}
	failingAfter := cal.Instant(day, u.FailingAfter)
	early, ran, days := map[string]int{}, map[string]time.Time{}, map[pipeline.Period]bool{}
	for _, r := range f.firstRuns {
		switch {
		case r.Day == day:
			ran[r.Source] = r.At
		case r.Day < day:
			days[r.Day] = true
			if !r.At.After(cal.Instant(r.Day, u.FailingAfter)) {
				early[r.Source]++
			}
		}
	}
	// Sources fetch what the day before has brought.
	todo, known := f.anything(cal.Add(day, -1))
	expected := 0
	for _, name := range sorted(early) {
		if 2*early[name] < len(days) {
			continue
		}
		expected++
		at, has := ran[name]
		switch {
		case has && at.After(failingAfter) && !over:
			v.failing("%s ran first at %s, expected by %s", name, f.clock(at), f.clock(cal.Instant(day, u.ExpectedBy)))
		case has && at.After(cal.Instant(day, u.ExpectedBy)):
			v.ok("%s was late on %s: %s", name, day, f.clock(at))
		case has:
		case known && !todo:
			v.ok("%s has not run on %s, and no work was expected the day before", name, day)
		case !known:
			v.notKnown("%s has not run on %s, and it is unknown whether work was expected the day before", name, day)
		default:
			v.failing("%s has not run on %s, expected by %s", name, day, f.clock(cal.Instant(day, u.ExpectedBy)))
		}
	}
	switch {
	case expected > 0:
		v.ok("%s expected on %s", pipeline.Count(expected, "source is", "sources are"), day)
	case len(ran) > 0:
		v.ok("the usual upstream runs are not known yet; %s run on %s", pipeline.Count(len(ran), "source has", "sources have"), day)
	case !known:
		v.notKnown("nothing has run upstream by %s, and it is unknown whether work was expected", day)
	case todo:
		v.failing("nothing has run upstream on %s, and work was expected", day)
	default:
		v.ok("nothing has run upstream on %s, and no work was expected", day)
	}
}

// anything reports whether something was expected of a day's periods, by any transition.
func (f *facts) anything(day pipeline.Period) (yes, known bool) {
	known = true
	for _, t := range f.pipeline.Transitions {
		stated := false
		for p, n := range f.compared[t.ID].Expected {
			if f.pipeline.Calendar.Day(p) == day {
				yes, stated = yes || n > 0, true
			}
		}
		known = known && stated
	}
	return yes, known
}

// todo reports whether something was expected of a transition's compared periods before a day.
func (f *facts) todo(t *pipeline.Transition, before pipeline.Period) (yes, known bool) {
	for p, n := range f.compared[t.ID].Expected {
		if f.pipeline.Calendar.Day(p) < before {
			yes, known = yes || n > 0, true
		}
	}
	return yes, known
}

func (f *facts) clock(t time.Time) string {
	return t.In(f.pipeline.Calendar.Zone()).Format("15:04 MST")
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
