package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// instance is what terraform/functions.tf gives an instance of a function.
type instance struct {
	memory      int // MB
	concurrency int
	wide        int    // concurrency, if a transition has more than 1,000 processors
	limit       string // GOMEMLIMIT
}

func deployed(t *testing.T, function string) instance {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "terraform", "functions.tf"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)    ` + function + ` = \{.*?memory +=\s"(\d+)M".*?go_memory +=\s"(\w+)".*?concurrency +=\s(?:local\.wide_pipeline \? (\d+) : )?(\d+)`).FindSubmatch(raw)
	if m == nil {
		t.Fatalf("functions.tf has no memory, go_memory and concurrency of %s", function)
	}
	memory, _ := strconv.Atoi(string(m[1]))
	wide, _ := strconv.Atoi(string(m[3]))
	concurrency, _ := strconv.Atoi(string(m[4]))
	return instance{memory, concurrency, max(wide, concurrency), string(m[2])}
}

// fits fails the test if the process has had more than nine tenths of an instance's memory.
func (i instance) fits(t *testing.T, p *process) {
	t.Helper()
	peak := p.peak(t)
	t.Logf("%d MB of %d at most, GOMEMLIMIT=%s, %d requests at once", peak, i.memory, i.limit, i.concurrency)
	if peak > i.memory*9/10 {
		t.Errorf("the instance took %d MB of %d", peak, i.memory)
	}
}

// post sends jobs to a function at once, and fails the test unless each is done.
func (w *world) post(function string, jobs ...string) {
	w.t.Helper()
	var wg sync.WaitGroup
	for i, data := range jobs {
		wg.Go(func() {
			at := time.Now().UTC().Format(time.RFC3339Nano)
			push := fmt.Sprintf(`{"message": {"messageId": "m%d-%s", "publishTime": %q, "data": %q}, "subscription": "projects/p/subscriptions/s"}`,
				i, at, at, base64.StdEncoding.EncodeToString([]byte(data)))
			resp, err := http.Post(w.process.url.String()+"/"+function, "application/json", bytes.NewReader([]byte(push)))
			if err != nil {
				w.t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusNoContent {
				body, _ := io.ReadAll(resp.Body)
				w.t.Errorf("%s is answered %s %s", data, resp.Status, body)
			}
		})
	}
	wg.Wait()
}

// fill records a run of every processor for the periods before the present one.
func (w *world) fill(periods, named int) {
	w.t.Helper()
	var names []string
	for i := range named {
		names = append(names, fmt.Sprintf("player%05d", i))
	}
	rows, ended := int64(100), w.started.UTC().Truncate(time.Second)
	for n := range periods {
		p := w.period(n + 2)
		var fields []store.Field
		for _, name := range w.tr.Order {
			c := wire.Completion{Processor: name, Reported: name, Period: p, Status: wire.StatusSuccess, ExecutionID: name + string(p), CorrelationID: "c",
				EventTime: ended, RecordCount: &rows, Incremental: named > 0, Entities: names}
			id, value := c.Record()
			fields = append(fields, store.F(value, "runs", name, id))
		}
		if _, err := w.store.Apply(w.t.Context(), store.Merge(store.Ref{Collection: "phase_periods", ID: w.tr.ID + "_" + string(p)}, fields...)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// hourly makes wide's definition one by the hour.
func hourly(definition []byte) []byte {
	definition = bytes.Replace(definition, []byte("calendar: day"), []byte("calendar: hour"), 1)
	return bytes.Replace(definition, []byte(`counts_from: "00:00"`), []byte(`counts_from: "+1h :00"`), 1)
}

// A week of 300 processors by the hour: the relay hands over all periods. Then relays and the nightly
// comparison run at the same time.
func TestMemory_ReconcileFitsIntoItsInstance(t *testing.T) {
	i := deployed(t, "reconcile")
	w := newWorld(t, of(t, subject{name: "wide", mode: "overnight"}, hourly(wide(300))), "GOMEMLIMIT="+i.limit, "LOG_LEVEL=error")
	w.fill(7*24, 0)
	w.post("reconcile", `{"job":"relay"}`)
	jobs := []string{`{"job":"nightly"}`}
	for len(jobs) < i.concurrency {
		jobs = append(jobs, `{"job":"relay"}`)
	}
	w.post("reconcile", jobs...)
	i.fits(t, w.process)
}

// Three months of 300 processors by the day, with 200 entities each. The test runs the job, and then
// opens as many pages of 14 days at once as the platform sends to an instance.
func TestMemory_HealthFitsIntoItsInstance(t *testing.T) {
	i := deployed(t, "health")
	w := newWorld(t, of(t, subject{name: "wide", mode: "overnight"}, wide(300)), "GOMEMLIMIT="+i.limit, "LOG_LEVEL=error")
	w.fill(90, 200)
	w.post("reconcile", `{"job":"relay"}`)
	w.process.kill() // so that the new process only has the memory of health
	w.start()
	w.post("health", `{"job":"health"}`)
	for _, page := range look(t, w.process, slices.Repeat([]string{""}, i.concurrency)...) {
		if bytes.Contains(page, []byte("the state cannot be read")) {
			t.Errorf("%s", page)
		}
	}
	i.fits(t, w.process)
}

// look opens status pages at the same time, and returns them.
func look(t *testing.T, p *process, queries ...string) [][]byte {
	t.Helper()
	var wg sync.WaitGroup
	pages := make([][]byte, len(queries))
	for i, query := range queries {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url.String()+"/health/"+query, nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Accept", "text/html")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if pages[i], err = io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%s, %v", resp.Status, err)
			}
		})
	}
	wg.Wait()
	return pages
}
