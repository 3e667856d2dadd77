package e2e

import (
	"bufio"
	"crypto/rand"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A killed process neither releases nor renews its lock. Its command must end with it, so
// that the next holder of the lock, after the lease, runs alone.
func TestF29_ACommandEndsWithTheProcessThatHoldsItsLock(t *testing.T) {
	needEmulators(t)
	binary, err := phasectl()
	if err != nil {
		t.Fatal(err)
	}
	environment := append(os.Environ(), "GOOGLE_CLOUD_PROJECT=lock-"+strings.ToLower(rand.Text()[:20]), "PHASEGATE_STORE=firestore",
		"PHASEGATE_PREFIX=", "PHASEGATE_SHADOW=", "PHASEGATE_LEASE=3s", "PIPELINE_FILE=", "BIGQUERY_EMULATOR_HOST=")
	run := func(script string, flags ...string) *exec.Cmd {
		args := append([]string{"run", "--processor", "player_game_summary", "--date", "2026-02-03"}, flags...)
		cmd := exec.Command(binary, append(args, "--", "sh", "-c", script)...)
		cmd.Env, cmd.SysProcAttr = environment, attributes
		return cmd
	}
	alive := filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(alive, 0o600); err != nil {
		t.Fatal(err)
	}
	holder := run("exec 3>" + alive + "; echo begun; exec sleep 600")
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.Open(alive)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if err := pipe.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "begun\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.Read(make([]byte, 1)); err != io.EOF { // its end: the command has gone
		t.Errorf("the command outlives the process that holds its lock: %v", err)
	}
	_ = holder.Wait()
	second := run("exit 3")
	if out, err := second.CombinedOutput(); second.ProcessState.ExitCode() != 75 {
		t.Errorf("the lock of the dead: %v\n%s", err, out)
	}
	third := run("exit 4", "--wait")
	if out, err := third.CombinedOutput(); third.ProcessState.ExitCode() != 4 {
		t.Errorf("the lock after its lease: %v\n%s", err, out)
	}
}
