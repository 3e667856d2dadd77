package warehousetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
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

// Running are the statements of jobs that have not ended, in no order. BigQuery bills them,
// also if no client waits for them any more.
func (p *Platform) Running() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, job := range p.jobs {
		if !job.ended() {
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

// request is what begins a job by jobs.insert or jobs.query.
type request struct {
	reference     map[string]any
	configuration map[string]any
	query         map[string]any // of the configuration
	statement     string
	dry           bool
}

// insert begins a job by jobs.insert.
func (p *Platform) insert(r *http.Request, identity string, body []byte, forward func() *httptest.ResponseRecorder) error {
	var raw map[string]any
	if err := json.Unmarshal(body, &raw); err != nil {
		return err
	}
	q := request{}
	q.reference, _ = raw["jobReference"].(map[string]any)
	q.configuration, _ = raw["configuration"].(map[string]any)
	q.query, _ = q.configuration["query"].(map[string]any)
	q.statement, _ = q.query["query"].(string)
	q.dry = q.configuration["dryRun"] == true
	if q.reference == nil || q.query == nil {
		forward()
		return nil
	}
	return p.begin(r, identity, q, body, forward)
}

// query runs a query by jobs.query: the job, its end and its first rows are one request.
func (p *Platform) query(r *http.Request, identity string, body []byte, forward func() *httptest.ResponseRecorder) error {
	var raw map[string]any
	if err := json.Unmarshal(body, &raw); err != nil {
		return err
	}
	q := request{query: map[string]any{"useLegacySql": false}, reference: map[string]any{"projectId": p.world.Project, "jobId": "job_" + rand.Text()}}
	for _, field := range []string{"query", "queryParameters", "parameterMode", "maximumBytesBilled"} {
		if v, given := raw[field]; given {
			q.query[field] = v
		}
	}
	if location, given := raw["location"]; given {
		q.reference["location"] = location
	}
	q.configuration = map[string]any{"query": q.query, "labels": raw["labels"]}
	q.statement, _ = q.query["query"].(string)
	body, err := json.Marshal(map[string]any{"jobReference": q.reference, "configuration": q.configuration})
	if err != nil {
		return err
	}
	id := q.reference["jobId"].(string)
	uri := strings.TrimSuffix(r.URL.Path, "/queries")
	begun := p.begin(r, identity, q, body, func() *httptest.ResponseRecorder { return p.send(http.MethodPost, uri+"/jobs", body) })
	var refused *Refusal
	if errors.As(begun, &refused) {
		return refused
	}
	r.URL.Path, r.Method, r.Body, r.ContentLength = uri+"/queries/"+id, http.MethodGet, http.NoBody, 0
	values := r.URL.Query()
	values.Set("location", q.reference["location"].(string))
	if ms, given := raw["timeoutMs"]; given {
		values.Set("timeoutMs", strings.Trim(string(must(json.Marshal(ms))), `"`))
	}
	r.URL.RawQuery = values.Encode()
	return p.ask(r, identity, id, false, forward)
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// begin begins the job of a statement, unless a rule refuses it.
func (p *Platform) begin(r *http.Request, identity string, q request, body []byte, forward func() *httptest.ResponseRecorder) error {
	named, err := p.named(q.statement)
	if err != nil {
		return err
	}
	if err := p.place(q.reference, named); err != nil {
		return err
	}
	if refusal := p.unfiltered(q.statement, named); refusal != nil {
		return refusal
	}
	bytes, billed := p.reads(q, named)
	if q.dry {
		return p.dry(bytes, forward)
	}
	job := &platformJob{owner: identity, reference: q.reference, configuration: q.configuration, statement: q.statement}
	if err := p.enter(job); err != nil {
		return err
	}
	// "Query exceeded limit for bytes billed: 163595928. 164626432 or higher required.; reason: bytesBilledLimitExceeded",
	// https://github.com/exmergo/dex/issues/320
	if most, _ := strconv.ParseInt(text(q.query["maximumBytesBilled"]), 10, 64); most > 0 && billed > most {
		return job.fail(&Refusal{Code: http.StatusBadRequest, Reason: "bytesBilledLimitExceeded",
			Message: "Query exceeded limit for bytes billed: " + strconv.FormatInt(most, 10) + ". " + strconv.FormatInt(billed, 10) + " or higher required."})
	}
	if refusal := p.buffered(q.statement, named); refusal != nil {
		return job.fail(refusal)
	}
	var t *platformTable
	if m := mutating.FindStringSubmatch(q.statement); m != nil {
		var refusal *Refusal
		if t, refusal = p.queue(m[1] + "." + m[2]); refusal != nil {
			return job.fail(refusal)
		}
	}
	if t == nil && p.Delay == 0 && (p.Stays == nil || !p.Stays(q.statement)) {
		p.forwarded(job, forward())
		return nil
	}
	uri := r.URL.Path
	if strings.HasSuffix(uri, "/queries") {
		uri = strings.TrimSuffix(uri, "/queries") + "/jobs"
	}
	go p.run(t, job, uri, body)
	return job.state()
}

// enter records a job under its id. "Already Exists: Job xxxxxxxxxxxxxxxx:EU.80760581-…", reason
// duplicate, https://github.com/googleapis/google-cloud-java/issues/2867
func (p *Platform) enter(job *platformJob) error {
	id, _ := job.reference["jobId"].(string)
	job.location, _ = job.reference["location"].(string)
	job.done, job.cancelled = make(chan struct{}), make(chan struct{})
	job.cancel = sync.OnceFunc(func() { close(job.cancelled) })
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.jobs[id] != nil {
		return &Refusal{Code: http.StatusConflict, Reason: "duplicate", Message: "Already Exists: Job " + p.world.Project + ":" + job.location + "." + id}
	}
	p.jobs[id] = job
	return nil
}

func (j *platformJob) fail(refusal *Refusal) answer {
	j.failure = refusal
	close(j.done)
	return j.state()
}

// queue gives a mutating statement a place among those of its table. "Additional statements past
// the maximum queue length for each table fail with the error message":
// https://cloud.google.com/bigquery/docs/data-manipulation-language
func (p *Platform) queue(table string) (*platformTable, *Refusal) {
	p.mu.Lock()
	t := p.tables[table]
	if t == nil {
		t = &platformTable{slots: make(chan struct{}, runningDML)}
		p.tables[table] = t
	}
	queued := t.outstanding < runningDML+queuedDML
	if queued {
		t.outstanding++
	}
	p.mu.Unlock()
	if p.Arrived != nil {
		p.Arrived(queued)
	}
	if !queued {
		return nil, &Refusal{Code: http.StatusBadRequest, Reason: "resourcesExceeded",
			Message: "Resources exceeded during query execution: Too many DML statements outstanding against table " + p.world.Project + ":" + table + ", limit is 20."}
	}
	return t, nil
}

// run runs a statement when its turn has come and its time has passed. t is nil if it changes
// nothing.
func (p *Platform) run(t *platformTable, job *platformJob, uri string, body []byte) {
	defer close(job.done)
	if t != nil {
		t.slots <- struct{}{}
		defer func() {
			<-t.slots
			p.mu.Lock()
			t.outstanding--
			p.mu.Unlock()
		}()
		if p.Held != nil {
			<-p.Held
		}
	}
	if p.Stays != nil && p.Stays(job.statement) {
		<-job.cancelled
	} else if p.Delay > 0 {
		p.pause(job)
	}
	select {
	case <-job.cancelled:
		// The reason: "stopped | 200 | This status code returns when a job is canceled",
		// https://cloud.google.com/bigquery/docs/error-messages
		job.failure = &Refusal{Code: http.StatusBadRequest, Reason: "stopped", Message: "Job execution was cancelled: User requested cancellation"}
	default:
		p.send(http.MethodPost, uri, body)
	}
}

func (p *Platform) pause(job *platformJob) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-job.cancelled:
			cancel()
		case <-ctx.Done():
		}
	}()
	if p.Sleep != nil {
		p.Sleep(ctx, p.Delay)
		return
	}
	timer := time.NewTimer(p.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// send sends a request to the emulator.
func (p *Platform) send(method, uri string, body []byte) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	req, err := http.NewRequest(method, "http://"+strings.TrimPrefix(p.world.Host, "http://")+uri, bytes.NewReader(body))
	if err == nil {
		req.Header.Set("Content-Type", "application/json")
		var resp *http.Response
		if resp, err = http.DefaultClient.Do(req); err == nil {
			defer resp.Body.Close()
			rec.Code = resp.StatusCode
			_, err = rec.Body.ReadFrom(resp.Body)
		}
	}
	if err != nil {
		rec.Code = http.StatusServiceUnavailable
	}
	return rec
}
