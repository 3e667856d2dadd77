package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
)

func reconcileCommand(f *flags) *cobra.Command {
	var w windowFlags
	var fix, asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Compare documents with the tables and the schedule, and repair differences",
		Long: "Compare the documents with the tables and the schedule, and list every difference. With --fix, record missing\n" +
			"completions, and hand over the cycles that the policy allows. Without --fix nothing is changed.\n\n" +
			"Exit status: 0 no finding is left, 1 findings are left, 2 a source could not be read or judged.",
		Example: "  phasectl reconcile --days 7\n  phasectl reconcile --from 2026-02-01 --to 2026-02-03 --fix",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			who, open := "", f.open
			if fix {
				who, open = actor(), f.openToAct
			}
			all := reconcile.Report{Schema: 1, Findings: []*reconcile.Finding{}, Unknown: []string{}}
			err := w.each(cmd.Context(), open, func(a *app.App, t *pipeline.Transition, from, to pipeline.Period) error {
				if e, ok := cmd.ErrOrStderr().(*os.File); ok && terminal(e) && !asJSON {
					fmt.Fprintf(e, "%s: reading %s to %s…\n", t.ID, from, to)
				}
				r := reconcile.New(a)
				r.GivenUp = func(ctx context.Context) (int, error) { return countDead(ctx, a) }
				one, err := r.Run(cmd.Context(), t, from, to, who)
				all.From, all.To = from, to
				all.Findings, all.Unknown = append(all.Findings, one.Findings...), append(all.Unknown, one.Unknown...)
				all.Tables, all.Shown = all.Tables+one.Tables, all.Shown+one.Shown
				if err != nil {
					all.Unknown = append(all.Unknown, t.ID+": "+err.Error())
				}
				return nil
			})
			if err != nil {
				return err
			}
			if asJSON {
				err = printLine(cmd.OutOrStdout(), all)
			} else {
				err = printFindings(cmd.OutOrStdout(), all, verbose)
			}
			switch {
			case err != nil:
				return err
			case len(all.Unknown) > 0:
				return exitError{exitUnknown, fmt.Errorf("%d things could not be read or judged, %d findings are left", len(all.Unknown), all.Left())}
			case all.Left() > 0:
				return exitError{exitFindings, fmt.Errorf("%d findings are left", all.Left())}
			}
			return nil
		},
	}
	w.add(cmd, 7)
	cmd.Flags().BoolVar(&fix, "fix", false, "repair what can be repaired")
	f.differsFlag(cmd)
	cmd.Flags().BoolVar(&verbose, "verbose", false, "show the evidence of each finding")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func printFindings(w io.Writer, r reconcile.Report, verbose bool) error {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, f := range r.Findings {
		place := strings.TrimSpace(f.Mode + " " + f.Table)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", f.Status, f.Severity, plain(string(f.Period)), f.Type, plain(place))
		if verbose {
			for _, name := range slices.Sorted(maps.Keys(f.Evidence)) {
				value, err := json.Marshal(f.Evidence[name])
				if err != nil {
					return err
				}
				fmt.Fprintf(table, "\t\t\t  %s: %s\t\n", name, plain(string(value)))
			}
		}
		fmt.Fprintf(table, "\t\t\t  %s\t\n", plain(f.Repair))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, u := range r.Unknown {
		fmt.Fprintf(&b, "unknown  %s\n", plain(u))
	}
	fmt.Fprintf(&b, "%s to %s: %d findings, %d left, %d unknown; tracking accuracy %s\n",
		r.From, r.To, len(r.Findings), r.Left(), len(r.Unknown), r.AccuracyText())
	_, err := io.WriteString(w, b.String())
	return err
}

// windowFlags choose periods: the last days, or from one to another.
type windowFlags struct {
	days     int
	from, to string
}

func (w *windowFlags) add(cmd *cobra.Command, days int) {
	cmd.Flags().IntVar(&w.days, "days", days, fmt.Sprintf("how many days back, today included, 1 to %d", pipeline.MaxDays))
	cmd.Flags().StringVar(&w.from, "from", "", "the first period, such as 2026-02-03, in place of --days")
	cmd.Flags().StringVar(&w.to, "to", "", "the last period, with --from (default: as with --days)")
}

func (w *windowFlags) check() error {
	switch {
	case w.days < 1 || w.days > pipeline.MaxDays:
		return fmt.Errorf("--days: %d is not within 1 to %d", w.days, pipeline.MaxDays)
	case w.to != "" && w.from == "":
		return fmt.Errorf("--to: needs --from")
	}
	return nil
}

// each opens the application and does something about each transition's periods.
func (w *windowFlags) each(ctx context.Context, open opener, do func(a *app.App, t *pipeline.Transition, from, to pipeline.Period) error) error {
	if err := w.check(); err != nil {
		return usage(err)
	}
	a, err := open(ctx)
	if err != nil {
		return err
	}
	defer a.Close()
	for _, t := range a.Pipeline.Transitions {
		from, to := t.Window(a.Now(), w.days)
		from, to, err := w.window(a.Pipeline.Calendar, from, to)
		if err != nil {
			return usage(err)
		}
		if err := do(a, t, from, to); err != nil {
			return err
		}
	}
	return nil
}

// window returns the periods that are asked for, of which from and to are the default.
func (w *windowFlags) window(cal pipeline.Calendar, from, to pipeline.Period) (pipeline.Period, pipeline.Period, error) {
	var err error
	if w.from != "" {
		if from, err = cal.Parse(w.from); err != nil {
			return "", "", fmt.Errorf("--from: %w", err)
		}
	}
	if w.to != "" {
		if to, err = cal.Parse(w.to); err != nil {
			return "", "", fmt.Errorf("--to: %w", err)
		}
	}
	if to < from || cal.AddDays(from, pipeline.MaxDays) < to {
		return "", "", fmt.Errorf("--from, --to: %s to %s is not within 1 to %d days", from, to, pipeline.MaxDays)
	}
	return from, to, nil
}
