package failures

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var room = regexp.MustCompile("(?m)^\\| `((?:shared|functions)/[a-z/]+)` \\| [^|]* \\|([^|]*)\\|$")

// Who may import whom stands in docs/architecture.md, and nowhere an arrow more.
func TestPackages_ImportOnlyWhatArchitectureAllows(t *testing.T) {
	page, err := os.ReadFile("../../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string][]string{}
	for _, m := range room.FindAllStringSubmatch(string(page), -1) {
		allowed[m[1]] = []string{}
		for _, name := range strings.Split(m[2], ",") {
			if name = strings.TrimSpace(name); name != "" {
				allowed[m[1]] = append(allowed[m[1]], name)
			}
		}
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "../../../shared/...", "../../../functions/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/phasegate/phasegate/"
	seen := 0
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		names := strings.Fields(line)
		name := strings.TrimPrefix(names[0], module)
		want, ok := allowed[name]
		if !ok {
			continue // drivers and tests' own, which stand in rows of several
		}
		seen++
		var got []string
		for _, i := range names[1:] {
			if ours, ok := strings.CutPrefix(i, module+"shared/"); ok {
				got = append(got, ours)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s imports %q, and docs/architecture.md says %q", name, got, want)
		}
	}
	if seen < 26 {
		t.Errorf("only %d packages stand in the table", seen)
	}
}
