package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/sweep"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// table compares one table's rows of a period with the runs that have reported them.
func (c *comparison) table(b *cycle.PeriodState, p pipeline.Processor, s warehouse.Slice, counting map[string]map[string]policy.Run) {
	var newest *policy.Run // that counts for any mode
	mode := ""
	for _, m := range c.transition.Modes {
		if r, ok := counting[m.Name][p.Name]; ok && (newest == nil || policy.Older(*newest, r) < 0) {
			newest, mode = &r, m.Name
		}
	}
	inFlight := ""
	switch {
	case c.locked(p, b.Period):
		inFlight = "in flight, a run of " + p.Class + " has the lock"
	case !s.Newest.IsZero() && b.At.Sub(s.Newest) < settled:
		inFlight = "in flight, its newest row is of " + s.Newest.Format(time.RFC3339)
	}
	if s.Rows == 0 {
		c.empty(b, p, newest, mode, inFlight)
		return
	}
	if s.Surplus > 0 && inFlight == "" {
		c.add(&Finding{Type: DuplicateRows, Period: b.Period, Table: p.Table, Severity: Severity(sweep.Severity(s.Surplus)),
			Evidence: map[string]any{"rows": s.Rows, "duplicates": s.Surplus}, Repair: "phasectl sweep " + string(b.Period) + " --table " + p.Name + " --fix"})
	}
	if s.Newest.IsZero() {
		c.unclear(b, "%s: no row has the time of its write (%s)", p.Table, p.OrderBy)
		return
	}
	var lacking []string // modes for which the rows count, and no run
	attributable := false
	for _, m := range c.transition.Modes {
		if !b.WouldCount(m, p.Name, s.Newest) || !b.WouldCount(m, p.Name, s.Oldest) {
			continue
		}
		attributable = true
		if _, ok := counting[m.Name][p.Name]; !ok {
			lacking = append(lacking, m.Name)
		}
	}
	rows := s.Rows - s.Surplus
	counted := newest != nil && newest.RecordCount != nil && !newest.Incremental
	again := counted && *newest.RecordCount != rows && s.Newest.Sub(newest.EventTime) > policy.ReportsWithin
	missing := attributable && (len(lacking) > 0 || again)
	if inFlight != "" && (missing || !attributable && newest == nil || counted && *newest.RecordCount != rows) {
		c.unclear(b, "%s: %s", p.Table, inFlight)
		return
	}
	evidence := map[string]any{"rows": rows, "oldest": s.Oldest, "newest": s.Newest}
	if newest != nil {
		evidence["reported"], evidence["execution_id"], evidence["completed_at"] = newest.RecordCount, newest.ExecutionID, newest.EventTime
	}
	switch {
	case missing:
		if len(lacking) == 0 {
			lacking = []string{mode}
		}
		if !c.missing(b, p, s, lacking[0], evidence) {
			return
		}
	case !attributable && newest == nil:
		c.unclear(b, "%s: %s to no mode, written from %s to %s", p.Table, pipeline.Count(s.Rows, "row belongs", "rows belong"), s.Oldest.Format(time.RFC3339), s.Newest.Format(time.RFC3339))
		return
	case counted && rows < *newest.RecordCount:
		c.add(&Finding{Type: PartialData, Period: b.Period, Mode: mode, Table: p.Table, Severity: Warning, Evidence: evidence,
			Repair: "run " + p.Name + " for " + string(b.Period) + " again, if rows are missing"})
	case counted && rows > *newest.RecordCount:
		c.add(&Finding{Type: CountDrift, Period: b.Period, Mode: mode, Table: p.Table, Severity: Info, Evidence: evidence,
			Repair: "none: the table has more rows than " + p.Name + " has reported"})
	}
	if b.Shown == nil {
		return
	}
	c.tables++
	_, there := b.Document[p.Name].(map[string]any)
	if b.Shown[p.Name] || there && !b.Recorded { // what others wrote is not ours to judge
		c.shown++
	}
}

// empty is about a table without rows.
func (c *comparison) empty(b *cycle.PeriodState, p pipeline.Processor, newest *policy.Run, mode, inFlight string) {
	expected, known := c.expected[b.Period]
	switch {
	case newest == nil, newest.RecordCount != nil && *newest.RecordCount == 0:
	case newest.RecordCount == nil && known && expected == 0: // it did not say that there are any
	case inFlight != "":
		c.unclear(b, "%s: %s", p.Table, inFlight)
	default:
		c.add(&Finding{Type: PhantomCompletion, Period: b.Period, Mode: mode, Table: p.Table, Severity: Critical,
			Evidence: map[string]any{"execution_id": newest.ExecutionID, "completed_at": newest.EventTime, "reported": newest.RecordCount, "rows": 0},
			Repair:   "run " + p.Name + " for " + string(b.Period) + " again"})
	}
}

