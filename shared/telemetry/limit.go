package telemetry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Cloud Logging takes entries of up to 256 KB, with what it adds itself, and drops larger ones:
// https://cloud.google.com/logging/quotas. A longer line is cut, first mildly.
const maxLine = 200 << 10

// cuts are how long a text may be, and how many items a list or a map may have, until a line
// is short enough.
var cuts = []struct{ text, items int }{{8 << 10, 100}, {1 << 10, 20}, {200, 5}}

// limited cuts the lines that are too long for Cloud Logging.
type limited struct{ io.Writer }

func (l limited) Write(line []byte) (int, error) {
	if len(line) <= maxLine {
		return l.Writer.Write(line)
	}
	var fields any
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return 0, fmt.Errorf("cut a line of %d bytes: %w", len(line), err)
	}
	short := line
	for _, c := range cuts {
		var err error
		if short, err = json.Marshal(cut(fields, c.text, c.items)); err != nil {
			return 0, fmt.Errorf("cut a line of %d bytes: %w", len(line), err)
		}
		if len(short) < maxLine {
			break
		}
	}
	if _, err := l.Writer.Write(append(short, '\n')); err != nil {
		return 0, err
	}
	return len(line), nil
}

// kept are the fields that alerts read: they are never cut.
var kept = []string{"time", "severity", "message", "event", "shadow_event", "logging.googleapis.com/trace", "by", "check", "state", "type", "transition", "period", "mode", "job"}

// cut shortens texts, lists and maps, and says by how much.
func cut(v any, text, items int) any {
	switch v := v.(type) {
	case string:
		if len(v) > text {
			return strings.ToValidUTF8(v[:text], "") + fmt.Sprintf("… (%s bytes more)", Count(len(v)-text))
		}
	case []any:
		out := make([]any, 0, min(len(v), items+1))
		for _, item := range v[:min(len(v), items)] {
			out = append(out, cut(item, text, items))
		}
		if more := len(v) - items; more > 0 {
			out = append(out, "and "+Count(more)+" more")
		}
		return out
	case map[string]any:
		out, left := map[string]any{}, 0
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
		for _, name := range names {
			if len(out) >= max(items, len(kept)) {
				left++
				continue
			}
			out[strings.ToValidUTF8(name[:min(len(name), text)], "")] = cut(v[name], text, items)
		}
		if left > 0 {
			out["left_out"] = Count(left) + " fields"
		}
		return out
	}
	return v
}

func rank(name string) int {
	if slices.Contains(kept, name) {
		return 0
	}
	return 1
}

// Count writes a number with commas, for people.
func Count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
