package processor

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// sleeper is a run on a machine that stands still at a point, and whose clocks stand
// still with it: it does not know that its lease is over.
type sleeper struct {
	*machine
	ended chan error
}

func (w *world) sleeper(period pipeline.Period, points int, at string) *sleeper {
	s := &sleeper{w.machine(), make(chan error, 1)}
	s.pauseAt = at
	stopped := w.time()
	s.clock = func() time.Time { return stopped }
	go func() {
		_, err := s.runner.Run(context.Background(), name, period, Request{}, func(ctx context.Context, run Run) (Output, error) {
			s.reach("read")
			return making(points, 2)(ctx, run)
		})
		s.ended <- err
	}()
	select {
	case <-s.paused:
	case err := <-s.ended:
		w.t.Fatalf("%s ended before %s: %v", period, at, err)
	}
	return s
}

// wake lets it go on to its end.
func (s *sleeper) wake() { close(s.resume); <-s.ended }

// steps are those of a run that has the lock.
var steps = []string{"take", "read", "stage", "write", "record", "release"}

// A zombie stands still before each of its steps. Its successor takes over the lock and stands
// still before each of its own steps. Then both wake, or have died, and a third runs, in each
// order. The rows in the table are never replaced by older ones. In the end they are the
// rows of the third.
func TestF27_NoOrderOfAZombieAndItsSuccessorsLeavesALateWrite(t *testing.T) {
	atOnce := make(chan struct{}, 2) // each has an emulator, which takes its memory
	for _, zombie := range steps {
		for half := range slices.Chunk(steps, 2) {
			t.Run(fmt.Sprintf("%s_%v", zombie, half), func(t *testing.T) {
				t.Parallel()
				atOnce <- struct{}{}
				t.Cleanup(func() { <-atOnce })
				w := worldOf(t, warehousetest.Alone(t))
				period := pipeline.Period("2026-06-01")
				for _, successor := range half {
					for _, order := range orders {
						w.wakeIn(period, zombie, successor, order)
						period = w.pipeline.Calendar.Add(period, 1)
					}
				}
			})
		}
	}
}

// orders in which they wake. After the third both are fenced, so that their order does not
// matter any more. A run that has died is like a run that wakes after the third.
var orders = [][]string{{"zombie", "successor", "third"}, {"successor", "zombie", "third"}, {"zombie", "third", "successor"},
	{"successor", "third", "zombie"}, {"third", "successor", "zombie"}}

func (w *world) wakeIn(period pipeline.Period, zombie, successor string, order []string) {
	w.t.Helper()
	sleepers := map[string]*sleeper{"zombie": w.sleeper(period, 10, zombie)}
	w.advance(lease.Max + lease.Max/10)
	sleepers["successor"] = w.sleeper(period, 20, successor)
	w.advance(lease.Max + lease.Max/10)
	newest := int64(-1)
	for _, who := range order {
		if s := sleepers[who]; s != nil {
			s.wake()
		} else if _, err := w.machine().run(period, Request{}, making(30, 2)); err != nil {
			w.t.Errorf("zombie before %s, successor before %s, %v: %v", zombie, successor, order, err)
		}
		row := w.Ask("SELECT IFNULL(MIN(points), -1), IFNULL(MAX(points), -1), COUNT(*) - COUNT(DISTINCT player_lookup) FROM nba_analytics.player_game_summary WHERE game_date = DATE '" + string(period) + "'")
		if row[0] != row[1] || row[2] != int64(0) || row[0].(int64) < newest {
			w.t.Errorf("zombie before %s, successor before %s, %v: after %s: %v, and before it %d", zombie, successor, order, who, row, newest)
		}
		newest = row[0].(int64)
	}
	w.want(period, "2 2 30 30")
}
