package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/guard/guardcmd"
	"github.com/phasegate/phasegate/shared/store"
)

func guardCommand(f *flags) *cobra.Command {
	cmd := guardcmd.New(func(ctx context.Context) (store.Store, func() error, error) {
		c, err := app.ConfigFromEnv(f.getenv(nil))
		if err != nil {
			return nil, nil, usage(err)
		}
		s, err := stores(time.Now)(ctx, c)
		if err != nil {
			return nil, nil, unknown(err)
		}
		return s, func() error { return nil }, nil
	}, f.definition)
	cmd.Args, cmd.RunE = asExit(cmd.Args), asExit(cmd.RunE)
	return cmd
}

// asExit gives the errors of the guard the exit statuses of phasectl.
func asExit[F ~func(*cobra.Command, []string) error](f F) F {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd, args)
		var wrong guardcmd.UsageError
		var ended guardcmd.ExitError
		switch {
		case errors.As(err, &wrong):
			return usage(err)
		case errors.As(err, &ended):
			return cli.WithCode(ended.Code, err)
		}
		return err
	}
}
