// Command emulators runs a command next to the Firestore, the Pub/Sub and the BigQuery
// emulator:
//
//	go run ./scripts/dev/emulators -- go test ./...
//
// It starts the first two from the Google Cloud CLI and the third from build/bqemu, on
// free ports of the loopback interface. When all answer, it runs the command with
// FIRESTORE_EMULATOR_HOST, PUBSUB_EMULATOR_HOST and BIGQUERY_EMULATOR_HOST set, without
// standard input. BQEMU is the path of the third program; a test package starts its own.
// The exit status is the command's.
//
// If the environment already has an address, that emulator is used and not started. If
// the CLI or an emulator is missing, one line says so and the command runs without it;
// with REQUIRE_EMULATORS=1 that is an error.
//
// Emulators and command are process groups of their own and are always ended as groups,
// because the CLI's emulators outlive it. SIGINT, SIGTERM and SIGHUP end the command
// within 10 s. So does an emulator that dies, and the death of the parent process.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Exit codes of our own; those of shells and sysexits.h.
const (
	exitFailed   = 1
	exitUsage    = 64
	exitNotFound = 127
	exitSignal   = 128 // plus the signal's number
)

const (
	// patience is the time that the command has to end after a signal.
	patience = 10 * time.Second
	// parentCheck is the interval at which the parent process is checked.
	parentCheck = 500 * time.Millisecond
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		say("usage: emulators -- COMMAND [ARGUMENT]...")
		return exitUsage
	}
	if _, err := exec.LookPath(args[0]); err != nil {
		say("%v", err)
		return exitNotFound
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stop := watch(cancel)
	defer stop()

	var missing []kind
	for _, k := range kinds {
		if os.Getenv(k.variable) == "" {
			missing = append(missing, k)
		}
	}
	wanted, why := startable(missing)
	if len(why) > 0 && os.Getenv("REQUIRE_EMULATORS") == "1" {
		say("%v, and REQUIRE_EMULATORS=1", errors.Join(why...))
		return exitFailed
	}
	for _, err := range why {
		say("%v: tests that need the emulators are skipped", err)
	}
	running, err := start(ctx, wanted)
	defer running.end()
	if err != nil {
		return failed(err)
	}
	for _, e := range running {
		go func() {
			<-e.done
			cancel(fmt.Errorf("the %s emulator died:\n%s", e.kind.name, e.tail()))
		}()
	}
	code := command(ctx, args, running.environment())
	var s interrupted
	if err := context.Cause(ctx); err != nil && !errors.As(err, &s) {
		return failed(err) // the command's status means nothing without its emulators
	}
	return code
}

func failed(err error) int {
	if s, ok := errors.AsType[interrupted](err); ok {
		return exitSignal + int(s.signal)
	}
	say("%v", err)
	return exitFailed
}

// interrupted is the cause of the end when a signal told us.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return i.signal.String() }

// watch cancels at a signal, or when the process that started us has gone: `go run`
// dies of a SIGTERM without passing it on.
func watch(cancel context.CancelCauseFunc) (stop func()) {
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	parent, tick := os.Getppid(), time.NewTicker(parentCheck)
	go func() {
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				cancel(interrupted{s.(syscall.Signal)})
				return
			case <-tick.C:
				if os.Getppid() != parent {
					cancel(interrupted{syscall.SIGTERM})
					return
				}
			}
		}
	}()
	return func() { signal.Stop(signals); close(done) }
}

// command runs the command to its end and returns its exit status.
func command(ctx context.Context, args, environment []string) int {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		s := syscall.SIGTERM
		if told, ok := errors.AsType[interrupted](context.Cause(ctx)); ok {
			s = told.signal
		}
		return syscall.Kill(-cmd.Process.Pid, s)
	}
	cmd.WaitDelay = patience
	err := cmd.Run()
	if cmd.Process != nil {
		endGroup(cmd.Process.Pid) // processes that the command left running
	}
	var exit *exec.ExitError
	switch {
	case cmd.ProcessState == nil && ctx.Err() != nil: // a signal ended it before it began
		return failed(context.Cause(ctx))
	case cmd.ProcessState == nil, err != nil && !errors.As(err, &exit) && ctx.Err() == nil:
		say("%s: %v", strings.Join(args, " "), err)
		return exitFailed
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return exitSignal + int(status.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "emulators: "+format+"\n", args...)
}
