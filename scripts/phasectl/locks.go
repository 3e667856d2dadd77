package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/lease"
)

func locksCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "locks",
		Short: "List the locks of processors, and revoke one",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(locksList(f), locksRelease(f))
	return cmd
}

// lockLine is a lock as it is shown.
type lockLine struct {
	Key       string    `json:"key"`
	State     string    `json:"state"` // held, expired, leaked
	Execution string    `json:"execution_id"`
	Instance  string    `json:"instance"`
	Foreign   bool      `json:"foreign"` // of a processor in another language
	Since     time.Time `json:"since"`
	Renewed   time.Time `json:"renewed"`
	Until     time.Time `json:"until"`
}

func lineOf(s lease.State, at time.Time) lockLine {
	l := lockLine{Key: s.Key, State: "held", Execution: s.Execution, Instance: s.Instance, Foreign: s.Foreign, Since: s.Since, Renewed: s.Renewed, Until: s.Until}
	switch {
	case s.Leaked(at):
		l.State = "leaked"
	case s.Expired(at):
		l.State = "expired"
	}
	return l
}

func (l lockLine) text(a *app.App) string {
	what := map[string]string{
		"held":    "until " + localTime(a, l.Until) + " unless it is renewed",
		"expired": "not renewed since " + localTime(a, l.Renewed) + ": the next run gets it",
		"leaked":  "not renewed since " + localTime(a, l.Renewed) + ", and no run has asked for it",
	}[l.State]
	foreign := ""
	if l.Foreign {
		foreign = "  (not by Phasegate: waited for until " + localTime(a, l.Until) + ")"
	}
	return fmt.Sprintf("%s  %s  since %s, %s\n    execution %s on %s%s", plain(l.Key), l.State, localTime(a, l.Since), what,
		quoted([]string{l.Execution}), quoted([]string{l.Instance}), foreign)
}

func locksList(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the locks that have a document: holder, start and end",
		Example: "  phasectl locks list --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			states, at, err := a.Locks.List(cmd.Context())
			if err != nil {
				return exitError{exitUnknown, err}
			}
			lines := []lockLine{}
			for _, s := range states {
				lines = append(lines, lineOf(s, at))
			}
			if asJSON {
				return printLine(cmd.OutOrStdout(), map[string]any{"schema": 1, "locks": lines})
			}
			if len(lines) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "nothing is locked")
				return err
			}
			for _, l := range lines {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), l.text(a)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func locksRelease(f *flags) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "release KEY",
		Short: "Revoke a lock from its holder",
		Long: "Revoke a lock, with an audit record of the actor and the reason. Do not release an expired lock: the next run takes\n" +
			"it over. A live holder learns of it at its next renewal, within a third of its lease, and is ended soon after; until\n" +
			"then two runs may be at work.",
		Example: "  phasectl locks release PlayerGameSummaryProcessor_2026-02-03 --reason \"its machine is gone\"",
		Args:    exactly(1, "KEY", "PlayerGameSummaryProcessor_2026-02-03"),
		RunE: func(cmd *cobra.Command, keys []string) error {
			if err := checkReason(reason); err != nil {
				return err
			}
			a, err := f.openToAct(cmd.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			s, err := a.Locks.Break(cmd.Context(), keys[0], audit.Record{Action: "lock_release", Actor: actor(), Reason: reason})
			if errors.Is(err, lease.ErrNotLocked) {
				return exitError{exitFindings, err}
			}
			if err != nil {
				return exitError{exitUnknown, err}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is free; it was held by execution %s on %s since %s\n", plain(s.Key),
				quoted([]string{s.Execution}), quoted([]string{s.Instance}), localTime(a, s.Since))
			return err
		},
	}
	reasonFlag(cmd, &reason)
	f.differsFlag(cmd)
	return cmd
}
