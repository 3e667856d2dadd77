package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
)

type reconcileOptions struct {
	*flags
	subject
	act
	verbose bool
}

func reconcileCommand(f *flags) *cobra.Command {
	o := reconcileOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "reconcile [PERIOD]",
		Short: "Compare documents with the tables and the schedule, and repair differences",
		Long: "Compare the documents with the tables and the schedule, and list every difference. With --fix, record missing\n" +
			"completions, and hand over the cycles that the policy allows. Without --fix nothing is changed.\n\n" +
			"Exit status: 0 no finding is left, 1 findings are left, 2 a source could not be read or judged,\n" +
			"or an interrupt ended the command. It reports the repairs made until then, and the same command makes the others.",
		Example: "  phasectl reconcile --days 7\n  phasectl reconcile yesterday --fix\n  phasectl reconcile --from 2026-02-01 --to 2026-02-03 --fix",
	}
	o.takes(cmd, 1)
	o.window(cmd, 7)
	o.fixes(f, cmd, "repair what can be repaired")
	cmd.Flags().BoolVar(&o.verbose, "verbose", false, "show the evidence of each finding")
	return answers(f, cmd, on(o.openAct, o.run))
}

// reconciled is a report, and how it is shown.
type reconciled struct {
	reconcile.Report
	verbose, fixed bool
}

func (o *reconcileOptions) run(ctx context.Context, a *app.App) (*reconciled, error) {
	who, asked := "", true
	if o.changes() {
		who, asked = actor(), false
	}
	all := &reconciled{reconcile.Report{Schema: 1, Findings: []*reconcile.Finding{}, Unknown: []string{}}, o.verbose, o.changes()}
	err := o.each(a, func(t *pipeline.Transition, from, to pipeline.Period) error {
		if !asked {
			asked = true
			if err := o.confirm(ctx, "record missing completions of %s to %s, and hand over the cycles that the policy allows", from, to); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		o.progress("%s: reading %s to %s…", t.ID, from, to)
		r := reconcile.New(a)
		r.GivenUp = func(ctx context.Context) (int, error) { return countDead(ctx, a) }
		one, err := r.Run(ctx, t, from, to, who)
		all.From, all.To = from, to
		all.Findings, all.Unknown = append(all.Findings, one.Findings...), append(all.Unknown, one.Unknown...)
		all.Tables, all.Shown = all.Tables+one.Tables, all.Shown+one.Shown
		if err != nil {
			all.Unknown = append(all.Unknown, t.ID+": "+err.Error())
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return all, unknown(errStopped)
	case len(all.Unknown) > 0:
		return all, unknown(fmt.Errorf("%s could not be read or judged, %s left", pipeline.Count(len(all.Unknown), "thing", "things"), pipeline.Count(all.Left(), "finding is", "findings are")))
	case all.Left() > 0:
		return all, findings(fmt.Errorf("%s left", pipeline.Count(all.Left(), "finding is", "findings are")))
	}
	return all, nil
}

func (r *reconciled) text(p *page) {
	p.listing("", "STATUS", "SEVERITY", "PERIOD", "FINDING", "OF")
	for _, f := range r.Findings {
		p.row(string(f.Status), string(f.Severity), string(f.Period), string(f.Type), strings.TrimSpace(f.Mode+" "+f.Table))
		if r.verbose {
			for _, name := range slices.Sorted(maps.Keys(f.Evidence)) {
				value, err := json.Marshal(f.Evidence[name])
				if err != nil {
					value = []byte(err.Error())
				}
				p.detail("%s: %s", name, value)
			}
		}
		p.detail("%s", f.Repair)
	}
	for _, u := range r.Unknown {
		p.line("unknown  %s", u)
	}
	p.line("%s to %s: %s, %d left, %d unknown; tracking accuracy %s", r.From, r.To, pipeline.Count(len(r.Findings), "finding", "findings"), r.Left(), len(r.Unknown), r.AccuracyText())
	if !r.fixed && r.Left() > 0 {
		p.line("to repair what can be repaired: phasectl reconcile %s --fix", windowWords(r.From, r.To))
	}
}
