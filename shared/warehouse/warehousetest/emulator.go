package warehousetest

import (
	"encoding/json"
	"io"
	"os/exec"
	"sync"
	"testing"

	"github.com/phasegate/phasegate/shared/emulatortest"
)

// worldsEach is how many warehouses one emulator holds. It keeps the memory that it has
// taken; another takes its place, and it ends with the last of its tests.
const worldsEach = 24

var (
	lending sync.Mutex
	current *emulator // of this test process
)

// emulator is the program that make build/bqemu builds, at work. It ends with this
// process at the latest: its standard input is closed then.
type emulator struct {
	host  string
	input io.Closer
	cmd   *exec.Cmd

	lent, out int // ever, and now
}

func (e *emulator) end() {
	_ = e.input.Close() // with which it ends
	_ = e.cmd.Wait()
}

// lend returns an emulator's address, for as long as the test goes on.
func lend(t testing.TB) (host string) {
	t.Helper()
	lending.Lock()
	defer lending.Unlock()
	if current == nil || current.lent == worldsEach {
		current = start(t)
	}
	e := current
	e.lent, e.out = e.lent+1, e.out+1
	t.Cleanup(func() {
		lending.Lock()
		defer lending.Unlock()
		if e.out--; e.out == 0 && e != current {
			e.end()
		}
	})
	return e.host
}

func start(t testing.TB) *emulator {
	t.Helper()
	e := &emulator{cmd: exec.Command(emulatortest.BigQuery(t))}
	input, err := e.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	e.input = input
	output, err := e.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ready struct{ Event, Address string }
	if err := json.NewDecoder(output).Decode(&ready); err != nil || ready.Event != "ready" {
		e.end()
		t.Fatalf("the emulator is not ready: %+v, %v", ready, err)
	}
	e.host = ready.Address
	return e
}
