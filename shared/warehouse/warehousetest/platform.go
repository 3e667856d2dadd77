package warehousetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/warehouse"
)

// Platform stands between clients and the emulator and adds limits of BigQuery that the
// emulator does not have. Each rule quotes its source. A request's identity is the user of its
// Authorization header, as [Platform.As] sets it.
type Platform struct {
	// Granted are the identities that have bigquery.jobs.get.
	Granted map[string]bool
	// Held keeps mutating statements from running until it is closed; nil: they run at once.
	Held chan struct{}
	// Arrived is called for each mutating statement, with false if the table's queue is full.
	Arrived func(queued bool)
	// Throttles says whether the n-th request, from 0, is answered with a status and nothing
	// else; 0: it is served. One call at a time.
	Throttles func(n int, r *http.Request) int

	world *World
	url   string

	mu       sync.Mutex
	requests int
	jobs     map[string]*platformJob
	tables   map[string]*platformTable
}

// "BigQuery concurrently runs up to two of these mutating DML statements […], after which up to
// 20 are queued as PENDING": https://cloud.google.com/bigquery/docs/data-manipulation-language,
// "UPDATE, DELETE, MERGE DML concurrency".
const (
	runningDML = 2
	queuedDML  = 20
)

type platformTable struct {
	slots       chan struct{}
	outstanding int
}

type platformJob struct {
	owner         string
	reference     any
	configuration any
	failure       *Refusal      // "" for none
	done          chan struct{} // nil: the emulator has the job
}

// Platform returns the emulator behind the platform's limits.
func (w *World) Platform() *Platform {
	w.t.Helper()
	p := &Platform{Granted: map[string]bool{}, world: w, jobs: map[string]*platformJob{}, tables: map[string]*platformTable{}}
	p.url = w.proxy(p.pass)
	return p
}

// As returns the warehouse as a client with this identity sees it.
func (p *Platform) As(identity string) *warehouse.Warehouse {
	p.world.t.Helper()
	wh := warehouse.New(p.world.Project, strings.Replace(p.url, "://", "://"+identity+"@", 1))
	p.world.t.Cleanup(func() { wh.Close() })
	return wh
}

var (
	jobOf    = regexp.MustCompile(`/projects/[^/]+/(?:jobs|queries)/([^/]+)`)
	mutating = regexp.MustCompile("^(?:MERGE|UPDATE|DELETE FROM) `([^`]+)`\\.`([^`]+)`")
)

func (p *Platform) pass(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
	identity, _, _ := r.BasicAuth()
	p.mu.Lock()
	n := p.requests
	p.requests++
	status := 0
	if p.Throttles != nil {
		status = p.Throttles(n, r)
	}
	p.mu.Unlock()
	// An answer without a reason: "add support for retrying unstructured 429 / 500 / 502 responses",
	// https://github.com/googleapis/google-cloud-python/pull/6011
	if status != 0 {
		return &Refusal{Code: status, Message: http.StatusText(status)}
	}
	inserts := r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/jobs")
	switch m := jobOf.FindStringSubmatch(r.URL.Path); {
	case m != nil:
		return p.ask(r, identity, m[1], forward)
	case inserts && idOf.Match(body):
		return p.insert(r, identity, body, forward)
	}
	rec := forward()
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/queries") {
		if m := idOf.FindSubmatch(rec.Body.Bytes()); m != nil {
			p.mu.Lock()
			p.jobs[string(m[1])] = &platformJob{owner: identity}
			p.mu.Unlock()
		}
	}
	return nil
}

