package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/pipeline"
)

const (
	exitHeld          = 75  // EX_TEMPFAIL: the lock is held, or was lost: come again
	exitNotExecutable = 126 // as a shell says it
	exitNotFound      = 127
	exitSignal        = 128 // and the signal's number

	// Cloud Run sends SIGTERM and, ten seconds later, SIGKILL
	// (https://cloud.google.com/run/docs/container-contract#instance-shutdown).
	stopGrace = 8 * time.Second
	// reportFor bounds how long a completion is tried to be published.
	reportFor = time.Minute
)

// locked is a command that runs under the lock of a processor and a period.
type locked struct {
	processor, date string
	wait, publish   bool

	phase     pipeline.Phase
	of        pipeline.Processor
	period    pipeline.Period
	reportsTo *pipeline.Transition // nil: nobody
	execution string
}

func runCommand(f *flags) *cobra.Command {
	var l locked
	cmd := &cobra.Command{
		Use:   "run --processor P --date D [--wait] [--publish] -- COMMAND [ARG]...",
		Short: "Run a command, in any language, under the lock of a processor and a date",
		Long: "Run a command under the lock of a processor and a date, so that no two runs of it are at work at once. The lock\n" +
			"is renewed as long as the command runs. When it is lost, the command is ended (TERM, then KILL) before another\n" +
			"run can begin. The command finds in its environment PHASEGATE_EXECUTION_ID, PHASEGATE_LOCK (the lock's key) and\n" +
			"PHASEGATE_LOCK_TOKEN (unique to this run).\n\n" +
			"Exit status: the command's; 75 when another run has the lock, or it was lost: come again; 2 when it cannot be\n" +
			"told whether the lock is free, or the completion could not be published.",
		Example: "  phasectl run --processor PlayerGameSummaryProcessor --date 2026-02-03 --publish -- python -m processors.player_game_summary",
		Args: func(cmd *cobra.Command, a []string) error {
			if cmd.ArgsLenAtDash() != 0 || len(a) == 0 {
				return usage(errors.New("wants a command behind --, such as: phasectl run --processor P --date D -- python job.py"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, command []string) error {
			a, err := f.openLogging(cmd.Context(), "info", cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer a.Close()
			if err := l.resolve(a.Pipeline); err != nil {
				return usage(err)
			}
			got, err := l.acquire(cmd.Context(), a)
			if err != nil {
				return err
			}
			return l.run(cmd, a, got, command)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&l.processor, "processor", "", "name or class of the processor, as the pipeline defines it (required)")
	fl.StringVar(&l.date, "date", "", "the period that it works on, YYYY-MM-DD (required)")
	fl.BoolVar(&l.wait, "wait", false, "wait for the lock instead of ending with 75")
	fl.BoolVar(&l.publish, "publish", false, "report the completion to the next phase's transition")
	return cmd
}

// resolve reads the flags against the definition.
func (l *locked) resolve(p *pipeline.Pipeline) error {
	var ok bool
	if l.phase, l.of, ok = p.Processor(l.processor); !ok {
		var known []string
		for _, ph := range p.Phases {
			for _, pr := range ph.Processors {
				known = append(known, pr.Name)
			}
		}
		return fmt.Errorf("--processor: %q: the pipeline has %s, and their classes", l.processor, strings.Join(known, ", "))
	}
	var err error
	if l.period, err = p.Calendar.Parse(l.date); err != nil {
		return fmt.Errorf("--date: %w", err)
	}
	for _, t := range p.Transitions {
		if l.publish && t.Expects(l.of.Name) {
			l.reportsTo = t
		}
	}
	if l.publish && l.reportsTo == nil {
		return fmt.Errorf("--publish: nobody waits for completions of %s of %s", l.of.Name, l.phase.Name)
	}
	l.execution = "run-" + strings.ToLower(rand.Text())
	return nil
}

func (l *locked) acquire(ctx context.Context, a *app.App) (*lease.Lease, error) {
	acquire := a.Locks.Acquire
	if l.wait {
		acquire = a.Locks.Wait
	}
	got, err := acquire(ctx, lease.Key{Class: l.of.Class, Period: l.period}, l.execution)
	if held := (*lease.HeldError)(nil); errors.As(err, &held) {
		return nil, exitError{exitHeld, err}
	}
	if err != nil {
		return nil, exitError{exitUnknown, err}
	}
	return got, nil
}

// run runs the command to its end, reports it, and only then gives the lock back.
func (l *locked) run(cmd *cobra.Command, a *app.App, got *lease.Lease, command []string) error {
	ctx := context.WithoutCancel(cmd.Context()) // what ends the command must not end what follows it
	work, stop := got.Keep(ctx)
	began := a.Now()
	code, err := l.supervise(cmd, work, got, a.Config.Lease, command)
	lost := confirm(ctx, got)
	if l.publish {
		err = errors.Join(err, l.report(ctx, a, began, code, lost))
	}
	stop()
	releaseCtx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	if releaseErr := got.Release(releaseCtx); releaseErr != nil && lost == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "phasectl:", releaseErr)
	}
	switch {
	case lost != nil && code == 0:
		return exitError{exitHeld, fmt.Errorf("the command was not alone to its end: %w", lost)}
	case code != 0:
		return exitError{code, errors.Join(fmt.Errorf("%s: exit status %d", command[0], code), err, lost)}
	case err != nil:
		return exitError{exitUnknown, err}
	}
	return nil
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

// supervise runs the command and returns its exit status. When the trust in the lock
// ends there is a tenth of the lease left: TERM at once, KILL when half of that is over.
func (l *locked) supervise(cmd *cobra.Command, work context.Context, got *lease.Lease, lasts time.Duration, command []string) (int, error) {
	// The kernel ends the child with the thread that began it: this one must not go.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child := exec.Command(command[0], command[1:]...)
	child.Env = append(os.Environ(), "PHASEGATE_EXECUTION_ID="+l.execution, "PHASEGATE_LOCK="+got.Key().String(), "PHASEGATE_LOCK_TOKEN="+got.Token().Nonce)
	child.Stdin, child.Stdout, child.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	child.SysProcAttr = childAttributes()
	child.WaitDelay = time.Second // for what it started and left holding its output
	if err := child.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return exitNotFound, err
		}
		return exitNotExecutable, err
	}
	group := -child.Process.Pid
	ended := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		l.end(cmd, work, lasts, ended, func(sig syscall.Signal) { _ = syscall.Kill(group, sig) }) // an error: it has ended
	}()
	err := child.Wait()
	_ = syscall.Kill(group, syscall.SIGKILL) // what it left behind is not under the lock any more
	close(ended)
	<-finished
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return exitSignal + int(s.Signal()), nil
		}
		return exit.ExitCode(), nil
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return exitSoftware, err
	}
	return 0, nil
}

