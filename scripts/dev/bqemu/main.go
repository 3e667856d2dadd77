// Command bqemu is BigQuery for tests and for the local environment: the emulator
// github.com/goccy/bigquery-emulator, which runs real GoogleSQL on data in memory, as
// a process of its own.
//
//	build/bqemu --port 9050
//
// It is a module of its own, because compiling the emulator takes minutes and 4.3 GB:
// neither the functions nor phasectl nor any test should need that. `make build/bqemu`
// builds it.
//
// It listens on the loopback interface alone. Once it answers, it prints one line on
// standard output: {"event":"ready","address":"127.0.0.1:PORT"}. A project exists as
// soon as a request names it, and all projects share their datasets. Nothing is kept:
// data ends with the process.
//
// The library reads every job of a project before each request, and compares each with the
// list of all. So a statement's cost would grow with the square of the earlier statements.
// This program hides old jobs from the library until a request names one (jobs.go). A
// statement's cost still grows with the tables of its project: give each test its own.
//
// `make build/bqemu` compiles copies of the library and of its SQL engine that do less for the
// same results (copy.sh). They need less than half the CPU time for the tests of shared/sweep.
//
// The SQL analyzer has 2 GB of memory and never frees it. Each table takes some megabytes,
// and so does each query whose result becomes a table (every dry run). Some hundred are
// fine, thousands are not.
//
// It ends at SIGTERM or SIGINT, when its standard input is closed, and when its parent
// process ends. So the parent holds its standard input open. The exit status is then 0, it
// is 1 if the program cannot serve, and 64 for wrong usage.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/goccy/bigquery-emulator/server"
)

const (
	// parentCheck is the interval at which the parent process is checked.
	parentCheck = 500 * time.Millisecond
	// memory is the limit of Go's garbage collector, because scans leave gigabytes. It must
	// be well above the memory in use, or the collector runs all the time: the analyzer uses
	// 2 GB in the end.
	memory = 3 << 30
	// patience is the time that open requests have at the end.
	patience = 2 * time.Second
)

func main() { os.Exit(run()) }

func run() int {
	flags := flag.NewFlagSet("bqemu", flag.ContinueOnError)
	port := flags.Int("port", 0, "port on the loopback interface; 0 picks a free one")
	if flags.Parse(os.Args[1:]) != nil {
		return 64
	}
	if flags.NArg() > 0 || *port < 0 || *port > 65535 {
		fmt.Fprintln(os.Stderr, "usage: bqemu [--port 0..65535]")
		return 64
	}
	debug.SetMemoryLimit(memory)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go watch(cancel)
	if err := serve(ctx, *port); err != nil {
		fmt.Fprintln(os.Stderr, "bqemu:", err)
		return 1
	}
	return 0
}

// serve returns nil when ctx has ended, an error when it cannot go on.
func serve(ctx context.Context, port int) error {
	s, err := server.New(storage)
	if err != nil {
		return fmt.Errorf("start the emulator: %w", err)
	}
	j, err := openJobs()
	if err != nil {
		return fmt.Errorf("open the emulator's jobs: %w", err)
	}
	defer j.db.Close()
	s.Handler = &projects{server: s, jobs: j, next: s.Handler, known: map[string]bool{}, changed: map[string]bool{}}
	s.SetListenCallback(func(address, _ string) {
		// A parent that does not read it cannot find us; serving does no harm.
		_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"event": "ready", "address": address})
	})
	failed := make(chan error, 1)
	// The storage API's port goes with it and is of no use to us.
	go func() { failed <- s.Serve(ctx, fmt.Sprintf("127.0.0.1:%d", port), "127.0.0.1:0") }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on port %d: %w", port, err)
	case <-ctx.Done():
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_ = s.Stop(end) // there is nothing to save
		return nil
	}
}

// projects makes each project at its first mention: the API has no way to ask for
// one, and the emulator refuses those that it does not know. Requests pass one at a
// time, as the emulator would have them wait in any case: so none runs while a
// project is made.
type projects struct {
	server *server.Server
	jobs   *jobs
	next   http.Handler

	mu      sync.Mutex
	known   map[string]bool
	changed map[string]bool // the emulator has to read the project's datasets and tables again
}

func (p *projects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The emulator's server gives a request 15 seconds to be read, and one that waits here
	// is not read meanwhile: on a busy machine it would be refused.
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id := project(r.URL.Path)
	if id != "" && !p.known[id] {
		if err := p.server.SetProject(id); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		p.known[id] = true
	}
	head, err := peek(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	back, err := p.jobs.before(r, head)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if back || p.changed[id] {
		r.Header.Set("Bqemu-Changed", "yes") // see copy.sh
	}
	status := &status{ResponseWriter: w}
	p.next.ServeHTTP(status, r)
	p.changed[id] = status.code >= http.StatusBadRequest || r.Method != http.MethodGet && !onlyRows(r, head)
	if err := p.jobs.after(r); err != nil {
		fmt.Fprintln(os.Stderr, "bqemu: move old jobs:", err) // later statements are slower, and no less right
	}
}

// onlyRows reports whether a request runs a statement that leaves datasets and tables as they
// are. The result of a SELECT that is a job of its own becomes a table.
func onlyRows(r *http.Request, head []byte) bool {
	m := statement.FindSubmatch(head)
	return m != nil && (m[1] == nil || strings.HasSuffix(r.URL.Path, "/queries"))
}

var statement = regexp.MustCompile(`"query"\s*:\s*"(?:\\[nrt]|\s)*(?i:(SELECT|WITH)|INSERT|MERGE|UPDATE|DELETE)\b`)

// status keeps the status of an answer.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) { s.code = code; s.ResponseWriter.WriteHeader(code) }

// project returns the id in a path of the API, such as /bigquery/v2/projects/ID/jobs.
func project(path string) string {
	_, rest, _ := strings.Cut(path, "/projects/")
	id, _, _ := strings.Cut(rest, "/")
	return id
}

// watch cancels when standard input is closed or the process that started us has gone.
func watch(cancel context.CancelFunc) {
	defer cancel()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, os.Stdin) // its end means that the parent has closed it
	}()
	parent, tick := os.Getppid(), time.NewTicker(parentCheck)
	defer tick.Stop()
	for {
		select {
		case <-closed:
			return
		case <-tick.C:
			if os.Getppid() != parent {
				return
			}
		}
	}
}
