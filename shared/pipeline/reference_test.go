package pipeline

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/reference/configuration.md")

const referenceHead = `# Configuration

A pipeline is one YAML file. Phasegate reports all unknown, missing and contradictory keys at once, with line or path.
` + "`phasectl checks verify`" + ` compares it with the tables of BigQuery. The default is ` + "`shared/pipeline/nba.yaml`" + `;
` + "`scripts/dev/demo/retail.yaml`" + ` is a pipeline by the hour, with two transitions in a chain. [environment.md](environment.md) has the
environment variables.

This page is generated from the types that read the file: ` + "`go test ./shared/pipeline -run Reference -update`" + `. A key without a
default is required in its section.

| Key | Type | Meaning |
|---|---|---|
`

// described reads from the source what is said of each field of the types that read the
// file.
func described(t *testing.T) map[string]*ast.StructType {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]*ast.StructType{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					types[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	return types
}

// keys lists every key of a type that reads the file, with its line of the table.
func keys(t *testing.T, types map[string]*ast.StructType, path string, s *ast.StructType) (lines []string) {
	t.Helper()
	for _, f := range s.Fields.List {
		key := strings.Trim(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("yaml"), ",")
		said := strings.TrimSpace(f.Comment.Text())
		name, list, inner := path+key, "", ast.Expr(f.Type)
		if star, ok := inner.(*ast.StarExpr); ok {
			inner = star.X
		}
		if array, ok := inner.(*ast.ArrayType); ok {
			list, inner = "list", array.Elt
		}
		kind := ""
		var below *ast.StructType
		switch e := inner.(type) {
		case *ast.StructType:
			below = e
		case *ast.MapType:
			if kind = "text → text"; isList(e.Value) {
				kind = "text → list of text"
			}
		case *ast.Ident:
			if below = types[e.Name]; below == nil {
				kind = map[string]string{"string": "text", "int": "number", "int64": "number", "bool": "true or false"}[e.Name]
			}
		}
		if below == nil && kind == "" {
			t.Errorf("%s is of a type that the reference cannot describe", name)
		}
		switch {
		case below != nil && list != "":
			kind, list = "list", "[]"
		case below != nil:
			kind = "section"
		case list != "":
			kind, list = "list of "+kind, ""
		}
		if said == "" && kind != "section" {
			t.Errorf("%s has no comment that describes it", name)
		}
		lines = append(lines, fmt.Sprintf("| `%s` | %s | %s |\n", name, kind, said))
		if below != nil {
			lines = append(lines, keys(t, types, name+list+".", below)...)
		}
	}
	return lines
}

func isList(e ast.Expr) bool { _, ok := e.(*ast.ArrayType); return ok }

// decoded lists every key that the decoder knows.
func decoded(path string, t reflect.Type) (names []string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, of := path+f.Tag.Get("yaml"), f.Type
		names = append(names, name)
		if of.Kind() == reflect.Slice {
			of, name = of.Elem(), name+"[]"
		}
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct {
			names = append(names, decoded(name+".", of)...)
		}
	}
	return names
}

func TestReference_IsCurrent(t *testing.T) {
	types := described(t)
	lines := keys(t, types, "", types["file"])
	var names []string
	for _, line := range lines {
		names = append(names, strings.Split(line, "`")[1])
	}
	if want := decoded("", reflect.TypeFor[file]()); !slices.Equal(names, want) {
		t.Errorf("described are %q, and read %q", names, want)
	}
	page := filepath.Join("..", "..", "docs", "reference", "configuration.md")
	want := referenceHead + strings.Join(lines, "")
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil || string(got) != want {
		t.Errorf("%v: docs/reference/configuration.md is not what the types say: go test ./shared/pipeline -run Reference -update", err)
	}
}

// A default in the reference is the value that a file without the key gets.
func TestReference_DefaultsMatchParser(t *testing.T) {
	p, err := Parse(minimal)
	if err != nil {
		t.Fatal(err)
	}
	pr, m := p.Phases[0].Processors[0], p.Transitions[0].Modes[0]
	got := fmt.Sprint(pr.Class, pr.Partition, pr.Duplicates, len(pr.Filled), m.AtDeadline, m.NotBefore, m.Deadline, m.Grace, m.SecondRunsEvery, p.Health.DigestAt, p.Health.UnseenDays, p.Health.SLOPct,
		p.Transitions[0].Checks, p.Transitions[0].HandOver, p.Transitions[0].ManagedSince == "", len(p.Transitions[0].Replaces))
	if want := "ALetterProcessorby_datereport0hold<nil> <nil> <nil> 2m0s 09:00 3 99 <nil> <nil> true 0"; strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("%s, want %s", got, want)
	}
}

var minimal = []byte(`
schema: 1
name: small
time_zone: UTC
calendar: day
kinds: {letter: letters}
phases:
  - name: one
    processors:
      - {name: a_letter, kind: letter, table: d.a, date_column: day, key: [day, id], order_by: at}
  - name: two
    processors:
      - {name: b_letter, kind: letter, table: d.b, date_column: day, key: [day, id], order_by: at}
transitions:
  - id: one_to_two
    upstream: {phase: one, topic: ones}
    downstream: {phase: two, topic: twos, triggered_by: x, parent_processor: X, order: [a_letter]}
    compatibility_collection: ones_done
    trigger_within: 72h
    modes:
      - {name: daily, event: after, critical: [a_letter], complete: all, counts_from: "18:00", second_runs: resend_if_changed}
schedules:
  - {name: relay, cron: "*/5 * * * *", function: reconcile, job: relay}
`)
