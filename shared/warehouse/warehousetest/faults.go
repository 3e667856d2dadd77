package warehousetest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/phasegate/phasegate/shared/warehouse"
)

// Faults makes requests and jobs go wrong between clients and the emulator. Several clients
// may share one ([World.Faulty]): they see the same jobs. The zero value passes everything.
type Faults struct {
	// Get answers a GET, the n-th from 0, in the emulator's place unless it returns nil: a
	// [*Refusal], [ErrCut], or an error after which the library does not try again. One call
	// at a time. A cut does not order it before what the client does next.
	Get func(n int, path string) error
	// Statement is a part of the text of the jobs that the following is about; "" means MERGE,
	// "LOAD" means those that load rows.
	Statement string
	// Begun is called with each such job's id after it was begun and before the answer.
	Begun func(id string)
	// Lost: so many answers to the beginning of such a job are cut.
	Lost int
	// Fail are what the next such jobs fail with. A statement is not run; rows are loaded.
	Fail []*Refusal
	// Held keeps such a job running, without an effect, until the channel is closed.
	Held chan struct{}

	getting sync.Mutex // while Get runs

	mu     sync.Mutex
	gets   []string
	begun  []string            // ids
	failed map[string]*Refusal // by id
	held   map[string]heldJob
}

// heldJob is a job whose state is RUNNING and that has no effect yet.
type heldJob struct {
	running answer
	begin   func()
}

// Gets are the paths of the GETs so far, in order.
func (f *Faults) Gets() []string { f.mu.Lock(); defer f.mu.Unlock(); return slices.Clone(f.gets) }

// Jobs are the ids of the jobs so far that have the statement, in order.
func (f *Faults) Jobs() []string { f.mu.Lock(); defer f.mu.Unlock(); return slices.Clone(f.begun) }

// Faulty returns the warehouse as a client sees it behind the faults.
func (w *World) Faulty(f *Faults) *warehouse.Warehouse {
	w.t.Helper()
	return w.Through(func(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
		return f.Pass(w, r, body, forward)
	})
}

// Pass is for tests that have their own proxy ([World.Through]).
func (f *Faults) Pass(w *World, r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
	load := strings.HasPrefix(r.URL.Path, "/upload/")
	statement := f.Statement
	if statement == "" {
		statement = "MERGE"
	}
	switch {
	case r.Method == http.MethodGet:
		return f.get(r, forward)
	case load && statement == "LOAD", !load && strings.HasSuffix(r.URL.Path, "/jobs") && bytes.Contains(body, []byte(statement)):
		return f.begin(w, r, body, forward)
	}
	if m := idOf.FindSubmatch(body); m != nil && f.holds(string(m[1])) {
		return &Refusal{Code: http.StatusConflict, Reason: "duplicate", Message: "Already Exists: Job " + string(m[1])}
	}
	forward()
	return nil
}

func (f *Faults) holds(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, held := f.held[id]
	return held
}

func (f *Faults) get(r *http.Request, forward func() *httptest.ResponseRecorder) error {
	id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	f.mu.Lock()
	n := len(f.gets)
	f.gets = append(f.gets, r.URL.Path)
	refusal := f.failed[id]
	running, held := f.held[id]
	f.mu.Unlock()
	if f.Get != nil {
		f.getting.Lock()
		err := f.Get(n, r.URL.Path)
		f.getting.Unlock()
		if err != nil {
			return err
		}
	}
	if held {
		select {
		case <-f.Held:
			f.mu.Lock()
			if _, still := f.held[id]; still {
				delete(f.held, id)
				running.begin()
			}
			f.mu.Unlock()
		default:
			return running.running
		}
	}
	if refusal != nil && strings.Contains(r.URL.Path, "/queries/") {
		return refusal
	}
	rec := forward()
	if refusal != nil {
		rewrite(rec, refusal.of)
	}
	return nil
}

// idOf is where a request to begin a job names it.
var idOf = regexp.MustCompile(`"jobId":\s*"([^"]+)"`)

func (f *Faults) begin(w *World, r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
	id := string(idOf.FindSubmatch(body)[1])
	var job map[string]any
	_ = json.Unmarshal(body, &job) // a load is more than JSON
	f.mu.Lock()
	f.begun = append(f.begun, id)
	var refusal *Refusal
	if len(f.Fail) > 0 {
		refusal, f.Fail = f.Fail[0], f.Fail[1:]
		if f.failed == nil {
			f.failed = map[string]*Refusal{}
		}
		f.failed[id] = refusal
		if job != nil {
			job["configuration"].(map[string]any)["query"].(map[string]any)["query"] = "SELECT 1"
			changed, _ := json.Marshal(job)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(changed)), int64(len(changed))
		}
	}
	lost := f.Lost > 0
	if lost {
		f.Lost--
	}
	var running answer
	if f.Held != nil && job != nil {
		select {
		case <-f.Held:
		default:
			running = answer{"jobReference": job["jobReference"], "configuration": job["configuration"], "status": map[string]any{"state": "RUNNING"}, "jobComplete": false}
			if f.held == nil {
				f.held = map[string]heldJob{}
			}
			url := "http://" + strings.TrimPrefix(w.Host, "http://") + r.URL.RequestURI()
			f.held[id] = heldJob{running, func() {
				resp, err := http.Post(url, "application/json", bytes.NewReader(body))
				if err != nil {
					w.t.Error(err)
					return
				}
				_ = resp.Body.Close()
			}}
		}
	}
	f.mu.Unlock()
	if running == nil {
		rec := forward()
		if refusal != nil {
			rewrite(rec, refusal.of)
		}
	}
	if f.Begun != nil {
		f.Begun(id)
	}
	switch {
	case lost:
		return ErrCut
	case running != nil:
		return running
	}
	return nil
}
