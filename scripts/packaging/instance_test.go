package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait on an instance; none should come near it.
const patience = 20 * time.Second

// instance is a running function.
type instance struct {
	address string
	ready   time.Duration // from start to the first answer
	pid     int
	client  *http.Client
	output  *output
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs a function's program as the platform does, with nothing of this
// process's environment, until the test ends.
func start(t *testing.T, binary, target string, env ...string) *instance {
	t.Helper()
	port := freePort(t)
	p := &instance{address: "127.0.0.1:" + port, client: &http.Client{Timeout: patience, Transport: &http.Transport{}}, output: &output{}}
	cmd := exec.Command(binary)
	cmd.Env = append([]string{"GOOGLE_CLOUD_PROJECT=packaging", "FUNCTION_TARGET=" + target, "PORT=" + port}, env...)
	cmd.Stdout, cmd.Stderr = p.output, p.output
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the status does not matter: Cleanup kills the process, and awaitAnswer reports any other end
	}()
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("output of the function:\n%s", p.output)
		}
	})
	p.awaitAnswer(t, ended)
	p.ready = time.Since(began)
	return p
}

// awaitAnswer sends requests until the port is open: the framework logs no ready message.
func (p *instance) awaitAnswer(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	pause, deadline := time.NewTicker(time.Millisecond), time.After(patience)
	defer pause.Stop()
	for {
		resp, err := p.client.Get("http://" + p.address)
		if err == nil {
			resp.Body.Close()
			return
		}
		select {
		case <-pause.C:
		case <-ended:
			t.Fatal("the function has ended by itself")
		case <-deadline:
			t.Fatalf("no answer within %v: %v", patience, err)
		}
	}
}

// request returns status and body of the answer.
func (p *instance) request(t *testing.T, method, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatalf("%s was not answered: %v", method, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// hangUp sends bytes and resets the connection.
func (p *instance) hangUp(bytes string) error {
	conn, err := net.DialTimeout("tcp", p.address, patience)
	if err != nil {
		return err
	}
	_, err = io.WriteString(conn, bytes)
	return errors.Join(err, conn.(*net.TCPConn).SetLinger(0), conn.Close())
}

// cancelOnceSent is a client whose context ends when its request is out.
func (p *instance) cancelOnceSent(ctx context.Context, body string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { cancel() }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.address, strings.NewReader(body))
	if err != nil {
		return err
	}
	switch resp, err := p.client.Do(req); {
	case err == nil: // the answer came before the cancellation
		return resp.Body.Close()
	case errors.Is(err, context.Canceled):
		return nil
	default:
		return err
	}
}

// reportMemory logs the peak memory of the process, on systems that report it.
func (p *instance) reportMemory(t *testing.T, when string) {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/status")
	if err != nil {
		t.Log("peak memory: this system does not tell")
		return
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	report(t, "peak memory "+when, kb<<10, memoryBudget, strconv.FormatInt(kb>>10, 10)+" MB")
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	return port
}
