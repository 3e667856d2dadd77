package health

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// recollection is a check's state, and since when.
type recollection struct {
	state State
	since time.Time
}

func (c *Checker) statusRef() store.Ref {
	return store.Ref{Collection: c.StatePrefix + app.StatusCollection, ID: pipeline.FunctionHealth}
}

// firsts are when codes and schedules were seen first; nil where nothing was kept.
type firsts struct{ codes, schedules map[string]time.Time }

func (c *Checker) remembered(ctx context.Context) (map[string]recollection, firsts, error) {
	snap, err := c.Store.Get(ctx, c.statusRef())
	if err != nil {
		return nil, firsts{}, fmt.Errorf("read the last report: %w", err)
	}
	out := map[string]recollection{}
	states, _ := snap.Docs[0].Data["states"].(map[string]any)
	since, _ := snap.Docs[0].Data["since"].(map[string]any)
	for id, s := range states {
		text, _ := s.(string)
		at, _ := since[id].(time.Time)
		out[id] = recollection{State(text), at}
	}
	return out, firsts{times(snap.Docs[0].Data["codes"]), times(snap.Docs[0].Data["schedules"])}, nil
}

// times reads a map of timestamps, nil where there is none.
func times(field any) map[string]time.Time {
	kept, ok := field.(map[string]any)
	if !ok {
		return nil
	}
	out := map[string]time.Time{}
	for name, at := range kept {
		out[name], _ = at.(time.Time)
	}
	return out
}

// Remember keeps a report, for those who only want to read it, and since when its checks
// have been in their states. The hourly job does.
func (c *Checker) Remember(ctx context.Context, r Report) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keep the report: %w", err)
	}
	fields := []store.Field{store.F(string(text), "report")}
	if !r.forgot { // else since when is better known there
		for name, firsts := range map[string]map[string]time.Time{"codes": r.seen, "schedules": r.scheduled} {
			kept := map[string]any{}
			for what, first := range firsts {
				kept[what] = first
			}
			fields = append(fields, store.F(kept, name))
		}
		for _, check := range r.Checks {
			fields = append(fields, store.F(string(check.State), "states", check.ID), store.F(check.Since, "since", check.ID))
		}
	}
	if _, err := c.Store.Apply(ctx, store.Merge(c.statusRef(), fields...)); err != nil {
		return fmt.Errorf("keep the report: %w", err)
	}
	return nil
}

// stale is how old a report may be before it says nothing any more: two of the hourly
// looks were missed.
const stale = 2*time.Hour + 30*time.Minute

// reportAge is the check that [Checker.Last] adds to a report that is too old.
const reportAge = "report_age"

// Last returns the report that was kept last, in one call. One that is too old, or that
// was never made, is unknown.
func (c *Checker) Last(ctx context.Context) (Report, error) {
	snap, err := c.Store.Get(ctx, c.statusRef())
	if err != nil {
		return Report{}, fmt.Errorf("read the report: %w", err)
	}
	r := Report{Schema: 1, Checks: []Check{}}
	age := Check{ID: reportAge, State: Unknown, Since: c.Now().UTC(), Action: "phasectl health", Evidence: []string{"health was never evaluated"}}
	if text, ok := snap.Docs[0].Data["report"].(string); ok {
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			age.Evidence = []string{"the last report cannot be read: " + err.Error()}
			return Report{Schema: 1, Overall: Unknown, Checks: []Check{age}}, nil
		}
		age.Since, age.Evidence = r.At.Add(stale), []string{"health was not evaluated since " + r.At.Format(time.RFC3339)}
	}
	old := c.Now().Sub(r.At)
	if old < -clockSkew {
		age.Since, age.Evidence = c.Now().UTC(), []string{"the last report is of " + r.At.Format(time.RFC3339) + ", which is in the future: compare the clocks"}
	}
	if old > stale || old < -clockSkew {
		r.Overall, r.Checks = Unknown, append([]Check{age}, r.Checks...)
	}
	return r, nil
}

// LogReport logs each check: alerts read these lines.
func (c *Checker) LogReport(ctx context.Context, r Report) {
	for _, check := range r.Checks {
		level := slog.LevelInfo
		if check.State != OK {
			level = slog.LevelWarn
		}
		c.Log.Log(ctx, level, fmt.Sprintf("%s is %s: %s", check.ID, check.State, check.Evidence[0]), "event", telemetry.Finding, "by", "health",
			"check", check.ID, "state", string(check.State), "since", check.Since, "evidence", check.Evidence, "action", check.Action)
	}
	c.Log.InfoContext(ctx, "health is "+string(r.Overall), "event", telemetry.Report, "overall", string(r.Overall))
}
