package health

import (
	"cmp"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// lockingActive looks at what processors did: two runs of one at once are what locks are
// to prevent, and locks that are not taken prevent nothing.
func lockingActive(f *facts) Check {
	if f.pipeline.Health.Runs == "" {
		return Check{State: OK, Evidence: []string{"the pipeline file has no statement for the history of runs"}}
	}
	v := verdict{action: "phasectl locks list", whenUnknown: "phasectl locks list"}
	if f.runsErr != nil {
		v.notKnown("%v", f.runsErr)
	}
	if f.lockedErr != nil {
		v.notKnown("%v", f.lockedErr)
		return v.check()
	}
	v.overlaps(f)
	runs := f.lockedRuns() // those that could be read
	// Runs of before the deployment could take no lock.
	early := slices.IndexFunc(runs, func(r warehouse.ProcessorRun) bool { return r.Began.Before(f.deployed()) })
	if early >= 0 {
		runs = runs[:early]
	}
	switch {
	case len(runs) == 0 && early >= 0:
		v.ok("no processor has run since the deployment of %s", f.local(f.deployed()))
	case len(runs) == 0:
		v.ok("no processor has run for the last %d days", days)
	case f.lockedAt.IsZero():
		v.failing("%s in the last %d days, and none has taken a lock", pipeline.Count(len(runs), "run", "runs"), days)
	case runs[0].Began.Sub(f.lockedAt) > unlocked:
		v.failing("a run began at %s, and no lock was taken since %s", f.local(runs[0].Began), f.local(f.lockedAt))
	default:
		v.ok("%s, no two at once; the last lock was taken at %s", pipeline.Count(len(runs), "run", "runs"), f.local(f.lockedAt))
	}
	return v.check()
}

// unlocked is how much later than the last lock the last run may be. A run that is refused, or that
// writes its history by its own clock, takes no lock.
const unlocked = time.Hour

// mostShown bounds the evidence of one kind.
const mostShown = 5

// overlaps finds runs of one processor and period that were at work at once.
func (v *verdict) overlaps(f *facts) {
	runs := slices.DeleteFunc(slices.Clone(f.runs), func(r warehouse.ProcessorRun) bool {
		_, planned := f.pipeline.Health.Planned(r.Period)
		return planned
	})
	classes := map[string]string{} // by name, present or former
	for _, p := range f.pipeline.Processors() {
		for _, name := range append([]string{p.Name, p.Class}, p.Formerly...) {
			classes[name] = p.Class
		}
	}
	slices.SortStableFunc(runs, func(a, b warehouse.ProcessorRun) int { return a.Began.Compare(b.Began) })
	type place struct {
		class  string
		period pipeline.Period
	}
	before := map[place]int{} // the run of the place that ends last
	end := func(i int) time.Time {
		if runs[i].Ended.IsZero() { // it died, or goes on: how long it lived is not known
			return runs[i].Began.Add(time.Minute)
		}
		return runs[i].Ended
	}
	found := 0
	for i, r := range runs {
		at := place{cmp.Or(classes[r.Processor], r.Processor), r.Period}
		j, ok := before[at]
		if ok && runs[j].ID != r.ID && r.Began.Before(end(j)) {
			if found++; found <= mostShown {
				v.failing("two runs of %s for %s at once: %s from %s and %s from %s", at.class, r.Period, runs[j].ID, f.local(runs[j].Began), r.ID, f.local(r.Began))
			}
		}
		if !ok || end(j).Before(end(i)) {
			before[at] = i
		}
	}
	if found > mostShown {
		v.failing("and %d more", found-mostShown)
	}
}
