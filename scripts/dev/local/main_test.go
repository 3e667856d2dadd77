package local

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"
)

// TestMain fails when the tests leave goroutines behind: an environment that was
// closed has ended everything that it started.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if code == 0 && !settlesAt(before, 10*time.Second) {
		fmt.Fprintf(os.Stderr, "%d goroutines before the tests, %d after\n", before, runtime.NumGoroutine())
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		code = 1
	}
	os.Exit(code)
}

// settlesAt waits until no more than n goroutines are left: connections that were
// closed end theirs a moment later.
func settlesAt(n int, within time.Duration) bool {
	deadline, tick := time.After(within), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for runtime.NumGoroutine() > n {
		select {
		case <-deadline:
			return false
		case <-tick.C:
		}
	}
	return true
}
