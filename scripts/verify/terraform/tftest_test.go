package terraform

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// The files of terraform/tests are for terraform test, which needs the provider. This test evaluates
// their runs without it: every assertion must hold, and every expected refusal must happen.
func TestTerraformTest_FilesHold(t *testing.T) {
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

// In the first plan of an empty project, the values that the provider computes are unknown. Terraform
// must still know every key of for_each, every count and the number of dynamic blocks.
func TestFirstPlan_KnowsWhichInstancesItMakes(t *testing.T) {
	for name, vars := range variants(t) {
		t.Run(name, func(t *testing.T) {
			p := &plan{t: t, stage: firstPlan}
			if err := p.evaluate(root, vars); err != nil || len(p.failed) > 0 {
				t.Fatalf("%v, refused: %q", err, p.failed)
			}
			if planned, after := len(p.instances), len(planned(t, vars).instances); planned != after {
				t.Errorf("%d instances are planned, %d after an apply", planned, after)
			}
			for _, s := range p.some("google_pubsub_subscription") {
				if at(s.value, "id").IsKnown() {
					t.Errorf("%s: its id is known before it is made", s.address)
				}
			}
		})
	}
}

// Terraform refuses keys and conditions that are unknown until the apply. The evaluator must refuse
// them, too.
func TestEvaluator_RefusesUnknownKeysAndConditions(t *testing.T) {
	for name, tc := range map[string]struct {
		stage       stage
		hcl, refuse string
	}{
		"a key from a computed attribute": {firstPlan, `
			resource "google_pubsub_topic" "a" { name = "a" }
			resource "google_pubsub_topic" "b" {
			  for_each = toset([google_pubsub_topic.a.id])
			  name     = "b"
			}`, "Invalid for_each argument"},
		"a count from a computed attribute": {firstPlan, `
			resource "google_pubsub_topic" "a" { name = "a" }
			resource "google_pubsub_topic" "b" {
			  count = length(google_pubsub_topic.a.id)
			  name  = "b"
			}`, "Invalid count argument"},
		"a key from a data source that depends on a resource": {mocked, `
			resource "google_pubsub_topic" "a" { name = "a" }
			data "google_project" "this" { depends_on = [google_pubsub_topic.a] }
			resource "google_pubsub_topic" "b" {
			  for_each = toset([data.google_project.this.number])
			  name     = "b"
			}`, "Invalid for_each argument"},
		"blocks from a data source with an unknown argument": {firstPlan, `
			resource "google_pubsub_topic" "a" { name = "a" }
			data "google_project" "this" { project_id = google_pubsub_topic.a.id }
			resource "google_pubsub_topic" "b" {
			  name = "b"
			  dynamic "schema_settings" {
			    for_each = [for s in [data.google_project.this.number] : s if s != ""]
			    content { schema = schema_settings.value }
			  }
			}`, "unknown until apply"},
		"a data source that depends on none": {mocked, `
			data "google_project" "this" {}
			resource "google_pubsub_topic" "b" {
			  for_each = toset([data.google_project.this.number])
			  name     = "b"
			}`, ""},
		"a value known only after apply as an argument": {firstPlan, `
			resource "google_pubsub_topic" "a" { name = "a" }
			resource "google_pubsub_topic" "b" { name = "b ${google_pubsub_topic.a.id}" }`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(tc.hcl), 0o600); err != nil {
				t.Fatal(err)
			}
			p := &plan{t: t, stage: tc.stage}
			m, err := p.load(dir, "", nil)
			if err == nil {
				err = m.everything()
			}
			if tc.refuse == "" && err != nil || tc.refuse != "" && (err == nil || !strings.Contains(err.Error(), tc.refuse)) {
				t.Errorf("%v, want %q", err, tc.refuse)
			}
		})
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

// hold evaluates one run, and returns its numbers of assertions and of expected refusals.
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
	p := &plan{t: t, stage: mocked}
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
		switch v, err := m.eval(b.Body.Attributes["condition"].Expr, nil); {
		case err != nil:
			t.Errorf("%s: %v", b.Range(), err)
		case !v.IsKnown():
			t.Errorf("%s: Unknown condition value: it is known only after apply", b.Range())
		case !v.True():
			t.Errorf("%s: does not hold", b.Range())
		}
	}
	if asserted == 0 {
		t.Error("asserts nothing")
	}
	return asserted, 0
}
