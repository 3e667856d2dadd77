package store

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Firestore's limits, from https://cloud.google.com/firestore/quotas. The emulator
// takes no longer field path than this one; production takes 6,144 bytes.
const (
	maxNameBytes = 1500
	maxPathBytes = 1499
	maxDepth     = 20
)

// reserved reports whether Firestore keeps a name for itself.
func reserved(name string) bool {
	return len(name) >= 4 && strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__")
}

// CheckGet is for drivers: it refuses the arguments of a Get that Firestore would
// not take, with [ErrInvalid].
func CheckGet(refs []Ref) error {
	if len(refs) == 0 {
		// Without a document there is no call that could bring a read time.
		return fmt.Errorf("get: no documents named: %w", ErrInvalid)
	}
	for _, ref := range refs {
		if err := checkRef(ref); err != nil {
			return fmt.Errorf("get: %w", err)
		}
	}
	return nil
}

// CheckScan is for drivers: it refuses the arguments of a Scan that Firestore
// would not take, with [ErrInvalid]. Both bounds must be possible ids.
func CheckScan(collection, from, to string) error {
	for _, id := range []string{from, to} {
		if err := checkRef(Ref{collection, id}); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	return nil
}

// CheckApply is for drivers: it returns a deep copy of the writes with normalised
// values, or refuses them with [ErrInvalid]. It answers [ErrTooLarge] and
// [ErrConflict] where no document could make the write possible.
func CheckApply(writes []Write) ([]Write, error) {
	if len(writes) == 0 {
		return nil, fmt.Errorf("apply: no writes: %w", ErrInvalid)
	}
	seen := make(map[Ref]bool, len(writes))
	checked := make([]Write, len(writes))
	for i, w := range writes {
		if seen[w.Ref] {
			return nil, fmt.Errorf("%s %s: written twice in one commit: %w", w.Op, w.Ref, ErrInvalid)
		}
		seen[w.Ref] = true
		c, err := checkWrite(w)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", w.Op, w.Ref, err)
		}
		checked[i] = c
	}
	return checked, nil
}

func checkWrite(w Write) (Write, error) {
	if err := checkRef(w.Ref); err != nil {
		return Write{}, err
	}
	switch w.Op {
	case OpCreate:
	case OpMerge, OpMergeIf:
		if len(w.Fields) == 0 {
			return Write{}, fmt.Errorf("no fields: %w", ErrInvalid)
		}
	case OpDeleteIf:
		if len(w.Fields) > 0 {
			return Write{}, fmt.Errorf("fields in a delete: %w", ErrInvalid)
		}
	default:
		return Write{}, fmt.Errorf("unknown operation: %w", ErrInvalid)
	}
	if w.Version < 0 || !inRange(w.Version.Time()) {
		return Write{}, fmt.Errorf("version %d: %w", w.Version, ErrInvalid)
	}
	fields := make([]Field, len(w.Fields))
	for i, f := range w.Fields {
		if err := checkPath(f.Path); err != nil {
			return Write{}, err
		}
		value, err := normalize(f.Value, f.Path)
		if err != nil {
			return Write{}, err
		}
		fields[i] = Field{Path: slices.Clone(f.Path), Value: value}
	}
	if err := checkOverlap(fields); err != nil {
		return Write{}, err
	}
	w.Fields = fields
	// The document has at least these fields after the write. Most writes are so small that
	// this needs no exact count.
	if atMost(fields) > maxFieldBytes/2 {
		alone, _ := setAll(nil, fields, w.Version)
		if err := checkSize(w.Ref, alone); err != nil {
			return Write{}, err
		}
	}
	if w.Version == 0 && (w.Op == OpMergeIf || w.Op == OpDeleteIf) {
		// The version of a missing document. Firestore would take it for one and write.
		return Write{}, fmt.Errorf("at version 0: %w", ErrConflict)
	}
	return w, nil
}

// atMost returns bytes that fields cannot exceed in a document that has nothing else,
// its name apart.
func atMost(fields []Field) int {
	n := 0
	for _, f := range fields {
		n += valueSize(f.Value)
		for _, name := range f.Path {
			n += stringSize(name) + mapSize(nil)
		}
	}
	return n
}

func checkRef(r Ref) error {
	for _, part := range []string{r.Collection, r.ID} {
		if err := checkName(part); err != nil {
			return fmt.Errorf("document %q: %w", r, err)
		}
		if strings.Contains(part, "/") || part == "." || part == ".." {
			return fmt.Errorf("document %q: %q cannot be part of a name: %w", r, part, ErrInvalid)
		}
	}
	return nil
}

func checkPath(path []string) error {
	if len(path) == 0 {
		return fmt.Errorf("field without a path: %w", ErrInvalid)
	}
	for _, name := range path {
		if err := checkName(name); err != nil {
			return fmt.Errorf("field %q: %w", fieldName(path), err)
		}
	}
	if n := len(fieldName(path)); n > maxPathBytes {
		return fmt.Errorf("field %q: path of %d bytes, at most %d: %w", fieldName(path), n, maxPathBytes, ErrInvalid)
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("empty name: %w", ErrInvalid)
	case len(name) > maxNameBytes:
		return fmt.Errorf("name of %d bytes, at most %d: %w", len(name), maxNameBytes, ErrInvalid)
	case !utf8.ValidString(name):
		return fmt.Errorf("name %q is not UTF-8: %w", name, ErrInvalid)
	case reserved(name):
		return fmt.Errorf("name %q is reserved: %w", name, ErrInvalid)
	}
	return nil
}

// checkOverlap refuses a path that is another one or leads to it.
func checkOverlap(fields []Field) error {
	paths := make([][]string, len(fields))
	for i, f := range fields {
		paths[i] = f.Path
	}
	// Sorted, a path stands directly before the ones that it leads to.
	slices.SortFunc(paths, slices.Compare)
	for i := 1; i < len(paths); i++ {
		a, b := paths[i-1], paths[i]
		if len(a) <= len(b) && slices.Equal(a, b[:len(a)]) {
			return fmt.Errorf("fields %q and %q overlap: %w", fieldName(a), fieldName(b), ErrInvalid)
		}
	}
	return nil
}

func fieldName(path []string) string { return strings.Join(path, ".") }
