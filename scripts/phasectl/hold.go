package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

// steerOptions are of the commands that say when a cycle, or a whole transition, is handed over.
type steerOptions struct {
	*flags
	subject
	act
	lasts time.Duration // of a hold
}

func holdCommand(f *flags) *cobra.Command {
	o := steerOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "hold [PERIOD [MODE]]",
		Short: "Keep a cycle, or a whole transition, from being handed over for a while",
		Long: "Keep a cycle, or without PERIOD and MODE every cycle of the transition, from being handed over until the\n" +
			"hold ends or is released. Completions are recorded meanwhile. A batch that is already being published continues.",
		Example: "  phasectl hold 2026-02-03 overnight --for 6h --reason \"box scores are being corrected\"\n" +
			"  phasectl hold --for 2h --reason \"Phase 4 is being deployed\"",
	}
	o.takes(cmd, 2)
	f.needs(cmd, o.needsWhole(f)...)
	f.needs(cmd, lacks("--for", func() bool { return o.lasts == 0 }, "--for 6h"))
	o.acts(f, cmd)
	cmd.Flags().DurationVar(&o.lasts, "for", 0, "how long, such as 6h (required)")
	return answers(f, cmd, o.hold)
}

// steered is what became of a cycle, or of a whole transition, that a person held, released or
// closed.
type steered struct {
	DryRun     bool            `json:"dry_run"`
	Transition string          `json:"transition"`
	Period     pipeline.Period `json:"period,omitempty"` // with Mode: absent for the whole transition
	Mode       string          `json:"mode,omitempty"`
	Done       string          `json:"done"`             // in words; of a dry run, what would be done
	Notes      []string        `json:"notes"`            // what else has to be known
	State      string          `json:"state,omitempty"`  // of the cycle, afterwards
	Reason     string          `json:"reason,omitempty"` // of the state
}

func (s *steered) text(p *page) {
	p.line("%s", s.Done)
	for _, n := range s.Notes {
		p.line("  %s", n)
	}
	if s.State != "" {
		p.line("  now %s: %s", s.State, s.Reason)
	}
}

// steer says what it would do to a cycle or to the whole transition, asks, does it, and says where
// the cycle is then.
func (o *steerOptions) steer(ctx context.Context, would string, do func(a *app.App, key cycle.Key, m pipeline.Mode, out *steered) error) (*steered, error) {
	a, err := o.openAct(ctx)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	key, m, err := o.oneOrAll(a)
	if err != nil {
		return nil, err
	}
	out := &steered{DryRun: o.dryRun, Transition: key.Transition.ID, Period: key.Period, Mode: m.Name,
		Done: fmt.Sprintf("would "+would, what(key, m.Name)), Notes: []string{}}
	if err := out.see(ctx, a, key, m); err != nil {
		return nil, err
	}
	if o.dryRun {
		return out, nil
	}
	if err := o.confirm(ctx, would, what(key, m.Name)); err != nil {
		return nil, err
	}
	if err := do(a, key, m, out); err != nil {
		return nil, findingsIf(err, cycle.ErrRefused)
	}
	return out, out.see(ctx, a, key, m)
}

// see reads where a cycle is: it may be on hold for another reason.
func (s *steered) see(ctx context.Context, a *app.App, key cycle.Key, m pipeline.Mode) error {
	if m.Name == "" {
		return nil
	}
	all, err := a.Engine.Status(ctx, key)
	if err != nil {
		return unknown(err)
	}
	for _, st := range all {
		if st.Mode == m.Name {
			s.State, s.Reason = st.State, st.Reason
		}
	}
	return nil
}

func what(key cycle.Key, mode string) string {
	if mode == "" {
		return "every cycle of " + key.Transition.ID
	}
	return key.Transition.Called(key.Period, mode)
}

