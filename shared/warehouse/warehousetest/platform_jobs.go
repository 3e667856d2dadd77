package warehousetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

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
	if refused, ok := errors.AsType[*Refusal](begun); ok {
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
