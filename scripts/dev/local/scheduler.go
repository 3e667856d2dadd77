package local

import (
	"context"
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// schedule sends a job at its times after from, until ctx ends. Times that were slept
// through, or skipped by setting the clock forward, are sent once, not one by one.
func schedule(ctx context.Context, a *app.App, clock *Clock, from time.Time, s pipeline.Schedule, log func(string, ...any)) {
	for {
		next := a.Pipeline.NextDue(s, from)
		if next.IsZero() { // such as 31 February
			log("schedule %s: %q never comes", s.Name, s.Cron)
			return
		}
		if clock.Until(ctx, next) != nil {
			return
		}
		from = clock.Now() // before sending: what falls due meanwhile is the next one
		if err := SendJob(ctx, a, s); err != nil && ctx.Err() == nil {
			log("schedule %s: %v", s.Name, err)
		}
	}
}

// SendJob publishes a schedule's job as the platform's scheduler does.
func SendJob(ctx context.Context, a *app.App, s pipeline.Schedule) error {
	msg, err := wire.Job{Job: s.Job}.Outgoing()
	if err != nil {
		return fmt.Errorf("job %s: %w", s.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return a.Broker.Publish(ctx, a.Config.Prefix+s.Topic(), []wire.Outgoing{msg})[0].Err
}
