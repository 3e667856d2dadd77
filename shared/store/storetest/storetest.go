// Package storetest is the conformance suite of package store: a driver that
// passes it behaves like the others, so what is proved on one holds on all.
//
// Each test uses a collection of its own, so the suite can run against a server
// that others use at the same time, and against one that keeps old documents. It
// waits for calls, never for time; each test fails after two minutes.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/store"
)

// patience bounds each test; nothing here takes a tenth of it.
const patience = 2 * time.Minute

// Deviation is a promise of package store that a server is known not to keep; the
// suite then expects what the server does instead.
type Deviation int

// TornReads: a Get during a commit of several documents can see the first of its
// writes without the last ones.
const TornReads Deviation = 1

// Run runs the suite against the stores that open returns, one for each test. Open
// must register with t what is to be closed.
func Run(t *testing.T, open func(t *testing.T) store.Store, known ...Deviation) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"rivals", rivalTests},
		{"commits", commitTests},
		{"fields", fieldTests},
		{"values", valueTests},
		{"reads", readTests},
		{"scans", scanTests},
		{"failures", failureTests},
		{"model", modelTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					b := newBench(ctx, t, open(t))
					b.tornReads = slices.Contains(known, TornReads)
					test.run(t, b)
				})
			}
		})
	}
}

type test struct {
	name string
	run  func(t *testing.T, b bench)
}

// bench is a store with a collection of its own and calls that must succeed.
type bench struct {
	ctx        context.Context
	t          fataler
	store      store.Store
	collection string
	tornReads  bool
}

// fataler is what testing.T and rapid.T share.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newBench(ctx context.Context, t fataler, s store.Store) bench {
	return bench{ctx: ctx, t: t, store: s, collection: fmt.Sprintf("suite-%016x", rand.Uint64())}
}

func (b bench) ref(id string) store.Ref { return store.Ref{Collection: b.collection, ID: id} }

func (b bench) refs(ids ...string) []store.Ref {
	refs := make([]store.Ref, len(ids))
	for i, id := range ids {
		refs[i] = b.ref(id)
	}
	return refs
}

func (b bench) snapshot(refs ...store.Ref) store.Snapshot {
	b.t.Helper()
	snap, err := b.store.Get(b.ctx, refs...)
	if err != nil {
		b.t.Fatalf("Get(%v): %v", refs, err)
	}
	if len(snap.Docs) != len(refs) {
		b.t.Fatalf("Get(%v) returned %d documents", refs, len(snap.Docs))
	}
	return snap
}

func (b bench) get(id string) store.Doc {
	b.t.Helper()
	return b.snapshot(b.ref(id)).Docs[0]
}

func (b bench) apply(writes ...store.Write) []store.Version {
	b.t.Helper()
	versions, err := b.store.Apply(b.ctx, writes...)
	if err != nil {
		b.t.Fatalf("Apply: %v", err)
	}
	if len(versions) != len(writes) {
		b.t.Fatalf("Apply of %d writes returned %d versions", len(writes), len(versions))
	}
	return versions
}

// create makes a document and returns its version.
func (b bench) create(id string, fields ...store.Field) store.Version {
	b.t.Helper()
	return b.apply(store.Create(b.ref(id), fields...))[0]
}

// refuses expects an Apply to fail with an error and to change none of the
// documents that it names.
func (b bench) refuses(want error, writes ...store.Write) error {
	b.t.Helper()
	var refs []store.Ref
	for _, w := range writes {
		refs = append(refs, w.Ref)
	}
	before := b.snapshot(refs...).Docs
	versions, err := b.store.Apply(b.ctx, writes...)
	if !errors.Is(err, want) {
		b.t.Fatalf("Apply = %v, %v; want error %q", versions, err, want)
	}
	b.equal(b.snapshot(refs...).Docs, before)
	return err
}

// data expects a document to hold exactly these data.
func (b bench) data(id string, want map[string]any) {
	b.t.Helper()
	doc := b.get(id)
	if !doc.Exists {
		b.t.Fatalf("%s is missing", id)
	}
	b.equal(doc.Data, want)
}

// equal compares to the bit: signed zeros, time zones, empty against nil.
func (b bench) equal(got, want any) {
	b.t.Helper()
	if diff := cmp.Diff(want, got, exactly); diff != "" {
		b.t.Fatalf("mismatch (-want +got):\n%s", diff)
	}
}

var exactly = cmp.Options{
	cmp.Comparer(func(a, b float64) bool {
		return math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b)
	}),
	// Struct equality, not Equal: the zone counts.
	cmp.Comparer(func(a, b time.Time) bool { return a == b }),
}

// together calls f(0) to f(n-1) at the same time and returns what they return.
func together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}