func (o *steerOptions) hold(ctx context.Context) (*steered, error) {
	most := cycle.MaxHold
	if o.period == "" {
		most = cycle.MaxWholeHold
	}
	if o.lasts < 0 || o.lasts > most {
		return nil, usage(fmt.Errorf("--for: %s is not within 1s to %gh", o.lasts, most.Hours()))
	}
	return o.steer(ctx, "put %s on hold for "+policy.Short(o.lasts), func(a *app.App, key cycle.Key, m pipeline.Mode, out *steered) error {
		r, err := a.Engine.Hold(ctx, key, m.Name, o.lasts, actor(), o.reason)
		if err != nil {
			return err
		}
		out.Done = fmt.Sprintf("%s is on hold until %s", what(key, m.Name), localTime(a.Pipeline.Calendar.Zone(), r.Hold.Until))
		if old := r.Replaced; old != nil {
			out.Notes = append(out.Notes, fmt.Sprintf("in place of the hold by %s until %s: %s", old.Actor, localTime(a.Pipeline.Calendar.Zone(), old.Until), old.Reason))
		}
		for _, id := range r.Publishing {
			out.Notes = append(out.Notes, id+" is being published already: the hold takes effect after it")
		}
		out.Notes = append(out.Notes, "end it before that: "+commandFor("release", key.Transition, string(key.Period), m.Name)+` --reason "…"`)
		return nil
	})
}

func releaseCommand(f *flags) *cobra.Command {
	o := steerOptions{flags: f}
	cmd := &cobra.Command{
		Use:     "release [PERIOD [MODE]]",
		Short:   "End a hold; what is due is handed over at once",
		Example: "  phasectl release 2026-02-03 overnight --reason \"box scores are right now\"",
	}
	o.takes(cmd, 2)
	f.needs(cmd, o.needsWhole(f)...)
	o.acts(f, cmd)
	return answers(f, cmd, o.release)
}

func (o *steerOptions) release(ctx context.Context) (*steered, error) {
	return o.steer(ctx, "end the hold of %s, and hand over at once what is due", func(a *app.App, key cycle.Key, m pipeline.Mode, out *steered) error {
		r, err := a.Engine.Release(ctx, key, m.Name, actor(), o.reason)
		if err != nil {
			return err
		}
		out.Done = what(key, m.Name) + " is not on hold"
		if h := r.Hold; h != nil {
			out.Done = fmt.Sprintf("%s is released; it was on hold by %s: %s", what(key, m.Name), h.Actor, h.Reason)
		}
		return nil
	})
}

func closeCommand(f *flags) *cobra.Command {
	o := steerOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "close PERIOD [MODE]",
		Short: "Close a cycle that must never be handed over automatically",
		Long: "Close a cycle, such as that of a night that shall never run. Completions are recorded all the same, and nothing is\n" +
			"handed over by itself. A batch that is being published goes on. phasectl trigger still hands the cycle over.",
		Example: "  phasectl close 2026-02-03 overnight --reason \"the games were cancelled\"",
	}
	o.takes(cmd, 2)
	f.needs(cmd, o.needsPeriod(f, never), o.needsPlace(f, false, never))
	o.acts(f, cmd)
	return answers(f, cmd, o.close)
}

func (o *steerOptions) close(ctx context.Context) (*steered, error) {
	return o.steer(ctx, "close %s, so that it is not handed over automatically", func(a *app.App, key cycle.Key, m pipeline.Mode, out *steered) error {
		r, err := a.Engine.Close(ctx, key, m, actor(), o.reason)
		if err != nil {
			return err
		}
		out.Done = what(key, m.Name) + " is closed"
		if old := r.Before; old != nil {
			out.Done = fmt.Sprintf("%s was closed already, by %s at %s: %s", what(key, m.Name), old.Actor, localTime(a.Pipeline.Calendar.Zone(), old.At), old.Reason)
		}
		// The relay evaluates no old period, and only an evaluation lets the documents of a period expire.
		if _, err := a.Engine.Converge(ctx, key, ""); err != nil {
			out.Notes = append(out.Notes, "the period was not evaluated, run the command again: "+err.Error())
		}
		for _, id := range r.Publishing {
			out.Notes = append(out.Notes, id+" is being published already: it goes on")
		}
		return nil
	})
}
