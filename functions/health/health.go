// Package health is the function that evaluates all health checks every hour. It logs a line
// for each check, which alerts read, sends notifications of changes and a daily digest, keeps
// the report, and leaves a heartbeat last. A job about the reserved period is a drill.
//
// GET / with text/html is the status page, GET /cycle/PERIOD/MODE the page of a cycle, GET
// /cycles.json and /report.json are the same for programs. GET of any other path is the running
// version.
package health

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/statuspage"
	"github.com/phasegate/phasegate/shared/wire"
)

// timeout bounds one job, below the subscription's ack deadline of 600 s.
const timeout = time.Minute

// New returns the function's handler. POST takes a job message; an unknown job goes to
// quarantine.
func New(open func(context.Context) (*app.App, error)) http.Handler {
	page := &statuspage.Page{}
	return delivery.Function{
		Name: pipeline.FunctionHealth, Open: open, Timeout: timeout, Source: delivery.Jobs(pipeline.FunctionHealth), Handle: handle,
		Pages: map[string]func(context.Context, *app.App, *http.Request, http.ResponseWriter) error{
			"/": page.Overview, "/cycle/": page.Cycle, "/cycles.json": page.Cycles, "/report.json": report},
	}
}

func handle(ctx context.Context, r delivery.Request) (notifications []notify.Notification, err error) {
	job, err := wire.DecodeJob(r.Envelope)
	switch {
	case err != nil:
		return nil, err
	case job.Job != wire.JobHealth:
		return nil, &wire.PermanentError{Field: "job", Value: job.Job, Problem: "is not served by health; health is"}
	case job.Table != "":
		return nil, &wire.PermanentError{Field: "table", Value: job.Table, Problem: "means nothing to " + job.Job}
	case job.Date == string(health.DrillPeriod(r.Pipeline.Calendar)):
		return nil, health.Drill(ctx, r.App)
	case job.Date != "":
		return nil, &wire.PermanentError{Field: "date", Value: job.Date, Problem: "means nothing to " + job.Job + ", but that of a drill"}
	}
	err = delivery.Periodic(ctx, r.App, r.Envelope, job.Job, func() (err error) {
		notifications, err = evaluate(ctx, r.App)
		return err
	})
	return notifications, err
}

func evaluate(ctx context.Context, a *app.App) ([]notify.Notification, error) {
	c := health.New(a)
	r := c.Run(ctx)
	c.LogReport(ctx, r) // before anything that can fail: alerts read it
	notifications := r.Notifications()
	if digest, due := r.Digest(a.Pipeline, a.Config.Page); due {
		notifications = append(notifications, digest)
	}
	if err := c.Remember(ctx, r); err != nil {
		return notifications, err
	}
	return notifications, a.Heartbeat(ctx, pipeline.FunctionHealth, wire.JobHealth)
}

// report answers the last report. What it says is about the pipeline: that it could be read
// is all that the status code tells.
func report(ctx context.Context, a *app.App, _ *http.Request, w http.ResponseWriter) error {
	last, err := health.New(a).Last(ctx)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(last) // a client that has gone is all that can fail here
	return nil
}
