// Package serve serves the functions' own handlers on the loopback interface, and hands them single
// requests: only it and the functions link them.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/functions/health"
	"github.com/phasegate/phasegate/functions/reconcile"
	"github.com/phasegate/phasegate/functions/sweep"
	"github.com/phasegate/phasegate/functions/transition"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// functions are the deployable ones, by name.
var functions = map[string]func(func(context.Context) (*app.App, error)) http.Handler{
	pipeline.FunctionHealth:     health.New,
	pipeline.FunctionReconcile:  reconcile.New,
	pipeline.FunctionSweep:      sweep.New,
	pipeline.FunctionTransition: transition.New,
}

// Handler returns a function's own handler, nil where there is no such function.
func Handler(name string, open func(context.Context) (*app.App, error)) http.Handler {
	if f, ok := functions[name]; ok {
		return f(open)
	}
	return nil
}

// Server serves functions at /NAME and /NAME/…, as the platform serves each at its
// own root, and can drain.
type Server struct {
	URL    string // http://127.0.0.1:PORT
	server *http.Server
	failed chan error
}

// drainTimeout is how long requests in flight may take once the server stops: the
// platform's own limit after SIGTERM is 10 s.
const drainTimeout = 10 * time.Second

// Start starts serving functions; port 0 picks a free one. extra handlers are served next to
// them.
func Start(port int, open func(context.Context) (*app.App, error), names []string, extra map[string]http.Handler) (*Server, error) {
	mux := http.NewServeMux()
	mount := func(name string, h http.Handler) {
		mux.HandleFunc("/"+name, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") { // links of a page are relative
				http.Redirect(w, r, (&url.URL{Path: "/" + name + "/", RawQuery: r.URL.RawQuery}).String(), http.StatusFound)
				return
			}
			http.StripPrefix("/"+name, h).ServeHTTP(w, r)
		})
		mux.Handle("/"+name+"/", http.StripPrefix("/"+name, h))
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("function %q is named twice", name)
		}
		h := Handler(name, open)
		if h == nil {
			return nil, fmt.Errorf("function %q: there are %s", name, strings.Join(pipeline.Functions(), ", "))
		}
		mount(name, h)
	}
	for name, h := range extra {
		mount(name, h)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("serve functions: %w", err)
	}
	s := &Server{
		URL:    "http://" + l.Addr().String(),
		server: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second},
		failed: make(chan error, 1),
	}
	go func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
	return s, nil
}

// Failed yields the error of a server that stopped by itself.
func (s *Server) Failed() <-chan error { return s.failed }

// Drain stops accepting requests and waits for those in flight.
func (s *Server) Drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		return fmt.Errorf("drain: %w", errors.Join(err, s.server.Close()))
	}
	return nil
}
