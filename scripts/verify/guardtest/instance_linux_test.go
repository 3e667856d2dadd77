package guardtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
)

// requirements are the packages of the service, and all that they need.
var requirements = []string{"Flask==3.1.0", "gunicorn==23.0.0", "blinker==1.9.0", "click==8.1.8", "itsdangerous==2.2.0",
	"Jinja2==3.1.6", "MarkupSafe==3.0.2", "packaging==24.2", "Werkzeug==3.1.3"}

var built string // the folder of what is built once

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if built, err = os.MkdirTemp("", "phasegate-guardtest-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(built)
		return m.Run()
	}())
}

// binary builds the guard once, and only for a test that is going to run it.
var binary = sync.OnceValues(func() (string, error) {
	file := filepath.Join(built, "guard")
	out, err := exec.Command("go", "build", "-o", file, "github.com/phasegate/phasegate/scripts/guard").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build scripts/guard: %w\n%s", err, out)
	}
	return file, nil
})

// process is a guard or a service, in a process group of its own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is read
	url  string        // of a guard

	mu     sync.Mutex
	said   []string // its last lines
	events map[string]int
}

// launch starts a command, which ends with the test. It returns once a guard listens.
func launch(t testing.TB, dir string, environment []string, command ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(command[0], command[1:]...), done: make(chan struct{}), events: map[string]int{}}
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), environment...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		_ = p.cmd.Wait() // its status is in ProcessState
		close(p.done)
	}()
	go p.read(r, address)
	t.Cleanup(p.kill)
	if !slices.ContainsFunc(command, func(word string) bool { return strings.HasSuffix(word, "/guard") }) {
		return p
	}
	select {
	case a := <-address:
		p.url = "http://" + a
	case <-p.done:
		t.Fatalf("the guard has ended: %s\n%s", p.cmd.ProcessState, p.tail())
	case <-time.After(time.Minute):
		t.Fatalf("the guard does not listen after a minute\n%s", p.tail())
	}
	return p
}

// read keeps the last lines, counts events, and finds the address of a guard.
func (p *process) read(r io.Reader, address chan<- string) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct{ Address, Event string }
		_ = json.Unmarshal(lines.Bytes(), &line) // a service writes other lines
		if line.Address != "" {
			address <- line.Address
		}
		p.mu.Lock()
		if line.Event != "" {
			p.events[line.Event]++
		}
		p.said = append(p.said, lines.Text())
		p.said = p.said[max(0, len(p.said)-40):]
		p.mu.Unlock()
	}
}

func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said, "\n")
}

func (p *process) signal(sig syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, sig) } // it may have ended

// kill ends the group at once.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// children are the processes that a process has started.
func children(pid int) (out []int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // one that has ended has none
	for _, file := range tasks {
		more, _ := os.ReadFile(file)
		text = append(append(text, ' '), more...)
	}
	for _, word := range strings.Fields(string(text)) {
		if child, err := strconv.Atoi(word); err == nil && !slices.Contains(out, child) {
			out = append(out, child)
		}
	}
	return out
}

// freePort returns a port on which nothing listens.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// slot is a place for one instance after the other: a guard with its service.
type slot struct {
	t           testing.TB
	name        string
	sidecar     bool
	namespace   []string // in front of the guard, which is PID 1 of it then
	environment []string
	flags       []string // of the guard
	workers     []string // options of gunicorn
	app         string   // of gunicorn, a module in folder
	folder      string

	guard   *process
	service *process // of a sidecar
	port    string   // of a sidecar's service
	bin     string   // folder of gunicorn
	events  map[string]int
}

// newSlot describes an instance whose service is in the folder.
func newSlot(t testing.TB, name string, sidecar bool, folder, app string, environment []string) *slot {
	t.Helper()
	return &slot{t: t, name: name, sidecar: sidecar, environment: environment, app: app, folder: folder,
		bin: emulatortest.Packages(t, requirements...), flags: []string{"--scope", "flask", "--paths", "/work", "--ttl", "30s"},
		workers: []string{"--workers", "1", "--threads", "8"}, events: map[string]int{}}
}

