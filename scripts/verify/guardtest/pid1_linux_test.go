package guardtest

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
)

// isolated starts the guard as PID 1 of a namespace, as the entry point of a container, with
// a service that is a shell script. No delivery comes, so no store is called.
func isolated(t *testing.T, script string, output io.Writer) *exec.Cmd {
	t.Helper()
	namespace := emulatortest.Namespace(t)
	if namespace == nil {
		t.Skip("this system lets no user make a namespace of processes")
	}
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	command := append(namespace, file, "--listen", "127.0.0.1:0", "--scope", "flask", "--", "sh", "-c", script)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "GOOGLE_CLOUD_PROJECT=p", "FIRESTORE_EMULATOR_HOST=127.0.0.1:1", "PHASEGATE_STORE=", "LOG_LEVEL=info")
	cmd.Stdout, cmd.Stderr, cmd.Dir = output, os.Stderr, t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd
}

func TestPID1_EndsWithTheStatusOfTheService(t *testing.T) {
	for script, want := range map[string]int{"exit 7": 7, "kill -9 $$": 128 + 9, "exit 0": 0} {
		cmd := isolated(t, script, io.Discard)
		_ = cmd.Wait() // the status is in ProcessState
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: exit status %d, want %d", script, got, want)
		}
	}
}

// The kernel ignores signals to PID 1 for which it has no handler.
func TestPID1_ForwardsTERM(t *testing.T) {
	r, w := io.Pipe()
	cmd := isolated(t, `trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done`, w)
	said := make(chan string, 1)
	go func() {
		text := make([]byte, 1<<10)
		all := ""
		for !strings.Contains(all, "ready\n") {
			n, err := r.Read(text)
			if err != nil {
				break
			}
			all += string(text[:n])
		}
		said <- all
		_, _ = io.Copy(io.Discard, r)
	}()
	select {
	case <-said:
	case <-time.After(limit):
		t.Fatal("the service is not ready")
	}
	for _, guard := range children(cmd.Process.Pid) {
		if err := syscall.Kill(guard, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 5 {
		t.Errorf("exit status %d, want 5, that of the service's own handler", got)
	}
}

// A process whose parent has ended becomes a child of PID 1. If PID 1 does not wait for it, it
// stays a zombie for as long as the container lives.
func TestPID1_ReapsOrphans(t *testing.T) {
	cmd := isolated(t, `
sh -c 'sleep 0.2 & echo $! >pid'
pid=$(cat pid) n=0
while [ -d /proc/$pid ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
grep State /proc/$pid/status >&2 && exit 3
exit 0`, io.Discard)
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 0 {
		t.Errorf("exit status %d: an orphan is left as a zombie", got)
	}
}
