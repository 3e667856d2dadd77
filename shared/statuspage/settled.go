package statuspage

import (
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// keepFor is how long a settled period is shown as it was read.
const keepFor = 10 * time.Minute

// settled are the periods that only an operator can change: trigger_within is over, and each cycle is
// handed over or closed. A pipeline by the hour has thousands of them, and to read them again for each
// request costs more than the rest of the page.
type settled struct {
	mu   sync.Mutex
	kept map[keptPeriod]kept
}

type keptPeriod struct {
	t *pipeline.Transition
	p pipeline.Period
}

type kept struct {
	at      time.Time // of the read
	managed cycle.Managed
	cycles  []*shown
}

// upTo returns the cycles of the window's first periods that are kept, the period at which the read
// has to begin, and the time of the oldest of those reads.
func (k *settled) upTo(t *pipeline.Transition, from, to pipeline.Period, m cycle.Managed, now time.Time) (cycles []*shown, next pipeline.Period, oldest time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, one := range k.kept {
		if age := now.Sub(one.at); age < 0 || age >= keepFor || one.managed.Since != m.Since || !one.managed.At.Equal(m.At) {
			if key.t == t {
				delete(k.kept, key)
			}
		}
	}
	for next = from; next < to; next = t.Calendar().Add(next, 1) {
		one, ok := k.kept[keptPeriod{t, next}]
		if !ok {
			break
		}
		if cycles = append(cycles, one.cycles...); oldest.IsZero() || one.at.Before(oldest) {
			oldest = one.at
		}
	}
	return cycles, next, oldest
}

// add keeps a period that was read at a time, if it is settled.
func (k *settled) add(t *pipeline.Transition, p pipeline.Period, m cycle.Managed, at time.Time, cycles []*shown) {
	if !at.After(t.LastInTime(p)) {
		return
	}
	for _, c := range cycles {
		if rank(c.kind) < rank(kindWithoutAll) && !c.Early {
			return
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept == nil {
		k.kept = map[keptPeriod]kept{}
	}
	k.kept[keptPeriod{t, p}] = kept{at, m, cycles}
}
