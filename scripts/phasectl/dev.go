package main

import (
	"context"
	"reflect"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/dev/devcmd"
)

// The commands that run functions on this machine. No other file knows the local environment.

func (f *flags) host() devcmd.Host {
	return devcmd.Host{Getenv: f.getenv(nil), Project: f.project, Stores: stores, Now: func() time.Time { return clock() }}
}

func localCommand(f *flags) *cobra.Command {
	cmd := devcmd.Local(f.host)
	cmd.Args, f.types[cmd] = args(cobra.NoArgs), reflect.TypeFor[devcmd.Ready]()
	return cmd
}

func demoCommand(f *flags) *cobra.Command {
	cmd := devcmd.Demo(f.host)
	cmd.Args, f.types[cmd] = args(cobra.NoArgs), reflect.TypeFor[devcmd.DemoAnswer]()
	return cmd
}

func serveCommand(f *flags) *cobra.Command {
	cmd := devcmd.Serve(f.host)
	var names []string
	cmd.Args = func(_ *cobra.Command, given []string) error {
		names = given
		return nil
	}
	f.needs(cmd, lacks("NAME", func() bool { return len(names) == 0 }, "transition"))
	return cmd
}

type envOptions struct{ data string }

func envCommand(f *flags) *cobra.Command {
	var o envOptions
	cmd := &cobra.Command{
		Use:     "env",
		Short:   "Print the environment that points other commands at the local environment",
		Example: "  eval \"$(phasectl env)\"",
	}
	devcmd.DataFlag(cmd, &o.data)
	return answers(f, cmd, o.run)
}

func (o *envOptions) run(context.Context) (*envAnswer, error) {
	r, err := devcmd.ReadReady(o.data)
	if err != nil {
		return nil, err
	}
	return &envAnswer{r.Variables()}, nil
}

// envAnswer are the variables of a local environment.
type envAnswer struct {
	Variables []devcmd.Variable `json:"variables"`
}

func (e *envAnswer) text(p *page) {
	for _, v := range e.Variables {
		p.line("%s", v)
	}
}
