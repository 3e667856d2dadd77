package devcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/dev/demo"
	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// demoOptions are the flags of demo.
type demoOptions struct {
	keep, verbose, logged, json bool
	out, errs                   io.Writer
}

// Demo is the command demo.
func Demo(host func() Host) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Replay a night of a pipeline, and count what was lost or doubled",
		Long: "Replay a night of a pipeline on this machine. A process dies between publishing and recording; the scenes of that\n" +
			"crash are printed, with --verbose all scenes. At the end every message that the next phase received is counted.\n\n" +
			"Exit status: 0 no message was lost or doubled, 1 one was.",
		Example: "  phasectl demo\n  phasectl demo --verbose\n  phasectl demo --keep",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.out, o.errs = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return host().demo(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object in place of the story")
	cmd.Flags().BoolVar(&o.keep, "keep", false, "leave the environment running until interrupted")
	cmd.Flags().BoolVar(&o.verbose, "verbose", false, "print all scenes of the night")
	cmd.Flags().BoolVar(&o.logged, "logs", false, "print the functions' log lines to standard error")
	return cmd
}

func (h Host) demo(ctx context.Context, o demoOptions) (err error) {
	dir, err := os.MkdirTemp("", "phasegate-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c, err := h.Config("sqlite:" + filepath.Join(dir, "store.db"))
	if err != nil {
		return err
	}
	c.Prefix, c.Shadow, c.ReadOnly, c.BigQueryHost = "", "", false, "" // it is alone in its environment, and hands over
	story, logs := o.out, io.Discard
	if o.json {
		story = io.Discard
	}
	if o.logged {
		logs = o.errs
	}
	env, result, err := demo.Run(ctx, story, demo.View{Colour: cli.Colourful(story), Verbose: o.verbose, Progress: doing(o.errs)}, local.Options{
		Config: c, Stores: h.Stores, Logs: logs, BigQuery: bigQueryProgram()})
	if env != nil {
		defer func() { err = errors.Join(err, env.Close()) }()
	}
	if errors.Is(err, demo.ErrStory) {
		return cli.Usage(err)
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
	b.WriteString(tryNext(o.verbose, o.keep, result.Warehouse))
	if o.keep {
		fmt.Fprintln(&b, "Still running until Ctrl-C. In another terminal:")
		for _, v := range (Ready{Project: c.Project, PubSub: env.PubSub, BigQuery: env.BigQuery, Store: c.Store, Pipeline: c.PipelineFile}).Variables() {
			fmt.Fprintln(&b, v)
		}
		fmt.Fprintf(&b, "phasectl status %s\nThe status page: %s/\n", result.Period, env.Functions[pipeline.FunctionHealth])
	}
	fmt.Fprintf(&b, "expected=%d published=%d lost=%d doubled=%d\n", result.Expected, result.Published, result.Lost, result.Doubled)
	if _, err := io.WriteString(story, b.String()); err != nil {
		return err
	}
	if o.json {
		if err := cli.PrintLine(o.out, DemoAnswer{1, result.Expected, result.Published, result.Lost, result.Doubled}); err != nil {
			return err
		}
	}
	if o.keep {
		<-ctx.Done()
	}
	if !result.OK() {
		return cli.Findings(errors.New("the night did not go as it should have"))
	}
	return nil
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
	f, ok := cli.Underlying(w).(*os.File)
	if !ok || !cli.Terminal(f) {
		return nil
	}
	return func(what string) {
		if what != "" {
			what += " …"
		}
		_, _ = fmt.Fprintf(w, "\r\x1b[K%s", what) // a closed terminal does not end the demo
	}
}

// DemoAnswer counts the messages of the night.
type DemoAnswer struct {
	Schema    int `json:"schema"`
	Expected  int `json:"expected"`
	Published int `json:"published"`
	Lost      int `json:"lost"`
	Doubled   int `json:"doubled"`
}
