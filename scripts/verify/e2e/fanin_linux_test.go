package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/pipeline/pipelinetest"
	"github.com/phasegate/phasegate/shared/store/firestore/firestoretest"
)

// concurrency is how many requests the platform sends to an instance at a time (terraform:
// max_instance_request_concurrency).
const concurrency = 80

// Many processors of one period end at the same time and name 200 entities each. One instance
// answers all of them. Its Firestore double locks a document for 100 ms at each commit.
func TestManyCompletionsAtOnce_FitIntoOneInstance(t *testing.T) {
	const n, named = 300, 200
	needEmulators(t)
	double := firestoretest.Start(t, emulatortest.Firestore(t), firestoretest.Usual)
	w := newWorld(t, of(t, subject{name: "wide", mode: "overnight"}, wide(n)), "FIRESTORE_EMULATOR_HOST="+double.Addr)
	names, period := entities(named), w.period(2)
	began := time.Now()
	turn := make(chan struct{}, concurrency)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			if status := w.deliver(w.process, i, period, names); status >= 300 {
				t.Errorf("completion %d is answered %d", i, status)
			}
		})
	}
	wg.Wait()
	took, peak, counts := time.Since(began), w.process.peak(t), double.Counts()
	commits, reads := counts.Commits[w.document("phase_periods", w.tr.ID+"_"+string(period))], counts.Calls["/google.firestore.v1.Firestore/BatchGetDocuments"]
	t.Logf("%d completions with %d names each: %.1f s, %d MB at most, %d commits to their document, %d reads", n, named, took.Seconds(), peak, commits, reads)
	w.awaitHandedOver(map[pipeline.Period]int{period: n})
	if sum := w.audit(map[pipeline.Period]int{period: n}); sum.batches != 1 {
		t.Errorf("%d batches", sum.batches)
	}
	if commits > 30 || reads > 30 { // an evaluation reads twice at least
		t.Errorf("%d commits and %d reads: not shared", commits, reads)
	}
	if took > time.Minute {
		t.Errorf("done after %s, want a minute at most", took)
	}
	if peak > 200 {
		t.Errorf("the instance took %d MB, want 200 at most", peak)
	}
}

func entities(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("player%05d", i)
	}
	return names
}

// deliver posts the completion of the i-th processor of a wide definition to a process, and returns the
// answer's status; 0 if there is none.
func (w *world) deliver(p *process, i int, period pipeline.Period, names []string) int {
	data, err := json.Marshal(map[string]any{"processor_name": fmt.Sprint("processor_", i), "game_date": period, "status": "success",
		"execution_id": fmt.Sprint("e", i), "timestamp": w.started.UTC().Format(time.RFC3339Nano), "record_count": 100,
		"metadata": map[string]any{"is_incremental": true, "entities_changed": names}})
	if err != nil {
		w.t.Error(err)
		return 0
	}
	push := fmt.Sprintf(`{"message": {"messageId": "m%d", "publishTime": %q, "data": %q}, "subscription": %q}`, i,
		time.Now().UTC().Format(time.RFC3339Nano), base64.StdEncoding.EncodeToString(data), w.name("subscriptions", w.tr.Subscription()))
	resp, err := http.Post(p.url.String()+"/transition?transition="+w.tr.ID, "application/json", bytes.NewReader([]byte(push)))
	if err != nil {
		w.t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		w.t.Error(err)
	}
	return resp.StatusCode
}

// wide is a definition of n processors of one phase, all of them critical.
func wide(n int) []byte { return []byte(pipelinetest.Wide(n, "processor")) }

// document is a document's full name.
func (w *world) document(collection, id string) string {
	return "projects/" + w.project + "/databases/(default)/documents/" + collection + "/" + id
}

// peak returns the most memory that the process had, in MB.
func (p *process) peak(t *testing.T) (mb int) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(p.cmd.Process.Pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return kb / 1000
		}
	}
	t.Fatal("the system does not say how much memory a process had")
	return 0
}
