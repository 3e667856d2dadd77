// Package emulatortest is asked by tests that need more than Go: an emulator, a browser or
// Python. Where it is missing, the test is skipped with one line of one form, by which
// make test counts such tests and names the command that runs them. With
// REQUIRE_EMULATORS=1 the test fails instead; with TEST_ALONE=1, which make test sets, it is
// skipped even where Chromium is installed.
package emulatortest

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// Firestore returns host and port of the Firestore emulator.
func Firestore(t testing.TB) string {
	t.Helper()
	return given(t, "the Firestore emulator", "FIRESTORE_EMULATOR_HOST")
}

// PubSub returns host and port of the Pub/Sub emulator.
func PubSub(t testing.TB) string {
	t.Helper()
	return given(t, "the Pub/Sub emulator", "PUBSUB_EMULATOR_HOST")
}

// BigQuery returns the program of the BigQuery emulator, as scripts/dev/emulators names it.
// Each test package starts its own: one starts in 0.2 s, and serves one request at a time.
func BigQuery(t testing.TB) string {
	t.Helper()
	return given(t, "the BigQuery emulator", "BQEMU")
}

// Browser returns the program of a Chromium.
func Browser(t testing.TB) string {
	t.Helper()
	if os.Getenv("TEST_ALONE") != "1" {
		for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
			if program, err := exec.LookPath(name); err == nil {
				return program
			}
		}
	}
	missing(t, "Chromium")
	return ""
}

// Python returns the interpreter of Python 3.
func Python(t testing.TB) string {
	t.Helper()
	if program, err := exec.LookPath("python3"); err == nil {
		return program
	}
	missing(t, "Python 3")
	return ""
}

// Namespace returns a command in front of another one. The other one then runs as PID 1 of a
// namespace with a /proc of its own, as in a container. It is nil where the system does not allow that.
func Namespace(t testing.TB) []string {
	t.Helper()
	if os.Getenv("TEST_ALONE") == "1" {
		missing(t, "unshare")
	}
	command := []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Geteuid() != 0 {
		command = append(command, "--user", "--map-root-user")
	}
	if exec.Command(command[0], append(command[1:], "true")...).Run() != nil {
		return nil
	}
	return command
}

// Program returns a program that most machines have, such as bash.
func Program(t testing.TB, name string) string {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		missing(t, name)
	}
	return program
}

// Await polls what is remote and cannot signal, until wrong returns "": it says what is still missing.
func Await(t testing.TB, within time.Duration, wrong func() string) {
	t.Helper()
	tick, end := time.NewTicker(20*time.Millisecond), time.After(within)
	defer tick.Stop()
	for {
		problem := wrong()
		if problem == "" {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("after %v: %s", within, problem)
		}
	}
}

func given(t testing.TB, what, variable string) string {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		missing(t, what)
	}
	return value
}

// missing ends the test. scripts/verify/gotest reads what it says.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("REQUIRE_EMULATORS") == "1" {
		t.Fatalf("needs %s, and REQUIRE_EMULATORS=1", what)
	}
	t.Skipf("needs %s: make test-all", what)
}
