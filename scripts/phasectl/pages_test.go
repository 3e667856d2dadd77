package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/emulatortest"
)

// A page shows what a reader types, and what the commands print, in blocks of the language console.
// The test types all blocks of a page into one shell, in their order, and compares the output.
//
//   - "$ " begins a command, "> " continues it.
//   - A comment "# exit status 1" says how a command ends; without one it ends with 0.
//   - A line "…" stands for any lines of the output, " …" at the end of a line for the rest of it.
//   - phasectl local runs until the page ends, as in a terminal of its own, on ports that are free.
//   - phasectl status is repeated until it prints what the page shows, as a reader does while a
//     message is on its way.
//
// go test ./scripts/phasectl -run Pages -update writes the output that differs.
type step struct {
	command  string
	status   int
	want     []string
	from, to int // lines of the output in the page
}

var statusForm = regexp.MustCompile(`# exit status (\d+)`)

// stepsOf reads the console blocks of a page.
func stepsOf(lines []string) (steps []step) {
	in := false
	for i := 0; i < len(lines); i++ {
		switch line := lines[i]; {
		case strings.HasPrefix(line, "```"):
			in = !in && line == "```console"
		case in && strings.HasPrefix(line, "$ "):
			s := step{command: line[2:]}
			for i+1 < len(lines) && (strings.HasPrefix(lines[i+1], "> ") || lines[i+1] == ">") {
				i++
				s.command += "\n" + strings.TrimPrefix(strings.TrimPrefix(lines[i], ">"), " ")
			}
			if m := statusForm.FindStringSubmatch(s.command); m != nil {
				s.status, _ = strconv.Atoi(m[1])
			}
			for s.from = i + 1; i+1 < len(lines) && !strings.HasPrefix(lines[i+1], "$ ") && !strings.HasPrefix(lines[i+1], "```"); {
				i++
				s.want = append(s.want, lines[i])
			}
			s.to = i + 1
			steps = append(steps, s)
		}
	}
	return steps
}

// like reports whether lines are those that a page shows, where "…" stands for any.
func like(want, got []string) bool {
	for i, line := range want {
		if line == "…" {
			for j := range len(got) - i + 1 {
				if like(want[i+1:], got[i+j:]) {
					return true
				}
			}
			return false
		}
		if i >= len(got) {
			return false
		}
		if begin, ok := strings.CutSuffix(line, " …"); got[i] != line && !(ok && strings.HasPrefix(got[i], begin)) {
			return false
		}
	}
	return len(want) == len(got)
}

func TestLike_DotsStandForAnyLines(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"a|b", "a|b", true}, {"a", "a|b", false}, {"a|b", "a", false}, {"a|…", "a", true}, {"a|…", "a|b|c", true}, {"…|c", "a|b|c", true},
		{"a|…|c", "a|b", false}, {"a|…|c|…|e", "a|b|c|d|e", true}, {"…", "", true}, {"a", "", false}, {"a b …", "a b c", true}, {"a b …", "a c b", false},
	} {
		if got := like(strings.Split(c.want, "|"), strings.Split(c.got, "|")); got != c.ok {
			t.Errorf("%q like %q: %t", c.got, c.want, got)
		}
	}
}

// shell is a session of bash in a folder of its own.
type shell struct {
	t     *testing.T
	in    io.Writer
	out   *bufio.Reader
	ports *strings.Replacer // the ports of this test → those that a page shows
	back  *strings.Replacer
	dir   string
	shown map[string]string // an id as a page shows it → as it is
}

const endOfCommand = "\x01"

// newShell starts a session in which phasectl is this test binary, at the time that clock shows.
func newShell(t *testing.T, p *prepared) *shell {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.bin, "phasectl"), []byte("#!/bin/sh\nexec "+cli.Quote(self)+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &shell{t: t, dir: p.dir, shown: map[string]string{}, ports: strings.NewReplacer(), back: strings.NewReplacer()}
	cmd := exec.CommandContext(t.Context(), emulatortest.Program(t, "bash"), "--norc", "-s")
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), asPhasectl+"=1", pageClock+"="+time.Until(p.now).String(), "HOME="+s.dir, "XDG_CACHE_HOME=", "PATH="+p.bin+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr, s.in, s.out = w, w, in, bufio.NewReader(r)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // the status of the last command, which was judged
		r.Close()
	})
	return s
}

