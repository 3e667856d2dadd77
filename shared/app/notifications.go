package app

import (
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

// notifiedFor is the time after its deadline in which a cycle causes notifications; "resolved"
// has no limit. Health reports older problems.
const notifiedFor = 24 * time.Hour

// Notifications returns those about the cycles of a period. A shadow has none.
func (a *App) Notifications(key cycle.Key, cycles []cycle.Status) (out []notify.Notification) {
	if _, planned := a.Pipeline.Health.Planned(key.Period); planned || a.Config.Shadow != "" {
		return nil
	}
	for _, st := range cycles {
		m, known := key.Transition.Mode(st.Mode)
		if !known {
			continue
		}
		late := !a.Now().Before(m.Due(key.Transition.Calendar(), key.Period).Add(notifiedFor))
		for _, n := range cycleNotifications(key.Transition, m, st) {
			if a.Config.Page != "" {
				n.Links = []notify.Link{{Text: "cycle", URL: a.Config.Page + "/" + key.Transition.CyclePath(key.Period, st.Mode)}}
			}
			if !late || n.State == "" {
				out = append(out, n)
			}
		}
	}
	return out
}

// cycleNotifications returns the notification about the state of a cycle, or none while it
// proceeds normally or an operator keeps it on hold.
func cycleNotifications(t *pipeline.Transition, m pipeline.Mode, st cycle.Status) []notify.Notification {
	name := t.Called(pipeline.Period(st.Period), st.Mode)
	n := notify.Notification{Subject: "cycle_" + st.Cycle, Severity: notify.Warning, Reason: st.Reason, Command: "phasectl explain " + st.Period + " " + st.Mode + t.Option()}
	missing := policy.Listed(st.Missing)
	critical := st.FailedCritical(m)
	switch state := st.State; {
	case st.Hold != nil:
		return nil
	case state == string(policy.Overdue):
		n.State, n.Severity, n.Page = state, notify.Critical, "cycle-overdue"
		n.Title = name + " is overdue: its deadline has passed, or it is too old to be handed over automatically"
	case state == string(cycle.StateBlocked):
		n.State, n.Page = state, "cycle-blocked"
		n.Title = name + " is blocked: its data is not ready"
	case state == string(cycle.StatePublished) && len(st.Missing) > 0 && m.Complete == pipeline.CompleteAll:
		n.State, n.Page = "degraded", "processor-errors"
		n.Title = fmt.Sprintf("%s was handed over without %s", name, missing)
	case state == string(cycle.StatePublished):
		n.Title = name + " is handed over"
	case state == string(policy.Closed):
		n.Title = name + " has nothing to hand over"
	case len(critical) > 0:
		n.State, n.Severity, n.Page = "failed: "+policy.Listed(critical), notify.Critical, "processor-errors"
		n.Title = fmt.Sprintf("%s waits for %s, which failed", name, policy.Listed(critical))
	case st.Early:
		n.Title = name + " is before the adoption, and is not judged"
	default:
		return nil
	}
	return []notify.Notification{n}
}
