package e2e

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/store/firestore/firestoretest"
)

var (
	scaleProcessors = flag.Int("scale.processors", 300, "processors of the period in TestScale")
	scaleNamed      = flag.Int("scale.named", 20, "entities that each completion names")
	scaleWithin     = flag.Duration("scale.within", 10*time.Second, "in which their completions arrive")
)

// instances is max_instances of the function transition.
const instances = 5

// The completions of one period arrive at five instances, evenly within a time, behind a Firestore on
// which a commit keeps its documents for 100 ms. The test delivers a refused completion again, after the
// pauses of the subscription. Each completion is recorded and each trigger has one content; above 1,000
// processors no document gets more than half a commit a second.
func TestScale_OnePeriodOnFiveInstances(t *testing.T) {
	n := *scaleProcessors
	needEmulators(t)
	deployed := deployed(t, "transition")
	double := firestoretest.Start(t, emulatortest.Firestore(t), firestoretest.Usual)
	w := newWorld(t, of(t, subject{name: "wide", mode: "overnight"}, wide(n)), "FIRESTORE_EMULATOR_HOST="+double.Addr, "PHASEGATE_CLAIM=1m",
		"GOMEMLIMIT="+deployed.limit, "LOG_LEVEL=error")
	processes := []*process{w.process}
	for range instances - 1 {
		processes = append(processes, launch(t, w.environment))
	}
	names, period := entities(*scaleNamed), w.period(2)
	turns := make([]chan struct{}, instances) // the platform sends an instance no more at a time
	for i := range turns {
		turns[i] = make(chan struct{}, deployed.concurrency)
	}
	var again atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	pace := time.NewTicker(*scaleWithin / time.Duration(n))
	defer pace.Stop()
	for i := range n {
		<-pace.C
		wg.Go(func() {
			turn, p := turns[i%instances], processes[i%instances]
			for wait := 10 * time.Second; ; wait = min(2*wait, 10*time.Minute) { // minimum_backoff of the subscription
				turn <- struct{}{}
				status := w.deliver(p, i, period, names)
				<-turn
				if status < 300 {
					return
				}
				if status != 429 && status != 503 {
					t.Errorf("completion %d is answered %d", i, status)
					return
				}
				again.Add(1)
				<-time.After(wait)
			}
		})
	}
	last := time.Now()
	payloads, batches := map[string]string{}, map[string]bool{}
	w.await(4*limit, func() string {
		for _, r := range w.phase4.messages() {
			id := r.attributes["trigger_id"]
			if before, copied := payloads[id]; copied && before != r.data {
				t.Fatalf("two messages of %s differ", id)
			}
			payloads[id] = r.data
			batches[r.attributes["batch"]] = true
		}
		if len(payloads) < n {
			return fmt.Sprintf("%d of %d triggers", len(payloads), n)
		}
		return ""
	})
	handedOver := time.Since(last)
	wg.Wait()
	elapsed := time.Since(began)
	counts := double.Counts()
	var most string
	for name, commits := range counts.Commits {
		if commits > counts.Commits[most] {
			most = name
		}
	}
	rate := float64(counts.Commits[most]) / elapsed.Seconds()
	peaks := make([]int, instances)
	for i, p := range processes {
		peaks[i] = p.peak(t)
	}
	t.Logf("%d completions with %d names each within %s: handed over %.1f s after the last, %d batches, %d deliveries came again", n, *scaleNamed,
		last.Sub(began).Round(time.Second), handedOver.Seconds(), len(batches), again.Load())
	t.Logf("memory of the instances %v MB; %d documents read and %d written, %d commits refused; the busiest document %s: %d commits, %.2f a second",
		peaks, counts.Read, counts.Written, counts.Aborted, most[strings.Index(most, "/documents/"):], counts.Commits[most], rate)
	if len(payloads) != n || len(batches) != 1 {
		t.Errorf("%d trigger ids in %d batches, want %d in 1", len(payloads), len(batches), n)
	}
	for i, peak := range peaks {
		if peak > deployed.memory*9/10 {
			t.Errorf("instance %d took %d MB of %d", i, peak, deployed.memory)
		}
	}
	if n >= 1000 && rate > 0.5 {
		t.Errorf("%.2f commits a second on one document", rate)
	}
	if handedOver > time.Minute {
		t.Errorf("handed over after %s", handedOver)
	}
}
