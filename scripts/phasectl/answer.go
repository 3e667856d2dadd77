package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
)

// A command has four parts, which follow one another in its file: a struct of options, the command
// with its flags, run, and the answer with its text. locks.go has the shortest ones: list looks,
// and release acts. A command that has to check its flags before it opens the application opens it
// in run, as hold does.

// answer is what a command has found or done. As JSON it is one object.
type answer interface {
	text(p *page)
}

// answers has a command print what it returns, as text or with --json as one object. A command
// that has an answer as well as an error, such as a finding, prints the one and ends with the other.
// A command that has said nothing else takes no words.
func answers[T any, A interface {
	*T
	answer
}](f *flags, cmd *cobra.Command, do func(context.Context) (A, error)) *cobra.Command {
	if cmd.Args == nil {
		cmd.Args = args(cobra.NoArgs)
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object")
	f.types[cmd] = reflect.TypeFor[T]()
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f.stdout, f.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
		once := func() error {
			a, err := do(cmd.Context())
			if a == nil {
				return err
			}
			return errors.Join(f.print(a), err)
		}
		if f.every == 0 {
			return once()
		}
		return f.watch(cmd.Context(), once)
	}
	return cmd
}

// opener opens the application, to look or to act.
type opener func(context.Context) (*app.App, error)

// on has a command work on the application, and closes it.
func on[A any](open opener, do func(context.Context, *app.App) (A, error)) func(context.Context) (A, error) {
	return func(ctx context.Context) (none A, err error) {
		a, err := open(ctx)
		if err != nil {
			return none, err
		}
		defer a.Close()
		return do(ctx, a)
	}
}

// watched gives a command that only reads the flag to show its answer again and again.
func (f *flags) watched(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.every, "watch", 0, "show the answer again every 5s, or as often as it says, until interrupted")
	cmd.Flags().Lookup("watch").NoOptDefVal = "5s"
}

// watch shows an answer until it is interrupted. What fails is tried again, except a wrong command line.
func (f *flags) watch(ctx context.Context, once func() error) error {
	if f.json || f.every < time.Second {
		return usage(errors.New("--watch: is for people, not with --json, and not more often than every 1s"))
	}
	for {
		if cli.Colourful(f.stdout) {
			fmt.Fprint(f.stdout, "\x1b[H\x1b[2J")
		}
		f.headed = false
		err := once()
		var exit cli.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.Code == cli.ExitUsage) {
			return err
		}
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(f.stderr, "phasectl:", err)
		}
		if wait(ctx, f.every) != nil {
			return nil
		}
	}
}

// print writes an answer.
func (f *flags) print(a answer) error {
	if f.json {
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(b, []byte(`{"schema":`)) { // a report of another package brings its own
			b = append([]byte(`{"schema":1,`), b[1:]...)
		}
		_, err = fmt.Fprintf(f.stdout, "%s\n", b)
		return err
	}
	p := f.page()
	a.text(p)
	return p.writeTo(f.stdout)
}

// tell prints a line of the answer at once, of work that takes long.
func (f *flags) tell(format string, args ...any) error {
	if f.json {
		return nil
	}
	p := f.page()
	p.line(format, args...)
	return p.writeTo(f.stdout)
}

// progress says on a terminal what is being done.
func (f *flags) progress(format string, args ...any) {
	if e, ok := f.stderr.(*os.File); ok && cli.Terminal(e) {
		fmt.Fprintln(e, plain(fmt.Sprintf(format, args...)))
	}
}

// page begins a page. The first one of an answer begins with the line that names the project, the
// pipeline and the environment.
func (f *flags) page() *page {
	p := &page{zone: time.UTC, coloured: cli.Colourful(f.stdout)}
	if f.opened != nil {
		p.zone = f.opened.pipeline.Calendar.Zone()
		if !f.headed {
			at := ""
			if f.every > 0 {
				at = ", at " + p.at(clock())
			}
			p.line("%s%s", heading(f.opened.config, f.opened.pipeline), at)
		}
		f.headed = true
	}
	return p
}

// act is of the commands that change something: they say what they would do, and on a terminal
// they ask first.
type act struct {
	flags  *flags
	reason string
	yes    bool
	fix    bool // false: a command with --fix only says what it would do
	dryRun bool
	ask    io.Reader // nil: there is no terminal
	say    io.Writer
}

// acts gives a command the flags of an act. What a person does to a pipeline needs a reason, for
// the next person.
func (c *act) acts(f *flags, cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.reason, "reason", "", "the reason, in words that the next operator understands (required)")
	f.needs(cmd, c.needsReason(func() bool { return !c.dryRun }))
	c.optional(f, cmd)
}

// needsReason is the need of a reason, in some cases.
func (c *act) needsReason(when func() bool) need {
	return lacks("--reason", func() bool { return when() && strings.TrimSpace(c.reason) == "" }, `--reason "…"`)
}

// optional is acts without a reason.
func (c *act) optional(f *flags, cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "show what would be done, and change nothing")
	cmd.Flags().BoolVar(&c.yes, "yes", false, "do not ask on a terminal")
	cmd.Flags().BoolVar(&f.differs, "definition-differs", false, "continue if the deployed functions run another pipeline file, or the state has names that this file does not have")
	c.flags, c.fix = f, true
	cmd.PreRun = func(cmd *cobra.Command, _ []string) {
		c.say = cmd.ErrOrStderr()
		if in, ok := cmd.InOrStdin().(*os.File); ok && cli.Terminal(in) {
			c.ask = in
		}
	}
}

// fixes is optional for a command that changes something only with --fix.
func (c *act) fixes(f *flags, cmd *cobra.Command, usage string) {
	c.optional(f, cmd)
	cmd.Flags().BoolVar(&c.fix, "fix", false, usage)
}

// changes reports whether the command is to change something.
func (c *act) changes() bool { return c.fix && !c.dryRun }

// openAct opens the application to act, or only to look.
func (c *act) openAct(ctx context.Context) (*app.App, error) {
	if c.changes() {
		return c.flags.openToAct(ctx)
	}
	return c.flags.open(ctx)
}

// errStopped: an interrupt has ended work between two of its steps.
var errStopped = errors.New("stopped: what was done stays done, and the same command does the rest")

// errNotConfirmed: the answer to the question was no.
var errNotConfirmed = findings(errors.New("not confirmed: nothing was changed"))

// errDryRun: a command must end before it asks.
var errDryRun = errors.New("a dry run changes nothing")

// confirm says what would be done and asks; it returns an error if the answer is no. Without a
// terminal it does not ask.
func (c *act) confirm(ctx context.Context, format string, args ...any) error {
	switch {
	case !c.changes():
		return errDryRun
	case c.yes || c.ask == nil:
		return nil
	}
	fmt.Fprintf(c.say, "%s. Continue? [y/N] ", plain(fmt.Sprintf(format, args...)))
	said := make(chan string, 1)
	go func() { // Ctrl-C ends the question, not the read
		line, _ := bufio.NewReader(c.ask).ReadString('\n')
		said <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-said:
		if line == "y" || line == "yes" {
			return nil
		}
	case <-ctx.Done():
	}
	return errNotConfirmed
}