// missing is about rows of which no run has reported. It reports whether the document
// should show them.
func (c *comparison) missing(b *cycle.PeriodState, p pipeline.Processor, s warehouse.Slice, mode string, evidence map[string]any) bool {
	f := &Finding{Type: MissingCompletion, Period: b.Period, Mode: mode, Table: p.Table, Severity: Warning, Evidence: evidence,
		Repair: "record that " + p.Name + " has completed, and evaluate its cycles"}
	last, reported := b.Newest(p.Name)
	yes, known := c.handedOver(b, s.Newest)
	switch {
	case reported && last.Status == wire.StatusFailed && last.EventTime.After(s.Newest.Add(-policy.ReportsWithin)):
		c.unclear(b, "%s: %s, and their run has reported that it failed", p.Table, pipeline.Count(s.Rows, "row", "rows"))
		return false
	case !known:
		c.unclear(b, "%s: %s without a report; whether the next phase has run for them cannot be read", p.Table, pipeline.Count(s.Rows, "row", "rows"))
		return false
	case yes:
		f.Severity, f.Status, f.Repair = Info, Skipped, "none: the next phase has run since"
		c.add(f)
		return false
	default:
		c.mend(f, c.completion(b, p, s))
	}
	return true
}

// completion stands for the report that is missing. It follows from the rows alone, so that every
// process that finds them records the same run.
func (c *comparison) completion(b *cycle.PeriodState, p pipeline.Processor, s warehouse.Slice) wire.Completion {
	dataset, table, _ := strings.Cut(p.Table, ".")
	id := fmt.Sprintf("reconciliation-%s-%d", p.Name, s.Newest.UnixMicro())
	rows := s.Rows - s.Surplus
	return wire.Completion{Processor: p.Name, Reported: p.Name, Period: b.Period, Status: wire.StatusSuccess, EventTime: s.Newest,
		ExecutionID: id, CorrelationID: id, RecordCount: &rows, OutputTable: table, OutputDataset: dataset, TriggerSource: "reconciliation", Found: true, FoundLate: b.Old()}
}

// expectation compares a period with the schedule.
func (c *comparison) expectation(b *cycle.PeriodState, all sum, reported bool) {
	expected, known := c.expected[b.Period]
	over := c.transition.LastDue(b.Period)
	switch {
	case known && expected == 0 && (all.rows > 0 || reported):
		c.add(&Finding{Type: UnexpectedPeriod, Period: b.Period, Severity: Info, Evidence: map[string]any{"expected": 0, "rows": all.rows},
			Repair: "none, if the schedule is correct: rows exist for a period without expected work"})
	case all.rows > 0 || reported:
		if known && expected > 0 && !b.At.Before(over) {
			c.absent(b, expected)
		}
	case b.At.Before(over), closed(b):
	case !known && c.expected != nil:
		c.unclear(b, "the schedule gives no expected count, and the tables are empty")
	case known && expected > 0 && all.known:
		c.add(&Finding{Type: MissingPeriod, Period: b.Period, Severity: Critical, Evidence: map[string]any{"expected": expected, "rows": 0, "due": over},
			Repair: "run the processors of " + c.transition.UpstreamPhase + " for " + string(b.Period)})
	}
}

// closed reports whether a person has closed every cycle of a period: it shall never run.
func closed(b *cycle.PeriodState) bool {
	return !slices.ContainsFunc(b.Cycles, func(st cycle.Status) bool { return st.Closed == nil })
}

// absent finds the processors of which nothing has come, neither a row nor a report, of a
// period that is over.
func (c *comparison) absent(b *cycle.PeriodState, expected int64) {
	reported := map[string]bool{}
	for i := len(b.Cycles) - 1; i >= 0; i-- {
		st := b.Cycles[i]
		m, known := c.transition.Mode(st.Mode)
		due := c.deadline(b, m)
		if !known || due.IsZero() || b.At.Before(due) || st.Hold != nil || st.Closed != nil {
			continue
		}
		missing := pipeline.SetOf(st.Missing)
		for _, p := range c.upstream {
			s, readable := c.slice(p, b.Period)
			if reported[p.Name] || !readable || s.Rows > 0 || !missing[p.Name] || c.locked(p, b.Period) {
				continue
			}
			reported[p.Name] = true
			severity := Warning
			if m.IsCritical(p.Name) {
				severity = Critical
			}
			c.add(&Finding{Type: MissingPeriod, Period: b.Period, Mode: m.Name, Table: p.Table, Severity: severity,
				Evidence: map[string]any{"expected": expected, "rows": 0, "due": due}, Repair: "run " + p.Name + " for " + string(b.Period)})
		}
	}
}

// deadline is the zero time where a mode has none.
func (c *comparison) deadline(b *cycle.PeriodState, m pipeline.Mode) time.Time {
	if m.Deadline == nil {
		return time.Time{}
	}
	return c.transition.Calendar().Instant(b.Period, *m.Deadline)
}
