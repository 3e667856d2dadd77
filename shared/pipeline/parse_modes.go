package pipeline

import (
	"fmt"
	"slices"
	"time"
)

func (v *validator) modes(path string, t *Transition, fms []fileMode) {
	if len(fms) == 0 && !v.elsewhere(path+".modes") {
		v.add(path+".modes", "is empty")
	}
	names, events, former := map[string]bool{}, map[string]bool{}, v.names("mode")
	order := []string{string(Before), string(Within), string(After)}
	last := -1
	for i, fm := range fms {
		path := fmt.Sprintf("%s.modes[%d]", path, i)
		v.name(path+".name", fm.Name)
		v.unique(path+".name", "mode", fm.Name, names)
		former.formerly(path, fm.Name, fm.Formerly)
		v.oneOf(path+".event", fm.Event, order...)
		v.unique(path+".event", "a mode for event", fm.Event, events)
		if at := slices.Index(order, fm.Event); at >= 0 {
			if at < last {
				v.add(path+".event", "%s comes before the mode above: modes stand in the order before, within, after", fm.Event)
			}
			last = at
		}
		v.oneOf(path+".complete", fm.Complete, string(CompleteAll), string(CompleteCritical))
		v.oneOf(path+".second_runs", fm.SecondRuns, string(SecondRunsIgnore), string(SecondRunsResend))
		m := Mode{
			Name: fm.Name, Formerly: fm.Formerly, Event: Relation(fm.Event), Critical: fm.Critical, Optional: fm.Optional,
			Complete: Completeness(fm.Complete), AcceptEarlier: fm.AcceptEarlier, SecondRuns: SecondRuns(fm.SecondRuns),
			NotBefore:  v.optionalOffset(t.calendar, path+".not_before", fm.NotBefore),
			Deadline:   v.optionalOffset(t.calendar, path+".deadline", fm.Deadline),
			AtDeadline: v.atDeadline(path, fm), SecondRunsEvery: v.secondRunsEvery(path, fm),
		}
		if from := v.optionalOffset(t.calendar, path+".counts_from", fm.CountsFrom); from != nil {
			m.CountsFrom = *from
			v.times(path, m, t.TriggerWithin)
		}
		if fm.Grace != nil {
			if p := fm.Grace.QuorumPct; (p < 1 || p > 100) && (p != 0 || !v.elsewhere(path+".grace.quorum_pct")) {
				v.add(path+".grace.quorum_pct", "must be 1 to 100, is %d", fm.Grace.QuorumPct)
			}
			m.Grace = &Grace{QuorumPct: fm.Grace.QuorumPct, After: v.atLeast(path+".grace.after", fm.Grace.After, time.Second, "30m")}
		}
		v.sets(path, m, t)
		m.named, m.critical, m.earlier = SetOf(m.Critical, m.Optional), SetOf(m.Critical), SetOf(m.AcceptEarlier)
		t.Modes = append(t.Modes, m)
	}
	former.done()
	v.graces(path, t.Modes)
}

func (v *validator) secondRunsEvery(path string, fm fileMode) time.Duration {
	if fm.SecondRuns != string(SecondRunsResend) {
		if fm.SecondRunsEvery != "" {
			v.add(path+".second_runs_every", "means nothing with second_runs: ignore; remove it, or say resend_if_changed")
		}
		return 0
	}
	d := v.duration(path+".second_runs_every", fm.SecondRunsEvery)
	if d > 24*time.Hour {
		v.add(path+".second_runs_every", "%q is more than 24h", fm.SecondRunsEvery)
	}
	return d
}

func (v *validator) atDeadline(path string, fm fileMode) AtDeadline {
	if fm.AtDeadline == "" {
		return DeadlineHold
	}
	if fm.Deadline == "" {
		v.add(path+".at_deadline", "means nothing without a deadline")
	}
	v.oneOf(path+".at_deadline", fm.AtDeadline, string(DeadlineHold), string(DeadlineHandOver))
	return AtDeadline(fm.AtDeadline)
}

// sets checks a mode's processors against each other and against the phase.
func (v *validator) sets(path string, m Mode, t *Transition) {
	if t.kinds == nil {
		return // the phase is unknown, and reported
	}
	if len(m.Critical) == 0 {
		v.add(path+".critical", "is empty")
	}
	where := map[string]string{}
	for _, set := range []struct {
		field string
		names []string
	}{{"critical", m.Critical}, {"optional", m.Optional}} {
		for i, name := range set.names {
			at := fmt.Sprintf("%s.%s[%d]", path, set.field, i)
			if _, ok := t.kinds[name]; !ok {
				v.add(at, "unknown processor %q in phase %q%s", clip(name), t.UpstreamPhase, v.meantProcessor(name, t))
			}
			switch first := where[name]; {
			case first == set.field:
				v.add(at, "%q stands twice", name)
			case first != "":
				v.add(at, "%q is both critical and optional", name)
			}
			where[name] = set.field
		}
	}
	v.distinct(path+".accept_earlier", "processor", m.AcceptEarlier, func(at, name string) {
		if where[name] == "" {
			v.add(at, "%q is neither critical nor optional here", name)
		}
	})
}
