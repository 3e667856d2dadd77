package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// ordered checks that order_by can tell rows with one key apart.
func (v *validator) ordered(path string, pr fileProcessor) {
	switch {
	case pr.OrderBy == "":
	case slices.Contains(pr.Key, pr.OrderBy):
		v.add(path+".order_by", "%q is in key, so rows with one key never differ in it: name the column of the time at which a row was written", clip(pr.OrderBy))
	case pr.OrderBy == pr.DateColumn:
		v.add(path+".order_by", "%q is date_column, which is the same in all rows of a period: name the column of the time at which a row was written", clip(pr.OrderBy))
	}
}

// chain checks that no hand-over can set itself off: by a topic that is read and written, or by
// phases that wait for each other.
func (v *validator) chain(ts []*Transition) {
	read, next := map[string]int{}, map[string][]string{}
	for i, t := range ts {
		read[t.UpstreamTopic] = i
		next[t.UpstreamPhase] = append(next[t.UpstreamPhase], t.DownstreamPhase)
	}
	for i, t := range ts {
		path := fmt.Sprintf("transitions[%d]", i)
		if j, both := read[t.DownstreamTopic]; both && t.DownstreamTopic != "" {
			v.add(path+".downstream.topic", "%q is also transitions[%d].upstream.topic: triggers would be read as completions; name two topics", clip(t.DownstreamTopic), j)
		}
		for field, topic := range map[string]string{"upstream.topic": t.UpstreamTopic, "downstream.topic": t.DownstreamTopic} {
			if strings.HasPrefix(topic, ownNames) {
				v.add(path+"."+field, "%q: topics that begin with %s are Phasegate's own: name another", clip(topic), ownNames)
			}
		}
		if t.DownstreamPhase == "" {
			continue
		}
		seen, todo := map[string]bool{}, []string{t.DownstreamPhase}
		for len(todo) > 0 && !seen[t.UpstreamPhase] {
			phase := todo[0]
			todo = todo[1:]
			if !seen[phase] {
				seen[phase] = true
				todo = append(todo, next[phase]...)
			}
		}
		if seen[t.UpstreamPhase] {
			v.add(path+".downstream.phase", "%q leads back to upstream.phase, %q: hand-overs would never end; name a later phase", clip(t.DownstreamPhase), clip(t.UpstreamPhase))
		}
	}
}

// relays checks that the relay runs between the end of each wait and the deadline of the mode. A
// cycle that waits for not_before or a grace period is handed over by the relay.
func (v *validator) relays(p *Pipeline) {
	for i, s := range p.Schedules {
		c, err := parseCron(s.Cron)
		if s.Job != relaySchedule.Job || err != nil || slices.ContainsFunc(p.Schedules, func(o Schedule) bool { return o.Job == s.Job && o.Name != s.Name }) {
			continue
		}
		for j, t := range p.Transitions {
			for k, m := range t.Modes {
				if m.Deadline == nil {
					continue
				}
				until := m.Deadline.since()
				from, what := until, ""
				if m.NotBefore != nil {
					from, what = m.NotBefore.since(), fmt.Sprintf("not_before, %q,", m.NotBefore)
				}
				if m.Grace != nil {
					first, _ := begun(t.Modes, k)
					if end := first.since() + m.Grace.After; what == "" || end > from {
						from, what = end, fmt.Sprintf("the first end of grace, %s after %q,", m.Grace.After, first)
					}
				}
				if from >= until {
					continue
				}
				if period, missed := p.missed(c, s, *m.Deadline, until-from); missed {
					v.add(fmt.Sprintf("schedules[%d].cron", i), "%q sends no relay between %s and the deadline, %q, of transitions[%d].modes[%d], for example of %s. Nothing would end the wait in time: let the relay run more often, or move one of the times",
						s.Cron, what, m.Deadline, j, k, period)
				}
			}
		}
	}
}

// missed returns a period of a week of which the schedule has no time in the last stretch before
// its deadline.
func (p *Pipeline) missed(c cron, s Schedule, deadline Offset, stretch time.Duration) (Period, bool) {
	cal, clock := p.Calendar, Calendar{zone: p.Zone(s)}
	first := cal.At(time.Date(changesFrom, time.January, 12, 12, 0, 0, 0, time.UTC))
	for n := range 7 * cal.PerDay() {
		period := cal.Add(first, n)
		end := cal.Instant(period, deadline)
		if next := c.next(clock, end.Add(-stretch-time.Nanosecond)); next.IsZero() || next.After(end) {
			return period, true
		}
	}
	return "", false
}

