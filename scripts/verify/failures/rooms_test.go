package failures

import (
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/phasegate/phasegate/"

var (
	room   = regexp.MustCompile("(?m)^\\| `((?:shared|functions)/[a-z/]+)` \\| [^|]* \\|([^|]*)\\|$")
	folder = regexp.MustCompile("(?m)^\\| (`[a-z0-9]+(?:/[a-z0-9]+)?`(?:, `[a-z0-9/]+`)*) \\| [^|]* \\|([^|]*)\\|$")
)

// Each package imports exactly the packages that docs/architecture.md lists.
func TestPackages_ImportOnlyWhatArchitectureAllows(t *testing.T) {
	page := architecture(t)
	allowed := map[string]string{}
	for _, m := range room.FindAllStringSubmatch(page, -1) {
		allowed[m[1]] = sorted(strings.FieldsFunc(m[2], between))
	}
	seen := 0
	for name, imports := range listed(t, "shared/...", "functions/...") {
		want, ok := allowed[name]
		if !ok {
			continue // drivers and packages of tests share rows, which room does not match
		}
		seen++
		var got []string
		for _, i := range imports {
			if ours, ok := strings.CutPrefix(i, "shared/"); ok {
				got = append(got, ours)
			}
		}
		if sorted(got) != want {
			t.Errorf("%s imports %s, and docs/architecture.md says %s", name, sorted(got), want)
		}
	}
	if seen < 26 {
		t.Errorf("only %d packages are in the table", seen)
	}
}

// Only programs that serve functions import the handlers, and operators' commands do not import the local
// environment.
func TestScripts_ImportOnlyWhatArchitectureAllows(t *testing.T) {
	_, table, _ := strings.Cut(architecture(t), "\nFolders of `scripts`")
	table, _, _ = strings.Cut(table, "\n## ")
	allowed := map[string]string{}
	for _, m := range folder.FindAllStringSubmatch(table, -1) {
		for _, name := range strings.FieldsFunc(m[1], func(r rune) bool { return between(r) || r == '`' }) {
			allowed[name] = sorted(strings.FieldsFunc(m[2], between))
		}
	}
	for path, imports := range listed(t, "scripts/...") {
		name := strings.TrimPrefix(path, "scripts/")
		want, ok := allowed[name]
		if !ok {
			t.Errorf("docs/architecture.md has no row of %s", path)
		}
		var got []string
		for _, i := range imports {
			if !strings.HasPrefix(i, "shared/") {
				got = append(got, strings.TrimPrefix(i, "scripts/"))
			}
		}
		if sorted(got) != want {
			t.Errorf("%s imports %s, and docs/architecture.md says %s", path, sorted(got), want)
		}
	}
}

func TestPhasectl_OneFileKnowsTheLocalEnvironment(t *testing.T) {
	files, err := filepath.Glob("../../phasectl/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	known := map[string][]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range parsed.Imports {
			if name, ok := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module+"scripts/dev/"); ok {
				known[name] = append(known[name], filepath.Base(file))
			}
		}
	}
	if got := sorted(known["devcmd"]) + "; " + sorted(known["serve"]); len(known) != 2 || got != "dev.go; replay.go" {
		t.Errorf("%v import packages of scripts/dev; dev.go and replay.go may", known)
	}
}

// The names of functions, topics and subscriptions are data: to read them, a command opens nothing.
func TestPipeline_LinksNoClient(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", root+"/shared/pipeline").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(out)) {
		if strings.HasPrefix(name, "cloud.google.com/") || strings.HasPrefix(name, "google.golang.org/") || strings.HasPrefix(name, "net/http") {
			t.Errorf("shared/pipeline links %s", strings.TrimSpace(name))
		}
	}
}

// listed returns the packages of this module that each package imports, without its tests.
func listed(t *testing.T, patterns ...string) map[string][]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`)
	for _, p := range patterns {
		cmd.Args = append(cmd.Args, root+"/"+p)
	}
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		names := strings.Fields(line)
		of := strings.TrimPrefix(names[0], module)
		out[of] = []string{}
		for _, i := range names[1:] {
			if ours, ok := strings.CutPrefix(i, module); ok {
				out[of] = append(out[of], ours)
			}
		}
	}
	return out
}

func between(r rune) bool { return r == ',' || r == ' ' }

// sorted joins names in their order.
func sorted(names []string) string {
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}
