//go:build unix && !race

package cycle

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

// simMutant is a fault put into the engine on purpose: in one file a text, which must
// stand there exactly once, gives way to another that behaves differently where
// mutant(name) says so.
type simMutant struct {
	name     string
	seed     int // the first that notices it; one that does not any more is looked for from the first on
	file     string
	from, to string
}

// simMutantSeeds is how many seeds a mutant may survive.
const simMutantSeeds = 20_000

// TestMutantsAreCaught proves that the simulation bites: every one of simMutants is
// noticed by a seed within simMutantSeeds, and the engine with none of them switched on
// plays 2,000 without a fault (in make test-all TestSimulation plays simMutantSeeds). The engine's sources stay as they are; the compiler
// is given others in their place, with all mutants in one binary.
func TestMutantsAreCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the engine with its mutants")
	}
	binary := compileMutants(t)
	if out, err := playMutant(t, binary, "none", 1, 2000); err != nil {
		t.Fatalf("with no mutant switched on: %v\n%s", err, out)
	}
	var wg sync.WaitGroup
	turns := make(chan struct{}, runtime.GOMAXPROCS(0))
	lines := make([]string, len(simMutants))
	for i, m := range simMutants {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			began := time.Now()
			out, err := playMutant(t, binary, m.name, m.seed, 1)
			if err == nil || m.seed > simMutantSeeds {
				out, err = playMutant(t, binary, m.name, 1, simMutantSeeds)
			}
			took := time.Since(began)
			found := simFound.FindStringSubmatch(out)
			var failed *exec.ExitError
			switch {
			case err == nil:
				t.Errorf("mutant %s survives %d seeds", m.name, simMutantSeeds)
			case !errors.As(err, &failed) || found == nil:
				t.Errorf("mutant %s: %v\n%s", m.name, err, out)
			default:
				lines[i] = fmt.Sprintf("  %-32s seed %6s, %5.2f s: %s", m.name, found[1], took.Seconds(), found[2])
			}
		})
	}
	wg.Wait()
	t.Logf("%d mutants, each within %d seeds:\n%s", len(simMutants), simMutantSeeds, strings.Join(lines, "\n"))
}

var simFound = regexp.MustCompile(`seed (\d+), \w+: (.{0,160})`)

// playMutant runs the simulation with one mutant switched on, on one core.
func playMutant(t *testing.T, binary, name string, from, seeds int) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run=^TestSimulation$", "-test.count=1", fmt.Sprint("-sim.from=", from), fmt.Sprint("-sim.seeds=", seeds))
	cmd.Env = append(os.Environ(), "SIM_MUTANT="+name, "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// simSwitch is the file that every package with mutants is given beside its own.
const simSwitch = `package %s

import "os"

var switchedOn = os.Getenv("SIM_MUTANT")

func mutant(name string) bool { return name == switchedOn }
`

// compileMutants builds this package's test binary with every mutant in it.
func compileMutants(t *testing.T) string {
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
	sources := map[string]string{}
	for _, m := range simMutants {
		if _, ok := sources[m.file]; !ok {
			raw, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			sources[m.file] = string(raw)
		}
		if n := strings.Count(sources[m.file], m.from); n != 1 {
			t.Fatalf("mutant %s: its text stands %d times in %s, not once; the engine has changed and the mutant has to follow:\n%s",
				m.name, n, m.file, m.from)
		}
		if !strings.Contains(m.to, fmt.Sprintf("mutant(%q)", m.name)) {
			t.Fatalf("mutant %s has no switch", m.name)
		}
		sources[m.file] = strings.Replace(sources[m.file], m.from, m.to, 1)
	}
	for file, text := range sources {
		if _, err := format.Source([]byte(text)); err != nil {
			t.Fatalf("%s with its mutants: %v", file, err)
		}
		replace(file, text)
		folder := filepath.Dir(file)
		name := filepath.Base(folder)
		if folder == "." {
			name = "cycle"
		}
		replace(filepath.Join(folder, "zz_switch.go"), fmt.Sprintf(simSwitch, name))
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
