package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/wire"
)

// tell takes the notifications for Slack. They arrive during a scene.
func (d *demo) tell(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for line := range strings.SplitSeq(text, "\n") {
		if sign, words, ok := strings.Cut(line, ": "); ok && strings.HasPrefix(sign, ":") {
			d.told = append(d.told, words)
		}
	}
}

// showTold prints the notifications since the last scene.
func (d *demo) showTold() {
	d.mu.Lock()
	told := d.told
	d.told = nil
	d.mu.Unlock()
	for _, words := range told {
		d.say("   tell %s", words)
	}
}

// late is the day on which a scraper runs hours late.
const late = "2026-02-06"

// watched are the evaluations of the function health on the last day.
func (d *demo) watched(ctx context.Context) []func() error {
	return []func() error{
		func() error {
			if err := d.processors.Data.Exec(ctx, `INSERT INTO nba_orchestration.scraper_execution_log
				SELECT name, 'success', TIMESTAMP(DATETIME(day, TIME '06:03:00'), 'America/New_York')
				FROM UNNEST(GENERATE_DATE_ARRAY(DATE '2026-01-20', DATE '`+late+`')) AS day, UNNEST(['nbac_gamebook', 'bdl_box_scores']) AS name
				WHERE day < DATE '`+late+`' OR name = 'bdl_box_scores'`); err != nil {
				return err
			}
			d.begin(late+" 11:05", "The hourly job of the function health: a scraper that runs at six has not run yet.")
			return d.jobs(ctx, [2]string{late + " 11:04", wire.JobSweep}, [2]string{late + " 11:05", wire.JobHealth})
		},
		func() error {
			if err := d.processors.Data.Exec(ctx, `INSERT INTO nba_orchestration.scraper_execution_log
				VALUES ('nbac_gamebook', 'success', TIMESTAMP(DATETIME '`+late+`T14:45:00', 'America/New_York'))`); err != nil {
				return err
			}
			d.begin(late+" 15:05", "The scraper ran at 14:45. The next health report:")
			if err := d.jobs(ctx, [2]string{late + " 15:00", wire.JobRelay}, [2]string{late + " 15:05", wire.JobHealth}); err != nil {
				return err
			}
			return d.showHealth(ctx)
		},
	}
}

// jobs sends jobs at their times, each after the one before has been done.
func (d *demo) jobs(ctx context.Context, jobs ...[2]string) error {
	for _, j := range jobs {
		if err := d.send(ctx, j[0], j[1]); err != nil {
			return err
		}
		if err := d.env.Settle(ctx); err != nil {
			return err
		}
	}
	d.showTold()
	return nil
}

// showHealth prints the report that the function keeps.
func (d *demo) showHealth(ctx context.Context) error {
	r, err := health.New(d.env.App).Last(ctx)
	if err != nil {
		return err
	}
	for _, c := range r.Checks {
		state := fmt.Sprintf("%-8s", c.State)
		if c.State == health.Failing {
			state = d.red(state)
		}
		d.say("   %s %-20s %s", state, c.ID, c.Evidence[0])
		if c.State == health.Failing && c.Action != "" {
			d.say("%32s%s", "", c.Action)
		}
	}
	d.say("   =    health at %s: %s, %d ok, %d failing, %d unknown", r.At.In(d.zone).Format(time.TimeOnly), d.bold(string(r.Overall)),
		r.Count(health.OK), r.Count(health.Failing), r.Count(health.Unknown))
	return nil
}
