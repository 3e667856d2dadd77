// Command gotest runs go test and ends with one line that says how many tests were
// skipped, why, and which command runs them:
//
//	go run ./scripts/verify/gotest --alone --record build/skipped.json -- -shuffle=on ./...
//	go run ./scripts/verify/gotest --only build/skipped.json --except './shared/...' -- -shuffle=on
//
// It prints a line for each package that passed. For one that failed, it prints all output
// of the tests that failed or did not end, then the package's line. The exit status is that
// of go test.
//
// --alone takes the emulators and PHASEGATE_TEST_PROJECT out of the environment, so that
// every test that needs more than Go is skipped (see shared/emulatortest). --record writes
// which tests those were. --only runs the tests in such a record, in their packages but
// those that --except lists. --slowest prints the tests that took longest, as rows of a table in Markdown.
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
	alone := flags.Bool("alone", false, "run without emulators, even if they are running")
	record := flags.String("record", "", "write the names of skipped tests to this `FILE`")
	only := flags.String("only", "", "run only the tests in this `FILE` of --record")
	except := flags.String("except", "", "with --only: leave out the packages of these patterns")
	slowest := flags.Int("slowest", 0, "print the `N` slowest tests")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	test := append([]string{"test", "-json"}, flags.Args()...)
	if *only != "" {
		chosen, err := readRecord(ctx, *only, *except)
		if err != nil {
			fmt.Fprintln(stderr, "gotest:", err)
			return exitFailed
		}
		test = append(test, chosen...)
	}
	env := os.Environ()
	if *alone {
		env = aloneIn(env)
	}
	s, code, err := gotest(ctx, test, env, stdout, stderr)
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
		return strings.HasSuffix(name, "_EMULATOR_HOST") || slices.Contains([]string{"BQEMU", "PHASEGATE_TEST_PROJECT", "REQUIRE_EMULATORS"}, name)
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
	output         map[string]map[string][]string // by package, and test: of those that have not ended; "" is the package's own
	failures       map[string][]string            // by package: output of its tests that failed
	took           []event                        // tests that have ended, no subtests
}

func newSummary() *summary {
	return &summary{skipped: map[string]int{}, wanting: map[string]map[string]struct{}{}, output: map[string]map[string][]string{}, failures: map[string][]string{}}
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

// take counts one event and returns what is to be printed: all of a package at its end.
func (s *summary) take(e event) string {
	if e.Package == "" {
		return e.Output // of the compiler, or of go test itself
	}
	if s.output[e.Package] == nil {
		s.output[e.Package] = map[string][]string{}
	}
	output := s.output[e.Package]
	if e.Action == "output" {
		output[e.Test] = append(output[e.Test], e.Output)
		return ""
	}
	if e.Test == "" {
		return s.end(e)
	}
	if e.Elapsed > 0 && !strings.Contains(e.Test, "/") {
		s.took = append(s.took, e)
	}
	switch e.Action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		s.failures[e.Package] = append(s.failures[e.Package], output[e.Test]...)
	case "skip":
		why := reason(output[e.Test])
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
	delete(output, e.Test)
	return ""
}

// end returns what a package has to say at its end.
func (s *summary) end(e event) string {
	output := s.output[e.Package]
	switch e.Action {
	case "pass", "skip":
		defer delete(s.output, e.Package)
		return strings.Join(slices.DeleteFunc(output[""], func(line string) bool {
			return !strings.HasPrefix(line, "ok ")
		}), "")
	case "fail":
		defer delete(s.output, e.Package)
		s.packages++
		all := s.failures[e.Package]
		for _, test := range slices.Sorted(maps.Keys(output)) {
			if test != "" { // it has not ended: the process died, or was killed
				all = append(all, output[test]...)
			}
		}
		return strings.Join(append(all, output[""]...), "")
	}
	return ""
}

// reason is what a test said last when it was skipped: "    file.go:12: reason".
func reason(output []string) string {
	why := "no reason given"
	for _, line := range output {
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok := strings.Cut(text, ": "); ok {
				why = strings.TrimSpace(text)
			}
		}
	}
	return why
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

// readRecord returns the arguments of go test that choose the tests of a record in their
// packages, but those of the patterns in except.
func readRecord(ctx context.Context, file, except string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the record: %w; make test writes it", err)
	}
	var recorded map[string][]string
	if err := json.Unmarshal(data, &recorded); err != nil {
		return nil, fmt.Errorf("read the record %s: %w", file, err)
	}
	if except != "" {
		out, err := exec.CommandContext(ctx, "go", append([]string{"list"}, strings.Fields(except)...)...).Output()
		if err != nil {
			return nil, fmt.Errorf("list the packages of %q: %w", except, err)
		}
		for pkg := range strings.FieldsSeq(string(out)) {
			delete(recorded, pkg)
		}
	}
	if len(recorded) == 0 {
		return nil, fmt.Errorf("%s has no test in any other package than those of %q", file, except)
	}
	var all []string
	for _, tests := range recorded {
		all = append(all, tests...)
	}
	slices.Sort(all)
	return append([]string{"-run", "^(" + strings.Join(slices.Compact(all), "|") + ")$"}, slices.Sorted(maps.Keys(recorded))...), nil
}
