package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
)

type dailyOptions struct {
	*flags
	subject
	dir string
}

func dailyCommand(f *flags) *cobra.Command {
	o := dailyOptions{flags: f}
	cmd := &cobra.Command{
		Use:     "daily [PERIOD]",
		Aliases: []string{"validate"},
		Short:   "Run the daily routine: health, reconcile and drift",
		Long: "Run health, reconcile without --fix, and drift, one after another, also if one of them fails. The periods are those\n" +
			"that reconcile compares. Nothing is changed.\n\n" +
			"Exit status: 0 all three are ok, 1 one of them has a finding, 2 none has a finding and one is unknown.",
		Example: "  phasectl daily\n  phasectl daily --days 30 --source ~/phasegate",
	}
	o.takes(cmd, 1)
	o.window(cmd, 7)
	cmd.Flags().StringVar(&o.dir, "source", ".", "folder of the checkout that should be deployed")
	return answers(f, cmd, o.run)
}

// dailyAnswer has the answer of each part; one that could not be asked has none.
type dailyAnswer struct {
	Overall   string        `json:"overall"`
	Health    *healthAnswer `json:"health"`
	Reconcile *reconciled   `json:"reconcile"`
	Drift     *checklist    `json:"drift"`
}

func (o *dailyOptions) run(ctx context.Context) (r *dailyAnswer, err error) {
	health, reconcile, drift := healthOptions{flags: o.flags}, reconcileOptions{flags: o.flags, subject: o.subject}, driftOptions{flags: o.flags, dir: o.dir}
	r = &dailyAnswer{Overall: checkOK}
	code := 0
	var all error
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"health", func() (err error) { r.Health, err = on(o.open, health.run)(ctx); return err }},
		{"reconcile", func() (err error) { r.Reconcile, err = on(o.open, reconcile.run)(ctx); return err }},
		{"drift", func() (err error) { r.Drift, err = on(o.open, drift.run)(ctx); return err }},
	} {
		err := part.run()
		var exit cli.ExitError
		switch {
		case err == nil:
			continue
		case !errors.As(err, &exit) || exit.Code == cli.ExitUsage || exit.Code == cli.ExitSoftware:
			return nil, err
		case exit.Code == cli.ExitFindings:
			r.Overall, code = checkFailing, cli.ExitFindings
		case code == 0:
			r.Overall, code = checkUnknown, cli.ExitUnknown
		}
		all = errors.Join(all, fmt.Errorf("%s: %w", part.name, err))
	}
	if code != 0 {
		return r, cli.WithCode(code, all)
	}
	return r, nil
}

func (r *dailyAnswer) text(p *page) {
	if r.Health != nil {
		p.line("Health")
		r.Health.text(p)
	}
	if r.Reconcile != nil {
		p.title("Reconciliation")
		r.Reconcile.text(p)
	}
	if r.Drift != nil {
		p.title("Drift")
		r.Drift.text(p)
	}
	p.title("%s", r.Overall)
}