func (s *slot) gunicorn(more ...string) []string {
	return append(append([]string{filepath.Join(s.bin, "gunicorn"), "--timeout", "3500", "--log-level", "warning"}, s.workers...), append(more, s.app)...)
}

// start starts what does not run.
func (s *slot) start() {
	s.t.Helper()
	file, err := binary()
	if err != nil {
		s.t.Fatal(err)
	}
	command := append([]string{file, "--listen", "127.0.0.1:0"}, s.flags...)
	if !s.sidecar {
		s.guard = launch(s.t, s.folder, s.environment, slices.Concat(s.namespace, command, []string{"--"}, s.gunicorn())...)
		return
	}
	if s.service == nil {
		if s.port == "" {
			s.port = freePort(s.t)
		}
		s.service = launch(s.t, s.folder, s.environment, s.gunicorn("--bind", "127.0.0.1:"+s.port)...)
	}
	if s.guard == nil {
		s.guard = launch(s.t, s.folder, s.environment, append(command, "--upstream", "http://127.0.0.1:"+s.port)...)
	}
}

// master is the first process of the service, 0 if there is none.
func (s *slot) master() int {
	if s.sidecar {
		return s.service.cmd.Process.Pid
	}
	return child(s.guardPID())
}

// guardPID is the guard itself, 0 if it has ended.
func (s *slot) guardPID() int {
	if len(s.namespace) > 0 {
		return child(s.guard.cmd.Process.Pid)
	}
	return s.guard.cmd.Process.Pid
}

// child is the first child of a process, 0 if there is none.
func child(pid int) int {
	for _, c := range children(pid) {
		return c
	}
	return 0
}

// ended forgets processes that have ended, and keeps the counts of their events.
func (s *slot) ended() {
	s.guard.mu.Lock()
	for event, n := range s.guard.events {
		s.events[event] += n
	}
	s.guard.mu.Unlock()
	s.guard = nil
}

// killGuard kills only the guard. If the guard is PID 1, the kernel also kills its service;
// otherwise the kernel ends gunicorn but not its workers. It returns the time at which the guard
// and its namespace were dead.
func (s *slot) killGuard() time.Time {
	signalTo(s.guardPID(), syscall.SIGKILL)
	<-s.guard.done
	dead := time.Now()
	s.ended()
	s.start()
	return dead
}

// signalTo sends a signal to a process, unless it has ended.
func signalTo(pid int, sig syscall.Signal) {
	if pid > 1 {
		_ = syscall.Kill(pid, sig)
	}
}

// killService kills all processes of the service. A guard that is its parent ends with it.
func (s *slot) killService() {
	if s.sidecar {
		s.service.kill()
		s.service = nil
		s.start()
		return
	}
	if pid := s.master(); pid != 0 {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	} else {
		s.guard.kill()
	}
	<-s.guard.done
	s.ended()
	s.start()
}

// killWorker kills one worker of gunicorn, which starts another.
func (s *slot) killWorker() {
	for _, pid := range children(s.master()) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		return
	}
}

// suspend stops the guard, the service, or both, and returns the function that resumes them.
func (s *slot) suspend(guard, service bool) (resume func()) {
	groups := []int{}
	if guard {
		groups = append(groups, s.guard.cmd.Process.Pid)
	}
	if pid := s.master(); service && pid != 0 {
		groups = append(groups, pid)
	}
	for _, pid := range groups {
		_ = syscall.Kill(-pid, syscall.SIGSTOP)
	}
	return func() {
		for _, pid := range groups {
			_ = syscall.Kill(-pid, syscall.SIGCONT)
		}
	}
}

// stop ends the instance as the platform does.
func (s *slot) stop() {
	signalTo(s.guardPID(), syscall.SIGTERM)
	<-s.guard.done
	s.ended()
	if s.service != nil {
		s.service.kill()
	}
}
