package terraform

import (
	"context"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/phasegate/phasegate/shared/store"
)

// writes records which fields of which collections are written, and which of them are
// wide: maps, lists and stored messages.
type writes struct {
	store.Store
	mu           sync.Mutex
	fields, wide map[string]map[string]bool
}

func note(into map[string]map[string]bool, collection, field string) {
	if into[collection] == nil {
		into[collection] = map[string]bool{}
	}
	into[collection][field] = true
}

// Apply implements store.Store.
func (w *writes) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	w.mu.Lock()
	for _, x := range ws {
		for _, f := range x.Fields {
			note(w.fields, x.Ref.Collection, f.Path[0])
			if len(f.Path) > 1 || isWide(f.Value) {
				note(w.wide, x.Ref.Collection, f.Path[0])
			}
		}
	}
	w.mu.Unlock()
	return w.Store.Apply(ctx, ws...)
}

func isWide(v any) bool {
	if s, ok := v.(string); ok {
		return strings.HasPrefix(s, "{")
	}
	switch reflect.ValueOf(v).Kind() {
	case reflect.Map, reflect.Slice:
		return true
	}
	return reflect.TypeOf(v) == reflect.TypeOf(store.Union("x"))
}

// sharedRecordings are made once: every test reads the same entries.
var sharedRecordings = struct {
	sync.Once
	good, shadow, all []entry
	bad               map[string][]entry
	// fields by collection, over all of them
	written, wide map[string]map[string]bool
}{}

func recordings(t *testing.T) (goodEntries []entry, badEntries map[string][]entry, all []entry) {
	t.Helper()
	s := &sharedRecordings
	s.Do(func() {
		s.bad, s.written, s.wide = map[string][]entry{}, map[string]map[string]bool{}, map[string]map[string]bool{}
		keep := func(r *recorder) []entry {
			for _, x := range []struct{ from, to map[string]map[string]bool }{{r.written.fields, s.written}, {r.written.wide, s.wide}} {
				for collection, fields := range x.from {
					for field := range fields {
						note(x.to, collection, field)
					}
				}
			}
			s.all = append(s.all, r.entries...)
			return r.entries
		}
		s.good = keep(good(t))
		for page, wrong := range bad {
			r := record(t)
			wrong(r)
			s.bad[page] = keep(r)
		}
		for _, scene := range []func(*recorder){resumed, oddities, inParts, inShards, onHold, inShadow} {
			r := record(t)
			scene(r)
			s.shadow = keep(r) // of the last
		}
	})
	return s.good, s.bad, s.all
}
