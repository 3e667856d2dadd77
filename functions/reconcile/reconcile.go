// Package reconcile is the function that the scheduler triggers to find what is left
// unfinished. Its job relay converges the recent periods, and leaves a heartbeat when
// all of them were.
package reconcile

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/intake"
	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// timeout bounds one job, below the subscription's ack deadline of 600 s.
const timeout = 5 * time.Minute

// New returns the function's handler. POST takes a job message; an unknown job goes
// to quarantine.
func New(open func(context.Context) (*app.App, error)) http.Handler {
	return intake.Function{
		Name: "reconcile", Open: open, Timeout: timeout, Handle: handle,
		Topic: func(*app.App, *http.Request) (string, error) {
			return pipeline.Schedule{Function: "reconcile"}.Topic(), nil
		},
	}
}

func handle(ctx context.Context, a *app.App, _ *http.Request, e message.Envelope) error {
	job, err := message.DecodeJob(e)
	if err != nil {
		return err
	}
	switch {
	case job.Job != message.JobRelay:
		return &message.PermanentError{Field: "job", Value: job.Job, Problem: "is not served by reconcile; relay is"}
	case job.Table != "":
		return &message.PermanentError{Field: "table", Value: job.Table, Problem: "means nothing to the relay"}
	case job.Date != "":
		return &message.PermanentError{Field: "date", Value: job.Date, Problem: "means nothing to the relay"}
	}
	var errs []error
	for _, t := range a.Pipeline.Transitions {
		errs = append(errs, a.Engine.Relay(ctx, t, e.MessageID))
	}
	if err := errors.Join(errs...); err != nil {
		return err // and no heartbeat: a relay that keeps failing has to be noticed
	}
	return a.Heartbeat(ctx, "reconcile", job.Job)
}
