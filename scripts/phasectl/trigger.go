package main

import (
	"context"
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

// maxTriggered bounds a range: a year is a backfill, and has its own ways.
const maxTriggered = 366

func triggerCommand(f *flags) *cobra.Command {
	var t trigger
	cmd := &cobra.Command{
		Use:   "trigger",
		Short: "Hand a cycle over now, once more or for the first time",
		Long: "Hand over the recorded runs of a cycle: every counting run of the chosen processors, sent before or not, as a\n" +
			"further batch with new trigger ids. Consumers run once more. A processor without a recorded successful run gets no\n" +
			"trigger. Without --force, a hold, a missing critical processor, the hours of the mode and data that is not ready\n" +
			"prevent the hand-over, as they do for the policy.",
		Example: "  phasectl trigger --date 2026-02-03 --mode overnight --reason \"Phase 4 lost its tables\" --dry-run\n" +
			"  phasectl trigger --from 2026-01-26 --to 2026-02-01 --mode overnight --pace 5m --reason \"backfilled\"",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !t.dryRun {
				if err := checkReason(t.request.Reason); err != nil {
					return err
				}
			}
			open := f.openToAct
			if t.dryRun {
				open = f.open
			}
			a, err := open(cmd.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			return t.run(cmd, a)
		},
	}
	transitionFlag(cmd, &t.transition)
	reasonFlag(cmd, &t.request.Reason)
	f.differsFlag(cmd)
	fl := cmd.Flags()
	fl.StringVar(&t.date, "date", "", "one period, such as 2026-02-03")
	fl.StringVar(&t.from, "from", "", "first period of a range")
	fl.StringVar(&t.to, "to", "", "last period of a range")
	fl.StringVar(&t.mode, "mode", "", "mode of the cycle (required)")
	fl.StringSliceVar(&t.request.Processors, "processor", nil, "hand over this one only; may be repeated (default: every one with a counting run)")
	fl.DurationVar(&t.pace, "pace", 30*time.Second, "of a range: wait this long between two hand-overs")
	fl.BoolVar(&t.dryRun, "dry-run", false, "show the hand-over, and change nothing")
	fl.BoolVar(&t.request.Force, "force", false, "ignore a hold, missing critical processors, and data that is not ready")
	fl.BoolVar(&t.asJSON, "json", false, "print one JSON object")
	return cmd
}

// triggered is what became of one period of a trigger.
type triggered struct {
	Period     string      `json:"period"`
	Mode       string      `json:"mode"`
	Batch      int         `json:"batch,omitempty"`
	Processors []string    `json:"processors"`
	Runs       []string    `json:"runs"`
	State      cycle.State `json:"state,omitempty"` // of the batch; "" when none was made
	Reason     string      `json:"reason,omitempty"`
	Refusal    string      `json:"refusal,omitempty"`
	Error      string      `json:"error,omitempty"`
}

func (tr triggered) print(w io.Writer, dryRun bool) {
	place := fmt.Sprintf("%s %s", tr.Period, tr.Mode)
	of := fmt.Sprintf("batch %d of %s", tr.Batch, strings.Join(tr.Processors, ", "))
	switch {
	case tr.Error != "" && tr.State != "":
		fmt.Fprintf(w, "%s: %s is %s and goes on by itself; do not ask again: %s\n", place, of, tr.State, tr.Error)
	case tr.Error != "":
		fmt.Fprintf(w, "%s: %s\n", place, tr.Error)
	case tr.Refusal != "":
		fmt.Fprintf(w, "%s: refused: %s\n", place, tr.Refusal)
	case dryRun:
		fmt.Fprintf(w, "%s: would hand over %s, runs %s\n", place, of, quoted(tr.Runs))
	case tr.State == cycle.StatePublished:
		fmt.Fprintf(w, "%s: %s published\n", place, of)
	default:
		fmt.Fprintf(w, "%s: %s is %s (%s); the relay goes on with it\n", place, of, tr.State, tr.Reason)
	}
}

type trigger struct {
	transition, date, from, to, mode string
	pace                             time.Duration
	dryRun, asJSON                   bool
	request                          cycle.Request
}

func (t *trigger) run(cmd *cobra.Command, a *app.App) error {
	tr, ok := a.Pipeline.Transition(t.transition)
	if !ok {
		return usage(fmt.Errorf("--transition: %q: the pipeline has %s", t.transition, a.Pipeline.TransitionIDs()))
	}
	m, ok := tr.Mode(t.mode)
	if !ok {
		return usage(fmt.Errorf("--mode: %q: %s has %s", t.mode, tr.ID, modeNames(tr)))
	}
	for _, name := range t.request.Processors {
		if !m.Names(name) {
			return usage(fmt.Errorf("--processor: %s does not expect %q", m.Name, name))
		}
	}
	periods, err := t.periods(a.Pipeline.Calendar)
	if err != nil {
		return usage(err)
	}
	t.request.Actor = actor()
	results, made := []triggered{}, 0
	var stopped error
	for _, p := range periods {
		err := cmd.Context().Err()
		if made > 0 && !t.dryRun && err == nil {
			err = wait(cmd.Context(), t.pace)
		}
		if err != nil {
			stopped = fmt.Errorf("stopped; go on with --from %s --to %s", p, periods[len(periods)-1])
			break
		}
		r := t.one(cmd.Context(), a, cycle.Key{Transition: tr, Period: p}, m)
		if r.State != "" {
			made++
		}
		results = append(results, r)
		if !t.asJSON {
			r.print(cmd.OutOrStdout(), t.dryRun)
		}
	}
	if t.asJSON {
		if err := printLine(cmd.OutOrStdout(), map[string]any{"schema": 1, "dry_run": t.dryRun, "triggers": results}); err != nil {
			return err
		}
	}
	err = verdict(results)
	if stopped != nil && err == nil {
		err = exitError{exitFindings, stopped}
	} else if stopped != nil {
		err = exitError{exitUnknown, errors.Join(err, stopped)}
	}
	return err
}

// verdict turns the results into an exit status.
func verdict(results []triggered) error {
	failed, left := 0, 0
	for _, r := range results {
		switch {
		case r.Error != "":
			failed++
		case r.Refusal != "", r.State != "" && r.State != cycle.StatePublished:
			left++
		}
	}
	switch {
	case failed > 0:
		return exitError{exitUnknown, fmt.Errorf("%d of %d hand-overs are not confirmed", failed, len(results))}
	case left > 0:
		return exitError{exitFindings, fmt.Errorf("%d of %d cycles were not handed over", left, len(results))}
	}
	return nil
}

// one hands over one period, or says what would be.
func (t *trigger) one(ctx context.Context, a *app.App, key cycle.Key, m pipeline.Mode) triggered {
	r := triggered{Period: string(key.Period), Mode: m.Name, Processors: []string{}, Runs: []string{}}
	if t.dryRun {
		p, err := a.Engine.Plan(ctx, key, m, t.request)
		if err != nil {
			r.Error = err.Error()
			return r
		}
		r.Batch, r.Processors, r.Runs = p.Batch, p.Processors, p.Runs
		if p.Refusal != "" && !(t.request.Force && p.Forcible) {
			r.Refusal = p.Refusal
		}
		return r
	}
	b, err := a.Engine.Trigger(ctx, key, m, t.request)
	switch {
	case errors.Is(err, cycle.ErrRefused):
		r.Refusal = strings.TrimSuffix(err.Error(), ": "+cycle.ErrRefused.Error())
		return r
	case err != nil:
		r.Error = err.Error()
	}
	r.Batch, r.Runs, r.State, r.Reason = b.N, append(r.Runs, b.Runs...), b.State, b.Reason
	r.Processors = processorsOf(b.Runs, key.Transition.Order)
	return r
}

// processorsOf returns the processors of runs, processor@execution_id#key, in order.
func processorsOf(runs, order []string) []string {
	ran := map[string]bool{}
	for _, r := range runs {
		name, _, _ := strings.Cut(r, "@")
		ran[name] = true
	}
	return slices.DeleteFunc(slices.Clone(order), func(name string) bool { return !ran[name] })
}

// periods returns what the flags name, oldest first.
func (t *trigger) periods(cal pipeline.Calendar) ([]pipeline.Period, error) {
	if (t.date == "") == (t.from == "" && t.to == "") || (t.from == "") != (t.to == "") {
		return nil, errors.New("wants either --date, or --from and --to")
	}
	from, to := t.from, t.to
	if t.date != "" {
		from, to = t.date, t.date
	}
	first, err := cal.Parse(from)
	if err != nil {
		return nil, fmt.Errorf("--from or --date: %w", err)
	}
	last, err := cal.Parse(to)
	if err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	if last < first {
		return nil, fmt.Errorf("--to: %s is before --from %s", last, first)
	}
	var out []pipeline.Period
	for p := first; p <= last; p = cal.Add(p, 1) {
		if out = append(out, p); len(out) > maxTriggered {
			return nil, fmt.Errorf("--from %s --to %s: more than %d periods", first, last, maxTriggered)
		}
	}
	return out, nil
}

// wait lets time pass, or says that the command was interrupted.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
