package terraform

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Terraform finds the archives that packaging makes of this checkout.
func TestDeploy_UsesArchivesOfThisCheckout(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.Command("go", "run", "../../packaging", "--out", dir).CombinedOutput()
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
		t.Errorf("a source hash without archives: %q, want 4 failed conditions", p.failed)
	}
}

// makes returns the commands that make would run for a target, and whether make accepts it.
func makes(t *testing.T, args ...string) (string, bool) {
	t.Helper()
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not installed")
	}
	cmd := exec.Command("make", append([]string{"-n", "-C", "../../.."}, args...)...)
	for _, v := range os.Environ() { // other variables of the tests must not set options of make
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

func TestMakeDeploy_PackagesAppliesAndRunsSmokeTest(t *testing.T) {
	for name, tc := range map[string]struct {
		args  []string
		parts []string
		never string
	}{
		"deploy": {[]string{"deploy", "PROJECT=my-project", "REGION=us-central1"},
			[]string{"./scripts/packaging", "init -input=false", "bucket=my-project-phasegate-state", "terraform -chdir=terraform console -var 'project=my-project'", `build/phasectl doctor --before-deploy --project 'my-project'`, `|| [ $? -eq 2 ]`, `build/phasectl checks verify --project 'my-project'`,
				"hash=$(go run ./scripts/packaging", "apply -var 'project=my-project' -var 'region=us-central1'", `source_hash=$hash"`, "output -raw exports", `phasectl smoke --source "$hash"`}, " plan "},
		"plan": {[]string{"plan", "PROJECT=my-project", "REGION=us-central1"},
			[]string{"./scripts/packaging", "init -input=false", "plan -var 'project=my-project'"}, " apply "},
		"an_earlier_archive": {[]string{"deploy", "PROJECT=my-project", "REGION=us-central1", "HASH=0123456789ab"},
			[]string{"init -input=false", "hash=0123456789ab && ", " apply ", `smoke --source "$hash"`}, "checks verify"},
		"another_pipeline": {[]string{"deploy", "PROJECT=my-project", "REGION=us-central1", "PIPELINE=p.yaml"},
			[]string{"packaging --version 'dev' --pipeline 'p.yaml'", "/p.yaml'", "smoke --source \"$hash\" --pipeline 'p.yaml'"}, " plan "},
		"the_pipeline_that_phasectl_reads": {[]string{"deploy", "PROJECT=my-project", "REGION=us-central1", "PIPELINE_FILE=p.yaml"},
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

// deployment is a folder with the Makefile and stand-ins for go, terraform and phasectl, which
// record their arguments. As in the real terraform, console accepts no arguments of apply: it
// fails and prints nothing.
func deployment(t *testing.T, vars map[string]string) (run func(args ...string) (string, error), calls func() string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	makefile, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	write("Makefile", string(makefile))
	write("bin/go", "#!/bin/sh\ncase \"$*\" in *--hash) echo 0123456789ab;; esac\n")
	write("bin/terraform", `#!/bin/sh
echo "terraform $*" >>calls
case "$2" in
console)
	[ -z "$FAIL_CONSOLE" ] || exit 1
	for a; do case $a in -auto-approve|-lock*|-input*|-parallelism*|-target*) exit 1;; esac; done
	shadow=false
	case "$*" in *shadow*) shadow=true;; esac
	echo "\"-u SLACK_CHANNEL GOOGLE_CLOUD_PROJECT=p PHASEGATE_SHADOW=$shadow PHASEGATE_PREFIX=dev-\"";;
output) [ -z "$FAIL_OUTPUT" ] || exit 1; echo "export PHASEGATE_SHADOW='from output'";;
esac
`)
	write("build/phasectl", "#!/bin/sh\necho \"phasectl $* with shadow $PHASEGATE_SHADOW, prefix $PHASEGATE_PREFIX\" >>calls\n")
	run = func(args ...string) (string, error) {
		cmd := exec.Command("make", append([]string{"-C", dir, "deploy", "PROJECT=my-project", "REGION=us-central1"}, args...)...)
		cmd.Env = []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH"), "HOME=" + dir}
		for name, v := range vars {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	calls = func() string {
		b, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return run, calls
}

// make deploy verifies the checks for the mode that apply deploys, shadow or active. Other arguments of
// apply do not matter.
func TestMakeDeploy_VerifiesWhetherItDeploysAShadow(t *testing.T) {
	for args, want := range map[string]string{
		"":              "false",
		"-auto-approve": "false",
		"-auto-approve -var shadow=true -lock-timeout=5m": "true",
		"-var 'shadow=true' -input=false -auto-approve":   "true",
		"-parallelism 5 -var-file=shadow.tfvars":          "true",
		"-lock-timeout 5m -var-file shadow.tfvars":        "true",
	} {
		t.Run(args, func(t *testing.T) {
			run, calls := deployment(t, nil)
			out, err := run("TF_ARGS=" + args)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			plain := strings.ReplaceAll(args, "'", "")
			if missing := inOrder(calls(), " init ", "checks verify --project my-project with shadow "+want+", prefix dev-\n",
				"apply -var project=my-project", strings.TrimSpace("source_hash=0123456789ab "+plain), "smoke --source 0123456789ab with shadow from output"); missing != "" {
				t.Errorf("no %q in:\n%s", missing, calls())
			}
		})
	}
}

// If a command fails, make deploy ends, and does not use its empty output.
func TestMakeDeploy_EndsWithTheCommandThatFails(t *testing.T) {
	for fails, never := range map[string]string{"FAIL_CONSOLE": " apply ", "FAIL_OUTPUT": "smoke"} {
		t.Run(fails, func(t *testing.T) {
			run, calls := deployment(t, map[string]string{fails: "1"})
			if out, err := run(); err == nil || strings.Contains(calls(), never) {
				t.Errorf("%v, calls:\n%s\n%s", err, calls(), out)
			}
		})
	}
}

// hides are the forms with which a shell goes on with the empty output of a failed command.
var hides = map[string]*regexp.Regexp{
	"a pipe in a command substitution has the status of its last command": regexp.MustCompile(`\$\$?\([^()]*[^|]\|[^|][^()]*\)`),
	"eval has the status of what was printed":                             regexp.MustCompile(`eval "\$\$?\(`),
	"a list goes on after an assignment":                                  regexp.MustCompile(`(?m)^\t@?[a-z]+=\$\$\(.*?\); `),
}

func TestScripts_TakeNoOutputOfAFailedCommand(t *testing.T) {
	read := 0
	for _, pattern := range []string{"../../../Makefile", "../../../.ci/*", "../../../scripts/hooks/*", "../../../.github/workflows/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			read++
			text := regexp.MustCompile(`\$\(([A-Z_]+)\)`).ReplaceAllString(string(b), "$1") // make's variables
			for why, form := range hides {
				for _, m := range form.FindAllString(text, -1) {
					if last := m[strings.LastIndex(m, "|")+1:]; !strings.HasPrefix(strings.TrimSpace(last), "TERRAFORM console") {
						t.Errorf("%s: %q: %s", file, m, why)
					}
				}
			}
			if strings.HasPrefix(text, "#!") && !strings.Contains(text, "set -euo pipefail") {
				t.Errorf("%s goes on after a command that failed", file)
			}
		}
	}
	if read < 4 {
		t.Errorf("only %d files read", read)
	}
}

func TestMake_NamesMissingSettings(t *testing.T) {
	for want, args := range map[string][]string{
		"PROJECT= is required": {"deploy", "REGION=us-central1"}, "REGION= is required": {"plan", "PROJECT=my-project"},
	} {
		if out, ok := makes(t, args...); ok || !strings.Contains(out, want) {
			t.Errorf("make %v: %s", args, out)
		}
	}
}

// phasectl works on the same state as the functions, even if the shell still has variables of another
// environment or of emulators. That holds for the output exports and for ENVIRONMENT in the Makefile.
func TestExports_MatchFunctionEnvironment(t *testing.T) {
	makefile, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, expression, _ := strings.Cut(string(makefile), "\nENVIRONMENT = ")
	expression, _, _ = strings.Cut(expression, "\n")
	before := []string{"PATH=" + os.Getenv("PATH"), "PHASEGATE_PREFIX=old-", "PHASEGATE_SHADOW=true", "PHASEGATE_TABLES=read", "SLACK_CHANNEL=#old",
		"FIRESTORE_EMULATOR_HOST=127.0.0.1:1", "PUBSUB_EMULATOR_HOST=127.0.0.1:2", "BIGQUERY_EMULATOR_HOST=127.0.0.1:3"}
	for name, vars := range map[string]map[string]cty.Value{
		"defaults": nil, "another": {"prefix": cty.StringVal("dev-"), "shadow": cty.True},
	} {
		p := planned(t, vars)
		want := map[string]string{"PATH": os.Getenv("PATH")}
		for name, v := range p.local("environment").AsValueMap() {
			want[name] = v.AsString()
		}
		expr, diags := hclsyntax.ParseExpression([]byte(strings.ReplaceAll(expression, "$$", "$")), "Makefile", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		for from, how := range map[string]struct {
			expr   hclsyntax.Expression
			script string
		}{
			"exports": {p.module.blocks["output.exports"].Body.Attributes["value"].Expr, `eval "$1"; exec env`},
			"make":    {expr, `exec env $1 env`},
		} {
			t.Run(name+"/"+from, func(t *testing.T) {
				value, err := p.module.eval(how.expr, nil)
				if err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command("sh", "-c", how.script, "sh", value.AsString())
				cmd.Env = before
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				got := map[string]string{}
				for line := range strings.Lines(string(out)) {
					if name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name != "PWD" && name != "_" && name != "SHLVL" && name != "OLDPWD" {
						got[name] = value
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-functions +shell):\n%s", diff)
				}
			})
		}
	}
}