// types runs a command, and returns what it prints and how it ends.
func (s *shell) types(command string) (lines []string, status int) {
	s.t.Helper()
	if strings.HasPrefix(command, "phasectl local") {
		return s.background(command), 0
	}
	for shown, is := range s.shown {
		command = strings.ReplaceAll(command, shown, is)
	}
	fmt.Fprintf(s.in, "{ %s\n} 2>&1 </dev/null; printf '\\n%s%%d\\n' $?\n", s.back.Replace(command), endOfCommand)
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s: the shell ended: %v\n%s", command, err, strings.Join(lines, "\n"))
		}
		line = strings.TrimSuffix(line, "\n")
		if code, ok := strings.CutPrefix(line, endOfCommand); ok {
			status, err = strconv.Atoi(code)
			if err != nil {
				s.t.Fatal(err)
			}
			if n := len(lines); lines[n-1] == "" { // printf began a line
				lines = lines[:n-1]
			}
			return lines, status
		}
		if !strings.HasPrefix(line, `{"time"`) { // a log line
			lines = append(lines, line)
		}
	}
}

// background runs phasectl local until the test ends, and returns what it prints when it is ready.
func (s *shell) background(command string) (lines []string) {
	s.t.Helper()
	fifo := filepath.Join(s.dir, ".local")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintf(s.in, "%s --port-base 0 </dev/null >%s 2>%s & local=$!; trap 'kill $local; wait $local' EXIT\n", command, fifo, filepath.Join(s.dir, ".logs"))
	r, err := os.Open(fifo)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { r.Close() })
	b := bufio.NewReader(r)
	for !strings.HasPrefix(strings.Join(lines[max(0, len(lines)-1):], ""), "In another terminal:") {
		line, err := b.ReadString('\n')
		if err != nil {
			logs, _ := os.ReadFile(filepath.Join(s.dir, ".logs"))
			s.t.Fatalf("%s: %v\n%s\n%s", command, err, strings.Join(lines, "\n"), logs)
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	var there []string
	for i, name := range []string{"Pub/Sub", "transition", "Slack"} {
		for _, line := range lines {
			if m := regexp.MustCompile(`^  ` + name + ` .*?(127\.0\.0\.1:\d+)`).FindStringSubmatch(line); m != nil {
				there = append(there, m[1], []string{"127.0.0.1:8085", "127.0.0.1:8088", "127.0.0.1:39001"}[i])
			}
		}
	}
	s.ports = strings.NewReplacer(there...)
	slices.Reverse(there)
	s.back = strings.NewReplacer(there...)
	return lines
}

// printed is output without what differs from one call of the tests to the next.
func (s *shell) printed(lines []string) []string {
	text := roundTime(s.ports.Replace(strings.Join(lines, "\n") + "\n"))
	text = strings.ReplaceAll(text, s.dir, "/home/you")
	for _, v := range varying {
		text = v.is.ReplaceAllStringFunc(text, func(is string) string {
			shown := v.is.ReplaceAllString(is, v.with)
			if strings.HasSuffix(shown, "-ID") {
				s.shown[shown] = is
			}
			return shown
		})
	}
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return nil
	}
	out := strings.Split(text, "\n")
	for i := range out {
		out[i] = strings.TrimRight(out[i], " ")
	}
	return out
}

// patience is how long a message may be on its way.
func patience() time.Duration {
	if *update {
		return time.Second
	}
	return 20 * time.Second
}

// pageClock is the environment variable with the distance of a page's clock from the real one.
const pageClock = "TEST_CLOCK"

// prepared is what a page takes for granted: the folder it is read in, a folder of programs, a time.
type prepared struct {
	dir, bin string
	now      time.Time
	settle   func() // lets messages arrive
	after    func() // says what has to be true at the end
}

// pages have blocks that are typed, each with what it takes for granted.
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

// bare is a machine with phasectl alone, in the morning.
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

// deskOf is an operator's, at the running system of the NBA pipeline, whose processors have programs.
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
// next to the page. They note how they are called. What make gives them is tested in scripts/verify/terraform.
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
