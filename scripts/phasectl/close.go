package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/cycle"
)

func closeCommand(f *flags) *cobra.Command {
	var transition, reason string
	cmd := &cobra.Command{
		Use:   "close PERIOD MODE",
		Short: "Close a cycle that must never be handed over automatically",
		Long: "Close a cycle, such as that of a night that shall never run. Completions are recorded all the same, and nothing is\n" +
			"handed over by itself. A batch that is being published goes on. phasectl trigger still hands the cycle over.",
		Example: "  phasectl close 2026-02-03 overnight --reason \"the games were cancelled\"",
		Args:    exactly(2, "PERIOD MODE", "2026-02-03 overnight"),
		RunE: func(cmd *cobra.Command, words []string) error {
			if err := checkReason(reason); err != nil {
				return err
			}
			a, err := f.openToAct(cmd.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			key, m, err := cycleOf(a, transition, words)
			if err != nil {
				return err
			}
			r, err := a.Engine.Close(cmd.Context(), key, m, actor(), reason)
			if errors.Is(err, cycle.ErrRefused) {
				return exitError{exitFindings, err}
			}
			if err != nil {
				return exitError{exitUnknown, err}
			}
			out := cmd.OutOrStdout()
			if old := r.Before; old != nil {
				fmt.Fprintf(out, "%s was closed already, by %s at %s: %s\n", what(key, m.Name), plain(old.Actor), localTime(a, old.At), plain(old.Reason))
			} else {
				fmt.Fprintf(out, "%s is closed\n", what(key, m.Name))
			}
			for _, id := range r.Publishing {
				fmt.Fprintf(out, "  %s is being published already: it goes on\n", id)
			}
			return printAfter(cmd.Context(), out, a, key, m)
		},
	}
	transitionFlag(cmd, &transition)
	reasonFlag(cmd, &reason)
	f.differsFlag(cmd)
	return cmd
}
