package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/emulatortest"
)

// pageClock is the environment variable with the distance of a page's clock from the real one.
const pageClock = "TEST_CLOCK"

// prepared has the preconditions of a page: the working folder, a folder of programs, a time.
type prepared struct {
	dir, bin string
	now      time.Time
	settle   func() // lets messages arrive
	after    func() // checks the state at the end
}

// pages are the pages whose blocks the test types, with their preconditions.
var pages = map[string]func(*testing.T, *prepared){
	"tutorials/first-hand-over.md":         bare,
	"tutorials/your-own-pipeline.md":       bare,
	"tutorials/next-to-an-orchestrator.md": withCurl,
	"how-to/python-job.md":                 pythonJob,
	"how-to/pause-a-night.md":              fourReported,
	"how-to/backfill-a-month.md":           backfilledMonth,
	"how-to/undo-a-sweep.md":               undoneSweep,
	"how-to/upgrade-and-roll-back.md":      upgraded,
	"how-to/second-environment.md":         secondEnvironment,
	"how-to/test-the-alerts.md":            testedAlerts,
	"how-to/leave.md":                      left,
}

// bare is a machine with only phasectl, in the morning.
func bare(_ *testing.T, p *prepared) { p.now = time.Date(2026, 2, 4, 8, 5, 0, 0, time.UTC) }

func withCurl(t *testing.T, p *prepared) {
	emulatortest.Program(t, "curl")
	bare(t, p)
}

// program puts a program into the folder of the page's programs.
func (p *prepared) program(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.bin, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
}

// deskOf is an operator's machine with the running system of the NBA pipeline and programs of its processors.
func deskOf(t *testing.T, p *prepared) *system {
	t.Helper()
	s := running(t)
	p.now, p.settle = s.Clock.Now(), s.settle
	for _, name := range five {
		p.program(t, name, "")
	}
	return s
}

func pythonJob(t *testing.T, p *prepared) {
	emulatortest.Python(t)
	fourReported(t, p)
}

// fourReported is a night of which the first processor has not reported yet.
func fourReported(t *testing.T, p *prepared) {
	s := deskOf(t, p)
	for _, name := range five[1:] {
		s.report(completion(name, "2026-02-03"))
	}
}

func backfilledMonth(t *testing.T, p *prepared) {
	s := deskOf(t, p)
	var reports []map[string]any
	for day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC); day.Month() == time.January; day = day.AddDate(0, 0, 1) {
		for _, name := range five {
			reports = append(reports, completion(name, day.Format(time.DateOnly)))
		}
	}
	s.report(reports...)
}

func undoneSweep(t *testing.T, p *prepared) {
	w := newWorstNight(t)
	w.ran(five...)
	w.exec("INSERT INTO nba_analytics.player_game_summary SELECT * FROM nba_analytics.player_game_summary WHERE game_date = '2026-02-03' LIMIT 10")
	w.Clock.AdvanceTo(time.Date(2026, 2, 4, 13, 10, 0, 0, time.UTC)) // a table is judged once it has been idle for 30 minutes
	w.settle()
	p.now, p.settle = w.Clock.Now(), w.settle
}

func upgraded(t *testing.T, p *prepared) {
	deskOf(t, p).night("2026-02-03")
	calls := standIns(t, p, ":")
	p.after = func() {
		if missing := inOrder(calls(), "git checkout v1.2.3", "terraform -chdir=terraform plan", "phasectl doctor --before-deploy", "phasectl checks verify", "terraform -chdir=terraform apply", "phasectl smoke --source 0123456789ab",
			"gcloud storage cp gs://my-project-phasegate-functions/*-fedcba987654.zip build/functions/", "source_hash=fedcba987654", "phasectl smoke --source fedcba987654"); missing != "" {
			t.Errorf("no %q in\n%s", missing, calls())
		}
	}
}

var variableForm = regexp.MustCompile(`(?m)^(\w+) += `)

func secondEnvironment(t *testing.T, p *prepared) {
	deskOf(t, p).night("2026-02-03")
	calls := standIns(t, p, "echo \"export PHASEGATE_PREFIX='dev-'; export PHASEGATE_TABLES='read'\"")
	p.after = func() {
		if missing := inOrder(calls(), "init -input=false -reconfigure -backend-config=bucket=my-project-phasegate-state -backend-config=prefix=phasegate-dev\n", " plan ", "-var-file=dev.tfvars\n", " apply ", "-var-file=dev.tfvars\n", "phasectl smoke", " destroy -var-file=dev.tfvars"); missing != "" {
			t.Errorf("no %q in\n%s", missing, calls())
		}
		vars, err := os.ReadFile(filepath.Join(p.dir, "terraform", "dev.tfvars"))
		if err != nil {
			t.Fatal(err)
		}
		known, err := os.ReadFile("../../terraform/variables.tf")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range variableForm.FindAllStringSubmatch(string(vars), -1) {
			if !strings.Contains(string(known), `variable "`+m[1]+`"`) {
				t.Errorf("terraform/ has no variable %s", m[1])
			}
		}
	}
}

