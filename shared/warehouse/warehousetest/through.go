package warehousetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/phasegate/phasegate/shared/warehouse"
)

// Refusal is an answer of BigQuery's in the place of the emulator's.
type Refusal struct {
	Code            int
	Reason, Message string // without a reason the message is the whole answer
	Detail          string // of a failed job: another error, which led to this one
}

func (r *Refusal) Error() string { return r.Message }

func (r *Refusal) write(out http.ResponseWriter) {
	if r.Reason == "" { // a server in front of BigQuery has answered
		http.Error(out, r.Message, r.Code)
		return
	}
	out.Header().Set("Content-Type", "application/json")
	out.WriteHeader(r.Code)
	_ = json.NewEncoder(out).Encode(map[string]any{"error": map[string]any{"code": r.Code, "message": r.Message,
		"errors": []any{map[string]any{"reason": r.Reason, "message": r.Message}}}})
}

// of makes an answer about a job say that the job failed so.
func (r *Refusal) of(job map[string]any) {
	failure := map[string]any{"reason": r.Reason, "message": r.Message}
	job["status"] = map[string]any{"state": "DONE", "errorResult": failure, "errors": []any{failure, map[string]any{"reason": r.Reason, "message": r.Detail}}}
}

// answer is one in the place of the emulator's that is no refusal.
type answer map[string]any

func (answer) Error() string { return "answered in its place" }

// ErrCut cuts the connection in the place of an answer.
var ErrCut = errors.New("the connection is cut")

// Through returns the same warehouse for another client. Each of its requests goes to pass. That may
// call forward, change its answer, or fail with a [*Refusal], with [ErrCut], or with an error after
// which the library does not retry. It needs the emulator.
func (w *World) Through(pass func(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error) *warehouse.Warehouse {
	w.t.Helper()
	wh := warehouse.New(w.Project, w.proxy(pass))
	w.t.Cleanup(func() { wh.Close() })
	return wh
}

// proxy returns the URL of a server that carries out requests by pass.
func (w *World) proxy(pass func(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error) string {
	w.t.Helper()
	if w.Host == "" {
		w.t.Skip("what stands between needs the emulator")
	}
	host := w.Host
	if !strings.Contains(host, "://") {
		host = "http://" + host
	}
	target, err := url.Parse(host)
	if err != nil {
		w.t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		r.Host = target.Host
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		forward := func() *httptest.ResponseRecorder {
			proxy.ServeHTTP(rec, r)
			return rec
		}
		err = pass(r, body, forward)
		var refusal *Refusal
		var instead answer
		switch {
		case errors.As(err, &refusal):
			refusal.write(out)
			return
		case errors.As(err, &instead):
			out.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(out).Encode(instead)
			return
		case errors.Is(err, ErrCut):
			panic(http.ErrAbortHandler)
		case err != nil:
			http.Error(out, `{"error":{"code":418,"message":"dead"}}`, http.StatusTeapot)
			return
		}
		rec.Header().Del("Content-Length")
		for k, v := range rec.Header() {
			out.Header()[k] = v
		}
		out.WriteHeader(rec.Code)
		_, _ = io.Copy(out, rec.Body)
	}))
	w.t.Cleanup(server.Close)
	return server.URL
}

// rewrite edits a recorded answer, if it is one of JSON.
func rewrite(rec *httptest.ResponseRecorder, edit func(map[string]any)) {
	var body map[string]any
	if json.Unmarshal(rec.Body.Bytes(), &body) == nil {
		edit(body)
		rec.Body.Reset()
		_ = json.NewEncoder(rec.Body).Encode(body)
	}
}
