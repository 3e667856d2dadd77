package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// session is a first day at a terminal: commands and edits, with what they print.
type session struct {
	t               *testing.T
	transcript      strings.Builder
	commands, edits int
}

func (s *session) note(format string, args ...any) { fmt.Fprintf(&s.transcript, format, args...) }

// run runs a command that has to succeed, and returns what it prints.
func (s *session) run(words ...string) string {
	s.t.Helper()
	s.commands++
	code, stdout, stderr := command(s.t, words...)
	line := "$ phasectl"
	for _, word := range words {
		if strings.Contains(word, " ") {
			word = shellQuote(word)
		}
		line += " " + word
	}
	s.note("%s\n%s", line, stdout)
	if code != 0 {
		s.t.Fatalf("%s\nexit %d: %s", &s.transcript, code, stderr)
	}
	return stdout
}

// edit changes a line of a file, the first that is like it.
func (s *session) edit(file, from, to string) {
	s.t.Helper()
	s.edits++
	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), from) {
		s.t.Fatalf("%s\nno line %q: %v", &s.transcript, from, err)
	}
	s.note("- %s\n+ %s\n", strings.TrimSpace(from), strings.TrimSpace(to))
	if err := os.WriteFile(file, []byte(strings.Replace(string(data), from, to, 1)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

var exported = regexp.MustCompile(`(?m)^export (\w+)='(.*)'$`)

// A new user comes from nothing to the first hand-over of a pipeline of its own, with at most
// eight commands and three edits. go test ./scripts/phasectl -run FirstDay -v prints the transcript.
func TestFirstDay_LeadsFromInitToTheFirstHandOver(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	began := time.Now()
	s := &session{t: t}
	defer func() { t.Logf("\n%s", &s.transcript) }()

	answers := []string{"shop", "Europe/Berlin", "", "raw, clean, marts", "orders, refunds, visits", "sales, returns, sessions, stock, customers", "revenue, churn, basket, forecast", "", "", ""}
	typed(t, answers...)
	s.note("# answers: %s\n", strings.Join(answers, " ⏎ "))
	s.run("init")
	s.edit("pipeline.yaml", "        key: [day, id] #", "        key: [day, order_id] #")
	s.edit("pipeline.yaml", "        # optional: [visits]", "        optional: [visits]")
	s.edit("pipeline.yaml", "        # grace: {quorum_pct: 60, after: 30m}", "        grace: {quorum_pct: 60, after: 20m}")
	checked := s.run("pipeline", "check", "pipeline.yaml")
	if !strings.Contains(checked, "    critical  orders, refunds\n    optional  visits\n") || !strings.Contains(checked, "    grace     20m after") {
		t.Errorf("check does not say what was edited:\n%s", checked)
	}

	data := filepath.Join(dir, "data")
	_, _, stop := start(t, "local", "--pipeline", "pipeline.yaml", "--data", data, "--port-base", "0", "--json")
	s.commands++
	s.note("$ phasectl local --pipeline pipeline.yaml --data data --port-base 0 &\n")
	for _, v := range exported.FindAllStringSubmatch(s.run("env", "--data", data), -1) {
		t.Setenv(v[1], v[2])
	}

	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	day := began.In(berlin).AddDate(0, 0, -1).Format(time.DateOnly)
	var last string
	for _, processor := range []string{"orders", "refunds", "visits"} {
		last = s.run("complete", processor, day, "--reason", "the first run")
	}
	if want := day + " daily of raw_to_clean is published: 3 of 3 complete\n"; !strings.Contains(last, want) {
		t.Errorf("no first hand-over: %q, want %q", last, want)
	}
	shown := s.run("status")
	if !strings.Contains(shown, day+"  daily of raw_to_clean  published  3 of 3 complete\n    batch 1  published  all_complete, 3 of 3 messages sent\n") {
		t.Errorf("status:\n%s", shown)
	}
	if code := stop(); code != 0 {
		t.Errorf("local ends with %d", code)
	}
	s.note("# %d commands, %d edits\n", s.commands, s.edits)
	if s.commands > 8 || s.edits > 3 {
		t.Errorf("%d commands and %d edits, 8 and 3 are allowed", s.commands, s.edits)
	}
}
