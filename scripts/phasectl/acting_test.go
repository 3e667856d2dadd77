package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// pipelineFile writes the default definition with changes to a file, and sets the environment variable
// to it. The file has no checks, because there is no warehouse.
func pipelineFile(t *testing.T, oldnew ...string) (path, hash string) {
	t.Helper()
	before, rest, _ := strings.Cut(string(pipeline.Default()), "    checks:\n")
	_, after, _ := strings.Cut(rest, "\n# Jobs")
	definition := strings.NewReplacer(oldnew...).Replace(before + "\n# Jobs" + after)
	p, err := pipeline.Parse([]byte(definition))
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(path, []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIPELINE_FILE", path)
	return path, p.Hash
}

func TestActingCommands_CompareTheirDefinitionWithTheDeployedOne(t *testing.T) {
	s := running(t)
	why := []string{"--reason", "to see"}
	acting := map[string][]string{
		"trigger":           {"trigger", "--date", "2026-02-03", "--mode", "overnight"},
		"hold":              {"hold", "2026-02-03", "overnight", "--for", "1h"},
		"release":           {"release", "2026-02-03", "overnight"},
		"locks release":     {"locks", "release", "PlayerGameSummaryProcessor_2026-02-03"},
		"quarantine replay": {"quarantine", "replay", "--all"},
		"dead-letter":       {"dead-letter", "replay", "--all"},

		"close":               {"close", "2026-02-03", "overnight"},
		"quarantine discard":  {"quarantine", "discard", "4711"},
		"dead-letter discard": {"dead-letter", "discard", "4711"},
	}
	// Without a deployment there is no definition to differ from.
	path, hash := pipelineFile(t, "name: nba\n", "name: nba\n# another\n")
	if code, stdout, stderr := command(t, append(acting["hold"], why...)...); code != 0 {
		t.Fatalf("%d %s%s", code, stdout, stderr)
	}
	if err := s.App.Heartbeat(t.Context(), "reconcile", "relay"); err != nil {
		t.Fatal(err)
	}
	for name, args := range acting {
		code, stdout, stderr := command(t, append(args, why...)...)
		if code != 1 || stdout != "" || !strings.Contains(stderr, hash) || !strings.Contains(stderr, s.App.Pipeline.Hash) || !strings.Contains(stderr, path) ||
			!strings.Contains(stderr, "Name the deployed file with --pipeline, deploy this one, or continue with --definition-differs") {
			t.Errorf("%s: %d %s%s", name, code, stdout, stderr)
		}
		if _, _, stderr := command(t, append(append(args, why...), "--definition-differs")...); strings.Contains(stderr, "pipeline file") {
			t.Errorf("%s: refused in spite of --definition-differs: %s", name, stderr)
		}
	}
	for name, args := range map[string][]string{"reconcile": {"reconcile", "--fix"}, "sweep": {"sweep", "--fix"}, "undo": {"sweep", "undo", "x"}} {
		if code, _, stderr := command(t, args...); code != 1 || !strings.Contains(stderr, hash) {
			t.Errorf("%s: %d %s", name, code, stderr)
		}
	}
	// Commands that only read do not compare the definition.
	if code, _, stderr := command(t, "status", "--date", "2026-02-03"); code != 0 {
		t.Errorf("status: %d %s", code, stderr)
	}
	if code, _, stderr := command(t, append(acting["trigger"], "--dry-run")...); strings.Contains(stderr, "pipeline file") {
		t.Errorf("dry run: %d %s", code, stderr)
	}
	t.Setenv("PIPELINE_FILE", "")
	if code, _, stderr := command(t, append(acting["hold"], why...)...); code != 0 {
		t.Errorf("the deployed file: %d %s", code, stderr)
	}
}

// actsOtherwise are the commands without --definition-differs, and why they need none.
var actsOtherwise = map[string]string{
	"status": "reads", "explain": "reads", "report": "reads", "health": "reads", "drift": "compares the definitions itself", "daily": "reads", "pipeline check": "reads a file", "init": "writes a file", "pipeline diff": "compares definitions",
	"checks verify": "runs before a deployment", "checks run": "reads", "locks list": "reads", "sweep list": "reads",
	"quarantine list": "reads", "quarantine show": "reads", "receipt list": "reads", "receipt show": "reads", "dead-letter list": "reads", "env": "prints", "version": "prints",
	"run":   "runs in a processor's image, which may be older than the functions",
	"guard": "stands in a processor's image, as run does",
	"smoke": "tries the deployed functions", "doctor": "reads", "drill": "tries the deployed functions",
	"serve": "is the functions", "local": "is the functions", "demo": "is the functions",
}

func TestActingCommands_AllCompareTheirDefinition(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		path := strings.TrimPrefix(cmd.CommandPath(), "phasectl ")
		_, exempt := actsOtherwise[path]
		if compares := cmd.Flags().Lookup("definition-differs") != nil; compares == exempt && cmd.HasParent() && !(cmd.HasSubCommands() && !compares) {
			t.Errorf("%s: compares its definition: %v, needs no comparison: %v; give it --definition-differs, or the reason why it needs none", path, compares, exempt)
		}
		for _, below := range cmd.Commands() {
			visit(below)
		}
	}
	visit(newRoot())
}

