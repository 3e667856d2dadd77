package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/demo"
	"github.com/phasegate/phasegate/scripts/local"
)

func demoCommand(f *flags) *cobra.Command {
	var keep, verbose bool
	cmd := &cobra.Command{
		Use:     "demo",
		Short:   "Replay a night of a pipeline, and count what was lost or doubled",
		Example: "  phasectl demo\n  phasectl demo --keep",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			dir, err := os.MkdirTemp("", "phasegate-demo-")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			c, err := localConfig(f, "sqlite:"+filepath.Join(dir, "store.db"))
			if err != nil {
				return err
			}
			c.Prefix, c.Shadow, c.ReadOnly, c.BigQueryHost = "", "", false, "" // it is alone in its environment, and hands over
			out, logs := cmd.OutOrStdout(), io.Discard
			if verbose {
				logs = cmd.ErrOrStderr()
			}
			env, result, err := demo.Run(cmd.Context(), out, colourful(out), local.Options{
				Config: c, Stores: stores, Logs: logs, BigQuery: bigQueryProgram()})
			if env != nil {
				defer func() { err = errors.Join(err, env.Close()) }()
			}
			if errors.Is(err, demo.ErrStory) {
				return usage(err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "\n%d messages received, %d of them copies with an id seen before\n", result.Published+result.Copies, result.Copies)
			if result.Warehouse {
				fmt.Fprintf(out, "%d runs set off; %d duplicates in %d tables\n", result.Runs, result.DoubledRows, result.Tables)
			}
			if keep {
				fmt.Fprintln(out, "Still running until Ctrl-C. In another terminal:")
				if err := printEnv(out, ready{Project: c.Project, PubSub: env.PubSub, BigQuery: env.BigQuery, Store: c.Store, Pipeline: c.PipelineFile}); err != nil {
					return err
				}
				fmt.Fprintf(out, "phasectl status %s\n", result.Period)
				fmt.Fprintln(out, "The status page: "+env.Functions["health"]+"/")
				<-cmd.Context().Done()
			}
			fmt.Fprintf(out, "expected=%d published=%d lost=%d doubled=%d\n", result.Expected, result.Published, result.Lost, result.Doubled)
			if !result.OK() {
				return exitError{exitFindings, errors.New("the night did not go as it should have")}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the environment running until interrupted")
	cmd.Flags().BoolVar(&verbose, "logs", false, "print the functions' log lines to standard error")
	return cmd
}
