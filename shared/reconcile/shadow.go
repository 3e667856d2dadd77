package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// Verdict says how a cycle in shadow compares with what another orchestrator did.
type Verdict string

// The verdicts.
const (
	Alike      Verdict = "alike"       // both have handed it over, or would have
	OnlyOurs   Verdict = "only_ours"   // the other has not
	OnlyTheirs Verdict = "only_theirs" // we would not have: to be understood before taking over
	OtherMode  Verdict = "other_mode"  // the other's document has one mode for a date, and it is another one
	NotKnown   Verdict = "unknown"     // it cannot be read
)

// ShadowCycle is one cycle of the shadow, compared with the state that another orchestrator wrote
// in the compatibility document.
type ShadowCycle struct {
	Period  string    `json:"period"`
	Mode    string    `json:"mode"` // "" where the other tells neither it nor when
	Ours    time.Time `json:"ours,omitzero"`
	Theirs  time.Time `json:"theirs,omitzero"`
	Verdict Verdict   `json:"verdict"`
	Reason  string    `json:"reason"` // in words: why we would have, or not yet
}

// CompareShadow compares the shadow of an application, or one that is in shadow itself, with
// what others wrote into the compatibility documents of the periods from one to another. In
// five calls for any number of periods; it changes nothing.
func CompareShadow(ctx context.Context, a *app.App, t *pipeline.Transition, from, to pipeline.Period) ([]ShadowCycle, error) {
	shadow := a
	if a.Config.Shadow == "" {
		shadow = a.Shadowed()
	}
	periods, err := shadow.Engine.PeriodStates(ctx, t, from, to)
	if err != nil {
		return nil, err
	}
	theirs := map[string]map[string]any{}
	for doc, err := range a.Store.Scan(ctx, a.Config.Prefix+t.CompatibilityCollection, string(from), string(to)) {
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", t.CompatibilityCollection, err)
		}
		theirs[doc.Ref.ID] = doc.Data
	}
	out := []ShadowCycle{}
	for _, b := range periods {
		out = append(out, compareShadow(b, theirs[string(b.Period)])...)
	}
	return out, nil
}

// compareShadow compares one period.
func compareShadow(b cycle.PeriodState, document map[string]any) (out []ShadowCycle) {
	period := string(b.Period)
	if b.Problem != nil {
		return []ShadowCycle{{Period: period, Verdict: NotKnown, Reason: b.Problem.Error()}}
	}
	triggered, _ := document["_triggered"].(bool)
	at, _ := document["_triggered_at"].(time.Time)
	mode, _ := document["_mode"].(string)
	if mode == "" && !at.IsZero() { // it was the cycle whose time it was
		mode = b.Transition.ModeAt(b.Period, at)
	}
	matched := !triggered
	for _, st := range b.Cycles {
		one := ShadowCycle{Period: period, Mode: st.Mode, Verdict: OnlyOurs, Reason: st.State + ": " + st.Reason}
		for _, batch := range st.Batches {
			if batch.State == cycle.StatePublished && one.Ours.IsZero() {
				one.Ours, one.Reason = batch.PublishedAt, batch.Reason
			}
		}
		switch named := mode == "" || mode == st.Mode; {
		case one.Ours.IsZero() && triggered && mode == st.Mode:
			one.Theirs, one.Verdict, matched = at, OnlyTheirs, true
		case one.Ours.IsZero():
			continue
		case triggered && named:
			one.Theirs, one.Verdict, matched = at, Alike, true
		case triggered:
			one.Verdict = OtherMode
		}
		out = append(out, one)
	}
	if !matched {
		out = append(out, ShadowCycle{Period: period, Mode: mode, Theirs: at, Verdict: OnlyTheirs, Reason: "it was not handed over here"})
	}
	return out
}