// end sends signals when the lock is lost, or the caller wants to stop, until the command
// has ended.
func (l *locked) end(cmd *cobra.Command, work context.Context, lasts time.Duration, ended <-chan struct{}, signal func(syscall.Signal)) {
	lost, stopped := work.Done(), cmd.Context().Done()
	var kill <-chan time.Time
	for {
		select {
		case <-ended:
			return
		case <-lost:
			fmt.Fprintln(cmd.ErrOrStderr(), "phasectl: ending the command:", context.Cause(work))
			lost, kill = nil, time.After(lasts/20)
		case <-stopped:
			stopped = nil
			if kill == nil {
				kill = time.After(stopGrace)
			}
		case <-kill:
			signal(syscall.SIGKILL)
			return
		}
		signal(syscall.SIGTERM)
	}
}

// report publishes the completion, and tries for a while: a completion that is not told
// is a hand-over that does not come.
func (l *locked) report(ctx context.Context, a *app.App, began time.Time, code int, lost error) error {
	ctx, cancel := context.WithTimeout(ctx, reportFor)
	defer cancel()
	now := a.Now()
	dataset, table, _ := strings.Cut(l.of.Table, ".")
	r := message.Report{ProcessorName: l.of.Name, Phase: l.phase.Name, ExecutionID: l.execution, CorrelationID: l.execution,
		GameDate: l.period, OutputTable: table, OutputDataset: dataset, Status: message.StatusSuccess,
		Timestamp: message.Timestamp(now), DurationSeconds: now.Sub(began).Seconds(), TriggerSource: "phasectl run",
		Metadata: message.ReportMetadata{IsIncremental: true}}
	switch {
	case lost != nil:
		r.Status, r.ErrorType, r.ErrorMessage = message.StatusFailed, "lock_lost", lost.Error()
	case code != 0:
		r.Status, r.ErrorType, r.ErrorMessage = message.StatusFailed, "exit_status", fmt.Sprintf("exit status %d", code)
	}
	data, err := r.Encode()
	if err != nil {
		return err
	}
	for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
		sent := a.Broker.Publish(ctx, a.Config.Prefix+l.reportsTo.UpstreamTopic, []message.Outgoing{{Data: data}})[0]
		if sent.Err == nil {
			return nil
		}
		a.Log.WarnContext(ctx, "the completion could not be published, trying again: "+sent.Err.Error(), "processor", l.of.Name, "period", string(l.period))
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s ran for %s as %s, and its completion could not be published: %w", l.of.Name, l.period, l.execution, sent.Err)
		case <-time.After(pause):
		}
	}
}
