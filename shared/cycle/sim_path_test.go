//go:build unix && !race

package cycle

import (
	"strings"

	"github.com/phasegate/phasegate/shared/pathtest"
)

// simPath is one path through the tree of all choices: which thread continues at each
// call, and whether the process dies there.
type simPath struct {
	pathtest.Path
	crash bool // may still happen
	left  int  // preemptions
	dead  *simThread
}

// restart goes back to the root, with what one path of a layout may spend.
func (p *simPath) restart(preemptions, layout int) {
	if strings.ContainsAny(simLayouts[layout][0]+simLayouts[layout][1], "HRTF") {
		preemptions--
	}
	*p = simPath{Path: p.Path.Restart(), crash: true, left: preemptions}
}

// fault is whether the process dies at the call that a thread makes: once on a path.
func (p *simPath) fault(th *simThread) simFault {
	if !p.crash {
		return simHealthy
	}
	switch p.Choose(3) {
	case 1:
		p.crash, p.dead = false, th
		return simDiesBefore
	case 2:
		p.crash, p.dead = false, th
		return simDiesAfter
	}
	return simHealthy
}
