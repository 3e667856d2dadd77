package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/health"
)

func healthCommand(f *flags) *cobra.Command {
	var date string
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Evaluate all health checks, and show the suggested command of those that are not ok",
		Long: "Check hand-overs, tables, upstream runs, locks and functions. A check whose source cannot be read is unknown, and\n" +
			"unknown is not ok. Nothing is changed.\n\n" +
			"Exit status: 0 all checks are ok, 1 a check is failing, 2 no check is failing and one is unknown.",
		Example: "  phasectl health\n  phasectl health --verbose\n  phasectl health --date 2026-02-03",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			c := health.New(a)
			if a.Config.PubSubHost != "" { // an emulator counts nothing
				c.Dead = func(ctx context.Context) (map[string]int64, error) { return countEach(ctx, a) }
			}
			if date != "" {
				cal := a.Pipeline.Calendar.Daily()
				day, err := cal.Parse(date)
				if err != nil {
					return usage(fmt.Errorf("--date: %w", err))
				}
				if day > cal.At(a.Now()) {
					return usage(fmt.Errorf("--date: %s is not over", day))
				}
				c.Day = day
			}
			r := c.Run(cmd.Context())
			if asJSON {
				err = printLine(cmd.OutOrStdout(), r)
			} else {
				err = printHealth(cmd.OutOrStdout(), a, r, verbose)
			}
			switch {
			case err != nil:
				return err
			case r.Overall == health.Failing:
				return exitError{exitFindings, fmt.Errorf("%d checks are failing", r.Count(health.Failing))}
			case r.Overall == health.Unknown:
				return exitError{exitUnknown, fmt.Errorf("%d checks are unknown", r.Count(health.Unknown))}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&date, "date", "", "a past date, YYYY-MM-DD, for upstream runs; the other checks are of the present")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "show the evidence of checks that are ok as well")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// mostEvidence bounds the lines of a check that a person reads at once, but its first.
const mostEvidence = 4

func printHealth(w io.Writer, a *app.App, r health.Report, verbose bool) error {
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-8s %-20s %s\n", c.State, c.ID, plain(c.Evidence[0]))
		if c.State == health.OK && !verbose {
			continue
		}
		for i, line := range c.Evidence[1:] {
			if i == mostEvidence && !verbose {
				fmt.Fprintf(&b, "%-29s and %d more: --verbose\n", "", len(c.Evidence)-1-i)
				break
			}
			fmt.Fprintf(&b, "%-29s %s\n", "", plain(line))
		}
		if c.State != health.OK {
			fmt.Fprintf(&b, "%-29s since %s", "", localTime(a, c.Since))
			if c.Action != "" {
				fmt.Fprintf(&b, "; %s", plain(c.Action))
			}
			b.WriteString("\n")
		}
	}
	fmt.Fprintf(&b, "%s: %d ok, %d failing, %d unknown\n", r.Overall, r.Count(health.OK), r.Count(health.Failing), r.Count(health.Unknown))
	_, err := io.WriteString(w, b.String())
	return err
}
