package pipeline

import (
	"fmt"
	"maps"
	"slices"
)

// What is stored keeps its name: ids of documents, trigger ids and keys of runs are made of
// the oldest name of a transition, a mode or a processor. Everything that is shown, and what
// a message says of its table and mode, has the present one.

// stored is the name under which something is stored.
func stored(name string, formerly []string) string {
	if len(formerly) > 0 {
		return formerly[0]
	}
	return name
}

// StoredID is the id under which the transition's documents are stored.
func (t *Transition) StoredID() string { return stored(t.ID, t.Formerly) }

// StoredMode returns the name under which a mode's documents are stored; that of a mode
// that the definition does not know is its own.
func (t *Transition) StoredMode(name string) string {
	if m, ok := t.Mode(name); ok {
		return stored(m.Name, m.Formerly)
	}
	return name
}

// PresentMode returns the present name of a mode, for one that it has or had; an unknown
// one stays as it is.
func (t *Transition) PresentMode(name string) string {
	if m, ok := t.Mode(name); ok {
		return m.Name
	}
	return name
}

// Stored returns the name under which the runs of a processor are stored.
func (t *Transition) Stored(processor string) string {
	return stored(processor, t.formerly[processor])
}

// Present returns the present name of a processor, for one that it has or had; an unknown
// one stays as it is.
func (t *Transition) Present(processor string) string {
	if name, had := t.present[processor]; had {
		return name
	}
	return processor
}

// names gathers the names of things of one kind: no two may share one, whether they have it
// or had it.
type names struct {
	v       *validator
	what    string
	present map[string]bool
	former  map[string]string // to the path that says so first
}

func (v *validator) names(what string) *names {
	return &names{v: v, what: what, present: map[string]bool{}, former: map[string]string{}}
}

// formerly checks the former names of one; when every one is added, done compares them with
// the present ones.
func (n *names) formerly(path, name string, former []string) {
	n.present[name] = true
	for i, old := range former {
		at := fmt.Sprintf("%s.formerly[%d]", path, i)
		n.v.name(at, old)
		if first, dup := n.former[old]; dup {
			n.v.add(at, "%q is a former name already, at %s: write it once", clip(old), first)
			continue
		}
		n.former[old] = at
	}
}

func (n *names) done() {
	for _, old := range slices.Sorted(maps.Keys(n.former)) {
		if n.present[old] {
			n.v.add(n.former[old], "%q is the name of a %s now: give that one a name that was never used", clip(old), n.what)
		}
	}
}

// Formers returns the names that a processor had; nil: the definition does not say.
func (t *Transition) Formers(processor string) []string { return t.formerly[processor] }
