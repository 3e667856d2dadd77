// Package sweep is the function that searches for duplicate rows: nightly in all tables, and
// on request in one table and date. It removes them from the tables that the pipeline file
// marks so, and reports the others. A shadow removes nothing.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/sweep"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// timeout bounds one job, below the subscription's ack deadline of 600 s.
const timeout = 5 * time.Minute

// days is the window of a job that names no date.
const days = 7

// actor is the actor of removals in documents and audit records.
const actor = "sweep"

// New returns the function's handler. POST takes a job message; an unknown job goes to
// quarantine.
func New(open func(context.Context) (*app.App, error)) http.Handler {
	return delivery.Function{
		Name: pipeline.FunctionSweep, Open: open, Timeout: timeout, Source: delivery.Jobs(pipeline.FunctionSweep),
		Handle: func(ctx context.Context, r delivery.Request) ([]notify.Notification, error) {
			return nil, handle(ctx, r.App, r.Envelope) // health notifies people of duplicates
		},
	}
}

func handle(ctx context.Context, a *app.App, e wire.Envelope) error {
	job, err := wire.DecodeJob(e)
	if err != nil {
		return err
	}
	if job.Job != wire.JobSweep {
		return &wire.PermanentError{Field: "job", Value: job.Job, Problem: "is not served by sweep; sweep is"}
	}
	s, err := sweep.New(a)
	if err != nil { // a redelivery changes nothing
		a.Log.ErrorContext(ctx, "the sweep cannot run: "+err.Error(), "event", telemetry.CheckUnknown, "check", "duplicates")
		return nil
	}
	if job.Table != "" && !s.Knows(job.Table) {
		return &wire.PermanentError{Field: "table", Value: job.Table, Problem: "is none of the pipeline's, and no processor's name"}
	}
	o := sweep.Order{Table: job.Table, Actor: actor, Reason: "duplicates: remove"}
	if s.Refuses() == nil {
		o.Fix = func(p pipeline.Processor) bool { return p.Duplicates == pipeline.DuplicatesRemove }
	}
	// By when it was requested: a redelivery on the next day is about the same periods.
	o.From, o.To = a.Pipeline.Window(e.PublishTime, days)
	if job.Date != "" {
		period, err := a.Pipeline.Calendar.Parse(job.Date)
		if err != nil {
			return &wire.PermanentError{Field: "date", Value: job.Date, Problem: err.Error()}
		}
		o.From, o.To = period, period
	}
	run := func() error {
		r, err := s.Run(ctx, o)
		if err != nil {
			return err
		}
		return conclude(ctx, a, job, r)
	}
	if job.Table != "" || job.Date != "" {
		return run() // an operator or a job requested it: no schedule sends another one
	}
	return delivery.Periodic(ctx, a, e, job.Job, run)
}

// conclude answers for a sweep. What can succeed the next time is an error: the redelivery finds
// what is left. What a redelivery does not change is logged, and there is no heartbeat.
func conclude(ctx context.Context, a *app.App, job wire.Job, r sweep.Report) error {
	var bytes int64
	var busy, again []error
	for _, p := range r.Tables {
		bytes += p.Bytes
		switch {
		case p.State == sweep.Busy && p.Again():
			busy = append(busy, fmt.Errorf("%s of %s: %s", p.Table, p.Period, p.Problem))
		case p.State == sweep.Unknown && !p.Again():
			a.Log.ErrorContext(ctx, p.Table+" cannot be swept: "+p.Problem, "event", telemetry.CheckUnknown, "check", "duplicates", "table", p.Table, "period", string(p.Period))
		case p.Again():
			again = append(again, fmt.Errorf("%s %s: %s", p.Table, p.Period, p.Problem))
		}
	}
	a.Log.InfoContext(ctx, fmt.Sprintf("swept: %s left, %d unknown, %d bytes read", pipeline.Count(r.Left(), "duplicate", "duplicates"), r.Unknown(), bytes), "event", telemetry.Report,
		"sweep", r.SweepID, "left", r.Left(), "unknown", r.Unknown(), "bytes", bytes)
	switch {
	case len(again) > 0:
		return errors.Join(again...)
	case len(busy) > 0:
		return fmt.Errorf("%w: %w", delivery.ErrBusy, errors.Join(busy...))
	case r.Unknown() > 0 || job.Table != "" || job.Date != "":
		return nil // the heartbeat is of the sweep of everything
	}
	return a.Heartbeat(ctx, pipeline.FunctionSweep, wire.JobSweep)
}
