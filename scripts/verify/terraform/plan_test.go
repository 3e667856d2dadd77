// Package terraform holds the tests of terraform/. They evaluate the HCL with the pipeline's
// definition, without Terraform's provider and without a project. They compare the resources
// that would be deployed with what the code does.
//
// They cannot find errors that only the provider reports. make terraform-check finds those,
// where the provider can be downloaded.
package terraform

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/phasegate/phasegate/shared/pipeline"
)

const (
	root    = "../../../terraform"
	project = "nba-test-project"
	region  = "us-central1"
	hash    = "0123456789ab"

	projectNumber = "123456789012"
)

// given are the variables that have no default.
func given() map[string]cty.Value {
	return map[string]cty.Value{
		"project": cty.StringVal(project), "region": cty.StringVal(region),
		"source_hash": cty.StringVal(hash), "email": cty.StringVal("oncall@example.com"),
		"archives": cty.StringVal(root + "/tests/archives"),
	}
}

// instance is one planned resource.
type instance struct {
	address string // module.function["transition"].google_service_account.runs
	kind    string // google_service_account
	name    string // runs
	key     string // of for_each, "" without
	kept    bool   // Terraform refuses to destroy it
	value   cty.Value
}

// stage says which values are known: those that only an apply computes are unknown in a plan.
type stage int

const (
	applied   stage = iota // everything is known
	mocked                 // terraform test with command = plan: mocks have the values that a provider computes
	firstPlan              // a plan of an empty project: the values that a provider computes are unknown
)

// plan has all planned resources.
type plan struct {
	t         *testing.T
	stage     stage
	locations map[string]string // of datasets that exist; others are in europe-west3
	module    *module
	instances []instance
	failed    []string // messages of preconditions and validations that fail
}

// planned evaluates terraform/ as after an apply. vars replace the defaults of variables.
func planned(t *testing.T, vars map[string]cty.Value) *plan {
	t.Helper()
	p := &plan{t: t}
	if err := p.evaluate(root, vars); err != nil {
		t.Fatal(err)
	}
	return p
}

// withGuard is the plan of the NBA pipeline with a guard in front of its last phase. It has every
// alert.
func withGuard(t *testing.T) *plan {
	t.Helper()
	const service = "    service: nba-phase4-precompute-processors\n"
	written := strings.Replace(string(pipeline.Default()), service, service+"    guard: {}\n", 1)
	if _, err := pipeline.Parse([]byte(written)); err != nil || !strings.Contains(written, "guard: {}") {
		t.Fatalf("nba.yaml with a guard: %v", err)
	}
	file := filepath.Join(t.TempDir(), "guarded.yaml")
	if err := os.WriteFile(file, []byte(written), 0o600); err != nil {
		t.Fatal(err)
	}
	return planned(t, map[string]cty.Value{"pipeline_file": cty.StringVal(file)})
}

// evaluate evaluates a folder. vars replace the defaults of variables.
func (p *plan) evaluate(dir string, vars map[string]cty.Value) error {
	all := given()
	maps.Copy(all, vars)
	var err error
	if p.module, err = p.load(dir, "", all); err != nil {
		return err
	}
	return p.module.everything()
}

// all returns the instances of a resource type, of any module.
func (p *plan) all(kind string) []instance {
	p.t.Helper()
	var out []instance
	for _, i := range p.instances {
		if i.kind == kind {
			out = append(out, i)
		}
	}
	return out
}

// some is all, and fails the test if there are none: a loop over nothing would check nothing.
func (p *plan) some(kind string) []instance {
	p.t.Helper()
	out := p.all(kind)
	if len(out) == 0 {
		p.t.Fatalf("no %s is planned", kind)
	}
	return out
}

