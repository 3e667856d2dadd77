package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

const (
	exitHeld = 75 // EX_TEMPFAIL: the lock is held, or was lost: retry

	// Cloud Run sends SIGTERM and, ten seconds later, SIGKILL
	// (https://cloud.google.com/run/docs/container-contract#instance-shutdown).
	stopGrace = 8 * time.Second
	// reportFor bounds how long a completion is tried to be published.
	reportFor = time.Minute
)

// locked is a command that runs under the lock of a processor and a period.
type locked struct {
	*flags
	subject
	processor     string
	wait, publish bool

	phase     pipeline.Phase
	of        pipeline.Processor
	on        pipeline.Period
	reportsTo *pipeline.Transition // nil: no transition
	execution string
}

func runCommand(f *flags) *cobra.Command {
	l := locked{flags: f}
	cmd := &cobra.Command{
		Use:   "run PERIOD --processor P [--wait] [--publish] -- COMMAND [ARG]...",
		Short: "Run a command, in any language, under the lock of a processor and a date",
		Long: "Run a command under the lock of a processor and a date, so that no two runs of it are at work at once. The lock\n" +
			"is renewed as long as the command runs. If it cannot be renewed, the command is ended (TERM, then KILL) before\n" +
			"another run can begin. The environment of the command has PHASEGATE_EXECUTION_ID, PHASEGATE_LOCK (the lock's key) and\n" +
			"PHASEGATE_LOCK_TOKEN (unique to this run).\n\n" +
			"Exit status: that of the command. 75 if another run has the lock, or if the lock was lost: retry. 2 if it is unknown\n" +
			"whether the lock is free or whether an earlier run still writes, or if the completion could not be published.\n" +
			"143 if the command was stopped by SIGTERM and ended with 0.",
		Example: "  phasectl run 2026-02-03 --processor PlayerGameSummaryProcessor --publish -- python -m processors.player_game_summary",
		RunE: func(cmd *cobra.Command, words []string) error {
			command := words[cmd.ArgsLenAtDash():]
			a, err := f.openLogging(cmd.Context(), "info", cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer a.Close()
			if err := l.resolve(a); err != nil {
				return usage(err)
			}
			got, err := l.acquire(cmd.Context(), a)
			if err != nil {
				return err
			}
			return l.run(cmd, a, got, command)
		},
	}
	l.takes(cmd, 1)
	command := false // there is one
	cmd.Args = func(cmd *cobra.Command, words []string) error {
		n := cmd.ArgsLenAtDash()
		if command = n >= 0 && n < len(words); !command {
			return l.read(cmd, words)
		}
		return l.read(cmd, words[:n])
	}
	f.needs(cmd, l.needsPeriod(f, never), lacks("--processor", func() bool { return l.processor == "" }, "--processor P"),
		lacks("COMMAND", func() bool { return !command }, "-- COMMAND"))
	fl := cmd.Flags()
	fl.StringVar(&l.processor, "processor", "", "name or class of the processor, as the pipeline defines it (required)")
	fl.BoolVar(&l.wait, "wait", false, "wait for the lock instead of ending with 75")
	fl.BoolVar(&l.publish, "publish", false, "report the completion to the next phase's transition")
	return cmd
}

// resolve reads the flags against the definition.
func (l *locked) resolve(a *app.App) error {
	p := a.Pipeline
	var ok bool
	if l.phase, l.of, ok = p.Processor(l.processor); !ok {
		var known []string
		for _, pr := range p.Processors() {
			known = append(known, pr.Name)
		}
		return fmt.Errorf("--processor: %q: the pipeline has %s, and their classes%s", l.processor, policy.Listed(known), pipeline.DidYouMean(l.processor, known))
	}
	var err error
	if l.on, err = onePeriod(p.Calendar, a.Now(), l.period); err != nil {
		return err
	}
	if l.reportsTo = p.ReportsTo(l.of.Name); l.publish && l.reportsTo == nil {
		return fmt.Errorf("--publish: no transition expects completions of %s of %s", l.of.Name, l.phase.Name)
	}
	l.execution = "run-" + strings.ToLower(rand.Text())
	return nil
}

func (l *locked) acquire(ctx context.Context, a *app.App) (*lease.Lease, error) {
	acquire := a.Locks.Acquire
	if l.wait {
		acquire = a.Locks.Wait
	}
	got, err := acquire(ctx, lease.Key{Class: l.of.Class, Period: l.on}, l.execution)
	if _, ok := errors.AsType[*lease.HeldError](err); ok {
		return nil, cli.WithCode(exitHeld, err)
	}
	if err != nil {
		return nil, unknown(err)
	}
	return got, nil
}

// run runs the command to its end, reports it, and only then gives the lock back.
func (l *locked) run(cmd *cobra.Command, a *app.App, got *lease.Lease, command []string) error {
	ctx := context.WithoutCancel(cmd.Context()) // what ends the command must not end what follows it
	// Before the command reads anything, no earlier run writes any more.
	if err := l.fence(cmd.Context(), a, got, got.Outstanding()...); err != nil {
		return errors.Join(unknown(err), l.giveBack(ctx, got))
	}
	work, stop := got.Keep(ctx)
	began := a.Now()
	code, stopped, err := l.supervise(cmd, work, got, command)
	stop()
	lost := confirm(ctx, got)
	l.settle(ctx, a, got)
	failure := ending{code, stopped, lost}
	if l.publish {
		err = errors.Join(err, l.report(ctx, a, began, failure))
		if err == nil {
			outcome := wire.StatusSuccess
			if failure.reason("") != nil {
				outcome = wire.StatusFailed
			}
			l.stderr = cmd.ErrOrStderr()
			l.progress("%s of %s for %s is reported; its cycle: phasectl status %s", outcome, l.of.Name, l.on, l.on)
		}
	}
	if released := l.giveBack(ctx, got); released != nil && lost == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "phasectl:", released)
	}
	switch why := failure.reason(command[0]); {
	case lost != nil: // with any exit status of the command
		return cli.WithCode(exitHeld, errors.Join(why, err))
	case code != 0:
		return cli.WithCode(code, errors.Join(why, err))
	case stopped:
		return cli.WithCode(exitSignal+int(syscall.SIGTERM), errors.Join(why, err))
	case err != nil:
		return unknown(err)
	}
	return nil
}

