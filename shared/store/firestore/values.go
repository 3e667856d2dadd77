package firestore

import (
	"time"

	"cloud.google.com/go/firestore"

	"github.com/phasegate/phasegate/shared/store"
)

// tree returns fields as the nested maps that they are in a document.
func tree(fields []store.Field) map[string]any {
	root := map[string]any{}
	for _, f := range fields {
		m := root
		for _, name := range f.Path[:len(f.Path)-1] {
			inner, ok := m[name].(map[string]any)
			if !ok { // checked fields do not overlap, so nothing is there yet
				inner = map[string]any{}
				m[name] = inner
			}
			m = inner
		}
		m[f.Path[len(f.Path)-1]] = toValue(f.Value)
	}
	return root
}

func paths(fields []store.Field) []firestore.FieldPath {
	paths := make([]firestore.FieldPath, len(fields))
	for i, f := range fields {
		paths[i] = f.Path
	}
	return paths
}

func updates(fields []store.Field) []firestore.Update {
	updates := make([]firestore.Update, len(fields))
	for i, f := range fields {
		updates[i] = firestore.Update{FieldPath: f.Path, Value: toValue(f.Value)}
	}
	return updates
}

// toValue returns a checked value as the client takes it: with its placeholders.
func toValue(v any) any {
	switch v := v.(type) {
	case store.UnionValue:
		return firestore.ArrayUnion(v.Values...)
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, inner := range v {
			m[name] = toValue(inner)
		}
		return m
	}
	if store.IsServerTime(v) {
		return firestore.ServerTimestamp
	}
	return v
}

func fromDocument(ref store.Ref, found *firestore.DocumentSnapshot) store.Doc {
	if !found.Exists() {
		return store.Doc{Ref: ref}
	}
	return store.Doc{
		Ref:     ref,
		Exists:  true,
		Version: store.Version(found.UpdateTime.UnixMicro()),
		Data:    fromMap(found.Data()),
	}
}

func fromMap(found map[string]any) map[string]any {
	m := make(map[string]any, len(found))
	for name, v := range found {
		m[name] = fromValue(v)
	}
	return m
}

func fromValue(found any) any {
	switch v := found.(type) {
	case time.Time:
		return time.UnixMicro(v.UnixMicro()).UTC()
	case []any:
		a := make([]any, len(v))
		for i, e := range v {
			a[i] = fromValue(e)
		}
		return a
	case map[string]any:
		return fromMap(v)
	}
	return found
}
