//go:build unix

// Package mutanttest proves that a simulation notices faults: it puts faults into the code on
// purpose, and plays the simulation until it fails. The sources stay as they are; the compiler
// is given others in their place, with all faults in one binary and a switch for each.
//
// The simulation is the test TestSimulation of the package, with the flags -sim.from and
// -sim.seeds, and fails with "seed N, NAME: what is wrong".
package mutanttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Mutant is a fault: in one file a text, which must stand there exactly once, gives way to
// another that behaves differently where mutant(Name) says so.
type Mutant struct {
	Name     string
	Seed     int    // the first that notices it; one that does not any more is searched for from the first on
	File     string // from the package's folder
	From, To string
}

// Caught fails the test for every mutant that no seed up to most notices, and if the code
// without any mutant fails within the first clean seeds.
func Caught(t *testing.T, mutants []Mutant, most, clean int) {
	t.Helper()
	binary := compile(t, mutants)
	if out, err := play(t, binary, "none", 1, clean); err != nil {
		t.Fatalf("with no mutant switched on: %v\n%s", err, out)
	}
	var wg sync.WaitGroup
	turns := make(chan struct{}, runtime.GOMAXPROCS(0))
	lines := make([]string, len(mutants))
	for i, m := range mutants {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			began := time.Now()
			out, err := play(t, binary, m.Name, m.Seed, 1)
			if err == nil || m.Seed > most {
				out, err = play(t, binary, m.Name, 1, most)
			}
			took := time.Since(began)
			found := foundBy.FindStringSubmatch(out)
			var failed *exec.ExitError
			switch {
			case err == nil:
				t.Errorf("mutant %s survives %d seeds", m.Name, most)
			case !errors.As(err, &failed) || found == nil:
				t.Errorf("mutant %s: %v\n%s", m.Name, err, out)
			default:
				lines[i] = fmt.Sprintf("  %-32s seed %6s, %5.2f s: %s", m.Name, found[1], took.Seconds(), found[2])
			}
		})
	}
	wg.Wait()
	t.Logf("%d mutants, each within %d seeds:\n%s", len(mutants), most, strings.Join(lines, "\n"))
}

var foundBy = regexp.MustCompile(`seed (\d+), \w+: (.{0,160})`)

// play runs the simulation with one mutant switched on, on one core.
func play(t *testing.T, binary, name string, from, seeds int) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run=^TestSimulation$", "-test.count=1", fmt.Sprint("-sim.from=", from), fmt.Sprint("-sim.seeds=", seeds))
	cmd.Env = append(os.Environ(), "SIM_MUTANT="+name, "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// switchFile is the file that every package with mutants is given next to its own.
const switchFile = `package %s

import "os"

var switchedOn = os.Getenv("SIM_MUTANT")

func mutant(name string) bool { return name == switchedOn }
`

// compile builds the package's test binary with every mutant in it.
func compile(t *testing.T, mutants []Mutant) string {
	t.Helper()
	dir := t.TempDir()
	overlay, written := struct{ Replace map[string]string }{map[string]string{}}, 0
	replace := func(path, text string) {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		written++
		to := filepath.Join(dir, fmt.Sprintf("%d.go", written))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[path] = to
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Base(here)
	sources := map[string]string{}
	for _, m := range mutants {
		if _, ok := sources[m.File]; !ok {
			raw, err := os.ReadFile(m.File)
			if err != nil {
				t.Fatal(err)
			}
			sources[m.File] = string(raw)
		}
		if n := strings.Count(sources[m.File], m.From); n != 1 {
			t.Fatalf("mutant %s: its text stands %d times in %s, not once; the code has changed and the mutant has to follow:\n%s",
				m.Name, n, m.File, m.From)
		}
		if !strings.Contains(m.To, fmt.Sprintf("mutant(%q)", m.Name)) {
			t.Fatalf("mutant %s has no switch", m.Name)
		}
		sources[m.File] = strings.Replace(sources[m.File], m.From, m.To, 1)
	}
	for file, text := range sources {
		if _, err := format.Source([]byte(text)); err != nil {
			t.Fatalf("%s with its mutants: %v", file, err)
		}
		replace(file, text)
		folder := filepath.Dir(file)
		name := filepath.Base(folder)
		if folder == "." {
			name = own
		}
		replace(filepath.Join(folder, "zz_switch.go"), fmt.Sprintf(switchFile, name))
	}
	raw, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(config, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "mutants.test")
	began := time.Now()
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", config, "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	t.Logf("compiled in %.1f s", time.Since(began).Seconds())
	return binary
}
