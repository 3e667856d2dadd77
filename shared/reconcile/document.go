package reconcile

import (
	"slices"
	"strings"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/policy"
)

// document compares the compatibility document with the recorded state or, where nothing is
// recorded, with itself.
func (c *comparison) document(b *cycle.PeriodState) {
	if b.Document == nil && b.At.Sub(c.transition.Calendar().End(b.Period)) > shownFor {
		return
	}
	// It is written last: a process at work has not yet written it.
	live := func(st cycle.Status) bool { return st.Live }
	if slices.ContainsFunc(b.Cycles, live) {
		return
	}
	for _, p := range c.upstream {
		if r, ok := b.Newest(p.Name); ok && b.At.Sub(r.EventTime) < policy.ReportsWithin {
			return
		}
	}
	if len(b.Wrong)+len(b.Shown) == 0 { // no records has to do with it
		c.foreign(b)
		return
	}
	for _, name := range b.Others {
		f := &Finding{Type: CountDrift, Period: b.Period, Table: name, Severity: Info, Evidence: map[string]any{"fields": []string{name}, "shown": b.Document["_completed_count"]},
			Repair: "none automatically: another program or an earlier definition wrote it, and no run of " + name + " counts here"}
		for _, p := range c.upstream {
			if p.Name == name {
				f.Table, f.Severity = p.Table, Warning
			}
		}
		c.add(f)
	}
	var counts, flags []string
	for _, name := range b.Wrong {
		if strings.HasPrefix(name, "_trigger") || name == "_mode" {
			flags = append(flags, name)
		} else {
			counts = append(counts, name)
		}
	}
	if len(counts) > 0 {
		c.mend(&Finding{Type: CountDrift, Period: b.Period, Severity: Warning, Evidence: map[string]any{"fields": policy.Capped(counts), "shown": b.Document["_completed_count"]},
			Repair: "write the recorded runs"})
	}
	if len(flags) > 0 {
		c.mend(&Finding{Type: FlagDrift, Period: b.Period, Severity: Critical, Evidence: map[string]any{"fields": flags, "triggered": b.Document["_triggered"]},
			Repair: "write the recorded runs"})
	}
}

// foreign checks a document that others wrote about a period of which nothing is recorded.
func (c *comparison) foreign(b *cycle.PeriodState) {
	complete := int64(0)
	for _, p := range c.upstream {
		if _, ok := b.Document[p.Name].(map[string]any); ok {
			complete++
		}
	}
	if shown, ok := b.Document["_completed_count"].(int64); ok && shown != complete {
		c.add(&Finding{Type: CountDrift, Period: b.Period, Severity: Warning, Evidence: map[string]any{"shown": shown, "present": complete},
			Repair: "none automatically: another program wrote it"})
	}
	next, _, known := c.newestNext(b.Period)
	if triggered, _ := b.Document["_triggered"].(bool); triggered && known && next.IsZero() {
		c.add(&Finding{Type: FlagDrift, Period: b.Period, Severity: Critical, Evidence: map[string]any{"triggered": true, "published": 0},
			Repair: "none automatically: another program wrote it, and the next phase has written nothing"})
	}
}
