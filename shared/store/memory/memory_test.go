package memory_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return memory.New(time.Now) })
}

func TestConformanceWhileTheClockStands(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	storetest.Run(t, func(*testing.T) store.Store { return memory.New(func() time.Time { return at }) })
}

func TestVersion_GrowsWhenClockGoesBack(t *testing.T) {
	start := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	var calls atomic.Int64
	s := memory.New(func() time.Time { return start.Add(-time.Duration(calls.Add(1)) * time.Minute) })
	ref := store.Ref{Collection: "c", ID: "doc"}
	var last store.Version
	for n := range 5 {
		versions, err := s.Apply(t.Context(), store.Merge(ref, store.F(n, "n"), store.F(store.ServerTime, "at")))
		if err != nil {
			t.Fatal(err)
		}
		snap, err := s.Get(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if versions[0] <= last {
			t.Errorf("version %d after %d", versions[0], last)
		}
		if snap.Docs[0].Data["at"] != versions[0].Time().Truncate(time.Millisecond) || snap.ReadTime != versions[0].Time() {
			t.Errorf("stamp %v, read time %v of version %v", snap.Docs[0].Data["at"], snap.ReadTime, versions[0].Time())
		}
		last = versions[0]
	}
}

func TestVersion_IsTimeOfClock(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 789, time.FixedZone("", 3600))
	s := memory.New(func() time.Time { return at })
	for n := range 3 {
		versions, err := s.Apply(t.Context(), store.Create(store.Ref{Collection: "c", ID: fmt.Sprint(n)}))
		if err != nil {
			t.Fatal(err)
		}
		if want := store.Version(at.UnixMicro() + int64(n)); versions[0] != want {
			t.Errorf("commit %d: version %d, want %d", n, versions[0], want)
		}
	}
}

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, func(*testing.B) store.Store { return memory.New(time.Now) })
}
