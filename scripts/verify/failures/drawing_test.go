package failures

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func architecture(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

var arrow = regexp.MustCompile(`(?m)^  ([a-z/]+) --> ([a-z/ &]+)$`)

// The drawing has the arrows of the table of imports, except those that a longer path replaces.
func TestArchitecture_DrawsTheTableOfImports(t *testing.T) {
	page := architecture(t)
	imports := map[string][]string{}
	for _, m := range room.FindAllStringSubmatch(page, -1) {
		imports[strings.TrimPrefix(m[1], "shared/")] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	var leads func(from, to string) bool
	leads = func(from, to string) bool {
		return slices.ContainsFunc(imports[from], func(next string) bool { return next == to || leads(next, to) })
	}
	want, got := map[string]bool{}, map[string]bool{}
	for from, of := range imports {
		for _, to := range of {
			if _, drawn := imports[to]; drawn && !slices.ContainsFunc(of, func(other string) bool { return other != to && leads(other, to) }) {
				want[from+" --> "+to] = true
			}
		}
	}
	for _, m := range arrow.FindAllStringSubmatch(page, -1) {
		for to := range strings.SplitSeq(m[2], " & ") {
			got[m[1]+" --> "+to] = true
		}
	}
	if len(want) < 40 || !maps.Equal(got, want) {
		for a := range want {
			if !got[a] {
				t.Errorf("the drawing lacks %s", a)
			}
		}
		for a := range got {
			if !want[a] {
				t.Errorf("the drawing has %s, which a longer path replaces or the table does not have", a)
			}
		}
	}
}

var onTheWay = regexp.MustCompile(`(?m)^\| ` + "`" + `((?:\w+\.)?\w+)` + "`" + ` \| \[[\w.]+\]\(\.\./([\w/.]+\.go)\) \|`)

// The path of a completion has at most twelve functions, in the files that the page names.
func TestArchitecture_NamesTheFunctionsOnTheWayOfACompletion(t *testing.T) {
	way := onTheWay.FindAllStringSubmatch(architecture(t), -1)
	if len(way) == 0 || len(way) > 12 {
		t.Fatalf("%d functions", len(way))
	}
	for _, m := range way {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../../..", m[2]), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(file.Decls, func(d ast.Decl) bool {
			f, ok := d.(*ast.FuncDecl)
			return ok && named(f) == m[1]
		}) {
			t.Errorf("%s has no %s", m[2], m[1])
		}
	}
}

// named returns Receiver.Name, or the name of a function.
func named(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	of := f.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	return of.(*ast.Ident).Name + "." + f.Name.Name
}
