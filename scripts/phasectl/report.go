package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
)

func reportCommand(f *flags) *cobra.Command {
	var w windowFlags
	var asJSON, shadow bool
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Sum up how hand-overs went: on time, degraded, repaired, how long they took, tracking accuracy",
		Long: "Sum up how hand-overs went: on time, degraded, repaired, how long they took, tracking accuracy.\n\n" +
			"With --shadow: compare what the shadow would have handed over with what another orchestrator says in the compatibility\n" +
			"documents, which has to be understood before this one takes over.\n\n" +
			"Exit status: 0; 1 with --shadow, when the other has handed over what the shadow would not have; 2 when something could\n" +
			"not be read or judged.",
		Example: "  phasectl report --days 30\n  phasectl report --shadow --days 7",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if shadow {
				return printShadow(cmd, f, w, asJSON)
			}
			all, unknown := []reconcile.Summary{}, 0
			err := w.each(cmd.Context(), f.open, func(a *app.App, t *pipeline.Transition, from, to pipeline.Period) error {
				s, err := reconcile.New(a).Summarise(cmd.Context(), t, from, to)
				if err != nil {
					return exitError{exitUnknown, err}
				}
				unknown += len(s.Unknown)
				all = append(all, s)
				return nil
			})
			if err != nil {
				return err
			}
			if asJSON {
				err = printLine(cmd.OutOrStdout(), map[string]any{"schema": 1, "transitions": all})
			} else {
				err = printSummaries(cmd.OutOrStdout(), all)
			}
			if err == nil && unknown > 0 {
				return exitError{exitUnknown, fmt.Errorf("%d things could not be read or judged", unknown)}
			}
			return err
		},
	}
	w.add(cmd, 30)
	cmd.Flags().BoolVar(&shadow, "shadow", false, "compare the shadow with another orchestrator")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// printShadow prints the hand-overs of the shadow next to those of another orchestrator.
func printShadow(cmd *cobra.Command, f *flags, w windowFlags, asJSON bool) error {
	all := []reconcile.ShadowCycle{}
	var zone *time.Location
	err := w.each(cmd.Context(), f.open, func(a *app.App, t *pipeline.Transition, from, to pipeline.Period) error {
		zone = a.Pipeline.Calendar.Zone()
		some, err := reconcile.CompareShadow(cmd.Context(), a, t, from, to)
		if err != nil {
			return exitError{exitUnknown, err}
		}
		all = append(all, some...)
		return nil
	})
	if err != nil {
		return err
	}
	count := map[reconcile.Verdict]int{}
	for _, b := range all {
		count[b.Verdict]++
	}
	if asJSON {
		err = printLine(cmd.OutOrStdout(), map[string]any{"schema": 1, "cycles": all})
	} else {
		err = printBeside(cmd.OutOrStdout(), all, count, zone)
	}
	switch {
	case err != nil:
		return err
	case count[reconcile.OnlyTheirs] > 0:
		return exitError{exitFindings, fmt.Errorf("the other has handed over %d cycles that the shadow would not have", count[reconcile.OnlyTheirs])}
	case count[reconcile.NotKnown] > 0:
		return exitError{exitUnknown, fmt.Errorf("%d periods could not be read", count[reconcile.NotKnown])}
	}
	return nil
}

func printBeside(w io.Writer, all []reconcile.ShadowCycle, count map[reconcile.Verdict]int, zone *time.Location) error {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	at := func(t time.Time) string {
		if t.IsZero() {
			return "—"
		}
		return t.In(zone).Format("2006-01-02 15:04")
	}
	fmt.Fprintln(table, "PERIOD\tMODE\tOURS\tTHEIRS\t")
	for _, c := range all {
		apart := ""
		if c.Verdict == reconcile.Alike && !c.Theirs.IsZero() {
			switch d := c.Theirs.Sub(c.Ours).Round(time.Minute); {
			case d > 0:
				apart = fmt.Sprintf("ours %s earlier; ", d)
			case d < 0:
				apart = fmt.Sprintf("ours %s later; ", -d)
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s: %s%s\n", c.Period, plain(c.Mode), at(c.Ours), at(c.Theirs), c.Verdict, apart, plain(c.Reason))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "%d alike, %d only ours, %d only theirs, %d that the other does not tell, %d unknown\n",
		count[reconcile.Alike], count[reconcile.OnlyOurs], count[reconcile.OnlyTheirs], count[reconcile.OtherMode], count[reconcile.NotKnown])
	_, err := io.WriteString(w, b.String())
	return err
}

func printSummaries(w io.Writer, all []reconcile.Summary) error {
	var b strings.Builder
	for _, s := range all {
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
		fmt.Fprintf(&b, "%s, %s to %s\n", s.Transition, s.From, s.To)
		fmt.Fprintf(&b, "  cycles             %d, handed over %d\n", s.Cycles, s.HandedOver)
		fmt.Fprintf(&b, "  on time            %s (%d)\n", onTime, s.OnTime)
		fmt.Fprintf(&b, "  degraded           %d\n", s.Degraded)
		fmt.Fprintf(&b, "  repaired           %d hand-overs, and %d that a person asked for\n", s.Repaired, s.Operator)
		fmt.Fprintf(&b, "  latency            p50 %s, p95 %s, p99 %s, max %s of %d hand-overs\n",
			span(s.Latency.P50), span(s.Latency.P95), span(s.Latency.P99), span(s.Latency.Max), s.Latency.Count)
		fmt.Fprintf(&b, "  tracking accuracy  %s\n", accuracy)
		for _, u := range s.Unknown {
			fmt.Fprintf(&b, "  unknown            %s\n", plain(u))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
