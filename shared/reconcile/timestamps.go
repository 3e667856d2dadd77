package reconcile

import (
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

// localTimestamps names the processors that report local times without an offset. The
// newest report decides: one that sends UTC by now is no finding any more.
func (c *comparison) localTimestamps() {
	for _, p := range c.upstream {
		var newest policy.Run
		var period pipeline.Period
		for i := range c.periods {
			b := &c.periods[i]
			if b.Problem != nil {
				continue // it is named as unknown
			}
			if r, ok := b.Newest(p.Name); ok && (newest.Completion == nil || r.EventTime.After(newest.EventTime)) {
				newest, period = r, b.Period
			}
		}
		if newest.Completion != nil && newest.LocalTime {
			zone := c.transition.Calendar().Zone().String()
			c.add(&Finding{Type: LocalTimestamp, Period: period, Mode: c.transition.ModeAt(period, newest.EventTime), Table: p.Table, Severity: Warning,
				Evidence: map[string]any{"processor": p.Name, "execution_id": newest.ExecutionID, "event_time": newest.EventTime, "time_zone": zone},
				Repair:   "let the processor send UTC, or add the offset: its times may count for another mode"})
		}
	}
}
