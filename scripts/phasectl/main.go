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
	"reflect"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

const usageHint = "run phasectl" // and the command that was called, with --help

// usage, findings and unknown give an error its exit code.
var usage, findings, unknown = cli.Usage, cli.Findings, cli.Unknown

// findingsIf takes an error for a finding if it is the known one. After another one the outcome is unknown.
func findingsIf(err, known error) error {
	if errors.Is(err, known) {
		return findings(err)
	}
	return unknown(err)
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
	root.SetArgs(distances(args))
	out := &cli.CheckedOutput{Writer: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	called, err := root.ExecuteContextC(ctx)
	if failed := out.Failed(); failed != nil {
		fmt.Fprintln(stderr, "phasectl: standard output:", failed)
		return cli.ExitUnknown
	}
	if err == nil || errors.Is(err, syscall.EPIPE) && ctx.Err() == nil {
		return 0
	}
	code := cli.ExitSoftware
	if e, ok := errors.AsType[cli.ExitError](err); ok {
		code = e.Code
	}
	fmt.Fprintln(stderr, "phasectl:", err)
	if code == cli.ExitUsage {
		fmt.Fprintln(stderr, usageHint+strings.TrimPrefix(called.CommandPath(), "phasectl")+" --help")
	}
	return code
}

func newRoot() *cobra.Command {
	root, _ := newCommands()
	return root
}

// newCommands returns the command with all that are below it, and their flags.
func newCommands() (*cobra.Command, *flags) {
	f := &flags{types: map[*cobra.Command]reflect.Type{}, needed: map[*cobra.Command][]need{}}
	root := &cobra.Command{
		Use:           "phasectl",
		Short:         "Watch and operate the hand-overs between the phases of a pipeline",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          unknownOrHelp,
	}
	root.Version = app.Version
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetUsageTemplate(root.UsageTemplate() + "\nExit status: 0 ok, 1 findings, 2 could not check, 64 usage, 70 internal error, unless said otherwise above.\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(unknownFlag(cmd, err)) })
	root.PersistentFlags().StringVar(&f.project, "project", "", "Google Cloud project (default $GOOGLE_CLOUD_PROJECT)")
	root.PersistentFlags().StringVar(&f.pipeline, "pipeline", "", "pipeline definition FILE (default $PIPELINE_FILE, else the embedded nba.yaml)")
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"first", "First day:", []*cobra.Command{demoCommand(f), initCommand(f), pipelineCommand(f), localCommand(f), envCommand(f)}},
		{"daily", "Every day:", []*cobra.Command{dailyCommand(f), statusCommand(f), explainCommand(f), healthCommand(f), reportCommand(f)}},
		{"repair", "Repair:", []*cobra.Command{triggerCommand(f), holdCommand(f), releaseCommand(f), closeCommand(f), completeCommand(f), reconcileCommand(f), sweepCommand(f),
			locksCommand(f), quarantineCommand(f), deadLetterCommand(f), receiptCommand(f)}},
		{"adopt", "Adopt:", []*cobra.Command{runCommand(f), guardCommand(f), checksCommand(f), smokeCommand(f), drillCommand(f), driftCommand(f), doctorCommand(f)}},
		{"develop", "Develop:", []*cobra.Command{serveCommand(f), versionCommand(f)}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, cmd := range g.commands {
			cmd.GroupID = g.id
			root.AddCommand(cmd)
		}
	}
	root.SetHelpCommandGroupID("develop")
	root.SetCompletionCommandGroupID("develop")
	f.complete(root)
	f.demand(root)
	return root, f
}

// unknownFlag names the flag that was probably meant.
func unknownFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, "--"+f.Name)
		}
	})
	return fmt.Errorf("%w%s", err, pipeline.DidYouMean("--"+unknown.GetSpecifiedName(), names))
}

// args makes cobra's argument checks usage errors.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error { return usage(check(cmd, a)) }
}

func versionCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version and the hash of the source that this was built from",
		Example: "  phasectl version",
	}
	return answers(f, cmd, func(context.Context) (*versionAnswer, error) {
		return &versionAnswer{app.Version, app.SourceHash}, nil
	})
}

type versionAnswer struct {
	Version    string `json:"version"`
	SourceHash string `json:"source_hash"`
}

func (r *versionAnswer) text(p *page) { p.line("phasectl %s, source %s", r.Version, r.SourceHash) }