// asked checks that a check is asked before some hand-over. before is the number of problems
// before those of the check: one of its lists may be wrong.
func (v *validator) asked(path string, c Check, t *Transition, made, before int) {
	switch {
	case len(v.problems) > before || len(t.Modes) == 0:
	case made == 0:
		v.add(path+".sql", "has {column}, and none of its processors has filled: it would never be asked; write filled at one of %s", strings.Join(c.Processors, ", "))
	case !slices.ContainsFunc(t.Modes, func(m Mode) bool {
		return slices.Contains(c.Modes, m.Name) && slices.ContainsFunc(c.Processors, m.Names)
	}):
		v.add(path, "none of its modes, %s, expects one of its processors, %s: it would never be asked; change one of the two lists", strings.Join(c.Modes, ", "), strings.Join(c.Processors, ", "))
	}
}

// Warnings name what a valid definition says without effect, and what it leaves unwatched.
func (p *Pipeline) Warnings() (out []string) {
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for i, ph := range p.Phases {
		if ph.Guard != nil {
			ph.Guard.warnings(fmt.Sprintf("phases[%d].guard", i), add)
		}
	}
	for i, t := range p.Transitions {
		for j, m := range t.Modes {
			path := fmt.Sprintf("transitions[%d].modes[%d]", i, j)
			n := m.Size()
			switch {
			case m.Grace == nil && len(m.Optional) > 0 && m.Complete == CompleteAll && m.AtDeadline != DeadlineHandOver:
				add("%s.optional has no effect: without grace or at_deadline: hand_over, nothing is handed over without them", path)
			case m.Grace == nil:
			case m.Complete == CompleteCritical:
				add("%s.grace has no effect: complete is critical, so the cycle never waits for the optional processors", path)
			case len(m.Optional) == 0:
				add("%s.grace has no effect: the mode has no optional processors", path)
			case (n-1)*100 < m.Grace.QuorumPct*n:
				add("%s.grace has no effect: %d %% of %d processors are all of them; write quorum_pct: %d at most", path, m.Grace.QuorumPct, n, (n-1)*100/n)
			}
			if m.AtDeadline == DeadlineHandOver && (m.Complete == CompleteCritical || len(m.Optional) == 0) {
				add("%s.at_deadline: hand_over has no effect: the cycle never waits for optional processors", path)
			}
			for _, name := range m.AcceptEarlier {
				if !slices.ContainsFunc(t.Modes[:j], func(o Mode) bool { return o.Names(name) }) {
					add("%s.accept_earlier has no effect for %s: no earlier mode expects it", path, name)
				}
			}
			if m.NotBefore != nil && len(m.AcceptEarlier) == 0 && m.NotBefore.since() <= m.CountsFrom.since() {
				add("%s.not_before, %q, has no effect: runs count from %q on; a time of the next period begins with %s", path, m.NotBefore, m.CountsFrom,
					map[bool]string{false: "+1d", true: "+1h"}[t.Calendar().Hourly()])
			}
			if m.Deadline == nil {
				add("%s has no deadline: a cycle that never completes is never reported as overdue", path)
			}
		}
		if t.Checks != nil {
			for _, name := range slices.Sorted(maps.Keys(outdone(t.Checks.All))) {
				add("transitions[%d].checks.before_hand_over: warn of %s has no effect: block applies first", i, name)
			}
		} else {
			add("transitions[%d] has no checks: hand-overs are not checked against the tables", i)
		}
	}
	for job, what := range map[string]string{"nightly": "completions that were lost are not repaired", "health": "no health check runs", "sweep": "duplicate rows are not searched for"} {
		if !slices.ContainsFunc(p.Schedules, func(s Schedule) bool { return s.Job == job }) {
			add("schedules has no job %s: %s", job, what)
		}
	}
	slices.Sort(out)
	return out
}

// outdone are the checks whose warn only holds where block holds too.
func outdone(all []Check) map[string]bool {
	out := map[string]bool{}
	for _, c := range all {
		name, _, _ := strings.Cut(c.Name, ".")
		if c.Warn != nil && c.Block != nil && c.Warn.Op[0] == c.Block.Op[0] && c.Block.Crossed(c.Warn.Limit) && c.Warn.Limit != c.Block.Limit {
			out[name] = true
		}
	}
	return out
}
