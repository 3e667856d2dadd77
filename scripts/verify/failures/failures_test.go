// Package failures keeps docs/failure-modes.md true: every row is there and names tests that
// exist. For eleven rows it makes the change of the row and checks that the test fails.
package failures

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/emulatortest"
)

const root = "../../.."

// rows returns the columns of the table's rows by id.
func rows(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "docs", "failure-modes.md"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, line := range strings.Split(string(data), "\n") {
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		ids := regexp.MustCompile(`F\d\d`).FindAllString(cells[0], -1)
		if !strings.HasPrefix(line, "| F") {
			continue
		}
		if len(cells) != 5 {
			t.Errorf("%v: %d columns", ids, len(cells))
			continue
		}
		for _, id := range ids {
			if out[id] != nil {
				t.Errorf("%s has two rows, want one", id)
			}
			out[id] = cells
		}
	}
	return out
}

// tests are the tests of a row, by package.
func tests(cell string) (out [][2]string) {
	folder := ""
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		if strings.Contains(m[1], "/") {
			folder = m[1]
			continue
		}
		out = append(out, [2]string{folder, m[1]})
	}
	return out
}

func TestFailureModes_EachHasExistingTest(t *testing.T) {
	all := rows(t)
	for n := 1; n <= 60; n++ {
		id := fmt.Sprintf("F%02d", n)
		cells := all[id]
		if cells == nil {
			t.Errorf("%s is missing", id)
			continue
		}
		named := tests(cells[3])
		if len(named) == 0 || strings.TrimSpace(cells[4]) == "" || strings.Contains(strings.Join(cells, " "), "still to come") {
			t.Errorf("%s: tests %v, turned red by %q", id, named, cells[4])
		}
		for _, test := range named {
			files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(test[0]), "*_test.go"))
			if err != nil || !slices.ContainsFunc(files, func(file string) bool {
				data, err := os.ReadFile(file)
				return err == nil && strings.Contains(string(data), "\nfunc "+test[1]+"(")
			}) {
				t.Errorf("%s: %s has no test %s", id, test[0], test[1])
			}
		}
	}
	if len(all) != 60 {
		t.Errorf("%d rows", len(all))
	}
}

// change is one that turns a row's test red.
type change struct {
	file, old, with string
	test            string // another than the row's first
	needs           func(testing.TB) string
}

var changes = map[string]change{
	"F03": {"shared/cycle/record.go", `return cycleID(k, mode) + "~"`, `return cycleID(k, "") + "~"`, "", nil},
	"F13": {"shared/wire/name.go", `		if t.Expects(candidate) {`, `		if candidate != "" {`, "", nil},
	"F16": {"shared/cycle/steps.go", `if ready.Outcome != Passed && ready.Outcome != NotChecked {`, `if ready.Outcome == Failed {`, "", nil},
	"F19": {"shared/wire/name.go", `strings.TrimPrefix(name, "Async")`, `name`, "", nil},
	"F29": {"shared/lease/document.go", `return s.Until.Before(at)`, `return false`, "", nil},
	"F32": {"shared/dedup/dedup.go", `return bytes.Compare(ha[:], hb[:])`, `return bytes.Compare(ha[:0], hb[:0])`, "TestF32_TheOutcomeDoesNotDependOnTheOrder", nil},
	"F33": {"shared/health/checks.go", `		return Check{State: Unknown, Evidence: v.noted(v.unknown), Action: v.whenUnknown}`, `		return Check{State: OK, Evidence: v.noted(v.unknown), Action: v.whenUnknown}`, "", emulatortest.BigQuery},
	"F46": {"shared/delivery/delivery.go", `w.WriteHeader(http.StatusAccepted)`, `w.WriteHeader(http.StatusBadRequest)`, "", nil},
	"F48": {"shared/cycle/projection.go", `return !holds(s.compat, f) }`, `return true }`, "", nil},
	"F58": {"shared/cycle/relay.go", `for n := -relayDays * t.Calendar().PerDay(); n <= t.Lead(); n++ {`, `for n := 0; n <= t.Lead(); n++ {`, "", nil},
	"F60": {"shared/cycle/expiry.go", `if !s.now.Before(from) && s.now.Before(from.Add(numberSpan)) {`, `if !s.now.Before(from) {`, "TestNumber_IsNeverUsedAgain", nil},
}

// TestFailureModes_ChangesMakeTestsFail makes each change in an overlay, so that no file is touched,
// and runs the tests of its row in their package.
func TestFailureModes_ChangesMakeTestsFail(t *testing.T) {
	if !*compiled {
		t.Skip("compiles a package with each change; make test-all does that")
	}
	turnRed(t, false)
}

var compiled = flag.Bool("changes", false, "TestFailureModes_ChangesMakeTestsFail makes the changes")

// The same for rows whose test needs an emulator.
func TestFailureModes_ChangesMakeTestsFailOnEmulators(t *testing.T) { turnRed(t, true) }

func turnRed(t *testing.T, onEmulators bool) {
	all := rows(t)
	for id, c := range changes {
		if onEmulators != (c.needs != nil) {
			continue
		}
		t.Run(id, func(t *testing.T) {
			if c.needs != nil {
				c.needs(t)
			}
			t.Parallel()
			file, err := filepath.Abs(filepath.Join(root, filepath.FromSlash(c.file)))
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil || strings.Count(string(data), c.old) != 1 {
				t.Fatalf("%s has %q %d times: %v", c.file, c.old, strings.Count(string(data), c.old), err)
			}
			dir := t.TempDir()
			changed := filepath.Join(dir, "changed.go")
			if err := os.WriteFile(changed, []byte(strings.Replace(string(data), c.old, c.with, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			named := tests(all[id][3])
			i := 0
			if c.test != "" {
				i = slices.IndexFunc(named, func(test [2]string) bool { return test[1] == c.test })
			}
			if i < 0 {
				t.Fatalf("%s is no test of the row", c.test)
			}
			out, err := run(t.Context(), filepath.Join(dir, "overlay.json"), named[i])
			if err == nil || !strings.Contains(out, "--- FAIL: "+named[i][1]) {
				t.Errorf("%s stays green, or does not run at all: %v\n%s", named[i][1], err, out)
			}
		})
	}
}

func run(ctx context.Context, overlay string, test [2]string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-overlay="+overlay, "-count=1", "-vet=off", "-run", "^"+test[1]+"$", "./"+test[0])
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}
