package health

import (
	"context"
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// DrillPeriod is the period of drills, in the collections of the shadow. It is so long ago
// that no other data has it.
func DrillPeriod(c pipeline.Calendar) pipeline.Period {
	return c.At(time.Date(2000, 1, 1, 12, 0, 0, 0, c.Zone()))
}

// Drilled is what the last drill has come to.
type Drilled struct {
	At      time.Time // when it ended, the server's clock
	State   State     // of the check of hand-overs
	Reason  string    // its evidence
	Problem string    // why Slack did not get it, "" when it did
}

// Drill evaluates the reserved period in the shadow, where a fault was reported before. It
// logs the result in shadow, sends a notification marked as a drill, and keeps the result.
func Drill(ctx context.Context, a *app.App) error {
	check := drilled(ctx, a)
	a.Shadowed().Log.WarnContext(ctx, fmt.Sprintf("drill: %s is %s: %s", check.ID, check.State, check.Evidence[0]), "event", telemetry.Finding, "by", "drill",
		"check", check.ID, "state", string(check.State), "evidence", check.Evidence)
	at := a.Now()
	sendErr := a.Notifier.Send(ctx, notify.Notification{Subject: "drill", State: at.UTC().Format(time.RFC3339Nano), Severity: notify.Info, Command: check.Action,
		Title:  "drill, nothing is wrong: " + check.ID + " is " + string(check.State) + ", as intended",
		Reason: check.Evidence[0]})
	problem := ""
	if sendErr != nil {
		problem = sendErr.Error()
	}
	ref := store.Ref{Collection: a.Config.StatePrefix() + app.StatusCollection, ID: pipeline.FunctionHealth}
	_, err := a.Store.Apply(ctx, store.Merge(ref, store.F(map[string]any{"at": store.ServerTime, "state": string(check.State), "reason": check.Evidence[0], "problem": problem}, "drill")))
	if err != nil {
		return fmt.Errorf("store the result of the drill: %w", err)
	}
	return a.Heartbeat(ctx, pipeline.FunctionHealth, "drill")
}

// drilled is the check of hand-overs on the day after the reserved period's deadlines.
func drilled(ctx context.Context, a *app.App) Check {
	shadow, p := a.Shadowed(), *a.Pipeline
	p.Transitions = nil
	day := DrillPeriod(p.Calendar)
	now := p.Calendar.End(day)
	for _, t := range a.Pipeline.Transitions {
		was := *t
		was.ManagedSince = "" // the reserved period is before all managed ones
		p.Transitions = append(p.Transitions, &was)
		if due := t.LastDue(day); due.After(now) {
			now = due
		}
	}
	shadow.Pipeline = &p
	c := New(shadow)
	c.Now = func() time.Time { return now.Add(time.Minute) }
	c.Dead = func(context.Context) (map[string]int64, error) { return nil, errNotCounted }
	for _, check := range c.Run(ctx).Checks {
		if check.ID == HandOvers {
			return check
		}
	}
	return Check{ID: HandOvers, State: Unknown, Evidence: []string{"this check does not exist"}}
}

// LastDrill returns what the last drill has come to; false: there was none.
func LastDrill(ctx context.Context, a *app.App) (d Drilled, ok bool, err error) {
	snap, err := a.Store.Get(ctx, store.Ref{Collection: a.Config.StatePrefix() + app.StatusCollection, ID: pipeline.FunctionHealth})
	if err != nil {
		return d, false, fmt.Errorf("read the result of the drill: %w", err)
	}
	m, ok := snap.Docs[0].Data["drill"].(map[string]any)
	d.At, _ = m["at"].(time.Time)
	state, _ := m["state"].(string)
	d.State = State(state)
	d.Reason, _ = m["reason"].(string)
	d.Problem, _ = m["problem"].(string)
	return d, ok, nil
}
