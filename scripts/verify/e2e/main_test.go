// Package e2e runs the functions as they run in production: in a process of their own that
// gets its pushes over HTTP. It uses the real emulators of Firestore and Pub/Sub, so that no
// fake hides an error. The clock is real, so the definitions are those of the NBA and the
// retail pipeline without their local times.
//
// A test has a project of its own in both emulators, so tests disturb neither each
// other nor those of other packages.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/phasegate/phasegate/shared/emulatortest"
)

var dir string // of what is built once

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if dir, err = os.MkdirTemp("", "phasegate-e2e-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		return m.Run()
	}())
}

// phasectl builds the command once, and only for a test that is going to run it.
var phasectl = sync.OnceValues(func() (string, error) {
	file := filepath.Join(dir, "phasectl")
	out, err := exec.Command("go", "build", "-o", file, "github.com/phasegate/phasegate/scripts/phasectl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build phasectl: %w\n%s", err, out)
	}
	return file, nil
})

// needEmulators skips a test where an emulator is missing.
func needEmulators(t *testing.T) {
	t.Helper()
	emulatortest.Firestore(t)
	emulatortest.PubSub(t)
}
