package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
)

type reportOptions struct {
	*flags
	subject
	shadow bool
}

func reportCommand(f *flags) *cobra.Command {
	o := reportOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "report [PERIOD]",
		Short: "Sum up how hand-overs went: on time, degraded, repaired, how long they took, tracking accuracy",
		Long: "Sum up how hand-overs went: on time, degraded, repaired, how long they took, tracking accuracy.\n\n" +
			"With --shadow: compare what the shadow would have handed over with what another orchestrator says in the compatibility\n" +
			"documents, which has to be understood before this one takes over.\n\n" +
			"Exit status: 0; 1 with --shadow, when the other has handed over what the shadow would not have; 2 when something could\n" +
			"not be read or judged.",
		Example: "  phasectl report --days 30\n  phasectl report --shadow --days 7",
	}
	o.takes(cmd, 1)
	o.window(cmd, 30)
	cmd.Flags().BoolVar(&o.shadow, "shadow", false, "compare the shadow with another orchestrator")
	return answers(f, cmd, on(f.open, o.run))
}

// reportAnswer is how the hand-overs of each transition went, or how those of a shadow compare.
type reportAnswer struct {
	Transitions []reconcile.Summary     `json:"transitions"` // without --shadow
	Cycles      []reconcile.ShadowCycle `json:"cycles"`      // with --shadow

	shadow bool
	count  map[reconcile.Verdict]int
}

func (o *reportOptions) run(ctx context.Context, a *app.App) (*reportAnswer, error) {
	r := &reportAnswer{Transitions: []reconcile.Summary{}, Cycles: []reconcile.ShadowCycle{}, shadow: o.shadow, count: map[reconcile.Verdict]int{}}
	unread := 0
	err := o.each(a, func(t *pipeline.Transition, from, to pipeline.Period) error {
		o.progress("%s: reading %s to %s…", t.ID, from, to)
		if o.shadow {
			some, err := reconcile.CompareShadow(ctx, a, t, from, to)
			r.Cycles = append(r.Cycles, some...)
			return err
		}
		s, err := reconcile.New(a).Summarise(ctx, t, from, to)
		unread += len(s.Unknown)
		r.Transitions = append(r.Transitions, s)
		return err
	})
	for _, b := range r.Cycles {
		r.count[b.Verdict]++
	}
	var exit cli.ExitError
	switch {
	case errors.As(err, &exit):
		return nil, err
	case err != nil:
		return nil, unknown(err)
	case unread > 0:
		return r, unknown(errors.New(pipeline.Count(unread, "thing could not be read or judged", "things could not be read or judged")))
	case r.count[reconcile.OnlyTheirs] > 0:
		return r, findings(fmt.Errorf("the other has handed over %s that the shadow would not have", pipeline.Count(r.count[reconcile.OnlyTheirs], "cycle", "cycles")))
	case r.count[reconcile.NotKnown] > 0:
		return r, unknown(errors.New(pipeline.Count(r.count[reconcile.NotKnown], "period could not be read", "periods could not be read")))
	}
	return r, nil
}

func (r *reportAnswer) text(p *page) {
	if r.shadow {
		r.compared(p)
		return
	}
	for _, s := range r.Transitions {
		accuracy, onTime := "none", "none"
		if s.OnTimePct != nil {
			onTime = fmt.Sprintf("%.1f %%", *s.OnTimePct)
		}
		if len(s.Unknown) > 0 {
			accuracy = "unknown"
		}
		if s.Accuracy != nil {
			accuracy = fmt.Sprintf("%.1f %%", *s.Accuracy)
		}
		p.line("%s, %s to %s", s.Transition, s.From, s.To)
		p.line("  cycles             %d, handed over %d", s.Cycles, s.HandedOver)
		p.line("  on time            %s (%d)", onTime, s.OnTime)
		p.line("  degraded           %d", s.Degraded)
		p.line("  repaired           %s, and %d that a person asked for", pipeline.Count(s.Repaired, "hand-over", "hand-overs"), s.Operator)
		p.line("  latency            p50 %s, p95 %s, p99 %s, max %s of %s",
			span(s.Latency.P50), span(s.Latency.P95), span(s.Latency.P99), span(s.Latency.Max), pipeline.Count(s.Latency.Count, "hand-over", "hand-overs"))
		p.line("  tracking accuracy  %s", accuracy)
		for _, u := range s.Unknown {
			p.line("  unknown            %s", u)
		}
	}
}

// compared prints the hand-overs of the shadow next to those of another orchestrator.
func (r *reportAnswer) compared(p *page) {
	p.table("PERIOD", "MODE", "OURS", "THEIRS", "COMPARED")
	for _, c := range r.Cycles {
		apart := ""
		if c.Verdict == reconcile.Alike && !c.Theirs.IsZero() {
			switch d := c.Theirs.Sub(c.Ours).Round(time.Minute); {
			case d > 0:
				apart = fmt.Sprintf("ours %s earlier; ", d)
			case d < 0:
				apart = fmt.Sprintf("ours %s later; ", -d)
			}
		}
		p.row(c.Period, c.Mode, p.at(c.Ours), p.at(c.Theirs), fmt.Sprintf("%s: %s%s", c.Verdict, apart, c.Reason))
	}
	p.line("%d alike, %d only ours, %d only theirs, %d that the other does not tell, %d unknown",
		r.count[reconcile.Alike], r.count[reconcile.OnlyOurs], r.count[reconcile.OnlyTheirs], r.count[reconcile.OtherMode], r.count[reconcile.NotKnown])
}

func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
