package guardcmd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/childproc"
	"github.com/phasegate/phasegate/shared/guard"
)

// process is the service: a command that was started, or one that runs next to the guard.
type process struct {
	cmd        *cobra.Command
	log        *slog.Logger
	upstream   *url.URL
	startLimit time.Duration

	family childproc.Family
	exited chan int // gets the exit status; nil without a command
	killed sync.Once
}

// start starts the command with a free port in PORT, and returns its address.
func (p *process) start(command []string) (*url.URL, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	child := exec.Command(command[0], command[1:]...)
	token := "PHASEGATE_GUARD_TOKEN=" + rand.Text()
	child.Env = append(os.Environ(), "PORT="+strconv.Itoa(port), token)
	child.Stdout, child.Stderr = p.cmd.OutOrStdout(), p.cmd.ErrOrStderr()
	child.SysProcAttr = childproc.Attributes()
	child.WaitDelay = time.Second // for what it started and left holding its output
	started, exited := make(chan error), make(chan int, 1)
	go func() {
		// The kernel ends the child with the thread that began it: this one must not go.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := child.Start()
		started <- err
		if err != nil {
			return
		}
		_ = child.Wait() // the state has the status
		exited <- exitStatus(child.ProcessState)
	}()
	if err := <-started; err != nil {
		code := 126
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			code = 127
		}
		return nil, ExitError{code, err}
	}
	childproc.ReapOrphans(child.Process.Pid)
	p.family, p.exited = childproc.Family{PID: child.Process.Pid, Token: token}, exited
	return &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}, nil
}

// exitStatus is the status as a shell gives it.
func exitStatus(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

// kill ends the command with all that it started; without a command it does nothing.
func (p *process) kill() {
	if p.exited != nil {
		p.killed.Do(p.family.Kill)
	}
}

// whenReady lets requests wait until the service listens. A delivery is claimed only then.
func (p *process) whenReady(next http.Handler) http.Handler {
	ready := sync.OnceValue(func() error { return p.listens(context.Background()) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// listens returns once the service listens.
func (p *process) listens(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.startLimit)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.upstream.Host)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the service does not listen on %s after %s: %w", p.upstream.Host, p.startLimit, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// wait returns when the guard has to end: its caller stops it, the command has ended, or the
// service does not listen in time.
func (p *process) wait(ctx context.Context, g *guard.Guard, served <-chan error) error {
	notReady := make(chan error, 1)
	go func() {
		if err := p.listens(ctx); err != nil && ctx.Err() == nil {
			notReady <- err
		}
	}()
	select {
	case code := <-p.exited:
		p.kill() // what it left behind
		g.End(true)
		settle(g)
		return status(code, fmt.Errorf("the service has ended with exit status %d", code))
	case err := <-notReady:
		p.kill()
		g.End(p.exited != nil)
		settle(g)
		return ExitError{1, err}
	case err := <-served:
		p.kill()
		g.End(p.exited != nil)
		settle(g)
		return err
	case <-ctx.Done():
	}
	p.log.Info("stopping: new deliveries are refused")
	g.Stop()
	if p.exited == nil {
		select {
		case <-g.Settled():
		case <-time.After(stopGrace):
			g.End(false) // the service may be at work: its claims expire by themselves
			settle(g)
		}
		return nil
	}
	p.family.Signal(syscall.SIGTERM)
	code, late := 0, time.After(stopGrace)
	select {
	case code = <-p.exited:
	case <-late:
		p.kill()
		code = <-p.exited
	}
	p.kill()
	g.End(true)
	settle(g)
	return status(code, fmt.Errorf("the service has ended with exit status %d after SIGTERM", code))
}

// settle lets requests record their results.
func settle(g *guard.Guard) {
	select {
	case <-g.Settled():
	case <-time.After(settleGrace):
	}
}

func status(code int, why error) error {
	if code == 0 {
		return nil
	}
	return ExitError{code, why}
}
