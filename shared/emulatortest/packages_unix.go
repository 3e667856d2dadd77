//go:build unix

package emulatortest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Packages returns the folder with the programs of Python packages. It installs them with pip
// into a virtual environment of their own, which stays in the user's cache for the next run.
func Packages(t testing.TB, requirements ...string) string {
	t.Helper()
	what := "Python packages such as " + requirements[0]
	if os.Getenv("TEST_ALONE") == "1" {
		missing(t, what)
	}
	bin, err := install(Python(t), requirements)
	if err != nil {
		t.Log(err)
		missing(t, what+", and pip could not install them")
	}
	return bin
}

// install makes the environment, unless an earlier run has completed it.
func install(python string, requirements []string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	version, err := exec.Command(python, "-c", "import sys; print(sys.executable, sys.version)").Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", python, err)
	}
	sum := sha256.Sum256(fmt.Append(version, requirements))
	dir := filepath.Join(cache, "phasegate", "python-"+hex.EncodeToString(sum[:6]))
	bin, complete := filepath.Join(dir, "bin"), filepath.Join(dir, "complete")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close() // releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(complete); err == nil {
		return bin, nil
	}
	for _, command := range [][]string{
		{python, "-m", "venv", "--clear", dir},
		append([]string{filepath.Join(bin, "python"), "-m", "pip", "install", "--quiet"}, requirements...),
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
		}
	}
	return bin, os.WriteFile(complete, nil, 0o600)
}