func TestActingCommands_RefuseANameWithoutFormerly(t *testing.T) {
	running(t)
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	ago := func(days int) string { return string(p.Calendar.Add(p.Calendar.At(time.Now()), -days)) }
	hold := func(period, mode string, more ...string) []string {
		return append([]string{"hold", period, mode, "--for", "1h", "--reason", "to see"}, more...)
	}
	pipelineFile(t)
	for days := range 3 {
		if code, _, stderr := command(t, hold(ago(days+1), "overnight")...); code != 0 {
			t.Fatalf("%d %s", code, stderr)
		}
	}
	pipelineFile(t, "- id: phase3_to_phase4", "- id: up_to_down")
	if code, stdout, _ := command(t, "checks", "verify"); code != 1 || !strings.Contains(stdout, `transition "phase3_to_phase4" has state of`) {
		t.Errorf("%d %s", code, stdout)
	}
	pipelineFile(t, "- id: phase3_to_phase4", "- id: up_to_down\n    formerly: [phase3_to_phase4]")
	if code, stdout, _ := command(t, "checks", "verify"); code != 0 {
		t.Errorf("%d %s", code, stdout)
	}
	const fix = "write `formerly: [overnight]` at its new name"
	for name, tc := range map[string]struct {
		formerly string
		want     int
	}{
		"without": {"", 1}, "with": {"        formerly: [overnight]\n", 0}, "declared_new": {"        formerly: []\n", 0}, "of_another_name": {"        formerly: [nightly]\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			pipelineFile(t, "- name: overnight\n", "- name: late\n"+tc.formerly)
			code, _, stderr := command(t, hold(ago(1), "late")...)
			if code != tc.want || code != 0 && !strings.Contains(stderr, fix) {
				t.Errorf("hold: %d %s", code, stderr)
			}
			code, stdout, stderr := command(t, "checks", "verify")
			if code != tc.want || code != 0 && !strings.Contains(stdout, fix) {
				t.Errorf("checks verify: %d %s%s", code, stdout, stderr)
			}
		})
	}
	pipelineFile(t, "- name: overnight\n", "- name: late\n")
	if code, _, stderr := command(t, hold(ago(1), "late", "--definition-differs")...); code != 0 {
		t.Errorf("refused in spite of --definition-differs: %d %s", code, stderr)
	}
}

func TestStatus_ShowsReportsThatAreMostLikelyMistakes(t *testing.T) {
	s := running(t)
	bad := completion("player_gam_summary", "2026-02-03")
	far := completion(five[0], "2062-02-03")
	s.report(bad, far)
	want(t, 0, []string{`doubtful: "player_gam_summary" reported for 2026-02-03, and is no processor that is waited for: did you mean player_game_summary?`}, "status", "--date", "2026-02-03")
	want(t, 0, []string{"2062-02-03  ", "which is later than every period that is expected now"}, "status", "--date", "2062-02-03")
}
