package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/devcmd"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// TestMain fails when the tests leave goroutines behind. It removes the variables of the
// developer's shell that would change the commands.
func TestMain(m *testing.M) {
	if os.Getenv(asPhasectl) == "1" {
		if distance, err := time.ParseDuration(os.Getenv(pageClock)); err == nil {
			clock = func() time.Time { return time.Now().Add(distance) }
		}
		main()
	}
	for _, name := range []string{"GOOGLE_CLOUD_PROJECT", "PIPELINE_FILE", "PHASEGATE_STORE", "PHASEGATE_PREFIX", "PHASEGATE_CLAIM", "PHASEGATE_LEASE",
		"PHASEGATE_SHADOW", "PHASEGATE_TABLES", "PHASEGATE_PAGE", "PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST", "LOG_LEVEL", "NO_COLOR"} {
		_ = os.Unsetenv(name)
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGWINCH) // starts the one goroutine of os/signal, which stays
	before := runtime.NumGoroutine()
	code := m.Run()
	deadline, tick := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	for code == 0 && runtime.NumGoroutine() > before {
		select {
		case <-tick.C:
		case <-deadline:
			fmt.Fprintf(os.Stderr, "%d goroutines before the tests, %d after\n", before, runtime.NumGoroutine())
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			code = 1
		}
	}
	os.Exit(code)
}

// asPhasectl makes this test binary run as phasectl, for tests that need a process.
const asPhasectl = "TEST_AS_PHASECTL"

// output is a stream that is read while a command writes.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.b.Write(p)
}

func (o *output) String() string { o.mu.Lock(); defer o.mu.Unlock(); return o.b.String() }

// line waits for the first line.
func (o *output) line(t *testing.T, ended <-chan int) string {
	t.Helper()
	first, _, _ := strings.Cut(o.until(t, "\n", ended), "\n")
	return first
}

// until waits for a text, and returns all that was written.
func (o *output) until(t *testing.T, part string, ended <-chan int) string {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		o.mu.Lock()
		text, changed := o.b.String(), o.changed
		o.mu.Unlock()
		if strings.Contains(text, part) {
			return text
		}
		select {
		case <-changed:
		case code := <-ended:
			t.Fatalf("ended with %d before it wrote %q", code, part)
		case <-deadline:
			t.Fatalf("no %q in\n%s", part, text)
		}
	}
}

// command runs phasectl to its end.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	fits(t, args, out.String())
	return code, out.String(), errs.String()
}

// start runs phasectl until stop, which returns its exit code.
func start(t *testing.T, args ...string) (out *output, first string, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, ended := newOutput(), make(chan int, 1)
	go func() { ended <- run(ctx, args, out, io.Discard) }()
	stop = sync.OnceValue(func() int { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	return out, out.line(t, ended), stop
}

// object reads one JSON object on one line.
func object(t *testing.T, s string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(s), &m); err != nil || strings.Count(s, "\n") > 1 {
		t.Fatalf("%q is not one object on one line: %v", s, err)
	}
	return m
}

func TestStore_MistypedPathIsError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stroe.db")
	t.Setenv("GOOGLE_CLOUD_PROJECT", "p")
	t.Setenv("PHASEGATE_STORE", "sqlite:"+file)
	code, stdout, stderr := command(t, "status")
	if code != 2 || stdout != "" || !strings.Contains(stderr, file) {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a command that only reads has created the store")
	}
}

