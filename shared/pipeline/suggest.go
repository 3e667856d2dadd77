package pipeline

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Nearest returns the candidate with the fewest typing errors to a word, the first of
// several, and how many: two at most, and one in a short word. "" when none is like it.
func Nearest(word string, candidates []string) (nearest string, errors int) {
	most := 2
	if len(word) < 6 {
		most = 1
	}
	errors = most + 1
	for _, c := range candidates {
		if d := distance(word, c, errors); d < errors {
			nearest, errors = c, d
		}
	}
	return nearest, errors
}

// distance counts the typing errors between two words: a letter too many, one missing, one
// that is another, two that are swapped. It is limit where there are as many or more.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	for a != "" && b != "" && a[0] == b[0] { // most names of a large pipeline begin alike
		a, b = a[1:], b[1:]
	}
	for a != "" && b != "" && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	before, last, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		for j := 1; j <= len(b); j++ {
			other := 1
			if a[i-1] == b[j-1] {
				other = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+other)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last, now = last, now, before
	}
	return min(last[len(b)], limit)
}

// suggest is Nearest in any case of the letters; "" also if nothing was typed.
func suggest(typed string, names []string) string {
	lower := make([]string, len(names))
	for i, name := range names {
		lower[i] = strings.ToLower(name)
	}
	if best, _ := Nearest(strings.ToLower(typed), lower); best != "" && typed != "" {
		return names[slices.Index(lower, best)]
	}
	return ""
}

// Count is a number of things in words: Count(1, "row is", "rows are") is "1 row is".
func Count[N int | int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// DidYouMean is the end of a sentence about a name that is not known: a suggestion, or nothing.
func DidYouMean(typed string, names []string) string {
	if best := suggest(typed, names); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}

// unknownKey is how the decoder says that a key is unknown, with the Go type behind it.
var unknownKey = regexp.MustCompile(`^line (\d+): field (\S+) not found in type (?s:.*)`)

// wrongShape is how the decoder says that a value has another form than the Go type behind it.
var wrongShape = regexp.MustCompile(`^line (\d+): cannot unmarshal (!!\w+)(?s:.*) into (?:struct|\[\]|pipeline\.|map)(?s:.*)`)

// explainShape explains what the decoder has said, and returns the path of the value that was meant, "" if
// that is not known.
func explainShape(message string, root *yaml.Node) (text, path string) {
	if m := wrongShape.FindStringSubmatch(message); m != nil {
		if at, of, found := shapedOther(root, reflect.TypeFor[file](), "", m[1], m[2]); found {
			return fmt.Sprintf("line %s: %s: %s", m[1], at, wanted(of)), at
		}
	}
	return explainKey(message, root)
}

// wanted says which form a section has.
func wanted(of reflect.Type) string {
	switch {
	case of.Kind() == reflect.Map:
		return "wants a map, such as {entity: entities}"
	case of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Struct:
		return "wants a list of which each item has keys, such as " + keysOf(of.Elem())[0]
	case of.Kind() == reflect.Slice:
		return "wants a list, such as [a, b]"
	}
	keys := keysOf(of)
	var such []string
	for _, key := range keys {
		if example := examples[key]; example != "" {
			such = append(such, key+": "+example)
		}
	}
	names, example := strings.Join(keys, ", "), ""
	if len(such) > 0 {
		names, example = keyNames(of), ", such as {"+strings.Join(such, ", ")+"}"
	}
	return "wants keys " + names + example
}

// keyNames are the keys of a section that have an example; the others are optional.
func keyNames(of reflect.Type) string {
	var names []string
	for _, key := range keysOf(of) {
		if examples[key] != "" {
			names = append(names, key)
		}
	}
	return And(names)
}

// shapedOther finds the value in a line that has this tag where its section wants another form.
func shapedOther(n *yaml.Node, t reflect.Type, path, line, tag string) (string, reflect.Type, bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	kind := map[reflect.Kind]yaml.Kind{reflect.Struct: yaml.MappingNode, reflect.Map: yaml.MappingNode, reflect.Slice: yaml.SequenceNode}[t.Kind()]
	switch {
	case n.Kind == yaml.DocumentNode && len(n.Content) > 0:
		return shapedOther(n.Content[0], t, path, line, tag)
	case path != "" && kind != 0 && n.Kind != kind && fmt.Sprint(n.Line) == line && n.ShortTag() == tag:
		return path, t, true
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, item := range n.Content {
			if at, of, found := shapedOther(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i), line, tag); found {
				return at, of, true
			}
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		for i := 0; i+1 < len(n.Content); i += 2 {
			for f := range t.Fields() {
				if name := f.Tag.Get("yaml"); name == n.Content[i].Value {
					if at, of, found := shapedOther(n.Content[i+1], f.Type, strings.TrimPrefix(path+"."+name, "."), line, tag); found {
						return at, of, true
					}
				}
			}
		}
	}
	return "", nil, false
}

// yamlLine is how the parser begins: with the line where the section around the problem began.
var yamlLine = regexp.MustCompile(`^yaml: (?:line \d+: )?`)

// located names the first line at which the YAML is not valid.
func located(data []byte, problem error) error {
	lines := bytes.SplitAfter(data, []byte("\n"))
	n := sort.Search(len(lines), func(i int) bool {
		err := yaml.Unmarshal(bytes.Join(lines[:i+1], nil), new(yaml.Node))
		return err != nil && err.Error() == problem.Error()
	})
	if n == len(lines) {
		return problem
	}
	return fmt.Errorf("line %d: %q: %s: compare its indent with the lines above, and look there for an open quote or bracket",
		n+1, clip(strings.TrimSpace(string(lines[n]))), yamlLine.ReplaceAllString(problem.Error(), ""))
}

// explainKey says more about a key that the decoder does not know: its section, and what was
// probably meant, with the path of that.
func explainKey(message string, root *yaml.Node) (text, path string) {
	m := unknownKey.FindStringSubmatch(message)
	if m == nil {
		return message, ""
	}
	known := fmt.Sprintf("line %s: field %s not found", m[1], m[2])
	section, of, found := sectionOf(root, reflect.TypeFor[file](), "", m[1], m[2])
	if !found {
		return known, ""
	}
	if section != "" {
		known += " in " + section
	}
	keys := keysOf(of)
	if best := suggest(m[2], keys); best != "" {
		return known + fmt.Sprintf("; did you mean %q?", best), strings.TrimPrefix(section+"."+best, ".")
	}
	var elsewhere []string
	for other, keys := range sections(reflect.TypeFor[file](), "") {
		if slices.Contains(keys, m[2]) && other != "" {
			elsewhere = append(elsewhere, other)
		}
	}
	if len(elsewhere) > 0 {
		slices.Sort(elsewhere)
		return known + fmt.Sprintf("; %q is a key of %s", m[2], strings.Join(elsewhere, " and ")), ""
	}
	return known + "; the keys here are " + strings.Join(keys, ", "), ""
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