// ending is how a command has ended.
type ending struct {
	code    int
	stopped bool  // it was asked to stop, and may not have finished its work
	lost    error // of the lock, before it had ended
}

// reason says why a command is not taken for done; nil when it is.
func (e ending) reason(command string) error {
	switch {
	case e.lost != nil:
		return fmt.Errorf("%s was not alone to its end (exit status %d): %w", command, e.code, e.lost)
	case e.code != 0:
		return fmt.Errorf("%s: exit status %d", command, e.code)
	case e.stopped:
		return fmt.Errorf("%s was asked to stop: exit status 0 does not prove that it finished", command)
	}
	return nil
}

// category is the error_type of a completion that failed.
func (e ending) category() string {
	switch {
	case e.lost != nil:
		return "lock_lost"
	case e.code != 0:
		return "exit_status"
	}
	return "stopped"
}

func (l *locked) giveBack(ctx context.Context, got *lease.Lease) error {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	return got.Release(ctx)
}

// fence makes sure that nothing is written any more under tokens of the lock, and takes
// them from the list.
func (l *locked) fence(ctx context.Context, a *app.App, got *lease.Lease, nonces ...string) error {
	if a.Warehouse == nil {
		return nil
	}
	if err := a.Warehouse.Fence(ctx, l.of.Table, got.Key().String(), nonces...); err != nil {
		return err
	}
	return got.Settle(ctx, nonces...)
}

// settle takes this run's own token: the command has ended, and what it may have begun
// under the token is waited for. What fails here is done by the next run.
func (l *locked) settle(ctx context.Context, a *app.App, got *lease.Lease) {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	if err := l.fence(ctx, a, got, got.Token().Nonce); err != nil {
		a.Log.WarnContext(ctx, "the token is left to the next run: "+err.Error(), "lock", got.Key().String(), "execution_id", l.execution)
	}
}

// confirm asks once more whether the lock is still ours, before the work is taken for
// done. A store that does not answer is no loss as long as the lease is trusted.
func confirm(ctx context.Context, got *lease.Lease) error {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	if err := got.Renew(ctx); errors.Is(err, lease.ErrLost) {
		return err
	}
	return got.Check()
}

// report publishes the completion, and tries for a while: a completion that is not told
// is a hand-over that does not come.
func (l *locked) report(ctx context.Context, a *app.App, began time.Time, e ending) error {
	ctx, cancel := context.WithTimeout(ctx, reportFor)
	defer cancel()
	now := a.Now()
	dataset, table, _ := strings.Cut(l.of.Table, ".")
	r := wire.Report{ProcessorName: l.of.Name, Phase: l.phase.Name, ExecutionID: l.execution, CorrelationID: l.execution,
		GameDate: l.on, OutputTable: table, OutputDataset: dataset, Status: wire.StatusSuccess,
		Timestamp: wire.Timestamp(now), DurationSeconds: now.Sub(began).Seconds(), TriggerSource: "phasectl run",
		Metadata: wire.ReportMetadata{IsIncremental: true}}
	if why := e.reason("the command"); why != nil {
		r.Status, r.ErrorType, r.ErrorMessage = wire.StatusFailed, e.category(), why.Error()
	}
	data, err := r.Encode()
	if err != nil {
		return err
	}
	for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
		sent := a.Broker.Publish(ctx, a.Config.Prefix+l.reportsTo.UpstreamTopic, []wire.Outgoing{{Data: data}})[0]
		if sent.Err == nil {
			return nil
		}
		a.Log.WarnContext(ctx, "the completion could not be published, trying again: "+sent.Err.Error(), "processor", l.of.Name, "period", string(l.on))
		if wait(ctx, pause) != nil {
			return fmt.Errorf("%s ran for %s as %s, and its completion could not be published: %w", l.of.Name, l.on, l.execution, sent.Err)
		}
	}
}
