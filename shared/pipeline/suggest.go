package pipeline

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Suggest returns the name that most resembles a mistyped one, "" if none does. Of two that
// resemble it equally the first counts.
func Suggest(typed string, names []string) (best string) {
	if typed == "" {
		return ""
	}
	least := max(1, len(typed)/3) + 1
	for _, name := range names {
		if d := edits(strings.ToLower(typed), strings.ToLower(name)); d < least && name != typed {
			best, least = name, d
		}
	}
	return best
}

// edits counts the letters to insert, to remove or to replace, and the pairs of neighbours to
// swap, that make one word of another.
func edits(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := range len(a) {
		twoAbove, above, row := rows[0], rows[1], rows[2]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(above[j+1]+1, row[j]+1, above[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], twoAbove[j-1]+1)
			}
		}
		rows = [3][]int{above, row, twoAbove}
	}
	return rows[1][len(b)]
}

// DidYouMean is the end of a sentence about a name that is not known: a suggestion, or nothing.
func DidYouMean(typed string, names []string) string {
	if best := Suggest(typed, names); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}

// unknownKey is how the decoder says that a key is unknown, with the Go type behind it.
var unknownKey = regexp.MustCompile(`^line (\d+): field (\S+) not found in type (?s:.*)`)

// explainKey says more about a key that the decoder does not know: its section, and what was
// probably meant.
func explainKey(message string, root *yaml.Node) string {
	m := unknownKey.FindStringSubmatch(message)
	if m == nil {
		return message
	}
	known := fmt.Sprintf("line %s: field %s not found", m[1], m[2])
	section, of, found := sectionOf(root, reflect.TypeFor[file](), "", m[1], m[2])
	if !found {
		return known
	}
	if section != "" {
		known += " in " + section
	}
	keys := keysOf(of)
	if best := Suggest(m[2], keys); best != "" {
		return known + fmt.Sprintf("; did you mean %q?", best)
	}
	var elsewhere []string
	for other, keys := range sections(reflect.TypeFor[file](), "") {
		if slices.Contains(keys, m[2]) && other != "" {
			elsewhere = append(elsewhere, other)
		}
	}
	if len(elsewhere) > 0 {
		slices.Sort(elsewhere)
		return known + fmt.Sprintf("; %q is a key of %s", m[2], strings.Join(elsewhere, " and "))
	}
	return known + "; the keys here are " + strings.Join(keys, ", ")
}

// sectionOf finds the section that has a key in a line.
func sectionOf(n *yaml.Node, t reflect.Type, path, line, key string) (string, reflect.Type, bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.DocumentNode && len(n.Content) > 0:
		return sectionOf(n.Content[0], t, path, line, key)
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, item := range n.Content {
			if section, of, found := sectionOf(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i), line, key); found {
				return section, of, true
			}
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key && fmt.Sprint(n.Content[i].Line) == line {
				return path, t, true
			}
			for f := range t.Fields() {
				if name := f.Tag.Get("yaml"); name == n.Content[i].Value {
					if section, of, found := sectionOf(n.Content[i+1], f.Type, strings.TrimPrefix(path+"."+name, "."), line, key); found {
						return section, of, true
					}
				}
			}
		}
	}
	return "", nil, false
}

func keysOf(t reflect.Type) (keys []string) {
	for f := range t.Fields() {
		keys = append(keys, f.Tag.Get("yaml"))
	}
	return keys
}

// sections lists the keys of each section of the file, as in transitions[].modes[].
func sections(t reflect.Type, path string) map[string][]string {
	out := map[string][]string{}
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		if t.Kind() == reflect.Slice {
			path += "[]"
		}
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return out
	}
	out[path] = keysOf(t)
	for f := range t.Fields() {
		maps.Copy(out, sections(f.Type, strings.TrimPrefix(path+"."+f.Tag.Get("yaml"), ".")))
	}
	return out
}
