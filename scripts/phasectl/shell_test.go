package main

import (
	"bufio"
	"fmt"
	"io"
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
