package demo

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/scripts/dev/local"
)

// words of a command: quotes hold spaces.
var words = regexp.MustCompile(`"[^"]*"|[^" ]+`)

// phasectl runs the operator's command on an environment.
type phasectl struct {
	program string
	env     []string
}

func newPhasectl(t *testing.T, e *local.Environment, store string) phasectl {
	t.Helper()
	program := filepath.Join(t.TempDir(), "phasectl")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../phasectl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return phasectl{program, append(os.Environ(), "GOOGLE_CLOUD_PROJECT="+e.App.Config.Project, "PHASEGATE_STORE="+store, "PUBSUB_EMULATOR_HOST="+e.PubSub, "BIGQUERY_EMULATOR_HOST="+e.BigQuery)}
}

// run returns the exit status and the output.
func (p phasectl) run(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.program, args...)
	cmd.Env = p.env
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// The test runs the commands of the runbook in their order, after the demo's night. Each command
// must exist with its flags, end, and print something. make only gets --dry-run.
func everyCommandOfTheRunbookRuns(t *testing.T, p phasectl) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "how-to", "runbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	exits := map[string]int{ // where it matters; else 0, 1 or 2
		`phasectl status 2026-02-03`: 0, `phasectl explain 2026-02-03 overnight`: 0,
		`phasectl trigger 2026-02-03 overnight --reason "Phase 4 lost its tables" --dry-run`: 0, `phasectl trigger 2026-02-03 overnight --reason "Phase 4 lost its tables"`: 0,
		`phasectl sweep list`: 0, `phasectl quarantine list`: 0, `phasectl dead-letter list`: 0, `phasectl locks list`: 0,
		`phasectl quarantine replay --all --reason "the pipeline file knows the processor now"`: 1, `phasectl dead-letter replay --all --reason "BigQuery is back"`: 0,
		`phasectl hold --for 6h --reason "the week of 2 February is computed again"`: 0, `phasectl release --reason "the week is complete"`: 0,
		`phasectl trigger --from 2026-02-03 --to 2026-02-04 --mode overnight --pace 1s --reason "computed again"`:     0,
		`phasectl hold 2026-02-06 overnight --for 12h --reason "the league corrects its box scores"`:                  0,
		`phasectl release 2026-02-06 overnight --reason "the box scores are corrected"`:                               0,
		`phasectl trigger 2026-02-03 overnight --reason "BigQuery is down, the tables were compared by hand" --force`: 0,
		`phasectl checks verify`: 0, `phasectl checks run 2026-02-03 overnight`: 0, `phasectl health`: 1, `phasectl health 2026-02-06`: 1,
	}
	ran := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^    (\S.*)$`).FindAllStringSubmatch(string(text), -1) {
		line := m[1]
		ran[line] = true
		typed := words.FindAllString(line, -1)
		for i, w := range typed {
			typed[i] = strings.Trim(w, `"`)
		}
		switch typed[0] {
		case "make":
			cmd := exec.CommandContext(t.Context(), "make", append([]string{"--dry-run", "-C", filepath.Join("..", "..", "..")}, typed[1:]...)...)
			if out, err := cmd.CombinedOutput(); err != nil && !strings.Contains(string(out), "terraform is not installed") {
				t.Errorf("%s: %v\n%s", line, err, out)
			}
		case "phasectl":
			code, out := p.run(t, typed[1:]...)
			want, exact := exits[line]
			if exact && code != want || code < 0 || code > 2 || out == "" {
				t.Errorf("%s: exit %d\n%s", line, code, out)
			}
		case "gcloud": // docs/how-to/upgrade-and-roll-back.md has the same command, which a stand-in notes
		default:
			t.Errorf("%s: this page is for phasectl, make and gcloud", line)
		}
	}
	for line := range exits {
		if !ran[line] {
			t.Errorf("the page does not say any more: %s", line)
		}
	}
	for _, heading := range []string{"Daily routine", "Weekly routine", "Monthly routine", "Hand over a date that is late", "Correct `phase3_completion`", "Remove duplicate rows", "Find a late scraper", "Release a stuck lock", "Replay messages from quarantine or dead letters", "Wait for BigQuery", "Wait for Firestore", "Roll back a deployment", "Compute a week again", "Stop hand-overs"} {
		if !strings.Contains(string(text), "## "+heading) {
			t.Errorf("no %q", heading)
		}
	}
}
