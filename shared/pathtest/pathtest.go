// Package pathtest takes every path through a tree of choices, one after another: the schedules of
// a simulation. The world has to follow from the choices alone.
package pathtest

import (
	"fmt"
	"strconv"
	"strings"
)

// Path is one path: what was taken at each point, of how many ways. Its zero value is the first one.
type Path struct {
	choices []choice
	pos     int
}

type choice struct{ taken, of int }

// Parse returns the path that String has printed.
func Parse(choices string) (Path, error) {
	var p Path
	for i, c := range choices {
		if c < '0' || c > '9' {
			return Path{}, fmt.Errorf("choice %d of %q: %q is no digit", i, choices, c)
		}
		p.choices = append(p.choices, choice{taken: int(c - '0')})
	}
	return p, nil
}

// Restart returns the path at its root, to be taken again.
func (p Path) Restart() Path { return Path{choices: p.choices} }

// Choose returns what the path takes of n ways, at most ten: the first at a point not seen before.
// It panics if the world differs from the one before.
func (p *Path) Choose(n int) int {
	if p.pos == len(p.choices) {
		p.choices = append(p.choices, choice{of: n})
	}
	c := &p.choices[p.pos]
	if c.of == 0 { // of a path that was parsed
		c.of = n
	}
	if c.of != n || c.taken >= n {
		panic(fmt.Sprintf("choice %d of %s is one of %d, was one of %d: the world does not follow from its choices", p.pos, p, n, c.of))
	}
	p.pos++
	return c.taken
}

// Next turns to the next path; false when there is none.
func (p *Path) Next() bool {
	for n := len(p.choices); n > 0; n = len(p.choices) {
		if last := &p.choices[n-1]; last.taken+1 < last.of {
			last.taken++
			return true
		}
		p.choices = p.choices[:n-1]
	}
	return false
}

func (p *Path) String() string {
	var b strings.Builder
	for _, c := range p.choices {
		b.WriteString(strconv.Itoa(c.taken))
	}
	return b.String()
}
