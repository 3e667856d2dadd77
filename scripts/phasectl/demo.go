package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/dev/demo"
	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/shared/pipeline"
)

func demoCommand(f *flags) *cobra.Command {
	var keep, verbose, logged, asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Replay a night of a pipeline, and count what was lost or doubled",
		Long: "Replay a night of a pipeline on this machine. A process dies between publishing and recording; the scenes of that\n" +
			"crash are printed, with --verbose all scenes. At the end every message that the next phase received is counted.\n\n" +
			"Exit status: 0 no message was lost or doubled, 1 one was.",
		Example: "  phasectl demo\n  phasectl demo --verbose\n  phasectl demo --keep",
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
			if asJSON {
				out = io.Discard
			}
			if logged {
				logs = cmd.ErrOrStderr()
			}
			env, result, err := demo.Run(cmd.Context(), out, demo.View{Colour: colourful(out), Verbose: verbose, Progress: doing(cmd.ErrOrStderr())}, local.Options{
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
			var b strings.Builder
			fmt.Fprintf(&b, "\nThe whole night: %s received, %d of them copies with an id seen before; a guarded service ran %s\n",
				pipeline.Count(result.Published+result.Copies, "message", "messages"), result.Copies, pipeline.Count(result.Guarded, "time", "times"))
			if result.Warehouse {
				fmt.Fprintf(&b, "%s of the next phase; %s in %s\n", pipeline.Count(result.Runs, "run", "runs"), pipeline.Count(result.DoubledRows, "duplicate", "duplicates"), pipeline.Count(result.Tables, "table", "tables"))
			}
			b.WriteString(tryNext(verbose, keep, result.Warehouse))
			if keep {
				fmt.Fprintln(&b, "Still running until Ctrl-C. In another terminal:")
				if err := printEnv(&b, ready{Project: c.Project, PubSub: env.PubSub, BigQuery: env.BigQuery, Store: c.Store, Pipeline: c.PipelineFile}); err != nil {
					return err
				}
				fmt.Fprintf(&b, "phasectl status %s\nThe status page: %s/\n", result.Period, env.Functions["health"])
			}
			fmt.Fprintf(&b, "expected=%d published=%d lost=%d doubled=%d\n", result.Expected, result.Published, result.Lost, result.Doubled)
			if _, err := io.WriteString(out, b.String()); err != nil {
				return err
			}
			if asJSON {
				if err := printLine(cmd.OutOrStdout(), demoAnswer{1, result.Expected, result.Published, result.Lost, result.Doubled}); err != nil {
					return err
				}
			}
			if keep {
				<-cmd.Context().Done()
			}
			if !result.OK() {
				return findings(errors.New("the night did not go as it should have"))
			}
			return nil
		},
	}
	f.types[cmd] = reflect.TypeFor[demoAnswer]()
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object in place of the story")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the environment running until interrupted")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "print all scenes of the night")
	cmd.Flags().BoolVar(&logged, "logs", false, "print the functions' log lines to standard error")
	return cmd
}

// tryNext names commands for the reader of a demo.
func tryNext(verbose, keep, warehouse bool) string {
	var b strings.Builder
	line := func(command, what string) { fmt.Fprintf(&b, "  %-32s %s\n", command, what) }
	b.WriteString("\nTry next:\n")
	if !verbose {
		line("build/phasectl demo --verbose", "all scenes of the night")
	}
	if !keep {
		line("build/phasectl demo --keep", "leave it running, with its status page")
	}
	if !warehouse {
		line("make build/bqemu", "an emulator of BigQuery; with it the NBA demo checks data and removes duplicates")
	}
	line("make demo PIPELINE=retail", "another pipeline: forty processors, two transitions, periods of an hour")
	line("make local", "the same system on the real clock; report with phasectl complete")
	line("docs/how-to/adopt.md", "run Phasegate next to your orchestrator")
	return b.String()
}

// doing returns what shows, on a terminal, that the demo works; elsewhere nil.
func doing(w io.Writer) func(string) {
	f, ok := underlying(w).(*os.File)
	if !ok || !terminal(f) {
		return nil
	}
	return func(what string) {
		if what != "" {
			what += " …"
		}
		_, _ = fmt.Fprintf(w, "\r\x1b[K%s", what) // a closed terminal does not end the demo
	}
}

// demoAnswer counts the messages of the night.
type demoAnswer struct {
	Schema    int `json:"schema"`
	Expected  int `json:"expected"`
	Published int `json:"published"`
	Lost      int `json:"lost"`
	Doubled   int `json:"doubled"`
}
