package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/deployed"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/pipeline"
)

type healthOptions struct {
	*flags
	subject
	verbose bool
}

func healthCommand(f *flags) *cobra.Command {
	o := healthOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "health [DAY]",
		Short: "Evaluate all health checks, and show the suggested command of those that are not ok",
		Long: "Check hand-overs, tables, upstream runs, locks and functions. A check whose source cannot be read is unknown, and\n" +
			"unknown is not ok. A past day is for upstream runs; the other checks are of the present. Nothing is changed.\n\n" +
			"Exit status: 0 all checks are ok, 1 a check is failing, 2 no check is failing and one is unknown.",
		Example: "  phasectl health\n  phasectl health --verbose\n  phasectl health yesterday",
	}
	o.takes(cmd, 1)
	cmd.Flags().BoolVar(&o.verbose, "verbose", false, "show the evidence of checks that are ok as well")
	return answers(f, cmd, on(f.open, o.run))
}

// healthAnswer is a report, and how it is shown.
type healthAnswer struct {
	health.Report
	verbose bool
}

func (o *healthOptions) run(ctx context.Context, a *app.App) (r *healthAnswer, err error) {
	c := health.New(a)
	if a.Config.PubSubHost != "" { // an emulator counts nothing
		c.Dead = func(ctx context.Context) (map[string]int64, error) { return countEach(ctx, a) }
	}
	if platformOptions != nil {
		c.Services = func(ctx context.Context) (map[string]deployed.Service, error) {
			return deployed.Services(ctx, a.Config.Project, platformOptions...)
		}
	}
	if o.period != "" {
		cal := a.Pipeline.Calendar.Daily()
		if c.Day, err = onePeriod(cal, a.Now(), o.period); err != nil {
			return nil, usage(err)
		}
		if c.Day > cal.At(a.Now()) {
			return nil, usage(fmt.Errorf("DAY: %s is not over", c.Day))
		}
	}
	r = &healthAnswer{c.Run(ctx), o.verbose}
	switch r.Overall {
	case health.Failing:
		return r, findings(errors.New(pipeline.Count(r.Count(health.Failing), "check is failing", "checks are failing")))
	case health.Unknown:
		return r, unknown(errors.New(pipeline.Count(r.Count(health.Unknown), "check is unknown", "checks are unknown")))
	}
	return r, nil
}

// mostEvidence bounds the lines of a check that a person reads at once, but its first.
const mostEvidence = 4

func (r *healthAnswer) text(p *page) {
	p.table("STATE", "CHECK", "EVIDENCE")
	for _, c := range r.Checks {
		p.row(string(c.State), c.ID, c.Evidence[0])
		if c.State == health.OK && !r.verbose {
			continue
		}
		for i, line := range c.Evidence[1:] {
			if i == mostEvidence && !r.verbose {
				p.detail("and %d more: --verbose", len(c.Evidence)-1-i)
				break
			}
			p.detail("%s", line)
		}
		if c.State != health.OK {
			p.detail("since %s", p.at(c.Since))
			if c.Action != "" {
				p.detail("fix: %s", c.Action)
			}
		}
	}
	p.line("%s: %d ok, %d failing, %d unknown", r.Overall, r.Count(health.OK), r.Count(health.Failing), r.Count(health.Unknown))
}
