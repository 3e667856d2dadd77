package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// kind is one of the emulators.
type kind struct {
	name      string
	variable  string   // by which clients find it
	program   string   // "" means gcloud
	component string   // its directory in the CLI's installation
	keepsData bool     // in a directory
	args      []string // of gcloud; the address follows
}

var kinds = []kind{
	{name: "Firestore", variable: "FIRESTORE_EMULATOR_HOST", component: "cloud-firestore-emulator",
		args: []string{"emulators", "firestore", "start"}},
	{name: "Pub/Sub", variable: "PUBSUB_EMULATOR_HOST", component: "pubsub-emulator", keepsData: true,
		args: []string{"beta", "emulators", "pubsub", "start", "--project=phasegate-test"}},
	{name: "BigQuery", variable: "BIGQUERY_EMULATOR_HOST", program: bqemu},
}

// bqemu is what make builds.
const bqemu = "build/bqemu"

const (
	// startLimit is generous: about 5 s on an idle machine.
	startLimit = 90 * time.Second
	probeEvery = 100 * time.Millisecond
	tailLines  = 20
)

// startable returns those of the wanted emulators that can be started, each with its
// program, and why the others cannot. Those of the CLI come together or not at all.
func startable(wanted []kind) (ks []kind, why []error) {
	var ofGcloud []kind
	for _, k := range wanted {
		if k.program == "" {
			ofGcloud = append(ofGcloud, k)
		} else if program, err := filepath.Abs(k.program); err != nil {
			why = append(why, err)
		} else if _, err := os.Stat(program); err != nil {
			why = append(why, fmt.Errorf("%s is not built (make %s)", k.program, k.program))
		} else {
			k.program = program
			ks = append(ks, k)
		}
	}
	gcloud, err := find(ofGcloud)
	if err != nil {
		return ks, append(why, err)
	}
	for _, k := range ofGcloud {
		k.program = gcloud
		ks = append(ks, k)
	}
	return ks, why
}

// find returns the gcloud that can start the emulators.
func find(wanted []kind) (string, error) {
	if len(wanted) == 0 {
		return "", nil
	}
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		return "", errors.New("gcloud is not installed")
	}
	// gcloud offers to install a missing emulator. If the path does not show the
	// installation, gcloud itself reports the error.
	real, err := filepath.EvalSymlinks(gcloud)
	if err != nil {
		return "", fmt.Errorf("gcloud: %w", err)
	}
	platform := filepath.Join(filepath.Dir(real), "..", "platform")
	if _, err := os.Stat(platform); err != nil {
		return gcloud, nil
	}
	for _, k := range wanted {
		if _, err := os.Stat(filepath.Join(platform, k.component)); err != nil {
			return "", fmt.Errorf("gcloud has no %s emulator (component %s)", k.name, k.component)
		}
	}
	return gcloud, nil
}

// emulator is a process group that ends on a signal, or when done is closed.
type emulator struct {
	kind    kind
	address string
	log     *os.File
	input   io.Closer // its standard input: our own emulator ends when it is closed
	data    string    // directory
	pid     int       // of the group's first process
	done    chan struct{}
}

type emulators []*emulator

// start starts emulators side by side. What it returns has to be ended, also when
// there is an error.
func start(ctx context.Context, wanted []kind) (emulators, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	addresses, err := freeAddresses(len(wanted))
	if err != nil {
		return nil, err
	}
	var all emulators
	for i, k := range wanted {
		e, err := launch(k, addresses[i])
		if err != nil {
			return all, fmt.Errorf("start the %s emulator: %w", k.name, err)
		}
		all = append(all, e)
	}
	var wg sync.WaitGroup
	for _, e := range all {
		wg.Go(func() {
			if err := e.ready(ctx); err != nil {
				cancel(err) // no use in waiting for the other
			}
		})
	}
	wg.Wait()
	return all, context.Cause(ctx)
}

// freeAddresses are taken together, so that they differ.
func freeAddresses(n int) ([]string, error) {
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

func launch(k kind, address string) (*emulator, error) {
	data, err := os.MkdirTemp("", "phasegate-emulator-")
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(data, "log"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(data))
	}
	args := append(slices.Clone(k.args), "--host-port="+address)
	if k.keepsData {
		args = append(args, "--data-dir="+data) // else two runs share one in the home directory
	}
	if k.component == "" { // our own
		_, port, _ := net.SplitHostPort(address)
		args = []string{"--port=" + port}
	}
	cmd := exec.Command(k.program, args...)
	cmd.Env = append(os.Environ(), "CLOUDSDK_CORE_DISABLE_PROMPTS=1", "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK=1")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, log.Close(), os.RemoveAll(data))
	}
	e := &emulator{kind: k, address: address, log: log, input: input, data: data, pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		// Its status says nothing: that it ended at all is the news. Its children end
		// with it, before another process can come to bear the group's number.
		_ = cmd.Wait()
		endGroup(e.pid)
		close(e.done)
	}()
	return e, nil
}

// ready waits until the emulator answers HTTP.
func (e *emulator) ready(ctx context.Context) error {
	tick, limit := time.NewTicker(probeEvery), time.After(startLimit)
	defer tick.Stop()
	for {
		select {
		case <-e.done:
			return fmt.Errorf("the %s emulator ended while it started:\n%s", e.kind.name, e.tail())
		case <-limit:
			return fmt.Errorf("the %s emulator does not answer at %s after %v:\n%s", e.kind.name, e.address, startLimit, e.tail())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if answers(ctx, e.address) {
				return nil
			}
		}
	}
}

func answers(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // nothing was read
	return true
}

// tail returns the last lines that the emulator has written.
func (e *emulator) tail() string {
	b, err := os.ReadFile(e.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-tailLines):], "\n  ")
}

// environment returns the variables for the command. A test package starts BigQuery emulators of its
// own, regardless of BIGQUERY_EMULATOR_HOST.
func (es emulators) environment() []string {
	var env []string
	if program, err := filepath.Abs(bqemu); err == nil {
		if _, err := os.Stat(program); err == nil {
			env = append(env, "BQEMU="+program)
		}
	}
	for _, e := range es {
		env = append(env, e.kind.variable+"="+e.address)
	}
	return env
}

// end ends every group, and waits for its first process.
func (es emulators) end() {
	for _, e := range es {
		select {
		case <-e.done:
		default:
			endGroup(e.pid)
			<-e.done
		}
		_, _ = e.input.Close(), e.log.Close() // used by others
		if err := os.RemoveAll(e.data); err != nil {
			say("%v", err)
		}
	}
}

// endGroup ends a group at once: an emulator has nothing to save.
func endGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }
