package transition_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/functions/transition"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/production"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store/firestore/firestoretest"
	"github.com/phasegate/phasegate/shared/wire"
)

// instance is one function over HTTP on the real emulators.
type instance struct {
	*app.App
	url   string
	after pipeline.Period // yesterday, whose overnight cycle can be completed now
}

func newInstance(b *testing.B) *instance {
	b.Helper()
	emulatortest.Firestore(b)
	// The clock is real: periods of any age are handed over, at any hour.
	definition := strings.NewReplacer("trigger_within: 72h", "trigger_within: 87600h", `        not_before: "+1d 05:00"`+"\n", "").
		Replace(string(pipeline.Default()))
	file := filepath.Join(b.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		b.Fatal(err)
	}
	c := app.Config{Project: "bench-" + strings.ToLower(rand.Text()), PipelineFile: file, Store: "firestore",
		Claim: time.Minute, PubSubHost: emulatortest.PubSub(b)}
	a, err := app.Open(context.Background(), c, production.Firestore, time.Now, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.Close() })
	topic := &pubsubpb.Topic{Name: "projects/" + c.Project + "/topics/" + a.Pipeline.Transitions[0].DownstreamTopic}
	if _, err := a.Broker.Client.TopicAdminClient.CreateTopic(context.Background(), topic); err != nil {
		b.Fatal(err)
	}
	s := httptest.NewServer(transition.New(func(context.Context) (*app.App, error) { return a, nil }))
	b.Cleanup(s.Close)
	cal := a.Pipeline.Calendar
	return &instance{a, s.URL, cal.Add(cal.At(time.Now()), -1)}
}

// complete posts the completion of one processor for a period and returns how long
// the answer took.
func (in *instance) complete(b *testing.B, client *http.Client, p pipeline.Period, processor string) time.Duration {
	b.Helper()
	at := time.Now()
	data, err := json.Marshal(map[string]any{"processor_name": processor, "game_date": p, "status": "success",
		"execution_id": rand.Text(), "timestamp": at.UTC().Format(time.RFC3339Nano), "record_count": 348})
	if err != nil {
		b.Error(err)
		return 0
	}
	body := wire.Envelope{MessageID: rand.Text(), PublishTime: at, Data: data}.Push()
	resp, err := client.Post(in.url, "application/json", bytes.NewReader(body))
	if err != nil {
		b.Error(err)
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusNoContent {
		b.Errorf("%s: %d %v", processor, resp.StatusCode, err)
	}
	return time.Since(at)
}

// BenchmarkLastCompletion measures from the last completion of a cycle to the answer
// that follows the broker's ids: alone, and with 50 cycles completed at once.
func BenchmarkLastCompletion(b *testing.B) {
	for _, c := range []struct {
		on     string
		cycles int
	}{{"emulator", 1}, {"emulator", 50}, {"double", 1}, {"double", 50}} {
		cycles := c.cycles
		b.Run(fmt.Sprintf("%s/%d_cycles_at_once", c.on, cycles), func(b *testing.B) {
			if c.on == "double" {
				b.Setenv("FIRESTORE_EMULATOR_HOST", firestoretest.Start(b, emulatortest.Firestore(b), firestoretest.Usual).Addr)
			}
			in := newInstance(b)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: cycles}}
			defer client.CloseIdleConnections()
			var mu sync.Mutex
			var took []time.Duration
			next := in.after
			for b.Loop() {
				b.StopTimer()
				periods := make([]pipeline.Period, cycles)
				var wg sync.WaitGroup
				for i := range periods {
					periods[i], next = next, in.Pipeline.Calendar.Add(next, -1)
					wg.Go(func() {
						for _, name := range five[:4] {
							in.complete(b, client, periods[i], name)
						}
					})
				}
				wg.Wait()
				b.StartTimer()
				for _, p := range periods {
					wg.Go(func() {
						d := in.complete(b, client, p, five[4])
						mu.Lock()
						took = append(took, d)
						mu.Unlock()
					})
				}
				wg.Wait()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// BenchmarkConcurrency measures one instance with 1, 16 and 80 requests at once:
// completions a second, memory, and whether all goroutines end.
func BenchmarkConcurrency(b *testing.B) {
	for _, n := range []int{1, 16, 80} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			in := newInstance(b)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n}}
			in.complete(b, client, in.after, five[0]) // opens the clients
			before := runtime.NumGoroutine()
			var mu sync.Mutex
			requests, period := 0, in.after
			for b.Loop() {
				mu.Lock()
				period = in.Pipeline.Calendar.Add(period, -1)
				mu.Unlock()
				var wg sync.WaitGroup
				for i := range n {
					wg.Go(func() { in.complete(b, client, in.Pipeline.Calendar.Add(period, -i/5), five[i%5]) })
				}
				wg.Wait()
				requests += n
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			client.CloseIdleConnections()
			ends := time.NewTicker(10 * time.Millisecond) // connections end in their own time
			defer ends.Stop()
			for range 300 {
				if runtime.NumGoroutine() <= before {
					break
				}
				<-ends.C
			}
			b.ReportMetric(float64(requests)/b.Elapsed().Seconds(), "completions/s")
			b.ReportMetric(float64(m.HeapInuse)/(1<<20), "heap-MB")
			b.ReportMetric(float64(max(runtime.NumGoroutine()-before, 0)), "goroutines-left")
		})
	}
}
