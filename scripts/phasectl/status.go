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

type statusOptions struct {
	*flags
	subject
	exitCode bool
}

func statusCommand(f *flags) *cobra.Command {
	o := statusOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "status [PERIOD [MODE]]",
		Short: "Show the cycles of the recent periods: state, missing processors, batches",
		Long: "Show the cycles of the recent periods: state, missing processors, batches. Without a period these are the last\n" +
			"days and the next one.\n\n" +
			"Exit status: 0; with --exit-code 1 if a cycle is overdue or blocked; 2 if not everything could be read.",
		Example: "  phasectl status\n  phasectl status yesterday overnight\n  phasectl status 2026-02-03 --json",
	}
	o.takes(cmd, 2)
	o.window(cmd, 3)
	f.watched(cmd)
	cmd.Flags().BoolVar(&o.exitCode, "exit-code", false, "end with 1 if a cycle is overdue or blocked")
	return answers(f, cmd, on(f.open, o.run))
}

// statusAnswer is the cycles of a window, the newest first.
type statusAnswer struct {
	Cycles  []cycle.Status             `json:"cycles"`
	Ahead   []cycle.Doubt              `json:"ahead"` // completions of periods that are not expected yet
	Managed map[string]pipeline.Period `json:"managed_since"`

	of       map[string]*pipeline.Transition
	several  bool
	adopted  []string
	from, to pipeline.Period
}

func (o *statusOptions) run(ctx context.Context, a *app.App) (*statusAnswer, error) {
	cal := a.Pipeline.Calendar
	ts, err := o.transitionsWithMode(a.Pipeline)
	if err != nil {
		return nil, err
	}
	from, to, err := o.periods(cal, a.Now(), func(at time.Time, days int) (from, to pipeline.Period) {
		from, to = cal.Window(at, days)
		return from, cal.AddDays(to, 1)
	})
	if err != nil {
		return nil, err
	}
	r, unread := &statusAnswer{Cycles: []cycle.Status{}, Ahead: []cycle.Doubt{}, Managed: map[string]pipeline.Period{}, of: map[string]*pipeline.Transition{},
		several: len(a.Pipeline.Transitions) > 1, from: from, to: to}, []error(nil)
	for _, t := range ts {
		r.of[t.ID] = t
		managed, err := a.Engine.Managed(ctx, t)
		if err != nil {
			return nil, unknown(err)
		}
		if managed.Since != "" {
			r.Managed[t.ID], r.adopted = managed.Since, append(r.adopted, managed.Words(t))
		}
		cs, err := a.Engine.Cycles(ctx, t, from, to)
		if err != nil {
			return nil, unknown(err)
		}
		for _, c := range cs {
			c = managed.Judged(c)
			excused := managed.Excuses(t, c)
			if excused && c.State == string(policy.Overdue) && len(c.Doubts)+len(c.Outside) == 0 {
				continue // what is recorded is of no report that counts for it
			}
			if (c.Recorded() || len(c.Outside) > 0 || !c.Early && !excused) && (o.mode == "" || t.PresentMode(o.mode) == c.Mode) {
				c.NextCheck = checkedNext(a.Pipeline, c, a.Now())
				r.Cycles = append(r.Cycles, c)
			}
		}
		if o.period != "" || o.from != "" {
			continue
		}
		doubts, broken, err := a.Engine.Ahead(ctx, t)
		if err != nil {
			return nil, unknown(err)
		}
		r.Ahead, unread = append(r.Ahead, doubts...), append(unread, broken...)
	}
	slices.SortStableFunc(r.Cycles, func(a, b cycle.Status) int { return strings.Compare(b.Period, a.Period) })
	if err := errors.Join(unread...); err != nil {
		return r, unknown(err)
	}
	if o.exitCode && slices.ContainsFunc(r.Cycles, late) {
		return r, findings(errors.New("a cycle is overdue or blocked"))
	}
	return r, nil
}

