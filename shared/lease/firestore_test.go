package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gcfirestore "cloud.google.com/go/firestore"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
	"github.com/phasegate/phasegate/shared/store/firestore/firestoretest"
	"github.com/phasegate/phasegate/shared/telemetry"
)

func project() string { return fmt.Sprintf("lease-%016x", rand.Uint64()) }

func openFirestore(t testing.TB, project string) store.Store {
	t.Helper()
	s, err := firestore.Open(context.Background(), project, "")
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

// Leases and pauses are as long as in production; the test does not wait for them (forward).
func TestHistory_IsLinearizableOnFirestore(t *testing.T) {
	emulatortest.Firestore(t)
	const histories, workers, lease = 200, 20, Max
	// A field's time may be much older than its commit: only the call's start bounds it.
	model := locking(lease.Microseconds(), time.Hour.Microseconds())
	var wg sync.WaitGroup
	var calls, held, unknown atomic.Int64
	for worker := range workers {
		wg.Go(func() {
			s := openFirestore(t, project())
			for n := range histories / workers {
				clock := &forward{together: lease / 100}
				h := &history{inner: forwarded{s, clock}, clock: clock, lease: lease, prefix: fmt.Sprintf("h%d_", n), rng: rand.New(rand.NewPCG(uint64(worker), uint64(n)))}
				ops := h.play()
				calls.Add(int64(len(ops)))
				for _, op := range ops {
					switch op.Output.(answer).result {
					case "held":
						held.Add(1)
					case "unknown":
						unknown.Add(1)
					}
				}
				if !judge(t, fmt.Sprintf("firestore-%d-%d", worker, n), model, ops, nil) {
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d histories of %d calls, %d of them turned away, %d without an answer", histories, calls.Load(), held.Load(), unknown.Load())
	if unknown.Load() > calls.Load()/3 { // what has no answer is never wrong
		t.Errorf("%d of %d calls have no answer", unknown.Load(), calls.Load())
	}
}

// transactional is the lock that is usual: a transaction that reads the document, and
// takes it if there is none or it is stale.
type transactional struct {
	client *gcfirestore.Client
	doc    *gcfirestore.DocumentRef
}

var errTaken = errors.New("taken")

func (p transactional) acquire(ctx context.Context, execution string, merge bool) error {
	return p.client.RunTransaction(ctx, func(_ context.Context, tx *gcfirestore.Transaction) error {
		doc, err := tx.Get(p.doc)
		if doc != nil && doc.Exists() {
			if at, ok := doc.Data()["acquired_at"].(time.Time); ok && time.Since(at) <= 10*time.Minute {
				return errTaken
			}
		} else if doc == nil {
			return err
		}
		fields := map[string]any{"acquired_at": time.Now(), "execution_id": execution, "instance": "worker-7", "processor": key.Class}
		if merge {
			return tx.Set(p.doc, fields, gcfirestore.MergeAll)
		}
		return tx.Set(p.doc, fields)
	})
}

func (p transactional) release(ctx context.Context) error { _, err := p.doc.Delete(ctx); return err }

// The double of a processor in another language works in memory. This test uses the client
// that such processors use.
func TestLock_IsSharedWithTransactionsOfOtherLanguages(t *testing.T) {
	emulatortest.Firestore(t)
	id := project()
	s := openFirestore(t, id)
	client, err := gcfirestore.NewClient(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	p := transactional{client, client.Collection(locksCollection).Doc(key.String())}
	l := New(Config{Store: s, Now: time.Now, NewID: project, Lease: Max, Instance: "a", Log: discard(t)})
	stale := func() { // as if the holder had not renewed it
		if _, err := p.doc.Update(t.Context(), []gcfirestore.Update{{Path: "acquired_at", Value: time.Now().Add(-11 * time.Minute)}}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	for _, merge := range []bool{true, false} {
		got, err := l.Acquire(t.Context(), key, "run-1")
		check("acquire", err, nil)
		check("a lock that we hold", p.acquire(t.Context(), "python-1", merge), errTaken)
		stale()
		check("a stale one", p.acquire(t.Context(), "python-1", merge), nil)
		check("renew", got.Renew(t.Context()), ErrLost)
		check("release", got.Release(t.Context()), ErrLost)
		_, err = l.Acquire(t.Context(), key, "run-2")
		if h := (*HeldError)(nil); !errors.As(err, &h) || h.State.Execution != "python-1" || !h.State.Foreign {
			t.Errorf("merge %v: %v", merge, err)
		}
		check("its release", p.release(t.Context()), nil)
		third, err := l.Acquire(t.Context(), key, "run-3")
		check("free again", err, nil)
		if n := len(third.Outstanding()); merge && n != 1 || !merge && n != 3 {
			t.Errorf("outstanding %v", third.Outstanding())
		}
		check("a release that is not its own", p.release(t.Context()), nil)
		check("renew", third.Renew(t.Context()), ErrLost)
	}
}

func discard(t testing.TB) *slog.Logger {
	log, err := telemetry.New(io.Discard, "error")
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// BenchmarkContenders measures how long contenders that come at once wait until each of
// them has had the lock. It compares that with a lock by transaction, whose contenders retry
// as ours do. worst/p50 is the longest wait divided by the median; 2 if they came in turn.
func BenchmarkContenders(b *testing.B) {
	for _, on := range []string{"emulator", "double"} {
		b.Run(on, func(b *testing.B) {
			host := emulatortest.Firestore(b)
			if on == "double" {
				host = firestoretest.Start(b, host, firestoretest.Usual).Addr
			}
			b.Setenv("FIRESTORE_EMULATOR_HOST", host)
			contenders(b)
		})
	}
}

func contenders(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%d/lease", n), func(b *testing.B) {
			l := New(Config{Store: openFirestore(b, project()), Now: time.Now, NewID: project, Lease: Max, Instance: "bench", Log: discard(b)})
			contend(b, n, func(ctx context.Context, round, execution string) (func() error, error) {
				got, err := l.Wait(ctx, Key{Class: "P", Period: pipeline.Period(round)}, execution)
				if err != nil {
					return nil, err
				}
				return func() error { return got.Release(ctx) }, nil
			})
		})
		if n > 8 {
			continue // by transaction it takes minutes
		}
		b.Run(fmt.Sprintf("%d/transaction", n), func(b *testing.B) {
			client, err := gcfirestore.NewClient(b.Context(), project())
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			contend(b, n, func(ctx context.Context, round, execution string) (func() error, error) {
				p := transactional{client, client.Collection(locksCollection).Doc(round)}
				for tries := 1; ; tries++ {
					if err := p.acquire(ctx, execution, false); err == nil {
						return func() error { return p.release(ctx) }, nil
					}
					time.Sleep(between(0, tries))
				}
			})
		})
	}
}

func contend(b *testing.B, n int, acquire func(ctx context.Context, round, execution string) (func() error, error)) {
	var mu sync.Mutex
	var waits []time.Duration
	b.ResetTimer()
	for round := range b.N {
		var wg sync.WaitGroup
		for c := range n {
			wg.Go(func() {
				began := time.Now()
				release, err := acquire(b.Context(), fmt.Sprint(round), fmt.Sprintf("c%d", c))
				if err != nil {
					b.Error(err)
					return
				}
				waited := time.Since(began)
				if err := release(); err != nil {
					b.Error(err)
				}
				mu.Lock()
				waits = append(waits, waited)
				mu.Unlock()
			})
		}
		wg.Wait()
	}
	b.StopTimer()
	slices.Sort(waits)
	b.ReportMetric(float64(len(waits))/b.Elapsed().Seconds(), "locks/s")
	b.ReportMetric(float64(waits[len(waits)-1])/float64(waits[len(waits)/2]), "worst/p50")
	b.ReportMetric(float64(waits[len(waits)/2].Microseconds())/1000, "p50-ms")
}
