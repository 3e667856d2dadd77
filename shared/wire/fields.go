package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// fields is a JSON object whose keys are matched exactly; encoding/json itself would
// take "Status" for "status".
type fields map[string]json.RawMessage

// decodeObject reads one JSON object and nothing after it; field names it in the error.
func decodeObject(field string, data []byte) (fields, error) {
	if len(data) == 0 {
		return nil, missing(field)
	}
	if !utf8.Valid(data) {
		return nil, permanent(field, data, "is not UTF-8") // encoding/json would replace it silently
	}
	var f fields
	err := json.Unmarshal(data, &f)
	var other *json.UnmarshalTypeError
	switch {
	case errors.As(err, &other), err == nil && f == nil:
		return nil, permanent(field, data, "is not a JSON object")
	case err != nil:
		return nil, permanent(field, data, "is not JSON: %v", err)
	}
	return f, nil
}

// lookup returns a field as it was written. null is the same as absent.
func (f fields) lookup(key string) (json.RawMessage, bool) {
	raw, ok := f[key]
	return raw, ok && string(raw) != "null"
}

// text returns a field that is a string, "" when it is absent; path names it in the error.
func (f fields) text(key, path string) (string, error) {
	raw, ok := f.lookup(key)
	if !ok {
		return "", nil
	}
	s, ok := asText(raw)
	if !ok {
		return "", permanent(path, raw, "is not a string")
	}
	return s, nil
}

// asText returns the string that a JSON value is.
func asText(raw json.RawMessage) (string, bool) {
	if raw[0] != '"' { // json.Unmarshal would take null for ""
		return "", false
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

// permanent makes the error for a field with its value as received.
func permanent(field string, value []byte, format string, args ...any) *PermanentError {
	return &PermanentError{Field: field, Value: clipBytes(value), Problem: fmt.Sprintf(format, args...)}
}

// missing makes the error for a required field that is absent.
func missing(field string) *PermanentError {
	return &PermanentError{Field: field, Value: "absent", Problem: "is required"}
}

// clipLength bounds values in errors, in warnings and in Completion.Reported, in bytes.
const clipLength = 200

// clip shortens a string to clipLength bytes.
func clip(s string) string { return clipTo(s, clipLength) }

// clipTo shortens a string to n bytes of valid UTF-8, never within a rune.
func clipTo(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD") // before the cut: it can make s longer
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func clipBytes(b []byte) string {
	return clip(string(b[:min(len(b), clipLength+utf8.UTFMax)]))
}

// encode writes JSON as it is read by people: no HTML escaping, no trailing newline.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
