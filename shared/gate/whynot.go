package gate

// WhyNot says in words why a run does not count for the mode; "" when it does.
func WhyNot(in Input, r Run) string {
	m, cal := in.Mode, in.Transition.Calendar()
	own, known := in.Transition.Mode(in.Transition.ModeAt(in.Period, r.EventTime))
	switch {
	case counter(in.Transition, m, in.Period)(r):
		return ""
	case r.Processor == "":
		return "the pipeline knows no such processor"
	case !m.Names(r.Processor):
		return m.Name + " does not expect this processor"
	case !r.Status.Counts():
		return "it reported " + string(r.Status)
	case known && own.Name != m.Name && own.Names(r.Processor):
		return "it belongs to " + own.Name
	}
	return "it completed before " + clock(cal, in.Period, cal.Instant(in.Period, m.CountsFrom))
}
