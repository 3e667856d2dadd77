package warehousetest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/warehouse"
)

// Platform stands between clients and the emulator and adds limits of BigQuery that the
// emulator does not have. Each rule quotes its source. A request's identity is the user of its
// Authorization header, as [Platform.As] sets it. Set the fields before the first request.
type Platform struct {
	// Granted are the identities that have bigquery.jobs.get.
	Granted map[string]bool
	// Held keeps mutating statements from running until it is closed; nil: they run at once.
	Held chan struct{}
	// Arrived is called for each mutating statement, with false if the table's queue is full.
	Arrived func(queued bool)
	// Fails answers the n-th request, from 0, unless it returns nil: with a [*Refusal], such as
	// [Throttled], or with [ErrCut]. One call at a time.
	Fails func(n int, r *http.Request) error
	// Loses says whether the answer to a request that was carried out is lost: 503 takes its place.
	Loses func(*http.Request) bool
	// Delay is how long the job of a query takes. Sleep waits for it; nil: in real time.
	Delay time.Duration
	Sleep func(context.Context, time.Duration)
	// Stays says whether the job of a statement stays RUNNING until it is cancelled.
	Stays func(statement string) bool
	// Locations are those of datasets; of others it is US.
	Locations map[string]string
	// Tables are properties of tables, by dataset.table, that the emulator does not keep.
	Tables map[string]Table
	// Now is the clock of the streaming buffers; nil: time.Now.
	Now func() time.Time

	world *World
	url   string

	mu       sync.Mutex
	requests int
	jobs     map[string]*platformJob
	tables   map[string]*platformTable
	streamed map[string][]streamedRow
}

// Table has properties of a table that the emulator does not keep.
type Table struct {
	Partition     string // the column by whose days it is partitioned; "" for none
	RequireFilter bool   // require_partition_filter
	Bytes         int64  // its size
	Days          int64  // its partitions, each of the same size; 0: one
}

// Throttled is an answer without a reason, such as 408 and 429: "add support for retrying
// unstructured 429 / 500 / 502 responses", https://github.com/googleapis/google-cloud-python/pull/6011
func Throttled(status int) *Refusal {
	return &Refusal{Code: status, Message: http.StatusText(status)}
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
	owner, location string
	statement       string
	reference       map[string]any
	configuration   any
	done            chan struct{} // closed when it has ended
	failure         *Refusal      // set before that; nil: the emulator has its result
	cancelled       chan struct{} // closed by a request to cancel it
	cancel          func()
}

// Platform returns the emulator behind the platform's limits.
func (w *World) Platform() *Platform {
	w.t.Helper()
	p := &Platform{Granted: map[string]bool{}, Locations: map[string]string{}, Tables: map[string]Table{}, world: w,
		jobs: map[string]*platformJob{}, tables: map[string]*platformTable{}, streamed: map[string][]streamedRow{}}
	p.url = w.proxy(p.pass)
	return p
}

// As returns the warehouse as a client with this identity sees it.
func (p *Platform) As(identity string) *warehouse.Warehouse {
	p.world.t.Helper()
	wh := warehouse.New(p.world.Project, p.URL(identity))
	p.world.t.Cleanup(func() { wh.Close() })
	return wh
}

// URL is the address for a client with an identity, as BIGQUERY_EMULATOR_HOST.
func (p *Platform) URL(identity string) string {
	return strings.Replace(p.url, "://", "://"+identity+"@", 1)
}

// Running are the statements of jobs that have not ended and were not cancelled, in no order. BigQuery
// bills them, also if no client waits for them any more. A cancelled job ends soon after the answer.
func (p *Platform) Running() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, job := range p.jobs {
		select {
		case <-job.done:
		case <-job.cancelled:
		default:
			out = append(out, job.statement)
		}
	}
	return out
}

func (j *platformJob) ended() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

var (
	jobOf    = regexp.MustCompile(`/projects/[^/]+/(?:jobs|queries)/([^/]+)(/cancel)?$`)
	tableOf  = regexp.MustCompile(`/datasets/([^/]+)(?:/tables/([^/]+))?(/insertAll)?$`)
	mutating = regexp.MustCompile("^(?:MERGE(?: INTO)?|UPDATE|DELETE FROM) `?([\\w-]+)`?\\.`?([\\w-]+)`?")
)

