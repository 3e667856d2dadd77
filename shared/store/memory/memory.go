// Package memory is the document store in memory, for unit tests and simulation.
//
// It keeps every guarantee of package store with one lock and one clock that only
// grows. A commit that changes something has a version of its own: the given clock's
// time in microseconds. If the clock stands or goes back, the version is one
// microsecond after the latest commit. A snapshot's read time is the clock's, never
// before the latest commit. While the clock stands, a later commit can have the time
// of an earlier read.
//
// Documents are lost when the process ends. The store never retries. Apart from the
// answers that package store defines, the only error is that of an ended context.
package memory

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// Store is a [store.Store] in memory, safe for concurrent use.
type Store struct {
	now func() time.Time

	mu   sync.RWMutex
	last store.Version // of the latest commit
	// Their data is never modified, only replaced, so that it can be copied outside the
	// lock.
	collections map[string]*collection
}

// collection holds documents by id, and their ids in order: a scan costs what it
// yields, however many documents exist.
type collection struct {
	docs map[string]store.Doc
	ids  []string
}

var _ store.Store = (*Store)(nil)

// New returns an empty store on the given clock, which must be safe for concurrent
// use.
func New(now func() time.Time) *Store {
	return &Store{now: now, collections: map[string]*collection{}}
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	if err := store.CheckGet(refs); err != nil {
		return store.Snapshot{}, err
	}
	if err := ctx.Err(); err != nil {
		return store.Snapshot{}, fmt.Errorf("get: %w", err)
	}
	snap := s.snapshot(refs)
	for i := range snap.Docs {
		snap.Docs[i] = copied(snap.Docs[i])
	}
	return snap, nil
}

func (s *Store) snapshot(refs []store.Ref) store.Snapshot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	snap := store.Snapshot{
		ReadTime: max(s.clock(), s.last).Time(),
		Docs:     make([]store.Doc, len(refs)),
	}
	for i, ref := range refs {
		snap.Docs[i] = s.find(ref)
	}
	return snap
}

// Apply implements [store.Store].
func (s *Store) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	writes, err := store.CheckApply(writes)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	at := max(s.last+1, s.clock())
	after := make([]store.Doc, len(writes))
	versions := make([]store.Version, len(writes))
	for i, w := range writes {
		if after[i], err = store.Resolve(s.find(w.Ref), w, at); err != nil {
			return nil, err
		}
		versions[i] = after[i].Version
	}
	for _, doc := range after {
		s.put(doc, at)
	}
	return versions, nil
}

// put stores one document of a commit at a version; only a change moves the clock.
func (s *Store) put(doc store.Doc, at store.Version) {
	c := s.collections[doc.Ref.Collection]
	if c == nil {
		c = &collection{docs: map[string]store.Doc{}}
		s.collections[doc.Ref.Collection] = c
	}
	i, had := slices.BinarySearch(c.ids, doc.Ref.ID)
	switch {
	case !doc.Exists:
		if had {
			c.ids = slices.Delete(c.ids, i, i+1)
		}
		delete(c.docs, doc.Ref.ID)
	case doc.Version != at:
		return // nothing changed
	default:
		if !had {
			c.ids = slices.Insert(c.ids, i, doc.Ref.ID)
		}
		c.docs[doc.Ref.ID] = doc
	}
	s.last = at
}

// Scan implements [store.Store]. It holds no lock while the caller's loop runs.
func (s *Store) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		if err := store.CheckScan(collection, from, to); err != nil {
			yield(store.Doc{}, err)
			return
		}
		ids := s.ids(collection, from, to)
		for i := 0; ; i++ {
			if err := ctx.Err(); err != nil {
				yield(store.Doc{}, fmt.Errorf("scan %s: %w", collection, err))
				return
			}
			if i == store.ScanPage {
				i, ids = 0, s.ids(collection, ids[i-1]+"\x00", to)
			}
			if i == len(ids) {
				return
			}
			ref := store.Ref{Collection: collection, ID: ids[i]}
			doc := s.snapshot([]store.Ref{ref}).Docs[0]
			if doc.Exists && !yield(copied(doc), nil) {
				return
			}
		}
	}
}

// ids returns the first ids of a range in order, a page at most.
func (s *Store) ids(collection, from, to string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := s.collections[collection]
	if c == nil || to < from {
		return nil
	}
	first, _ := slices.BinarySearch(c.ids, from)
	last, found := slices.BinarySearch(c.ids, to)
	if found {
		last++
	}
	return slices.Clone(c.ids[first:min(last, first+store.ScanPage)])
}

// find returns the stored document, whose data must not be modified.
func (s *Store) find(ref store.Ref) store.Doc {
	if c := s.collections[ref.Collection]; c != nil {
		if doc, ok := c.docs[ref.ID]; ok {
			return doc
		}
	}
	return store.Doc{Ref: ref}
}

func (s *Store) clock() store.Version { return store.Version(s.now().UnixMicro()) }

func copied(doc store.Doc) store.Doc {
	if doc.Exists {
		doc.Data = store.Clone(doc.Data)
	}
	return doc
}
