package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
)

func statusCommand(f *flags) *cobra.Command {
	var days int
	var date string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the cycles of the recent periods: state, missing processors, batches",
		Example: "  phasectl status\n  phasectl status --date 2026-02-03 --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 1 || days > 365 {
				return usage(fmt.Errorf("--days: %d is not within 1 to 365", days))
			}
			a, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			from, to, err := window(a, days, date)
			if err != nil {
				return usage(err)
			}
			cycles, ahead, unread := []cycle.Status{}, []cycle.Doubt{}, []error(nil)
			since, adopted := map[string]pipeline.Period{}, []string(nil)
			for _, t := range a.Pipeline.Transitions {
				managed, err := a.Engine.Managed(cmd.Context(), t)
				if err != nil {
					return exitError{exitUnknown, err}
				}
				if managed.Since != "" {
					since[t.ID], adopted = managed.Since, append(adopted, managed.Words(t))
				}
				cs, err := a.Engine.Cycles(cmd.Context(), t, from, to)
				if err != nil {
					return exitError{exitUnknown, err}
				}
				for _, c := range cs {
					if c.Recorded() || pipeline.Period(c.Period) >= managed.Since {
						cycles = append(cycles, c)
					}
				}
				if date != "" {
					continue
				}
				doubts, broken, err := a.Engine.Ahead(cmd.Context(), t)
				if err != nil {
					return exitError{exitUnknown, err}
				}
				ahead, unread = append(ahead, doubts...), append(unread, broken...)
			}
			slices.SortStableFunc(cycles, func(a, b cycle.Status) int { return strings.Compare(b.Period, a.Period) })
			var unknown error
			if err := errors.Join(unread...); err != nil {
				unknown = exitError{exitUnknown, err}
			}
			if asJSON {
				return errors.Join(printLine(cmd.OutOrStdout(), map[string]any{"schema": 1, "cycles": cycles, "ahead": ahead, "managed_since": since}), unknown)
			}
			if err := printStatus(cmd.OutOrStdout(), cycles, a.Pipeline.Calendar.Zone(), len(a.Pipeline.Transitions) > 1); err != nil {
				return err
			}
			for _, line := range adopted {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), line); err != nil {
					return err
				}
			}
			for _, d := range ahead {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  doubtful: %s\n", d.Period, d); err != nil {
					return err
				}
			}
			return unknown
		},
	}
	cmd.Flags().IntVar(&days, "days", 3, "how many days back, today included; the next day is always shown")
	cmd.Flags().StringVar(&date, "date", "", "one period only, such as 2026-02-03")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// window returns the first and the last period to show.
func window(a *app.App, days int, date string) (from, to pipeline.Period, err error) {
	cal := a.Pipeline.Calendar
	if date != "" {
		p, err := cal.Parse(date)
		if err != nil {
			return "", "", fmt.Errorf("--date: %w", err)
		}
		return p, p, nil
	}
	from, to = cal.Window(a.Now(), days)
	return from, cal.AddDays(to, 1), nil
}

// printStatus writes a line a cycle, one a batch and one a run, times in the given zone.
func printStatus(w io.Writer, cycles []cycle.Status, zone *time.Location, several bool) error {
	if len(cycles) == 0 {
		_, err := fmt.Fprintln(w, "no completions are recorded in this window")
		return err
	}
	var b strings.Builder
	for _, c := range cycles {
		name := fmt.Sprintf("%-10s", c.Mode)
		if several {
			name = c.Mode + " of " + c.Transition + " "
		}
		fmt.Fprintf(&b, "%s  %s %-10s %s", c.Period, name, c.State, c.Reason)
		if !c.NextCheck.IsZero() {
			fmt.Fprintf(&b, "; next check %s", c.NextCheck.In(zone).Format("2006-01-02 15:04 MST"))
		}
		b.WriteByte('\n')
		if len(c.Ignored) > 0 {
			fmt.Fprintf(&b, "            ignored: %s\n", quoted(c.Ignored))
		}
		for _, d := range c.Doubts {
			fmt.Fprintf(&b, "            doubtful: %s\n", d)
		}
		if len(c.LocalTimes) > 0 {
			fmt.Fprintf(&b, "            timestamp without offset, read as UTC, looks like %s time: %s\n", zone, quoted(c.LocalTimes))
		}
		for _, batch := range c.Batches {
			sent := 0
			for _, id := range batch.Messages {
				if id != "" {
					sent++
				}
			}
			fmt.Fprintf(&b, "            batch %d  %-10s %s, %d of %d messages sent\n",
				batch.N, batch.State, batch.Cause, sent, len(batch.Messages))
			for _, r := range batch.Runs {
				name, _, _ := strings.Cut(r, "#")
				fmt.Fprintf(&b, "                     %s\n", quoted([]string{name}))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// quoted shows names as reported without letting them write to the terminal.
func quoted(names []string) string {
	out := slices.Clone(names)
	for i, n := range out {
		if q := fmt.Sprintf("%q", n); q != `"`+n+`"` {
			out[i] = q
		}
	}
	return strings.Join(out, ", ")
}
