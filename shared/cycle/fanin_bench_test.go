package cycle

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
)

// BenchmarkFanIn measures completions of one period that arrive at once on the
// Firestore emulator: this engine, beside the usual design of a transaction that
// reads, counts and writes one document, with the client's default attempts. Reported
// are the milliseconds until all are answered and how many completions failed.
func BenchmarkFanIn(b *testing.B) {
	for _, n := range []int{5, 23, 100, 300} {
		b.Run(fmt.Sprintf("blind_merge/%d", n), func(b *testing.B) {
			w := &world{tr: wide(b, n), clock: &clock{t: at("2026-02-04 06:00")}, log: &syncBuffer{}}
			s := onFirestore(b)
			var failed atomic.Int64
			for b.Loop() {
				w.broker, w.prefix = &broker{}, "b"+rand.Text()
				w.store = &counting{Store: s}
				e := New(Config{Store: w.store, Publish: w.broker.publish, Check: Unchecked, Now: time.Now,
					NewID: rand.Text, Claim: time.Minute, Prefix: w.prefix, Log: brokenLog(b)})
				atOnce(n, func(i int) {
					c := run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00")
					err := e.Record(b.Context(), w.key(c.Period), c)
					if err == nil {
						_, err = e.Converge(b.Context(), w.key(c.Period), fmt.Sprint(i))
					}
					if err != nil {
						failed.Add(1)
					}
				})
				if len(w.broker.got) != n {
					b.Errorf("%d of %d messages published", len(w.broker.got), n)
				}
			}
			b.ReportMetric(float64(failed.Load())/float64(b.N), "failed/op")
			b.ReportMetric(float64(w.store.calls.Load()), "calls")
			b.ReportMetric(float64(w.store.conflicts.Load()), "conflicts")
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/op")
		})
	}
	for _, n := range []int{5, 23} { // beyond, it takes minutes
		b.Run(fmt.Sprintf("transaction/%d", n), func(b *testing.B) {
			onFirestore(b)
			client, err := firestore.NewClient(context.Background(), "phasegate-test")
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			var failed, triggered atomic.Int64
			for b.Loop() {
				doc := client.Collection("usual" + rand.Text()).Doc("2026-02-03")
				atOnce(n, func(i int) {
					if usualDesign(b.Context(), client, doc, fmt.Sprintf("processor_%d", i), n, &triggered) != nil {
						failed.Add(1)
					}
				})
			}
			b.ReportMetric(float64(failed.Load())/float64(b.N), "failed/op")
			b.ReportMetric(float64(triggered.Load())/float64(b.N), "triggered/op")
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/op")
		})
	}
}

func atOnce(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// usualDesign is what such orchestrators do: read the date's document, add the
// processor, trigger when all are there, write it back.
func usualDesign(ctx context.Context, client *firestore.Client, doc *firestore.DocumentRef, processor string, want int, triggered *atomic.Int64) error {
	return client.RunTransaction(ctx, func(ctx context.Context, tx *firestore.Transaction) error {
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
			data["_triggered"] = true
			triggered.Add(1)
		}
		return tx.Set(doc, data)
	})
}

// BenchmarkRelay measures a relay that finds nothing to do, with 30 and with 10,000
// finished periods on record: it must not depend on history.
func BenchmarkRelay(b *testing.B) {
	for _, periods := range []int{30, 10_000} {
		b.Run(fmt.Sprintf("finished_periods_%d", periods), func(b *testing.B) {
			w := &world{tr: wide(b, 1), clock: &clock{}, broker: &broker{}, log: &syncBuffer{}}
			w.clock.set(at("2026-02-04 06:00").AddDate(0, 0, -periods))
			w.store = &counting{Store: drivers["memory"](nil, w.clock.now)}
			w.engine = New(Config{Store: w.store, Publish: w.broker.publish, Check: Unchecked, Now: w.clock.now,
				NewID: rand.Text, Claim: time.Minute, Log: brokenLog(b)})
			for i := range periods {
				w.clock.set(at("2026-02-04 06:00").AddDate(0, 0, i-periods))
				c := run("processor_0", "2026-02-04 06:00")
				c.EventTime = w.clock.now()
				c.Period = w.tr.Calendar().Add(w.tr.Calendar().At(c.EventTime), -1)
				if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
					b.Fatal(err)
				}
				if _, err := w.engine.Converge(context.Background(), w.key(c.Period), ""); err != nil {
					b.Fatal(err)
				}
			}
			w.store.calls.Store(0)
			b.ReportAllocs()
			for b.Loop() {
				if err := w.engine.Relay(context.Background(), w.tr, ""); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(w.store.calls.Load())/float64(b.N), "calls/op")
		})
	}
}
