package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is one running `phasectl serve`.
type process struct {
	cmd  *exec.Cmd
	url  *url.URL
	done chan struct{} // closed when it has ended and its output is read

	mu   sync.Mutex
	said []string // its last lines of output
}

// attributes of the processes, where the system has some that help.
var attributes *syscall.SysProcAttr

// keptLines of a process are shown when a test fails.
const keptLines = 40

// launch starts the functions and returns when they are served.
func launch(t *testing.T, environment []string) *process {
	t.Helper()
	binary, err := phasectl()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(binary, append([]string{"serve", "transition", "--port", "0"}, scheduled...)...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.SysProcAttr = append(os.Environ(), environment...), attributes
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make(chan string, 1)
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		if lines.Scan() {
			first <- lines.Text()
		}
		close(first)
		for lines.Scan() {
			p.keep(lines.Text())
		}
		_ = p.cmd.Wait() // its status is in ProcessState
	}()
	t.Cleanup(p.kill)
	select {
	case line := <-first:
		var ready struct{ Event, URL string }
		if err := json.Unmarshal([]byte(line), &ready); err != nil || ready.Event != "ready" {
			t.Fatalf("first line %q, not ready: %v\n%s", line, err, p.tail())
		}
		if p.url, err = url.Parse(ready.URL); err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("not ready after a minute\n%s", p.tail())
	}
	return p
}

// Write gets the standard error of the process.
func (p *process) Write(b []byte) (int, error) {
	p.keep(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (p *process) keep(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said = append(p.said, line)
	p.said = p.said[max(0, len(p.said)-keptLines):]
}

func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said, "\n")
}

// kill ends the process at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// terminate asks the process to end.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// ended waits for the end of the process and returns its exit status.
func (p *process) ended() (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(30 * time.Second):
		return 0, fmt.Errorf("still running:\n%s", p.tail())
	}
}
