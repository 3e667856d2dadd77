package firestoretest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
	"github.com/phasegate/phasegate/shared/store/firestore/firestoretest"
)

func open(t *testing.T, l firestoretest.Limits) (*firestoretest.Proxy, *firestore.Store) {
	t.Helper()
	p := firestoretest.Start(t, emulatortest.Firestore(t), l)
	t.Setenv("FIRESTORE_EMULATOR_HOST", p.Addr)
	s, err := firestore.Open(t.Context(), "phasegate-test", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return p, s
}

func newRef() store.Ref {
	return store.Ref{Collection: fmt.Sprintf("limits-%016x", rand.Uint64()), ID: "doc"}
}

func TestProxy_CommitsToOneDocumentTakeTurns(t *testing.T) {
	const each = 50 * time.Millisecond
	p, s := open(t, firestoretest.Limits{Commit: each, Waiting: 100})
	ref := newRef()
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			if _, err := s.Apply(t.Context(), store.Merge(ref, store.F(i, "runs", fmt.Sprint(i)))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took < 5*each {
		t.Errorf("5 commits took %v, each takes %v", took, each)
	}
	snap, err := s.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if runs, _ := snap.Docs[0].Data["runs"].(map[string]any); len(runs) != 5 {
		t.Errorf("%d of 5 merges are stored", len(runs))
	}
	if n := p.Counts().Calls["/google.firestore.v1.Firestore/Commit"]; n != 5 {
		t.Errorf("%d commits counted", n)
	}
}

// The driver retries what is ABORTED, so all commits succeed in the end.
func TestProxy_RefusesCommitsBeyondTheQueue(t *testing.T) {
	p, s := open(t, firestoretest.Limits{Commit: 20 * time.Millisecond, Waiting: 2})
	ref := newRef()
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if _, err := s.Apply(t.Context(), store.Merge(ref, store.F(i, "runs", fmt.Sprint(i)))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if p.Counts().Aborted == 0 {
		t.Error("no commit was refused")
	}
}

func TestProxy_LosesCommitsBeforeAndAfterTheyAreApplied(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.DeadlineExceeded} {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,applied=%v", code, applied), func(t *testing.T) {
				p, s := open(t, firestoretest.Limits{Waiting: 10})
				ref := newRef()
				var commits atomic.Int32
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				p.Fail(func(int) firestoretest.Fault {
					if commits.Add(1) == 1 {
						return firestoretest.Fault{Code: code, Applied: applied}
					}
					cancel() // the retry is not to hide the loss
					return firestoretest.Fault{Code: code}
				})
				if _, err := s.Apply(ctx, store.Create(ref, store.F("a", "x"))); err == nil {
					t.Fatal("the commit's answer was not lost")
				}
				p.Fail(nil)
				snap, err := s.Get(t.Context(), ref)
				if err != nil {
					t.Fatal(err)
				}
				if snap.Docs[0].Exists != applied {
					t.Errorf("exists: %v", snap.Docs[0].Exists)
				}
			})
		}
	}
}
