package cycle

import (
	"testing"
	"time"
	"unsafe"
)

// moved is a later reading of both clocks, the one of the wall and the monotonic one. No call
// of the library moves them apart, as a suspended machine or a clock that is set does.
func moved(t *testing.T, from time.Time, wall, monotonic time.Duration) time.Time {
	t.Helper()
	to := from.Add(wall)
	(*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&to)).ext += int64(monotonic - wall)
	if to.Sub(from) != monotonic || to.Round(0).Sub(from.Round(0)) != wall {
		t.Fatalf("the clocks read %v and %v, want %v and %v", to.Round(0).Sub(from.Round(0)), to.Sub(from), wall, monotonic)
	}
	return to
}

func TestClaim_IsTrustedByTheStricterOfTwoClocks(t *testing.T) {
	for name, c := range map[string]struct{ wall, monotonic, left time.Duration }{
		"both_moved":        {30 * time.Second, 30 * time.Second, 24 * time.Second},
		"suspended":         {54 * time.Second, time.Second, 0}, // the monotonic clock stood still
		"clock_set_back":    {-time.Hour, 54 * time.Second, 0},
		"clock_set_forward": {time.Hour, time.Second, 54*time.Second - time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			from := time.Now()
			to := from
			w.engine.Now = func() time.Time { return to }
			claiming := w.engine.convergence(w.key("2026-02-03"), "m")
			id := claiming.holder()
			to = moved(t, from, c.wall, c.monotonic)
			if got := claiming.safeRemaining(id); got != c.left {
				t.Errorf("trusted for %v more, want %v", got, c.left)
			}
		})
	}
}
