package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/sqlite"
	"github.com/phasegate/phasegate/shared/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "store.db")) })
}

// pair sends calls to two handles of one file in turn.
type pair struct {
	store.Store
	other store.Store
	mu    sync.Mutex
	calls int
}

func (p *pair) turn() store.Store {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if p.calls%2 == 0 {
		return p.other
	}
	return p.Store
}

func (p *pair) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	return p.turn().Get(ctx, refs...)
}

func (p *pair) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	return p.turn().Apply(ctx, writes...)
}

func TestConformanceOfTwoHandlesOnOneFile(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		file := filepath.Join(t.TempDir(), "store.db")
		return &pair{Store: open(t, file), other: open(t, file)}
	})
}

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, func(b *testing.B) store.Store { return open(b, filepath.Join(b.TempDir(), "store.db")) })
}

func open(t testing.TB, file string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(file, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var ref = store.Ref{Collection: "c", ID: "doc"}

func TestSQLite_ReopenedFileKeepsDocumentsAndVersionsGrow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	// Each process's clock is an hour behind the former one's.
	clock := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	reopen := func() *sqlite.Store {
		s, err := sqlite.Open(file, func() time.Time { return clock })
		if err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(-time.Hour)
		return s
	}
	var last store.Version
	want := map[string]any{}
	for n := range 3 {
		s := reopen()
		if n > 0 {
			snap, err := s.Get(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if doc := snap.Docs[0]; doc.Version != last || len(doc.Data) != len(want) || doc.Data["0"] != int64(math.MaxInt64) {
				t.Fatalf("after reopening: %+v, want version %d of %v", doc, last, want)
			}
			if snap.ReadTime != last.Time() {
				t.Errorf("read time %v before the latest commit's %v", snap.ReadTime, last.Time())
			}
			// Deleted and made anew, so that the file's clock matters, not the document's.
			if _, err := s.Apply(t.Context(), store.DeleteIf(ref, last)); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = reopen()
		}
		want[fmt.Sprint(n)] = int64(math.MaxInt64)
		var set []store.Field
		for name, v := range want {
			set = append(set, store.F(v, name))
		}
		versions, err := s.Apply(t.Context(), store.Create(ref, set...))
		if err != nil {
			t.Fatal(err)
		}
		if versions[0] <= last {
			t.Errorf("version %d after %d", versions[0], last)
		}
		last = versions[0]
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSQLite_ConcurrentHandlesOpenNewFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			s, err := sqlite.Open(file, time.Now)
			if err != nil {
				errs[i] = err
				return
			}
			_, err = s.Apply(t.Context(), store.Merge(ref, store.F(true, fmt.Sprint(i))))
			errs[i] = errors.Join(err, s.Close())
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("handle %d: %v", i, err)
		}
	}
	snap, err := open(t, file).Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(snap.Docs[0].Data); n != len(errs) {
		t.Errorf("%d of %d merges are there", n, len(errs))
	}
}

func TestSQLite_LockedFileIsAwaitedUntilDeadline(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	s := open(t, file)
	foreign, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	tx, err := foreign.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("UPDATE clock SET last = last"); err != nil {
		t.Fatal(err)
	}

	// The deadline is beyond the database's own wait for a lock, so that there are
	// several attempts.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := s.Apply(ctx, store.Create(ref)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Apply while locked: %v", err)
	}
	if _, err := s.Get(t.Context(), ref); err != nil {
		t.Errorf("Get while locked: %v", err) // readers do not wait for writers
	}
	applied := make(chan error, 1)
	go func() {
		_, err := s.Apply(t.Context(), store.Create(ref))
		applied <- err
	}()
	select {
	case err := <-applied:
		t.Fatalf("Apply went through a lock: %v", err)
	default:
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-applied; err != nil {
		t.Errorf("Apply after the lock: %v", err)
	}
}

func TestSQLite_OpenRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	db, err := sql.Open("sqlite", newer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 2"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{text, newer, dir, filepath.Join(dir, "missing", "store.db")} {
		s, err := sqlite.Open(file, time.Now)
		if err == nil {
			s.Close()
			t.Errorf("opened %s", file)
			continue
		}
		if !strings.Contains(err.Error(), file) {
			t.Errorf("error %q does not name %s", err, file)
		}
	}
}

func TestSQLite_FileNamesAreLiteral(t *testing.T) {
	for _, name := range []string{"a b.db", "a?mode=memory.db", "a#b.db", "a%20b.db", "ä☃.db"} {
		file := filepath.Join(t.TempDir(), name)
		s := open(t, file)
		if _, err := s.Apply(t.Context(), store.Create(ref)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
}
