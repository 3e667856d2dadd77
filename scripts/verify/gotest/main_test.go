package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module writes a module of its own and makes it the working directory.
func module(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.com/m\n\ngo 1.26\n"
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	return dir
}

const mixed = `package a

import (
	"os"
	"testing"
)

func TestPasses(t *testing.T) { t.Log("not shown") }

func TestNeeds(t *testing.T) {
	if os.Getenv("X_EMULATOR_HOST") == "" {
		t.Skip("needs the X emulator: make test-all")
	}
}

func TestPartlyNeeds(t *testing.T) {
	t.Run("plain", func(t *testing.T) {})
	t.Run("more", func(t *testing.T) { t.Skip("needs Y: make test-all") })
}

func TestElsewhere(t *testing.T) { t.Skip("this system makes no symlinks: no") }
`

func TestRun_EndsWithWhatWasSkippedAndWhy(t *testing.T) {
	dir := module(t, map[string]string{"a/a_test.go": mixed, "b/b_test.go": "package b\n\nimport \"testing\"\n\nfunc TestB(t *testing.T) {}\n"})
	t.Setenv("X_EMULATOR_HOST", "somewhere")
	t.Setenv("REQUIRE_EMULATORS", "1")
	record := filepath.Join(dir, "record.json")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"--alone", "--record", record, "--", "-count=1", "-shuffle=on", "./..."}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s%s", code, &stdout, &stderr)
	}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	if len(lines) != 3 || strings.Count(stdout.String(), "ok  \texample.com/m/a\t") != 1 || strings.Count(stdout.String(), "ok  \texample.com/m/b\t") != 1 {
		t.Errorf("%q", lines)
	}
	want := "4 tests passed, 0 failed, 3 skipped: 1 without Y, 1 without the X emulator, 1 (this system makes no symlinks: no); make test-all runs those"
	if got := lines[len(lines)-1]; got != want {
		t.Errorf("%s, want %s", got, want)
	}

	// With what they need, those tests and no others run.
	stdout.Reset()
	if code := run([]string{"--only", record, "--except", "./b", "--", "-count=1"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s%s", code, &stdout, &stderr)
	}
	if want := "3 tests passed, 0 failed, 1 skipped: 1 without Y; make test-all runs those\n"; !strings.HasSuffix(stdout.String(), want) {
		t.Errorf("%s", &stdout)
	}
}

func TestRun_ShowsWhatFailedAndHowItEnded(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		code int
		want []string
	}{
		"a_test": {"func TestBad(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Error(\"wrong by 3\") }) }\n\nfunc TestGood(t *testing.T) { t.Log(\"quiet\") }",
			1, []string{"--- FAIL: TestBad", "wrong by 3", "FAIL\texample.com/m\t", "-test.shuffle 7", "1 tests passed, 2 failed (packages: 1), none skipped"}},
		"a_panic":   {`func TestBad(t *testing.T) { panic("out of range") }`, 1, []string{"panic: out of range", "FAIL\texample.com/m\t", "0 tests passed, 1 failed (packages: 1)"}},
		"no_end":    {`func TestBad(t *testing.T) { t.Log("waits for nothing"); select {} }`, 1, []string{"waits for nothing", "panic: test timed out", "FAIL\texample.com/m\t", "0 failed (packages: 1)"}},
		"elsewhere": {"func TestBad(t *testing.T) { go func() { panic(\"in the background\") }(); select {} }", 1, []string{"panic: in the background", "FAIL\texample.com/m\t", "0 failed (packages: 1)"}},
		"building":  {`func TestBad(t *testing.T) { undefined() }`, 1, []string{"undefined: undefined", "FAIL\texample.com/m [build failed]", "0 tests passed, 0 failed (packages: 1)"}},
	} {
		t.Run(name, func(t *testing.T) {
			module(t, map[string]string{"m_test.go": "package m\n\nimport \"testing\"\n\n" + c.text + "\n"})
			var stdout, stderr bytes.Buffer
			if code := run([]string{"--", "-count=1", "-shuffle=7", "-timeout=2s", "./..."}, &stdout, &stderr); code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			for _, part := range c.want {
				if !strings.Contains(stdout.String(), part) {
					t.Errorf("no %q in\n%s%s", part, &stdout, &stderr)
				}
			}
			if strings.Contains(stdout.String(), "quiet") {
				t.Errorf("the output of a test that passed:\n%s", &stdout)
			}
		})
	}
}

func TestRun_PrintsTheSlowestTests(t *testing.T) {
	module(t, map[string]string{"m_test.go": `package m

import (
	"crypto/sha256"
	"testing"
)

func TestFast(t *testing.T) {}

func TestSlow(t *testing.T) {
	for range 200_000 { // above the hundredth of a second that go test counts in
		sha256.Sum256(make([]byte, 1024))
	}
}
`})
	var stdout, stderr bytes.Buffer
	if code := run([]string{"--slowest", "1", "--", "-count=1", "./..."}, &stdout, &stderr); code != 0 || strings.Count(stdout.String(), "| `Test") != 1 || !strings.Contains(stdout.String(), "| `TestSlow` | example.com/m | ") {
		t.Errorf("exit %d:\n%s%s", code, &stdout, &stderr)
	}
}

func TestRun_RefusesARecordThatIsNotThere(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"--only", filepath.Join(t.TempDir(), "none.json"), "--"}, &stdout, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "make test writes it") {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

func TestAloneIn_TakesEmulatorsAway(t *testing.T) {
	got := aloneIn([]string{"PATH=/bin", "FIRESTORE_EMULATOR_HOST=a", "BQEMU=/b", "PHASEGATE_TEST_PROJECT=p", "REQUIRE_EMULATORS=1", "PUBSUB_EMULATOR_HOST=b", "HOME=/root"})
	if want := []string{"PATH=/bin", "HOME=/root", "TEST_ALONE=1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
