// Package sqlite is the document store in one SQLite file, for the local
// environment: it survives a restart, and several processes can share it.
//
// The file holds one table of documents and the clock. A commit that changes
// something has a version of its own: the given clock's time in microseconds. If that
// is not later than the latest commit, the version is one microsecond after it. So
// versions grow through restarts, processes and a clock set back. Several processes
// must use the clock of the same machine. A commit that waits for the file while
// another process reads can have a version slightly before that read's time; a server
// would not allow that.
//
// Writers take turns. If another process has locked the file, the store retries until
// the caller's deadline, or for 30 s if there is none. A commit is safe when the
// process dies; a power failure can lose the latest ones, never part of one.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"path/filepath"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	_ "modernc.org/sqlite" // the database/sql driver
)

// connections bounds the readers at one time, whose connections are kept open.
const connections = 8

// format is the version of the file's layout, kept as its user_version.
const format = 1

const schema = `
CREATE TABLE documents (
	collection TEXT    NOT NULL,
	id         TEXT    NOT NULL,
	version    INTEGER NOT NULL,
	data       TEXT    NOT NULL,
	PRIMARY KEY (collection, id)
) STRICT;
CREATE TABLE clock (last INTEGER NOT NULL) STRICT;
INSERT INTO clock VALUES (0);
PRAGMA user_version = 1;`

// Store is a [store.Store] in a file, safe for concurrent use.
type Store struct {
	now func() time.Time
	db  *sql.DB
	// turn holds a token while a commit runs, so that this process's writers queue
	// here in order instead of polling for the file's lock.
	turn chan struct{}
}

var _ store.Store = (*Store)(nil)

// Open opens the store in a file, which is made if it does not exist (its
// directory is not). The clock must be safe for concurrent use.
func Open(file string, now func() time.Time) (*Store, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// The immediate lock spares commits the failure of a lock taken too late.
	query := url.Values{
		"_txlock":       {"immediate"},
		"_busy_timeout": {"250"},
		"_pragma":       {"journal_mode(WAL)", "synchronous(NORMAL)"},
	}
	uri := url.URL{Scheme: "file", Path: filepath.ToSlash(abs), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", uri.String())
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", file, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	s := &Store{now: now, db: db, turn: make(chan struct{}, 1)}
	err = retry(context.Background(), "open", func(ctx context.Context) error {
		return s.commit(ctx, prepare)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", file, err), db.Close())
	}
	return s, nil
}

// prepare creates the tables of a new file.
func prepare(ctx context.Context, tx *sql.Tx) error {
	var found int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&found); err != nil {
		return fmt.Errorf("read format: %w", err)
	}
	switch found {
	case format:
		return nil
	case 0:
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return fmt.Errorf("create tables: %w", err)
		}
		return nil
	}
	return fmt.Errorf("the file has format %d, this program knows %d", found, format)
}

// Close closes the file. Calls under way may fail.
func (s *Store) Close() error { return s.db.Close() }

// Get implements [store.Store] with one read transaction.
func (s *Store) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	if err := store.CheckGet(refs); err != nil {
		return store.Snapshot{}, err
	}
	var snap store.Snapshot
	err := retry(ctx, "get", func(ctx context.Context) (err error) {
		snap, err = s.get(ctx, refs)
		return err
	})
	return snap, err
}

func (s *Store) get(ctx context.Context, refs []store.Ref) (snap store.Snapshot, err error) {
	// Before the snapshot is taken, so that what it lacks is not older than it says.
	now := s.clock()
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return store.Snapshot{}, err
	}
	defer func() { err = end(tx, err) }()
	last, err := readClock(ctx, tx)
	if err != nil {
		return store.Snapshot{}, err
	}
	snap.ReadTime = max(now, last).Time()
	snap.Docs = make([]store.Doc, len(refs))
	for i, ref := range refs {
		if snap.Docs[i], err = read(ctx, tx, ref); err != nil {
			return store.Snapshot{}, err
		}
	}
	return snap, nil
}

