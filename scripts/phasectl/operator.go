package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// actor names the user of the command, for batches and audit records.
func actor() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	if name == "" {
		name = "unknown"
	}
	return name + "@" + host
}

// reasonFlag: what a person does to a pipeline needs a reason, for the next person.
func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "the reason, in words that the next operator understands (required)")
}

func checkReason(reason string) error {
	if strings.TrimSpace(reason) == "" {
		return usage(errors.New(`--reason: is required, such as --reason "Phase 4 lost its tables"`))
	}
	return nil
}

func transitionFlag(cmd *cobra.Command, id *string) {
	cmd.Flags().StringVar(id, "transition", "", "id of the transition (default: the pipeline's only one)")
}

// cycleOf reads a period and a mode of a transition. Without both it is the transition.
func cycleOf(a *app.App, transition string, words []string) (key cycle.Key, m pipeline.Mode, err error) {
	t, ok := a.Pipeline.Transition(transition)
	if !ok {
		return key, m, usage(fmt.Errorf("--transition: %q: the pipeline has %s", transition, a.Pipeline.TransitionIDs()))
	}
	key.Transition = t
	if len(words) == 0 {
		return key, m, nil
	}
	if key.Period, err = a.Pipeline.Calendar.Parse(words[0]); err != nil {
		return key, m, usage(fmt.Errorf("PERIOD: %w", err))
	}
	if m, ok = t.Mode(words[1]); !ok {
		return key, m, usage(fmt.Errorf("MODE: %q: %s has %s", words[1], t.ID, modeNames(t)))
	}
	return key, m, nil
}

// noneOrTwo: a cycle is named by its period and its mode, a transition by neither.
func noneOrTwo(cmd *cobra.Command, a []string) error {
	if len(a) != 0 && len(a) != 2 {
		return usage(fmt.Errorf("wants PERIOD MODE, or neither for the whole transition; got %q", a))
	}
	return nil
}

func holdCommand(f *flags) *cobra.Command {
	var transition, reason string
	var lasts time.Duration
	cmd := &cobra.Command{
		Use:   "hold [PERIOD MODE]",
		Short: "Keep a cycle, or a whole transition, from being handed over for a while",
		Long: "Keep a cycle, or without PERIOD and MODE every cycle of the transition, from being handed over until the\n" +
			"hold ends or is released. Completions are recorded meanwhile. A batch that is already being published continues.",
		Example: "  phasectl hold 2026-02-03 overnight --for 6h --reason \"box scores are being corrected\"\n" +
			"  phasectl hold --for 2h --reason \"Phase 4 is being deployed\"",
		Args: noneOrTwo,
		RunE: func(cmd *cobra.Command, words []string) error {
			if err := checkReason(reason); err != nil {
				return err
			}
			most := cycle.MaxHold
			if len(words) == 0 {
				most = cycle.MaxWholeHold
			}
			if !cmd.Flags().Changed("for") {
				return usage(errors.New("--for: is required, such as 6h"))
			}
			if lasts <= 0 || lasts > most {
				return usage(fmt.Errorf("--for: %s is not within 1s to %gh", lasts, most.Hours()))
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
			r, err := a.Engine.Hold(cmd.Context(), key, m.Name, lasts, actor(), reason)
			if err != nil {
				return exitError{exitUnknown, err}
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s is on hold until %s\n", what(key, m.Name), r.Hold.Until.In(a.Pipeline.Calendar.Zone()).Format("2006-01-02 15:04:05 MST"))
			if old := r.Replaced; old != nil {
				fmt.Fprintf(out, "  in place of the hold by %s until %s: %s\n", plain(old.Actor), localTime(a, old.Until), plain(old.Reason))
			}
			for _, id := range r.Publishing {
				fmt.Fprintf(out, "  %s is being published already: the hold takes effect after it\n", id)
			}
			_, err = fmt.Fprintf(out, "  end it before that: %s\n", releaseLine(key.Transition, words))
			return err
		},
	}
	transitionFlag(cmd, &transition)
	reasonFlag(cmd, &reason)
	f.differsFlag(cmd)
	cmd.Flags().DurationVar(&lasts, "for", 0, "how long, such as 6h (required)")
	return cmd
}

// releaseLine is the command that ends a hold.
func releaseLine(t *pipeline.Transition, words []string) string {
	return strings.Join(append([]string{"phasectl", "release"}, words...), " ") + t.Option() + ` --reason "…"`
}

// printAfter says where a cycle is now: it may be on hold for another reason.
func printAfter(ctx context.Context, w io.Writer, a *app.App, key cycle.Key, m pipeline.Mode) error {
	if m.Name == "" {
		return nil
	}
	ss, err := a.Engine.Status(ctx, key)
	if err != nil {
		return exitError{exitUnknown, err}
	}
	for _, st := range ss {
		if st.Mode == m.Name {
			_, err = fmt.Fprintf(w, "  now %s: %s\n", st.State, plain(st.Reason))
		}
	}
	return err
}

func what(key cycle.Key, mode string) string {
	if mode == "" {
		return "every cycle of " + key.Transition.ID
	}
	return string(key.Period) + " " + mode
}

func releaseCommand(f *flags) *cobra.Command {
	var transition, reason string
	cmd := &cobra.Command{
		Use:     "release [PERIOD MODE]",
		Short:   "End a hold; what is due is handed over at once",
		Example: "  phasectl release 2026-02-03 overnight --reason \"box scores are right now\"",
		Args:    noneOrTwo,
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
			r, err := a.Engine.Release(cmd.Context(), key, m.Name, actor(), reason)
			if errors.Is(err, cycle.ErrRefused) {
				return exitError{exitFindings, err}
			}
			if err != nil {
				return exitError{exitUnknown, err}
			}
			out := cmd.OutOrStdout()
			if r.Hold == nil {
				fmt.Fprintf(out, "%s is not on hold\n", what(key, m.Name))
			} else {
				fmt.Fprintf(out, "%s is released; it was on hold by %s: %s\n", what(key, m.Name), plain(r.Hold.Actor), plain(r.Hold.Reason))
			}
			return printAfter(cmd.Context(), out, a, key, m)
		},
	}
	transitionFlag(cmd, &transition)
	reasonFlag(cmd, &reason)
	f.differsFlag(cmd)
	return cmd
}
