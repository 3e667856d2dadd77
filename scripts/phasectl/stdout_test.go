package main

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
)

type failingOutput struct{ err error }

func (f failingOutput) Write([]byte) (int, error) { return 0, f.err }

// A command that cannot write its answer reports a failure, except when the reader has closed the pipe.
func TestOutput_FailedWriteIsExitStatus2(t *testing.T) {
	_ = running(t)
	for _, args := range [][]string{{"quarantine", "list"}, {"dead-letter", "list"}, {"status"}, {"status", "--json"}, {"locks", "list"}, {"version"}, {"explain", "2026-02-03", "overnight"}, {"sweep", "list"}, {"--help"}} {
		t.Run(strings.Join(args, "_"), func(t *testing.T) {
			var errs bytes.Buffer
			if code := run(t.Context(), args, failingOutput{fmt.Errorf("write: %w", syscall.ENOSPC)}, &errs); code != cli.ExitUnknown || !strings.Contains(errs.String(), "standard output: write: no space left on device") {
				t.Errorf("full: %d, %s", code, errs.String())
			}
			errs.Reset()
			if code := run(t.Context(), args, failingOutput{fmt.Errorf("write: %w", syscall.EPIPE)}, &errs); code == cli.ExitUnknown && strings.Contains(errs.String(), "standard output") {
				t.Errorf("broken pipe: %d, %s", code, errs.String())
			}
		})
	}
}
