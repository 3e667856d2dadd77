package e2e

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store/firestore/firestoretest"
)

var (
	scaleProcessors = flag.Int("scale.processors", 300, "processors of the period in TestScale")
	scaleNamed      = flag.Int("scale.named", 20, "entities that each completion names")
	scaleWithin     = flag.Duration("scale.within", 10*time.Second, "in which their completions arrive")
)

const (
	// instances is max_instances of the function transition.
	instances = 5
	// A month has so many periods by the hour, and relays. A relay reads the heads of two weeks, and
	// evaluates the period of the last hour. It marks each period later, by a commit of two documents.
	hours, relays, heads, markWritten = 720, 8640, 14 * 24, 2
	// A document of Firestore costs as in the bill test of scripts/dev/demo.
	perRead, perWrite = 0.03 / 1e5, 0.09 / 1e5
	// mostAMonth bounds Firestore's part of a month by the hour.
	mostAMonth = 6
)

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
	atATime := deployed.concurrency
	if n > 1000 {
		atATime = deployed.wide
	}
	turns := make([]chan struct{}, instances) // the platform sends an instance no more at a time
	for i := range turns {
		turns[i] = make(chan struct{}, atATime)
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
	for _, name := range slices.Sorted(maps.Keys(counts.Commits)) {
		if counts.Commits[name] > counts.Commits[most] {
			most = name
		}
		if strings.Contains(name, "/phase_periods/") || strings.Contains(name, "/phase3_completion/") {
			t.Logf("%s: %d commits, %.2f a second", name[strings.Index(name, "/documents/"):], counts.Commits[name], float64(counts.Commits[name])/elapsed.Seconds())
		}
	}
	rate := float64(counts.Commits[most]) / elapsed.Seconds()
	peaks := make([]int, instances)
	for i, p := range processes {
		peaks[i] = p.peak(t)
	}
	t.Logf("%d completions with %d names each within %s: handed over %.1f s after the last, %d batches, %d redeliveries", n, *scaleNamed,
		last.Sub(began).Round(time.Second), handedOver.Seconds(), len(batches), again.Load())
	t.Logf("memory of the instances %v MB; %d documents read and %d written, %d commits refused; the busiest document %s: %d commits, %.2f a second",
		peaks, counts.Read, counts.Written, counts.Aborted, most[strings.Index(most, "/documents/"):], counts.Commits[most], rate)
	relay := func() (read, written int) {
		before := double.Counts()
		w.post("reconcile", `{"job":"relay"}`)
		after := double.Counts()
		return after.Read - before.Read, after.Written - before.Written
	}
	relay() // notes which period is the first
	relayRead, relayWritten := relay()
	dollars := hours*(float64(counts.Read+relayRead)*perRead+float64(counts.Written+markWritten)*perWrite) +
		relays*(float64(heads-1+relayRead)*perRead+float64(relayWritten)*perWrite)
	t.Logf("a relay of the period reads %d documents and writes %d; Firestore by the hour: $%.2f a month; %d requests at a time in an instance",
		relayRead, relayWritten, dollars, atATime)
	if dollars > mostAMonth {
		t.Errorf("Firestore takes $%.2f a month, want %d at most", dollars, mostAMonth)
	}
	if recorded := w.recorded(period); recorded != n {
		t.Errorf("%d runs are recorded, want %d", recorded, n)
	}
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

// recorded counts the runs of a period.
func (w *world) recorded(period pipeline.Period) (runs int) {
	w.t.Helper()
	id := w.tr.ID + "_" + string(period)
	for _, collection := range []string{"phase_periods", "phase_runs"} {
		for doc, err := range w.store.Scan(w.t.Context(), collection, id, id+"\uf8ff") {
			if err != nil {
				w.t.Fatal(err)
			}
			processors, _ := doc.Data["runs"].(map[string]any)
			for _, all := range processors {
				of, _ := all.(map[string]any)
				runs += len(of)
			}
		}
	}
	return runs
}
