//go:build unix && !race

package cycle

import (
	"fmt"
	"strconv"
	"strings"
)

// simPath is one path through the tree of everything that can be chosen: who goes on
// at each call, and whether the process dies there. next leads from path to path until
// all have been taken.
type simPath struct {
	choices []simChoice
	pos     int
	crash   bool // may still come
	left    int  // preemptions
	dead    *simThread
}

type simChoice struct{ taken, of int }

// restart goes back to the root, with what one path of a layout may spend.
func (p *simPath) restart(preemptions, layout int) {
	if strings.ContainsAny(simLayouts[layout][0]+simLayouts[layout][1], "HRTF") {
		preemptions--
	}
	*p = simPath{choices: p.choices, crash: true, left: preemptions}
}

// choose returns what the path takes of n ways: the first at a point not seen before.
func (p *simPath) choose(n int) int {
	if p.pos == len(p.choices) {
		p.choices = append(p.choices, simChoice{of: n})
	}
	c := &p.choices[p.pos]
	if c.of == 0 { // of a schedule that is replayed
		c.of = n
	}
	if c.of != n || c.taken >= n {
		panic(fmt.Sprintf("choice %d of %s is one of %d, was one of %d: the world does not follow from its choices", p.pos, p, n, c.of))
	}
	p.pos++
	return c.taken
}

// next turns to the next path; false when there is none.
func (p *simPath) next() bool {
	for n := len(p.choices); n > 0; n = len(p.choices) {
		if last := &p.choices[n-1]; last.taken+1 < last.of {
			last.taken++
			return true
		}
		p.choices = p.choices[:n-1]
	}
	return false
}

// fault is whether the process dies at the call that a thread makes: once on a path.
func (p *simPath) fault(th *simThread) simFault {
	if !p.crash {
		return simHealthy
	}
	switch p.choose(3) {
	case 1:
		p.crash, p.dead = false, th
		return simDiesBefore
	case 2:
		p.crash, p.dead = false, th
		return simDiesAfter
	}
	return simHealthy
}

func (p *simPath) String() string {
	var b strings.Builder
	for _, c := range p.choices {
		b.WriteString(strconv.Itoa(c.taken))
	}
	return b.String()
}
