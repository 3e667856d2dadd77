package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process runs phasectl as a process of its own; before is what a shell does first.
func (d *desk) process(before string, args ...string) (*exec.Cmd, *going) {
	d.t.Helper()
	self, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command("sh", append([]string{"-c", before + `exec "$0" "$@"`, self}, args...)...)
	cmd.Env = append(os.Environ(), asPhasectl+"=1")
	g := &going{stdout: newOutput(), stderr: newOutput(), ended: make(chan int, 1)}
	cmd.Stdout, cmd.Stderr = g.stdout, g.stderr
	cmd.WaitDelay = time.Second // a process that the command left may hold its output
	// A child starts with the default action for a signal that this process catches, even if this
	// process was started with SIGHUP ignored.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	d.t.Cleanup(func() { signal.Stop(hangup) })
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := cmd.Wait()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
			d.t.Error(err)
		}
		g.ended <- cmd.ProcessState.ExitCode()
	}()
	d.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-done
	})
	return cmd, g
}

func TestRun_EndsItsCommandAtEverySignalThatEndsItself(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGABRT} {
		t.Run(sig.String(), func(t *testing.T) {
			d := newDesk(t)
			alive := d.pipe("alive")
			gone := make(chan string, 1)
			go func() { gone <- alive.read() }()
			script := fmt.Sprintf("exec 3>%s; trap 'echo cleaning up; exit 7' TERM; echo begun; cat %s & wait", alive.path, d.pipe("never").path)
			cmd, g := d.process("", underLock(script)...)
			g.stdout.line(t, g.ended)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			g.end(t, 7, "cleaning up")
			select {
			case got := <-gone: // end of file: no process of the command is left
				if got != "" {
					t.Errorf("%q", got)
				}
			case <-time.After(time.Minute):
				t.Error("a process of the command is still running")
			}
			if n := len(d.locks()); n != 0 {
				t.Errorf("%d locks are left", n)
			}
		})
	}
}

// Under nohup a terminal that closes ends nothing.
func TestRun_GoesOnAtAHangupThatWasIgnored(t *testing.T) {
	d := newDesk(t)
	gate := d.pipe("gate")
	cmd, g := d.process(`trap "" HUP; `, underLock(strings.ReplaceAll("echo begun; cat GATE; echo done", "GATE", gate.path))...)
	g.stdout.line(t, g.ended)
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	gate.open()
	g.end(t, 0, "done")
}
