package serve

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/app"
)

func notOpened(context.Context) (*app.App, error) { return nil, errors.New("not opened by this test") }

// ask returns status and body, over a connection of its own. With a body it posts.
func ask(t *testing.T, url, body string) (int, string) {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(answer)
}

func TestServe_ServesFunctionsAtNamesAndSubpaths(t *testing.T) {
	t.Parallel()
	paths := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "path "+r.URL.Path) })
	s, err := Start(0, notOpened, []string{"transition"}, map[string]http.Handler{"extra": paths})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Drain(); err != nil {
			t.Error(err)
		}
	}()
	for path, want := range map[string]struct {
		status int
		part   string
	}{
		"/transition": {200, `"name":"transition"`}, "/transition/": {200, `"name":"transition"`},
		"/transition/a/b?transition=x": {200, `"source_hash"`},
		"/extra":                       {200, "path "}, "/extra/": {200, "path /"}, "/extra/a/b": {200, "path /a/b"},
		"/reconcile": {404, ""}, "/transitions": {404, ""}, "/": {404, ""},
	} {
		if status, body := ask(t, s.URL+path, ""); status != want.status || !strings.Contains(body, want.part) {
			t.Errorf("%s: %d %q, want %d with %q", path, status, body, want.status, want.part)
		}
	}
	if status, _ := ask(t, s.URL+"/transition", "{}"); status != http.StatusServiceUnavailable {
		t.Errorf("without an application: %d, want 503", status)
	}
}

func TestServe_InvalidNameOrPortIsError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	for name, tc := range map[string]struct {
		port  int
		names []string
		part  string
	}{
		"unknown":       {0, []string{"transition", "publish"}, `"publish": there are health, reconcile, sweep, transition`},
		"twice":         {0, []string{"transition", "transition"}, "named twice"},
		"port_in_use":   {taken, []string{"transition"}, "address already in use"},
		"port_too_high": {65536, []string{"transition"}, "invalid port"},
	} {
		if s, err := Start(tc.port, notOpened, tc.names, nil); err == nil || !strings.Contains(err.Error(), tc.part) {
			t.Errorf("%s: %v, %v, want an error with %q", name, s, err, tc.part)
		}
	}
}

func TestServe_DrainFinishesOpenRequestAndRefusesNew(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}), make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-release
		w.WriteHeader(http.StatusTeapot)
	})
	s, err := Start(0, notOpened, nil, map[string]http.Handler{"slow": slow})
	if err != nil {
		t.Fatal(err)
	}
	stopping := make(chan struct{})
	s.server.RegisterOnShutdown(func() { close(stopping) }) // called with the listener closed
	status := make(chan int, 1)
	go func() {
		got, _ := ask(t, s.URL+"/slow", "")
		status <- got
	}()
	<-began
	drained := make(chan error, 1)
	go func() { drained <- s.Drain() }()
	<-stopping
	if c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://")); err == nil {
		c.Close()
		t.Error("a new connection was taken")
	}
	select {
	case err := <-drained:
		t.Errorf("drained with a request in flight: %v", err)
	default:
	}
	close(release)
	if got := <-status; got != http.StatusTeapot {
		t.Errorf("the request in flight: %d, want its own answer", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	select {
	case err := <-s.Failed():
		t.Errorf("failed with %v, want nothing after a drain", err)
	default:
	}
}

// Links of a page are relative: a browser that leaves out the slash is sent to it.
func TestServe_RedirectsBrowserToFolderOfPage(t *testing.T) {
	t.Parallel()
	s, err := Start(0, notOpened, []string{"health"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Drain(); err != nil {
			t.Error(err)
		}
	}()
	for accept, want := range map[string]string{"text/html,*/*": "/health/?days=14", "*/*": ""} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/health?days=14", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		req.Close = true
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Location"); got != want || (want == "") != (resp.StatusCode == 200) {
			t.Errorf("%s: %d %q", accept, resp.StatusCode, got)
		}
	}
}
