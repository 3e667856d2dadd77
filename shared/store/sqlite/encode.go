package sqlite

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A document is one JSON object of its fields, so that any SQLite shell can read the
// file. Null, booleans, strings and arrays stand for themselves, and a number is
// always an int64. The other kinds are objects with one key. A user's map is wrapped
// too, so it cannot be mistaken for one of them:
//
//	{"float": "0.1"}  also "NaN" and "+Inf"
//	{"time": 1770076800000000}  in microseconds since the Unix epoch
//	{"map": {…}}
const (
	tagFloat = "float"
	tagTime  = "time"
	tagMap   = "map"
)

func encode(data map[string]any) (string, error) {
	tree, err := encodeMap(data)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(tree)
	return string(b), err
}

func encodeMap(m map[string]any) (map[string]any, error) {
	tree := make(map[string]any, len(m))
	for name, v := range m {
		e, err := encodeValue(v)
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", name, err)
		}
		tree[name] = e
	}
	return tree, nil
}

func encodeValue(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, int64, string:
		return v, nil
	case float64:
		return map[string]any{tagFloat: strconv.FormatFloat(v, 'g', -1, 64)}, nil
	case time.Time:
		return map[string]any{tagTime: v.UnixMicro()}, nil
	case []any:
		a := make([]any, len(v))
		for i, e := range v {
			var err error
			if a[i], err = encodeValue(e); err != nil {
				return nil, err
			}
		}
		return a, nil
	case map[string]any:
		m, err := encodeMap(v)
		return map[string]any{tagMap: m}, err
	}
	return nil, fmt.Errorf("no encoding for a %T", v)
}

func decode(data string) (map[string]any, error) {
	d := json.NewDecoder(strings.NewReader(data))
	d.UseNumber() // a float64 would round large int64s
	var tree map[string]any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	return decodeMap(tree)
}

func decodeMap(tree map[string]any) (map[string]any, error) {
	m := make(map[string]any, len(tree))
	for name, e := range tree {
		v, err := decodeValue(e)
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", name, err)
		}
		m[name] = v
	}
	return m, nil
}

func decodeValue(e any) (any, error) {
	switch e := e.(type) {
	case nil, bool, string:
		return e, nil
	case json.Number:
		return e.Int64()
	case []any:
		a := make([]any, len(e))
		for i, element := range e {
			var err error
			if a[i], err = decodeValue(element); err != nil {
				return nil, err
			}
		}
		return a, nil
	case map[string]any:
		return decodeTagged(e)
	}
	return nil, fmt.Errorf("unexpected %T", e)
}

func decodeTagged(tagged map[string]any) (any, error) {
	if len(tagged) != 1 {
		return nil, errors.New("not a value of this format")
	}
	if f, ok := tagged[tagFloat].(string); ok {
		return strconv.ParseFloat(f, 64)
	}
	if t, ok := tagged[tagTime].(json.Number); ok {
		us, err := t.Int64()
		return time.UnixMicro(us).UTC(), err
	}
	if m, ok := tagged[tagMap].(map[string]any); ok {
		return decodeMap(m)
	}
	return nil, errors.New("not a value of this format")
}