func TestPhasectl_ExitCodes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, taken, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		part string // of standard error
	}{
		"no_command":           {nil, 0, ""},
		"help":                 {[]string{"help"}, 0, ""},
		"version":              {[]string{"version"}, 0, ""},
		"unknown_command":      {[]string{"stauts"}, 64, `unknown command "stauts"`},
		"unknown_flag":         {[]string{"status", "--nonsense"}, 64, "--nonsense"},
		"unknown_global_flag":  {[]string{"--nonsense"}, 64, "--nonsense"},
		"malformed_flag":       {[]string{"status", "--days", "x"}, 64, "--days"},
		"too_many_days":        {[]string{"status", "--days", "366"}, 64, "366"},
		"surplus_argument":     {[]string{"version", "x"}, 64, ""},
		"no_project":           {[]string{"status"}, 64, "GOOGLE_CLOUD_PROJECT"},
		"no_such_pipeline":     {[]string{"--project", "p", "--pipeline", filepath.Join(dir, "none"), "status"}, 64, "PIPELINE_FILE"},
		"no_function":          {[]string{"serve"}, 64, ""},
		"unknown_function":     {[]string{"serve", "publish", "--project", "p", "--port", "0"}, 64, "publish"},
		"function_twice":       {[]string{"serve", "transition", "transition", "--project", "p", "--port", "0"}, 64, "twice"},
		"port_in_use":          {[]string{"serve", "transition", "--project", "p", "--port", taken}, 1, "address already in use"},
		"data_is_a_file":       {[]string{"local", "--data", file}, 64, "--data"},
		"env_before_local":     {[]string{"env", "--data", dir}, 2, "phasectl local"},
		"env_of_broken_folder": {[]string{"env", "--data", file}, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := command(t, tc.args...)
			if code != tc.code || !strings.Contains(stderr, tc.part) {
				t.Errorf("%d %q, want %d with %q", code, stderr, tc.code, tc.part)
			}
			if hint := strings.Contains(stderr, usageHint); hint != (code == 64) {
				t.Errorf("hint %t with code %d", hint, code)
			}
		})
	}
}

func TestPhasectl_InternalErrorIsExitStatus70(t *testing.T) {
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, devcmd.ReadyFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "local", "--data", data, "--port-base", "0"); code != 70 || !strings.Contains(stderr, devcmd.ReadyFile) {
		t.Errorf("%d %q, want 70", code, stderr)
	}
}

func TestVersion_PrintsVersionAndSourceHash(t *testing.T) {
	_, stdout, _ := command(t, "version", "--json")
	m := object(t, stdout)
	if len(m) != 3 || m["schema"] != 1.0 || m["version"] == "" || m["source_hash"] == "" {
		t.Errorf("%v", m)
	}
	if _, stdout, _ = command(t, "version"); !strings.HasPrefix(stdout, "phasectl ") || !strings.Contains(stdout, ", source ") {
		t.Errorf("%q", stdout)
	}
}

func TestDemo_LosesAndDuplicatesNothing(t *testing.T) {
	code, stdout, stderr := command(t, "demo")
	lines := strings.Split(strings.TrimRight(stdout, "\n"), "\n")
	last := lines[len(lines)-1]
	var expected, published int
	if n, err := fmt.Sscanf(last, "expected=%d published=%d lost=0 doubled=0", &expected, &published); n != 2 || err != nil || expected != published || expected == 0 {
		t.Errorf("last line %q", last)
	}
	// In the demo a process dies: the dispatcher reports that on standard error.
	if code != 0 {
		t.Errorf("%d %q, want 0", code, stderr)
	}
	if strings.Contains(stdout, "\x1b") {
		t.Error("escape codes without a terminal")
	}
}

// The last line is the result, after the commands to try next. With --keep it is printed before the wait.
func TestDemo_KeepPrintsTheVerdictBeforeItWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, ended := newOutput(), make(chan int, 1)
	go func() { ended <- run(ctx, []string{"demo", "--keep"}, out, io.Discard) }()
	out.until(t, "expected=17 published=17 lost=0 doubled=0\n", ended)
	_, next, _ := strings.Cut(out.String(), "\nTry next:\n")
	if !strings.HasPrefix(next, "  build/phasectl demo --verbose ") || !strings.Contains(next, "export PUBSUB_EMULATOR_HOST=") || !strings.HasSuffix(next, "doubled=0\n") {
		t.Errorf("%s", out.String())
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("interrupted: %d", code)
	}
}

func TestDemo_ReportsFailedNight(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	eager := strings.ReplaceAll(string(pipeline.Default()), "second_runs: ignore", "second_runs: resend_if_changed")
	if err := os.WriteFile(file, []byte(eager), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, _ := command(t, "demo", "--pipeline", file)
	if code != 1 || !strings.Contains(stdout, "lost=0 doubled=0") {
		t.Errorf("%d, want 1 for messages beyond the expected ones", code)
	}
}
