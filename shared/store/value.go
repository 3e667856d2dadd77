package store

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
	"unicode/utf8"
)

// Clone is for drivers: it returns a deep copy of a document's data.
func Clone(data map[string]any) map[string]any {
	c := maps.Clone(data)
	if c == nil {
		c = map[string]any{}
	}
	for name, v := range c {
		switch v := v.(type) {
		case map[string]any:
			c[name] = Clone(v)
		case []any:
			c[name] = slices.Clone(v) // of scalars
		}
	}
	return c
}

// normalize returns a deep copy of a value as the port defines values, or refuses
// it naming the field at path.
func normalize(v any, path []string) (any, error) {
	if len(path) > maxDepth {
		return nil, fmt.Errorf("field %q: deeper than %d levels: %w", fieldName(path), maxDepth, ErrInvalid)
	}
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, inner := range v {
			at := append(slices.Clone(path), name)
			if err := checkPath(at); err != nil {
				return nil, err
			}
			n, err := normalize(inner, at)
			if err != nil {
				return nil, err
			}
			m[name] = n
		}
		return m, nil
	case []any:
		return normalizeArray(v, path)
	case UnionValue:
		values, err := normalizeArray(v.Values, path)
		return UnionValue{Values: values}, err
	case serverTime:
		return v, nil
	}
	return normalizeScalar(v, path)
}

func normalizeArray(values []any, path []string) ([]any, error) {
	a := make([]any, len(values))
	for i, v := range values {
		n, err := normalizeScalar(v, append(slices.Clone(path), fmt.Sprintf("[%d]", i)))
		if err != nil {
			return nil, err
		}
		a[i] = n
	}
	return a, nil
}

func normalizeScalar(v any, path []string) (any, error) {
	switch v := v.(type) {
	case nil, bool, int64, float64:
		return v, nil
	case int:
		return int64(v), nil
	case string:
		if !utf8.ValidString(v) {
			return nil, fmt.Errorf("field %q: string is not UTF-8: %w", fieldName(path), ErrInvalid)
		}
		return v, nil
	case time.Time:
		if !inRange(v) {
			return nil, fmt.Errorf("field %q: time outside the years 1 to 9999: %w", fieldName(path), ErrInvalid)
		}
		return time.UnixMicro(v.UnixMicro()).UTC(), nil
	}
	return nil, fmt.Errorf("field %q: cannot store a %T here: %w", fieldName(path), v, ErrInvalid)
}

// inRange reports whether Firestore can represent a time.
func inRange(t time.Time) bool { y := t.UTC().Year(); return y >= 1 && y <= 9999 }

// same reports whether replacing a by b changes nothing.
func same(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, same)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, same)
	case float64:
		b, ok := b.(float64)
		return ok && (math.Float64bits(a) == math.Float64bits(b) || a != a && b != b)
	}
	switch b.(type) {
	case map[string]any, []any:
		return false // comparing them by == would panic
	}
	return a == b
}

// equivalent reports whether an array union takes two scalars for the same
// element: numbers by their value regardless of their type, NaN like any other.
func equivalent(a, b any) bool {
	switch a := a.(type) {
	case int64:
		if b, ok := b.(float64); ok {
			return equalNumbers(a, b)
		}
	case float64:
		switch b := b.(type) {
		case int64:
			return equalNumbers(b, a)
		case float64:
			return a == b || a != a && b != b
		}
	}
	return same(a, b)
}

// equalNumbers compares without the rounding of a conversion to float64.
func equalNumbers(i int64, f float64) bool {
	// 1<<63 is the first float64 beyond int64.
	return f == math.Trunc(f) && f >= -(1<<63) && f < 1<<63 && int64(f) == i
}
