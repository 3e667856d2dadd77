package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
)

func reportCommand(f *flags) *cobra.Command {
	var w windowFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Sum up how hand-overs went: on time, degraded, repaired, how long they took, tracking accuracy",
		Long: "Sum up how hand-overs went: on time, degraded, repaired, how long they took, tracking accuracy.\n\n" +
			"Exit status: 0, or 2 when something could not be read or judged.",
		Example: "  phasectl report --days 30",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, unknown := []reconcile.Summary{}, 0
			err := w.each(cmd.Context(), f, func(a *app.App, t *pipeline.Transition, from, to pipeline.Period) error {
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func printSummaries(w io.Writer, all []reconcile.Summary) error {
	var b strings.Builder
	for _, s := range all {
		accuracy := "unknown"
		if s.Accuracy != nil {
			accuracy = fmt.Sprintf("%.1f %%", *s.Accuracy)
		}
		fmt.Fprintf(&b, "%s, %s to %s\n", s.Transition, s.From, s.To)
		fmt.Fprintf(&b, "  cycles             %d, handed over %d\n", s.Cycles, s.HandedOver)
		fmt.Fprintf(&b, "  on time            %.1f %% (%d)\n", s.OnTimePct, s.OnTime)
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
