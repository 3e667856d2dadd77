package pipeline

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The package's own dependencies are asked for, not the test's: a machine that runs
// tests has zone files, so that loading a zone here would prove nothing.
func TestF55_TheTimeZoneDataIsPartOfTheBinary(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	if !slices.Contains(strings.Fields(string(out)), "time/tzdata") {
		t.Error("time/tzdata is not among the dependencies: in an image without zone files no zone would load")
	}
}