// late reports whether a cycle needs a person.
func late(c cycle.Status) bool {
	return c.State == string(policy.Overdue) || c.State == string(cycle.StateBlocked)
}

// publishedWithoutAll is how the state of a cycle is shown that was handed over without some processors.
const publishedWithoutAll = "published without all"

func (r *statusAnswer) text(p *page) {
	if len(r.Cycles) == 0 {
		of := "for " + string(r.from)
		if r.from != r.to {
			of = fmt.Sprintf("from %s to %s", r.from, r.to)
		}
		p.line("no completions are recorded %s", of)
		p.line("  to report one: phasectl complete PROCESSOR yesterday --reason \"…\"; to show more days: phasectl status --days 30")
	} else {
		p.table("PERIOD", "MODE", "STATE", "REASON")
	}
	for _, c := range r.Cycles {
		mode, reason := c.Mode, c.Reason
		if r.several {
			mode += " of " + c.Transition
		}
		if !c.NextCheck.IsZero() {
			reason += "; next check " + p.at(c.NextCheck)
		}
		state := c.State
		if state == string(cycle.StatePublished) && len(c.Missing) > 0 {
			state = publishedWithoutAll
		}
		p.row(c.Period, mode, state, reason)
		shown := 0
		for _, name := range c.Ignored {
			doubted := func(d string) bool { return strings.HasPrefix(d, fmt.Sprintf("%q reported", name)) }
			switch t := r.of[c.Transition]; {
			case slices.ContainsFunc(c.Doubts, doubted): // shown below
			case shown >= policy.MostNames:
				shown++
			case t == nil || !t.Expects(name):
				shown++
				p.detail("ignored: %s reported, and is no processor of %s", quoted(name), c.Transition)
			case !slices.Contains(c.Missing, name), !strings.Contains(c.Reason, name+" reported "):
				shown++
				p.detail("ignored: the run of %s counts for no mode: %s shows why", name, commandFor("explain", t, c.Period, c.Mode))
			}
		}
		if shown > policy.MostNames {
			p.detail("ignored: and %d more; all of them: --json", shown-policy.MostNames)
		}
		if late(c) || len(c.Failed) > 0 {
			p.detail("why, and what to do: %s", commandFor("explain", r.of[c.Transition], c.Period, c.Mode))
		}
		for _, o := range policy.Capped(c.Outside) {
			p.detail("does not count: %s", o)
		}
		for _, d := range c.Doubts {
			p.detail("doubtful: %s", d)
		}
		if len(c.LocalTimes) > 0 {
			p.detail("timestamp without offset, read as UTC, looks like %s time: %s", p.zone, quoted(policy.Capped(c.LocalTimes)...))
		}
		for _, batch := range c.Batches {
			sent := 0
			for _, id := range batch.Messages {
				if id != "" {
					sent++
				}
			}
			switch handedOver := batch.State == cycle.StatePublishing || batch.State == cycle.StatePublished; {
			case len(batch.Messages) == 0 && handedOver:
				p.detail("batch %d  %s  %s, of %s; its messages: %s", batch.N, batch.State, causeWords(batch.Cause), pipeline.Count(len(batch.Runs), "run", "runs"),
					commandFor("explain", r.of[c.Transition], c.Period, c.Mode))
			case len(batch.Messages) == 0:
				p.detail("batch %d  %s  no messages yet", batch.N, batch.State)
			default:
				p.detail("batch %d  %s  %s, %d of %s sent", batch.N, batch.State, causeWords(batch.Cause), sent, pipeline.Count(len(batch.Messages), "message", "messages"))
			}
			for _, r := range policy.Capped(batch.Runs) {
				name, _, _ := strings.Cut(r, "#")
				p.detail("  %s", quoted(name))
			}
		}
	}
	for _, line := range r.adopted {
		p.line("%s", line)
	}
	for _, d := range r.Ahead {
		p.line("%s  doubtful: %s", d.Period, d)
	}
	p.line("checks of tables, messages and locks: phasectl health")
}
