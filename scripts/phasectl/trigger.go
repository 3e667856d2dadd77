package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

// maxTriggered bounds a range: a year is a backfill, and has its own ways.
const maxTriggered = 366

type triggerOptions struct {
	*flags
	subject
	act
	pace    time.Duration
	request cycle.Request
}

func triggerCommand(f *flags) *cobra.Command {
	o := triggerOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "trigger [PERIOD [MODE]]",
		Short: "Hand a cycle over now, once more or for the first time",
		Long: "Hand over the recorded runs of a cycle: every counting run of the chosen processors, sent before or not, as a\n" +
			"further batch with new trigger ids. Consumers run once more. A processor without a recorded successful run gets no\n" +
			"trigger. Without --force, a hold, a missing critical processor, the hours of the mode and data that is not ready\n" +
			"prevent the hand-over, as they do for the policy.",
		Example: "  phasectl trigger 2026-02-03 overnight --reason \"Phase 4 lost its tables\" --dry-run\n" +
			"  phasectl trigger --from 2026-01-26 --to 2026-02-01 --mode overnight --pace 5m --reason \"backfilled\"",
	}
	o.takes(cmd, 2)
	o.ranges(cmd)
	f.needs(cmd, o.needsPeriod(f, func() bool { return o.from != "" || o.to != "" }, "--from -7d --to yesterday"),
		lacks("--from", func() bool { return o.to != "" && o.from == "" }, "--from -7d"),
		lacks("--to", func() bool { return o.from != "" && o.to == "" }, "--to yesterday"), o.needsPlace(f, false, never))
	o.acts(f, cmd)
	fl := cmd.Flags()
	fl.StringSliceVar(&o.request.Processors, "processor", nil, "hand over this one only; may be repeated (default: every one with a counting run)")
	fl.DurationVar(&o.pace, "pace", 30*time.Second, "of a range: wait this long between two hand-overs")
	fl.BoolVar(&o.request.Force, "force", false, "ignore a hold, missing critical processors, and data that is not ready")
	return answers(f, cmd, on(o.openAct, o.run))
}

// triggerAnswer is what became of each period.
type triggerAnswer struct {
	DryRun   bool        `json:"dry_run"`
	Triggers []triggered `json:"triggers"`
}

// text has nothing to add: run printed a line for each hand-over.
func (r *triggerAnswer) text(*page) {}

// triggered is what became of one period of a trigger.
type triggered struct {
	Period     string      `json:"period"`
	Mode       string      `json:"mode"`
	Batch      int         `json:"batch,omitempty"`
	Processors []string    `json:"processors"`
	Runs       []string    `json:"runs"`
	State      cycle.State `json:"state,omitempty"` // of the batch; "" when none was made
	Reason     string      `json:"reason,omitempty"`
	Refusal    string      `json:"refusal,omitempty"`
	Error      string      `json:"error,omitempty"`
}

// words say what became of a period.
func (tr triggered) words(dryRun bool) string {
	place := tr.Period + " " + tr.Mode
	of := fmt.Sprintf("batch %d of %s", tr.Batch, policy.Listed(tr.Processors))
	switch {
	case tr.Error != "" && tr.State != "":
		return fmt.Sprintf("%s: %s is %s and goes on by itself; do not ask again: %s", place, of, tr.State, tr.Error)
	case tr.Error != "":
		return fmt.Sprintf("%s: %s", place, tr.Error)
	case strings.Contains(tr.Refusal, cycle.RefusedCritical):
		return fmt.Sprintf("%s: refused: %s; to hand over without them, add --force", place, tr.Refusal)
	case tr.Refusal != "":
		return fmt.Sprintf("%s: refused: %s", place, tr.Refusal)
	case dryRun:
		return fmt.Sprintf("%s: would hand over %s, runs %s", place, of, quoted(policy.Capped(tr.Runs)...))
	case tr.State == cycle.StatePublished:
		return fmt.Sprintf("%s: %s published", place, of)
	}
	return fmt.Sprintf("%s: %s is %s (%s); the relay goes on with it", place, of, tr.State, tr.Reason)
}

