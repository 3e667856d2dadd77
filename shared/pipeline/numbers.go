package pipeline

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// mostValues bounds the values of a definition, with those that its aliases repeat.
const mostValues = 1_000_000

// expanded counts the values that a node has once each alias is replaced by the value of its
// anchor. sizes has the nodes that were counted; a node that is being counted has size 0.
func expanded(n *yaml.Node, sizes map[*yaml.Node]int) (int, error) {
	if size, known := sizes[n]; size > 0 {
		return size, nil
	} else if known {
		return 0, fmt.Errorf("line %d: anchor %q contains itself: remove the alias *%s from its value", n.Line, clip(n.Anchor), clip(n.Anchor))
	}
	sizes[n] = 0
	size := 1
	for _, item := range slices.Concat(n.Content, []*yaml.Node{n.Alias}) {
		if item == nil {
			continue
		}
		of, err := expanded(item, sizes)
		if err != nil {
			return 0, err
		}
		if size += of; size > mostValues {
			return 0, fmt.Errorf("line %d: aliases make more than %d values of this: remove some of them", n.Line, mostValues)
		}
	}
	sizes[n] = size
	return size, nil
}

// plainForm is the only way to write a number: YAML reads 060 as 48 and 60.9 as 60.
var plainForm = regexp.MustCompile(`^(0|-?[1-9]\d*)$`)

// numbers refuses numbers that YAML reads as others than people do; t is the type that the
// node is decoded into.
func (v *validator) numbers(path string, n *yaml.Node, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.AliasNode:
		v.numbers(path, n.Alias, t)
	case n.Kind == yaml.DocumentNode:
		v.numbers(path, n.Content[0], t)
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, item := range n.Content {
			v.numbers(fmt.Sprintf("%s[%d]", path, i), item, t.Elem())
		}
	case n.Kind == yaml.SequenceNode: // of what is merged into a section
		for _, item := range n.Content {
			v.numbers(path, item, t)
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if key == "<<" {
				v.numbers(path, n.Content[i+1], t)
			}
			for f := range t.Fields() {
				if f.Tag.Get("yaml") == key {
					v.numbers(strings.TrimPrefix(path+"."+key, "."), n.Content[i+1], f.Type)
				}
			}
		}
	case n.Kind == yaml.ScalarNode && (t.Kind() == reflect.Int || t.Kind() == reflect.Int64):
		v.number(path, n)
	}
}

// number checks one number as it is written.
func (v *validator) number(path string, n *yaml.Node) {
	if tag := n.ShortTag(); tag != "!!int" && tag != "!!float" || plainForm.MatchString(n.Value) {
		return
	}
	meant := strings.ReplaceAll(strings.TrimPrefix(n.Value, "+"), "_", "")
	for _, prefix := range []string{"0o", "0x", "0b"} {
		meant = strings.TrimPrefix(meant, prefix)
	}
	if f, err := strconv.ParseFloat(n.Value, 64); err == nil && f == float64(int64(f)) && strings.ContainsAny(meant, ".eE") {
		meant = strconv.FormatInt(int64(f), 10)
	}
	if trimmed := strings.TrimLeft(meant, "0"); trimmed != "" {
		meant = trimmed
	}
	fix := "write a whole number in decimal digits"
	if plainForm.MatchString(meant) {
		fix = "write " + meant
	}
	var read int64
	if n.Decode(&read) == nil && strconv.FormatInt(read, 10) != meant {
		fix = fmt.Sprintf("YAML reads it as %d; %s", read, fix)
	}
	v.add(path, "%s is no plain number: %s", clip(n.Value), fix)
}
