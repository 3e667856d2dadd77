// Package transition is the function that receives completions: it records a completion and
// evaluates the cycles of its period.
package transition

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/notify"
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
		Name: pipeline.FunctionTransition, Open: open, Timeout: timeout,
		Source: source, Handle: handle,
	}
}

// source fails for a subscription that was set up with a wrong id: its messages are sound, so they
// are retried and end in the dead letter, not in quarantine.
func source(a *app.App, query url.Values) (delivery.Source, error) {
	id := query.Get("transition")
	t, ok := a.Pipeline.Transition(id)
	if !ok {
		return delivery.Source{}, fmt.Errorf("?transition=%q: the pipeline has %s", id, a.Pipeline.TransitionIDs())
	}
	return delivery.Source{Topic: t.UpstreamTopic, Transition: t}, nil
}

func handle(ctx context.Context, r delivery.Request) ([]notify.Notification, error) {
	t := r.Transition
	c, warnings, err := wire.DecodeCompletion(r.Envelope, t)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		r.Log.WarnContext(ctx, "field of a completion ignored: "+w.Problem, "field", w.Field, "value", w.Value,
			"message_id", r.MessageID, "processor", c.Reported)
	}
	if c.LocalTime {
		r.Log.WarnContext(ctx, fmt.Sprintf("timestamp of %q has no offset: it is used as %s, but looks like local time of %s: send UTC, or add the offset", c.Reported, c.EventTime.UTC().Format("2006-01-02 15:04 UTC"), t.Calendar().Zone()),
			"event", telemetry.CompletionLocalTime, "transition", t.ID, "period", string(c.Period), "processor", c.Processor, "message_id", r.MessageID,
			"event_time", c.EventTime, "published", r.PublishTime)
	}
	key := cycle.Key{Transition: t, Period: c.Period}
	result, err := r.Engine.Complete(ctx, key, cycle.Report{Completion: c, MessageID: r.MessageID})
	if err == nil && result.OwnClaim {
		err = delivery.ErrBusy
	}
	return r.Notifications(key, result.Cycles), err
}
