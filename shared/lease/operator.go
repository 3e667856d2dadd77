package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/store"
)

// List returns the locks that have a document, in the order of their keys, with the
// server's time before they were read.
func (l *Locks) List(ctx context.Context) ([]State, time.Time, error) {
	first := l.lockRef("!")
	snap, err := l.Store.Get(ctx, first)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("locks: %w", err)
	}
	var out []State
	for doc, err := range l.Store.Scan(ctx, first.Collection, "!", "~") {
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("locks: %w", err)
		}
		s, _ := parse(doc)
		out = append(out, s)
	}
	return out, snap.ReadTime, nil
}

const (
	// MostLeaked is how many leaked locks keep their documents.
	MostLeaked = 100
	// mostDeletes bounds one commit.
	mostDeletes = 100
)

// Trim deletes the leaked locks of a list but the newest [MostLeaked], so that no number of dead
// runs makes a list long. A leaked lock is free, with or without its document, and its tokens
// stay outstanding. A lock that a run has taken since is kept; the next Trim deletes the others of its commit.
func (l *Locks) Trim(ctx context.Context, states []State, at time.Time) (deleted int, err error) {
	leaked := slices.DeleteFunc(slices.Clone(states), func(s State) bool { return !s.Leaked(at) })
	slices.SortStableFunc(leaked, func(a, b State) int { return b.Renewed.Compare(a.Renewed) })
	leaked = leaked[min(MostLeaked, len(leaked)):]
	for some := range slices.Chunk(leaked, mostDeletes) {
		var writes []store.Write
		for _, s := range some {
			writes = append(writes, store.DeleteIf(l.lockRef(s.Key), s.version))
		}
		switch _, err := l.Store.Apply(ctx, writes...); {
		case err == nil:
			deleted += len(some)
		case !errors.Is(err, store.ErrConflict):
			return deleted, fmt.Errorf("delete leaked locks: %w", err)
		}
	}
	return deleted, nil
}

// ErrNotLocked says that a lock has no document.
var ErrNotLocked = errors.New("not locked")

// Break revokes a lock, with an audit record in the same commit, and returns its last state.
// A live holder detects that at its next renewal, and stops; its token stays outstanding. The record's Detail is completed.
func (l *Locks) Break(ctx context.Context, key string, r audit.Record) (State, error) {
	ref, at, id := l.lockRef(key), l.Now(), l.NewID()
	var last State
	var ambiguous error
	for try := range maxRaces {
		snap, err := l.Store.Get(ctx, ref, r.Write(l.Prefix, at, id).Ref)
		if err != nil {
			return State{}, fmt.Errorf("release %s: %w", key, err)
		}
		if snap.Docs[1].Exists { // the answer of an earlier try was lost
			return last, nil
		}
		s, ok := parse(snap.Docs[0])
		switch {
		case ambiguous != nil:
			return State{}, fmt.Errorf("release %s: %w", key, ambiguous)
		case !ok:
			return State{}, fmt.Errorf("%s: %w", ref, ErrNotLocked)
		case try > 0 && s.Execution != last.Execution:
			return State{}, fmt.Errorf("release %s: execution %q has released it meanwhile, and %q on %q has it now", key, last.Execution, s.Execution, s.Instance)
		}
		last = s
		r.Detail = fmt.Sprintf("%s taken from execution %q on %q, which had it since %s", key, s.Execution, s.Instance, s.Since.Format(time.RFC3339))
		_, err = l.Store.Apply(ctx, store.DeleteIf(ref, s.version), r.Write(l.Prefix, at, id))
		if err == nil {
			r.Log(ctx, l.Log)
			return s, nil
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
			ambiguous = err // whether it was done is read back
		}
	}
	return State{}, fmt.Errorf("release %s: no end after %d conflicts", key, maxRaces)
}