func (p *Platform) pass(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
	loses := p.Loses != nil && p.Loses(r)
	err := p.serve(r, body, forward)
	if loses {
		return &Refusal{Code: http.StatusServiceUnavailable, Reason: "backendError", Message: "try again"}
	}
	return err
}

func (p *Platform) serve(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
	identity, _, _ := r.BasicAuth()
	p.mu.Lock()
	n := p.requests
	p.requests++
	var failure error
	if p.Fails != nil {
		failure = p.Fails(n, r)
	}
	p.mu.Unlock()
	if failure != nil {
		return failure
	}
	switch m := jobOf.FindStringSubmatch(r.URL.Path); {
	case m != nil:
		return p.ask(r, identity, m[1], m[2] != "", forward)
	case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/upload/"):
		return p.load(r, identity, body, forward)
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/jobs"):
		return p.insert(r, identity, body, forward)
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/queries"):
		return p.query(r, identity, body, forward)
	}
	if m := tableOf.FindStringSubmatch(r.URL.Path); m != nil {
		return p.table(r, m[1], m[2], m[3] != "", body, forward)
	}
	forward()
	return nil
}

// ask is about a job that there may be.
func (p *Platform) ask(r *http.Request, identity, id string, cancel bool, forward func() *httptest.ResponseRecorder) error {
	p.mu.Lock()
	job := p.jobs[id]
	p.mu.Unlock()
	switch {
	case job == nil:
		forward()
		return nil
	// "location: The geographic location of the job. You must specify the location […] If the location to run a job
	// is not in the us or the eu multi-regional location", https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/get.
	// The text of a job of another location: https://github.com/getredash/website/issues/283
	case !p.sees(r.URL.Query().Get("location"), job.location):
		return &Refusal{Code: http.StatusNotFound, Reason: "notFound", Message: "Not found: Job " + p.world.Project + ":" + id}
	// "Requires that you're the person who ran the job, or have the Is Owner project role.",
	// https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/get. The text: "Permission
	// bigquery.jobs.get denied on job", of getQueryResults, in the tests of
	// https://github.com/googleapis/cpp-bigquery-odbc
	case job.owner != identity && !p.Granted[identity]:
		name := p.world.Project + ":" + job.location + "." + id
		return &Refusal{Code: http.StatusForbidden, Reason: "accessDenied", Message: "Access Denied: Job " + name + ": Permission bigquery.jobs.get denied on job " + name + " (or it may not exist)."}
	case cancel:
		job.cancel()
		return answer{"job": job.state()}
	}
	results := strings.Contains(r.URL.Path, "/queries/")
	if results {
		job.wait(r)
	}
	switch {
	case !job.ended():
		return job.state()
	case job.failure != nil && results:
		return job.failure
	case job.failure != nil:
		return job.state()
	}
	job.locate(forward())
	return nil
}

func (p *Platform) sees(asked, location string) bool {
	return strings.EqualFold(asked, location) || asked == "" && (location == "US" || location == "EU")
}

// wait: "If the query is not yet complete, […] waits until timeoutMs", 10 s if it is not given:
// https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/getQueryResults
func (j *platformJob) wait(r *http.Request) {
	limit := 10 * time.Second
	if ms, err := strconv.Atoi(r.URL.Query().Get("timeoutMs")); err == nil {
		limit = time.Duration(ms) * time.Millisecond
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-j.done:
	case <-r.Context().Done():
	case <-timer.C:
	}
}

// state is the answer about a job that the emulator does not have.
func (j *platformJob) state() answer {
	out := answer{"jobReference": j.reference, "configuration": j.configuration}
	switch {
	case !j.ended():
		out["status"], out["jobComplete"] = map[string]any{"state": "RUNNING"}, false
	case j.failure != nil:
		j.failure.of(out)
	default:
		out["status"] = map[string]any{"state": "DONE"}
	}
	return out
}

// forwarded ends a job that the emulator has run. A request that is refused begins no job.
func (p *Platform) forwarded(job *platformJob, rec *httptest.ResponseRecorder) {
	if rec.Code >= http.StatusBadRequest {
		p.mu.Lock()
		delete(p.jobs, job.reference["jobId"].(string))
		p.mu.Unlock()
	}
	close(job.done)
	job.locate(rec)
}

// locate puts the location into an answer about a job.
func (j *platformJob) locate(rec *httptest.ResponseRecorder) {
	rewrite(rec, func(out map[string]any) {
		if reference, ok := out["jobReference"].(map[string]any); ok {
			reference["location"] = j.location
		}
	})
}
