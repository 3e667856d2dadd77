package cycle

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	rpc "google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/store/firestore/firestoretest"
)

// BenchmarkFanIn compares three designs for completions of one period that arrive at once. The
// first is this engine. The second is the usual transaction, which reads, counts and writes one
// document, with the client's default attempts. The third writes a document for each completion
// and counts them by a query. Each runs on the Firestore emulator, and behind a double of
// Firestore's limits, where a commit keeps its document for 100 ms. The metrics are milliseconds
// until all are answered, failed completions, and the engine's store calls and conflicts.
func BenchmarkFanIn(b *testing.B) {
	for _, n := range []int{5, 23, 100, 300, 1000, 10_000} {
		for _, on := range []string{"emulator", "double"} {
			name := fmt.Sprintf("%s/%d", on, n)
			b.Run(name+"/phasegate", func(b *testing.B) { fanIn(b, on, n, 0) })
			b.Run(name+"/phasegate_200_entities", func(b *testing.B) { fanIn(b, on, n, 200) })
			if on == "emulator" && n <= 23 || n == 5 { // beyond, it takes minutes
				b.Run(name+"/transaction", func(b *testing.B) {
					alternative(b, on, n, func(ctx context.Context, c *firestore.Client, period string, i int) (bool, error) {
						return countInTransaction(ctx, c, c.Collection("usual").Doc(period), fmt.Sprintf("processor_%d", i), n)
					})
				})
			}
			if n <= 1000 {
				b.Run(name+"/document_each", func(b *testing.B) {
					alternative(b, on, n, func(ctx context.Context, c *firestore.Client, period string, i int) (bool, error) {
						return countDocuments(ctx, c, period, fmt.Sprintf("processor_%d", i), n)
					})
				})
			}
		}
	}
}

// limited returns the emulator's address or, of the double, that of a proxy in front of it.
func limited(b *testing.B, on string) {
	b.Helper()
	host := emulatortest.Firestore(b)
	if on == "double" {
		host = firestoretest.Start(b, host, firestoretest.Usual).Addr
	}
	b.Setenv("FIRESTORE_EMULATOR_HOST", host)
}

func fanIn(b *testing.B, on string, n, named int) {
	limited(b, on)
	w := &world{tr: wide(b, n), clock: &clock{t: at("2026-02-04 06:00")}, log: &syncBuffer{}}
	s := onFirestore(b)
	names := make([]string, named)
	for i := range names {
		names[i] = fmt.Sprintf("player%06d", i)
	}
	var failed atomic.Int64
	for b.Loop() {
		w.broker, w.prefix = &broker{}, "b"+rand.Text()
		w.store = &counting{Store: s}
		e := New(Config{Store: w.store, Publish: w.broker.publish, Check: Unchecked, Now: time.Now,
			NewID: rand.Text, Claim: time.Minute, Prefix: w.prefix, Log: brokenLog(b)})
		atOnce(n, func(i int) {
			c := run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00", entities(names...))
			if _, err := e.Complete(b.Context(), w.key(c.Period), Report{c, fmt.Sprint("m", i)}); err != nil {
				failed.Add(1)
			}
		})
		if got := len(slices.Compact(sorted(w.broker.tables()))); got != n {
			b.Errorf("%d of %d messages published", got, n)
		}
	}
	b.ReportMetric(float64(failed.Load())/float64(b.N), "failed/op")
	b.ReportMetric(float64(w.store.calls.Load()), "calls")
	b.ReportMetric(float64(w.store.conflicts.Load()), "conflicts")
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/op")
}

// alternative measures another design; complete reports whether it triggered.
func alternative(b *testing.B, on string, n int, complete func(ctx context.Context, c *firestore.Client, period string, i int) (bool, error)) {
	limited(b, on)
	client, err := firestore.NewClient(context.Background(), "phasegate-test")
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	var failed, triggered atomic.Int64
	for b.Loop() {
		period := rand.Text()
		atOnce(n, func(i int) {
			switch ok, err := complete(b.Context(), client, period, i); {
			case err != nil:
				failed.Add(1)
			case ok:
				triggered.Add(1)
			}
		})
	}
	b.ReportMetric(float64(failed.Load())/float64(b.N), "failed/op")
	b.ReportMetric(float64(triggered.Load())/float64(b.N), "triggered/op")
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/op")
}

func atOnce(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// countInTransaction is the usual design: read the date's document, add the processor,
// trigger when all have reported, write it back.
func countInTransaction(ctx context.Context, client *firestore.Client, doc *firestore.DocumentRef, processor string, want int) (triggered bool, err error) {
	err = client.RunTransaction(ctx, func(ctx context.Context, tx *firestore.Transaction) error {
		triggered = false
		snap, err := tx.Get(doc)
		if err != nil && (snap == nil || snap.Exists()) {
			return err
		}
		data := map[string]any{}
		if snap.Exists() {
			data = snap.Data()
		}
		data[processor] = map[string]any{"status": "success", "completed_at": time.Now()}
		done := 0
		for name := range data {
			if name[0] != '_' {
				done++
			}
		}
		data["_completed_count"] = done
		if done == want && data["_triggered"] != true {
			data["_triggered"], triggered = true, true
		}
		return tx.Set(doc, data)
	})
	return triggered && err == nil, err
}

// countDocuments writes one document for each completion and counts them by a query. Each caller
// that counts all creates the same document: only the one that succeeds triggers.
func countDocuments(ctx context.Context, client *firestore.Client, period, processor string, want int) (triggered bool, err error) {
	completions := client.Collection("completions").Doc(period).Collection("processors")
	if _, err := completions.Doc(processor).Set(ctx, map[string]any{"status": "success", "completed_at": time.Now()}); err != nil {
		return false, err
	}
	counted, err := completions.NewAggregationQuery().WithCount("n").Get(ctx)
	if err != nil {
		return false, err
	}
	if n, ok := counted["n"].(*firestorepb.Value); !ok || n.GetIntegerValue() < int64(want) {
		return false, nil
	}
	_, err = client.Collection("triggered").Doc(period).Create(ctx, map[string]any{"at": time.Now()})
	if rpc.Code(err) == codes.AlreadyExists {
		return false, nil
	}
	return err == nil, err
}
