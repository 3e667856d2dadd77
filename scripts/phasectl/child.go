package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/childproc"
	"github.com/phasegate/phasegate/shared/lease"
)

// Exit statuses for a command as a shell gives them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // and the signal's number
)

// supervise runs the command, and returns its exit status and whether it was asked to
// stop by the caller. All processes that it started have ended then.
func (l *locked) supervise(cmd *cobra.Command, work context.Context, got *lease.Lease, command []string) (code int, stopped bool, err error) {
	// The kernel ends the child with the thread that began it: this one must not go.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Ctrl-Z would stop this process and not the command, which is in a group of its own.
	tstp := make(chan os.Signal, 1)
	signal.Notify(tstp, syscall.SIGTSTP)
	defer signal.Stop(tstp)
	child := exec.Command(command[0], command[1:]...)
	token := "PHASEGATE_LOCK_TOKEN=" + got.Token().Nonce
	child.Env = append(os.Environ(), "PHASEGATE_EXECUTION_ID="+l.execution, "PHASEGATE_LOCK="+got.Key().String(), token)
	child.Stdout, child.Stderr = cli.Underlying(cmd.OutOrStdout()), cmd.ErrOrStderr()
	if in, isFile := cmd.InOrStdin().(*os.File); !isFile || !cli.Terminal(in) { // in its own group it could not read one
		child.Stdin = cmd.InOrStdin()
	}
	child.SysProcAttr = childproc.Attributes()
	child.WaitDelay = time.Second // for what it started and left holding its output
	if err := child.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return exitNotFound, false, err
		}
		return exitNotExecutable, false, err
	}
	childproc.ReapOrphans(child.Process.Pid)
	all := childproc.Family{PID: child.Process.Pid, Token: token}
	ended, finished := make(chan struct{}), make(chan bool)
	go func() { finished <- l.end(cmd, work, got, ended, all) }()
	err = child.Wait()
	close(ended)
	stopped = <-finished
	all.Kill() // what it left behind is not under the lock any more
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return exitSignal + int(s.Signal()), stopped, nil
		}
		return exit.ExitCode(), stopped, nil
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return cli.ExitSoftware, stopped, err
	}
	return 0, stopped, nil
}

// end ends the command when the lock is lost, or our caller wants to stop; it returns
// once the command has ended, and tells whether it was the caller.
func (l *locked) end(cmd *cobra.Command, work context.Context, got *lease.Lease, ended <-chan struct{}, all childproc.Family) (stopped bool) {
	lost, stop := work.Done(), cmd.Context().Done()
	tick := time.NewTicker(time.Second) // by the clocks: timers stand still while a machine sleeps
	defer tick.Stop()
	var kill time.Time
	stopSent, said := false, make(chan struct{})
	within := func(d time.Duration) {
		if by := time.Now().Add(d); kill.IsZero() || by.Before(kill) {
			kill = by
		}
		all.Signal(syscall.SIGTERM)
	}
	for {
		select {
		case <-ended:
			if stopSent {
				select {
				case <-said:
				case <-time.After(time.Second):
				}
			}
			return stopped
		case <-lost:
		case <-stop:
			stop, stopped = nil, true
			within(stopGrace)
		case <-tick.C:
		}
		if work.Err() != nil && !stopSent {
			stopSent, lost = true, nil
			within(got.Grace())
			go func() { // a stream that stalls must not keep it alive
				defer close(said)
				fmt.Fprintln(cmd.ErrOrStderr(), "phasectl: ending the command:", context.Cause(work))
			}()
		}
		if !kill.IsZero() && !time.Now().Before(kill) {
			all.Kill()
		}
	}
}
