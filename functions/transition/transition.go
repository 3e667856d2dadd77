// Package transition is the function that receives completions: it records a completion and
// evaluates the cycles of its period.
package transition

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// timeout bounds one request: a claim's length and as much again, far below the
// subscription's ack deadline of 600 s.
const timeout = 2 * time.Minute

// New returns the function's handler. POST takes a Pub/Sub push envelope or a
// CloudEvent; ?transition=ID names the transition where the pipeline has several.
func New(open func(context.Context) (*app.App, error)) http.Handler {
	return delivery.Function{
		Name: "transition", Open: open, Timeout: timeout,
		Topic: func(a *app.App, r *http.Request) (string, error) {
			t, err := transitionOf(a, r)
			if err != nil {
				return "", err
			}
			return t.UpstreamTopic, nil
		},
		Handle: handle,
	}
}

// transitionOf fails for a subscription that was set up with a wrong id: its messages
// are sound, so they are retried and end in the dead letter, not in quarantine.
func transitionOf(a *app.App, r *http.Request) (*pipeline.Transition, error) {
	id := r.URL.Query().Get("transition")
	t, ok := a.Pipeline.Transition(id)
	if !ok {
		return nil, fmt.Errorf("?transition=%q: the pipeline has %s", id, a.Pipeline.TransitionIDs())
	}
	return t, nil
}

func handle(ctx context.Context, a *app.App, r *http.Request, e wire.Envelope) error {
	t, err := transitionOf(a, r)
	if err != nil {
		return err
	}
	c, warnings, err := wire.DecodeCompletion(e, t)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		a.Log.WarnContext(ctx, "field of a completion ignored: "+w.Problem, "field", w.Field, "value", w.Value,
			"message_id", e.MessageID, "processor", c.Reported)
	}
	if c.LocalTime {
		a.Log.WarnContext(ctx, fmt.Sprintf("timestamp of %q has no offset: it is used as %s, but looks like local time of %s: send UTC, or add the offset", c.Reported, c.EventTime.UTC().Format("2006-01-02 15:04 UTC"), t.Calendar().Zone()),
			"event", telemetry.CompletionLocalTime, "transition", t.ID, "period", string(c.Period), "processor", c.Processor, "message_id", e.MessageID,
			"event_time", c.EventTime, "published", e.PublishTime)
	}
	key := cycle.Key{Transition: t, Period: c.Period}
	result, err := a.Engine.Complete(ctx, key, cycle.Report{Completion: c, MessageID: e.MessageID})
	if err != nil {
		return err
	}
	if result.OwnClaim {
		return delivery.ErrBusy
	}
	return nil
}
