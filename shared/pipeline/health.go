package pipeline

import "fmt"

// Health is what the health checks ask the warehouse, besides what the rest of the
// definition says.
type Health struct {
	Datasets []string // that the statements read; the functions may read no others
	Upstream *Upstream
	// Runs yields the runs of processors that began on the dates from @first to @last. Its
	// columns are processor (name or class), date of the data, run id, begin, and end (NULL
	// while it runs). "" when no such history is kept.
	Runs string
	// DigestAt is the local time from which the digest of the day is sent.
	DigestAt Offset
	// UnseenDays is for how many days with expected work a processor may not report.
	UnseenDays int
	// SLOPct is the goal for the share of cycles that are handed over before their deadline.
	SLOPct int
	// Maintenance are periods of planned work, which cause no notifications.
	Maintenance []Maintenance
}

// Maintenance is about the periods from one to another, both included.
type Maintenance struct {
	From, To Period
	Reason   string
}

func (m Maintenance) String() string {
	return fmt.Sprintf("%s to %s is planned maintenance: %s", m.From, m.To, m.Reason)
}

// Planned returns the maintenance that a period belongs to, if there is one.
func (h Health) Planned(p Period) (Maintenance, bool) {
	for _, m := range h.Maintenance {
		if m.From <= p && p <= m.To {
			return m, true
		}
	}
	return Maintenance{}, false
}

// Upstream is about what has to run before the first phase.
type Upstream struct {
	// SQL yields the first run of each source on each date from @first to @last: name,
	// date, time.
	SQL string
	// Local times of the day: when the first run is expected, and after which it is late.
	ExpectedBy, FailingAfter Offset
}

// maxMaintenance is how many days one maintenance may have: a wrong year must not end all checks.
const maxMaintenance = 92

// maxUnseenDays is as far back as health looks: a week, of which today is not over.
const maxUnseenDays = 6

func (v *validator) health(f *fileHealth, c Calendar) Health {
	h := Health{UnseenDays: 3, SLOPct: 99, DigestAt: Offset{Minute: 9 * 60}}
	if f == nil {
		return h
	}
	if f.DigestAt != "" {
		h.DigestAt = v.timeOfDay(c, "health.digest_at", f.DigestAt)
	}
	if f.UnseenDays != nil {
		h.UnseenDays = *f.UnseenDays
	}
	if h.UnseenDays < 1 || h.UnseenDays > maxUnseenDays {
		v.add("health.unseen_days", "must be 1 to %d, is %d", maxUnseenDays, h.UnseenDays)
	}
	if f.SLOPct != nil {
		h.SLOPct = *f.SLOPct
	}
	if h.SLOPct < 1 || h.SLOPct > 100 {
		v.add("health.slo_pct", "must be 1 to 100, is %d", h.SLOPct)
	}
	v.datasets("health.datasets", f.Datasets)
	for i, m := range f.Maintenance {
		at := fmt.Sprintf("health.maintenance[%d]", i)
		from, err := c.Parse(m.From)
		if err != nil {
			v.add(at+".from", "%v", err)
		}
		to, err := c.Parse(m.To)
		if err != nil {
			v.add(at+".to", "%v", err)
		}
		if to < from {
			v.add(at+".to", "%q is before from, %q", clip(m.To), clip(m.From))
		}
		if err == nil && from != "" && c.AddDays(from, maxMaintenance) < to {
			v.add(at+".to", "%q is more than %d days after from, %q: nothing would be checked for so long; correct the year, or write several", clip(m.To), maxMaintenance, clip(m.From))
		}
		if m.Reason == "" {
			v.add(at+".reason", "is required: people read it")
		}
		h.Maintenance = append(h.Maintenance, Maintenance{from, to, m.Reason})
	}
	h.Datasets, h.Runs = f.Datasets, f.Runs
	window := []string{"@first", "@last"}
	if f.Runs != "" {
		v.parameters("health.runs", f.Runs, window)
	}
	if u := f.Upstream; u != nil {
		v.parameters("health.upstream.sql", u.SQL, window)
		h.Upstream = &Upstream{SQL: u.SQL, ExpectedBy: v.timeOfDay(c, "health.upstream.expected_by", u.ExpectedBy), FailingAfter: v.timeOfDay(c, "health.upstream.failing_after", u.FailingAfter)}
		if h.Upstream.FailingAfter.Minute < h.Upstream.ExpectedBy.Minute {
			v.add("health.upstream.failing_after", "%q is before expected_by, %q: move one of them", u.FailingAfter, u.ExpectedBy)
		}
	}
	return h
}

// timeOfDay reads a local time of a day, such as 08:00.
func (v *validator) timeOfDay(c Calendar, path, s string) Offset {
	o, err := c.Daily().ParseOffset(s)
	switch {
	case err != nil:
		v.add(path, "%v", err)
	case o.Periods != 0:
		v.add(path, "%q is of another day", s)
	}
	return o
}
