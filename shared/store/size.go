package store

import "fmt"

// maxFieldBytes is Firestore's limit for the value of one field
// (https://cloud.google.com/firestore/quotas, "Maximum size of a field value").
const maxFieldBytes = MaxDocumentBytes - 89

// Size returns the bytes that Firestore counts for a document
// (https://firebase.google.com/docs/firestore/storage-size). Resolve
// placeholders first: what they stand for is not known here.
func Size(ref Ref, data map[string]any) int {
	// A document's name: its parts and 16 bytes.
	return 16 + stringSize(ref.Collection) + stringSize(ref.ID) + mapSize(data)
}

func checkSize(ref Ref, data map[string]any) error {
	if n := Size(ref, data); n > MaxDocumentBytes {
		return fmt.Errorf("%d bytes, at most %d: %w", n, MaxDocumentBytes, ErrTooLarge)
	}
	for name, v := range data {
		if n := valueSize(v); n > maxFieldBytes {
			return fmt.Errorf("field %q of %d bytes, at most %d: %w", name, n, maxFieldBytes, ErrTooLarge)
		}
	}
	return nil
}

// mapSize counts a map within a document like a document, but for the name.
func mapSize(m map[string]any) int {
	n := 32
	for name, v := range m {
		n += stringSize(name) + valueSize(v)
	}
	return n
}

func valueSize(v any) int {
	switch v := v.(type) {
	case nil, bool:
		return 1
	case string:
		return stringSize(v)
	case []any:
		n := 0
		for _, e := range v {
			n += valueSize(e)
		}
		return n
	case map[string]any:
		return mapSize(v)
	case UnionValue: // what it brings, at most
		return valueSize(v.Values)
	}
	return 8 // numbers and times
}

func stringSize(s string) int { return len(s) + 1 }
