package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary plays every part: the command under test, the emulator that a fake
// gcloud starts as its child, and the command that runs next to the emulators.
func TestMain(m *testing.M) {
	switch os.Getenv("PART") {
	case "":
		os.Exit(m.Run())
	case "main":
		os.Exit(run(os.Args[1:]))
	default:
		os.Exit(play(os.Args[1:]))
	}
}

// play connects to the test and sends its hello. The connection lasts as long as the
// process, so the test sees the end of the process as the end of the connection.
func play(args []string) int {
	conn, err := net.Dial("tcp", os.Getenv("STAGE"))
	if err != nil {
		return 99
	}
	me := hello{Part: os.Getenv("PART"), PID: os.Getpid(), Args: args, Firestore: os.Getenv("FIRESTORE_EMULATOR_HOST"),
		PubSub: os.Getenv("PUBSUB_EMULATOR_HOST"), BigQuery: os.Getenv("BIGQUERY_EMULATOR_HOST"), Program: os.Getenv("BQEMU")}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if json.NewEncoder(conn).Encode(me) != nil {
		return 99
	}
	if me.Part == "emulator" {
		for _, a := range args {
			address, ok := strings.CutPrefix(a, "--host-port=")
			if port, ours := strings.CutPrefix(a, "--port="); ours {
				address, ok = "127.0.0.1:"+port, true
				go func() { // like our BigQuery emulator, it ends with its standard input
					_, _ = io.Copy(io.Discard, os.Stdin)
					os.Exit(98)
				}()
			}
			if ok {
				fmt.Println(http.ListenAndServe(address, http.NotFoundHandler()))
			}
		}
		return 99
	}
	told := make(chan int, 1)
	go func() { // the test sends the exit status
		var code int
		if _, err := fmt.Fscan(conn, &code); err != nil {
			code = 99
		}
		told <- code
	}()
	select {
	case s := <-signals:
		return 50 + int(s.(syscall.Signal))
	case code := <-told:
		return code
	}
}

// hello is the description that a process sends of itself.
type hello struct {
	Part              string
	PID               int
	Args              []string
	Firestore, PubSub string
	BigQuery, Program string
}

func (h hello) pubsub() bool { return len(h.Args) > 0 && h.Args[0] == "beta" }

// actor is a process of the play.
type actor struct {
	hello
	conn net.Conn
}

// gone waits for the end of the process.
func (a actor) gone(t *testing.T) {
	t.Helper()
	if err := a.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := a.conn.Read(make([]byte, 1)); errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%s %v still runs", a.Part, a.Args)
	}
}

// end tells a command to end with a status.
func (a actor) end(t *testing.T, code int) {
	t.Helper()
	if _, err := fmt.Fprintln(a.conn, code); err != nil {
		t.Fatal(err)
	}
}

// stage is where the processes of one test meet.
type stage struct {
	t       *testing.T
	path    string // of PATH, and the working folder
	actors  chan actor
	address string
	env     []string
	parent  string // shell script that starts "$@"; "" means the test itself
}

// elsewhere is the address of an emulator that is not started here.
const elsewhere = "127.0.0.1:9"

// fakeBqemu is the emulator itself.
const fakeBqemu = `#!/bin/sh
PART=emulator exec "$FAKE" "$@"
`

// build makes the folder of what is built, with our own emulator in it unless it is
// empty.
func (s *stage) build(bqemu string) {
	s.t.Helper()
	dir := filepath.Join(s.path, "build")
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if bqemu == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "bqemu"), []byte(bqemu), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// fakeGcloud starts its emulator as a child and waits for it, as the real one does.
const fakeGcloud = `#!/bin/sh
echo "gcloud speaking"
PART=emulator "$FAKE" "$@" &
wait
`

func newStage(t *testing.T, gcloud string) *stage {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &stage{t: t, path: t.TempDir(), actors: make(chan actor, 8), address: l.Addr().String()}
	if gcloud != "" {
		if err := os.WriteFile(filepath.Join(s.path, "gcloud"), []byte(gcloud), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line, err := bufio.NewReader(conn).ReadBytes('\n')
			a := actor{conn: conn}
			if err == nil && json.Unmarshal(line, &a.hello) == nil {
				s.actors <- a
			}
		}
	}()
	return s
}

// run starts the command under test on a command of the play, or on another one.
func (s *stage) run(args ...string) *process {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	if len(args) == 0 {
		args = []string{"--", "/usr/bin/env", "PART=command", self, "first", "-second"}
	}
	p := &process{t: s.t, cmd: exec.Command(self, args...), done: make(chan struct{})}
	if s.parent != "" {
		p.cmd = exec.Command("/bin/sh", append([]string{"-c", s.parent, "parent", self}, args...)...)
	}
	path := s.path
	if _, err := os.Stat(filepath.Join(s.path, "gcloud")); err == nil { // it needs a shell
		path += ":/usr/bin:/bin"
	}
	p.cmd.Env = append([]string{"PART=main", "GORACE=atexit_sleep_ms=0", "FAKE=" + self, "STAGE=" + s.address, "TMPDIR=" + s.t.TempDir(), "PATH=" + path}, s.env...)
	if _, err := os.Stat(filepath.Join(s.path, "build")); err != nil { // the play has no BigQuery in it
		p.cmd.Env = append(p.cmd.Env, "BIGQUERY_EMULATOR_HOST="+elsewhere)
	}
	p.cmd.Dir = s.path
	p.cmd.Stderr, p.cmd.Stdout = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	s.t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done })
	return p
}

// enter waits for the next processes to appear.
func (s *stage) enter(n int) []actor {
	s.t.Helper()
	var as []actor
	for len(as) < n {
		select {
		case a := <-s.actors:
			s.t.Cleanup(func() { a.conn.Close() })
			as = append(as, a)
		case <-time.After(20 * time.Second):
			s.t.Fatalf("%d of %d processes came", len(as), n)
		}
	}
	return as
}

type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  bytes.Buffer
	err  error
	done chan struct{}
}

// wait returns the exit status and what was said.
func (p *process) wait() (int, string) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.t.Fatal("it does not end")
	}
	return p.cmd.ProcessState.ExitCode(), p.out.String()
}

func (p *process) want(code int, said ...string) {
	p.t.Helper()
	got, out := p.wait()
	if got != code {
		p.t.Errorf("exit status %d, want %d\n%s", got, code, out)
	}
	for _, s := range said {
		if !strings.Contains(out, s) {
			p.t.Errorf("it does not say %q:\n%s", s, out)
		}
	}
	if len(said) == 0 && out != "" {
		p.t.Errorf("it says %q", out)
	}
}
