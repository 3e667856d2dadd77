package sweep

import (
	"context"
	"errors"
	"fmt"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// errNotScheduled says that the pipeline has no sweep that could be asked.
var errNotScheduled = errors.New("the pipeline schedules no sweep")

// Ask sends the job of sweeping one period of one table to the function. Asking again does
// no harm: it finds what is left.
func Ask(ctx context.Context, p *pipeline.Pipeline, prefix string, publish cycle.Publish, table string, period pipeline.Period) error {
	topic, ok := p.JobTopic(pipeline.FunctionSweep)
	if !ok {
		return errNotScheduled
	}
	job, err := wire.Job{Job: wire.JobSweep, Table: table, Date: string(period)}.Outgoing()
	if err != nil {
		return err
	}
	if _, err := publish.One(ctx, prefix+topic, job); err != nil {
		return fmt.Errorf("request a sweep of %s: %w", table, err)
	}
	return nil
}
