package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/sweep"
)

func sweepCommand(f *flags) *cobra.Command {
	var w windowFlags
	var o sweep.Order
	var fix, asJSON bool
	cmd := &cobra.Command{
		Use:   "sweep",
		Short: "Find duplicate rows, and remove all but the surviving row of each key",
		Long: "Find rows that share a natural key, and with --fix remove all but the surviving row: the newest, then\n" +
			"the one with the fewest NULLs. Removed rows are kept for 30 days, and sweep undo puts them back. Without --fix nothing is\n" +
			"changed.\n\n" +
			"No row is removed if a processor is at work, if a key column holds NULL, or if rows are still in a streaming\n" +
			"buffer. To remove more than a quarter of a period's rows, or more than 10,000, add --force.\n\n" +
			"Exit status: 0 no duplicates are left, 1 duplicates are left, 2 a table could not be read.",
		Example: "  phasectl sweep --days 7\n  phasectl sweep --table player_game_summary --from 2026-02-03 --to 2026-02-03 --fix",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.Force && !fix:
				return usage(errors.New("--force: needs --fix"))
			case o.Force:
				if err := checkReason(o.Reason); err != nil {
					return err
				}
			}
			open := f.open
			if fix {
				open = f.openToAct
				o.Fix = func(pipeline.Processor) bool { return true }
			}
			o.Actor = actor()
			s, a, err := w.sweeper(cmd.Context(), open, &o)
			if err != nil {
				return err
			}
			defer a.Close()
			r, err := s.Run(cmd.Context(), o)
			switch {
			case errors.Is(err, sweep.ErrNoTable):
				return usage(fmt.Errorf("--table: %w", err))
			case errors.Is(err, sweep.ErrShadow):
				return usage(fmt.Errorf("PHASEGATE_SHADOW: %w", err))
			case errors.Is(err, sweep.ErrReadOnly):
				return usage(fmt.Errorf("PHASEGATE_TABLES: %w", err))
			case err != nil:
				return exitError{exitUnknown, err}
			}
			if asJSON {
				err = printLine(cmd.OutOrStdout(), r)
			} else {
				err = printSweep(cmd.OutOrStdout(), a, o, r)
			}
			switch {
			case err != nil:
				return err
			case r.Unknown() > 0:
				return exitError{exitUnknown, fmt.Errorf("%d tables or periods could not be swept", r.Unknown())}
			case r.Left() > 0:
				return exitError{exitFindings, fmt.Errorf("%d duplicate rows are left", r.Left())}
			case r.Open() > 0:
				return exitError{exitFindings, fmt.Errorf("%d tables or periods have rows that need a person", r.Open())}
			}
			return nil
		},
	}
	w.add(cmd, 7)
	cmd.Flags().StringVar(&o.Table, "table", "", "one table, dataset.table or the name of a processor (default: all)")
	cmd.Flags().BoolVar(&fix, "fix", false, "remove duplicates")
	f.differsFlag(cmd)
	cmd.Flags().BoolVar(&o.Force, "force", false, "remove them even if they are many; needs --reason")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "the reason, in words that the next operator understands")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.AddCommand(sweepList(f), sweepUndo(f))
	return cmd
}

// sweeper opens the application, and completes an order by its window.
func (w *windowFlags) sweeper(ctx context.Context, open opener, o *sweep.Order) (*sweep.Sweeper, *app.App, error) {
	if err := w.check(); err != nil {
		return nil, nil, usage(err)
	}
	s, a, err := openSweeper(ctx, open)
	if err != nil {
		return nil, nil, err
	}
	from, to := a.Pipeline.Window(a.Now(), w.days)
	if o.From, o.To, err = w.window(a.Pipeline.Calendar, from, to); err != nil {
		return nil, nil, usage(errors.Join(err, a.Close()))
	}
	return s, a, nil
}

