package terraform

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// The files of terraform/tests are for terraform test, which needs the provider. Their
// runs hold here as well: every assertion is worked out, every refusal expected.
func TestTheFilesOfTerraformTestHold(t *testing.T) {
	t.Chdir(root)
	files, err := filepath.Glob("tests/*.tftest.hcl")
	if err != nil || len(files) != 2 {
		t.Fatalf("%v: %v", files, err)
	}
	asserted, refused := 0, 0
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, diags := hclparse.NewParser().ParseHCL(src, file)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		shared := map[string]cty.Value{}
		for _, b := range f.Body.(*hclsyntax.Body).Blocks {
			switch b.Type {
			case "variables":
				shared = literals(t, b)
			case "run":
				t.Run(filepath.Base(file)+"/"+b.Labels[0], func(t *testing.T) {
					a, r := hold(t, b, maps.Clone(shared))
					asserted, refused = asserted+a, refused+r
				})
			}
		}
	}
	if asserted < 20 || refused < 7 {
		t.Errorf("only %d assertions and %d refusals", asserted, refused)
	}
}

func literals(t *testing.T, b *hclsyntax.Block) map[string]cty.Value {
	t.Helper()
	out := map[string]cty.Value{}
	for name, a := range b.Body.Attributes {
		v, diags := a.Expr.Value(nil)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		out[name] = v
	}
	return out
}

// hold works one run out and returns how much it asserts and expects to be refused.
func hold(t *testing.T, run *hclsyntax.Block, vars map[string]cty.Value) (asserted, refused int) {
	t.Helper()
	dir := "."
	for _, b := range run.Body.Blocks {
		switch b.Type {
		case "variables":
			maps.Copy(vars, literals(t, b))
		case "module":
			dir = literals(t, b)["source"].AsString()
		}
	}
	p := &plan{t: t}
	m, err := p.load(dir, "", vars)
	if expected := run.Body.Attributes["expect_failures"]; expected != nil {
		names := expected.Expr.Variables()
		if len(p.failed) == 0 && err == nil {
			err = m.everything()
		}
		if len(p.failed) != len(names) {
			t.Errorf("%d things are refused, %d should be: %q, %v", len(p.failed), len(names), p.failed, err)
		}
		return 0, len(names)
	}
	if err == nil {
		err = m.everything()
	}
	if err != nil || len(p.failed) > 0 {
		t.Fatalf("%v, refused: %q", err, p.failed)
	}
	for _, b := range run.Body.Blocks {
		if b.Type != "assert" {
			continue
		}
		asserted++
		v, err := m.eval(b.Body.Attributes["condition"].Expr, nil)
		if err != nil || !v.True() {
			t.Errorf("%s: does not hold: %v", b.Range(), err)
		}
	}
	if asserted == 0 {
		t.Error("asserts nothing")
	}
	return asserted, 0
}
