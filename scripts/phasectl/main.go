// Command phasectl is the operator's command: it looks at cycles, serves the
// functions, and runs the whole system locally.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
)

// Exit codes; 0 is ok. 64 and 70 are those of sysexits.h.
const (
	exitFindings   = 1
	exitUnknown    = 2
	exitUsage      = 64
	exitSoftware   = 70
	usageHint      = "run phasectl" // and the command that was called, with --help
	localProjectID = "phasegate-local"
)

// exitError carries an exit code with an error.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

func usage(err error) error {
	if err == nil {
		return nil
	}
	return exitError{exitUsage, err}
}

// endings are the signals that end this process and can be caught: a terminal that closes
// sends SIGHUP. Each ends the work in order, as SIGTERM does; otherwise a command under a lock
// would go on without this process.
func endings() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGABRT}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup, whose work goes on
		all = append(all, syscall.SIGHUP)
	}
	return all
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is one call of the command; it returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	out := &checkedOutput{Writer: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	called, err := root.ExecuteContextC(ctx)
	if failed := out.failed(); failed != nil {
		fmt.Fprintln(stderr, "phasectl: standard output:", failed)
		return exitUnknown
	}
	if err == nil || errors.Is(err, syscall.EPIPE) && ctx.Err() == nil {
		return 0
	}
	code := exitSoftware
	var e exitError
	if errors.As(err, &e) {
		code = e.code
	}
	fmt.Fprintln(stderr, "phasectl:", err)
	if code == exitUsage {
		fmt.Fprintln(stderr, usageHint+strings.TrimPrefix(called.CommandPath(), "phasectl")+" --help")
	}
	return code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "phasectl",
		Short:         "Watch and operate the hand-overs between the phases of a pipeline",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("unknown command %q", args[0]))
			}
			return cmd.Help()
		},
	}
	root.Version = app.Version
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetUsageTemplate(root.UsageTemplate() + "\nExit status: 0 ok, 1 findings, 2 could not check, 64 usage, 70 internal error, unless said otherwise above.\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	var f flags
	root.PersistentFlags().StringVar(&f.project, "project", "", "Google Cloud project (default $GOOGLE_CLOUD_PROJECT)")
	root.PersistentFlags().StringVar(&f.pipeline, "pipeline", "", "pipeline definition FILE (default $PIPELINE_FILE, else the embedded nba.yaml)")
	root.AddCommand(statusCommand(&f), explainCommand(&f), triggerCommand(&f), holdCommand(&f), releaseCommand(&f), closeCommand(&f), completeCommand(&f),
		quarantineCommand(&f), deadLetterCommand(&f), runCommand(&f), locksCommand(&f), reconcileCommand(&f), reportCommand(&f), sweepCommand(&f), healthCommand(&f),
		serveCommand(&f), localCommand(&f), checksCommand(&f), envCommand(), demoCommand(&f), smokeCommand(&f), drillCommand(&f), driftCommand(&f), validateCommand(&f), pipelineCommand(&f), initCommand(&f), versionCommand())
	f.complete(root)
	return root
}

// exactly wants arguments, which an example shows.
func exactly(n int, words, example string) cobra.PositionalArgs {
	return func(_ *cobra.Command, a []string) error {
		if len(a) != n {
			return usage(fmt.Errorf("wants %s, such as %s; got %d arguments", words, example, len(a)))
		}
		return nil
	}
}

// some wants one argument or more, which an example shows.
func some(word, example string) cobra.PositionalArgs {
	return func(_ *cobra.Command, a []string) error {
		if len(a) == 0 {
			return usage(fmt.Errorf("wants at least one %s, such as %s", word, example))
		}
		return nil
	}
}

// args makes cobra's argument checks usage errors.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error { return usage(check(cmd, a)) }
}