// ask is about a job that there may be.
func (p *Platform) ask(r *http.Request, identity, id string, forward func() *httptest.ResponseRecorder) error {
	p.mu.Lock()
	job := p.jobs[id]
	p.mu.Unlock()
	switch {
	case job == nil:
		forward()
		return nil
	// "Requires that you're the person who ran the job, or have the Is Owner project role.",
	// https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/get. The text: "Permission
	// bigquery.jobs.get denied on job", of getQueryResults, in the tests of
	// https://github.com/googleapis/cpp-bigquery-odbc
	case job.owner != identity && !p.Granted[identity]:
		return &Refusal{Code: http.StatusForbidden, Reason: "accessDenied", Message: "Access Denied: Job " + p.world.Project + ":US." + id + ": Permission bigquery.jobs.get denied on job " + p.world.Project + ":US." + id + " (or it may not exist)."}
	case job.done == nil:
		forward()
		return nil
	}
	results := strings.Contains(r.URL.Path, "/queries/")
	if results {
		// "If the query is not yet complete, […] waits until timeoutMs", 10 s if it is not given:
		// https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/getQueryResults
		select {
		case <-job.done:
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
	}
	select {
	case <-job.done:
	default:
		return answer{"jobReference": job.reference, "configuration": job.configuration, "status": map[string]any{"state": "RUNNING"}, "jobComplete": false}
	}
	switch {
	case job.failure != nil && results:
		return job.failure
	case job.failure != nil:
		return job.failed()
	}
	forward()
	return nil
}

func (j *platformJob) failed() answer {
	out := answer{"jobReference": j.reference, "configuration": j.configuration}
	j.failure.of(out)
	return out
}

func (p *Platform) insert(r *http.Request, identity string, body []byte, forward func() *httptest.ResponseRecorder) error {
	id := string(idOf.FindSubmatch(body)[1])
	var request struct {
		JobReference  any
		Configuration struct{ Query struct{ Query string } }
	}
	var raw map[string]any
	if !strings.HasPrefix(r.URL.Path, "/upload/") { // a load is more than JSON
		if err := errors.Join(json.Unmarshal(body, &request), json.Unmarshal(body, &raw)); err != nil {
			return err
		}
	}
	p.mu.Lock()
	// "Already Exists: Job xxxxxxxxxxxxxxxx:EU.80760581-…", reason duplicate,
	// https://github.com/googleapis/google-cloud-java/issues/2867
	if p.jobs[id] != nil {
		p.mu.Unlock()
		return &Refusal{Code: http.StatusConflict, Reason: "duplicate", Message: "Already Exists: Job " + p.world.Project + ":US." + id}
	}
	job := &platformJob{owner: identity, reference: request.JobReference, configuration: raw["configuration"]}
	p.jobs[id] = job
	m := mutating.FindStringSubmatch(request.Configuration.Query.Query)
	if m == nil {
		p.mu.Unlock()
		forward()
		return nil
	}
	name := p.world.Project + ":" + m[1] + "." + m[2]
	t := p.tables[name]
	if t == nil {
		t = &platformTable{slots: make(chan struct{}, runningDML)}
		p.tables[name] = t
	}
	job.done = make(chan struct{})
	queued := t.outstanding < runningDML+queuedDML
	if queued {
		t.outstanding++
	}
	p.mu.Unlock()
	if p.Arrived != nil {
		p.Arrived(queued)
	}
	// "Additional statements past the maximum queue length for each table fail with the error
	// message", same page of the documentation.
	if !queued {
		job.failure = &Refusal{Code: http.StatusBadRequest, Reason: "resourcesExceeded",
			Message: "Resources exceeded during query execution: Too many DML statements outstanding against table " + name + ", limit is 20."}
		close(job.done)
		return job.failed()
	}
	go p.run(t, job, r.URL.RequestURI(), body)
	return answer{"jobReference": job.reference, "configuration": job.configuration, "status": map[string]any{"state": "PENDING"}}
}

// run runs a mutating statement when its turn has come.
func (p *Platform) run(t *platformTable, job *platformJob, uri string, body []byte) {
	defer close(job.done)
	t.slots <- struct{}{}
	if p.Held != nil {
		<-p.Held
	}
	resp, err := http.Post("http://"+strings.TrimPrefix(p.world.Host, "http://")+uri, "application/json", bytes.NewReader(body))
	if err != nil {
		job.failure = &Refusal{Code: http.StatusServiceUnavailable, Reason: "backendError", Message: err.Error()}
	} else {
		_ = resp.Body.Close()
	}
	<-t.slots
	p.mu.Lock()
	t.outstanding--
	p.mu.Unlock()
}
