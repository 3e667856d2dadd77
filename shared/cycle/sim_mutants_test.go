//go:build unix && !race

package cycle

import (
	"flag"
	"testing"

	"github.com/phasegate/phasegate/shared/mutanttest"
)

// simMutant is a fault put into the engine on purpose.
type simMutant struct {
	name     string
	seed     int
	file     string
	from, to string
}

var allMutants = flag.Bool("sim.mutants", false, "TestMutantsAreCaught plays the mutants")

// simMutantSeeds is how many seeds a mutant may survive.
const simMutantSeeds = 20_000

// TestMutantsAreCaught proves that the simulation notices faults. Each of simMutants fails within
// simMutantSeeds seeds, and the engine without any plays 2,000 seeds without a fault. In make
// test-all TestSimulation plays simMutantSeeds seeds.
func TestMutantsAreCaught(t *testing.T) {
	if !*allMutants {
		t.Skip("compiles the engine with its mutants and plays each for seconds; make test-all does that")
	}
	var mutants []mutanttest.Mutant
	for _, m := range simMutants {
		mutants = append(mutants, mutanttest.Mutant{Name: m.name, Seed: m.seed, File: m.file, From: m.from, To: m.to})
	}
	mutanttest.Caught(t, mutants, simMutantSeeds, 2000)
}