func (o *triggerOptions) run(ctx context.Context, a *app.App) (*triggerAnswer, error) {
	t, err := o.in(a.Pipeline)
	if err != nil {
		return nil, err
	}
	m, err := o.modeOf(t)
	if err != nil {
		return nil, err
	}
	for _, name := range o.request.Processors {
		if !m.Names(name) {
			return nil, usage(fmt.Errorf("--processor: %s does not expect %q", m.Name, name))
		}
	}
	periods, err := o.list(a.Pipeline.Calendar, a.Now())
	if err != nil {
		return nil, usage(err)
	}
	r := &triggerAnswer{DryRun: o.dryRun, Triggers: []triggered{}}
	if !o.dryRun {
		of := "every processor with a counting run"
		if len(o.request.Processors) > 0 {
			of = policy.Listed(o.request.Processors)
		}
		if err := o.confirm(ctx, "hand over %s %s: a further batch of %s; its consumers run once more", spanOf(periods), m.Name, of); err != nil {
			return nil, err
		}
	}
	o.request.Actor, o.request.Reason = actor(), o.reason
	var stopped error
	for i, p := range periods {
		if i > 0 && !o.dryRun && r.made() > 0 {
			err = wait(ctx, o.pace)
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			stopped = fmt.Errorf("stopped; go on with --from %s --to %s", p, periods[len(periods)-1])
			break
		}
		one := o.one(ctx, a, cycle.Key{Transition: t, Period: p}, m)
		r.Triggers = append(r.Triggers, one)
		if err := o.tell("%s", one.words(o.dryRun)); err != nil {
			return nil, err
		}
	}
	err = r.verdict()
	if stopped != nil && err == nil {
		err = findings(stopped)
	} else if stopped != nil {
		err = unknown(errors.Join(err, stopped))
	}
	return r, err
}

// made counts the batches that were made.
func (r *triggerAnswer) made() (n int) {
	for _, t := range r.Triggers {
		if t.State != "" {
			n++
		}
	}
	return n
}

func spanOf(periods []pipeline.Period) string {
	if len(periods) == 1 {
		return string(periods[0])
	}
	return fmt.Sprintf("%d periods, %s to %s, in", len(periods), periods[0], periods[len(periods)-1])
}

// verdict turns the results into an exit status.
func (r *triggerAnswer) verdict() error {
	results, failed, left := r.Triggers, 0, 0
	for _, r := range results {
		switch {
		case r.Error != "":
			failed++
		case r.Refusal != "", r.State != "" && r.State != cycle.StatePublished:
			left++
		}
	}
	switch {
	case failed > 0:
		return unknown(fmt.Errorf("%d of %s not confirmed", failed, pipeline.Count(len(results), "hand-over is", "hand-overs are")))
	case left > 0:
		return findings(fmt.Errorf("%d of %s not handed over", left, pipeline.Count(len(results), "cycle was", "cycles were")))
	}
	return nil
}

// one hands over one period, or says what would be.
func (o *triggerOptions) one(ctx context.Context, a *app.App, key cycle.Key, m pipeline.Mode) triggered {
	r := triggered{Period: string(key.Period), Mode: m.Name, Processors: []string{}, Runs: []string{}}
	if o.dryRun {
		p, err := a.Engine.Plan(ctx, key, m, o.request)
		if err != nil {
			r.Error = err.Error()
			return r
		}
		r.Batch, r.Processors, r.Runs = p.Batch, p.Processors, p.Runs
		if p.Refusal != "" && !(o.request.Force && p.Forcible) {
			r.Refusal = p.Refusal
		}
		return r
	}
	b, err := a.Engine.Trigger(ctx, key, m, o.request)
	switch {
	case errors.Is(err, cycle.ErrRefused):
		r.Refusal = strings.TrimSuffix(err.Error(), ": "+cycle.ErrRefused.Error())
		return r
	case err != nil:
		r.Error = err.Error()
	}
	r.Batch, r.Runs, r.State, r.Reason = b.N, append(r.Runs, b.Runs...), b.State, b.Reason
	r.Processors = processorsOf(b.Runs, key.Transition.Order)
	return r
}

// processorsOf returns the processors of runs, processor@execution_id#key, in order.
func processorsOf(runs, order []string) []string {
	ran := map[string]bool{}
	for _, r := range runs {
		name, _, _ := strings.Cut(r, "@")
		ran[name] = true
	}
	return slices.DeleteFunc(slices.Clone(order), func(name string) bool { return !ran[name] })
}

// list returns the periods that are named, oldest first.
func (o *triggerOptions) list(cal pipeline.Calendar, now time.Time) ([]pipeline.Period, error) {
	first, last, err := o.periods(cal, now, cal.Window)
	if err != nil {
		return nil, err
	}
	var out []pipeline.Period
	for p := first; p <= last; p = cal.Add(p, 1) {
		if out = append(out, p); len(out) > maxTriggered {
			return nil, fmt.Errorf("--from %s --to %s: more than %d periods", first, last, maxTriggered)
		}
	}
	return out, nil
}
