package firestore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
	"github.com/phasegate/phasegate/shared/store/storetest"
)

func TestConformance(t *testing.T) {
	emulatortest.Firestore(t)
	storetest.Run(t, func(t *testing.T) store.Store { return open(t) }, storetest.TornReads)
}

func open(t *testing.T) *firestore.Store {
	t.Helper()
	s, err := firestore.Open(t.Context(), "phasegate-test", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestMerge_ConcurrentMergesOfOneDocumentSucceed(t *testing.T) {
	emulatortest.Firestore(t)
	s := open(t)
	for _, writers := range []int{5, 21, 100, 300} {
		t.Run(fmt.Sprint(writers), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			ref := store.Ref{Collection: fmt.Sprintf("merges-%016x", rand.Uint64()), ID: "doc"}
			start := time.Now()
			var wg sync.WaitGroup
			for i := range writers {
				wg.Go(func() {
					if _, err := s.Apply(ctx, store.Merge(ref, store.F(i, "runs", fmt.Sprint(i)))); err != nil {
						t.Errorf("writer %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			t.Logf("%d merges took %v", writers, time.Since(start).Round(time.Millisecond))
			snap, err := s.Get(ctx, ref)
			if err != nil {
				t.Fatal(err)
			}
			if runs, _ := snap.Docs[0].Data["runs"].(map[string]any); len(runs) != writers {
				t.Errorf("%d of %d merges are there", len(runs), writers)
			}
		})
	}
}