// local returns a local value of the root module.
func (p *plan) local(name string) cty.Value {
	p.t.Helper()
	v, err := p.module.local(name)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

// at returns the value at a path of attribute names and list positions.
func (i instance) at(path ...string) cty.Value { return at(i.value, path...) }

// text returns the string at a path, "" if there is none.
func (i instance) text(path ...string) string { return text(i.value, path...) }

func at(v cty.Value, path ...string) cty.Value {
	for _, name := range path {
		if v == cty.NilVal || !v.IsKnown() || v.IsNull() {
			return cty.NilVal
		}
		n, err := strconv.Atoi(name)
		switch {
		case err == nil && v.Type().IsTupleType() && n < v.LengthInt():
			v = v.Index(cty.NumberIntVal(int64(n)))
		case v.Type().IsObjectType() && v.Type().HasAttribute(name):
			v = v.GetAttr(name)
		case v.Type().IsMapType() && v.HasIndex(cty.StringVal(name)).True():
			v = v.Index(cty.StringVal(name))
		default:
			return cty.NilVal
		}
	}
	return v
}

func text(v cty.Value, path ...string) string {
	v = at(v, path...)
	switch {
	case v == cty.NilVal || v.IsNull():
		return ""
	case !v.IsKnown():
		return ""
	case v.Type() == cty.Number:
		return v.AsBigFloat().Text('f', -1)
	case v.Type() == cty.Bool:
		return strconv.FormatBool(v.True())
	}
	return v.AsString()
}

// module is one folder of HCL. Its expressions are evaluated on demand.
type module struct {
	plan   *plan
	dir    string
	prefix string // of addresses
	// deferred: the module's call depends on a resource, so its data sources are read in the apply.
	deferred bool
	vars     map[string]cty.Value
	blocks   map[string]*hclsyntax.Block // by what expressions call them
	locals   map[string]hclsyntax.Expression
	memo     map[string]cty.Value
	asked    map[string]bool // under evaluation: a second request is a cycle
}

// load reads a folder and checks the variables that it is given.
func (p *plan) load(dir, prefix string, vars map[string]cty.Value) (*module, error) {
	m := &module{plan: p, dir: dir, prefix: prefix, vars: map[string]cty.Value{}, blocks: map[string]*hclsyntax.Block{},
		locals: map[string]hclsyntax.Expression{}, memo: map[string]cty.Value{}, asked: map[string]bool{}}
	files, err := filepath.Glob(filepath.Join(dir, "*.tf"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("%s: no files: %v", dir, err)
	}
	parser := hclparse.NewParser()
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, diags := parser.ParseHCL(src, name)
		if diags.HasErrors() {
			return nil, diags
		}
		for _, b := range f.Body.(*hclsyntax.Body).Blocks {
			if err := m.add(b); err != nil {
				return nil, err
			}
		}
	}
	return m, m.setVariables(vars)
}

func (m *module) add(b *hclsyntax.Block) error {
	name := ""
	switch b.Type {
	case "resource":
		name = b.Labels[0] + "." + b.Labels[1]
	case "data":
		name = "data." + b.Labels[0] + "." + b.Labels[1]
	case "module", "variable", "output":
		name = b.Type + "." + b.Labels[0]
	case "locals":
		for _, a := range b.Body.Attributes {
			if m.locals[a.Name] != nil {
				return fmt.Errorf("local %s is declared twice", a.Name)
			}
			m.locals[a.Name] = a.Expr
		}
		return nil
	case "terraform", "provider", "import":
		name = b.Type + "." + b.Range().String()
	default:
		return fmt.Errorf("%s: a block of type %s", b.Range(), b.Type)
	}
	if m.blocks[name] != nil {
		return fmt.Errorf("%s is declared twice", name)
	}
	m.blocks[name] = b
	return nil
}

// setVariables sets variables to the given values, or to their defaults, and runs their validations.
func (m *module) setVariables(vars map[string]cty.Value) error {
	for name := range vars {
		if m.blocks["variable."+name] == nil {
			return fmt.Errorf("%s has no variable %s", m.dir, name)
		}
	}
	for _, name := range m.names("variable.") {
		b := m.blocks["variable."+name]
		v, ok := vars[name]
		if !ok {
			d := b.Body.Attributes["default"]
			if d == nil {
				return fmt.Errorf("%s: variable %s is required", m.dir, name)
			}
			var diags hcl.Diagnostics
			if v, diags = d.Expr.Value(nil); diags.HasErrors() {
				return diags
			}
		}
		kind, diags := typeexpr.TypeConstraint(b.Body.Attributes["type"].Expr)
		if diags.HasErrors() {
			return diags
		}
		var err error
		if m.vars[name], err = convert.Convert(v, kind); err != nil {
			return fmt.Errorf("%s: variable %s: %w", m.dir, name, err)
		}
	}
	for _, name := range m.names("variable.") {
		for _, b := range m.blocks["variable."+name].Body.Blocks {
			if err := m.condition(b, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// condition evaluates a validation or a precondition, and adds its message to the plan if it fails.
func (m *module) condition(b *hclsyntax.Block, scope map[string]cty.Value) error {
	v, err := m.eval(b.Body.Attributes["condition"].Expr, scope)
	if err != nil {
		return err
	}
	if !v.IsKnown() || v.True() { // Terraform evaluates an unknown condition again in the apply
		return nil
	}
	why, err := m.eval(b.Body.Attributes["error_message"].Expr, scope)
	if err == nil {
		m.plan.failed = append(m.plan.failed, why.AsString())
	}
	return err
}

// names returns the names of the blocks with a prefix, without the prefix, sorted.
func (m *module) names(prefix string) []string {
	var out []string
	for name := range m.blocks {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			out = append(out, rest)
		}
	}
	slices.Sort(out)
	return out
}

// everything evaluates every resource, module and output.
func (m *module) everything() error {
	for _, name := range slices.Sorted(maps.Keys(m.locals)) {
		if _, err := m.local(name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.blocks)) {
		b := m.blocks[name]
		var err error
		switch b.Type {
		case "resource", "data", "module":
			_, err = m.block(name)
		case "output":
			_, err = m.eval(b.Body.Attributes["value"].Expr, nil)
		case "import":
			if each := b.Body.Attributes["for_each"]; each != nil {
				_, err = m.eval(each.Expr, nil)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// once calls work once for a name, and keeps its result.
func (m *module) once(name string, work func() (cty.Value, error)) (cty.Value, error) {
	if v, ok := m.memo[name]; ok {
		return v, nil
	}
	if m.asked[name] {
		return cty.NilVal, fmt.Errorf("%s depends on itself", name)
	}
	m.asked[name] = true
	defer delete(m.asked, name)
	v, err := work()
	if err == nil {
		m.memo[name] = v
	}
	return v, err
}

func (m *module) local(name string) (cty.Value, error) {
	expr := m.locals[name]
	if expr == nil {
		return cty.NilVal, fmt.Errorf("no local %s", name)
	}
	return m.once("local."+name, func() (cty.Value, error) { return m.eval(expr, nil) })
}
