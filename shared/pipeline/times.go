package pipeline

import (
	"fmt"
	"time"
)

// since returns how long after the period's beginning the time is, by a clock that is never
// changed: enough to compare two times of one calendar.
func (o Offset) since() time.Duration {
	return time.Duration(o.Periods)*o.period() + time.Duration(o.Minute)*time.Minute
}

// period returns how long a period is by that clock.
func (o Offset) period() time.Duration {
	if o.hourly {
		return time.Hour
	}
	return 24 * time.Hour
}

// times checks a mode's times against each other, and against trigger_within. Two that are
// equal are no contradiction: a deadline at the beginning says that nothing is waited for.
func (v *validator) times(path string, m Mode, within time.Duration) {
	from, deadline := m.CountsFrom, m.Deadline
	begin, end := time.Duration(0), from.period() // of the time in which the mode's runs end
	switch m.Event {
	case Before:
		end = 0
	case After:
		begin, end = end, 0
	}
	if m.Event != After && from.since() >= end {
		v.add(path+".counts_from", "%q is after the last run of event %s: no run would count; move counts_from or change event", from, m.Event)
	}
	if deadline != nil {
		switch {
		case m.NotBefore != nil && deadline.since() < m.NotBefore.since():
			v.add(path+".deadline", "%q is before not_before, %q: move one of them", deadline, m.NotBefore)
		case deadline.since() < from.since():
			v.add(path+".deadline", "%q is before counts_from, %q: no run could be in time; move one of them", deadline, from)
		case m.Event != Before && deadline.since() < begin:
			v.add(path+".deadline", "%q is before the first run of event %s: no run could be in time; move deadline or change event", deadline, m.Event)
		}
	}
	for _, at := range []struct {
		field string
		time  *Offset
	}{{"counts_from", &from}, {"not_before", m.NotBefore}, {"deadline", deadline}} {
		if at.time != nil && within > 0 && at.time.since()-from.period() > within {
			v.add(path+"."+at.field, "%q is later than trigger_within, %s after the period's end: runs between the two would never be handed over; make trigger_within longer or %s earlier",
				at.time, within, at.field)
		}
	}
}

// graces checks each grace period against its mode's deadline. It begins with the last critical
// processor, and no critical one counts earlier than earliest says.
func (v *validator) graces(path string, modes []Mode) {
	for i, m := range modes {
		if m.Grace == nil || m.Deadline == nil {
			continue
		}
		from, of := begun(modes, i)
		if room := m.Deadline.since() - from.since(); room > 0 && m.Grace.After >= room {
			v.add(fmt.Sprintf("%s.modes[%d].grace.after", path, i), "%s from %q on, when %s can count first, ends after the deadline, %q: shorten grace.after or move the deadline", m.Grace.After, from, of, m.Deadline)
		}
	}
}

// begun returns when the critical processors of a mode can first all be complete, and the last of
// them.
func begun(modes []Mode, i int) (from Offset, last string) {
	from = modes[i].CountsFrom // one without critical processors is reported elsewhere
	for j, name := range modes[i].Critical {
		if at := earliest(modes, i, name); j == 0 || at.since() > from.since() {
			from, last = at, name
		}
	}
	return from, last
}

// earliest returns when a run of a processor can count first for a mode. It counts from
// counts_from on. If other modes name the processor too, it also has to end in the mode's own
// time, or in that of an earlier mode from which this one accepts it.
func earliest(modes []Mode, i int, processor string) Offset {
	m := modes[i]
	at, shared := m.CountsFrom, false
	for j, other := range modes {
		shared = shared || j != i && other.named[processor]
	}
	if !shared {
		return at
	}
	if begin := (Offset{Periods: 1, hourly: at.hourly}); m.Event == After && at.since() < begin.since() {
		at = begin
	}
	if begin := (Offset{hourly: at.hourly}); m.Event == Within && at.since() < begin.since() {
		at = begin
	}
	if m.earlier[processor] {
		for j, other := range modes[:i] {
			if other.named[processor] {
				if from := earliest(modes[:j+1], j, processor); from.since() < at.since() {
					at = from
				}
			}
		}
	}
	return at
}

// atLeast reads a duration that would be a mistake if it were shorter.
func (v *validator) atLeast(path, s string, least time.Duration, like string) time.Duration {
	d := v.duration(path, s)
	if d > 0 && d < least {
		v.add(path, "%q is less than %s: write a longer time, such as %s", clip(s), least, like)
	}
	return d
}

// leastWithin is the shortest trigger_within: less is no time in which a run could end.
func (c Calendar) leastWithin() time.Duration {
	if c.hourly {
		return 5 * time.Minute
	}
	return time.Hour
}