// Apply implements [store.Store].
func (s *Store) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	writes, err := store.CheckApply(writes)
	if err != nil {
		return nil, err
	}
	var versions []store.Version
	err = retry(ctx, "apply", func(ctx context.Context) error {
		return s.commit(ctx, func(ctx context.Context, tx *sql.Tx) (err error) {
			versions, err = s.apply(ctx, tx, writes)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return versions, nil
}

// commit runs one write transaction, when it is this writer's turn.
func (s *Store) commit(ctx context.Context, write func(context.Context, *sql.Tx) error) (err error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = end(tx, err) }()
	if err := write(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// end rolls back what has not been committed; an error of that matters only after
// a success.
func end(tx *sql.Tx, err error) error {
	if r := tx.Rollback(); err == nil && !errors.Is(r, sql.ErrTxDone) {
		return r
	}
	return err
}

func (s *Store) apply(ctx context.Context, tx *sql.Tx, writes []store.Write) ([]store.Version, error) {
	last, err := readClock(ctx, tx)
	if err != nil {
		return nil, err
	}
	// Read under the lock: of two commits the later one reads the later time.
	at := max(last+1, s.clock())
	changed := false
	versions := make([]store.Version, len(writes))
	for i, w := range writes {
		before, err := read(ctx, tx, w.Ref)
		if err != nil {
			return nil, err
		}
		after, err := store.Resolve(before, w, at)
		if err != nil {
			return nil, err
		}
		versions[i] = after.Version
		if after.Version == before.Version {
			continue
		}
		changed = true
		if err := write(ctx, tx, after); err != nil {
			return nil, err
		}
	}
	if !changed {
		return versions, nil
	}
	if _, err := tx.ExecContext(ctx, "UPDATE clock SET last = ?", int64(at)); err != nil {
		return nil, fmt.Errorf("advance clock: %w", err)
	}
	return versions, nil
}

// Scan implements [store.Store]. It reads a page at a time, and nothing is locked
// while the caller's loop runs.
func (s *Store) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		if err := store.CheckScan(collection, from, to); err != nil {
			yield(store.Doc{}, err)
			return
		}
		after := ""
		for {
			var docs []store.Doc
			err := retry(ctx, "scan", func(ctx context.Context) (err error) {
				docs, err = s.page(ctx, collection, from, to, after)
				return err
			})
			if err != nil {
				yield(store.Doc{}, err)
				return
			}
			for _, doc := range docs {
				if err := ctx.Err(); err != nil {
					yield(store.Doc{}, fmt.Errorf("scan %s: %w", collection, err))
					return
				}
				if !yield(doc, nil) {
					return
				}
				after = doc.Ref.ID
			}
			if len(docs) < store.ScanPage {
				return
			}
		}
	}
}

func (s *Store) page(ctx context.Context, collection, from, to, after string) (docs []store.Doc, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, version, data FROM documents
		WHERE collection = ? AND id >= ? AND id <= ? AND id > ? ORDER BY id LIMIT ?`,
		collection, from, to, after, store.ScanPage)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		doc := store.Doc{Exists: true}
		var data string
		if err := rows.Scan(&doc.Ref.ID, &doc.Version, &data); err != nil {
			return nil, err
		}
		doc.Ref.Collection = collection
		if doc.Data, err = decode(data); err != nil {
			return nil, fmt.Errorf("decode %s: %w", doc.Ref, err)
		}
		docs = append(docs, doc)
	}
	return docs, rows.Err()
}

func readClock(ctx context.Context, tx *sql.Tx) (store.Version, error) {
	var last store.Version
	if err := tx.QueryRowContext(ctx, "SELECT last FROM clock").Scan(&last); err != nil {
		return 0, fmt.Errorf("read clock: %w", err)
	}
	return last, nil
}

func read(ctx context.Context, tx *sql.Tx, ref store.Ref) (store.Doc, error) {
	doc := store.Doc{Ref: ref}
	var data string
	err := tx.QueryRowContext(ctx, "SELECT version, data FROM documents WHERE collection = ? AND id = ?",
		ref.Collection, ref.ID).Scan(&doc.Version, &data)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return doc, nil
	case err != nil:
		return doc, fmt.Errorf("read %s: %w", ref, err)
	}
	doc.Exists = true
	if doc.Data, err = decode(data); err != nil {
		return doc, fmt.Errorf("decode %s: %w", ref, err)
	}
	return doc, nil
}

// write stores a changed document or removes a deleted one.
func write(ctx context.Context, tx *sql.Tx, doc store.Doc) error {
	if !doc.Exists {
		_, err := tx.ExecContext(ctx, "DELETE FROM documents WHERE collection = ? AND id = ?",
			doc.Ref.Collection, doc.Ref.ID)
		if err != nil {
			return fmt.Errorf("delete %s: %w", doc.Ref, err)
		}
		return nil
	}
	data, err := encode(doc.Data)
	if err != nil {
		return fmt.Errorf("encode %s: %w", doc.Ref, err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO documents (collection, id, version, data) VALUES (?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET version = excluded.version, data = excluded.data`,
		doc.Ref.Collection, doc.Ref.ID, int64(doc.Version), data)
	if err != nil {
		return fmt.Errorf("write %s: %w", doc.Ref, err)
	}
	return nil
}

func (s *Store) clock() store.Version { return store.Version(s.now().UnixMicro()) }
