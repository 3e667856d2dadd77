package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/sqlite"
)

// desk is an environment with a store only, in which commands run under locks.
type desk struct {
	t    *testing.T
	file string
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, file: filepath.Join(t.TempDir(), "store.db")}
	d.store() // creates the file: the commands only open an existing one
	t.Setenv("GOOGLE_CLOUD_PROJECT", "phasegate-local")
	t.Setenv("PHASEGATE_STORE", "sqlite:"+d.file)
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1") // no server listens there
	return d
}

// store opens the store of the commands directly.
func (d *desk) store() store.Store {
	d.t.Helper()
	s, err := sqlite.Open(d.file, time.Now)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { s.Close() })
	return s
}

// pipe is a named pipe: a process that opens it for reading waits until the test opens it for writing.
type pipe struct {
	t    *testing.T
	path string
}

func (d *desk) pipe(name string) pipe {
	d.t.Helper()
	g := pipe{d.t, filepath.Join(d.t.TempDir(), name)}
	if err := syscall.Mkfifo(g.path, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return g
}

// open waits until a process reads the pipe, and lets it go on.
func (g pipe) open() {
	g.t.Helper()
	if err := os.WriteFile(g.path, []byte("go\n"), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// read waits until a process has opened the pipe for writing, and every writer has closed it.
func (g pipe) read() string {
	g.t.Helper()
	f, err := os.Open(g.path)
	if err != nil {
		g.t.Fatal(err)
	}
	defer f.Close()
	if err := f.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		g.t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(b)
}

const lockKey = "PlayerGameSummaryProcessor_2026-02-03"

func underLock(script string, flags ...string) []string {
	args := append([]string{"run", "--processor", "player_game_summary", "--date", "2026-02-03"}, flags...)
	return append(args, "--", "sh", "-c", script)
}

// going is a running command.
type going struct {
	stdout, stderr *output
	cancel         context.CancelFunc
	ended          chan int
}

func (d *desk) begin(args ...string) *going {
	ctx, cancel := context.WithCancel(context.Background())
	g := &going{stdout: newOutput(), stderr: newOutput(), cancel: cancel, ended: make(chan int, 1)}
	go func() { g.ended <- run(ctx, args, g.stdout, g.stderr) }()
	d.t.Cleanup(cancel)
	return g
}

func (g *going) end(t *testing.T, want int, parts ...string) {
	t.Helper()
	select {
	case code := <-g.ended:
		out := g.stdout.String() + g.stderr.String()
		if code != want {
			t.Errorf("exit %d, want %d:\n%s", code, want, out)
		}
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("no %q in:\n%s", part, out)
			}
		}
	case <-time.After(time.Minute):
		t.Fatalf("no end:\n%s%s", g.stdout, g.stderr)
	}
}

func (d *desk) locks() []any {
	d.t.Helper()
	out := want(d.t, 0, nil, "locks", "list", "--json")
	return object(d.t, out)["locks"].([]any)
}

func sqliteAt(t *testing.T, file string, at time.Time) store.Store {
	t.Helper()
	s, err := sqlite.Open(file, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
