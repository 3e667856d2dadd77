// Package reference compares docs/reference with the code.
package reference

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// source is the parsed Go files of a folder, without tests.
func source(t *testing.T, folder string) (files []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob("../../../" + folder + "/*.go")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %d files, %v", folder, len(paths), err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// constants returns the text constants of a folder for which choose returns true.
func constants(t *testing.T, folder string, choose func(name, typ string) bool) (values []string) {
	for _, f := range source(t, folder) {
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Values) != 1 {
				return true
			}
			typ, _ := v.Type.(*ast.Ident)
			name := ""
			if typ != nil {
				name = typ.Name
			}
			if s, ok := literal(v.Values[0]); ok && choose(v.Names[0].Name, name) {
				values = append(values, s)
			}
			return true
		})
	}
	return values
}

var row = regexp.MustCompile("(?m)^\\| `?([^|`]+?)`? \\|")

// rows returns the first cells of the tables below a heading, "" for all of the page.
func rows(t *testing.T, page, heading string) (cells []string) {
	t.Helper()
	data, err := os.ReadFile("../../../docs/reference/" + page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	if heading != "" {
		_, below, ok := strings.Cut(text, "\n## "+heading+"\n")
		if !ok {
			t.Fatalf("%s has no heading %q", page, heading)
		}
		text, _, _ = strings.Cut(below, "\n## ")
	}
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		if !slices.Contains([]string{"State", "Code", "Variable"}, m[1]) {
			cells = append(cells, m[1])
		}
	}
	return cells
}

func same(t *testing.T, page string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Compact(slices.Sorted(slices.Values(want)))
	if !slices.Equal(got, want) {
		t.Errorf("docs/reference/%s has %q, the code %q", page, got, want)
	}
}

func TestReferenceOfStates_HasTheStatesOfTheCode(t *testing.T) {
	ofType := func(want string) func(string, string) bool {
		return func(_, typ string) bool { return typ == want }
	}
	cycle := append(constants(t, "shared/policy", ofType("State")), constants(t, "shared/cycle", ofType("State"))...)
	cycle = slices.DeleteFunc(cycle, func(s string) bool { return s == "ready" }) // of a verdict: the cycle is checking then
	for heading, want := range map[string][]string{
		"Cycle":                       cycle,
		"Health check":                constants(t, "shared/health", ofType("State")),
		"Lock":                        constants(t, "scripts/phasectl", ofType("lockState")),
		"Sweep of a table and period": constants(t, "shared/sweep", ofType("State")),
		"Removal": constants(t, "shared/sweep", func(name, typ string) bool {
			return typ == "" && slices.Contains([]string{"planned", "archived", "applied", "undoing", "undone", "abandoned"}, name)
		}),
		"Finding": constants(t, "shared/reconcile", ofType("Status")),
	} {
		t.Run(heading, func(t *testing.T) { same(t, "states.md", rows(t, "states.md", heading), want) })
	}
}

var transitionForm = regexp.MustCompile(`(?m)^  (\S+) --> (\w+)(?:: .*)?$`)

func TestReferenceOfStates_DiagramHasTheStatesOfTheTable(t *testing.T) {
	diagram := block(t, "docs/reference/states.md", "stateDiagram-v2")
	var got []string
	for _, m := range transitionForm.FindAllStringSubmatch(diagram, -1) {
		got = append(got, m[1], m[2])
	}
	if lines := strings.Count(diagram, "\n") - 1; len(got) != 2*lines {
		t.Errorf("%d transitions in %d lines", len(got)/2, lines)
	}
	got = slices.DeleteFunc(got, func(s string) bool { return s == "[*]" })
	slices.Sort(got)
	same(t, "states.md", slices.Compact(got), rows(t, "states.md", "Cycle"))
}

func TestReferenceOfExitCodes_HasTheCodesOfTheCode(t *testing.T) {
	want := []string{"0"}
	for _, f := range append(source(t, "scripts/phasectl"), source(t, "scripts/phasectl/cli")...) {
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 && regexp.MustCompile(`^[eE]xit[A-Z]`).MatchString(v.Names[0].Name) {
				if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.INT {
					want = append(want, strings.Replace(lit.Value, "128", "128 + n", 1))
				}
			}
			return true
		})
	}
	same(t, "exit-codes.md", rows(t, "exit-codes.md", ""), want)
}

var variable = regexp.MustCompile(`^(GOOGLE_CLOUD_PROJECT|PIPELINE_FILE|LOG_LEVEL|PHASEGATE_[A-Z]+|SLACK_[A-Z_]+|[A-Z]+_EMULATOR_HOST)$`)

// The variables of a command that phasectl run starts are in its help.
var ofRuns = []string{"PHASEGATE_EXECUTION_ID", "PHASEGATE_LOCK", "PHASEGATE_LOCK_TOKEN"}

func TestReferenceOfEnvironment_HasTheVariablesThatTheCodeReads(t *testing.T) {
	var want []string
	for _, folder := range []string{"shared/app", "shared/notify", "shared/warehouse", "shared/store/firestore", "scripts/phasectl", "scripts/dev/devcmd"} {
		for _, f := range source(t, folder) {
			ast.Inspect(f, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && len(call.Args) > 0 {
					if s, ok := literal(call.Args[0]); ok && variable.MatchString(s) && !slices.Contains(ofRuns, s) {
						want = append(want, s)
					}
				}
				return true
			})
		}
	}
	if len(want) < 10 {
		t.Fatal(fmt.Sprint("only ", want))
	}
	same(t, "environment.md", rows(t, "environment.md", ""), want)
}
