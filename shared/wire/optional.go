package wire

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

const (
	// maxOptional bounds an optional string in bytes: every run of a period stands in
	// one document of 1 MiB.
	maxOptional = 1024
	// maxEntity bounds the name of an entity in bytes.
	maxEntity = 256
	// maxCount is the largest integer that every reader of JSON keeps exactly.
	maxCount = 1 << 53
)

// optional reads fields that may be absent: what is malformed becomes absent, with a
// warning.
type optional struct {
	fields   fields
	prefix   string // of the fields' paths
	warnings []Warning
}

func (o *optional) warn(key string, value []byte, format string, args ...any) {
	o.warnings = append(o.warnings, Warning{
		Field: o.prefix + key, Value: clipBytes(value), Problem: fmt.Sprintf(format, args...),
	})
}

// read returns a field that is there and that as can read. It warns of one that as cannot read.
func read[T any](o *optional, key string, as func(json.RawMessage) (T, bool), problem string, args ...any) *T {
	raw, ok := o.fields.lookup(key)
	if !ok {
		return nil
	}
	v, ok := as(raw)
	if !ok {
		o.warn(key, raw, problem, args...)
		return nil
	}
	return &v
}

func (o *optional) text(key string) string {
	s := read(o, key, asText, "is not a string")
	switch {
	case s == nil:
		return ""
	case len(*s) > maxOptional:
		raw, _ := o.fields.lookup(key)
		o.warn(key, raw, "is longer than %d bytes", maxOptional)
		return ""
	}
	return *s
}

// prose reads text for people: of one that is too long the beginning tells most.
func (o *optional) prose(key string) string {
	s := read(o, key, asText, "is not a string")
	if s == nil {
		return ""
	}
	return clipTo(*s, maxOptional)
}

func (o *optional) count(key string) *int64 {
	return read(o, key, asCount, "is no integer from 0 to %d", int64(maxCount))
}

var decimalForm = regexp.MustCompile(`^(-?[0-9]+)(?:\.0+)?$`)

// asCount reads an integer, a float with an integral value or a decimal string; an
// exponent is a number's alone.
func asCount(raw json.RawMessage) (int64, bool) {
	digits := string(raw)
	if s, ok := asText(raw); ok {
		digits = s
	}
	if m := decimalForm.FindStringSubmatch(digits); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 64)
		return n, err == nil && n >= 0 && n <= maxCount
	}
	if !strings.ContainsAny(digits, "eE") {
		return 0, false // a fraction, which a float could round away
	}
	f, ok := asNumber(raw)
	if !ok || f != math.Trunc(f) || f < 0 || f > maxCount {
		return 0, false
	}
	return int64(f), true
}

// asNumber reads a finite number. No other JSON value is one to ParseFloat.
func asNumber(raw json.RawMessage) (float64, bool) {
	f, err := strconv.ParseFloat(string(raw), 64)
	return f, err == nil
}

func (o *optional) seconds(key string) *float64 {
	duration := func(raw json.RawMessage) (float64, bool) {
		f, ok := asNumber(raw)
		return f, ok && f >= 0
	}
	return read(o, key, duration, "is no number of seconds from 0")
}

func (o *optional) boolean(key string) bool {
	raw, ok := o.fields.lookup(key)
	if !ok {
		return false
	}
	switch string(raw) {
	case "true", "false":
		return string(raw) == "true"
	}
	o.warn(key, raw, "is not true or false")
	return false
}

// object returns a reader for an object's fields, which has none where the object is
// absent or is none.
func (o *optional) object(key string) *optional {
	inner := &optional{prefix: o.prefix + key + "."}
	raw, ok := o.fields.lookup(key)
	if !ok {
		return inner
	}
	f, err := decodeObject(key, raw)
	if err != nil {
		o.warn(key, raw, "is not an object")
	}
	inner.fields = f
	return inner
}

// entities returns the distinct names of a list in the order sent, at most MaxEntities.
// truncated means that the sender named other entities too; given, that there was a list.
func (o *optional) entities(key string) (names []string, truncated, given bool) {
	raw, ok := o.fields.lookup(key)
	if !ok {
		return nil, false, false
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		o.warn(key, raw, "is not an array")
		return nil, true, true
	}
	seen := map[string]bool{}
	malformed, beyond := 0, 0
	for i, item := range items {
		name, ok := asText(item)
		switch {
		case !ok || name == "" || len(name) > maxEntity:
			if malformed++; malformed == 1 { // one warning a list, however long it is
				o.warn(fmt.Sprintf("%s[%d]", key, i), item, "is no name of 1 to %d bytes", maxEntity)
			}
		case seen[name]:
		case len(names) == MaxEntities:
			beyond++
		default:
			seen[name] = true
			names = append(names, name)
		}
	}
	if beyond > 0 {
		o.warn(key, raw, "has more than %d names; the first are kept", MaxEntities)
	}
	return names, malformed+beyond > 0, true
}
