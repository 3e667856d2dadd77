package policy

import (
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// WhyNot says in words why a run does not count for the mode; "" when it does.
func WhyNot(in Input, r Run) string {
	m, cal := in.Mode, in.Transition.Calendar()
	at, declared := in.Transition.Mode(in.Transition.ModeAt(in.Period, r.EventTime))
	before := func(m pipeline.Mode) string {
		return "completed before " + clock(cal, in.Period, cal.Instant(in.Period, m.CountsFrom))
	}
	place := placing(in.Transition, m, in.Period)(r)
	switch {
	case r.Processor == "":
		return "the pipeline knows no such processor"
	case place == unexpected:
		return m.Name + " does not expect this processor"
	case !r.Status.Counts():
		return "it reported " + string(r.Status)
	case place >= accepted:
		return ""
	case !declared && place == tooEarly:
		why := "it completed too early: " + m.Name + " counts runs that end at or after " + cal.Local(cal.Instant(in.Period, m.CountsFrom))
		if meant := Meant(in.Transition, r.Processor, in.Period, r.EventTime); meant != "" {
			why += "; did you mean " + string(meant) + "?"
		}
		return why
	case !declared:
		return "it completed at a time for which no mode is declared"
	case place == elsewhere && at.Names(r.Processor):
		return "it belongs to " + at.Name
	case place == elsewhere:
		return "it completed in the time of " + at.Name + ", which does not expect this processor"
	case at.Name != m.Name && at.Names(r.Processor):
		return "it belongs to " + at.Name + ", and " + before(at)
	}
	return "it " + before(m)
}

// Meant returns the period that a run was probably of, if it counts for no mode of the period p. That
// is the period before p, or "" if the run counts for no mode of that one either.
func Meant(t *pipeline.Transition, processor string, p pipeline.Period, at time.Time) pipeline.Period {
	before := t.Calendar().Add(p, -1)
	if m, ok := t.Mode(t.ModeAt(before, at)); ok && m.Names(processor) && !at.Before(t.Calendar().Instant(before, m.CountsFrom)) {
		return before
	}
	return ""
}
