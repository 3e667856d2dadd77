// Command gotest runs go test and ends with one line that says how many tests were
// skipped, why, and which command runs them:
//
//	go run ./scripts/gotest --alone --record build/skipped.json -- -shuffle=on ./...
//	go run ./scripts/gotest --only build/skipped.json -- -shuffle=on ./shared/sweep
//
// What go test prints comes through as it prints it without -v: a line for each package,
// and all output of a test that failed. The exit status is that of go test.
//
// --alone takes the emulators' addresses out of the environment, so that every test that
// needs more than Go is skipped (see shared/emulatortest). --record writes which tests
// those were. --only runs the tests in such a record, and no others, in the packages given.
// --slowest prints the tests that took longest, as rows of a table in Markdown.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// Exit codes of our own.
const (
	exitFailed = 1
	exitUsage  = 64
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("gotest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	alone := flags.Bool("alone", false, "run without emulators, whatever is there")
	record := flags.String("record", "", "write the tests that were skipped for want of something to this file")
	only := flags.String("only", "", "run the tests in this record alone")
	slowest := flags.Int("slowest", 0, "print so many of the tests that took longest")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	test := []string{"test", "-json"}
	if *only != "" {
		pattern, err := readRecord(*only)
		if err != nil {
			fmt.Fprintln(stderr, "gotest:", err)
			return exitFailed
		}
		test = append(test, "-run", pattern)
	}
	env := os.Environ()
	if *alone {
		env = aloneIn(env)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	s, code, err := gotest(ctx, append(test, flags.Args()...), env, stdout, stderr)
	if err == nil && *record != "" {
		err = s.write(*record)
	}
	if err != nil {
		fmt.Fprintln(stderr, "gotest:", err)
		return exitFailed
	}
	fmt.Fprint(stdout, s.slowest(*slowest))
	fmt.Fprintln(stdout, s.line())
	return code
}

// aloneIn returns an environment in which no test finds more than Go.
func aloneIn(env []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return strings.HasSuffix(name, "_EMULATOR_HOST") || name == "BQEMU" || name == "REQUIRE_EMULATORS"
	})
	return append(env, "TEST_ALONE=1")
}

// gotest runs go test and returns what it came to, and its exit status.
func gotest(ctx context.Context, args, env []string, stdout, stderr io.Writer) (*summary, int, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env, cmd.Stderr = env, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	events, err := cmd.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	s := newSummary()
	readErr := s.read(events, stdout)
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, 0, err
	}
	return s, cmd.ProcessState.ExitCode(), readErr
}

// event is a line of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Output string

	Elapsed float64 // seconds
}

// summary is what the events came to.
type summary struct {
	passed, failed int
	packages       int                            // that failed
	skipped        map[string]int                 // by reason
	wanting        map[string]map[string]struct{} // by package: tests, of which a part was skipped for want of something
	output         map[[2]string][]string         // of tests that have not ended
	took           []event                        // tests that have ended, no subtests
}

func newSummary() *summary {
	return &summary{skipped: map[string]int{}, wanting: map[string]map[string]struct{}{}, output: map[[2]string][]string{}}
}

// needs is how shared/emulatortest begins a reason; behind the last colon stands the command.
const needs = "needs "

// read takes events to their end, and prints what go test without -v would.
func (s *summary) read(events io.Reader, w io.Writer) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				e = event{Action: "output", Output: string(line)} // not from a test
			}
			if _, err := io.WriteString(w, s.take(e)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// take counts one event and returns what is to be printed.
func (s *summary) take(e event) string {
	key := [2]string{e.Package, e.Test}
	if e.Test == "" {
		switch {
		case e.Output == "PASS\n", strings.HasSuffix(e.Output, "\t[no test files]\n"):
			return ""
		case strings.HasPrefix(e.Output, "-test.shuffle "): // with which a failure can be repeated
			s.output[key] = append(s.output[key], e.Output)
			return ""
		case e.Action == "fail":
			s.packages++
			return strings.Join(s.output[key], "")
		}
		return e.Output // of the package or the compiler; other actions have none
	}
	if e.Elapsed > 0 && !strings.Contains(e.Test, "/") {
		s.took = append(s.took, e)
	}
	switch e.Action {
	case "output":
		s.output[key] = append(s.output[key], e.Output)
		return ""
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		defer delete(s.output, key)
		return strings.Join(s.output[key], "")
	case "skip":
		why := reason(s.output[key])
		s.skipped[why]++
		if strings.HasPrefix(why, needs) {
			if s.wanting[e.Package] == nil {
				s.wanting[e.Package] = map[string]struct{}{}
			}
			top, _, _ := strings.Cut(e.Test, "/")
			s.wanting[e.Package][top] = struct{}{}
		}
	default:
		return ""
	}
	delete(s.output, key)
	return ""
}

// reason is what a test said when it was skipped: "    file.go:12: reason".
func reason(output []string) string {
	for _, line := range output {
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok := strings.Cut(text, ": "); ok {
				return strings.TrimSpace(text)
			}
		}
	}
	return "no reason given"
}

// line is the last one: "412 tests passed, 3 failed (packages: 1), 80 skipped: 80 without …; make test-all runs those".
func (s *summary) line() string {
	text := fmt.Sprintf("%d tests passed, %d failed", s.passed, s.failed)
	if s.packages > 0 { // one that does not build has no test that failed
		text += fmt.Sprintf(" (packages: %d)", s.packages)
	}
	if len(s.skipped) == 0 {
		return text + ", none skipped"
	}
	reasons := slices.SortedFunc(maps.Keys(s.skipped), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.skipped[b], s.skipped[a]), cmp.Compare(a, b))
	})
	total := 0
	var parts, commands []string
	for _, why := range reasons {
		total += s.skipped[why]
		what, command, found := strings.Cut(strings.TrimPrefix(why, needs), ": ")
		if !strings.HasPrefix(why, needs) || !found {
			parts = append(parts, fmt.Sprintf("%d (%s)", s.skipped[why], why))
			continue
		}
		parts = append(parts, fmt.Sprintf("%d without %s", s.skipped[why], what))
		if !slices.Contains(commands, command) {
			commands = append(commands, command)
		}
	}
	text += fmt.Sprintf(", %d skipped: %s", total, strings.Join(parts, ", "))
	if len(commands) > 0 {
		text += "; " + strings.Join(commands, " and ") + " runs those"
	}
	return text
}

// slowest are rows of a table: test, package, seconds.
func (s *summary) slowest(n int) string {
	slices.SortStableFunc(s.took, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	var b strings.Builder
	for _, e := range s.took[:min(n, len(s.took))] {
		fmt.Fprintf(&b, "| `%s` | %s | %.1f s |\n", e.Test, e.Package, e.Elapsed)
	}
	return b.String()
}

// write records the tests that lacked something, by package.
func (s *summary) write(file string) error {
	out := map[string][]string{}
	for pkg, tests := range s.wanting {
		out[pkg] = slices.Sorted(maps.Keys(tests))
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// readRecord returns a pattern for go test -run that fits the tests of a record.
func readRecord(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the record: %w; make test writes it", err)
	}
	var recorded map[string][]string
	if err := json.Unmarshal(data, &recorded); err != nil {
		return "", fmt.Errorf("read the record %s: %w", file, err)
	}
	var all []string
	for _, tests := range recorded {
		all = append(all, tests...)
	}
	slices.Sort(all)
	return "^(" + strings.Join(slices.Compact(all), "|") + ")$", nil
}
