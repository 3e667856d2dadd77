package lease

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/store/firestore/firestoretest"
)

// Firestore fails each commit of a run in turn, before or after it was applied. The run gets and renews
// its lock, and after the release the next run gets it.
func TestAcquire_LostCommitLeavesNoLockWithoutHolder(t *testing.T) {
	p := firestoretest.Start(t, emulatortest.Firestore(t), firestoretest.Limits{Waiting: 10})
	t.Setenv("FIRESTORE_EMULATOR_HOST", p.Addr)
	s := openFirestore(t, project())
	n := 0
	id := func() string { n++; return fmt.Sprintf("n%d", n) }
	locks := New(Config{Store: s, Now: time.Now, NewID: id, Lease: Max, Instance: "a", Log: slog.New(slog.DiscardHandler)})
	play := func(t *testing.T, period string, fault func(commit int) firestoretest.Fault) (commits int) {
		t.Helper()
		k := Key{Class: key.Class, Period: key.Period}
		k.Class += period
		p.Fail(func(n int) firestoretest.Fault { commits = n + 1; return fault(n) })
		held, err := locks.Acquire(t.Context(), k, "run-1")
		if err != nil {
			t.Fatalf("acquire: %v", err)
		}
		if err := held.Renew(t.Context()); err != nil {
			t.Errorf("renew: %v", err)
		}
		// The driver sends the deletion again and finds nothing. Another process may have deleted it.
		if err := held.Release(t.Context()); err != nil && !errors.Is(err, ErrLost) {
			t.Errorf("release: %v", err)
		}
		p.Fail(nil)
		next, err := locks.Acquire(t.Context(), k, "run-2")
		if err != nil {
			t.Fatalf("the next run: %v", err)
		}
		if err := next.Release(t.Context()); err != nil {
			t.Error(err)
		}
		return commits
	}
	commits := play(t, "All", func(int) firestoretest.Fault { return firestoretest.Fault{} })
	if commits < 3 {
		t.Fatalf("%d commits", commits)
	}
	for _, code := range []codes.Code{codes.Unavailable, codes.DeadlineExceeded} {
		for _, applied := range []bool{false, true} {
			for lost := range commits {
				name := fmt.Sprintf("%s_applied_%v_%d", code, applied, lost)
				t.Run(name, func(t *testing.T) {
					play(t, fmt.Sprintf("%s%v%d", code, applied, lost), func(n int) firestoretest.Fault {
						if n == lost {
							return firestoretest.Fault{Code: code, Applied: applied}
						}
						return firestoretest.Fault{}
					})
				})
			}
		}
	}
}
