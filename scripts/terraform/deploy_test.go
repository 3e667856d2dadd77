package terraform

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
)

// What packaging makes of this checkout is what Terraform looks for.
func TestArchivesOfThisCheckoutAreTheOnesThatAreDeployed(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.Command("go", "run", "../packaging", "--out", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("packaging: %v\n%s", err, out)
	}
	_, source, _ := strings.Cut(strings.TrimSpace(string(out)), " bytes  ")
	source, _, _ = strings.Cut(source, "\n")
	vars := map[string]cty.Value{"archives": cty.StringVal(dir), "source_hash": cty.StringVal(source)}
	if p := planned(t, vars); len(p.failed) > 0 {
		t.Errorf("source %s: %q", source, p.failed)
	}
	vars["source_hash"] = cty.StringVal(hash)
	if p := planned(t, vars); len(p.failed) != 4 {
		t.Errorf("another source than was packed: %q", p.failed)
	}
}

// makes returns the commands that a target would run, and whether it would.
func makes(t *testing.T, args ...string) (string, bool) {
	t.Helper()
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not installed")
	}
	cmd := exec.Command("make", append([]string{"-n", "-C", "../.."}, args...)...)
	for _, v := range os.Environ() { // what the tests were started with is no setting of this deployment
		if name, _, _ := strings.Cut(v, "="); slices.Contains([]string{"PATH", "HOME", "TMPDIR"}, name) || strings.HasPrefix(name, "GO") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// inOrder reports the first part that does not come after the ones before it.
func inOrder(text string, parts ...string) (missing string) {
	for _, part := range parts {
		_, after, ok := strings.Cut(text, part)
		if !ok {
			return part
		}
		text = after
	}
	return ""
}

func TestMakeDeployPacksAppliesAndTries(t *testing.T) {
	for name, tc := range map[string]struct {
		args  []string
		parts []string
		never string
	}{
		"deploy": {[]string{"deploy", "PROJECT=my-project", "REGION=us-central1"},
			[]string{"./scripts/packaging", "init -input=false", "bucket=my-project-phasegate-state", "echo var.mode | terraform -chdir=terraform console -var 'project=my-project'", `PHASEGATE_MODE="$mode" build/phasectl checks verify --project 'my-project'`,
				"hash=$(go run ./scripts/packaging", "apply -var 'project=my-project' -var 'region=us-central1'", `source_hash=$hash"`, "output -raw exports", `phasectl smoke --source "$hash"`}, " plan "},
		"plan": {[]string{"plan", "PROJECT=my-project", "REGION=us-central1"},
			[]string{"./scripts/packaging", "init -input=false", "plan -var 'project=my-project'"}, " apply "},
		"an_earlier_archive": {[]string{"deploy", "PROJECT=my-project", "REGION=us-central1", "HASH=0123456789ab"},
			[]string{"init -input=false", "hash=0123456789ab && ", " apply ", `smoke --source "$hash"`}, "packaging --version 'dev' \nterraform"},
		"another_pipeline": {[]string{"deploy", "PROJECT=my-project", "REGION=us-central1", "PIPELINE=p.yaml"},
			[]string{"packaging --version 'dev' --pipeline 'p.yaml'", "/p.yaml'", "smoke --source \"$hash\" --pipeline 'p.yaml'"}, " plan "},
	} {
		t.Run(name, func(t *testing.T) {
			out, ok := makes(t, tc.args...)
			if missing := inOrder(out, tc.parts...); !ok || missing != "" || strings.Contains(out, tc.never) {
				t.Errorf("no %q, or %q, in:\n%s", missing, tc.never, out)
			}
		})
	}
}

func TestMakeSaysWhatADeploymentNeeds(t *testing.T) {
	for want, args := range map[string][]string{
		"PROJECT= is required": {"deploy", "REGION=us-central1"}, "REGION= is required": {"plan", "PROJECT=my-project"},
	} {
		if out, ok := makes(t, args...); ok || !strings.Contains(out, want) {
			t.Errorf("make %v: %s", args, out)
		}
	}
}

// phasectl works on the same books when it is given what the functions are given.
func TestExportsAreTheFunctionsEnvironment(t *testing.T) {
	p := planned(t, map[string]cty.Value{"prefix": cty.StringVal("dev-"), "mode": cty.StringVal("shadow")})
	exports, err := p.module.eval(p.module.blocks["output.exports"].Body.Attributes["value"].Expr, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("env", "-i", "sh", "-c", `eval "$1"; env`, "sh", exports.AsString()).Output()
	if err != nil {
		t.Fatal(err)
	}
	got, want := map[string]string{}, map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name != "PWD" && name != "_" && name != "SHLVL" && name != "OLDPWD" {
			got[name] = value
		}
	}
	for name, v := range p.local("environment").AsValueMap() {
		want[name] = v.AsString()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-functions +shell):\n%s", diff)
	}
}
