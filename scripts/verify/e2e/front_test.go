package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// delivery is one push and its answer.
type delivery struct {
	path      string
	messageID string
	attempt   int // the broker's count, from 1; 0 where it does not count
	status    int
}

// front stands before the process as the platform's front end does. The address of pushes
// stays the same while processes start and end. A request waits for a process that is about
// to start. The front answers 502 if there is none, or if the process dies. It records every
// delivery, and a test may set its answer.
type front struct {
	server *httptest.Server

	mu       sync.Mutex
	backend  *url.URL
	starting chan struct{} // closed when a process has started; nil when none is going to
	busy     chan struct{} // closed when the process gets its first delivery
	all      []delivery
	answer   func(delivery) int // status, or 0 to pass the delivery on
}

func newFront(t *testing.T) *front {
	f := &front{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.backend != nil {
				r.SetURL(f.backend)
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		// No connection is kept: one to a dead process must not serve the next process.
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the broker has gone
		}
		d := delivery{path: r.URL.Path}
		var push struct {
			Message         struct{ MessageID string }
			DeliveryAttempt int
		}
		if json.Unmarshal(body, &push) == nil {
			d.messageID, d.attempt = push.Message.MessageID, push.DeliveryAttempt
		}
		f.mu.Lock()
		if f.answer != nil {
			d.status = f.answer(d)
		}
		starting := f.starting
		f.mu.Unlock()
		if d.status != 0 {
			w.WriteHeader(d.status)
		} else {
			if starting != nil {
				select {
				case <-starting:
				case <-r.Context().Done():
				}
			}
			f.occupy()
			s := &statusWriter{ResponseWriter: w}
			r.Body = io.NopCloser(bytes.NewReader(body))
			proxy.ServeHTTP(s, r)
			d.status = s.status
		}
		f.mu.Lock()
		f.all = append(f.all, d)
		f.mu.Unlock()
	}))
	t.Cleanup(f.server.Close)
	return f
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader passes a status on. Pub/Sub takes 202 for an acknowledgement, as its
// documentation says; the emulator takes 203 in its place and delivers again.
func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	if status == http.StatusAccepted {
		status = http.StatusNoContent
		s.Header().Del("Content-Length")
	}
	s.ResponseWriter.WriteHeader(status)
}

// Write leaves out the body of a 202: a 204 has none.
func (s *statusWriter) Write(b []byte) (int, error) {
	if s.status == http.StatusAccepted {
		return len(b), nil
	}
	return s.ResponseWriter.Write(b)
}

// to sends deliveries to a process from now on.
func (f *front) to(p *process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backend, f.busy = p.url, make(chan struct{})
	if f.starting != nil {
		close(f.starting)
		f.starting = nil
	}
}

// occupy notes that the process gets a delivery.
func (f *front) occupy() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.busy:
	default:
		close(f.busy)
	}
}

// occupied is closed once the process has got a delivery.
func (f *front) occupied() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.busy
}

// hold keeps deliveries waiting for the next process.
func (f *front) hold() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starting = make(chan struct{})
}

// answering sets who answers.
func (f *front) answering(answer func(delivery) int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// of returns the deliveries of a message at a path, all messages for "".
func (f *front) of(path, messageID string) []delivery {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ds []delivery
	for _, d := range f.all {
		if strings.HasPrefix(d.path, path) && (messageID == "" || d.messageID == messageID) {
			ds = append(ds, d)
		}
	}
	return ds
}