func openSweeper(ctx context.Context, open opener) (*sweep.Sweeper, *app.App, error) {
	a, err := open(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, err := sweep.New(a)
	if err != nil {
		return nil, nil, exitError{exitUnknown, errors.Join(err, a.Close())}
	}
	return s, a, nil
}

func printSweep(w io.Writer, a *app.App, o sweep.Order, r sweep.Report) error {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	var found, removed, bytes int64
	for _, p := range r.Tables {
		found, removed, bytes = found+p.Duplicates, removed+p.Removed, bytes+p.Bytes
		what := ""
		if p.Period != "" && p.Rows > 0 {
			what = fmt.Sprintf("%d of %d rows too many", p.Duplicates, p.Rows)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", p.State, p.Severity, p.Period, p.Table, what)
		detail := func(format string, args ...any) {
			fmt.Fprintf(table, "\t\t\t  %s\t\n", plain(fmt.Sprintf(format, args...)))
		}
		if p.Oldest != nil {
			detail("written %s to %s", localTime(a, *p.Oldest), localTime(a, *p.Newest))
		}
		if p.Identical != nil {
			detail("%s", keysText(p.Keys, *p.Identical))
		}
		for _, e := range p.Examples {
			detail("%s: %d rows", e.Key, e.Rows)
		}
		if p.Problem != "" {
			detail("%s", p.Problem)
		}
		if p.Removed > 0 {
			detail("phasectl sweep undo %s", p.ID)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "%s to %s: %d duplicates, %d removed, %d left, %d unknown; %d bytes read\n", o.From, o.To, found, removed, r.Left(), r.Unknown(), bytes)
	if o.Fix == nil && r.Left() > 0 {
		fmt.Fprintf(&b, "to remove them: phasectl sweep%s --from %s --to %s --fix\n", tableFlag(o.Table), o.From, o.To)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// keysText says how many keys have more than one row, and whether a key's rows differ.
func keysText(keys, identical int64) string {
	text := fmt.Sprintf("%d keys have more than one row", keys)
	if keys == 1 {
		text = "1 key has more than one row"
	}
	switch {
	case identical == 0:
		return text + ", and the rows of a key differ"
	case identical >= keys:
		return text + ", and the rows of a key are identical"
	}
	return text + fmt.Sprintf(". The rows are identical for %d of these keys, and differ for %d", identical, keys-identical)
}

func tableFlag(table string) string {
	if table == "" {
		return ""
	}
	return " --table " + table
}

func sweepList(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the removals of the last 30 days, and how to undo them",
		Example: "  phasectl sweep list",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			listed, err := sweep.Removals(cmd.Context(), a) // which needs no warehouse
			if err != nil {
				return exitError{exitUnknown, err}
			}
			if asJSON {
				return printLine(cmd.OutOrStdout(), map[string]any{"schema": 1, "sweeps": listed})
			}
			var b strings.Builder
			if len(listed) == 0 {
				b.WriteString("nothing was removed in the last 30 days\n")
			}
			for _, l := range listed {
				fmt.Fprintf(&b, "%s  %s  %d rows of %s for %s  by %s  %s\n", localTime(a, l.At), plain(l.State), l.Removed, plain(l.Table), plain(string(l.Period)),
					quoted([]string{l.Actor}), quoted([]string{l.Reason}))
				if l.Undoable {
					fmt.Fprintf(&b, "    until %s: phasectl sweep undo %s\n", localTime(a, l.Until), plain(l.ID))
				}
			}
			_, err = io.WriteString(cmd.OutOrStdout(), b.String())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func sweepUndo(f *flags) *cobra.Command {
	var reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "undo ID",
		Short: "Put back the rows that a sweep removed, exactly as they were",
		Long: "Put back the rows that a sweep, or one of its removals, removed: exactly as they were, or not at all. A table that\n" +
			"was rewritten since is not changed.\n\n" +
			"Exit status: 0 the rows are back, 1 the removal cannot be undone, 2 the outcome is unknown.",
		Example: "  phasectl sweep list\n  phasectl sweep undo 20260204t155000-3jkx7m2p --reason \"the wrong one stayed\"",
		Args:    exactly(1, "ID", "20260204t155000-3jkx7m2p"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			s, a, err := openSweeper(cmd.Context(), f.openToAct)
			if err != nil {
				return err
			}
			defer a.Close()
			undone, undoErr := s.Undo(cmd.Context(), ids[0], actor(), reason)
			if errors.Is(undoErr, sweep.ErrShadow) {
				return usage(fmt.Errorf("PHASEGATE_SHADOW: %w", undoErr))
			}
			if errors.Is(undoErr, sweep.ErrReadOnly) {
				return usage(fmt.Errorf("PHASEGATE_TABLES: %w", undoErr))
			}
			unknown := slices.ContainsFunc(undone, func(u sweep.Undone) bool { return u.Unknown })
			if asJSON {
				err = printLine(cmd.OutOrStdout(), map[string]any{"schema": 1, "undone": append([]sweep.Undone{}, undone...)})
			} else {
				for _, u := range undone {
					switch {
					case u.Problem != "":
					case u.Restored == 0:
						_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: was undone before\n", plain(u.ID))
					default:
						_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d rows are back in %s for %s\n", plain(u.ID), u.Restored, plain(u.Table), plain(string(u.Period)))
					}
				}
			}
			switch {
			case err != nil:
				return err
			case undoErr != nil && !unknown && (len(undone) > 0 || errors.Is(undoErr, sweep.ErrNoSweep)):
				return exitError{exitFindings, undoErr}
			case undoErr != nil:
				return exitError{exitUnknown, undoErr}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "the reason, in words that the next operator understands")
	f.differsFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}
