package processor

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
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
		_, err := s.runner.Run(context.Background(), name, period, Request{}, making(points, 2))
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

// A zombie stands still before it stages its rows, or before it writes them;
// its successor takes its lock over and stands still before it writes; then they wake, and
// a third runs, in one order or another. What stands in the table is never older than what
// stood there, and in the end it is the third's.
func TestF27_NoOrderOfAZombieAndItsSuccessorsLeavesALateWrite(t *testing.T) {
	w := newWorld(t)
	// The emulator gets slower with each table, of which a write makes one.
	points := [][2]string{{"table", "write"}, {"write", "write"}}
	orders := [][]string{{"zombie", "successor", "third"}, {"successor", "zombie", "third"}, {"zombie", "third", "successor"}, {"third", "successor", "zombie"}}
	n := 0
	for _, at := range points {
		first, second := at[0], at[1]
		for _, order := range orders {
			period := w.pipeline.Calendar.Add("2026-06-01", n)
			n++
			t.Run(fmt.Sprintf("%s_%s_%v", first, second, order), func(t *testing.T) {
				sleepers := map[string]*sleeper{"zombie": w.sleeper(period, 10, first)}
				w.advance(lease.Max + lease.Max/10)
				sleepers["successor"] = w.sleeper(period, 20, second)
				w.advance(lease.Max + lease.Max/10)
				newest := int64(-1)
				for _, who := range order {
					if s := sleepers[who]; s != nil {
						s.wake()
						delete(sleepers, who)
					} else if _, err := w.machine().run(period, Request{}, making(30, 2)); err != nil {
						t.Fatal(err)
					}
					row := w.Ask("SELECT IFNULL(MIN(points), -1), IFNULL(MAX(points), -1), COUNT(*) - COUNT(DISTINCT player_lookup) FROM nba_analytics.player_game_summary WHERE game_date = DATE '" + string(period) + "'")
					if row[0] != row[1] || row[2] != int64(0) || row[0].(int64) < newest {
						t.Errorf("after %s: %v, and before it %d", who, row, newest)
					}
					newest = row[0].(int64)
				}
				w.want(period, "2 2 30 30")
				for _, s := range sleepers { // who never wakes must not keep the test waiting
					s.wake()
				}
				w.want(period, "2 2 30 30")
			})
		}
	}
}
