package lease

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// The model of one lock, for the check of histories. Times are the server's, in
// microseconds.

type call struct {
	kind      string // acquire, renew, release, inspect
	execution string
	at        int64 // when it began: nothing that it does has an earlier stamp
}

type answer struct {
	result  string // ok, held, lost, unknown; unknown ones may take effect at any later time, or never
	holder  string // of held and inspect
	version int64  // of ok
	sure    bool   // nothing went wrong on the way
}

// lock is a state: who has it, since when at the earliest, and the newest version seen.
type lock struct {
	execution string
	stamp     int64
	newest    int64
}

// locking returns the model of a lock with a lease. A stamp is in milliseconds, not from
// before its call, and may lie before its commit's version by slack at most.
func locking(lease, slack int64) porcupine.Model {
	free := func(l lock) lock { return lock{newest: l.newest} }
	written := func(c call, a answer) []any {
		return []any{lock{c.execution, max(c.at-1000, a.version-slack), a.version}}
	}
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{lock{}} },
		Step: func(state, input, output any) []any {
			l, c, a := state.(lock), input.(call), output.(answer)
			mine := l.execution == c.execution
			switch c.kind + " " + a.result {
			case "acquire ok":
				if a.version <= l.newest || l.execution != "" && l.stamp+lease >= a.version {
					return nil
				}
				return written(c, a)
			case "acquire held", "inspect ok":
				if l.execution != a.holder {
					return nil
				}
				return []any{l}
			case "acquire unknown":
				return []any{l, lock{c.execution, c.at - 1000, l.newest}}
			case "renew ok":
				if !mine || a.version < l.newest { // in the millisecond of the last one, it changes nothing
					return nil
				}
				return written(c, a)
			case "renew lost":
				if mine {
					return nil
				}
				return []any{l}
			case "renew unknown":
				if !mine {
					return []any{l}
				}
				return []any{l, lock{c.execution, max(l.stamp, c.at-1000), l.newest}}
			case "release ok":
				if mine {
					return []any{free(l)}
				}
				if a.sure {
					return nil
				}
				return []any{l}
			case "release lost", "release unknown":
				if mine {
					return []any{l, free(l)}
				}
				return []any{l}
			}
			panic(fmt.Sprintf("%v %v", c, a))
		},
		Equal: func(a, b any) bool { return a == b },
		DescribeOperation: func(input, output any) string {
			c, a := input.(call), output.(answer)
			s := fmt.Sprintf("%s %s: %s", c.kind, c.execution, a.result)
			if a.result == "held" || c.kind == "inspect" {
				s += fmt.Sprintf(" by %q", a.holder)
			}
			if a.version > 0 {
				s += fmt.Sprintf(" at %d", a.version)
			}
			return s
		},
		DescribeState: func(state any) string { return fmt.Sprintf("%+v", state) },
	}
	return m.ToModel()
}
