// Package firestore is the document store in Firestore: the one of production.
//
// A Get is one call and one snapshot. An Apply is one call and one atomic commit;
// it opens no transaction and holds no lock between calls. A Scan is a streamed query for
// each page, continued after the last document if the stream breaks.
//
// Transient failures (contention, lock timeouts, an unavailable server, an attempt
// without an answer) are retried with growing random pauses. Retries end at the
// caller's deadline, or after a minute if there is none. So an Apply can meet its
// own commit whose answer was lost, and answer [store.ErrExists] or
// [store.ErrConflict] for it: read back, as package store says.
//
// Documents of other writers may hold kinds that package store does not know
// (bytes, references, points); they are read as the client library gives them.
//
// The emulator differs in one thing: for some milliseconds a Get there, even in a
// transaction, can see a commit of several documents half done. It sees the writes
// in the order of the Apply, and never two commits half done. Production shows a
// commit at once.
package firestore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/shared/store"
)

// attemptLimit ends an attempt that gets no answer, so that there can be another.
const attemptLimit = 15 * time.Second

// Store is a [store.Store] in one Firestore database, safe for concurrent use.
type Store struct{ client *firestore.Client }

var _ store.Store = (*Store)(nil)

// Open returns the store in a database of a project; an empty name stands for the
// default database. It does not call the server. Where FIRESTORE_EMULATOR_HOST is
// set, the store is in that emulator.
func Open(ctx context.Context, project, database string) (*Store, error) {
	if database == "" {
		database = firestore.DefaultDatabaseID
	}
	client, err := firestore.NewClientWithDatabase(ctx, project, database)
	if err != nil {
		return nil, fmt.Errorf("open Firestore database %s of project %s: %w", database, project, err)
	}
	return &Store{client: client}, nil
}

// Close closes the connection. Calls under way fail.
func (s *Store) Close() error { return s.client.Close() }

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	if err := store.CheckGet(refs); err != nil {
		return store.Snapshot{}, err
	}
	docs := make([]*firestore.DocumentRef, len(refs))
	for i, ref := range refs {
		docs[i] = s.doc(ref)
	}
	var found []*firestore.DocumentSnapshot
	err := retry(ctx, "get", func(ctx context.Context) (err error) {
		found, err = s.getAll(ctx, docs)
		return err
	})
	if err != nil {
		return store.Snapshot{}, err
	}
	snap := store.Snapshot{Docs: make([]store.Doc, len(refs))}
	for i, f := range found {
		snap.Docs[i] = fromDocument(refs[i], f)
		// Times may grow within one answer; then the earlier documents still stand at
		// the later time.
		if f.ReadTime.After(snap.ReadTime) {
			snap.ReadTime = f.ReadTime.UTC()
		}
	}
	return snap, nil
}

func (s *Store) getAll(ctx context.Context, docs []*firestore.DocumentRef) ([]*firestore.DocumentSnapshot, error) {
	found, err := s.client.GetAll(ctx, docs)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if f.ReadTime.Equal(found[0].ReadTime) {
			continue
		}
		// If the answer breaks off, the client asks for the rest in a second call, which
		// is a second snapshot. In a transaction it does not.
		err := s.client.RunTransaction(ctx, func(_ context.Context, tx *firestore.Transaction) (err error) {
			found, err = tx.GetAll(docs)
			return err
		}, firestore.ReadOnly)
		return found, err
	}
	return found, nil
}

// Apply implements [store.Store].
func (s *Store) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	writes, err := store.CheckApply(writes)
	if err != nil {
		return nil, err
	}
	//lint:ignore SA1019 BulkWriter is not atomic, and a transaction takes two calls and a lock; this is one atomic commit.
	batch := s.client.Batch()
	for _, w := range writes {
		doc := s.doc(w.Ref)
		switch unchanged := firestore.LastUpdateTime(w.Version.Time()); w.Op {
		case store.OpCreate:
			batch.Create(doc, tree(w.Fields))
		case store.OpMerge:
			// Not MergeAll: that would merge into a map where it is to be replaced.
			batch.Set(doc, tree(w.Fields), firestore.Merge(paths(w.Fields)...))
		case store.OpMergeIf:
			batch.Update(doc, updates(w.Fields), unchanged) // a Set takes no condition
		case store.OpDeleteIf:
			batch.Delete(doc, unchanged)
		}
	}
	var results []*firestore.WriteResult
	err = retry(ctx, "apply "+describe(writes), func(ctx context.Context) error {
		var err error
		results, err = batch.Commit(ctx)
		return answer(err, writes)
	})
	if err != nil {
		return nil, err
	}
	versions := make([]store.Version, len(writes))
	for i, w := range writes {
		if w.Op != store.OpDeleteIf { // which has no time
			versions[i] = store.Version(results[i].UpdateTime.UnixMicro())
		}
	}
	return versions, nil
}

func describe(writes []store.Write) string {
	parts := make([]string, len(writes))
	for i, w := range writes {
		parts[i] = fmt.Sprintf("%s %s", w.Op, w.Ref)
	}
	return strings.Join(parts, ", ")
}

// Scan implements [store.Store].
func (s *Store) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		if err := store.CheckScan(collection, from, to); err != nil {
			yield(store.Doc{}, err)
			return
		}
		ordered := s.client.Collection(collection).OrderBy(firestore.DocumentID, firestore.Asc).Limit(store.ScanPage)
		rest := ordered.StartAt(from).EndAt(to)
		stopped := false
		p := newPacer(ctx, "scan "+collection)
		for {
			docs := 0
			err := stream(ctx, rest, func(doc store.Doc) bool {
				docs++
				rest = ordered.StartAfter(doc.Ref.ID).EndAt(to)
				p = newPacer(ctx, p.what) // there was progress
				stopped = !yield(doc, nil)
				return !stopped
			})
			if stopped || err == nil && docs < store.ScanPage {
				return
			}
			if err == nil {
				continue
			}
			if err := p.again(err); err != nil {
				yield(store.Doc{}, err)
				return
			}
		}
	}
}

// stream passes on the documents of a query until each returns false.
func stream(ctx context.Context, query firestore.Query, each func(store.Doc) bool) error {
	it := query.Documents(ctx)
	defer it.Stop()
	for {
		if err := ctx.Err(); err != nil {
			return err // the iterator may still have documents
		}
		found, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err != nil {
			return err
		}
		ref := store.Ref{Collection: found.Ref.Parent.ID, ID: found.Ref.ID}
		if !each(fromDocument(ref, found)) {
			return nil
		}
	}
}

func (s *Store) doc(ref store.Ref) *firestore.DocumentRef {
	return s.client.Collection(ref.Collection).Doc(ref.ID)
}