func testedAlerts(t *testing.T, p *prepared) {
	s, _ := runningAt(t, time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC))
	p.now, p.settle = s.Clock.Now(), s.settle
	emulatortest.Program(t, "curl")
	p.program(t, "gcloud", `case "$1 $2 $3" in "pubsub topics publish") ;; *) exit 0;; esac
data=$(printf %s "${5#--message=}" | base64)
id=$(curl -sf "http://$PUBSUB_EMULATOR_HOST/v1/projects/$GOOGLE_CLOUD_PROJECT/topics/$4:publish" -d "{\"messages\":[{\"data\":\"$data\"}]}" | tr -d '\n ' | sed 's/.*\["//; s/"\].*//')
printf "messageIds:\n- '%s'\n" "$id"
`)
}

func left(t *testing.T, p *prepared) {
	deskOf(t, p).night("2026-02-03")
	calls := standIns(t, p, ":")
	p.after = func() {
		if missing := inOrder(calls(), "gcloud firestore export", "bq extract", " state rm ", " destroy ", "gcloud firestore bulk-delete"); missing != "" {
			t.Errorf("no %q in\n%s", missing, calls())
		}
	}
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

// standIns puts stand-ins of the programs that change a project of Google Cloud into bin, and a Makefile
// next to the page. They record their arguments. scripts/verify/terraform tests the arguments that make gives.
func standIns(t *testing.T, p *prepared, exports string) (calls func() string) {
	t.Helper()
	noted := filepath.Join(p.dir, ".calls")
	note := func(name string) string { return `echo "` + name + ` $*" >>` + noted + "\n" }
	for _, name := range []string{"git", "gcloud", "bq"} {
		p.program(t, name, note(name))
	}
	p.program(t, "go", `case "$*" in *--hash) echo 0123456789ab;; esac`)
	p.program(t, "terraform", note("terraform")+`for a; do case $a in -var-file=*) test -f terraform/"${a#*=}" || exit 1;; esac; done
case "$2" in
console) echo '"GOOGLE_CLOUD_PROJECT=my-project PHASEGATE_SHADOW=false"';;
output) `+exports+`;;
esac
`)
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"Makefile": string(makefile), "build/phasectl": "#!/bin/sh\n" + note("phasectl"), "terraform/main.tf": ""} {
		path := filepath.Join(p.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return func() string {
		b, err := os.ReadFile(noted)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func TestPages_PrintWhatTheySay(t *testing.T) {
	const docs = "../../docs"
	var found []string
	err := filepath.WalkDir(docs, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if bytes.Contains(text, []byte("\n```console\n")) {
				found = append(found, strings.TrimPrefix(path, docs+"/"))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for page := range pages {
		if !slices.Contains(found, page) {
			t.Errorf("%s has no blocks to type", page)
		}
	}
	for _, page := range found {
		t.Run(strings.TrimSuffix(page, ".md"), func(t *testing.T) {
			prepare, ok := pages[page]
			if !ok {
				t.Fatal("has blocks to type, and no entry in pages")
			}
			path := filepath.Join(docs, page)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			p := &prepared{dir: t.TempDir(), bin: t.TempDir(), settle: func() {}, after: func() {}}
			prepare(t, p)
			s := newShell(t, p)
			lines := strings.Split(string(text), "\n")
			var fixed []string
			end := 0
			for _, step := range stepsOf(lines) {
				p.settle()
				got, status := s.types(step.command)
				for patience := time.Now().Add(patience()); strings.HasPrefix(step.command, "phasectl status") && !like(step.want, s.printed(got)) && time.Now().Before(patience); {
					got, status = s.types(step.command)
				}
				got = s.printed(got)
				if status != step.status {
					t.Fatalf("$ %s\nexit status %d, want %d\n%s", step.command, status, step.status, strings.Join(got, "\n"))
				}
				if !like(step.want, got) {
					if !*update {
						t.Errorf("$ %s\n%s", step.command, cmp.Diff(step.want, got))
					}
					fixed = append(append(fixed, lines[end:step.from]...), got...)
					end = step.to
				}
			}
			p.after()
			if *update && end > 0 {
				fixed = append(fixed, lines[end:]...)
				if err := os.WriteFile(path, []byte(strings.Join(fixed, "\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A new user comes from nothing to the first hand-over of a pipeline of its own with at most eight
// commands of phasectl.
func TestPages_OwnPipelineTakesEightCommands(t *testing.T) {
	text, err := os.ReadFile("../../docs/tutorials/your-own-pipeline.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, step := range stepsOf(strings.Split(string(text), "\n")) {
		if strings.Contains(step.command, "phasectl ") {
			commands++
		}
	}
	if commands < 5 || commands > 8 {
		t.Errorf("%d commands of phasectl, 8 are allowed", commands)
	}
}
