package store

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Resolve is for drivers that keep the documents themselves: it returns a document
// as one checked write leaves it in a commit at the given version. It answers
// [ErrExists], [ErrConflict] and [ErrTooLarge]. A write that changes nothing
// returns the document with the version it had. The document given is not
// modified; the one returned shares values with it.
func Resolve(doc Doc, w Write, at Version) (Doc, error) {
	switch w.Op {
	case OpCreate:
		if doc.Exists {
			return Doc{}, fmt.Errorf("%s %s: %w", w.Op, w.Ref, ErrExists)
		}
	case OpMergeIf, OpDeleteIf:
		if !doc.Exists || doc.Version != w.Version {
			return Doc{}, fmt.Errorf("%s %s at version %d, found %d: %w", w.Op, w.Ref, w.Version, doc.Version, ErrConflict)
		}
		if w.Op == OpDeleteIf {
			return Doc{Ref: doc.Ref}, nil
		}
	}
	data, changed := setAll(doc.Data, w.Fields, at)
	if doc.Exists && !changed {
		return doc, nil
	}
	if err := checkSize(w.Ref, data); err != nil {
		return Doc{}, fmt.Errorf("%s %s: %w", w.Op, w.Ref, err)
	}
	return Doc{Ref: w.Ref, Exists: true, Version: at, Data: data}, nil
}

// setAll returns data with the fields of a commit at a version, and whether that
// changed anything. It leaves data alone.
func setAll(data map[string]any, fields []Field, at Version) (map[string]any, bool) {
	changed := false
	for _, f := range fields {
		next, c := set(data[f.Path[0]], has(data, f.Path[0]), f.Path[1:], f.Value, at.Time())
		if !c {
			continue
		}
		if !changed {
			data, changed = copyMap(data), true
		}
		data[f.Path[0]] = next
	}
	return data, changed
}

// set returns what stands in the place of old when the value is put at the rest of a
// path below it, and whether that is another thing. It copies the maps along the path
// and leaves old alone.
func set(old any, had bool, rest []string, value any, at time.Time) (any, bool) {
	if len(rest) == 0 {
		next := resolveValue(old, value, at)
		return next, !had || !same(old, next)
	}
	inner, isMap := old.(map[string]any) // anything but a map gives way to one
	next, changed := set(inner[rest[0]], has(inner, rest[0]), rest[1:], value, at)
	if isMap && !changed {
		return old, false
	}
	inner = copyMap(inner)
	inner[rest[0]] = next
	return inner, true
}

func has(m map[string]any, name string) bool { _, ok := m[name]; return ok }

func copyMap(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return maps.Clone(m)
}

// resolveValue replaces the placeholders of a value that takes the place of old.
func resolveValue(old, value any, at time.Time) any {
	switch v := value.(type) {
	case serverTime:
		return at.Truncate(time.Millisecond) // as Firestore keeps it
	case UnionValue:
		return union(old, v.Values)
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, inner := range v {
			m[name] = resolveValue(nil, inner, at)
		}
		return m
	}
	return value
}

// union appends the values that an array does not hold yet; anything but an array
// counts as an empty one.
func union(old any, values []any) []any {
	present, _ := old.([]any)
	elements := append([]any{}, present...)
	for _, v := range values {
		if !slices.ContainsFunc(elements, func(e any) bool { return equivalent(e, v) }) {
			elements = append(elements, v)
		}
	}
	return elements
}
